"""The exponential moving average of the weights, which warms up."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def decay_at(update: int, decay: float) -> float:
    r"""The decay of an update, :math:`\min(d, (1 + t) / (10 + t))`.

    With a constant decay :math:`d`, the first weights keep the share :math:`d^t` after :math:`t`
    steps, which is 37 % after 100 steps with :math:`d = 0.99`. With this rule the average covers
    about the last ninth of a short run, and the last :math:`1 / (1 - d)` steps of a long one.

    Args:
        update: Number of updates so far, :math:`t`.
        decay: The largest decay, :math:`d`, between 0 and 1.

    Example:
        >>> [round(decay_at(update, 0.99), 3) for update in (0, 10, 100, 1000)]
        [0.1, 0.55, 0.918, 0.99]

    References:
        The rule of ``tf.train.ExponentialMovingAverage`` with ``num_updates``.
    """
    return min(decay, (1 + update) / (10 + update))


class MovingAverage(AveragedModel):
    """A copy of a model that holds the moving average of its weights and buffers.

    Args:
        model: The model, which is copied.
        decay: The largest decay; see :func:`decay_at`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay

    def _average(
        self,
        averages: tuple[Tensor, ...] | list[Tensor],
        weights: tuple[Tensor, ...] | list[Tensor],
        _: Tensor | int,
    ) -> None:
        # n_averaged stays on the CPU, so reading it does not wait for the device.
        decay = decay_at(int(self.n_averaged), self.decay)
        # Of sharded parameters each process averages its own part.
        pairs = [(_own(one), _own(other)) for one, other in zip(averages, weights, strict=True)]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        if floats:
            get_ema_multi_avg_fn(decay)(*zip(*floats, strict=True), 0)  # type: ignore[no-untyped-call]
        for average, weight in pairs:
            if not average.is_floating_point():  # a count, such as that of batch norm
                average.copy_(weight)


def _own(value: Tensor) -> Tensor:
    """The part of a tensor that this process holds; all of it, unless it is sharded."""
    part: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return part
