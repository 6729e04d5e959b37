"""What :mod:`segtrain.criterion.build` refuses, in one sentence that starts with the key."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from segtrain import build_criterion, build_loss
from segtrain.assembly.trial import try_criterion
from segtrain.errors import ConfigError


class TestLoss:
    @pytest.mark.parametrize(
        ("spec", "options", "message"),
        [
            (None, {}, "^loss must be the name of a loss or a mapping with a name, got None$"),
            (3, {"mining": "ohem"}, "^loss must be the name of a loss or a mapping .*, got 3$"),
            ({"gamma": 2}, {"mining": "ohem"}, "^loss.name is missing"),
            ({"gamma": 2}, {}, "^loss.name is missing"),
            ({"name": ["dice"]}, {"mining": "ohem"}, r"^unknown loss \['dice'\]"),
            ("dicee", {"mining": "ohem"}, "^unknown loss 'dicee'; did you mean 'dice'"),
            ("focal", {"gamma": -1.0}, "^loss.gamma must be finite and not negative, got -1.0$"),
            ("focal", {"mining": "ohm"}, "^unknown mining 'ohm'; did you mean 'ohem'"),
            ({"name": "focal", "mining": "ohm"}, {}, "^loss.mining: unknown mining 'ohm'"),
            ({"name": "focal", "mining": 3}, {}, "^loss.mining must be the name of a mining"),
            ("focal", {"mining": {"name": "ohem", "threshold": 2}}, "^mining.threshold must be"),
            (
                {"name": "focal", "mining": {"name": "ohem", "threshold": 2}},
                {},
                "^loss.mining.threshold must be",
            ),
            (
                {"name": "focal", "mining": "ohem"},
                {"mining": "ohem"},
                "^mining is set twice: as loss.mining and as mining; remove one$",
            ),
        ],
    )
    def test_mistakes(self, spec: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build_loss(spec, num_classes=3, **options)

    def test_another_place(self) -> None:
        for spec, message in (
            (None, "here must be the name of a loss"),
            ("dicee", "here: unknown loss 'dicee'"),
            ({"name": "focal", "gamma": -1}, "here.gamma must be"),
            ({"name": "dice", "mining": "ohem"}, "here: loss 'dice' is not a pixel loss"),
            ({"name": "dice", "class_weights": "auto"}, "here.class_weights: auto takes"),
            ({"name": "dice", "class_weights": [1]}, "here.class_weights has 1 values"),
        ):
            with pytest.raises(ConfigError, match=f"^{message}"):
                build_loss(spec, num_classes=3, where="here")

    def test_no_mining_is_taken_by_every_loss(self) -> None:
        for mining in ("none", {"name": "none"}, None):
            build_loss({"name": "dice", "mining": mining}, num_classes=3)
            build_loss("dice", num_classes=3, mining=mining)


OUTPUT = "criterion.output_losses"


class TestCriterion:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"output_losses": {"aux": "dise"}}, f"{OUTPUT}.aux: unknown loss 'dise'; did you"),
            ({"output_losses": {"aux": {}}}, f"{OUTPUT}.aux.name is missing"),
            ({"output_losses": {"aux": None}}, f"{OUTPUT} must be a mapping by name, got"),
            ({"output_losses": "dice"}, f"{OUTPUT} must be a mapping by name, got 'dice'"),
            ({"output_losses": {"out": "dice"}}, f"{OUTPUT}.out: the main output's loss is set"),
            (
                {"output_targets": {"out": "boundary"}},
                "criterion.output_targets.out: the main output learns the class ids",
            ),
            (
                {"output_targets": {"edge": {"name": "boundary", "width": 0}}},
                "criterion.output_targets.edge.width must be at least 1, got 0",
            ),
            (
                {"output_losses": {"aux": {"name": "dice", "classes": [7]}}},
                f"{OUTPUT}.aux.classes must be ids from 0 to 4",
            ),
            (
                {"output_losses": {"boundary": "cross_entropy"}, "outputs": ["out", "boundary"]},
                f"{OUTPUT}.boundary: num_classes is 1, and .* use bce",
            ),
            ({"output_weights": {"out": -1.0}}, "criterion.output_weights.out must be finite"),
            ({"output_weights": {"out": 1, "aux": math.inf}}, "criterion.output_weights.aux must"),
        ],
    )
    def test_mistakes(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=f"^{message}"):
            build_criterion("cross_entropy", num_classes=5, **options)

    def test_a_derived_target_has_classes_of_its_own(self) -> None:
        known: dict[str, Any] = {
            "num_classes": 2,
            "class_names": ["road", "car"],
            "auto_weights": lambda word: [1.0, 2.0],
            "output_targets": {"edge": "boundary"},
        }
        for weights, message in (
            ({"car": 2.0}, " by class name are not possible here: these classes have no names"),
            ("auto", ": auto takes its numbers from a dataset's statistics"),
        ):
            losses = {"edge": {"name": "bce", "class_weights": weights}}
            with pytest.raises(ConfigError, match=f"^{OUTPUT}.edge.class_weights{message}"):
                build_criterion("dice", output_losses=losses, **known)
        losses = {"edge": {"name": "bce", "class_weights": [1.0, 2.0]}}
        build_criterion("dice", output_losses=losses, **known)
        losses = {"aux": {"name": "bce", "class_weights": {"car": 2.0}}}
        build_criterion("dice", output_losses=losses, **known)


class TestTrial:
    @pytest.mark.parametrize(
        ("targets", "channels", "message"),
        [
            ({}, 1, "'edge' has 1 channel, but learns 6 class ids; set its target"),
            ({"edge": "boundary"}, 2, "'edge' has 2 channels, but its target has 1 chan"),
        ],
    )
    def test_channels(self, targets: dict[str, str], channels: int, message: str) -> None:
        criterion = build_criterion("dice", num_classes=6, output_targets=targets)
        outputs = {"out": torch.zeros(1, 6, 16, 16), "edge": torch.zeros(1, channels, 16, 16)}
        with pytest.raises(ConfigError, match=f"^output {message}"):
            try_criterion(criterion, outputs, "dice")

    def test_what_fits(self) -> None:
        criterion = build_criterion(
            "dice",
            num_classes=6,
            output_targets={"edge": "boundary"},
            output_losses={"aux": "focal"},
        )
        outputs = {name: torch.randn(1, 6, 16, 16) for name in ("out", "aux", "more")}
        try_criterion(criterion, {**outputs, "edge": torch.randn(1, 1, 16, 16)}, "dice")
