"""The criterion: losses over the outputs of a model, with weights, targets and strips."""

from segtrain.criterion.build import build_criterion
from segtrain.criterion.criterion import Criterion, CriterionReport, Task

__all__ = ["Criterion", "CriterionReport", "Task", "build_criterion"]
