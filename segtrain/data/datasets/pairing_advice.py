"""The likely fix for images and masks that do not pair, as an override that can be pasted."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from segtrain.data.datasets.found_files import without_ending

_LIKELY = re.compile(r"label(Train)?Ids?$|labels?$|masks?$|seg(mentation)?$|gt$", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+|[\W_]+|\d+")
FIRST_CHANNEL = "_0000"  # the end of an image's name in nnU-Net's format
_LEAST = 0.5  # share of the images that must pair for a fix to be proposed


def pairing_advice(
    images: Mapping[Path, str], others: Mapping[Path, str], pairs: int, where: str, kind: str
) -> str:
    """Return what to do about files without a partner.

    Args:
        images: Image files with their stems.
        others: Masks or valid files, likewise.
        pairs: Number of files that do pair.
        where: The config key of the split.
        kind: ``mask`` or ``valid file``.
    """
    key = "masks" if kind == "mask" else "valid"
    ready = _by_ending(images, others, where, key) if len(others) > len(images) else None
    if ready is None and pairs < _LEAST * min(len(images), len(others)):
        ready = _by_expressions(images, others, key)
    ready = ready or _by_channel(images, others, where)
    if ready is not None:
        return ready
    if pairs:
        return "rename them, or set dataset.unpaired=skip to leave them out"
    return f"an image and its {kind} need the same name without extension, so rename them"


def _by_expressions(images: Mapping[Path, str], others: Mapping[Path, str], key: str) -> str | None:
    """Return regular expressions for names that differ at their start or end, such as ``img_7``."""
    found = []
    for files in (images, others):
        names = [stem.split("/") for stem in files.values()]
        whole_folder = len({parts[-1] for parts in names}) == 1 and all(len(p) > 1 for p in names)
        if whole_folder:  # case_7/image.png
            found.append(("(?:^|/)", f"/{re.escape(names[0][-1])}", [parts[-2] for parts in names]))
            continue
        stems = [parts[-1] for parts in names]
        start = _shared_start(stems)
        end = _shared_start([stem[::-1] for stem in stems])[::-1] if len(stems) > 1 else ""
        middles = [stem[len(start) : len(stem) - len(end)] for stem in stems]
        found.append((f"(?:^|/){re.escape(start)}", re.escape(end), middles))
    if all((start, end) == ("(?:^|/)", "") for start, end, _ in found):
        return None  # names without extension, which do not pair
    keys = [set(middles) for *_, middles in found]
    unique = all(len(set(m)) == len(m) for *_, m in found)
    if (
        not unique
        or "" in keys[0] | keys[1]
        or len(keys[0] & keys[1]) < _LEAST * max(map(len, keys))
    ):
        return None
    sides = zip(("images", key), found, strict=True)
    middle, last = "[^/]+", "[^.]+"
    if any(path.name.lower().endswith(".nii.gz") for path in (*images, *others)):
        middle, last = "[^/]+?", "(?:nii[.]gz|[^.]+)"
    entries = [f'{side}: "{start}({middle}){end}[.]{last}$"' for side, (start, end, _) in sides]
    ready = f"'dataset.pairing={{{','.join(entries)}}}'"
    return f"if the rest of the names must agree, set {ready}"


def _shared_start(texts: Sequence[str]) -> str:
    """Return the words without digits that all texts begin with."""
    shared = ""
    for word in _WORD.findall(texts[0]):
        if word.isdigit() or not all(text.startswith(shared + word) for text in texts):
            break
        shared += word
    return shared


def _by_ending(
    images: Mapping[Path, str], others: Mapping[Path, str], where: str, key: str
) -> str | None:
    """Return a glob for one of several masks of each image: ``x_color``, ``x_labelIds``."""
    endings: dict[str, list[Path]] = defaultdict(list)
    starts = {_bare(stem) for stem in images.values()}
    for path, stem in others.items():
        name = stem.rpartition("/")[2]
        length = next((n for n in range(len(name), 0, -1) if name[:n] in starts), None)
        if length is not None:
            bare = without_ending(Path(path.name))
            endings[name[length:] + path.name.removeprefix(bare)].append(path)
    whole = [ending for ending, files in endings.items() if len(files) >= _LEAST * len(images)]
    if len(whole) < 2:
        return None
    best = next((e for e in whole if _LIKELY.search(e.rpartition(".")[0])), whole[0])
    folder = os.path.commonpath([path.parent for path in endings[best]])
    return f"if the other files are not the masks, set '{where}.{key}={folder}/**/*{best}'"


def _by_channel(images: Mapping[Path, str], others: Mapping[Path, str], where: str) -> str | None:
    """Return a glob for the first channel if each channel has a file of its own, as in nnU-Net."""
    first = {
        stem.rpartition("/")[2].removesuffix(FIRST_CHANNEL): path
        for path, stem in images.items()
        if stem.endswith(FIRST_CHANNEL)
    }
    names = {stem.rpartition("/")[2] for stem in others.values()}
    if len(first) == len(images) or len(first.keys() & names) < max(_LEAST * len(names), 1):
        return None
    folder = os.path.commonpath([path.parent for path in first.values()])
    return (
        "if _0000, _0001, ... are channels of one image, write them to one file, or set"
        f" '{where}.images={folder}/**/*{FIRST_CHANNEL}.*' to read the first"
    )


def _bare(stem: str) -> str:
    """Return the name of an image without a known ending."""
    return re.sub(r"[_\-. ](leftImg8bit|images?|img|rgb|sat)$", "", stem.rpartition("/")[2])
