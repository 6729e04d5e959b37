from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from segtrain import build_criterion, build_loss
from segtrain.errors import ConfigError
from segtrain.losses import LOSSES, CrossEntropy, Loss, Term
from segtrain.losses.class_weights import WORDS, check_class_weights, resolve_class_weights
from segtrain.schema.sections import AUTO

NAMES = ["road", "car", "sky"]
WEIGHTS = [1.0, 3.0, 0.5]
BY_NAME = {"sky": 0.5, "car": 3.0}  # and 1 for road
TERMS = {"terms": {"cross_entropy": {}, "dice": {"weight": 0.5}}}
REQUIRED: dict[str, dict[str, Any]] = {"sum": TERMS, "uncertainty": TERMS}
WEIGHTED = [name for name in LOSSES.names() if "class_weights" in LOSSES.schema(name)]


def automatic(word: str) -> list[float]:
    assert word in WORDS
    return list(WEIGHTS)


def build(
    name: str,
    class_weights: Any,
    class_names: Sequence[str] | None = None,
    num_classes: int = 3,
    **params: Any,
) -> Loss:
    return build_loss(
        {"name": name, **REQUIRED.get(name, {}), **params},
        num_classes=num_classes,
        class_weights=class_weights,
        class_names=class_names,
        auto_weights=automatic,
    )


def weights_of(loss: Loss) -> list[list[float] | None]:
    """The class weights of each term."""
    found = (term.get_buffer("class_weights") for term in loss.terms().values())
    return [None if weights is None else weights.tolist() for weights in found]


def write(folder: Path, text: str, name: str = "weights.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (2, 6, 5), generator=generator)
    target[0, :2] = 255
    return torch.randn(2, 3, 6, 5, generator=generator) * 2, target


FORMS = ["list", "tuple", "mapping", "json list", "yaml list", "json mapping", "yaml mapping"]
FORMS += ["json report", *WORDS]


def in_form(form: str, folder: Path) -> Any:
    kind, _, shape = form.partition(" ")
    inside: Any = BY_NAME if shape == "mapping" else WEIGHTS
    if shape == "report":
        inside = {"method": "inverse_log", "class_weights": BY_NAME, "pixel_share": {"car": 0.1}}
    plain = {"list": WEIGHTS, "tuple": tuple(WEIGHTS), "mapping": BY_NAME}
    plain |= {word: word for word in WORDS}
    if not shape:
        return plain[kind]
    text = json.dumps(inside) if kind == "json" else yaml.safe_dump(inside)
    return write(folder, text, f"weights.{kind}")


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_all_are_the_same_numbers(self, form: str, tmp_path: Path) -> None:
        given = in_form(form, tmp_path)
        found = resolve_class_weights(given, num_classes=3, class_names=NAMES, auto=automatic)
        assert found is not None
        assert list(found) == WEIGHTS
        assert weights_of(build("cross_entropy", given, NAMES)) == [WEIGHTS]

    @pytest.mark.parametrize("form", ["mapping", "json list", "yaml mapping", *WORDS])
    @pytest.mark.parametrize("name", WEIGHTED)
    def test_every_loss_takes_them(
        self, name: str, form: str, tmp_path: Path, batch: tuple[Tensor, Tensor]
    ) -> None:
        found = build(name, in_form(form, tmp_path), NAMES)
        expected = build(name, WEIGHTS)
        assert weights_of(found) == weights_of(expected) == [WEIGHTS] * len(found.terms())
        value = found(*batch)
        assert torch.equal(value, expected(*batch))
        assert not torch.allclose(value, build(name, None)(*batch))

    @pytest.mark.parametrize("form", ["json list", "yaml list"])
    def test_the_constructor_reads_a_file_too(self, form: str, tmp_path: Path) -> None:
        loss = CrossEntropy(num_classes=3, class_weights=in_form(form, tmp_path))
        assert weights_of(loss) == [WEIGHTS]

    @pytest.mark.parametrize("name", ["weights", "weights.txt", "weights.yml"])
    def test_a_file_that_is_not_json_is_yaml(self, name: str, tmp_path: Path) -> None:
        path = write(tmp_path, "# from the statistics\n- 1\n- 3\n- 0.5\n", name)
        assert weights_of(build("cross_entropy", path)) == [WEIGHTS]

    def test_a_path_object_and_a_home(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = Path(write(tmp_path, "[1, 3, 0.5]"))
        monkeypatch.setenv("HOME", str(tmp_path))
        for given in (path, "~/weights.yaml", Path("~/weights.yaml")):
            assert weights_of(build("cross_entropy", given)) == [WEIGHTS]
            assert weights_of(CrossEntropy(num_classes=3, class_weights=given)) == [WEIGHTS]

    def test_tensors_and_arrays(self) -> None:
        for given in (torch.tensor(WEIGHTS), np.array(WEIGHTS), list(np.float32(WEIGHTS))):
            assert weights_of(CrossEntropy(num_classes=3, class_weights=given)) == [WEIGHTS]  # type: ignore[arg-type]

    def test_none_is_none(self) -> None:
        assert resolve_class_weights(None, num_classes=3) is None
        assert check_class_weights(None, 3) is None
        assert weights_of(build("cross_entropy", None)) == [None]

    def test_one_number_per_class_and_two_for_one_channel(self) -> None:
        found = check_class_weights([1, 2], 1)
        assert found is not None
        assert found.dtype == torch.float32
        assert found.tolist() == [1.0, 2.0]
        loss = build("bce", {"object": 2.0}, ["background", "object"], num_classes=1)
        assert weights_of(loss) == [[1.0, 2.0]]
        with pytest.raises(ConfigError, match=r"has 1 values, but num_classes is 1 and 2 are need"):
            build("bce", [1.0], num_classes=1)

    def test_arguments_are_not_changed(self) -> None:
        given = dict(BY_NAME)
        spec = {"name": "sum", "terms": {"dice": {"class_weights": given}}}
        build_loss(spec, num_classes=3, class_names=NAMES)
        assert given == BY_NAME
        assert spec["terms"] == {"dice": {"class_weights": BY_NAME}}


class TestByName:
    def test_a_class_without_an_entry_has_weight_one(self) -> None:
        assert weights_of(build("focal", {"car": 4}, NAMES)) == [[1.0, 4.0, 1.0]]
        assert weights_of(build("focal", {}, NAMES)) == [[1.0, 1.0, 1.0]]

    def test_order_does_not_matter(self) -> None:
        backwards = dict(reversed(BY_NAME.items()))
        assert weights_of(build("focal", backwards, NAMES)) == [WEIGHTS]

    @pytest.mark.fault("F52")
    def test_an_unknown_class_is_named(self, tmp_path: Path) -> None:
        message = "class_weights.*: no class 'cra'; did you mean 'car'.* Known: car, road, sky"
        for given in ({"cra": 2.0}, write(tmp_path, "cra: 2")):
            with pytest.raises(ConfigError, match=message):
                build("focal", given, NAMES)

    def test_names_are_needed(self, tmp_path: Path) -> None:
        message = "by class name need class names, which.* a list of 3 numbers"
        for given in (BY_NAME, write(tmp_path, "car: 2")):
            with pytest.raises(ConfigError, match=message):
                build("focal", given)
            with pytest.raises(ConfigError, match=message):
                CrossEntropy(num_classes=3, class_weights=given)

    def test_the_number_of_names_must_fit(self) -> None:
        with pytest.raises(ConfigError, match="class_weights has 2 values, but num_classes is 3"):
            build("focal", {"car": 2.0}, NAMES[:2])

    @pytest.mark.fault("F52")
    @pytest.mark.parametrize(
        "given",
        [
            {"car": -1.0},
            {"car": math.nan},
            {"car": math.inf},
            {"car": "x"},
            {"car": "3"},
            {"car": True},
            {"car": None},
            {"car": [1.0]},
            {1: 3.0},
        ],
        ids=str,
    )
    def test_wrong_mappings(self, given: Mapping[Any, Any]) -> None:
        with pytest.raises(ConfigError, match=r"^loss.class_weights must be ") as caught:
            build("focal", given, NAMES)
        ((key, value),) = given.items()
        assert repr(key) in str(caught.value)
        assert isinstance(key, int) or repr(value) in str(caught.value)

    def test_classes_without_names(self) -> None:
        with pytest.raises(ConfigError, match="these classes have no names; give a list of 3 numb"):
            build("focal", {"car": 2.0}, ())


class TestAuto:
    def test_it_is_called_only_when_needed(self) -> None:
        def never(word: str) -> list[float]:
            raise AssertionError

        for given in (None, WEIGHTS, BY_NAME):
            build_loss(
                "dice",
                num_classes=3,
                class_weights=given,
                class_names=NAMES,
                auto_weights=never,
            )

    def test_without_a_dataset(self) -> None:
        for word in WORDS:
            message = f"class_weights: {word} takes its numbers from a dataset's statistics"
            with pytest.raises(ConfigError, match=message):
                build_loss("dice", num_classes=3, class_weights=word)
            with pytest.raises(ConfigError, match=message):
                CrossEntropy(num_classes=3, class_weights=word)

    def test_its_numbers_are_checked(self) -> None:
        cases: list[tuple[list[Any], str]] = [
            (["a"], "but entry 0 is 'a'"),
            ([1.0, 2.0], "has 2 values, but num_classes is 3"),
            ([1.0, -2.0, 1.0], "not negative"),
            ([0.0, 0.0, 0.0], "not all 0"),
        ]
        for numbers, message in cases:
            found = dict.fromkeys(WORDS, numbers).__getitem__
            with pytest.raises(ConfigError, match=f"class_weights .*{message}"):
                build_loss("dice", num_classes=3, class_weights=AUTO, auto_weights=found)

    def test_each_word_has_its_numbers(self) -> None:
        numbers = {word: [1.0, 2.0, 3.0 + index] for index, word in enumerate(WORDS)}
        for word, expected in numbers.items():
            loss = build_loss(
                "dice", num_classes=3, class_weights=word, auto_weights=numbers.__getitem__
            )
            assert weights_of(loss) == [expected]

    def test_a_file_may_be_called_auto(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "[5, 5, 5]", AUTO)
        monkeypatch.chdir(tmp_path)
        assert weights_of(build("dice", AUTO)) == [WEIGHTS]
        assert weights_of(build("dice", f"./{AUTO}")) == [[5.0, 5.0, 5.0]]


class TestTerms:
    def test_shared_and_own(self, tmp_path: Path) -> None:
        terms = {
            "cross_entropy": {},  # uses the shared ones
            "dice": {"class_weights": {"road": 7.0}},
            "focal": {"class_weights": AUTO},
            "jaccard": {"class_weights": write(tmp_path, "[2, 2, 1]")},
            "bce": {"class_weights": None},  # uses none
        }
        expected = [[4.0, 1.0, 1.0], [7.0, 1.0, 1.0], WEIGHTS, [2.0, 2.0, 1.0], None]
        for name in ("sum", "uncertainty"):
            loss = build(name, {"road": 4.0}, NAMES, terms=terms)
            assert weights_of(loss) == expected

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"cra": 2.0}, "no class 'cra'; did you mean 'car'"),
            ([1.0, 2.0], "class_weights has 2 values, but num_classes is 3"),
            ("nowhere.yaml", "nowhere.yaml cannot be read as a file of weights"),
            (2.0, r"loss.terms.dice.class_weights must be .*, got 2\.0"),
        ],
    )
    def test_a_mistake_in_a_term(self, given: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build("sum", None, NAMES, terms={"dice": {"class_weights": given}})

    def test_every_output_of_a_criterion(self) -> None:
        criterion = build_criterion(
            {"name": "sum", "terms": {"cross_entropy": {}, "dice": {"class_weights": AUTO}}}
            | {"class_weights": BY_NAME},
            num_classes=3,
            output_losses={"other": {"name": "focal", "class_weights": {"car": 2.0}}},
            class_names=NAMES,
            auto_weights=automatic,
        )
        found = [
            module.get_buffer("class_weights").tolist()
            for module in criterion.modules()
            if isinstance(module, Term)
        ]
        # the main output, the auxiliary outputs, and the output with its own
        assert sorted(found) == sorted([WEIGHTS] * 4 + [[1.0, 2.0, 1.0]])


NUMBERS = [
    ([1.0, 2.0], "class_weights.* has 2 values, but num_classes is 3 and 3 are needed"),
    ([], "class_weights.* has 0 values, but num_classes is 3"),
    ([1.0, -1.0, 1.0], r"finite, not negative and not all 0, got \[1\.0, -1\.0, 1\.0\]"),
    ([1.0, math.inf, 1.0], r"finite, not negative and not all 0, got \[1\.0, inf, 1\.0\]"),
    ([0.0, 0.0, 0.0], r"finite, not negative and not all 0, got \[0\.0, 0\.0, 0\.0\]"),
    ([1.0, math.nan, 1.0], "class_weights.* must be"),
    ([1.0, 1e39, 1.0], "finite"),  # above the largest float32
]


class TestMistakes:
    @pytest.mark.fault("F52")
    @pytest.mark.parametrize(("numbers", "message"), NUMBERS)
    @pytest.mark.parametrize("form", ["list", "json", "yaml"])
    def test_wrong_numbers(
        self, form: str, numbers: list[float], message: str, tmp_path: Path
    ) -> None:
        if form == "list":
            given: Any = numbers
        else:
            text = json.dumps(numbers) if form == "json" else yaml.safe_dump(numbers)
            given = write(tmp_path, text, f"weights.{form}")
        with pytest.raises(ConfigError, match=message):
            build("cross_entropy", given)

    @pytest.mark.fault("F52")
    @pytest.mark.parametrize("given", [3.0, True, ["a", "b", "c"], [None, 1, 1], [[1, 1, 1]]])
    def test_other_values(self, given: Any) -> None:
        with pytest.raises(ConfigError, match=r"loss.class_weights must be a list of \(a number\)"):
            build("cross_entropy", given)

    @pytest.mark.parametrize(
        "text",
        ["", "hello", "3", "[a, b, c]", "[true, 1, 1]", "[null, 1, 1]", "[[1, 1, 1]]", "car: [1]"],
    )
    def test_a_file_of_something_else(self, text: str, tmp_path: Path) -> None:
        path = write(tmp_path, text)
        message = f"from {path} must be a list of numbers or a mapping of class names to num.*, but"
        with pytest.raises(ConfigError, match=message):
            build("cross_entropy", path, NAMES)

    @pytest.mark.parametrize("name", ["weights.json", "weights.yaml"])
    def test_a_file_with_a_mistake(self, name: str, tmp_path: Path) -> None:
        path = write(tmp_path, "[1, 2", name)
        with pytest.raises(ConfigError, match=f"{name} cannot be read as a file of weights: "):
            build("cross_entropy", path)

    def test_a_file_that_is_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.yaml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="cannot be read as a file of weights: 'utf-8' codec"):
            build("cross_entropy", str(path))

    def test_a_missing_file(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.json", tmp_path):
            with pytest.raises(ConfigError, match=f"{path} cannot be read as a file of weights"):
                build("cross_entropy", str(path))

    def test_a_file_runs_nothing(self, tmp_path: Path) -> None:
        text = f"!!python/object/apply:pathlib.Path.touch ['{tmp_path / 'made'}']"
        with pytest.raises(ConfigError, match="cannot be read as a file of weights"):
            build("cross_entropy", write(tmp_path, text))
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize(("text", "key"), [("1: 3.0", "1"), ("no: 3.0", "False")])
    def test_a_key_that_is_not_text(self, text: str, key: str, tmp_path: Path) -> None:
        path = write(tmp_path, text)
        message = (
            f"^loss.class_weights from {path} must be .* its key {key} is not text: .* quotes$"
        )
        with pytest.raises(ConfigError, match=message):
            build("cross_entropy", path, NAMES)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (["a", "b", "c"], "entry 0 is 'a'"),
            ([1.0, None, 2.0], "entry 1 is None"),
            ([1.0, 1.0, True], "entry 2 is True"),
            (3.0, "it is 3.0"),
            (b"auto", "it is b'auto'"),
        ],
    )
    def test_the_constructor_reports_it_too(self, given: Any, words: str) -> None:
        message = (
            f"^class_weights must be a list of numbers or a mapping .* of auto, .*, but {words}$"
        )
        with pytest.raises(ConfigError, match=message):
            CrossEntropy(num_classes=3, class_weights=given)

    @pytest.mark.parametrize("text", ["[1, -1, 2]", "[1, 2]"])
    def test_wrong_numbers_name_their_file(self, text: str, tmp_path: Path) -> None:
        path = write(tmp_path, text)
        with pytest.raises(ConfigError, match=f"^loss.class_weights from {path} (must be|has)"):
            build("dice", Path(path))

    def test_a_number_beyond_any_float(self) -> None:
        with pytest.raises(ConfigError, match="class_weights must be finite"):
            CrossEntropy(num_classes=3, class_weights=[10**400, 1, 1])

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("autoo", "auto"),
            ("Auto", "auto"),
            ("median_freq", "median_frequency"),
            ("inverse-log", "inverse_log"),
            ("nowhere.yaml", None),
        ],
    )
    def test_an_unknown_word(self, given: str, meant: str | None) -> None:
        hint = rf"; did you mean '{meant}'\? " if meant else "; "
        message = f"loss.class_weights: {given} cannot .*: no such file{hint}class_weights are"
        words = ", ".join(WORDS)
        with pytest.raises(ConfigError, match=f"^{message} a list of .* or one of {words}$"):
            build("dice", given)
