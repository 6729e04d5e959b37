"""Hooks: code that watches a run, and may stop it."""

from segtrain.engine.hooks.base import HOOKS, Hook, Watched
from segtrain.engine.hooks.chosen import Hooks
from segtrain.engine.hooks.early_stopping import EarlyStopping, score_of

__all__ = ["HOOKS", "EarlyStopping", "Hook", "Hooks", "Watched", "score_of"]
