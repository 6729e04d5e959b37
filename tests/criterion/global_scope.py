"""Compare losses over all processes with those of one large batch; started by torchrun."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from segtrain import build_criterion

SPECS: list[dict[str, Any]] = [
    *(
        {"name": "cross_entropy", "mining": mining}
        for mining in (
            {"name": "ohem", "threshold": 0.2, "min_kept": 300},
            {"name": "top_k", "ratio": 0.1},
            {"name": "hard_negative", "ratio": 0.5},
            {"name": "ghm", "bins": 5, "momentum": 0.5},
        )
    ),
    {"name": "smooth_l1", "mining": {"name": "ghm", "bins": 5}},
    *(
        {"name": name}
        for name in ("dice", "jaccard", "generalized_dice", "mcc", "sensitivity_specificity")
    ),
]


def with_scope(spec: dict[str, Any]) -> dict[str, Any]:
    """The same loss over all processes."""
    if "mining" in spec:
        return {**spec, "mining": {**spec["mining"], "scope": "global"}}
    return {**spec, "scope": "global"}


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """Logits and a target of the two processes; the first has fewer valid pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 3, 12, 10, generator=generator)
    target = torch.randint(0, 3, (4, 24, 20), generator=generator)
    target[:2, 4:] = 255
    target[2:][target[2:] == 2] = 1  # the second process lacks a class
    return logits, target


def check(spec: dict[str, Any], strip_rows: int | None) -> None:
    """Compare value and gradient of two steps."""
    own, reference = (
        build_criterion(one, num_classes=3, strip_rows=strip_rows)
        for one in (with_scope(spec), spec)
    )
    rank, size = dist.get_rank(), dist.get_world_size()
    for seed in range(2):
        logits, target = batch(seed)
        whole = logits.clone().requires_grad_()
        expected = reference(whole, target).total
        expected.backward()
        part = slice(2 * rank, 2 * rank + 2)
        mine = logits[part].clone().requires_grad_()
        share = own.share(target[part])
        dist.all_reduce(share)
        total = own(mine, target[part], step_share=share / size).total
        total.backward()
        mean = total.detach() / size
        dist.all_reduce(mean)
        torch.testing.assert_close(mean, expected.detach(), rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(mine.grad / size, whole.grad[part], rtol=1e-4, atol=1e-7)
        with torch.no_grad(), own.without_mining():
            if rank == 0:  # no process waits for another one
                own(mine, target[part])


def main() -> None:
    """Check every loss, with and without strips."""
    dist.init_process_group("gloo")
    for spec in SPECS:
        for rows in (None, 7):
            check(spec, rows)
            sys.stdout.write(f"{spec} with strip_rows={rows} agrees\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
