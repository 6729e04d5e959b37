"""Find the packages that a pickled file needs, without running or importing anything."""

from __future__ import annotations

import io
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

SCRIPT = "__main__"  # the module of classes that a script defines itself
_NUM_BYTES = 1 << 24
_NUM_OPERATIONS = 500_000
_NUM_PICKLES = 4  # the older files of PyTorch hold three short ones before the object


def missing_packages(path: Path) -> list[str]:
    r"""The packages that the pickle in `path` needs and that cannot be imported here.

    Only the start of a large file is searched. ``__main__`` stands for the script that wrote it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "model.pkl"
        >>> _ = path.write_bytes(b"cabsent_package.nn\nModel\ncargparse\nNamespace\n.")
        >>> missing_packages(path)
        ['absent_package']
    """
    try:
        modules = list(_modules(_pickle(path)))
    except Exception:  # noqa: BLE001  the file is not trusted, and this is only advice
        return []
    packages = dict.fromkeys(IMPORT_MAPPING.get(name, name).split(".")[0] for name in modules)
    return [name for name in packages if name.isidentifier() and not _is_importable(name)]


def _is_importable(package: str) -> bool:
    try:
        return package != SCRIPT and find_spec(package) is not None
    except ValueError:  # it is imported, but not from a file
        return True


def _pickle(path: Path) -> io.BytesIO:
    """The first bytes of the pickle in a file of PyTorch, new or old."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            return io.BytesIO(stream.read(_NUM_BYTES))
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        with archive.open(name) as stream:
            return io.BytesIO(stream.read(_NUM_BYTES))


def _modules(stream: io.BytesIO) -> Iterator[str]:
    """The modules that the pickles in `stream` name, up to the first byte that is no pickle."""
    strings: list[str] = []  # the last two are the module and the name of STACK_GLOBAL
    memo: list[str] = []
    last = ""  # the string that the last operation pushed; empty for other objects
    try:
        for name, argument in islice(_operations(stream), _NUM_OPERATIONS):
            if name == "PROTO":  # every pickle has a memo of its own
                memo.clear()
            elif name == "MEMOIZE":
                memo.append(last)
                continue
            elif name in ("GLOBAL", "INST"):
                yield str(argument).split(" ")[0]
            elif name == "STACK_GLOBAL":
                yield from strings[-2:-1]
            last = _string(name, argument, memo)
            if last:
                strings.append(last)
    except Exception:  # noqa: BLE001  weights follow the pickle, or the file is damaged
        return


def _string(name: str, argument: Any, memo: Sequence[str]) -> str:
    """The string that an operation pushes; empty if it pushes another object or none."""
    if "UNICODE" in name:
        return str(argument)
    return memo[argument] if name.endswith("BINGET") and argument < len(memo) else ""


def _operations(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    for _ in range(_NUM_PICKLES):
        for operation, argument, _position in pickletools.genops(stream):
            yield operation.name, argument
