"""Sweeps: several runs from one command line, with Hydra's sweepers and launchers."""

from segtrain.cli.sweep.plan import Sweep, plan_sweep
from segtrain.cli.sweep.run import train_many

__all__ = ["Sweep", "plan_sweep", "train_many"]
