"""Hooks: code that watches a run, and may stop it."""

from segtrain.engine.hooks.base import HOOKS, Hook, Watched
from segtrain.engine.hooks.chosen import Hooks
from segtrain.engine.hooks.early_stopping import EarlyStopping, score_of
from segtrain.engine.hooks.mlflow import MLflow
from segtrain.engine.hooks.profile import Profile
from segtrain.engine.hooks.trackio import Trackio
from segtrain.engine.hooks.wandb import Wandb

__all__ = [
    "HOOKS",
    "EarlyStopping",
    "Hook",
    "Hooks",
    "MLflow",
    "Profile",
    "Trackio",
    "Wandb",
    "Watched",
    "score_of",
]
