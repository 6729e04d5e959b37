import numpy as np
import pytest
from PIL import Image

from segtrain.data import write_mask


@pytest.fixture
def make_pairs(tmp_path):
    """Write one image and one mask per array of ids; gives their paths."""

    def make(*masks, size=None):
        pairs = []
        rng = np.random.default_rng(0)
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for number, ids in enumerate(masks):
            height, width = size or np.shape(ids)
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            image = tmp_path / "images" / f"{number:02d}.png"
            mask = tmp_path / "masks" / f"{number:02d}.png"
            Image.fromarray(pixels).save(image)
            write_mask(mask, np.asarray(ids))
            pairs.append((image, mask))
        return pairs

    return make
