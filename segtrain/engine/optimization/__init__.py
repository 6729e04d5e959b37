"""Optimizers and learning-rate schedules, by name."""

# Importing the modules registers their optimizers.
from segtrain.engine.optimization.muon import MuonWithAdamW
from segtrain.engine.optimization.optimizers import OPTIMIZERS
from segtrain.engine.optimization.schedules import SCHEDULERS
from segtrain.engine.optimization.timm import timm_optimizer

__all__ = ["OPTIMIZERS", "SCHEDULERS", "MuonWithAdamW", "timm_optimizer"]
