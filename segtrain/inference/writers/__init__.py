"""Writers of predictions; each takes an image in bands of rows."""

from segtrain.inference.writers.base import Band, Target, Writer
from segtrain.inference.writers.build import OUTPUTS, build_writers, written_folders

__all__ = ["OUTPUTS", "Band", "Target", "Writer", "build_writers", "written_folders"]
