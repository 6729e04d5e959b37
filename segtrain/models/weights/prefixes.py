"""Find the prefix under which a file holds the weights of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor

from segtrain.errors import CheckpointError
from segtrain.models.weights.formats import WeightFile, restricted
from segtrain.models.weights.names import ModelNames, match_names

# Words in the prefix of a copy that training code keeps beside the model: an average, a teacher, or
# the key encoder of contrastive learning (encoder_k beside encoder_q).
_COPIES = {"ema", "teacher", "average", "averaged", "avg", "momentum", "shadow", "target", "k"}


def under_best_prefix(file: WeightFile, names: ModelNames) -> WeightFile:
    """Return `file` restricted to the prefix under which most weights of the model fit.

    The file is returned as it is if no prefix is better than none. If several are equally good, the
    one that does not name a copy (``teacher``, ``ema``, ...) is used.

    Args:
        file: The recognised file.
        names: The names of the model.

    Raises:
        CheckpointError: If several prefixes are equally good and no rule chooses between them.
    """
    if file.is_own:
        return file
    fits = {
        prefix: _num_fitting(_under(file.state, prefix), names)
        for prefix in ("", *_prefixes(file.state, least=len(names.backbone) // 2))
    }
    best = max(fits.values())
    if fits[""] == best:
        return file
    tied = _outermost(prefix for prefix, found in fits.items() if found == best)
    chosen = tied if len(tied) == 1 else [prefix for prefix in tied if not _is_copy(prefix)]
    if len(chosen) != 1:
        raise CheckpointError(
            f"{file.source} ({file.kind}) has weights for {names.label} more than once, under"
            f" {' and '.join(map(repr, tied))}; save the entries under one of them as a file of"
            " their own and give this file"
        )
    prefix = chosen[0]
    return restricted(file, prefix, (_note(prefix, [other for other in tied if other != prefix]),))


def _prefixes(keys: Iterable[str], least: int) -> list[str]:
    """The prefixes, up to a dot, of at least `least` keys; the outer ones first."""
    counts: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        counts.update(".".join([*parts[:end], ""]) for end in range(1, len(parts)))
    return [prefix for prefix, count in counts.items() if count >= max(least, 1)]


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _num_fitting(state: Mapping[str, Tensor], names: ModelNames) -> tuple[int, int]:
    """Number of weights with the name and shape of one of the model, and number with its name."""
    values = match_names(state, names).values
    return sum(value.shape == names.own[key].shape for key, value in values.items()), len(values)


def _outermost(prefixes: Iterable[str]) -> list[str]:
    """The prefixes that are not inside of another one."""
    found: list[str] = []
    for prefix in prefixes:
        if not prefix.startswith(tuple(found)):
            found.append(prefix)
    return found


def _is_copy(prefix: str) -> bool:
    return not _COPIES.isdisjoint(re.split(r"[._]", prefix.lower()))


def _note(prefix: str, others: list[str]) -> str:
    note = f"only the entries under {prefix!r} were used"
    if not others:
        return note
    copies = " and ".join(map(repr, others))
    return (
        f"{note}, not the copy under {copies}; to load the copy, save its entries as a file of"
        " their own"
    )
