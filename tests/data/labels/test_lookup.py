import numpy as np
import pytest

from segtrain.data.labels.lookup import NUM_COLOURS, Lookup


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("result", [np.uint8, np.int64])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (2, 3, 150)])
def test_every_type_and_shape_is_mapped_as_the_mapping_says(dtype, result, shape):
    rng = np.random.default_rng(0)
    mapping = {value: value % 7 for value in range(0, 256, 3)}
    values = rng.integers(0, 256, shape).astype(dtype)
    found = Lookup(mapping, 99, np.dtype(result))(values)
    assert (found.dtype, found.shape) == (result, shape)
    expected = [mapping.get(value, 99) for value in values.ravel().tolist()]
    assert found.ravel().tolist() == expected


def test_values_beyond_the_table_are_mapped_too():
    lookup = Lookup({-1: 3, 70_000: 4}, 0, np.dtype(np.int64))
    assert lookup(np.array([-1, 70_000, 5], dtype=np.int32)).tolist() == [3, 4, 0]


def test_colours_have_a_table_of_their_own():
    lookup = Lookup({0xFFFFFF: 1}, 0, np.dtype(np.uint8), NUM_COLOURS)
    assert lookup(np.array([[0xFFFFFF, 0]], dtype=np.int32)).tolist() == [[1, 0]]
