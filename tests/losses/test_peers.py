"""Second implementations: the losses of other libraries give the same values and gradients.

``pip install -e ".[peers]"`` installs the libraries and ``make test-slow`` runs these tests; the
tests of a missing library are skipped. Each test states the parameters for which both are equal, or
how their definitions differ. Labels are random and, if CamVid is available, real.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.losses import Loss, box_iou, ciou, diou, giou

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the peers, most of them at import
]

C, IGNORE = 11, 255
Lossy = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(scope="module")
def smp() -> Any:
    return pytest.importorskip("segmentation_models_pytorch").losses


@pytest.fixture(scope="module")
def monai() -> Any:
    return pytest.importorskip("monai.losses")


@pytest.fixture(scope="module")
def kornia() -> Any:
    return pytest.importorskip("kornia.losses")


@pytest.fixture(params=["random", "camvid"])
def ids(request: pytest.FixtureRequest) -> Tensor:
    """``(2, 30, 40)`` with ignored pixels; some classes are absent from the real labels."""
    if request.param == "random":
        target = torch.randint(0, C, (2, 30, 40), generator=torch.Generator().manual_seed(0))
        target[0, 3:8, 5:20] = IGNORE
        return target
    masks = sorted((request.getfixturevalue("camvid_root") / "masks" / "train").iterdir())
    arrays = [np.array(Image.open(masks[index]))[::12, ::12] for index in (0, 300)]
    target = torch.from_numpy(np.stack(arrays)).long()
    target = torch.where(target == C, IGNORE, target)  # 11 is void
    assert target.shape == (2, 30, 40)
    assert not is_present(target).all()
    return target


@pytest.fixture
def filled(ids: Tensor) -> Tensor:
    """For peers without an ignore label."""
    return torch.where(ids == IGNORE, 0, ids)


@pytest.fixture
def binary(filled: Tensor) -> Tensor:
    return filled % 2


@pytest.fixture
def multi_hot(filled: Tensor) -> Tensor:
    """Several classes per pixel: its own and that of a pixel of another image."""
    return torch.maximum(one_hot(filled), one_hot(filled.flip(0)))


@pytest.fixture
def logits() -> Tensor:
    return random(2, C, 30, 40)


@pytest.fixture
def one(logits: Tensor) -> Tensor:
    """One channel."""
    return logits[:, :1]


def random(*size: int, seed: int = 1, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator) * scale


def one_hot(ids: Tensor, num_classes: int = C) -> Tensor:
    return F.one_hot(ids, num_classes).movedim(-1, 1).double()


def ours(name: str, *, num_classes: int = C, **params: Any) -> Loss:
    return segtrain.build_loss(
        {"name": name, **params}, num_classes=num_classes, ignore_label=IGNORE
    )


def both(loss: Lossy, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target).to(leaf.dtype)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def agree(
    loss: Lossy,
    peer: Lossy,
    logits: Tensor,
    target: Tensor,
    factor: float | Tensor = 1.0,
    *,
    given: Tensor | None = None,
    rtol: float = 1e-7,
) -> None:
    """Assert that `factor` times value and gradient of `loss` are those of `peer` for `given`."""
    found = both(lambda z, t: factor * loss(z, t), logits, target)
    expected = both(peer, logits, target if given is None else given)
    assert expected[0].isfinite()
    assert expected[1].abs().max() > 0
    torch.testing.assert_close(found[0], expected[0], rtol=rtol, atol=0)
    # elementwise, except for rounding of gradients far below the others
    atol = rtol * expected[1].abs().max().item()
    torch.testing.assert_close(found[1], expected[1], rtol=rtol, atol=atol)


def weights_of(num_classes: int = C) -> list[float]:
    return [0.5 + 0.25 * index for index in range(num_classes)]


def is_present(ids: Tensor) -> Tensor:
    return torch.bincount(ids[ids != IGNORE], minlength=C) > 0


class TestTorch:
    @pytest.mark.parametrize("weights", [None, weights_of()])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_cross_entropy(
        self, weights: list[float] | None, smoothing: float, logits: Tensor, ids: Tensor
    ) -> None:
        weight = None if weights is None else torch.tensor(weights).double()
        peer = torch.nn.CrossEntropyLoss(weight, ignore_index=IGNORE, label_smoothing=smoothing)
        loss = ours("cross_entropy", class_weights=weights, label_smoothing=smoothing)
        agree(loss, peer, logits, ids)

    def test_soft_cross_entropy(self, logits: Tensor) -> None:
        target = random(2, C, 30, 40, seed=2).softmax(1)
        agree(ours("cross_entropy"), torch.nn.CrossEntropyLoss(), logits, target)

    @pytest.mark.parametrize("pos_weight", [1.0, weights_of()])
    def test_bce(
        self,
        pos_weight: float | list[float],
        logits: Tensor,
        filled: Tensor,
        multi_hot: Tensor,
    ) -> None:
        # torch broadcasts weights along the last axis, unless they have further axes.
        weight = torch.tensor(pos_weight).double().expand(C)[:, None, None]
        peer = torch.nn.BCEWithLogitsLoss(pos_weight=weight)
        loss = ours("bce", pos_weight=pos_weight)
        agree(loss, peer, logits, filled, given=one_hot(filled))
        agree(loss, peer, logits, multi_hot)

    @pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
    def test_smooth_l1(self, beta: float, logits: Tensor, filled: Tensor) -> None:
        peer = torch.nn.SmoothL1Loss(beta=beta)
        loss = ours("smooth_l1", beta=beta)
        agree(loss, peer, logits, random(2, C, 30, 40, seed=2))
        agree(loss, lambda z, t: peer(z.softmax(1), t), logits, filled, given=one_hot(filled))

    @pytest.mark.parametrize("temperature", [1.0, 3.0])
    def test_kl_div(self, temperature: float, logits: Tensor) -> None:
        # "batchmean" divides by the first dimension, so pixels come first.
        teacher = random(2, C, 30, 40, seed=2)

        def peer(z: Tensor, t: Tensor) -> Tensor:
            rows = [(part / temperature).movedim(1, -1).flatten(0, 2) for part in (z, t)]
            p, q = (row.log_softmax(1) for row in rows)
            value = F.kl_div(p, q, reduction="batchmean", log_target=True)
            return value * temperature**2

        loss = ours("kl_divergence", target_logits=True, temperature=temperature)
        agree(loss, peer, logits, teacher)
        soft = (teacher / temperature).softmax(1)
        agree(ours("kl_divergence", temperature=temperature), peer, logits, soft, given=teacher)


class TestTorchvision:
    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
    def test_sigmoid_focal(
        self,
        alpha: float | None,
        gamma: float,
        logits: Tensor,
        filled: Tensor,
        multi_hot: Tensor,
    ) -> None:
        def peer(z: Tensor, t: Tensor) -> Tensor:
            weight = -1 if alpha is None else alpha
            value = torchvision.ops.sigmoid_focal_loss(z, t, weight, gamma, reduction="mean")
            assert isinstance(value, Tensor)
            return value

        loss = ours("sigmoid_focal", alpha=alpha, gamma=gamma)
        agree(loss, peer, logits, filled, given=one_hot(filled))
        agree(loss, peer, logits, multi_hot)

    @pytest.mark.parametrize(
        ("loss", "pairs", "peer"),
        [
            (box_iou, torchvision.ops.box_iou, None),
            (
                giou,
                torchvision.ops.generalized_box_iou,
                torchvision.ops.generalized_box_iou_loss,
            ),
            (diou, torchvision.ops.distance_box_iou, torchvision.ops.distance_box_iou_loss),
            (ciou, torchvision.ops.complete_box_iou, torchvision.ops.complete_box_iou_loss),
        ],
    )
    def test_boxes(self, loss: Any, pairs: Any, peer: Any) -> None:
        corners = torch.rand(2, 99, 2, 2, generator=torch.Generator().manual_seed(0)).double()
        boxes, target = 640 * torch.cat([corners.amin(2), corners.amax(2) + 0.01], 2)
        found, gradient = both(loss, boxes, target)
        # One minus the diagonal of the scores of all pairs; torchvision adds 1e-7 to areas.
        score = pairs(boxes, target).diag()
        torch.testing.assert_close(found, (1 - score).mean(), rtol=1e-7, atol=0)
        if peer is not None:
            expected = both(lambda z, t: peer(z, t, reduction="mean"), boxes, target)
            torch.testing.assert_close((found, gradient), expected, rtol=1e-6, atol=1e-9)


class TestSmp:
    """segmentation_models_pytorch: sums over the batch, as here; `smooth` in units of TP.

    Its mean is over all classes, with 0 for absent classes, which ours leaves out. So the two
    differ by the share of the weights that belongs to present classes.
    """

    def share(self, ids: Tensor, weights: list[float] | None) -> float:
        of_class = torch.tensor(weights or [1.0] * C)
        return (of_class[is_present(ids)].sum() / of_class.sum()).item()

    @pytest.mark.parametrize("weights", [None, weights_of()])
    @pytest.mark.parametrize("log", [False, True])
    @pytest.mark.parametrize("smooth", [0.0, 3.0])
    def test_regions(
        self,
        smooth: float,
        log: bool,
        weights: list[float] | None,
        smp: Any,
        logits: Tensor,
        ids: Tensor,
    ) -> None:
        theirs = {
            "mode": "multiclass",
            "smooth": smooth,
            "log_loss": log,
            "ignore_index": IGNORE,
            "class_weights": weights,
        }
        factor = self.share(ids, weights)
        # TP + s over TP + (FP + FN) / 2 + s: twice that for dice, which counts TP twice
        common: dict[str, Any] = {"log": log, "class_weights": weights}
        loss = ours("dice", smooth=2 * smooth, **common)
        agree(loss, smp.DiceLoss(**theirs), logits, ids, factor)
        loss = ours("jaccard", smooth=smooth, **common)
        agree(loss, smp.JaccardLoss(**theirs), logits, ids, factor)
        loss = ours("tversky", alpha=0.2, beta=0.9, smooth=2 * smooth, **common)
        agree(loss, smp.TverskyLoss(alpha=0.2, beta=0.9, **theirs), logits, ids, factor)

    def test_chosen_classes(self, smp: Any, logits: Tensor, filled: Tensor) -> None:
        chosen = is_present(filled).nonzero().flatten().tolist()[1::2]
        loss = ours("dice", smooth=0.0, classes=chosen)
        agree(loss, smp.DiceLoss("multiclass", classes=chosen), logits, filled)

    def test_one_channel(self, smp: Any, one: Tensor, binary: Tensor) -> None:
        for name, peer in (("dice", smp.DiceLoss), ("jaccard", smp.JaccardLoss)):
            agree(ours(name, num_classes=1, smooth=0.0), peer("binary"), one, binary)
        # Its gamma is the exponent, ours one over it; of several classes it takes the mean first.
        loss = ours("focal_tversky", num_classes=1, alpha=0.3, beta=0.7, gamma=4 / 3, smooth=0.0)
        agree(loss, smp.TverskyLoss("binary", alpha=0.3, beta=0.7, gamma=0.75), one, binary)

    def test_multi_label(self, smp: Any, logits: Tensor, multi_hot: Tensor) -> None:
        factor = multi_hot.any(0).flatten(1).any(1).double().mean()
        for name, peer in (("dice", smp.DiceLoss), ("jaccard", smp.JaccardLoss)):
            loss = ours(name, activation="sigmoid", smooth=0.0)
            agree(loss, peer("multilabel"), logits, multi_hot, factor)

    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_focal(
        self,
        alpha: float | None,
        gamma: float,
        smp: Any,
        logits: Tensor,
        ids: Tensor,
        multi_hot: Tensor,
    ) -> None:
        # Also for multiclass targets, it treats each class as a binary problem.
        loss = ours("sigmoid_focal", alpha=alpha, gamma=gamma)
        peer = smp.FocalLoss("multiclass", alpha=alpha, gamma=gamma, ignore_index=IGNORE)
        agree(loss, peer, logits, ids)
        agree(loss, smp.FocalLoss("multilabel", alpha=alpha, gamma=gamma), logits, multi_hot)

    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_softmax_focal(self, gamma: float, smp: Any, logits: Tensor, filled: Tensor) -> None:
        functional = pytest.importorskip("segmentation_models_pytorch.losses._functional")

        def peer(z: Tensor, t: Tensor) -> Tensor:
            value = functional.softmax_focal_loss_with_logits(z, t, gamma=gamma)
            assert isinstance(value, Tensor)
            return value

        agree(ours("focal", gamma=gamma), peer, logits, filled)

    @pytest.mark.parametrize("per_image", [False, True])
    def test_lovasz(
        self, per_image: bool, smp: Any, logits: Tensor, ids: Tensor, one: Tensor, binary: Tensor
    ) -> None:
        # The authors' code, only in float32: the slopes are differences of losses near 1, with an
        # error of 6e-8.
        loss = ours("lovasz_softmax", per_image=per_image)
        peer = smp.LovaszLoss("multiclass", per_image=per_image, ignore_index=IGNORE)
        agree(loss, peer, logits.float(), ids, rtol=1e-3)
        loss = ours("lovasz_hinge", num_classes=1, per_image=per_image)
        peer = smp.LovaszLoss("binary", per_image=per_image)
        agree(loss, peer, one.float(), binary, rtol=1e-3)

    def test_soft_bce(self, smp: Any, logits: Tensor, ids: Tensor) -> None:
        valid = (ids != IGNORE)[:, None]
        hot = one_hot(torch.where(ids == IGNORE, 0, ids))
        # It divides by the ignored pixels too, and its factor 0.1 makes 0.1 and 0.9 of 0 and 1.
        theirs = torch.where(valid, hot, IGNORE)
        softened = torch.where(valid, 0.1 + 0.8 * hot, torch.nan)
        peer = smp.SoftBCEWithLogitsLoss(ignore_index=IGNORE, smooth_factor=0.1)
        agree(ours("bce"), peer, logits, softened, valid.double().mean(), given=theirs)
        weight = torch.tensor(weights_of()).double()[:, None, None]
        peer = smp.SoftBCEWithLogitsLoss(ignore_index=IGNORE, pos_weight=weight)
        loss = ours("bce", pos_weight=weights_of())
        agree(loss, peer, logits, ids, valid.double().mean(), given=theirs)

    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    def test_soft_ce(self, smoothing: float, smp: Any, logits: Tensor, ids: Tensor) -> None:
        # It divides by the ignored pixels too.
        factor = (ids != IGNORE).double().mean()
        peer = smp.SoftCrossEntropyLoss(smooth_factor=smoothing, ignore_index=IGNORE)
        agree(ours("cross_entropy", label_smoothing=smoothing), peer, logits, ids, factor)

    def test_mcc(self, smp: Any, one: Tensor, binary: Tensor) -> None:
        # It takes probabilities and smooths four counts, ours smooths two; neither does here.
        peer = smp.MCCLoss(eps=0.0)
        loss = ours("mcc", num_classes=1, smooth=0.0)
        agree(loss, lambda z, t: peer(z.sigmoid(), t), one, binary)


class TestMonai:
    """MONAI: absent classes count too, and images count separately unless `batch` is set."""

    @pytest.mark.parametrize("batch", [False, True])
    @pytest.mark.parametrize("squared", [False, True])
    def test_dice(
        self, squared: bool, batch: bool, monai: Any, logits: Tensor, ids: Tensor
    ) -> None:
        theirs = {
            "softmax": True,
            "to_onehot_y": True,
            "squared_pred": squared,
            "batch": batch,
            "smooth_nr": 3.0,
            "smooth_dr": 3.0,
            "ignore_index": IGNORE,
        }
        common: dict[str, Any] = {"squared": squared, "classes": "all", "per_image": not batch}
        for jaccard in (False, True):
            # 2 TP + s over 2 (TP + FP + FN) + s: half for jaccard, which counts TP once
            name, smooth = ("jaccard", 1.5) if jaccard else ("dice", 3.0)
            peer = monai.DiceLoss(jaccard=jaccard, **theirs)
            agree(ours(name, smooth=smooth, **common), peer, logits, ids, given=ids[:, None])

    def test_dice_with_weights(self, monai: Any, logits: Tensor, filled: Tensor) -> None:
        # It multiplies by the weights and does not divide by them.
        weights = weights_of()
        peer = monai.DiceLoss(softmax=True, to_onehot_y=True, weight=weights, batch=True)
        loss = ours("dice", smooth=1e-5, classes="all", class_weights=weights)
        agree(loss, peer, logits, filled, sum(weights) / C, given=filled[:, None])

    def test_dice_without_background(self, monai: Any, logits: Tensor, filled: Tensor) -> None:
        peer = monai.DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
        loss = ours("dice", smooth=1e-5, classes=list(range(1, C)))
        agree(loss, peer, logits, filled, given=filled[:, None])

    def test_dice_of_dense_targets(self, monai: Any, logits: Tensor, multi_hot: Tensor) -> None:
        peer = monai.DiceLoss(sigmoid=True, batch=True)
        agree(
            ours("dice", smooth=1e-5, classes="all", activation="sigmoid"), peer, logits, multi_hot
        )
        # `soft_label`, which is not set here, has another overlap than the sum of products.
        peer = monai.DiceLoss(softmax=True, batch=True)
        soft = random(2, C, 30, 40, seed=2).softmax(1)
        agree(ours("dice", smooth=1e-5, classes="all"), peer, logits, soft)

    def test_dice_beside_cross_entropy(self, monai: Any, logits: Tensor, filled: Tensor) -> None:
        peer = monai.DiceCELoss(
            softmax=True, to_onehot_y=True, batch=True, lambda_dice=0.5, lambda_ce=2.0
        )
        dice = {"weight": 0.5, "smooth": 1e-5, "classes": "all"}
        loss = ours("sum", terms={"cross_entropy": {"weight": 2.0}, "dice": dice})
        agree(loss, peer, logits, filled, given=filled[:, None])

    @pytest.mark.parametrize("batch", [False, True])
    def test_tversky(self, batch: bool, monai: Any, logits: Tensor, ids: Tensor) -> None:
        # TP + s, where ours has half of its `smooth`
        peer = monai.TverskyLoss(
            softmax=True,
            to_onehot_y=True,
            alpha=0.2,
            beta=0.9,
            smooth_nr=3.0,
            smooth_dr=3.0,
            batch=batch,
            ignore_index=IGNORE,
        )
        loss = ours("tversky", alpha=0.2, beta=0.9, smooth=6.0, classes="all", per_image=not batch)
        agree(loss, peer, logits, ids, given=ids[:, None])

    @pytest.mark.parametrize("alpha", [None, weights_of()])
    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    def test_softmax_focal(
        self,
        gamma: float,
        alpha: list[float] | None,
        monai: Any,
        logits: Tensor,
        filled: Tensor,
    ) -> None:
        # Its mean is also over classes, of which one per pixel is not 0; it computes in float32.
        peer = monai.FocalLoss(use_softmax=True, to_onehot_y=True, gamma=gamma, alpha=alpha)
        loss = ours("focal", gamma=gamma, alpha=1.0 if alpha is None else alpha)
        agree(loss, peer, logits, filled, 1 / C, given=filled[:, None], rtol=1e-4)

    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    def test_sigmoid_focal(
        self, gamma: float, alpha: float | None, monai: Any, logits: Tensor, multi_hot: Tensor
    ) -> None:
        peer = monai.FocalLoss(gamma=gamma, alpha=alpha)  # in float32
        loss = ours("sigmoid_focal", gamma=gamma, alpha=alpha)
        agree(loss, peer, logits, multi_hot, rtol=1e-4)

    @pytest.mark.parametrize("batch", [False, True])
    @pytest.mark.parametrize("weighting", ["square", "simple", "uniform"])
    def test_generalized_dice(
        self, weighting: str, batch: bool, monai: Any, logits: Tensor, filled: Tensor
    ) -> None:
        # An absent class weighs as the rarest of the others for both; its weights are float32.
        peer = monai.GeneralizedDiceLoss(
            softmax=True,
            to_onehot_y=True,
            w_type=weighting,
            batch=batch,
            smooth_nr=0.0,
            smooth_dr=0.0,
        )
        loss = ours("generalized_dice", weighting=weighting, classes="all", per_image=not batch)
        agree(loss, peer, logits, filled, given=filled[:, None], rtol=1e-6)

    @pytest.mark.parametrize("iterations", [1, 5])
    def test_cldice(self, iterations: int, monai: Any, one: Tensor, binary: Tensor) -> None:
        # It sums over the channels too, so one of them; and adds `smooth` to the last denominator.
        peer = monai.SoftclDiceLoss(iter_=iterations, sigmoid=True, smooth=1e-15)
        loss = ours("cldice", num_classes=1, iterations=iterations, smooth=1.0, per_image=True)
        agree(loss, peer, one, binary, given=binary[:, None].double())

    def test_mcc(self, monai: Any, logits: Tensor, filled: Tensor) -> None:
        target = filled % 3  # no class is absent, which would be 0 / 0 for it
        peer = monai.MCCLoss(softmax=True, to_onehot_y=True, smooth_dr=0.0, batch=True)
        loss = ours("mcc", num_classes=3, smooth=0.0)
        agree(loss, peer, logits[:, :3], target, given=target[:, None])

    def test_hausdorff(self, monai: Any, logits: Tensor, filled: Tensor) -> None:
        # It measures to the pixels beyond the boundary, ours to the line between: half a pixel more
        # per distance, which for alpha = 1 adds half of the squared error.
        peer = monai.HausdorffDTLoss(
            alpha=1.0, softmax=True, to_onehot_y=True, include_background=True
        )
        loss = ours("hausdorff_dt", alpha=1.0, max_distance=math.inf, classes="all", per_image=True)

        def with_half(z: Tensor, t: Tensor) -> Tensor:
            p, y = z.softmax(1), one_hot(t)
            halves = (has_boundary(p.detach() > 0.5) + has_boundary(y > 0.5)) / 2
            value: Tensor = loss(z, t) + (halves * (p - y).square().mean((2, 3))).mean()
            return value

        agree(with_half, peer, logits, filled, given=filled[:, None], rtol=1e-5)

    def test_boundary(self, monai: Any, logits: Tensor, filled: Tensor) -> None:
        # The same half pixel, and a constant that makes a perfect prediction 0 in ours: its value
        # for the target itself.
        peer = monai.BoundaryLoss(softmax=True, to_onehot_y=True)
        perfect = monai.BoundaryLoss(to_onehot_y=True)
        loss = ours("boundary", classes="all", per_image=True)

        def with_half(z: Tensor, t: Tensor) -> Tensor:
            too_much = (z.softmax(1) - one_hot(t)).mean((2, 3))
            constant = perfect(one_hot(t), t[:, None])
            value: Tensor = loss(z, t) + constant
            return value + (has_boundary(one_hot(t) > 0.5) * too_much / 2).mean()

        agree(with_half, peer, logits, filled, given=filled[:, None], rtol=1e-5)

    def test_boxes(self, monai: Any) -> None:
        corners = torch.rand(2, 99, 2, 2, generator=torch.Generator().manual_seed(0))
        boxes, target = 640 * torch.cat([corners.amin(2), corners.amax(2) + 0.01], 2)
        agree(giou, monai.BoxGIoULoss(), boxes, target, rtol=1e-4)


def has_boundary(inside: Tensor) -> Tensor:
    """``(N, C)``: 1 where a map has pixels of both kinds."""
    flat = inside.flatten(2)
    return (flat.any(2) & ~flat.all(2)).double()


class TestKornia:
    """kornia: a mean over images."""

    @pytest.mark.parametrize("alpha", [None, 0.25])
    @pytest.mark.parametrize("gamma", [0.5, 2.0])
    def test_focal(
        self, alpha: float | None, gamma: float, kornia: Any, logits: Tensor, ids: Tensor
    ) -> None:
        # Its alpha treats class 0 as background; its mean is also over ignored pixels and classes,
        # so this compares its sum.
        peer = kornia.FocalLoss(alpha, gamma, "sum", ignore_index=IGNORE)
        own = 1.0 if alpha is None else [1 - alpha] + [alpha] * (C - 1)
        loss = ours("focal", gamma=gamma, alpha=own)
        agree(loss, peer, logits, ids, (ids != IGNORE).sum().item())

    @pytest.mark.parametrize("alpha", [None, 0.25])
    def test_sigmoid_focal(
        self, alpha: float | None, kornia: Any, logits: Tensor, multi_hot: Tensor
    ) -> None:
        peer = kornia.BinaryFocalLossWithLogits(alpha, 2.0, "mean", ignore_index=None)
        agree(ours("sigmoid_focal", alpha=alpha), peer, logits, multi_hot)

    @pytest.mark.parametrize("weights", [None, weights_of()])
    def test_dice(
        self, weights: list[float] | None, kornia: Any, logits: Tensor, ids: Tensor
    ) -> None:
        weight = None if weights is None else torch.tensor(weights).double()
        common: dict[str, Any] = {"class_weights": weights, "per_image": True}
        peer = kornia.DiceLoss("macro", eps=0.0, weight=weight, ignore_index=IGNORE)
        agree(ours("dice", smooth=0.0, **common), peer, logits, ids)
        # "micro" is one ratio of all classes, absent ones too
        peer = kornia.DiceLoss("micro", eps=0.0, weight=weight, ignore_index=IGNORE)
        loss = ours("generalized_dice", weighting="uniform", classes="all", **common)
        agree(loss, peer, logits, ids)

    def test_tversky(self, kornia: Any, logits: Tensor, ids: Tensor) -> None:
        peer = kornia.TverskyLoss(0.2, 0.9, eps=0.0, ignore_index=IGNORE)
        loss = ours("tversky", alpha=0.2, beta=0.9, smooth=0.0, per_image=True)
        agree(loss, peer, logits, ids)

    def test_lovasz(
        self, kornia: Any, logits: Tensor, filled: Tensor, one: Tensor, binary: Tensor
    ) -> None:
        # All classes count, and the weights do not divide.
        weights = weights_of()
        loss = ours("lovasz_softmax", classes="all", per_image=True)
        agree(loss, kornia.LovaszSoftmaxLoss(), logits, filled)
        weighted = ours("lovasz_softmax", classes="all", per_image=True, class_weights=weights)
        peer = kornia.LovaszSoftmaxLoss(weight=torch.tensor(weights).double())
        agree(weighted, peer, logits, filled, sum(weights) / C)
        hinge = ours("lovasz_hinge", num_classes=1, per_image=True)
        agree(hinge, kornia.LovaszHingeLoss(), one, binary)

    @pytest.mark.parametrize(
        ("name", "function"),
        [("kl_divergence", "kl_div_loss_2d"), ("js_divergence", "js_div_loss_2d")],
    )
    def test_divergences(self, name: str, function: str, kornia: Any, logits: Tensor) -> None:
        # Its distributions are over pixels: here one map per pixel and one pixel per class.
        def rows(p: Tensor) -> Tensor:
            return p.movedim(1, -1).reshape(-1, 1, 1, C)

        def peer(z: Tensor, t: Tensor) -> Tensor:
            value: Tensor = getattr(kornia, function)(rows(z.softmax(1)), rows(t))
            return value

        agree(ours(name), peer, logits, random(2, C, 30, 40, seed=2).softmax(1))


class TestLovaszFormula:
    """The definition of the Lovász extension, not the authors' code that the peers above use.

    The extension is the integral, over all thresholds, of the loss of the pixels whose error is
    above the threshold. It needs no order of the pixels.
    """

    @staticmethod
    def integral(errors: Tensor, positive: Tensor) -> Tensor:
        levels = torch.cat([errors, errors.new_zeros(1)]).sort().values
        total = errors.new_zeros(())
        for low, high in itertools.pairwise(levels):
            above = errors > low
            jaccard = above.sum().double() / (above | positive).sum()
            total = total + (high - low) * jaccard
        return total

    @pytest.mark.parametrize("name", ["lovasz_softmax", "lovasz_hinge"])
    def test_integral(self, name: str, logits: Tensor, ids: Tensor) -> None:
        # A part of the image, because every pixel is a threshold; only its classes count.
        z, t = logits[:1, :, 5:15:2, 10:30:2], ids[:1, 5:15:2, 10:30:2]
        valid = t != IGNORE

        def formula(z: Tensor, t: Tensor) -> Tensor:
            values = []
            for index in sorted(set(t[valid].tolist())):
                positive = (t == index)[valid]
                if name == "lovasz_softmax":
                    errors = (positive.double() - z.softmax(1)[:, index][valid]).abs()
                else:
                    errors = (1 - z[:, index][valid] * (2.0 * positive - 1)).relu()
                values.append(self.integral(errors, positive))
            return torch.stack(values).mean()

        agree(ours(name), formula, z, t)
