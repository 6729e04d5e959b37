"""Draw the picture of a loss, by its family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from .catalogue import Entry
from .figures import STYLE, save
from .pixels import pixel, regression
from .squares import bar, combination, region, whole_map

PAINTERS: dict[str, Callable[[Entry], None]] = {
    "pixel": pixel,
    "around": whole_map,
    "bar": bar,
    "regression": regression,
    "region": region,
    "map": whole_map,
    "combination": combination,
}


def draw(entry: Entry, file: Path) -> None:
    """Draw the picture of `entry` to `file`.

    Raises:
        RuntimeError: When it cannot be drawn, with the name of the loss.
    """
    with mpl.rc_context(STYLE):
        try:
            PAINTERS[entry.picture](entry)
            save(file, colours=128)
        except Exception as error:
            raise RuntimeError(
                f"the picture of loss {entry.name}: {type(error).__name__}: {error}"
            ) from error
        finally:
            plt.close("all")
