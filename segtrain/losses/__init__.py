"""The losses, the minings that reduce them, and their registries."""

from segtrain.losses.base import Loss, PixelLoss, RegionLoss, Term
from segtrain.losses.binary import BinaryCrossEntropy
from segtrain.losses.combination import WeightedSum
from segtrain.losses.cross_entropy import CrossEntropy, Focal
from segtrain.losses.mining import MININGS, MeanMining, Mining, OhemMining
from segtrain.losses.region import Dice, Jaccard
from segtrain.losses.registry import LOSSES, register_loss

__all__ = [
    "LOSSES",
    "MININGS",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Dice",
    "Focal",
    "Jaccard",
    "Loss",
    "MeanMining",
    "Mining",
    "OhemMining",
    "PixelLoss",
    "RegionLoss",
    "Term",
    "WeightedSum",
    "register_loss",
]
