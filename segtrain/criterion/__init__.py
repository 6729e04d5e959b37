"""From the outputs of a model to losses: weights, targets, strips."""

from segtrain.criterion.build import build_criterion
from segtrain.criterion.criterion import Criterion, CriterionReport, Task

__all__ = ["Criterion", "CriterionReport", "Task", "build_criterion"]
