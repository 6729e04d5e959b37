from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from segtrain.criterion.build import build_criterion
from segtrain.criterion.criterion import Criterion, Task
from segtrain.criterion.strips import strip_total
from segtrain.errors import ConfigError
from segtrain.losses import (
    LOSSES,
    MININGS,
    TARGETS,
    ClassMapLoss,
    CrossEntropy,
    Dice,
    Focal,
    Loss,
    MeanMining,
    PixelLoss,
    RegionLoss,
    TargetProbabilityLoss,
    register_loss,
)

Reference = Callable[[str], Any]

# Cityscapes, from the official HRNet code.
CITYSCAPES = [0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023]
CITYSCAPES += [0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507]
OFFICIAL = [
    "ce_align",
    "ce_noalign",
    "ce_fullres",
    "ce_classweights",
    "ce_2out_0.4_1",
    "ce_2out_0.4_1_classweights",
    "ce_half_ignored",
    "ce_all_ignored",
    "ohem_thres0.9_kept100",
    "ohem_thres0.7_kept100",
    "ohem_thres0.01_kept3000_minvalue_regime",
    "ohem_kept_exceeds_pixels",
    "ohem_thres0.7_kept100_noalign",
    "ohem_classweights",
    "ohem_2out_0.4_1",
    "ohem_2out_0.4_1_classweights",
    "ohem_half_ignored",
    "ohem_all_ignored",
    "ohem_fullres",
    "master_ce",
    "master_ohem",
]
TERMS = {"terms": {"cross_entropy": {"mining": "ohem"}, "dice": {"per_image": True}}}
EVERY = {"sum": TERMS, "uncertainty": TERMS}


def build(name: str, mining: str | None = None, num_classes: int = 5, **params: Any) -> Loss:
    spec = {"name": name, **EVERY.get(name, {}), **params}
    if mining is not None:
        small = {"threshold": 0.3, "min_kept": 100}
        known = MININGS.schema(mining)
        spec["mining"] = {"name": mining, **{k: v for k, v in small.items() if k in known}}
    return LOSSES.build(spec, num_classes=num_classes, ignore_label=255)


PIXEL_LOSSES = [name for name in LOSSES.names() if isinstance(build(name), PixelLoss)]
REGION_LOSSES = [name for name in LOSSES.names() if isinstance(build(name), RegionLoss)]
CASES: list[tuple[str, str | None]] = [(name, None) for name in LOSSES.names()]
CASES += [(name, mining) for name in PIXEL_LOSSES for mining in MININGS.names() if mining != "none"]


PROMISED: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in PIXEL_LOSSES]
PROMISED += [(name, {"class_weights": [1.0, 2.0, 0.5, 3.0, 1.0]}) for name in PIXEL_LOSSES]
PROMISED += [(name, {"per_image": True}) for name in REGION_LOSSES]
PROMISED += [("sum", {"terms": {"focal": {}, "dice": {"per_image": True, "weight": 2}}})]


def both(criterion: Criterion, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = outputs.clone().requires_grad_()
    total = criterion(leaf, target).total
    total.backward()
    assert leaf.grad is not None
    return total.detach(), leaf.grad


class TestOfficial:
    """The values and gradients of the official HRNet code."""

    @pytest.fixture
    def run(self, reference: Reference) -> Callable[[str, int | None], tuple[Any, ...]]:
        def run(name: str, rows: int | None) -> tuple[Any, ...]:
            values = reference("losses.pt")
            (case,) = [case for case in values["cases"] if case["name"] == name]
            weights = CITYSCAPES if case["class_weights"] else None
            mining = None
            if case["loss"] == "OhemCrossEntropy":
                kwargs = case["kwargs"]
                mining = {"name": "ohem", "threshold": kwargs["thres"]}
                mining["min_kept"] = kwargs["min_kept"]
            names = ["aux", "out"][-len(case["scores"]) :]
            outputs = {
                name: values["inputs"][score].clone().requires_grad_()
                for name, score in zip(names, case["scores"], strict=True)
            }
            criterion = Criterion(
                CrossEntropy(num_classes=19, class_weights=weights, mining=mining),
                auxiliary_loss=CrossEntropy(num_classes=19, class_weights=weights),
                output_weights=dict(zip(names, case["balance_weights"], strict=True)),
                align_corners=case["align_corners"],
                strip_rows=rows,
            )
            target = values["targets"][case["target"]]
            report = criterion(outputs, target)
            report.total.backward()
            return case, report, outputs, target

        return run

    def test_no_case_is_left_out(self, reference: Reference) -> None:
        assert {case["name"] for case in reference("losses.pt")["cases"]} == set(OFFICIAL)

    @pytest.mark.parametrize("rows", [None, 7])
    @pytest.mark.parametrize("name", OFFICIAL)
    def test_case(self, run: Callable[..., tuple[Any, ...]], name: str, rows: int | None) -> None:
        case, report, outputs, target = run(name, rows)
        if name.endswith("all_ignored"):  # NaN and an IndexError there
            assert report.total.item() == 0
            assert all(output.grad.eq(0).all() for output in outputs.values())
            return
        expected, grads = case["value"], [grad.clone() for grad in case["grads"]]
        if name.startswith("ohem_2out"):
            # There the auxiliary term is a mean over all pixels, ignored ones as 0, divided by no
            # weights; here it is the mean over the valid ones, as without OHEM.
            valid = target != 255
            weights = torch.tensor(CITYSCAPES) if case["class_weights"] else torch.ones(19)
            correction = target.numel() / weights[target[valid]].sum()
            ours = report.parts["aux/cross_entropy"]
            assert abs(report.total.item() - expected) > 1e-3
            expected = expected + 0.4 * (ours - ours / correction).item()
            grads[0] = grads[0] * correction
        assert report.total.item() == pytest.approx(expected, abs=1e-5)
        for output, grad in zip(outputs.values(), grads, strict=True):
            assert grad.ne(0).any()
            torch.testing.assert_close(output.grad, grad, atol=1e-5, rtol=1e-5)

    def test_the_auxiliary_term_is_the_mean_over_valid_pixels(
        self, run: Callable[..., tuple[Any, ...]]
    ) -> None:
        _, report, outputs, target = run("ohem_2out_0.4_1", None)
        upsampled = F.interpolate(
            outputs["aux"], target.shape[-2:], mode="bilinear", align_corners=True
        )
        expected = F.cross_entropy(upsampled, target, ignore_index=255)
        torch.testing.assert_close(report.parts["aux/cross_entropy"], expected)


class TestStrips:
    @pytest.mark.parametrize("align_corners", [True, False])
    @pytest.mark.parametrize(("name", "mining"), CASES)
    @pytest.mark.parametrize(
        ("source", "size"),
        [((8, 6), (32, 24)), ((7, 9), (29, 33)), ((1, 5), (17, 11)), ((23, 19), (10, 7))],
        ids=["x4", "odd", "one row", "down"],
    )
    def test_equal_the_whole(
        self,
        name: str,
        mining: str | None,
        align_corners: bool,
        source: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        torch.manual_seed(0)
        logits = torch.randn(2, 5, *source, dtype=torch.float64) * 3
        target = torch.randint(0, 5, (2, *size))
        target[0, :3] = 255
        loss = build(name, mining)
        whole = both(Criterion(loss, align_corners=align_corners, strip_rows=None), logits, target)
        for rows in (1, 4, 16, 100):
            criterion = Criterion(loss, align_corners=align_corners, strip_rows=rows)
            value, gradient = both(criterion, logits, target)
            torch.testing.assert_close(value, whole[0], atol=1e-10, rtol=0)
            torch.testing.assert_close(gradient, whole[1], atol=1e-10, rtol=0)

    @pytest.mark.parametrize("rows", [None, 4])
    def test_the_whole_is_interpolation_and_loss(self, rows: int | None) -> None:
        torch.manual_seed(0)
        logits = torch.randn(1, 5, 4, 4, dtype=torch.float64)
        target = torch.randint(0, 5, (1, 16, 16))
        for align_corners in (True, False):
            upsampled = F.interpolate(
                logits, (16, 16), mode="bilinear", align_corners=align_corners
            )
            criterion = Criterion(build("dice"), align_corners=align_corners, strip_rows=rows)
            torch.testing.assert_close(
                criterion(logits, target).total, build("dice")(upsampled, target)
            )

    def test_all_ignored(self) -> None:
        target = torch.full((1, 16, 16), 255)
        for name, mining in CASES:
            value, gradient = both(
                Criterion(build(name, mining), strip_rows=4), torch.randn(1, 5, 4, 4), target
            )
            assert value == 0
            assert gradient.eq(0).all()

    def test_a_parameter_of_the_loss_is_trained(self) -> None:
        class Tempered(PixelLoss):
            def __init__(self, **common: Any) -> None:
                super().__init__(**common)
                self.temperature = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

            def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
                return F.cross_entropy(logits / self.temperature, target, reduction="none")

        torch.manual_seed(0)
        logits, target = torch.randn(2, 5, 4, 6).double(), torch.randint(0, 5, (2, 13, 17))
        gradients = []
        for rows in (None, 1, 4):
            loss = Tempered(num_classes=5)
            value, gradient = both(Criterion(loss, strip_rows=rows), logits, target)
            assert loss.temperature.grad is not None
            gradients.append((value, gradient, loss.temperature.grad))
        assert gradients[0][2] != 0
        for found in gradients[1:]:
            torch.testing.assert_close(found, gradients[0], atol=1e-10, rtol=0)

    def test_a_parameter_of_two_terms_is_counted_once(self) -> None:
        class Shared(PixelLoss):
            def __init__(self, scale: nn.Parameter, **common: Any) -> None:
                super().__init__(**common)
                self.scale = scale

            def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
                return self.scale * F.cross_entropy(logits, target, reduction="none")

        scale = nn.Parameter(torch.tensor(2.0))
        terms = [Shared(scale, num_classes=3), Shared(scale, num_classes=3)]
        logits, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.long)
        options: dict[str, Any] = {"rows": 2, "align_corners": False}
        total, _ = strip_total(logits, target, terms, weights=torch.ones(2), **options)
        total.backward()
        assert scale.grad is not None
        assert float(scale.grad) == pytest.approx(2 * math.log(3))

    @pytest.mark.parametrize("backward_inside", [True, False])
    def test_autocast_changes_nothing(self, backward_inside: bool) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(1, 5, 4, 4), torch.randint(0, 5, (1, 16, 16))
        criterion = Criterion(build("cross_entropy"), strip_rows=4)
        expected = both(criterion, logits, target)
        leaf = logits.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = criterion(leaf, target).total
            if backward_inside:
                total.backward()
        if not backward_inside:
            total.backward()
        assert torch.equal(total.detach(), expected[0])
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, expected[1])

    def test_half_precision_logits(self) -> None:
        torch.manual_seed(0)
        logits = (torch.randn(1, 5, 4, 4) * 1e4).bfloat16()
        target = torch.randint(0, 5, (1, 16, 16))
        criterion = Criterion(build("cross_entropy"), strip_rows=4)
        value, gradient = both(criterion, logits, target)
        assert torch.equal(value, both(criterion, logits.float(), target)[0])
        assert gradient.dtype == torch.bfloat16

    @pytest.mark.parametrize(("name", "mining"), CASES)
    def test_the_upsampled_logits_never_exist(self, name: str, mining: str | None) -> None:
        class Largest(TorchDispatchMode):
            numel = 0

            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                result = func(*args, **(kwargs or {}))
                for item in result if isinstance(result, (tuple, list)) else [result]:
                    if isinstance(item, Tensor):
                        self.numel = max(self.numel, item.numel())
                return result

        logits, target = torch.randn(2, 24, 8, 8), torch.randint(0, 24, (2, 64, 64))
        full = 2 * 24 * 64 * 64
        loss = build(name, mining, num_classes=24)
        seen = {}
        for rows in (None, 4):
            with Largest() as largest:
                both(Criterion(loss, strip_rows=rows), logits, target)
            seen[rows] = largest.numel
        assert seen[None] >= full
        # Relaxation keeps the classes around each pixel, and random labels have nine.
        assert seen[4] <= full // (2 if name == "label_relaxation" else 16)


class TestStepShare:
    """A step seen in parts is the step."""

    @pytest.mark.parametrize("rows", [None, 4])
    @pytest.mark.parametrize("ignored", ["some", "a part", "all"])
    @pytest.mark.parametrize(("name", "params"), PROMISED)
    def test_parts_add_up(
        self, name: str, params: dict[str, Any], ignored: str, rows: int | None
    ) -> None:
        torch.manual_seed(0)
        names = ("out", "aux")
        outputs = {name: torch.randn(3, 5, 4, 4, dtype=torch.float64) for name in names}
        target = torch.randint(0, 5, (3, 13, 13))
        target[0, :9] = 255
        target[{"some": slice(0), "a part": slice(2, 3), "all": slice(None)}[ignored]] = 255
        auxiliary = build("cross_entropy")
        criterion = Criterion(build(name, **params), auxiliary_loss=auxiliary, strip_rows=rows)
        whole = {name: output.clone().requires_grad_() for name, output in outputs.items()}
        expected = criterion(whole, target).total
        expected.backward()
        parts = {name: output.clone().requires_grad_() for name, output in outputs.items()}
        step_share = sum(criterion.share(piece) for piece in target.split([2, 1]))
        totals = []
        for piece in (slice(0, 2), slice(2, 3)):
            report = criterion(
                {name: output[piece] for name, output in parts.items()},
                target[piece],
                step_share=step_share,
            )
            report.total.backward()
            totals.append(report.total.detach())
        torch.testing.assert_close(sum(totals), expected.detach(), atol=1e-7, rtol=1e-6)
        for name in names:
            torch.testing.assert_close(parts[name].grad, whole[name].grad, atol=1e-7, rtol=1e-6)
        assert (expected != 0) == (ignored != "all")


class TestOutputs:
    LOGITS = torch.zeros(1, 5, 4, 4)
    TARGET = torch.zeros(1, 16, 16, dtype=torch.long)

    def test_weights_and_parts(self) -> None:
        outputs = {"aux": torch.ones(1, 5, 2, 2), "out": self.LOGITS, "edge": self.LOGITS}
        outputs["aux"][:, 0] = 3.0
        loss = build("sum", terms={"cross_entropy": {"weight": 2.0}, "dice": {}})
        report = Criterion(loss)(outputs, self.TARGET)
        assert list(report.parts) == [
            f"{output}/{term}" for output in outputs for term in ("cross_entropy", "dice")
        ]
        value = {
            key: 2 * report.parts[f"{key}/cross_entropy"] + report.parts[f"{key}/dice"]
            for key in outputs
        }
        assert not any(part.requires_grad for part in report.parts.values())
        expected = value["out"] + 0.4 * value["aux"] + 0.4 * value["edge"]
        torch.testing.assert_close(report.total, expected)
        weights = {"aux": 0.0, "out": 2.0, "edge": 1.0}
        report = Criterion(loss, output_weights=weights)(outputs, self.TARGET)
        torch.testing.assert_close(report.total, 2 * value["out"] + value["edge"])

    def test_a_tensor_is_the_main_output(self) -> None:
        criterion = Criterion(build("cross_entropy"))
        one, two = criterion(self.LOGITS, self.TARGET), criterion({"out": self.LOGITS}, self.TARGET)
        assert torch.equal(one.total, two.total)
        assert list(one.parts) == ["out/cross_entropy"]

    def test_auxiliary_loss(self) -> None:
        criterion = Criterion(build("dice"), auxiliary_loss=build("focal"))
        report = criterion({"out": self.LOGITS, "aux": self.LOGITS}, self.TARGET)
        assert list(report.parts) == ["out/dice", "aux/focal"]

    @pytest.mark.parametrize(
        ("weights", "names", "message"),
        [
            (None, ["aux"], "outputs must have 'out', got aux"),
            (None, [], "outputs must have 'out', got none"),
            ({"out": 1.0}, ["out", "aux"], "outputs are out, aux, but criterion.output_weights"),
            ({"out": 1.0, "aux": 0.4}, ["out"], "outputs are out, but .* names out, aux"),
            ({}, ["out"], "criterion.output_weights names none"),
        ],
    )
    def test_outputs_and_weights_must_match(
        self, weights: dict[str, float] | None, names: list[str], message: str
    ) -> None:
        criterion = Criterion(build("cross_entropy"), output_weights=weights)
        with pytest.raises(ValueError, match=message):
            criterion(dict.fromkeys(names, self.LOGITS), self.TARGET)

    @pytest.mark.parametrize(
        ("logits", "target", "error", "message"),
        [
            (torch.zeros(1, 4, 4, 4), TARGET, ValueError, r"logits must be \(N, 5, H, W\), got"),
            (LOGITS.long(), TARGET, TypeError, "logits must be a floating point tensor"),
            (LOGITS, TARGET[0], ValueError, r"target must be \(N, H, W\)"),
            (LOGITS, TARGET.float(), TypeError, "target must hold integers"),
            (LOGITS, TARGET + 5, ValueError, "target holds 5 at 256"),
        ],
    )
    def test_wrong_tensors(
        self, logits: Tensor, target: Tensor, error: type[Exception], message: str
    ) -> None:
        for rows in (None, 4):
            with pytest.raises(error, match=message):
                Criterion(build("cross_entropy"), strip_rows=rows)(logits, target)


class TestStripRows:
    @pytest.fixture
    def scalar(self, monkeypatch: pytest.MonkeyPatch) -> Loss:
        monkeypatch.setattr(LOSSES, "_factories", dict(LOSSES._factories))

        @register_loss("one_number")
        def one_number(logits: Tensor, target: Tensor, *, ignore_label: int) -> Tensor:
            return F.cross_entropy(logits, target, ignore_index=ignore_label)

        return build("one_number")

    @pytest.mark.parametrize("rows", [0, -1, "some"])
    def test_wrong_rows(self, rows: Any) -> None:
        message = f"criterion.strip_rows must be at least 1, 'auto' or null, got {rows!r}"
        with pytest.raises(ConfigError, match=message):
            Criterion(build("dice"), strip_rows=rows)

    def test_one_number_has_no_strips(self, scalar: Loss) -> None:
        message = "criterion.strip_rows: loss 'one_number' needs the whole image"
        with pytest.raises(ConfigError, match=message):
            Criterion(scalar, strip_rows=8)
        with pytest.raises(ConfigError, match=message):
            Criterion(Dice(num_classes=5), auxiliary_loss=scalar, strip_rows=8)

    @pytest.mark.parametrize("size", [16, 512])
    def test_one_number_is_taken_whole_by_auto(self, scalar: Loss, size: int) -> None:
        torch.manual_seed(0)
        logits, target = torch.randn(1, 5, 8, 8), torch.randint(0, 5, (1, size, size))
        plain = build("cross_entropy")
        expected = both(Criterion(plain, strip_rows=None), logits, target)
        for criterion in (Criterion(scalar), Criterion(plain, auxiliary_loss=scalar)):
            assert criterion.strip_rows is None
            torch.testing.assert_close(both(criterion, logits, target), expected)

    def test_auto_takes_strips_when_the_whole_is_large(self) -> None:
        criterion = Criterion(build("dice"))
        assert criterion._rows(torch.zeros(1, 5, 8, 8), torch.zeros(1, 32, 32)) is None
        assert criterion._rows(torch.zeros(1, 5, 8, 8), torch.zeros(1, 1024, 1024)) == 16
        assert criterion._rows(torch.zeros(1, 5, 1024, 1024), torch.zeros(1, 1024, 1024)) is None

    def test_repr_says_what_was_set(self) -> None:
        criterion = Criterion(build("dice"), align_corners=True, strip_rows=4)
        assert "align_corners=True, strip_rows=4, weights=None" in repr(criterion)


class TestTasks:
    """Outputs with a loss and a target of their own."""

    @pytest.fixture
    def outputs(self) -> dict[str, Tensor]:
        torch.manual_seed(0)
        channels = {"out": 5, "aux": 5, "boundary": 1, "distance": 1}
        return {
            name: torch.randn(2, number, 8, 8, dtype=torch.float64, requires_grad=True)
            for name, number in channels.items()
        }

    @pytest.fixture
    def target(self) -> Tensor:
        target = torch.arange(5).repeat_interleave(13)[:64].expand(2, 48, 64).contiguous()
        target[0, :5] = 255
        return target

    @pytest.mark.parametrize("rows", [None, 16])
    def test_a_name_says_what_is_learned(
        self, outputs: dict[str, Tensor], target: Tensor, rows: int | None
    ) -> None:
        criterion = build_criterion(
            "cross_entropy", num_classes=5, outputs=list(outputs), strip_rows=rows
        )
        report = criterion(outputs, target)
        upsampled = {
            name: F.interpolate(logits, (48, 64), mode="bilinear")
            for name, logits in outputs.items()
        }
        edge = TARGETS.build("boundary")(target, 255)
        far = TARGETS.build("distance")(target, 255)
        expected = {
            "out/cross_entropy": build("cross_entropy")(upsampled["out"], target),
            "aux/cross_entropy": build("cross_entropy")(upsampled["aux"], target),
            "boundary/bce": build("bce", "hard_negative", num_classes=1)(
                upsampled["boundary"], edge
            ),
            "distance/smooth_l1": build("smooth_l1", num_classes=1, beta=0.1)(
                upsampled["distance"], far
            ),
        }
        torch.testing.assert_close(report.parts, {k: v.detach() for k, v in expected.items()})
        total = expected["out/cross_entropy"] + 0.4 * sum(list(expected.values())[1:])
        torch.testing.assert_close(report.total, total)
        report.total.backward()
        assert all(logits.grad is not None and logits.grad.any() for logits in outputs.values())

    def test_losses_and_targets_of_choice(self, target: Tensor) -> None:
        criterion = build_criterion(
            "cross_entropy",
            num_classes=5,
            output_losses={"edge": {"name": "sigmoid_focal"}, "aux": "focal"},
            output_targets={"edge": {"name": "boundary", "width": 2}},
        )
        outputs = {name: torch.randn(2, 5, 8, 8) for name in ("out", "aux")}
        outputs["edge"] = torch.randn(2, 1, 8, 8)
        parts = criterion(outputs, target).parts
        assert list(parts) == ["out/cross_entropy", "aux/focal", "edge/sigmoid_focal"]
        edge = F.interpolate(outputs["edge"], (48, 64), mode="bilinear")
        wide = TARGETS.build({"name": "boundary", "width": 2})(target, 255)
        expected = build("sigmoid_focal", num_classes=1)(edge, wide)
        torch.testing.assert_close(parts["edge/sigmoid_focal"], expected)

    def test_a_target_may_be_given(self, target: Tensor) -> None:
        criterion = build_criterion(
            "cross_entropy",
            num_classes=5,
            output_losses={"depth": "smooth_l1"},
            output_targets={"depth": "distance"},
        )
        outputs = {"out": torch.randn(2, 5, 8, 8), "depth": torch.randn(2, 1, 8, 8)}
        depth = torch.rand(2, 1, 48, 64)
        parts = criterion(outputs, {"out": target, "depth": depth}).parts
        found = F.interpolate(outputs["depth"], (48, 64), mode="bilinear")
        torch.testing.assert_close(parts["depth/smooth_l1"], F.smooth_l1_loss(found, depth))
        with pytest.raises(ValueError, match="target must have 'out', got depth"):
            criterion(outputs, {"depth": depth})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"output_targets": {"edge": "boundry"}}, "unknown target 'boundry'; did you mean 'bo"),
            ({"output_losses": {"aux": {"name": "dicee"}}}, "unknown loss 'dicee'"),
            ({"output_weights": "learned"}, "needs the names of the outputs"),
            ({"output_weights": {"out": "learnt"}}, "a number or 'learned'"),
        ],
    )
    def test_mistakes(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build_criterion("cross_entropy", num_classes=5, **options)

    @pytest.mark.parametrize("rows", [None, 16])
    def test_parts_of_a_step_add_up(
        self, outputs: dict[str, Tensor], target: Tensor, rows: int | None
    ) -> None:
        criterion = build_criterion(
            {"name": "uncertainty", "terms": {"cross_entropy": {}, "bce": {}}},
            num_classes=5,
            outputs=list(outputs),
            output_losses={"boundary": "bce"},
            output_weights="learned",
            strip_rows=rows,
        ).double()
        with torch.no_grad():
            for parameter in criterion.parameters():
                parameter.fill_(0.7)
        expected = criterion(outputs, target).total
        expected.backward()
        known = {name: parameter.grad for name, parameter in criterion.named_parameters()}
        criterion.zero_grad()
        share = sum(criterion.share(piece) for piece in target.split(1))
        totals = []
        for index in range(2):
            pieces = {name: value[index : index + 1].detach() for name, value in outputs.items()}
            report = criterion(pieces, target[index : index + 1], step_share=share)
            report.total.backward()
            totals.append(report.total.detach())
        torch.testing.assert_close(sum(totals), expected.detach(), atol=1e-6, rtol=1e-6)
        for name, parameter in criterion.named_parameters():
            torch.testing.assert_close(parameter.grad, known[name], atol=1e-6, rtol=1e-6)


class TestLearnedWeights:
    def test_an_output_settles_at_its_noise(self) -> None:
        torch.manual_seed(0)
        criterion = build_criterion(
            "cross_entropy", num_classes=3, output_weights={"out": "learned", "aux": 0.5}
        )
        outputs = {name: torch.randn(1, 3, 4, 4) for name in ("out", "aux")}
        target = torch.randint(0, 3, (1, 4, 4))
        optimizer = torch.optim.SGD(criterion.parameters(), lr=0.5)
        for _ in range(200):
            optimizer.zero_grad()
            report = criterion(outputs, target)
            report.total.backward()
            optimizer.step()
        found = criterion.log_variances[0].exp().item()
        assert found == pytest.approx(2 * report.parts["out/cross_entropy"].item(), rel=1e-4)

    def test_an_output_without_a_valid_pixel_adds_nothing(self) -> None:
        criterion = build_criterion("dice", num_classes=3, output_weights={"out": "learned"})
        with torch.no_grad():
            criterion.log_variances[0].fill_(3.0)
        total = criterion(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), 255)).total
        total.backward()
        assert total == 0
        assert criterion.log_variances[0].grad == 0


def test_a_weight_may_follow_the_steps() -> None:
    torch.manual_seed(0)
    ramp = {"start": 1.0, "end": 0.0, "from_step": 10, "to_step": 20}
    rise = {"start": 0.0, "end": 2.0, "to_step": 10}
    spec = {"name": "sum", "terms": {"dice": {"weight": ramp}, "bce": {"weight": rise}}}
    criterion = build_criterion(spec, num_classes=3)
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    for step, dice, bce in ((0, 1.0, 0.0), (5, 1.0, 1.0), (15, 0.5, 2.0), (99, 0.0, 2.0)):
        criterion.at_step(step)
        report = criterion(logits, target)
        parts = report.parts
        expected = dice * parts["out/dice"] + bce * parts["out/bce"]
        torch.testing.assert_close(report.total, expected)


class Weighted(RegionLoss):
    """Overlap with a trained weight of the false positives."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def class_loss(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        return 1 - (tp + 1) / (tp + self.alpha * fp + (1 - self.alpha) * fn + 1)


class Bent(TargetProbabilityLoss):
    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def loss_of(self, log_probability: Tensor, target: Tensor) -> Tensor:
        return -log_probability * (1 + self.alpha * target)


class Far(ClassMapLoss):
    """The error of classes that are there; nothing, without a graph, for others."""

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def class_map_loss(self, probability: Tensor, positive: Tensor, valid: Tensor) -> Tensor:
        if not positive.any():
            return probability.new_zeros(())
        return (self.alpha * (probability - positive.to(probability.dtype)).abs()).mean()


class Tempered(MeanMining):
    """A mean with another formula, that says nothing of how it streams."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.3))

    def forward(self, values: Tensor, weights: Tensor, *others: Any, **more: Any) -> Tensor:
        return (self.alpha * values).square().sum() / weights.sum()


def mined(name: str, **common: Any) -> Loss:
    loss = LOSSES.build(name, **common)
    assert isinstance(loss, PixelLoss)
    loss.mining = Tempered()
    return loss


LEARNING: dict[str, Callable[..., Loss]] = {
    "region": Weighted,
    "probability": Bent,
    "ranked probability": partial(Bent, mining="top_k"),
    "class map": Far,
    "class map of absent classes": partial(Far, classes="all"),
    "mining of a fused loss": partial(mined, "cross_entropy"),
    "mining of another": partial(mined, "bce"),
}


@pytest.mark.parametrize("kind", LEARNING)
def test_what_a_part_learns_has_the_same_gradient_in_strips(kind: str) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 4, 6).double(), torch.randint(0, 4, (2, 13, 17))
    found = []
    for rows in (None, 4):
        loss = LEARNING[kind](num_classes=5).double()
        value, gradient = both(Criterion(loss, strip_rows=rows), logits, target)
        (learned,) = loss.parameters()
        assert learned.grad is not None
        found.append((value, gradient, learned.grad))
    assert found[0][2] != 0
    torch.testing.assert_close(found[1], found[0], atol=1e-10, rtol=0)


class Doubled(Focal):
    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return 2 * super().pixel_loss(logits, target)


class Heavy(Focal):
    def weighted_pixel_loss(
        self, logits: Tensor, target: Tensor, context: Tensor | None = None
    ) -> Tensor:
        return 3 * super().weighted_pixel_loss(logits, target, context)


class Sure(Focal):
    def target_probability(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().target_probability(logits, target).sqrt()


class Sharp(Dice):
    def sums(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().sums(2 * logits, target)


class Reduced(CrossEntropy):
    def reduce(self, values: Tensor, probability: Tensor | None, target: Tensor) -> Tensor:
        return super().reduce(values, probability, target).square()


class Narrow(CrossEntropy):
    def valid(self, target: Tensor) -> Tensor:
        return super().valid(target) & (target != 1)


class Whole(CrossEntropy):
    def value(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().value(logits - logits.mean(), target).square()


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (Doubled, {}),
        (Heavy, {}),
        (Sure, {"mining": {"name": "ohem", "min_kept": 20}}),
        (Sharp, {}),
        (Reduced, {}),
        (Narrow, {}),
        (Whole, {}),
    ],
)
def test_strips_respect_what_a_subclass_changes(kind: type[Loss], params: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 9, 9).double(), torch.randint(0, 5, (2, 384, 384))
    loss = kind(num_classes=5, **params)
    expected = both(Criterion(loss, strip_rows=None), logits, target)
    found = both(Criterion(loss, strip_rows="auto"), logits, target)
    assert Criterion(loss)._rows(logits, target) == (None if kind is Whole else 16)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["cross_entropy", "dice", "bce", "lovasz_softmax"])
def test_without_gradients(name: str, guard: Any) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(1, 5, 4, 4, requires_grad=True), torch.randint(0, 5, (1, 16, 16))
    expected = Criterion(build(name), strip_rows=4)(logits, target).total.detach()
    with guard():
        total = Criterion(build(name), strip_rows=4)(logits, target).total
    assert not total.requires_grad
    torch.testing.assert_close(total, expected)


class TestShares:
    """Parts of a step add up, whatever shares a loss or a target."""

    def parts_add_up(self, criterion: Criterion, targets: dict[str, Tensor]) -> None:
        torch.manual_seed(0)
        outputs = {name: torch.randn(2, 3, 4, 4).double() for name in ("out", "aux")}
        expected = criterion(outputs, targets).total
        pieces = [
            (
                {name: value[i : i + 1] for name, value in outputs.items()},
                {name: value[i : i + 1] for name, value in targets.items()},
            )
            for i in range(2)
        ]
        share = sum(criterion.share(target) for _, target in pieces)
        total = sum(criterion(*piece, step_share=share).total for piece in pieces)
        torch.testing.assert_close(total, expected, atol=1e-6, rtol=1e-6)

    @pytest.fixture
    def targets(self) -> dict[str, Tensor]:
        torch.manual_seed(1)
        targets = {name: torch.randint(0, 3, (2, 8, 8)) for name in ("out", "aux")}
        targets["aux"][1] = 255
        return targets

    def test_an_output_with_a_target_that_is_given(self, targets: dict[str, Tensor]) -> None:
        self.parts_add_up(build_criterion("cross_entropy", num_classes=3), targets)

    def test_one_loss_for_two_tasks(self, targets: dict[str, Tensor]) -> None:
        loss = CrossEntropy(num_classes=3)
        self.parts_add_up(Criterion(loss, tasks={"aux": Task(loss)}), targets)


def test_an_output_may_have_any_name() -> None:
    names = ["out", "keys", "a.b", "forward"]
    criterion = build_criterion(
        "cross_entropy",
        num_classes=3,
        output_losses=dict.fromkeys(names[1:], "dice"),
        output_weights=dict.fromkeys(names, "learned"),
    )
    outputs = {name: torch.randn(1, 3, 4, 4) for name in names}
    report = criterion(outputs, torch.zeros(1, 8, 8, dtype=torch.long))
    assert list(report.parts) == ["out/cross_entropy", "keys/dice", "a.b/dice", "forward/dice"]
