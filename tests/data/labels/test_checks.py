import pytest

from segtrain.data.labels.checks import (
    check_colours_differ,
    check_ignore_label,
    check_length,
    check_names,
    check_palette,
    flip_pair_ids,
)
from segtrain.errors import ConfigError


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_ignore_label(2, 3, 3), "ignore_label=2 is also a class id, .* such as 255"),
        (lambda: check_ignore_label(255, 300, 300), "a value outside them, such as -1"),
        (lambda: check_length("palette", [], 2), "dataset.palette has 0 entries, .* 2 classes"),
        (lambda: check_names(["a", "a"], 2), "dataset.class_names has 'a' more than once"),
        (lambda: check_palette([[0, 0, 0], [0, 0]]), r"dataset.palette\[1\] .*got \[0, 0\]"),
        (lambda: check_palette([[0, 0, 256]]), r"dataset.palette\[0\] .* from 0 to 255"),
        (lambda: check_colours_differ([[1, 1, 1]] * 2, ["a", "b"]), "for 'a' and for 'b'"),
        (lambda: flip_pair_ids([["a", "z"]], ["a", "b"]), r"flip_pairs must be .*got \['a', 'z'\]"),
        (lambda: flip_pair_ids([[0, 1], [1, 2]], ["a", "b", "c"]), "class 'b' more than once"),
    ],
)
def test_each_mistake_is_named(check, message):
    with pytest.raises(ConfigError, match=message):
        check()


def test_pairs_are_ids_or_names():
    assert flip_pair_ids([["a", 2]], ["a", "b", "c"]) == ((0, 2),)
