"""The contract of every registered loss; a new loss or mining is tested without a new file."""

from __future__ import annotations

from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, MININGS, Loss, PixelLoss, RegionLoss

C, IGNORE = 4, 255
TERMS = {"terms": {"cross_entropy": {}, "dice": {"weight": 0.5}}}
REQUIRED: dict[str, dict[str, Any]] = {"sum": TERMS, "uncertainty": TERMS}


def make(case: str, *, num_classes: int = C, **params: Any) -> Loss:
    name, _, mining = case.partition("+")
    spec = {"name": name, **REQUIRED.get(name, {}), **params}
    if mining:
        spec["mining"] = mining
    return LOSSES.build(spec, num_classes=num_classes, ignore_label=IGNORE)


NAMES = LOSSES.names()
PIXEL_LOSSES = [name for name in NAMES if isinstance(make(name), PixelLoss)]
REGION_LOSSES = [name for name in NAMES if isinstance(make(name), RegionLoss)]
MINED = [f"{name}+{mining}" for name in PIXEL_LOSSES for mining in MININGS.names()]
CASES = [*NAMES, *(case for case in MINED if not case.endswith("+none"))]
WEIGHTED = [name for name in NAMES if "class_weights" in LOSSES.schema(name)]

every_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(3, C, 6, 5, generator=torch.Generator().manual_seed(1)) * 2


@pytest.fixture
def target() -> Tensor:
    ids = torch.randint(0, C, (3, 6, 5), generator=torch.Generator().manual_seed(2))
    ids[0, :2] = IGNORE
    ids[1, 3, 1:4] = IGNORE
    return ids


def test_the_registry_is_not_empty() -> None:
    assert {"cross_entropy", "focal", "bce", "dice", "jaccard", "sum"} <= set(NAMES)
    assert {"none", "ohem"} <= set(MININGS.names())


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scalar_of_the_wanted_dtype(
    case: str, dtype: torch.dtype, logits: Tensor, target: Tensor
) -> None:
    value = make(case)(logits.to(dtype), target)
    assert value.shape == ()
    assert value.dtype == dtype
    assert torch.isfinite(value)
    assert value > 0


@pytest.mark.fault("F37")
@every_case
def test_ignored_pixels_count_for_nothing(case: str, logits: Tensor, target: Tensor) -> None:
    loss = make(case)
    ignored = (target == IGNORE)[:, None].expand_as(logits)
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert leaf.grad is not None
    assert leaf.grad[ignored].eq(0).all()
    assert leaf.grad[~ignored].ne(0).any()
    for disturbed in (torch.where(ignored, 1e4, logits), torch.where(ignored, -logits, logits)):
        assert torch.equal(loss(disturbed, target), value.detach())


@pytest.mark.fault("F37")
@every_case
def test_nothing_to_count_is_zero_with_a_graph(case: str, logits: Tensor, target: Tensor) -> None:
    leaf = logits.clone().requires_grad_()
    value = make(case)(leaf, torch.full_like(target, IGNORE))
    value.backward()
    assert value.item() == 0
    assert leaf.grad is not None
    assert leaf.grad.eq(0).all()


@every_case
def test_inputs_are_not_changed(case: str, logits: Tensor, target: Tensor) -> None:
    before = logits.clone(), target.clone()
    versions = logits._version, target._version
    leaf = logits.requires_grad_()
    make(case)(leaf, target).backward()
    assert torch.equal(leaf.detach(), before[0])
    assert torch.equal(target, before[1])
    assert (leaf._version, target._version) == versions


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(
    case: str, dtype: torch.dtype, logits: Tensor, target: Tensor
) -> None:
    loss = make(case)
    half = (logits * 1e4 / logits.abs().max()).to(dtype)
    leaf = half.clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.equal(value.detach(), loss(half.float(), target))
    assert torch.isfinite(value)
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


@every_case
def test_autocast_changes_nothing(case: str, logits: Tensor, target: Tensor) -> None:
    loss = make(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(logits, target)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(logits, target))


Bend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
MISTAKES: dict[str, tuple[Bend, type[Exception], str]] = {
    "3d logits": (
        lambda z, t: (z[0], t),
        ValueError,
        r"logits must be \(N, 4, H, W\), got \(4, 6, 5\)",
    ),
    "channels": (
        lambda z, t: (z[:, :3], t),
        ValueError,
        r"logits must be \(N, 4, H, W\), got \(3, 3, 6, 5\)",
    ),
    "integer logits": (
        lambda z, t: (z.long(), t),
        TypeError,
        "logits must be a floating point tensor, got torch.int64",
    ),
    "4d target": (
        lambda z, t: (z, t[:, None]),
        ValueError,
        r"target must be \(N, H, W\).* with N = 3, got \(3, 1, 6, 5\)",
    ),
    "batch": (
        lambda z, t: (z, t[:2]),
        ValueError,
        r"target must be \(N, H, W\).* with N = 3, got \(2, 6, 5\)",
    ),
    "size": (
        lambda z, t: (z, t[:, :3]),
        ValueError,
        r"target is \(3, 5\) but logits are \(6, 5\): .*build_criterion",
    ),
    "float target": (
        lambda z, t: (z, t.float()),
        TypeError,
        "target must hold integers, got torch.float32",
    ),
    "bool target": (
        lambda z, t: (z, t > 1),
        TypeError,
        "target must hold integers, got torch.bool",
    ),
    "label above": (
        lambda z, t: (z, torch.where(t == 3, 4, t)),
        ValueError,
        r"target holds 4 at \d+ .*0 to 3 and ignore_label 255",
    ),
    "label below": (
        lambda z, t: (z, torch.where(t == 3, -1, t)),
        ValueError,
        r"target holds -1 at \d+ .*0 to 3 and ignore_label 255",
    ),
}


@every_case
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_is_named(case: str, mistake: str, logits: Tensor, target: Tensor) -> None:
    bend, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message):
        make(case)(*bend(logits, target))


@every_case
@pytest.mark.parametrize("shape", [(2, 20, 4, 5), (2, 100, 10, 10)])
def test_better_logits_score_lower(case: str, shape: tuple[int, ...]) -> None:
    num_classes, pixels = shape[1], shape[2] * shape[3]
    target = (torch.arange(2 * pixels) % num_classes).reshape(2, *shape[2:])
    direction = torch.nn.functional.one_hot(target, num_classes).movedim(-1, 1) * 2.0 - 1
    loss = make(case, num_classes=num_classes)
    values = []
    # Mutual information has no sign: a prediction and its complement have the same.
    scales = (0.0, 5.0, 20.0, 100.0) if case == "rmi" else (-5.0, 0.0, 5.0, 20.0, 100.0)
    for scale in scales:
        leaf = (scale * direction).requires_grad_()
        value = loss(leaf, target)
        value.backward()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        values.append(value.item())
    assert values == sorted(values, reverse=True)
    assert values[0] > values[1] > values[2] >= 0 or (case == "rmi" and values[0] > values[1])
    assert values[-1] < 1e-4 > values[-2]


@every_case
def test_gradcheck(case: str, logits: Tensor, target: Tensor) -> None:
    loss = make(case)
    small = logits[:2, :, :3, :3].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, target[:2, :3, :3]), small)


@every_case
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integer_target(case: str, dtype: torch.dtype, logits: Tensor, target: Tensor) -> None:
    loss = make(case)
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


@every_case
def test_tensors_are_buffers_outside_the_state(case: str) -> None:
    params = {"class_weights": [1.0] * C} if case.split("+")[0] in WEIGHTED else {}
    loss = make(case, **params)
    assert list(loss.buffers())
    learned = {key for key, _ in loss.named_parameters()}
    assert set(loss.state_dict()) == learned
    assert not any(
        isinstance(value, Tensor) for module in loss.modules() for value in vars(module).values()
    )
    loss.to("meta")
    assert all(buffer.is_meta for buffer in loss.buffers())


@pytest.mark.parametrize("name", [*PIXEL_LOSSES, *REGION_LOSSES, "sum"])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 3.0]])
def test_parts_of_a_batch_add_up(
    name: str, weights: list[float] | None, logits: Tensor, target: Tensor
) -> None:
    params: dict[str, Any] = {"per_image": True} if name in REGION_LOSSES else {}
    if name == "sum":
        params = {"terms": {"cross_entropy": {}, "dice": {"per_image": True, "weight": 2.0}}}
    if name in WEIGHTED:
        params["class_weights"] = weights
    loss = make(name, **params)
    total = loss.share(target)
    for sizes in ([1, 2], [2, 1], [1, 1, 1]):
        pieces = list(zip(logits.double().split(sizes), target.split(sizes), strict=True))
        terms = list(loss.terms().values())
        values = torch.stack([torch.stack([term(z, t) for term in terms]) for z, t in pieces])
        shares = torch.stack([loss.share(t) for _, t in pieces])
        joined = ((values * shares / total).sum(0) * loss.term_weights(values)).sum()
        torch.testing.assert_close(joined, loss(logits.double(), target), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", WEIGHTED)
class TestClassWeights:
    WEIGHTS = (0.5, 1.0, 4.0, 2.0)

    def test_uniform_is_none(self, name: str, logits: Tensor, target: Tensor) -> None:
        uniform = make(name, class_weights=[0.3] * C)(logits, target)
        torch.testing.assert_close(uniform, make(name)(logits, target))

    def test_scale_does_not_matter(self, name: str, logits: Tensor, target: Tensor) -> None:
        one = make(name, class_weights=list(self.WEIGHTS))(logits, target)
        ten = make(name, class_weights=[10 * w for w in self.WEIGHTS])(logits, target)
        torch.testing.assert_close(one, ten)

    def test_a_class_of_weight_zero_is_not_missed(
        self, name: str, logits: Tensor, target: Tensor
    ) -> None:
        only = torch.zeros_like(target)
        leaf = logits.clone().requires_grad_()
        value = make(name, class_weights=[0.0, 1.0, 1.0, 1.0])(leaf, only)
        value.backward()
        assert value.item() == 0
        assert leaf.grad is not None
        assert leaf.grad.eq(0).all()

    @pytest.mark.fault("F52")
    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ([1.0, 2.0], "class_weights has 2 values, but num_classes is 4"),
            ([1.0, -1.0, 1.0, 1.0], "not negative"),
            ([1.0, float("inf"), 1.0, 1.0], "finite"),
            ([0.0] * C, "not all 0"),
        ],
    )
    def test_wrong_weights(self, name: str, weights: list[float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make(name, class_weights=weights)


ALTERNATIVES: dict[str, list[Any]] = {
    "terms": [{"dice": {}}],
    "mining": [{"name": "ohem", "min_kept": 1, "threshold": 0.3}],
    "class_weights": [[0.1, 1.0, 2.0, 5.0]],
    "classes": ["all", [0, 2]],
}
BY_TYPE: dict[Any, list[Any]] = {
    float: [0.25, 0.5, 1.0, 3.0],
    int: [0, 1, 2, 40],
    bool: [True, False],
    list[float]: [[0.9, 0.1, 0.5, 0.3]],
    type(None): [None],
}
PROVIDED = ("num_classes", "ignore_label")


def alternatives(name: str, annotation: Any) -> list[Any]:
    """Values of a parameter, of which at least one must change the loss or be rejected."""
    if name in ALTERNATIVES:
        return ALTERNATIVES[name]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return [value for item in get_args(annotation) for value in alternatives("", item)]
    return BY_TYPE[annotation]


def changes(build: Callable[[Any], Loss], base: Loss, values: list[Any], target: Tensor) -> bool:
    logits = torch.randn(3, C, 6, 5, generator=torch.Generator().manual_seed(3)) * 2
    seen_by_all = [target, torch.where(target == 3, 0, target)]
    if base.dense is not None:  # some arguments affect dense targets only
        seen_by_all.append(
            torch.randn(3, C, 6, 5, generator=torch.Generator().manual_seed(4)).softmax(1)
        )
    for value in values:
        try:
            loss = build(value)
        except ConfigError:
            continue
        for seen in seen_by_all:
            if not torch.allclose(loss(logits, seen), base(logits, seen), rtol=1e-5):
                return True
    return False


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name in NAMES
        for key in LOSSES.schema(name)
        if key not in (*PROVIDED, "scope")  # test_global_scope.py has several processes
    ],
)
def test_every_argument_does_something(name: str, key: str, target: Tensor) -> None:
    parameter = LOSSES.schema(name)[key]
    listed: dict[str, Any] = {"classes": [0, 3]} if key == "only_present" else {}
    if key == "reduction" and "per_image" in LOSSES.schema(name):
        listed = {"per_image": True}
    base = make(name, **listed)
    assert changes(
        lambda value: make(name, **listed, **{key: value}),
        base,
        alternatives(key, parameter.annotation),
        target,
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, key) for name in MININGS.names() for key in MININGS.schema(name) if key != "scope"],
)
def test_every_argument_of_a_mining_does_something(name: str, key: str, target: Tensor) -> None:
    # With the default `threshold`, no value of `min_kept` would change anything.
    small: dict[str, Any] = {"threshold": 0.01, "min_kept": 1}
    if name == "hard_negative":  # three to one keeps nearly all of so few pixels
        small["ratio"] = 0.0
    known = MININGS.schema(name)
    start = {"name": name, **{item: value for item, value in small.items() if item in known}}

    loss = "bce" if key == "per_class" else "cross_entropy"

    def build(value: Any) -> Loss:
        return make(loss, mining={**start, key: value})

    base = make(loss, mining=start)
    assert changes(build, base, alternatives(key, known[key].annotation), target)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REQUIRED])
def test_default_constructor(name: str, logits: Tensor) -> None:
    factory = LOSSES.get(name)
    value = factory(num_classes=C)(logits, torch.full((3, 6, 5), 1))
    assert torch.isfinite(value)


@pytest.mark.parametrize("name", MININGS.names())
def test_default_constructor_of_a_mining(name: str) -> None:
    MININGS.build(name)


@pytest.mark.fault("F54")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("num_classes", "ignore_label", "message"),
    [(0, 255, "num_classes must be at least 1, got 0"), (4, 3, "ignore_label 3 is also a class")],
)
def test_wrong_classes(name: str, num_classes: int, ignore_label: int, message: str) -> None:
    spec = {"name": name, **REQUIRED.get(name, {})}
    with pytest.raises(ConfigError, match=message):
        LOSSES.build(spec, num_classes=num_classes, ignore_label=ignore_label)


@pytest.mark.fault("F50")
@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_parameter_is_refused(name: str) -> None:
    key = next(key for key in LOSSES.schema(name) if key not in PROVIDED)
    message = f"loss.{key}x: loss '{name}' has no parameter '{key}x'; did you mean '{key}'"
    with pytest.raises(ConfigError, match=message):
        make(name, **{key + "x": 1.0})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch.compile's own, where a graph breaks
@every_case
def test_compiled_is_equal(case: str, logits: Tensor, target: Tensor) -> None:
    loss = make(case)
    torch.compiler.reset()
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    plain, compiled = loss(one, target), torch.compile(loss)(two, target)
    plain.backward()
    compiled.backward()
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(two.grad, one.grad)
