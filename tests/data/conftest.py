import numpy as np
import pytest
from PIL import Image

from segtrain.data import LabelContract, SampleFiles, write_mask


@pytest.fixture
def make_files(tmp_path):
    """Write an image and a mask for each array of ids; return their files."""

    def make(*masks, size=None):
        files = []
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
            files.append(SampleFiles(image, (mask,), image.stem))
        return files

    return make


@pytest.fixture
def counted(monkeypatch):
    """The masks that scans read and count during the test; those in the cache are not counted."""
    found = []
    count = LabelContract.count

    def spy(labels, raw, valid=None):
        found.append(raw)
        return count(labels, raw, valid)

    monkeypatch.setattr(LabelContract, "count", spy)
    return found
