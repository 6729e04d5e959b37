import numpy as np
import pytest

from segtrain.data import LabelContract
from segtrain.data.labels.label_map import compact_map, parse_label_map
from segtrain.errors import ConfigError

NAMES = ["road", "car", "0-1"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({7: 0, 9: 1}, {7: 0, 9: 1}),
        ({"7-9": 0}, {7: 0, 8: 0, 9: 0}),
        ({"7,9, 11": "car"}, {7: 1, 9: 1, 11: 1}),
        ({"1-3": "0-2"}, {1: 0, 2: 1, 3: 2}),
        ({"-1": "ignore", -2: 255}, {-1: 255, -2: 255}),
        ({"-3--1": 0}, {-3: 0, -2: 0, -1: 0}),
        ({"0x4000ff": 2}, {0x4000FF: 2}),
        ({"5": "0-1"}, {5: 2}),  # a class that is called so
        (["ignore", 0, "car"], {0: 255, 1: 0, 2: 1}),
        ({}, {}),
    ],
)
def test_what_a_map_may_hold(given, expected):
    assert parse_label_map(given, 255, NAMES).values == expected


def test_all_other_values():
    labels = LabelContract(2, label_map={3: 1, "other": 0})
    assert labels.to_ids(np.array([[3, 7, 255, 60_000]]), "m.png").tolist() == [[1, 0, 255, 0]]
    ignoring = LabelContract(2, label_map={0: 0, 3: 1, "other": "ignore"})
    assert ignoring.to_ids(np.array([[3, 7, -4]]), "m.png").tolist() == [[1, 255, 255]]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"a": 0}, "the key 'a' must be a raw value"),
        ({"3-1": 0}, "3-1 must have its smaller value first"),
        ({"1-3": "0-1"}, "1-3 (3 values) to 0-1 (2 values)"),
        ({1: "cr"}, "did you mean 'car'"),
        ({1: 3}, "neither a class id (0 to 2)"),
        ({1: 1.5}, "a class id, a class name or ignore"),
        ({1: True}, "a class id, a class name or ignore"),
        ({"1-3": 0, 2: 1}, "two entries for the value 2"),
        ({"0-99999999": 0}, "at most 16777216 values"),
    ],
)
def test_mistakes_in_a_map(given, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_label_map(given, 255, ["road", "car", "man"])
    assert sentence in str(caught.value)
    assert "dataset.label_map" in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_a_compact_map_means_the_same(seed):
    rng = np.random.default_rng(seed)
    raws = np.unique(rng.integers(-5, 60, 40)).tolist()
    steps = rng.integers(0, 2, len(raws)).cumsum() % 9
    values = {int(raw): int(step) for raw, step in zip(raws, steps, strict=True)}
    compact = compact_map(values)
    assert parse_label_map(compact, 255, list("abcdefghi")).values == values
    assert len(compact) <= len(values)


def test_the_shift_of_ade20k_is_two_entries():
    labels = LabelContract(150, label_map={0: "ignore", "1-150": "0-149"})
    ids = labels.to_ids(np.arange(151, dtype=np.uint8)[None], "m.png")[0]
    assert ids[0] == 255
    np.testing.assert_array_equal(ids[1:], np.arange(150))
