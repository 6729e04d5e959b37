"""Training and evaluation."""

from segtrain.engine.evaluator import Evaluator
from segtrain.engine.optimization import OPTIMIZERS, SCHEDULERS
from segtrain.engine.trainer import Trainer

__all__ = ["OPTIMIZERS", "SCHEDULERS", "Evaluator", "Trainer"]
