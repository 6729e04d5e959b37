"""Losses, models and metrics stay on the device of their input, and seldom wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import segtrain
from segtrain.engine.class_ids import predict_ids, strips_of
from segtrain.losses import TARGETS
from segtrain.metrics import MetricCollector, build_metrics
from segtrain.models import HEADS, MODELS
from tests.gpu.elsewhere import DEVICE, Elsewhere, MixedDevicesError, elsewhere, on_cpu, on_device
from tests.helpers import load_benchmark

CHECKS: ModuleType = load_benchmark("gpu_checks")
C, IGNORE = CHECKS.NUM_CLASSES, CHECKS.IGNORE_LABEL
# All other losses run without waiting. Class-map losses read which classes are present, distances
# are computed on the CPU, and label relaxation reads how many classes a neighbourhood has.
WAITING = {
    "boundary", "cldice", "distance_weighted_cross_entropy", "hausdorff_dt", "label_relaxation",
    "lovasz_hinge", "lovasz_softmax", "rmi",
}  # fmt: skip
NAMES = CHECKS.package_losses()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, C, 6, 5, generator=generator) * 2
    target = torch.randint(0, C, (2, 24, 20), generator=generator)
    target[0, :3] = IGNORE
    return logits, target


def test_the_device_is_told_from_the_cpu() -> None:
    with elsewhere() as waits:
        there = on_device(torch.ones(3)).requires_grad_()
        (there * torch.full((3,), 2.0, device=DEVICE)).sum().backward()
        assert there.grad is not None
        assert there.grad.device == DEVICE
        assert waits == []
        with pytest.raises(MixedDevicesError, match=r"add: tensors of \[\(3,\)\] are on the CPU"):
            there + torch.ones(3)
        with pytest.raises(MixedDevicesError, match="new_tensor"):
            there * there.new_tensor(2.0)
        assert there.detach().sum().item() == 3
        assert there.to("cpu").tolist() == [1, 1, 1]
        assert waits == ["aten::_local_scalar_dense", "copy to the CPU"]


@pytest.fixture(scope="module")
def upsampling_is_cached() -> None:
    """The matrices of the upsampling are copied to the device once per process."""
    logits, target = batch()
    with elsewhere():
        criterion = segtrain.build_criterion("cross_entropy", num_classes=C, strip_rows=7)
        criterion.to(DEVICE)({"out": on_device(logits)}, on_device(target))


@pytest.mark.usefixtures("upsampling_is_cached")
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_keeps_to_its_device(name: str) -> None:
    logits, target = batch()
    for spec in CHECKS.loss_cases(name):
        for dtype, rows in ((torch.float32, "auto"), (torch.float32, 7), (torch.bfloat16, 7)):
            check(spec, logits.to(dtype), target, rows, may_wait=name in WAITING)


def check(
    spec: dict[str, Any], logits: Tensor, target: Tensor, rows: Any, *, may_wait: bool
) -> None:
    options = {"num_classes": C, "ignore_label": IGNORE, "strip_rows": rows}
    here = logits.clone().requires_grad_()
    expected = segtrain.build_criterion(spec, **options)({"out": here}, target).total
    expected.backward()
    with elsewhere() as waits:
        criterion = segtrain.build_criterion(spec, **options).to(DEVICE)
        there, goal = on_device(logits).requires_grad_(), on_device(target)
        waits.clear()
        total = criterion({"out": there}, goal, step_share=criterion.share(goal)).total
        total.backward()
        assert bool(waits) == may_wait, f"{spec} waits: {waits}"
    assert isinstance(total.detach(), Elsewhere)
    assert here.grad is not None
    assert there.grad is not None
    torch.testing.assert_close(on_cpu(total.detach()), expected.detach())
    torch.testing.assert_close(on_cpu(there.grad), here.grad)


def test_a_criterion_with_tasks_keeps_to_its_device() -> None:
    logits, target = batch()
    names = ["out", "aux", *TARGETS.names()]
    with elsewhere():
        criterion = segtrain.build_criterion(
            "cross_entropy", num_classes=C, outputs=names, output_weights="learned"
        ).to(DEVICE)
        outputs = {
            name: on_device(logits if name in ("out", "aux") else logits[:, :1]) for name in names
        }
        report = criterion(outputs, on_device(target))
        report.total.backward()
    assert {value.device for value in report.parts.values()} == {DEVICE}
    assert all(parameter.grad is not None for parameter in criterion.parameters())


def test_scores_keep_to_their_device() -> None:
    logits, target = batch()
    many = torch.stack([target == index for index in range(C)], dim=1).byte()
    names = [str(index) for index in range(len(target))]

    def collector(*, multi_label: bool = False) -> MetricCollector:
        return MetricCollector(
            build_metrics(["iou", "accuracy", "nll", "auc"]),
            class_names=[str(index) for index in range(C)],
            ignore_label=IGNORE,
            multi_label=multi_label,
        )

    def strips(logits: Tensor, index: int) -> Iterator[tuple[slice, Tensor]]:
        for rows, strip in strips_of(logits[index : index + 1], (24, 20), False):
            yield rows, strip[0]

    plain = collector()
    plain.update(predict_ids(logits, (24, 20), False), target, names, partial(strips, logits))
    with elsewhere():
        there, multi = collector(), collector(multi_label=True)
        moved = on_device(logits)
        ids = predict_ids(moved, (24, 20), False)
        there.update(ids, on_device(target), names, partial(strips, moved))
        ids = predict_ids(moved, (24, 20), False, multi_label=True)
        multi.update(ids, on_device(many), names, partial(strips, moved))
        found, expected = there.result(), plain.result()
        assert torch.equal(found.counts, expected.counts)
        assert found.scores["nll"].mean == pytest.approx(expected.scores["nll"].mean, rel=1e-4)
        assert 0 <= multi.result().miou <= 1


@pytest.mark.parametrize("head", HEADS.names())
def test_a_model_keeps_to_its_device(head: str) -> None:
    spec = {"name": "encoder_decoder", "backbone": "hrnet_w18_small_v1", "head": head}
    model = MODELS.build(spec, num_classes=C)
    with elsewhere() as waits:
        model.to(DEVICE)
        waits.clear()
        outputs = model(on_device(torch.rand(2, 3, 64, 64)))
        torch.stack([logits.square().mean() for logits in outputs.values()]).sum().backward()
        assert waits == []
    assert all(isinstance(logits.detach(), Elsewhere) for logits in outputs.values())
    assert any(parameter.grad is not None for parameter in model.parameters())
