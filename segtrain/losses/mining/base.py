"""The base classes of hard-example mining, which reduces a map of pixel losses to one number.

- :class:`Mining`: any function of the maps of the whole batch. Write ``forward``.
- :class:`StreamingMining`: a mean over pixels, each of which is kept or dropped on its own. Write
  ``forward``, ``kept``, ``denominator`` and ``decided``; strips then need one pass, not two.
- :class:`MeanMining`: the mean over all valid pixels, the default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segtrain.losses.scope import Scope
from segtrain.schema.registry import Registry

MiningSpec = str | Mapping[str, object] | None


class Mining(nn.Module, ABC):
    """A reduction of the weighted losses of all pixels of a batch to a scalar.

    A custom mining writes :meth:`forward` and is registered with ``segtrain.register_mining``. In
    strips it works as it is: the maps of the whole batch are collected in a first pass, and a
    second pass makes the gradient.

    Attributes:
        needs_probability: Whether :meth:`forward` is called with ``probability``.
        needs_target: Whether :meth:`forward` is called with ``target``.
        scope: ``process``: the pixels of this process are ranked or counted; ``global``: those of
            all processes, which :meth:`forward` then gets. In evaluation it is always the former.
        per_class: Whether each class of a pixel is an example of its own. :meth:`forward` then gets
            maps ``(N, C, H, W)``, of a loss with a sigmoid per class, and there are no strips.
    """

    needs_probability: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False
    scope: Scope = "process"
    per_class: bool = False

    @abstractmethod
    def forward(
        self,
        values: Tensor,
        weights: Tensor,
        valid: Tensor,
        probability: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """Compute the value of the batch; 0 with a zero gradient if no pixel is kept.

        Shape:
            - values: ``(N, H, W)``, losses times the weights, 0 where not valid.
            - weights: ``(N, H, W)``, the weight of each pixel in a mean, 0 where not valid.
            - valid: ``(N, H, W)``, bool.
            - probability: ``(N, H, W)``, of the target's class; only if `needs_probability`.
            - target: ``(N, H, W)``, class ids and ``ignore_label``; for a target of probabilities
              the id is the most probable class. ``(N, C, H, W)`` if a pixel may have several
              classes. Only if `needs_target`.
            - output: ``()``.
        """

    def check_classes(self, num_classes: int) -> None:
        """Check that the parameters suit targets with `num_classes` ids.

        Raises:
            ConfigError: If they do not.
        """

    def share(self, weights: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        """The share of this batch in a step of several: by default the number of valid pixels."""
        return valid.sum().float()


class StreamingMining(Mining):
    r"""A mean over pixels that a rule keeps or drops one by one, from their probability alone.

    .. math:: L = \sum_{i \in K} w_i \ell_i \Big/ d(K)

    A subclass writes :meth:`kept` (the set :math:`K`), :meth:`denominator` (:math:`d`) and
    :meth:`decided`, besides :meth:`forward`, which computes the same for a whole batch. Strips make
    value and gradient in one pass if this is the only term of the loss and it runs on a CPU. If
    :meth:`decided` then rejects the pass, :meth:`forward` reduces the maps of the whole batch.

    A class that writes :meth:`kept` promises that its :meth:`forward` agrees with it. A subclass
    that overrides :meth:`forward` and leaves :meth:`kept` as it was has made no such promise, so
    strips treat it as any other mining.
    """

    _promised: ClassVar[tuple[Callable[..., Any], ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Record the ``forward`` that a newly written ``kept`` goes with."""
        super().__init_subclass__(**kwargs)
        if cls.kept not in cls._promised:
            cls._promised = (cls.kept, cls.forward)

    @property
    def streams(self) -> bool:
        """Whether :meth:`kept` and :meth:`forward` are of one class, and see this process alone."""
        is_kept = (type(self).kept, type(self).forward) == self._promised
        return is_kept and self.scope == "process"

    @abstractmethod
    def kept(self, valid: Tensor, probability: Tensor | None) -> Tensor:
        """The mask of the pixels that are kept in some rows of the batch.

        Shape:
            - valid: ``(N, R, W)``, bool.
            - probability: ``(N, R, W)``; only if `needs_probability`.
            - output: ``(N, R, W)``, bool.
        """

    @abstractmethod
    def denominator(self, weights: Tensor, kept: Tensor) -> Tensor:
        """The part of the denominator that the `kept` pixels of some rows add, ``()``.

        Shape:
            - weights: ``(N, R, W)``, as in :meth:`forward`; its dtype is the dtype of the output.
            - kept: ``(N, R, W)``, bool.
        """

    @abstractmethod
    def decided(self, denominator: Tensor, num_valid: int) -> bool:
        """Whether :meth:`kept` chose the right pixels, now that the whole batch has been seen.

        Args:
            denominator: The sum over all rows, ``()``, on the CPU.
            num_valid: Number of valid pixels in the batch.
        """


MININGS: Registry[Mining] = Registry("mining")


def is_no_mining(spec: MiningSpec) -> bool:
    """Whether `spec` keeps every valid pixel."""
    return spec in (None, "none") or (isinstance(spec, Mapping) and dict(spec) == {"name": "none"})


def build_mining(spec: str | Mapping[str, object]) -> Mining:
    """Build the mining that `spec` describes and check its parameters."""
    return MININGS.build(spec)


@MININGS.register("none")
class MeanMining(Mining):
    r"""Every valid pixel counts: the mean, weighted by class if there are class weights.

    .. math:: L = \sum_i w_i \ell_i \Big/ \sum_i w_i

    Example:
        >>> valid = torch.tensor([[[True, True, False]]])
        >>> MeanMining()(torch.tensor([[[1.0, 3.0, 0.0]]]), valid.float(), valid)
        tensor(2.)
    """

    @property
    def streams(self) -> bool:
        """Whether this is the mean: strips add up its parts unless a subclass changes it."""
        return type(self).forward is MeanMining.forward

    def forward(
        self,
        values: Tensor,
        weights: Tensor,
        valid: Tensor,  # noqa: ARG002
        probability: Tensor | None = None,  # noqa: ARG002
        target: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        total = weights.sum()
        return values.sum() / torch.where(total > 0, total, 1)

    def share(self, weights: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        return weights.sum()
