"""Theory of the losses: laws over the whole registry, and identities between losses.

The tests of each loss have values worked by hand; the tests here relate the losses to one another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segtrain
from segtrain.losses import (
    LOSSES,
    ClassMapLoss,
    JSDivergence,
    KLDivergence,
    Loss,
    PixelLoss,
)
from segtrain.losses.class_map.lovasz import lovasz_extension
from segtrain.losses.combination import Uncertainty
from segtrain.losses.pixel.binary import SigmoidLoss

C, IGNORE = 4, 255
LN_2 = math.log(2)
WEIGHTS = [0.5, 2.0, 1.0, 4.0]
TERMS = {"terms": {"cross_entropy": {}, "dice": {"weight": 0.5}}}
REQUIRED: dict[str, dict[str, Any]] = {"sum": TERMS, "uncertainty": TERMS}
Spec = dict[str, Any]


def make(spec: str | Mapping[str, Any], *, num_classes: int = C, **params: Any) -> Loss:
    own = {"name": spec} if isinstance(spec, str) else dict(spec)
    given = {**REQUIRED.get(own["name"], {}), **own, **params}
    return segtrain.build_loss(given, num_classes=num_classes, ignore_label=IGNORE)


def random(*size: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*size, dtype=torch.float64, generator=generator) * scale


def both(loss: Callable[..., Tensor], logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def one_hot(ids: Tensor, num_classes: int = C) -> Tensor:
    """``(N, C, H, W)``, 0 where ignored."""
    hot = F.one_hot(torch.where(ids == IGNORE, 0, ids), num_classes).movedim(-1, 1)
    return (hot * (ids != IGNORE)[:, None]).double()


@pytest.fixture
def logits() -> Tensor:
    return random(2, C, 6, 5)


@pytest.fixture
def ids() -> Tensor:
    target = torch.randint(0, C, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    target[0, :2] = IGNORE
    return target


@pytest.fixture
def targets(ids: Tensor) -> dict[str, Tensor]:
    """One target per form, with the same ignored pixels."""
    answers = torch.rand(2, C, 6, 5, generator=torch.Generator().manual_seed(2)).double()
    forms = {
        "probability": random(2, C, 6, 5, seed=3).softmax(1),
        "multi_hot": answers.round(),
        "answers": answers,
    }
    found = {
        form: torch.where((ids == IGNORE)[:, None], torch.nan, dense)
        for form, dense in forms.items()
    }
    of_image = torch.tensor([2, 1])[:, None, None]
    return {"ids": ids, "one_class": torch.where(ids == IGNORE, ids, of_image), **found}


def reads_softmax(name: str) -> bool:
    """Whether the loss depends only on the softmax, if it is set to softmax where possible."""
    return not any(
        isinstance(term, SigmoidLoss) or (isinstance(term, ClassMapLoss) and term.reads_logits)
        for term in make_softmax(name).terms().values()
    )


def make_softmax(name: str, *, num_classes: int = C, **params: Any) -> Loss:
    known = {"activation": "softmax"} if "activation" in LOSSES.schema(name) else {}
    return make(name, num_classes=num_classes, **known, **params).double()


NAMES = LOSSES.names()
SOFTMAX = [name for name in NAMES if reads_softmax(name)]
OTHERS = [name for name in NAMES if name not in SOFTMAX]
PIXEL_LOSSES = [name for name in NAMES if isinstance(make(name), PixelLoss)]
every_softmax = pytest.mark.parametrize("name", SOFTMAX)


def test_both_kinds_are_there() -> None:
    assert {"cross_entropy", "dice", "boundary", "smooth_l1", "sum"} <= set(SOFTMAX)
    assert {"bce", "sigmoid_focal", "lovasz_hinge"} <= set(OTHERS)


class TestSoftmax:
    """Only differences of logits matter: log-sum-exp shifts with a constant added to all."""

    @every_softmax
    def test_a_constant_added_to_all_classes_changes_nothing(
        self, name: str, logits: Tensor, ids: Tensor
    ) -> None:
        loss, anything = make_softmax(name), random(2, 1, 6, 5, seed=4, scale=1e4)
        expected = both(loss, logits, ids)
        for shift in (anything, torch.full_like(anything, 1e4), torch.full_like(anything, -1e4)):
            # 1e4 in float64 leaves 1e-12 of a logit.
            found = both(loss, logits + shift, ids)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)

    @every_softmax
    def test_in_float32_too(self, name: str, logits: Tensor, ids: Tensor) -> None:
        # Multiples of 1/64 stay exact after adding 1e4, so only the loss can lose digits.
        coarse = (64 * logits).round().float() / 64
        loss = make_softmax(name).float()
        torch.testing.assert_close(both(loss, coarse + 1e4, ids), both(loss, coarse, ids))

    @every_softmax
    def test_in_strips_too(self, name: str, ids: Tensor) -> None:
        spec: Spec = {"name": name, **REQUIRED.get(name, {})}
        if "activation" in LOSSES.schema(name):
            spec["activation"] = "softmax"
        criterion = segtrain.build_criterion(spec, num_classes=C, strip_rows=3).double()
        small, target = random(2, C, 4, 3), ids.repeat_interleave(2, 2)[..., :9]
        found = [
            both(lambda z, t: criterion(z, t).total, small + shift, target) for shift in (0.0, 1e4)
        ]
        torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-10)

    @every_softmax
    def test_gradients_of_a_pixel_add_up_to_zero(
        self, name: str, logits: Tensor, ids: Tensor
    ) -> None:
        _, gradient = both(make_softmax(name), logits, ids)
        assert gradient.sum(1).abs().max() < 1e-13 * gradient.abs().max()

    @pytest.mark.parametrize("name", OTHERS)
    def test_the_others_depend_on_the_logits_themselves(
        self, name: str, logits: Tensor, ids: Tensor
    ) -> None:
        loss = make(name)
        assert not torch.allclose(loss(logits + 1, ids), loss(logits, ids))

    def test_gradient_of_cross_entropy(self, logits: Tensor, ids: Tensor) -> None:
        valid = (ids != IGNORE)[:, None]
        missing = (logits.softmax(1) - one_hot(ids)) * valid
        _, gradient = both(make("cross_entropy"), logits, ids)
        torch.testing.assert_close(gradient, missing / valid.sum(), rtol=1e-12, atol=0)
        # with class weights the pixels' shares of the mean are w_y / sum of w_y
        weights = torch.tensor(WEIGHTS).double()[torch.where(ids == IGNORE, 0, ids)][:, None]
        expected = missing * weights / (weights * valid).sum()
        _, gradient = both(make("cross_entropy", class_weights=WEIGHTS), logits, ids)
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)

    def test_gradient_of_binary_cross_entropy(
        self, logits: Tensor, targets: dict[str, Tensor]
    ) -> None:
        valid = (targets["ids"] != IGNORE)[:, None]
        for form, hot in (
            ("ids", one_hot(targets["ids"])),
            ("multi_hot", targets["multi_hot"]),
            ("answers", targets["answers"]),
        ):
            expected = torch.where(valid, logits.sigmoid() - hot, 0) / (valid.sum() * C)
            _, gradient = both(make("bce"), logits, targets[form])
            torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-16)


class TestInformation:
    """Cross entropy is the length of a code, and entropy the shortest possible."""

    def test_information_is_minus_log2(self) -> None:
        for bits in (1, 2, 3, 7):
            # 2^bits classes of the same probability
            loss, target = make("cross_entropy", num_classes=2**bits), torch.zeros(1, 1, 1).long()
            assert loss(torch.zeros(1, 2**bits, 1, 1), target).item() / LN_2 == pytest.approx(bits)
        # p = 1/8: three bits
        logits = torch.tensor([0.125, 0.875]).log().reshape(1, 2, 1, 1)
        value = make("cross_entropy", num_classes=2)(logits, torch.zeros(1, 1, 1).long())
        assert value.item() / LN_2 == pytest.approx(-math.log2(1 / 8))

    def test_expected_information_is_entropy(self) -> None:
        # 1/2, 1/4, 1/8, 1/8 take 1, 2, 3 and 3 bits: 1.75 on average, and no code is shorter
        target = torch.tensor([0.5, 0.25, 0.125, 0.125]).double().reshape(1, 4, 1, 1)
        loss = make("cross_entropy")
        assert loss(target.log(), target).item() / LN_2 == pytest.approx(1.75, rel=1e-12)
        for other in random(20, 1, 4, 1, 1):
            assert loss(other, target).item() / LN_2 > 1.75

    def test_cross_entropy_is_entropy_and_divergence(self, logits: Tensor) -> None:
        target = random(2, C, 6, 5, seed=1).softmax(1)
        entropy = -(target * target.log()).sum(1).mean()
        divergence = make("kl_divergence")(logits, target)
        expected = make("cross_entropy")(logits, target)
        torch.testing.assert_close(entropy + divergence, expected, rtol=1e-12, atol=0)

    def test_divergence_is_zero_only_between_equals(self) -> None:
        p, q = random(1, C, 99, 1), random(1, C, 99, 1, seed=1, scale=9)
        for near in (q, p + 1e-3 * q):
            values = KLDivergence(num_classes=C).pixel_loss(p, near.softmax(1))
            # Pinsker: at least half the square of the absolute difference
            least = (p.softmax(1) - near.softmax(1)).abs().sum(1).square() / 2
            assert (values >= least - 1e-15).all()
            assert (values > 0).all()
        for name in ("kl_divergence", "js_divergence"):
            value, gradient = both(make(name, target_logits=True), p, p)
            assert abs(value.item()) < 1e-15
            assert gradient.abs().max() < 1e-15

    def test_jensen_shannon_is_symmetric(self, logits: Tensor) -> None:
        other = random(2, C, 6, 5, seed=1)
        js = make("js_divergence", target_logits=True, temperature=2.0)
        torch.testing.assert_close(js(logits, other), js(other, logits), rtol=1e-12, atol=0)
        kl = make("kl_divergence", target_logits=True)
        assert abs(kl(logits, other) - kl(other, logits)) > 0.01

    def test_jensen_shannon_is_bounded_by_a_bit(self) -> None:
        p, q = random(1, C, 999, 1, scale=9), random(1, C, 999, 1, seed=1, scale=9)
        values = JSDivergence(num_classes=C).pixel_loss(p, q.softmax(1))
        assert values.min() > 0
        assert values.max() < LN_2
        # reached only by distributions without overlap
        apart = 999 * torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T.reshape(1, 2, 1, 2)
        loss = make("js_divergence", num_classes=2, target_logits=True)
        assert loss(apart, apart.flip(1)).item() == pytest.approx(LN_2)
        loss = make("js_divergence", num_classes=2)
        assert loss(apart, torch.tensor([[[1, 0]]])).item() == pytest.approx(LN_2)

    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_label_smoothing(
        self, weights: list[float] | None, logits: Tensor, targets: dict[str, Tensor]
    ) -> None:
        plain, smooth = (
            make("cross_entropy", class_weights=weights, label_smoothing=epsilon)
            for epsilon in (0.0, 0.3)
        )
        ids, valid = targets["ids"], (targets["ids"] != IGNORE)[:, None]
        w = torch.ones(C).double() if weights is None else torch.tensor(weights).double()
        share = torch.where(valid, (one_hot(ids) * w[:, None, None]).sum(1, keepdim=True), 0)

        def mixed(z: Tensor, target: Tensor) -> Tensor:
            # the weighted mean over the classes of -log p
            uniform = -(w[:, None, None] * z.log_softmax(1)).mean(1, keepdim=True)
            mixture: Tensor = 0.7 * plain(z, target) + 0.3 * (uniform * valid).sum() / share.sum()
            return mixture

        torch.testing.assert_close(both(smooth, logits, ids), both(mixed, logits, ids))

    def test_smoothing_is_a_soft_target(self, logits: Tensor, targets: dict[str, Tensor]) -> None:
        plain, smooth = make("cross_entropy"), make("cross_entropy", label_smoothing=0.3)
        valid = (targets["ids"] != IGNORE)[:, None]
        for form, hot in (
            ("ids", one_hot(targets["ids"])),
            ("probability", targets["probability"]),
        ):
            softened = torch.where(valid, 0.7 * hot + 0.3 / C, torch.nan)
            found = both(smooth, logits, targets[form])
            torch.testing.assert_close(found, both(plain, logits, softened))


def loss_of(name: str, **params: Any) -> Spec:
    return {"name": name, **params}


def times(factor: float, name: str, **params: Any) -> Spec:
    return loss_of("sum", terms={name: {"weight": factor, **params}})


SOFT = ("ids", "probability")
YES_OR_NO = ("ids", "multi_hot", "answers")
PLAIN = loss_of("cross_entropy")
BCE = loss_of("bce")
ANY = (*SOFT, "answers")
# Pairs of equal losses, and the forms of targets for which they are equal.
IDENTITIES: dict[str, tuple[Spec, Spec, tuple[str, ...]]] = {
    "focal without focus": (loss_of("focal", gamma=0.0), PLAIN, SOFT),
    "focal alpha is a factor": (
        loss_of("focal", alpha=0.25),
        times(0.25, "focal"),
        SOFT,
    ),
    "poly1 without its term": (loss_of("poly1", epsilon=0.0), PLAIN, SOFT),
    "poly1 is a sum": (
        loss_of("poly1", epsilon=2.0),
        loss_of(
            "sum", terms={"cross_entropy": {}, "generalized_cross_entropy": {"q": 1.0, "weight": 2}}
        ),
        SOFT,
    ),
    "generalized q to 0": (loss_of("generalized_cross_entropy", q=1e-12), PLAIN, SOFT),
    "relaxation without borders": (
        loss_of("label_relaxation", radius=2),
        PLAIN,
        ("one_class",),
    ),
    "distance without strength": (
        loss_of("distance_weighted_cross_entropy", strength=0.0),
        PLAIN,
        ("ids",),
    ),
    "sigmoid focal without focus": (
        loss_of("sigmoid_focal", gamma=0.0, alpha=None),
        BCE,
        YES_OR_NO,
    ),
    "sigmoid focal in balance": (
        loss_of("sigmoid_focal", gamma=0.0, alpha=0.5),
        times(0.5, "bce"),
        YES_OR_NO,
    ),
    "quality focal without focus": (loss_of("quality_focal", beta=0.0), BCE, YES_OR_NO),
    "quality focal of yes and no": (
        loss_of("quality_focal", beta=2.0),
        loss_of("sigmoid_focal", gamma=2.0, alpha=None),
        YES_OR_NO[:2],
    ),
    "quality focal with a root": (
        loss_of("quality_focal", beta=0.5),
        loss_of("sigmoid_focal", gamma=0.5, alpha=None),
        YES_OR_NO[:2],
    ),
    "asymmetric without focus": (
        loss_of("asymmetric", gamma_neg=0.0, gamma_pos=0.0, clip=0.0),
        BCE,
        YES_OR_NO,
    ),
    "asymmetric but symmetric": (
        loss_of("asymmetric", gamma_neg=2.0, gamma_pos=2.0, clip=0.0),
        loss_of("sigmoid_focal", gamma=2.0, alpha=None),
        YES_OR_NO,
    ),
    "asymmetric but symmetric, with a root": (
        loss_of("asymmetric", gamma_neg=0.5, gamma_pos=0.5, clip=0.0),
        loss_of("sigmoid_focal", gamma=0.5, alpha=None),
        YES_OR_NO,
    ),
    "tversky in the middle": (
        loss_of("tversky", alpha=0.5, beta=0.5, smooth=2.5),
        loss_of("dice", smooth=2.5),
        ANY,
    ),
    "tversky in the middle, without smoothing": (
        loss_of("tversky", alpha=0.5, beta=0.5, smooth=0.0, log=True),
        loss_of("dice", smooth=0.0, log=True),
        ANY,
    ),
    "tversky at the end": (
        loss_of("tversky", alpha=1.0, beta=1.0, smooth=5.0),
        loss_of("jaccard", smooth=2.5),
        ANY,
    ),
    "tversky at the end, without smoothing": (
        loss_of("tversky", alpha=1.0, beta=1.0, smooth=0.0, log=True),
        loss_of("jaccard", smooth=0.0, log=True),
        ANY,
    ),
    "focal tversky without focus": (
        loss_of("focal_tversky", gamma=1.0),
        loss_of("tversky"),
        ANY,
    ),
    "a sum of one": (times(1.0, "dice"), loss_of("dice"), ANY),
    "uncertainty before it learned": (
        loss_of("uncertainty", **TERMS),
        loss_of("sum", **TERMS),
        SOFT,
    ),
}


class TestIdentities:
    @pytest.mark.parametrize(
        ("case", "form"),
        [(case, form) for case, (*_, forms) in IDENTITIES.items() for form in forms],
    )
    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_both_losses_are_equal(
        self,
        case: str,
        form: str,
        weights: list[float] | None,
        logits: Tensor,
        targets: dict[str, Tensor],
    ) -> None:
        one, two, _ = IDENTITIES[case]
        found, expected = (
            both(make(spec, class_weights=weights), logits, targets[form]) for spec in (one, two)
        )
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)

    def test_generalized_q_of_one_is_the_chance_to_be_wrong(
        self, logits: Tensor, ids: Tensor
    ) -> None:
        valid = ids != IGNORE
        right = (logits.softmax(1) * one_hot(ids)).sum(1)[valid]
        value = make("generalized_cross_entropy", q=1.0)(logits, ids)
        torch.testing.assert_close(value, 1 - right.mean(), rtol=1e-12, atol=0)
        # and half the absolute error of the probabilities
        absolute = (logits.softmax(1) - one_hot(ids)).abs().sum(1)[valid].mean()
        torch.testing.assert_close(value, absolute / 2, rtol=1e-12, atol=0)

    def test_the_family_is_in_order(self, logits: Tensor, ids: Tensor) -> None:
        # (1 - p^q) / q falls as q grows, from -log p to 1 - p; (1 - p)^gamma falls with gamma.
        rising = [make("generalized_cross_entropy", q=q) for q in (1.0, 0.7, 0.3, 1e-12)]
        falling = [make("focal", gamma=gamma) for gamma in (0.0, 0.5, 2.0, 5.0)]
        for losses in (rising[::-1], falling):
            values = [loss(logits, ids).item() for loss in losses]
            assert values == sorted(values, reverse=True)
            assert values[0] == pytest.approx(make("cross_entropy")(logits, ids).item())

    @pytest.mark.parametrize("smooth", [0.0, 1.0, 2.5])
    @pytest.mark.parametrize("log", [False, True])
    def test_tversky_in_the_middle_is_dice_to_the_last_bit(
        self, smooth: float, log: bool, logits: Tensor, ids: Tensor
    ) -> None:
        half = make("tversky", alpha=0.5, beta=0.5, smooth=smooth, log=log)
        assert torch.equal(half(logits, ids), make("dice", smooth=smooth, log=log)(logits, ids))

    @pytest.mark.parametrize("squared", [False, True])
    @pytest.mark.parametrize("index", range(C))
    def test_jaccard_follows_from_dice(
        self, squared: bool, index: int, logits: Tensor, ids: Tensor
    ) -> None:
        params: Spec = {"smooth": 0.0, "squared": squared, "classes": [index]}
        score = 1 - make("dice", **params)(logits, ids)
        value = make("jaccard", **params)(logits, ids)
        torch.testing.assert_close(1 - value, score / (2 - score), rtol=1e-12, atol=0)


ALL_PIXELS: list[Spec] = [
    {"name": "ohem", "threshold": 1.0, "min_kept": 1},
    {"name": "ohem", "threshold": 0.01, "min_kept": 1, "ratio": 1.0},
    {"name": "top_k", "ratio": 1.0},
    {"name": "top_k", "k": 10_000},
    {"name": "hard_negative", "ratio": math.inf},
    {"name": "ghm", "bins": 1},
]


class TestMining:
    @pytest.mark.parametrize("name", PIXEL_LOSSES)
    @pytest.mark.parametrize("mining", ALL_PIXELS, ids=str)
    def test_of_all_pixels_is_the_mean(
        self, name: str, mining: Spec, logits: Tensor, ids: Tensor
    ) -> None:
        found = both(make(name, mining=mining), logits, ids)
        torch.testing.assert_close(found, both(make(name), logits, ids), rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
    @pytest.mark.parametrize(("name", "num_classes"), [("cross_entropy", 2), ("bce", 1)])
    def test_ghm_with_one_density_is_the_mean(
        self, name: str, num_classes: int, weights: list[float] | None
    ) -> None:
        # The probability of the target is 0.05, 0.15, ..., twice each: one per bin and class.
        margin = (torch.arange(20).double() % 10 / 10 + 0.05).logit()
        target = (torch.arange(20) // 10).reshape(1, 4, 5)
        logits = (margin * (2.0 * target.flatten() - 1)).reshape(1, 1, 4, 5)
        if num_classes == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        mined, plain = (
            make(name, num_classes=num_classes, class_weights=weights, mining=mining)
            for mining in ("ghm", None)
        )
        torch.testing.assert_close(both(mined, logits, target), both(plain, logits, target))


ONE_CHANNEL = {  # the sigmoid loss of one channel, and the softmax loss of two
    "bce": (BCE, PLAIN),
    "sigmoid_focal": (loss_of("sigmoid_focal", alpha=None), loss_of("focal")),
    "sigmoid_focal alpha": (loss_of("sigmoid_focal"), loss_of("focal", alpha=[0.75, 0.25])),
    "quality_focal": (loss_of("quality_focal"), loss_of("focal")),
    "smooth_l1": (loss_of("smooth_l1"), loss_of("smooth_l1")),
}
BY_CLASS = [name for name in SOFTMAX if "classes" in LOSSES.schema(name)]


class TestOneChannel:
    """A sigmoid is the softmax of two logits of which the first is 0."""

    def compare(self, one: Loss, two: Loss, ids: Tensor) -> None:
        logits, target = random(2, 1, 6, 5), torch.where(ids == IGNORE, ids, ids % 2)

        def beside_zero(z: Tensor, target: Tensor) -> Tensor:
            value: Tensor = two(torch.cat([torch.zeros_like(z), z], dim=1), target)
            return value

        expected = both(beside_zero, logits, target)
        torch.testing.assert_close(both(one, logits, target), expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("case", ONE_CHANNEL)
    @pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
    def test_pixels(self, case: str, weights: list[float] | None, ids: Tensor) -> None:
        one, two = ONE_CHANNEL[case]
        self.compare(
            make(one, num_classes=1, class_weights=weights),
            make(two, num_classes=2, class_weights=weights),
            ids,
        )

    @pytest.mark.parametrize("name", BY_CLASS)
    @pytest.mark.parametrize("per_image", [False, True])
    def test_classes(self, name: str, per_image: bool, ids: Tensor) -> None:
        one = make(name, num_classes=1, per_image=per_image)
        # One ratio over all classes needs the background as the second one.
        classes = [0, 1] if name == "generalized_dice" else [1]
        two = make_softmax(name, num_classes=2, per_image=per_image, classes=classes)
        self.compare(one, two, ids)


Counts = tuple[Tensor, Tensor, Tensor, Tensor]


def correlation(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> Tensor:
    scale = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / scale.sqrt()


# The loss of a class as a function of its counts, for a prediction of probabilities 0 and 1.
OF_COUNTS: dict[str, tuple[Spec, Callable[..., Tensor]]] = {
    "dice": ({"smooth": 0.0}, lambda tp, fp, fn, tn: 1 - 2 * tp / (2 * tp + fp + fn)),
    "jaccard": ({"smooth": 0.0}, lambda tp, fp, fn, tn: 1 - tp / (tp + fp + fn)),
    "lovasz_softmax": ({}, lambda tp, fp, fn, tn: 1 - tp / (tp + fp + fn)),
    "lovasz_hinge": ({}, lambda tp, fp, fn, tn: 2 * (1 - tp / (tp + fp + fn))),
    "tversky": (
        {"smooth": 0.0, "alpha": 0.2, "beta": 0.9},
        lambda tp, fp, fn, tn: 1 - tp / (tp + 0.2 * fp + 0.9 * fn),
    ),
    "mcc": ({"smooth": 0.0}, lambda *counts: 1 - correlation(*counts)),
    "sensitivity_specificity": (
        {"sensitivity_ratio": 0.3},
        lambda tp, fp, fn, tn: 0.3 * fn / (tp + fn) + 0.7 * fp / (fp + tn),
    ),
}


class TestHardPredictions:
    """For probabilities of 0 and 1, a loss is one minus the score of the confusion matrix."""

    @pytest.fixture
    def prediction(self, ids: Tensor) -> Tensor:
        # right at most pixels, with every class predicted somewhere
        noise = torch.randint(0, C, ids.shape, generator=torch.Generator().manual_seed(7))
        keep = torch.rand(ids.shape, generator=torch.Generator().manual_seed(8)) < 0.6
        return torch.where(keep & (ids != IGNORE), ids, noise)

    @staticmethod
    def counts(prediction: Tensor, ids: Tensor) -> tuple[segtrain.ConfusionMatrix, Counts]:
        matrix = segtrain.ConfusionMatrix(C, IGNORE)
        matrix.update(prediction, ids)
        table = matrix.matrix().double()
        tp = table.diagonal()
        fp, fn = table.sum(0) - tp, table.sum(1) - tp
        return matrix, (tp, fp, fn, table.sum() - tp - fp - fn)

    @staticmethod
    def sure(name: str, prediction: Tensor) -> Tensor:
        """Logits with a softmax of 0 or 1; for a hinge, at its margin with errors 0 and 2."""
        scale = 1.0 if name == "lovasz_hinge" else 1e3
        return scale * (2 * one_hot(prediction) - 1)

    @pytest.mark.parametrize("name", OF_COUNTS)
    def test_counts_of_a_class(self, name: str, prediction: Tensor, ids: Tensor) -> None:
        params, formula = OF_COUNTS[name]
        _, counts = self.counts(prediction, ids)
        logits, expected = self.sure(name, prediction), formula(*counts)
        assert expected.min() > 0
        for index in range(C):
            value = make(name, classes=[index], **params)(logits, ids)
            torch.testing.assert_close(value, expected[index], rtol=1e-9, atol=0)
        value = make(name, **params)(logits, ids)
        torch.testing.assert_close(value, expected.mean(), rtol=1e-9, atol=0)

    def test_the_mean_is_that_of_the_scores(self, prediction: Tensor, ids: Tensor) -> None:
        # A class absent from both is left out of both means.
        prediction, ids = (torch.where(part == 3, 0, part) for part in (prediction, ids))
        matrix, _ = self.counts(prediction, ids)
        scores, logits = matrix.scores(), self.sure("jaccard", prediction)
        assert math.isnan(scores.iou[3])
        value = make("jaccard", smooth=0.0)(logits, ids).item()
        assert value == pytest.approx(1 - scores.miou, rel=1e-9)
        value = make("lovasz_softmax")(logits, ids).item()
        assert value == pytest.approx(1 - scores.miou, rel=1e-9)
        value = make("generalized_cross_entropy", q=1.0)(logits, ids).item()
        assert value == pytest.approx(1 - scores.pixel_accuracy, rel=1e-9)


class TestLovaszExtension:
    POSITIVE = torch.tensor([True, False, True, False, False, True])

    def extension(self, errors: Tensor) -> float:
        """The extension of the Jaccard loss, as a function of the errors of six pixels."""
        residual = torch.where(self.POSITIVE, -errors, errors)
        return lovasz_extension(residual, self.POSITIVE, torch.ones(6).bool()).item()

    def test_it_extends_the_jaccard_loss(self) -> None:
        for corner in itertools.product([0.0, 1.0], repeat=6):
            errors = torch.tensor(corner, dtype=torch.float64)
            mistaken = errors.bool()
            jaccard = mistaken.sum().item() / (mistaken | self.POSITIVE).sum().item()
            assert self.extension(errors) == pytest.approx(jaccard, abs=1e-15)

    def test_it_is_convex(self) -> None:
        generator = torch.Generator().manual_seed(0)
        bends = 0
        for _ in range(100):
            one, two = torch.rand(2, 6, dtype=torch.float64, generator=generator)
            for t in (0.1, 0.25, 0.5, 0.9):
                between = self.extension(t * one + (1 - t) * two)
                chord = t * self.extension(one) + (1 - t) * self.extension(two)
                assert between <= chord + 1e-14
                bends += between < chord - 1e-3
        assert bends > 100  # it is not linear

    def test_it_grows_with_the_errors_in_proportion(self) -> None:
        errors = random(6).abs()
        value = self.extension(errors)
        assert self.extension(3 * errors) == pytest.approx(3 * value, rel=1e-12)
        for index in range(6):  # never decreases, and grows with the error of a pixel of the class
            more = errors.clone()
            more[index] += 0.1
            assert self.extension(more) >= value
            assert self.extension(more) > value or not self.POSITIVE[index]


class TestUncertainty:
    @pytest.fixture
    def parts(self, logits: Tensor, ids: Tensor) -> tuple[Uncertainty, Tensor]:
        """The loss, and the weighted value of each term."""
        terms: Spec = {"cross_entropy": {}, "dice": {"weight": 0.5}, "bce": {"weight": 3.0}}
        loss = make("uncertainty", terms=terms).double()
        assert isinstance(loss, Uncertainty)
        values = torch.stack([term(logits, ids) for term in loss.terms().values()])
        return loss, values * torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)

    def test_optimum(self, parts: tuple[Uncertainty, Tensor], logits: Tensor, ids: Tensor) -> None:
        loss, weighted = parts
        # e^-s = 1 / (2 w L): each term is then 1/2, and its penalty half the log of 2 w L
        with torch.no_grad():
            loss.log_variances.copy_((2 * weighted).log())
        value = loss(logits, ids)
        value.backward()
        best = (1 / 2 + (2 * weighted).log() / 2).sum()
        torch.testing.assert_close(value.detach(), best, rtol=1e-12, atol=0)
        assert loss.log_variances.grad is not None
        assert loss.log_variances.grad.abs().max() < 1e-15
        for index, step in itertools.product(range(3), (-0.1, 0.1)):
            with torch.no_grad():
                loss.log_variances[index] += step
            assert loss(logits, ids) > best
            with torch.no_grad():
                loss.log_variances[index] -= step

    def test_training_finds_it(
        self, parts: tuple[Uncertainty, Tensor], logits: Tensor, ids: Tensor
    ) -> None:
        loss, weighted = parts
        optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
        for _ in range(30):
            optimizer.zero_grad()
            loss(logits, ids).backward()
            optimizer.step()
        found = (-loss.log_variances.detach()).exp()
        torch.testing.assert_close(found, 1 / (2 * weighted), rtol=1e-6, atol=0)
