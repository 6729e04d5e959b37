"""The losses, hard-example mining, and their registries."""

from segtrain.losses.base import Loss, Term
from segtrain.losses.boxes import box_iou, ciou, diou, giou
from segtrain.losses.class_map.boundary import Boundary, HausdorffDT
from segtrain.losses.class_map.centerline import CenterlineDice
from segtrain.losses.class_map.lovasz import LovaszHinge, LovaszSoftmax
from segtrain.losses.class_map.rmi import RegionMutualInformation
from segtrain.losses.combination import WeightedSum
from segtrain.losses.families.class_map import ClassMapLoss
from segtrain.losses.families.pixel import PixelLoss, TargetProbabilityLoss
from segtrain.losses.families.region import RegionLoss, RegionSums
from segtrain.losses.mining.base import MININGS, MeanMining, Mining
from segtrain.losses.mining.ghm import GhmMining
from segtrain.losses.mining.ranking import HardNegativeMining, OhemMining, TopKMining
from segtrain.losses.pixel.asymmetric import Asymmetric
from segtrain.losses.pixel.binary import BinaryCrossEntropy, QualityFocal, SigmoidFocal
from segtrain.losses.pixel.cross_entropy import CrossEntropy, Focal, GeneralizedCrossEntropy, Poly1
from segtrain.losses.pixel.distance_weighted import DistanceWeightedCrossEntropy
from segtrain.losses.pixel.divergence import JSDivergence, KLDivergence
from segtrain.losses.pixel.regression import SmoothL1
from segtrain.losses.pixel.relaxation import LabelRelaxation
from segtrain.losses.region.overlap import (
    Dice,
    FocalTversky,
    GeneralizedDice,
    Jaccard,
    LogCoshDice,
    Tversky,
)
from segtrain.losses.region.true_negatives import MatthewsCorrelation, SensitivitySpecificity
from segtrain.losses.registry import LOSSES, register_loss
from segtrain.losses.targets import (
    TARGETS,
    BoundaryTarget,
    DerivedTarget,
    DistanceTarget,
    register_target,
)

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
