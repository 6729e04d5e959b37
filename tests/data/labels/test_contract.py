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


def test_ids_and_the_ignore_label_are_kept():
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


@pytest.mark.fault("F31")
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


@pytest.mark.fault("F32")
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


@pytest.mark.fault("F32")
def test_value_missing_in_the_label_map():
    text = message_of(LabelContract(2, 255, {0: 0, 1: 1}), [0, 1, 5])
    assert "value 5 (1 pixel)" in text
    assert "'dataset.label_map={0:0,1:1,5:255}'" in text


@pytest.mark.fault("F54")
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


PALETTE = [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def colours_of(*colours):
    return np.array([colours], dtype=np.uint8)


@pytest.mark.fault("F33")
def test_masks_of_colours_through_the_palette():
    labels = LabelContract(3, palette=PALETTE, label_map={0xE0E0C0: "ignore", "0x000080": 1})
    raw = colours_of((0, 128, 0), (224, 224, 192), (0, 0, 128), (0, 0, 0))
    assert labels.to_ids(raw, "m.png").tolist() == [[2, 255, 1, 0]]


@pytest.mark.fault("F33")
@pytest.mark.parametrize(
    ("palette", "colours", "fix"),
    [
        (PALETTE, [(0, 0, 0), (9, 200, 9)], "'dataset.label_map={0x09C809:ignore}'"),
        (PALETTE, [(0, 0, 0), (126, 1, 0)], "nearly colour (128, 0, 0), the colour of class_1"),
        (None, [(0, 0, 0), (128, 0, 0), (0, 128, 0)],
         "'dataset.palette=[[0,0,0],[0,128,0],[128,0,0]]'"),
        (None, [(0, 0, 0), (255, 255, 255)], "'dataset.label_map={0x000000:0,0xFFFFFF:1}'"),
        (None, [(0, 0, 0), (2, 2, 2)], "three channels are equal"),
        (None, [(v, 0, v // 2) for v in range(200)], "photograph"),
    ],
)  # fmt: skip
def test_unknown_colours_are_reported_with_a_fix(palette, colours, fix):
    with pytest.raises(DataError) as caught:
        LabelContract(3, palette=palette).to_ids(colours_of(*colours), "m.png")
    assert "m.png: the mask holds colour (" in str(caught.value)
    assert fix in str(caught.value)


def test_colours_that_two_classes_share_can_be_drawn_and_not_read():
    labels = LabelContract(2, palette=[[1, 1, 1], [1, 1, 1]])
    assert labels.colorize(np.array([[0, 1]])).tolist() == [[[1, 1, 1], [1, 1, 1]]]
    with pytest.raises(ConfigError, match="'class_0' and for 'class_1'"):
        labels.to_ids(colours_of((1, 1, 1)), "m.png")


def test_one_logit_has_two_ids():
    labels = LabelContract(1, class_names=["vessel"], label_map={0: 0, 255: 1})
    assert (labels.num_ids, labels.is_binary) == (2, True)
    assert labels.names == ("background", "vessel")
    assert ids_of(labels, [0, 255]) == [0, 1]
    text = message_of(LabelContract(1), [0, 3])
    assert "dataset.num_classes=1 (one logit) only 0 to 1" in text
    with pytest.raises(ConfigError, match="ignore_label=1 is also a class id"):
        LabelContract(1, ignore_label=1)


def test_multi_label_masks_from_channels_and_from_files():
    labels = LabelContract(2, multi_label=True, label_map={0: 0, 255: 1, 7: "ignore"})
    raw = np.array([[[0, 255], [255, 7], [255, 255]]], dtype=np.uint8)
    expected = [[[0, 1], [255, 255], [1, 1]]]  # ignored in one channel is ignored in all
    assert labels.to_ids(raw, "m.png").tolist() == expected
    assert labels.to_ids([raw[..., 0], raw[..., 1]], "m.png").tolist() == expected
    for wrong, sentence in (
        (raw[..., :1], "a channel per class, 2, but has 1"),
        (np.full((1, 1, 2), 3, np.uint8), "value 3 (2 pixels)"),
        ([raw[..., 0], raw[:, :1, 0]], "differ in size"),
    ):
        with pytest.raises(DataError) as caught:
            labels.to_ids(wrong, "m.png")
        assert sentence in str(caught.value)


def test_multi_label_masks_are_counted_by_their_ones():
    labels = LabelContract(2, multi_label=True)
    raw = np.array([[[0, 1], [1, 255], [1, 1]]], dtype=np.uint8)
    pixels, _ = labels.class_pixels(labels.count(raw))
    assert pixels.tolist() == [2, 2]


def test_flip_pairs():
    labels = LabelContract(3, class_names=["left", "right", "hat"], flip_pairs=[["left", "right"]])
    assert labels.flip_pairs == ((0, 1),)
    for pairs in ([["left", "up"]], [[0, 0]], [[0, 1, 2]], [[0, 1], [1, 2]]):
        with pytest.raises(ConfigError, match=r"dataset\.flip_pairs"):
            LabelContract(3, flip_pairs=pairs)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("ignore_label", [255, -1, 300])
def test_ids_follow_the_mapping(dtype, ignore_label):
    rng = np.random.default_rng(0)
    labels = LabelContract(9, ignore_label, {"0-99": "ignore", "100-107": "1-8", "108-255": 0})
    raw = rng.integers(0, 256, (20, 30)).astype(dtype)
    expected = [[labels.mapping[int(value)] for value in row] for row in raw]
    ids = labels.to_ids(raw, "m.png")
    assert ids.tolist() == expected
    assert ids.dtype == labels.dtype == (np.uint8 if ignore_label == 255 else np.int64)


def test_more_classes_than_opencv_has_channels():
    labels = LabelContract(200, multi_label=True)
    raw = np.zeros((2, 3, 200), dtype=np.uint8)
    raw[0, 1, 199] = 1
    assert np.argwhere(labels.to_ids(raw, "m.npy")).tolist() == [[0, 1, 199]]
