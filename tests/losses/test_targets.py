from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from segtrain.errors import ConfigError
from segtrain.losses import (
    LOSSES,
    TARGETS,
    BoundaryTarget,
    DerivedTarget,
    DistanceTarget,
    register_target,
)

IGNORE = 255


@pytest.fixture
def target() -> Tensor:
    ids = torch.zeros(2, 7, 9, dtype=torch.long)
    ids[0, 3:, 2:6], ids[1, :, 4:], ids[1, 2:4] = 2, 1, IGNORE
    return ids


@pytest.mark.parametrize("name", TARGETS.names())
class TestEvery:
    def test_shape_and_ignored_pixels(self, name: str, target: Tensor) -> None:
        derived = TARGETS.build(name)
        before = target.clone()
        found = derived(target, IGNORE)
        assert torch.equal(target, before)
        ignored = target == IGNORE
        if found.dim() == 3:
            assert found.dtype == torch.long
            assert torch.equal(found == IGNORE, ignored)
        else:
            assert found.shape == (2, derived.num_channels, 7, 9)
            assert torch.equal(found.isnan().any(1), ignored)

    @pytest.mark.parametrize("size", [(1, 1), (3, 4)])
    @pytest.mark.parametrize("value", [0, 5, IGNORE])
    def test_one_class_everywhere(self, name: str, size: tuple[int, int], value: int) -> None:
        found = TARGETS.build(name)(torch.full((2, *size), value), IGNORE)
        if value != IGNORE:
            assert torch.isfinite(found).all()

    def test_its_loss_takes_it(self, name: str, target: Tensor) -> None:
        derived = TARGETS.build(name)
        channels = derived.num_channels
        loss = LOSSES.build(derived.default_loss, num_classes=channels, ignore_label=IGNORE)
        leaf = torch.zeros(2, channels, 7, 9, requires_grad=True)
        loss(leaf, derived(target, IGNORE)).backward()
        assert leaf.grad is not None
        ignored = (target == IGNORE)[:, None].expand_as(leaf)
        assert leaf.grad[ignored].eq(0).all()
        assert leaf.grad[~ignored].ne(0).any()
        assert torch.isfinite(leaf.grad).all()

    def test_misspelt(self, name: str) -> None:
        key = next(iter(TARGETS.schema(name)))
        with pytest.raises(ConfigError, match=f"target {name!r} has no parameter '{key}x'"):
            TARGETS.build({"name": name, key + "x": 1})


class TestBoundary:
    def test_by_hand(self) -> None:
        target = torch.tensor([[[4, 4, 4, 9, 9, IGNORE, 4]]])
        assert BoundaryTarget()(target, IGNORE).tolist() == [[[0, 0, 1, 1, 0, IGNORE, 0]]]
        # Two away, the 9 and the 4 on the two sides of the ignored pixel count as neighbours.
        wide = BoundaryTarget(width=2)(target, IGNORE)
        assert wide.tolist() == [[[0, 1, 1, 1, 1, IGNORE, 1]]]

    def test_wrong_width(self) -> None:
        with pytest.raises(ConfigError, match="width must be at least 1, got 0"):
            BoundaryTarget(width=0)


class TestDistance:
    def test_by_hand(self) -> None:
        target = torch.tensor([[[4, 4, 4, 4, 9, IGNORE]]])
        found = DistanceTarget(max_distance=2.5)(target, IGNORE)
        assert found.dtype == torch.float32
        assert found.shape == (1, 1, 1, 6)
        # 3.5 is cut, then 2.5, 1.5, 0.5, 0.5 over 2.5.
        expected = torch.tensor([1.0, 1.0, 0.6, 0.2, 0.2, math.nan])
        torch.testing.assert_close(found[0, 0, 0], expected, equal_nan=True)

    def test_no_boundary_is_one(self) -> None:
        found = DistanceTarget()(torch.tensor([[[3, 3, IGNORE]]]), IGNORE)
        torch.testing.assert_close(found, torch.tensor([[[[1.0, 1.0, math.nan]]]]), equal_nan=True)

    @pytest.mark.parametrize("value", [0.0, -1.0, math.inf])
    def test_wrong_max_distance(self, value: float) -> None:
        with pytest.raises(
            ConfigError, match=f"max_distance must be finite and above 0, got {value}"
        ):
            DistanceTarget(max_distance=value)


class TestRegistry:
    def test_names(self) -> None:
        assert {"boundary", "distance"} <= set(TARGETS.names())
        with pytest.raises(ConfigError, match="unknown target 'boundry'; did you mean 'boundary'"):
            TARGETS.build("boundry")

    def test_a_part_of_ones_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(TARGETS, "_factories", dict(TARGETS._factories))

        @register_target("above")
        class Above(DerivedTarget):
            num_channels = 1
            default_loss: dict[str, Any] = {"name": "bce"}  # noqa: RUF012

            def __init__(self, *, label: int = 1) -> None:
                self.label = label

            def __call__(self, target: Tensor, ignore_label: int) -> Tensor:
                return torch.where(target == ignore_label, target, (target > self.label).long())

        found = TARGETS.build({"name": "above", "label": 3})(torch.tensor([[[2, 4, 255]]]), 255)
        assert found.tolist() == [[[0, 1, 255]]]

    def test_a_taken_name(self) -> None:
        with pytest.raises(ConfigError, match="target 'boundary' is registered already"):
            register_target("boundary")(BoundaryTarget)

    def test_only_derived_targets(self) -> None:
        with pytest.raises(TypeError, match=r"register_target\('x'\) takes a DerivedTarget class"):
            register_target("x")(dict)  # type: ignore[type-var]
