"""From a map of pixel losses to one number: which pixels count, and how much."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from segtrain.schema.registry import Registry

MiningSpec = str | Mapping[str, object] | None


class Mining(nn.Module, ABC):
    """Reduces the weighted losses of the pixels of a batch to a scalar.

    A mining that can tell from a pixel alone whether it counts sets `streaming` and has
    :meth:`kept`, :meth:`denominator` and :meth:`decided`; in strips its gradient is then made in
    the same pass as its value.

    Attributes:
        needs_probability: It is called with ``probability``.
        needs_target: It is called with ``target``.
        streaming: ``always`` where :meth:`decided` holds for any batch and the denominator follows
            from the target alone, ``mostly`` where it usually does.
    """

    needs_probability: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False
    streaming: ClassVar[Literal["always", "mostly", "never"]] = "never"

    @abstractmethod
    def forward(
        self,
        values: Tensor,
        weights: Tensor,
        valid: Tensor,
        probability: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Tensor:
        """The value of the batch; 0 with a zero gradient when no pixel is kept.

        Shape:
            - values: ``(N, H, W)``, losses times the weights, 0 where not valid.
            - weights: ``(N, H, W)``, what each pixel weighs in a mean, 0 where not valid.
            - valid: ``(N, H, W)``, bool.
            - probability: ``(N, H, W)`` of the target's class, only when `needs_probability`.
            - target: ``(N, H, W)`` class ids (of probabilities, the most probable class) and
              ``ignore_label``; or ``(N, C, H, W)`` where a pixel may have several classes. Only
              when `needs_target`.
            - output: ``()``.
        """

    def check_classes(self, num_classes: int) -> None:
        """Refuse parameters that do not go with targets of `num_classes` ids.

        Raises:
            ConfigError: When they do not.
        """

    def share(self, weights: Tensor, valid: Tensor) -> Tensor:  # noqa: ARG002
        """How much this batch counts among several of one step: its valid pixels by default."""
        return valid.sum().float()

    def kept(self, valid: Tensor, probability: Tensor | None) -> Tensor:
        """Of some rows, the pixels that count, ``(N, R, W)`` bool."""
        raise NotImplementedError

    def denominator(self, weights: Tensor, kept: Tensor) -> Tensor:
        """What `kept` pixels add to the number that the sum of the values is divided by, ``()``."""
        raise NotImplementedError

    def decided(self, denominator: Tensor, num_valid: int) -> bool:
        """Whether :meth:`kept` was right about the whole batch, on the CPU."""
        raise NotImplementedError


MININGS: Registry[Mining] = Registry("mining")


def build_mining(spec: str | Mapping[str, object]) -> Mining:
    """The mining that `spec` names, parameters checked."""
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

    streaming = "always"

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

    def kept(self, valid: Tensor, probability: Tensor | None) -> Tensor:  # noqa: ARG002
        return valid

    def denominator(self, weights: Tensor, kept: Tensor) -> Tensor:  # noqa: ARG002
        return weights.sum()

    def decided(self, denominator: Tensor, num_valid: int) -> bool:  # noqa: ARG002
        return True
