"""What an evaluation compares: class ids from logits, and from a target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from segtrain.data import LabelContract
from segtrain.data.labels.scored_classes import ScoredClasses
from segtrain.engine.views import Logits
from segtrain.metrics import MetricCollector


@dataclass(frozen=True)
class Scoring:
    """Turns logits and targets into the ids that are compared.

    Args:
        labels: The label contract of the targets.
        new_collector: Returns a new collector of the metrics to compute.
        thresholds: One probability per logit, for data with one logit and multi-label data; None:
            one half.
        classes: The scored classes, if they are not those of the model and the targets.
    """

    labels: LabelContract
    new_collector: Callable[[], MetricCollector]
    thresholds: tuple[float, ...] | None = None
    classes: ScoredClasses | None = None

    @property
    def scored(self) -> LabelContract:
        """Names, colours and ignore label of the ids that are compared."""
        return self.labels if self.classes is None else self.classes.labels

    def prediction(self, logits: Logits) -> Tensor:
        """The predicted ids, ``(N, H, W)``, int64; multi-label ``(N, C, H, W)``, 0 and 1."""
        ids = logits.ids(self.thresholds)
        if self.classes is None:
            return ids
        return torch.tensor(self.classes.of_model, device=ids.device)[ids]

    def target(self, target: Tensor) -> Tensor:
        """The ids of a target, of the same shape."""
        if self.classes is None:
            return target
        table = torch.tensor(self.classes.of_dataset, device=target.device)
        ids = table[target.long().clamp(0, len(table) - 1)]
        return ids.masked_fill(target == self.labels.ignore_label, self.scored.ignore_label)

    def strips(self, logits: Logits, index: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows of image `index` and their logits ``(C, R, W)``.

        Those of a class that several classes of the model become are of the sum of their
        probabilities.
        """
        for rows, strip in logits.image(index).strips():
            yield rows, strip[0] if self.classes is None else _merged(strip[0], self.classes)


def _merged(logits: Tensor, classes: ScoredClasses) -> Tensor:
    """The logarithms of the probabilities of all ids, ``(K, R, W)`` from ``(C, R, W)``."""
    if len(logits) == 1:
        parts = torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)])
    else:
        parts = logits.log_softmax(0)
    of_model = torch.tensor(classes.of_model, device=logits.device)
    return torch.stack(
        [parts[of_model == index].logsumexp(0) for index in range(classes.labels.num_classes)]
    )
