"""A hook that finds a learning rate: the loss over rates that grow from step to step."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from segtrain.engine.hooks import HOOKS, Hook, Watched
from segtrain.files import write_text
from segtrain.pages.html import page, section
from segtrain.pages.line_chart import Line, line_chart
from segtrain.schema.ranges import Range
from segtrain.terminal import logger

_SMOOTHING = 0.9  # of the moving average of the loss
_LEAST = 10  # steps before the loss may count as diverged


class Found(NamedTuple):
    """What a range test found.

    Attributes:
        steepest: The rate at which the smoothed loss falls most.
        lowest: The rate at which it is lowest.
    """

    steepest: float
    lowest: float


@HOOKS.register("learning_rates")
class LearningRates(Hook):
    """Draw the loss over the learning rate, and name the rates at which it falls most.

    Use it with ``scheduler=range_test``, as ``debug=find_lr`` does. The run stops when the smoothed
    loss exceeds its lowest value by the factor `diverged`.

    Args:
        diverged: The factor.

    References:
        Smith, *Cyclical Learning Rates for Training Neural Networks*, WACV 2017, section 3.3.
    """

    def __init__(self, *, diverged: Annotated[float, Range(1, open_low=True)] = 4.0) -> None:
        self.diverged = diverged
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_step(self, run: Watched, values: Mapping[str, float] | None) -> None:
        if values is None:
            return
        self.rates.append(values["lr"])
        self.losses.append(values["loss"])
        smoothed = smooth(self.losses)
        is_late = len(smoothed) > _LEAST
        if is_late and not smoothed[-1] <= self.diverged * min(smoothed):
            run.stop(f"learning_rates: the loss grew at lr {values['lr']:.2e}")

    def on_end(self, run: Watched, result: Mapping[str, Any] | None) -> None:
        del result
        smoothed = smooth(self.losses)
        if len(smoothed) <= _LEAST:
            logger.warning("learning_rates: %d steps are too few for a curve", len(smoothed))
            return
        found = choose(self.rates, smoothed)
        content = {
            "lr": self.rates,
            "loss": self.losses,
            "smoothed": smoothed,
            **found._asdict(),
        }
        write_text(run.run_dir / "learning_rates.json", json.dumps(content, indent=2) + "\n")
        path = run.run_dir / "learning_rates.html"
        write_text(path, _page(self.rates, self.losses, smoothed, found))
        logger.info(
            "the loss falls most at lr %.2e and is lowest at %.2e; try optimizer.lr=%.2g; see %s",
            *(found.steepest, found.lowest, found.steepest, path),
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rates": self.rates, "losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rates, self.losses = list(state["rates"]), list(state["losses"])


def smooth(losses: Sequence[float]) -> list[float]:
    """The moving average of losses, without the bias of its start.

    Example:
        >>> smooth([2.0, 2.0, 2.0])
        [2.0, 2.0, 2.0]
    """
    found, average = [], 0.0
    for step, loss in enumerate(losses, start=1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        found.append(round(average / (1 - _SMOOTHING**step), 12))
    return found


def choose(rates: Sequence[float], smoothed: Sequence[float]) -> Found:
    """The rate of the steepest fall, up to the lowest loss, and that of the lowest loss.

    Example:
        >>> choose([1e-4, 1e-3, 1e-2, 1e-1], [1.0, 0.9, 0.5, 0.7])
        Found(steepest=0.001, lowest=0.01)
    """
    values = [loss if math.isfinite(loss) else math.inf for loss in smoothed]
    lowest = min(range(len(values)), key=values.__getitem__)
    slopes = [
        (values[index + 1] - values[index]) / math.log(rates[index + 1] / rates[index])
        for index in range(lowest)
    ]
    steepest = min(range(len(slopes)), key=slopes.__getitem__) if slopes else lowest
    return Found(rates[steepest], rates[lowest])


def _page(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], found: Found
) -> str:
    limit = 1.3 * max(smoothed[0], min(smoothed))
    kept = [index for index, loss in enumerate(smoothed) if loss <= limit]
    powers = [math.log10(rates[index]) for index in kept]
    lines = [
        Line("loss", powers, [min(losses[index], limit) for index in kept]),
        Line("smoothed", powers, [smoothed[index] for index in kept], is_baseline=True),
    ]
    note = (
        f"The smoothed loss falls most at {found.steepest:.2e} and is lowest at {found.lowest:.2e}."
    )
    chart = line_chart(lines, "learning rate, as a power of ten", "loss")
    return page("Learning rates", [section("curve", "Loss over the learning rate", [chart], note)])
