"""Outputs, weights, shares of a step and the choice of strips; the values of the official code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.criterion.build import build_criterion
from segtrain.criterion.criterion import Criterion, Task
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, CrossEntropy, Dice, Loss, register_loss
from tests.criterion.cases import PIXEL_LOSSES, REGION_LOSSES, build, value_and_gradient

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

PROMISED: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in PIXEL_LOSSES]
PROMISED += [(name, {"class_weights": [1.0, 2.0, 0.5, 3.0, 1.0]}) for name in PIXEL_LOSSES]
PROMISED += [(name, {"per_image": True}) for name in REGION_LOSSES]
PROMISED += [("sum", {"terms": {"focal": {}, "dice": {"per_image": True, "weight": 2}}})]


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
            # In the official code the auxiliary term is an unweighted mean over all pixels, with 0
            # for ignored ones. Here it is the mean over valid pixels, as without OHEM.
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


class TestStepShare:
    """The parts of a step add up to the step."""

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


class TestShares:
    """The parts of a step add up, also if outputs share a loss or a target."""

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
        expected = value_and_gradient(Criterion(plain, strip_rows=None), logits, target)
        for criterion in (Criterion(scalar), Criterion(plain, auxiliary_loss=scalar)):
            assert criterion.strip_rows is None
            torch.testing.assert_close(value_and_gradient(criterion, logits, target), expected)

    def test_auto_takes_strips_when_the_whole_is_large(self) -> None:
        criterion = Criterion(build("dice"))
        assert criterion._rows(torch.zeros(1, 5, 8, 8), torch.zeros(1, 32, 32)) is None
        assert criterion._rows(torch.zeros(1, 5, 8, 8), torch.zeros(1, 1024, 1024)) == 16
        assert criterion._rows(torch.zeros(1, 5, 1024, 1024), torch.zeros(1, 1024, 1024)) is None

    def test_repr_says_what_was_set(self) -> None:
        criterion = Criterion(build("dice"), align_corners=True, strip_rows=4)
        assert "align_corners=True, strip_rows=4, weights=None" in repr(criterion)


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

    @pytest.mark.fault("F37")
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
