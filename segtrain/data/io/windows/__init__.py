"""Images larger than memory, read window by window."""

from segtrain.data.io.windows.raster import RasterFile, open_raster

__all__ = ["RasterFile", "open_raster"]
