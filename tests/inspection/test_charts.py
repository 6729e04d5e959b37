"""The chart of image sizes."""

from __future__ import annotations

import numpy as np

from segtrain.inspection.charts import size_chart


def test_sizes_that_differ_are_drawn() -> None:
    chart = size_chart({"train": np.array([[10, 20], [10, 20], [0, 0]]), "val": np.array([[5, 5]])})
    assert chart.count("<circle") == 2
    assert "2 of train: 10 x 20" in chart
    many = np.random.default_rng(0).integers(1, 5000, (20_000, 2))
    assert size_chart({"train": many}).count("<circle") <= 61**2
    assert size_chart({"train": np.zeros((3, 2), dtype=np.int64)}) == ""
