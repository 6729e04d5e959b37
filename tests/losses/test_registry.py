"""Custom losses: plain functions and classes, as in a plugin file."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.criterion.criterion import Criterion
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, MININGS, CrossEntropy, Loss, PixelLoss, register_loss


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 5, 4))
    target[0, 0] = 255
    return torch.randn(2, 3, 5, 4), target


def build(name: str, **params: Any) -> Loss:
    return LOSSES.build({"name": name, **params}, num_classes=3, ignore_label=255)


def own_cross_entropy(logits: Tensor, target: Tensor, *, scale: float = 1.0) -> Tensor:
    return scale * F.cross_entropy(logits, target, reduction="none")


def scalar(logits: Tensor, target: Tensor, *, ignore_label: int, scale: float = 1.0) -> Tensor:
    return scale * F.cross_entropy(logits, target, ignore_index=ignore_label)


@pytest.mark.parametrize(
    "common",
    [
        {},
        {"class_weights": [1.0, 2.0, 0.5]},
        {"mining": {"name": "ohem", "threshold": 0.2, "min_kept": 3}},
    ],
)
def test_a_map_gets_everything_a_pixel_loss_has(
    common: dict[str, Any], batch: tuple[Tensor, Tensor]
) -> None:
    assert register_loss("own")(own_cross_entropy) is own_cross_entropy
    loss = build("own", scale=2, **common)
    expected = 2 * CrossEntropy(num_classes=3, **common)(*batch)
    torch.testing.assert_close(loss(*batch), expected)
    assert list(loss.terms()) == ["own"]


def test_a_scalar_sees_the_unchanged_target(batch: tuple[Tensor, Tensor]) -> None:
    register_loss("own")(scalar)
    loss = build("own", scale=0.5)
    leaf = batch[0].requires_grad_()
    value = loss(leaf, batch[1])
    torch.testing.assert_close(value, 0.5 * CrossEntropy(num_classes=3)(*batch))
    value.backward()
    assert leaf.grad is not None
    assert leaf.grad[0, :, 0].eq(0).all()
    assert loss(leaf, torch.full_like(batch[1], 255)).item() == 0
    assert torch.equal(loss.share(batch[1]), torch.tensor([36.0]))


def test_no_gradient_at_ignored_pixels_even_if_the_function_counts_them(
    batch: tuple[Tensor, Tensor],
) -> None:
    @register_loss("careless")
    def careless(logits: Tensor, target: Tensor) -> Tensor:
        return logits.square().mean()

    leaf = batch[0].requires_grad_()
    build("careless")(leaf, batch[1]).backward()
    assert leaf.grad is not None
    assert leaf.grad[0, :, 0].eq(0).all()
    assert leaf.grad[0, :, 1].ne(0).all()


def test_a_scalar_refuses_class_weights_and_mining() -> None:
    register_loss("own")(scalar)
    with pytest.raises(ConfigError, match="loss 'own' returns one number, so class_weights has"):
        build("own", class_weights=[1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="loss 'own' returns one number, so mining has"):
        build("own", mining="ohem")
    build("own", mining="none")
    build("own", mining={"name": "none"})


@pytest.mark.parametrize("default", [{}, {"default": -100}])
def test_num_classes_and_ignore_label_are_filled_in(
    default: dict[str, int], batch: tuple[Tensor, Tensor]
) -> None:
    seen = []
    if default:

        @register_loss("asking")
        def with_defaults(
            logits: Tensor, target: Tensor, num_classes: int = 7, ignore_label: int = -100
        ) -> Tensor:
            seen.append((num_classes, ignore_label))
            return logits[:, 0]
    else:

        @register_loss("asking")
        def without(logits: Tensor, target: Tensor, num_classes: int, ignore_label: int) -> Tensor:
            seen.append((num_classes, ignore_label))
            return logits[:, 0]

    LOSSES.build("asking", num_classes=3, ignore_label=9)
    LOSSES.build("asking", num_classes=3)
    assert set(seen) == {(3, 9), (3, 255)}


def test_schema_is_the_signature() -> None:
    register_loss("own")(own_cross_entropy)
    schema = LOSSES.schema("own")
    shared = {"num_classes", "ignore_label", "class_weights", "mining"}
    assert set(schema) == {"scale", "label_smoothing", "reduction", *shared}
    assert (schema["scale"].annotation, schema["scale"].default) == (float, 1.0)
    assert schema["num_classes"].required
    with pytest.raises(
        ConfigError, match=r"loss.scal: loss 'own' has no parameter 'scal'; did you"
    ):
        build("own", scal=1.0)
    with pytest.raises(ConfigError, match=r"loss.scale must be a number, got 'big'"):
        build("own", scale="big")


def test_variadic_keywords_are_not_parameters() -> None:
    @register_loss("loose")
    def loose(logits: Tensor, target: Tensor, **kwargs: float) -> Tensor:
        return logits[:, 0]

    assert "kwargs" not in LOSSES.schema("loose")
    build("loose")


def test_a_missing_required_parameter_is_an_error() -> None:
    @register_loss("demanding")
    def demanding(logits: Tensor, target: Tensor, *, power: float) -> Tensor:
        return logits[:, 0] ** power

    with pytest.raises(
        ConfigError, match=r"loss.power: loss 'demanding' needs a value for 'power'"
    ):
        build("demanding")
    build("demanding", power=2)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda z: z, r"must return a map \(N, H, W\) or a scalar.*got \(1, 3, 16, 16\)"),
        (lambda z: z.mean((1, 2, 3)), r"got \(1,\) for a trial"),
        (lambda z: 1.0, "got float for a trial"),
        (lambda z: z[:, 5], "loss 'wrong' failed on a trial batch of .*: IndexError"),
    ],
)
def test_wrong_returns(result: Any, message: str) -> None:
    @register_loss("wrong")
    def wrong(logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = result(logits)
        return value

    with pytest.raises(ConfigError, match=message):
        build("wrong")


def test_the_error_of_a_trial_is_shown_whole_and_on_one_line() -> None:
    @register_loss("wordy")
    def wordy(logits: Tensor, target: Tensor) -> Tensor:
        raise ValueError("first\n" + 200 * "word " + "last")

    message = rf"class ids 0 to 2: ValueError: first {200 * 'word '}last$"
    with pytest.raises(ConfigError, match=message):
        build("wordy")


def test_own_parameters_come_first_and_replace_shared_ones() -> None:
    @register_loss("own")
    def own(
        logits: Tensor, target: Tensor, power: float, *, mining: int = 3, num_classes: int
    ) -> Tensor:
        return torch.full_like(logits[:, 0], mining)

    schema = LOSSES.schema("own")
    assert list(schema)[:2] == ["power", "mining"]
    assert (schema["mining"].annotation, schema["mining"].default) == (int, 3)
    loss = build("own", power=1, mining=5)
    assert loss(torch.zeros(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)).item() == 5


@pytest.mark.parametrize("num_classes", [1, 2, 19, 256, 257, 1000])
def test_the_trial_batch_shows_every_id(num_classes: int) -> None:
    seen: list[Tensor] = []

    @register_loss("curious")
    def curious(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(target)
        return logits[:, 0]

    LOSSES.build("curious", num_classes=num_classes, ignore_label=-1)
    ids = seen[0].unique().tolist()
    largest = max(num_classes - 1, 1)
    assert (ids[0], ids[-1], len(ids)) == (0, largest, min(largest + 1, 256))


def test_a_softmax_of_one_channel_is_refused_when_it_is_built() -> None:
    @register_loss("softmax")
    def softmax(logits: Tensor, target: Tensor) -> Tensor:
        return 1 - logits.softmax(1).gather(1, target[:, None])[:, 0]

    LOSSES.build("softmax", num_classes=2)
    message = (
        r"loss 'softmax' failed on a trial batch of logits \(1, 1, 16, 16\) and class ids 0 to 1:"
        r" RuntimeError: index 1 is out of bounds.*; one channel is the logit of id 1 against id 0"
    )
    with pytest.raises(ConfigError, match=message):
        LOSSES.build("softmax", num_classes=1)


class Blurred(PixelLoss):
    """Cross entropy of logits that are averaged over their neighbours."""

    can_strip = False

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(F.avg_pool2d(logits, 3, 1, 1), target, reduction="none")


def test_a_pixel_loss_that_cannot_strip_gets_the_whole_image() -> None:
    mining = {"name": "top_k", "ratio": 0.5}
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 4).double(), torch.randint(0, 3, (2, 23, 17))
    # large enough that "auto" would use strips if the loss could
    large = torch.randn(1, 3, 8, 8), torch.randint(0, 3, (1, 1024, 768))
    for batch in ((logits, target), large):
        found = []
        for rows in ("auto", None):
            loss = Blurred(num_classes=3, mining=mining)
            leaf = batch[0].clone().requires_grad_()
            report = Criterion(loss, strip_rows=rows)(leaf, batch[1])
            found.append((report.total, *torch.autograd.grad(report.total, leaf)))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
    with pytest.raises(ConfigError, match=r"strip_rows: loss 'Blurred' needs the whole image"):
        Criterion(Blurred(num_classes=3), strip_rows=3)
    # also next to another term
    register_loss("blurred")(Blurred)
    both = build("sum", terms={"blurred": {}, "cross_entropy": {}})
    with pytest.raises(ConfigError, match=r"strip_rows: loss 'blurred' needs the whole image"):
        Criterion(both, strip_rows=3)


@pytest.mark.parametrize("name", [*LOSSES.names(), *MININGS.names()])
def test_formulas_are_indented_more_than_their_directive(name: str) -> None:
    # Otherwise documentation tools render the rest of a formula as text.
    part = (LOSSES if name in LOSSES.names() else MININGS).get(name)
    lines = inspect.cleandoc(part.__doc__ or "").splitlines()
    for start, line in enumerate(lines):
        if line.strip().startswith(".. math::"):
            indent = len(line) - len(line.lstrip())
            for following in itertools.takewhile(str.strip, lines[start + 1 :]):
                assert len(following) - len(following.lstrip()) > indent, following


def test_duplicates_are_refused() -> None:
    register_loss("own")(own_cross_entropy)
    for name in ("own", "cross_entropy"):
        with pytest.raises(ConfigError, match=f"loss '{name}' is registered already"):
            register_loss(name)(own_cross_entropy)
    assert LOSSES.get("cross_entropy") is CrossEntropy


@pytest.mark.parametrize("part", [3, int, lambda logits: logits, torch.nn.Linear])
def test_other_objects_are_refused(part: Any) -> None:
    message = r"register_loss\('odd'\) takes a function of \(logits, target\) or a Loss class"
    with pytest.raises(TypeError, match=message):
        register_loss("odd")(part)
    assert "odd" not in LOSSES.names()


def test_a_class_of_ten_lines(batch: tuple[Tensor, Tensor]) -> None:
    @register_loss("mine")
    class Mine(PixelLoss):
        def __init__(self, gamma: float = 2.0, **common: Any) -> None:
            super().__init__(**common)
            self.gamma = gamma

        def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
            log_p = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
            return -((1 - log_p.exp()) ** self.gamma) * log_p

    common = {"class_weights": [1.0, 2.0, 0.5], "mining": {"name": "ohem", "min_kept": 3}}
    expected = LOSSES.build({"name": "focal", "gamma": 3.0, **common}, num_classes=3)(*batch)
    loss = build("mine", gamma=3, **common)
    torch.testing.assert_close(loss(*batch), expected)
    assert isinstance(loss, Mine)
    assert list(loss.terms()) == ["mine"]
    with pytest.raises(ConfigError, match=r"loss.gama: loss 'mine' has no parameter 'gama'"):
        build("mine", gama=1.0)


def test_custom_losses_join_a_sum(batch: tuple[Tensor, Tensor]) -> None:
    register_loss("own")(own_cross_entropy)
    register_loss("number")(scalar)
    loss = build("sum", terms={"own": {"scale": 2}, "number": {"weight": 3}})
    torch.testing.assert_close(loss(*batch), 5 * CrossEntropy(num_classes=3)(*batch))
