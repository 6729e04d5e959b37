from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from segtrain.losses import Boundary, DistanceWeightedCrossEntropy
from segtrain.losses.distance import (
    FAR,
    boundary_distance,
    boundary_pixels,
    distance_to,
    signed_distance,
)

IGNORE = 255
ROUNDING = 2**-22  # two units in the last place of float32


def random_mask(*size: int, share: float = 0.2) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(4)) < share


def brute_distance(mask: Tensor) -> Tensor:
    """Every pixel against every True pixel of one map ``(H, W)``."""
    places = torch.cartesian_prod(*(torch.arange(size) for size in mask.shape)).double()
    return torch.cdist(places, places[mask.flatten()]).min(1).values.reshape(mask.shape)


def brute_boundary(target: Tensor, width: int) -> Tensor:
    found = torch.zeros(target.shape, dtype=torch.bool)
    for n, y, x in np.ndindex(*target.shape):
        near = target[n, max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
        found[n, y, x] = bool(((near != IGNORE) & (near != target[n, y, x])).any())
    return found & (target != IGNORE)


class TestDistanceTo:
    def test_by_hand(self) -> None:
        mask = torch.zeros(1, 4, 5, dtype=torch.bool)
        mask[0, 0, 0] = True
        found = distance_to(mask)
        assert found.dtype == torch.float32
        assert found[0, 3, 4] == 5  # 3, 4, 5
        assert found[0, 0].tolist() == [0, 1, 2, 3, 4]
        assert found[0, 1, 1].item() == pytest.approx(math.sqrt(2))

    @pytest.mark.parametrize("share", [0.02, 0.3])
    def test_is_the_nearest_of_all_pixels(self, share: float) -> None:
        mask = random_mask(2, 9, 14, share=share)
        mask[:, 4, 6] = True
        expected = torch.stack([brute_distance(image) for image in mask])
        torch.testing.assert_close(distance_to(mask).double(), expected, rtol=ROUNDING, atol=0)

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 1), (61, 83), (300, 500)])
    def test_is_exact(self, size: tuple[int, int]) -> None:
        ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")
        mask = random_mask(1, *size, share=3 / math.prod(size))
        mask[0, size[0] // 2, size[1] // 3] = True
        expected = torch.from_numpy(ndimage.distance_transform_edt(~mask[0].numpy()))
        torch.testing.assert_close(distance_to(mask)[0].double(), expected, rtol=ROUNDING, atol=0)

    def test_nothing_to_go_to_is_far_and_finite(self) -> None:
        mask = torch.zeros(2, 3, 4, dtype=torch.bool)
        mask[1] = True
        found = distance_to(mask)
        assert found[0].eq(FAR).all()
        assert found[1].eq(0).all()

    @pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (1, 1, 1)])
    def test_small_shapes(self, shape: tuple[int, int, int]) -> None:
        assert distance_to(torch.ones(shape, dtype=torch.bool)).shape == shape

    def test_mask_need_not_be_contiguous(self) -> None:
        mask = random_mask(2, 6, 7)
        turned = mask.transpose(1, 2)
        assert torch.equal(distance_to(turned), distance_to(turned.contiguous()))

    def test_stays_on_its_device(self) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
        mask = random_mask(2, 9, 14)
        found = distance_to(mask.cuda())
        assert found.is_cuda
        assert torch.equal(found.cpu(), distance_to(mask))

    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    def test_is_one_call_of_a_compiled_graph(self, backend: str) -> None:
        mask = random_mask(2, 9, 14)
        mask[0] = False
        torch.compiler.reset()
        compiled = torch.compile(distance_to, fullgraph=True, backend=backend)
        assert torch.equal(compiled(mask), distance_to(mask))
        other = random_mask(1, 5, 6)  # another size may be compiled again, with dynamic shapes
        assert torch.equal(compiled(other), distance_to(other))

    @pytest.mark.filterwarnings("ignore::UserWarning")  # torch.compile's own, where a graph breaks
    def test_a_compiled_loss_of_distances_is_equal(self) -> None:
        logits = torch.randn(2, 3, 9, 14, generator=torch.Generator().manual_seed(4))
        target = torch.arange(3).repeat_interleave(42).reshape(1, 9, 14).repeat(2, 1, 1)
        target[0, 0] = IGNORE
        for loss in (DistanceWeightedCrossEntropy(num_classes=3), Boundary(num_classes=3)):
            torch.compiler.reset()
            one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
            plain = loss(one, target)
            compiled = torch.compile(loss, fullgraph=False, backend="aot_eager")(two, target)
            plain.backward()
            compiled.backward()
            torch.testing.assert_close(compiled, plain)
            torch.testing.assert_close(two.grad, one.grad)


class TestSignedDistance:
    def test_by_hand(self) -> None:
        mask = torch.tensor([[[0, 0, 1, 1, 0, 0, 0]]]).bool()
        expected = [1.5, 0.5, -0.5, -0.5, 0.5, 1.5, 2.5]
        assert signed_distance(mask)[0, 0].tolist() == expected

    def test_inside_and_outside_are_alike(self) -> None:
        mask = random_mask(3, 8, 9)
        assert torch.equal(signed_distance(~mask), -signed_distance(mask))

    def test_is_half_a_pixel_below_the_code_of_the_paper(self) -> None:
        mask = random_mask(3, 8, 9)
        of_paper = distance_to(mask) - torch.where(mask, distance_to(~mask) - 1, 0)
        torch.testing.assert_close(signed_distance(mask), of_paper - 0.5)

    def test_the_edge_of_ignored_pixels_is_no_boundary(self) -> None:
        # Inside, unknown, outside, outside: the nearest pixel of the other side is two away.
        mask = torch.tensor([[[1, 0, 0, 0]]]).bool()
        valid = torch.tensor([[[1, 0, 1, 1]]]).bool()
        assert signed_distance(mask, valid)[0, 0].tolist() == [-1.5, 0.0, 1.5, 2.5]

    def test_what_is_ignored_does_not_matter(self) -> None:
        mask, valid = random_mask(2, 8, 9, share=0.5), random_mask(2, 9, 8).transpose(1, 2)
        expected = signed_distance(mask, valid)
        assert torch.equal(signed_distance(mask | ~valid, valid), expected)
        assert torch.equal(signed_distance(mask & valid, valid), expected)
        assert expected[~valid].eq(0).all()

    @pytest.mark.parametrize("inside", [True, False])
    @pytest.mark.parametrize("size", [(1, 1), (4, 5)])
    def test_no_boundary_is_zero(self, inside: bool, size: tuple[int, int]) -> None:
        mask = torch.full((2, *size), inside)
        assert signed_distance(mask).eq(0).all()
        valid = torch.ones_like(mask)
        valid[:, 0, 0] = False
        mask[:, 0, 0] = not inside  # the other side is there, but ignored
        assert signed_distance(mask, valid).eq(0).all()

    def test_each_image_has_its_own_boundary(self) -> None:
        mask = torch.tensor([[[1, 0, 0]], [[0, 0, 0]]]).bool()
        assert signed_distance(mask)[:, 0].tolist() == [[-0.5, 0.5, 1.5], [0, 0, 0]]


class TestBoundaryPixels:
    def test_by_hand(self) -> None:
        target = torch.tensor([[[0, 0, 0, 0, 7, 7, 7, IGNORE, 2]]])
        one = boundary_pixels(target, IGNORE)[0, 0].int().tolist()
        assert one == [0, 0, 0, 1, 1, 0, 0, 0, 0]
        # Two away, the last 7 and the 2 see each other across the ignored pixel.
        two = boundary_pixels(target, IGNORE, width=2)[0, 0].int().tolist()
        assert two == [0, 0, 1, 1, 1, 1, 1, 0, 1]

    def test_corners_touch(self) -> None:
        target = torch.zeros(1, 4, 4, dtype=torch.long)
        target[0, 0, 0] = 1
        expected = torch.zeros(4, 4, dtype=torch.bool)
        expected[:2, :2] = True
        assert torch.equal(boundary_pixels(target, IGNORE)[0], expected)

    @pytest.mark.parametrize("width", [1, 2, 5])
    @pytest.mark.parametrize("ignored", [False, True])
    def test_is_a_loop_over_pixels(self, width: int, ignored: bool) -> None:
        target = torch.arange(4).repeat_interleave(5).repeat(2, 11, 1)
        target[0, 3:6, 4:9] = 2
        if ignored:
            target[random_mask(2, 11, 20)] = IGNORE
        found = boundary_pixels(target, IGNORE, width)
        assert torch.equal(found, brute_boundary(target, width))

    @pytest.mark.parametrize("label", [IGNORE, -1, 0])
    def test_any_ignore_label(self, label: int) -> None:
        target = torch.tensor([[[1, label, 1, 2]]])
        assert boundary_pixels(target, label)[0, 0].int().tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize("value", [0, IGNORE])
    @pytest.mark.parametrize("size", [(1, 1), (3, 4)])
    def test_one_class_has_none(self, value: int, size: tuple[int, int]) -> None:
        assert not boundary_pixels(torch.full((2, *size), value), IGNORE, width=4).any()

    def test_any_integers(self) -> None:
        target = torch.tensor([[[0, 1, 1, IGNORE]]])
        assert torch.equal(
            boundary_pixels(target.to(torch.uint8), IGNORE), boundary_pixels(target, IGNORE)
        )


class TestBoundaryDistance:
    def test_is_that_to_the_nearest_other_class(self) -> None:
        target = torch.zeros(1, 17, 23, dtype=torch.long)
        target[0, 8:, 5:12], target[0, :4, 15:] = 1, 2
        nearest = [brute_distance(target[0] != label) for label in range(3)]
        exact = torch.stack(nearest).gather(0, target)[0] - 0.5
        short = exact - boundary_distance(target, IGNORE)[0]
        assert short.min() > -1e-6  # along rows and columns it is exact
        assert short.max() < 0.5

    def test_ignored_pixels_are_no_boundary(self) -> None:
        target = torch.tensor([[[0, IGNORE, 0, 0, 1]]])
        assert boundary_distance(target, IGNORE)[0, 0].tolist() == [3.5, 2.5, 1.5, 0.5, 0.5]

    @pytest.mark.parametrize("value", [3, IGNORE])
    def test_far_where_there_is_none(self, value: int) -> None:
        assert boundary_distance(torch.full((1, 3, 4), value), IGNORE).eq(FAR).all()
