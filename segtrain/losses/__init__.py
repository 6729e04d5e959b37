"""The losses, the minings that reduce them, and their registries."""

from segtrain.losses.asymmetric import Asymmetric
from segtrain.losses.base import Loss, Term
from segtrain.losses.binary import BinaryCrossEntropy, QualityFocal, SigmoidFocal
from segtrain.losses.boundary import Boundary, DistanceWeightedCrossEntropy, HausdorffDT
from segtrain.losses.boxes import box_iou, ciou, diou, giou
from segtrain.losses.class_map import ClassMapLoss
from segtrain.losses.combination import WeightedSum
from segtrain.losses.confusion import MatthewsCorrelation, SensitivitySpecificity
from segtrain.losses.cross_entropy import CrossEntropy, Focal, GeneralizedCrossEntropy, Poly1
from segtrain.losses.divergence import JSDivergence, KLDivergence
from segtrain.losses.ghm import GhmMining
from segtrain.losses.lovasz import LovaszHinge, LovaszSoftmax
from segtrain.losses.mining import MININGS, MeanMining, Mining
from segtrain.losses.overlap import (
    Dice,
    FocalTversky,
    GeneralizedDice,
    Jaccard,
    LogCoshDice,
    Tversky,
)
from segtrain.losses.pixel import PixelLoss, TargetProbabilityLoss
from segtrain.losses.ranking import HardNegativeMining, OhemMining, TopKMining
from segtrain.losses.region import RegionLoss, RegionSums
from segtrain.losses.registry import LOSSES, register_loss
from segtrain.losses.regression import SmoothL1
from segtrain.losses.relaxation import LabelRelaxation
from segtrain.losses.rmi import RegionMutualInformation
from segtrain.losses.targets import (
    TARGETS,
    BoundaryTarget,
    DerivedTarget,
    DistanceTarget,
    register_target,
)
from segtrain.losses.topology import CenterlineDice

__all__ = [
    "LOSSES",
    "MININGS",
    "TARGETS",
    "Asymmetric",
    "BinaryCrossEntropy",
    "Boundary",
    "BoundaryTarget",
    "CenterlineDice",
    "ClassMapLoss",
    "CrossEntropy",
    "DerivedTarget",
    "Dice",
    "DistanceTarget",
    "DistanceWeightedCrossEntropy",
    "Focal",
    "FocalTversky",
    "GeneralizedCrossEntropy",
    "GeneralizedDice",
    "GhmMining",
    "HardNegativeMining",
    "HausdorffDT",
    "JSDivergence",
    "Jaccard",
    "KLDivergence",
    "LabelRelaxation",
    "LogCoshDice",
    "Loss",
    "LovaszHinge",
    "LovaszSoftmax",
    "MatthewsCorrelation",
    "MeanMining",
    "Mining",
    "OhemMining",
    "PixelLoss",
    "Poly1",
    "QualityFocal",
    "RegionLoss",
    "RegionMutualInformation",
    "RegionSums",
    "SensitivitySpecificity",
    "SigmoidFocal",
    "SmoothL1",
    "TargetProbabilityLoss",
    "Term",
    "TopKMining",
    "Tversky",
    "WeightedSum",
    "box_iou",
    "ciou",
    "diou",
    "giou",
    "register_loss",
    "register_target",
]
