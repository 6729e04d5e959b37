import numpy as np
import pytest

from segtrain.data import LabelContract
from segtrain.errors import ConfigError, DataError


def ids_of(contract, values, dtype=np.uint8):
    return contract.to_ids(np.array([values], dtype=dtype), "m.png")[0].tolist()


def message_of(contract, values):
    with pytest.raises(DataError) as caught:
        ids_of(contract, values)
    return str(caught.value)


def test_ids_and_ignore_pass_as_they_are():
    ids = LabelContract(3).to_ids(np.array([[0, 2, 255]], np.uint8), "m.png")
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[0, 2, 255]]


def test_label_map_wins_over_the_ignore_label():
    assert ids_of(LabelContract(2, 255, {0: 0, 255: 1}), [0, 255]) == [0, 1]


def test_label_map_may_ignore_and_leaves_the_ignore_label_alone():
    assert ids_of(LabelContract(2, 255, {4: 0, 9: 1, 0: 255}), [4, 9, 0, 255]) == [0, 1, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_every_integer_type_maps_alike(dtype):
    contract = LabelContract(2, -1, {3: 0, 7: 1, 9: -1})
    assert ids_of(contract, [3, 7, 9], dtype) == [0, 1, -1]


def test_values_beyond_sixteen_bits_and_below_zero():
    assert ids_of(LabelContract(2, -1, {70000: 1, 0: 0}), [70000, 0, -1], np.int32) == [1, 0, -1]


def test_outside_names_file_values_counts_and_limits():
    text = message_of(LabelContract(3), [0, 7, 7, 254])
    for part in (
        "m.png",
        "value 7 (2 pixels)",
        "value 254 (1 pixel)",
        "0 to 2",
        "ignore_label=255",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("num_classes", "values", "fix"),
    [
        (3, [1, 2, 3], "'dataset.label_map={1:0,2:1,3:2}'"),
        (2, [0, 1, 2], "dataset.num_classes=3"),
        (2, [0, 1, 2], "'dataset.label_map={0:255,1:0,2:1}'"),
        (4, [0, 7, 11], "'dataset.label_map={0:0,7:1,11:2}'"),
        (2, [0, 7, 11], "dataset.num_classes=3"),
        (3, list(range(0, 200, 2)), "photograph"),
    ],
)
def test_the_fix_fits_the_cause(num_classes, values, fix):
    assert fix in message_of(LabelContract(num_classes), values)


def test_binary_fix_when_255_is_not_the_ignore_label():
    text = message_of(LabelContract(2, ignore_label=-1), [0, 255])
    assert "'dataset.label_map={0:0,255:1}'" in text


def test_void_fix_when_255_is_not_the_ignore_label():
    assert "dataset.ignore_label=255" in message_of(LabelContract(5, -1), [0, 1, 2, 255])


def test_value_missing_in_the_label_map():
    text = message_of(LabelContract(2, 255, {0: 0, 1: 1}), [0, 1, 5])
    assert "value 5 (1 pixel)" in text
    assert "'dataset.label_map={0:0,1:1,5:255}'" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": 3, "ignore_label": 2}, ["ignore_label=2", "num_classes=3"]),
        ({"num_classes": 0}, ["num_classes"]),
        ({"num_classes": 2, "class_names": ["a"]}, ["class_names", "1", "2"]),
        ({"num_classes": 2, "palette": [[0, 0, 0]]}, ["palette", "1", "2"]),
        ({"num_classes": 1, "palette": [[0, 0, 300]]}, ["palette[0]", "300"]),
        ({"num_classes": 2, "label_map": {9: 2}}, ["label_map", "9", "2"]),
    ],
)
def test_contradictions(arguments, words):
    with pytest.raises(ConfigError) as caught:
        LabelContract(**arguments)
    assert all(word in str(caught.value) for word in words)


def test_defaults_are_distinct_names_and_colours():
    contract = LabelContract(60)
    assert contract.names[:2] == ("class_0", "class_1")
    assert len(set(contract.colours)) == 60
    assert (0, 0, 0) not in contract.colours


@pytest.mark.parametrize("ignore_label", [255, -1])
def test_colorize_draws_ignored_black(ignore_label):
    contract = LabelContract(2, ignore_label, palette=[[1, 2, 3], [4, 5, 6]])
    colours = contract.colorize(np.array([[0, 1, ignore_label]]))
    assert colours.dtype == np.uint8
    assert colours.tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]
