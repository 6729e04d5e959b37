"""Cross-validation: the training samples of a dataset, cut into folds by their names."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

from segtrain.data.dataset import SampleFiles
from segtrain.errors import ConfigError, DataError
from segtrain.schema.ranges import Range

_MAX_LISTED = 6
_NUMBER = Range(2, hint="; leave it out to train without cross-validation")


class Folds:
    """The cut of the training samples into folds.

    The cut depends on the names of the samples alone: neither on the seed of a run nor on the order
    of the files. The sizes of the folds differ by one sample at most, or by more if samples belong
    to groups.

    Args:
        folds: Number of folds for cross-validation, at least 2. None: no cross-validation.
        fold: The fold of the training samples that is the validation split, from 0 to ``folds -
            1``; the other folds are the training split. The paths configured for validation are
            then not used; the test split stays as it is configured.
        fold_groups: A regular expression that is searched for in the name of a sample. Its first
            group, or the whole match if it has no groups, names what the sample belongs to, such as
            a patient or a scene, whose samples are then all in one fold. None: samples do not
            belong together.

    Raises:
        ConfigError: When a value is out of range, or a key needs another one.

    Example:
        >>> from pathlib import Path
        >>> names = ["ann_1", "ann_2", "bob_1", "bob_2", "eve_1"]
        >>> files = [SampleFiles(Path(f"{name}.png"), (None,), name) for name in names]
        >>> [Folds(folds=3, fold=fold).part(files, "val") for fold in range(3)]
        [[1, 4], [2, 3], [0]]
        >>> cuts = [Folds(folds=3, fold=fold, fold_groups="[a-z]+") for fold in range(3)]
        >>> [folds.part(files, "val") for folds in cuts]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, *, folds: int | None = None, fold: int | None = None, fold_groups: str | None = None
    ) -> None:
        self.folds, self.fold, self.fold_groups = folds, fold, fold_groups
        if folds is None:
            for key, value in (("fold", fold), ("fold_groups", fold_groups)):
                if value is not None:
                    raise ConfigError(
                        f"dataset.{key}={value} needs dataset.folds, the number of folds; set it,"
                        f" or leave dataset.{key} out"
                    )
            return
        _NUMBER.check("dataset.folds", folds)
        if fold is None:
            raise ConfigError(
                f"dataset.folds={folds} needs dataset.fold, the fold to validate on, from 0 to"
                f" {folds - 1}; to train on each of them, use -m and"
                f" dataset.fold={','.join(map(str, range(min(folds, _MAX_LISTED))))}"
                + (",..." if folds > _MAX_LISTED else "")
            )
        Range(0, folds - 1, hint="; dataset.folds is the number of folds").check(
            "dataset.fold", fold
        )
        try:
            self._pattern = None if fold_groups is None else re.compile(fold_groups)
        except re.error as error:
            raise ConfigError(
                f"dataset.fold_groups={fold_groups!r} is not a regular expression: {error}"
            ) from None

    def __bool__(self) -> bool:
        return self.folds is not None

    def part(self, files: Sequence[SampleFiles], split: str) -> list[int]:
        """Return the indices of the samples of a split.

        Args:
            files: The files of all training samples, in any order.
            split: ``"val"``: the samples of the fold; ``"train"``: all others.

        Raises:
            DataError: When there are fewer samples or groups than folds, or `fold_groups` does not
                match a name.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for index, sample in enumerate(files):
            groups[self._group(sample)].append(index)
        folds: list[list[int]] = [[] for _ in range(self._checked_number(groups, len(files)))]
        # Large groups first, each into the smallest fold. Without groups this deals the samples out
        # one by one, in the order of their hashes.
        for group in sorted(groups, key=lambda name: (-len(groups[name]), _hash(name))):
            min(folds, key=len).extend(groups[group])
        return sorted(
            index
            for number, indices in enumerate(folds)
            for index in indices
            if (number == self.fold) == (split == "val")
        )

    def _group(self, sample: SampleFiles) -> str:
        if self._pattern is None:
            return sample.name
        match = self._pattern.search(sample.name)
        group = match and match[min(self._pattern.groups, 1)]
        if not group:
            raise DataError(
                f"{sample.image}: dataset.fold_groups={self.fold_groups!r} finds no group in the"
                f" name {sample.name!r}; give an expression that matches the name of every sample"
            )
        return group

    def _checked_number(self, groups: dict[str, list[int]], num_samples: int) -> int:
        assert self.folds is not None
        if len(groups) >= self.folds:
            return self.folds
        what, found, advice = "samples", f"the training split has {num_samples}", "add samples"
        if self._pattern is not None:
            listed = ", ".join(sorted(groups)[:_MAX_LISTED])
            more = ", ..." if len(groups) > _MAX_LISTED else ""
            what, advice = "groups", "change the expression"
            found = (
                f"dataset.fold_groups={self.fold_groups!r} finds {len(groups)} in {num_samples}"
                f" samples ({listed}{more})"
            )
        raise DataError(
            f"dataset.folds={self.folds} needs at least {self.folds} {what}, but {found}; lower"
            f" dataset.folds, or {advice}"
        )


def _hash(name: str) -> bytes:
    """Return the place of a name in the fixed random order that deals the samples out."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
