"""Read weight files without running code from them."""

from __future__ import annotations

import pickle
import shlex
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segtrain.errors import CheckpointError, ConfigError
from segtrain.files import is_whole_zip
from segtrain.models.weights.pickles import SCRIPT, missing_packages

_HEAD = 512  # number of bytes that identify the kind of file
_TORCH_PROTOCOL = 2
_SHOWN = 5  # packages listed in a message
_REFUSED = (
    "Unsupported global",
    "Unsupported class",
    "Trying to",
    "Can only",
    "was not an allowed",
)
_ZIP = b"PK\x03\x04"
_LFS = b"version https://git-lfs"
_MARKUP = (b"<!doctype", b"<html", b"<?xml")
_CONVERT = (
    "import sys, torch;"
    " f = torch.load(sys.argv[1], map_location='cpu', weights_only=False);"
    " f = f.get('state_dict', f.get('model', f)) if isinstance(f, dict) else f;"
    " torch.save(f.state_dict() if hasattr(f, 'state_dict') else f, sys.argv[2])"
)


def read_weights(path: Path) -> Any:
    """Read a file of PyTorch (zip or older) or safetensors to the CPU, without running its code.

    Raises:
        CheckpointError: If the file does not exist, is damaged, is not a weight file, or could only
            be read by running code from it.
        ConfigError: If the file requires safetensors and that library is not installed.
    """
    head = _head(path)
    if path.suffix == ".safetensors" or _is_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(_ZIP) and not is_whole_zip(path):
        raise CheckpointError(_damaged(path))
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS), warnings.catch_warnings():
            # Warnings about old protocols and TorchScript; the errors below cover both.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        problem = _needs_more(path) if _asks_for_code(error, head) else _damaged(path)
        raise CheckpointError(problem) from error


def _asks_for_code(error: Exception, head: bytes) -> bool:
    """Whether torch refused the content of the file, rather than failed to read it."""
    message = str(error)
    if isinstance(error, RuntimeError):  # TorchScript, and the tar files of torch 0.1
        return "weights_only" in message and (head.startswith(_ZIP) or head[257:262] == b"ustar")
    if "Unsupported operand" in message:  # valid in newer protocols, which torch does not write
        is_pickle = head[:1] == pickle.PROTO and head[1] > _TORCH_PROTOCOL
        return is_pickle or head.startswith(_ZIP)
    return isinstance(error, pickle.UnpicklingError) and any(word in message for word in _REFUSED)


def _head(path: Path) -> bytes:
    """Return the first bytes of `path` if they can belong to a weight file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except FileNotFoundError:
        raise CheckpointError(f"no file at {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if not head:
        raise CheckpointError(f"{path} is empty; copy or download it again")
    if head.startswith(_LFS):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file itself; run git lfs pull in its repository"
        )
    if head.lstrip().lower().startswith(_MARKUP):
        raise CheckpointError(
            f"{path} is a web page, not a weight file; open its address in a browser, where you may"
            " have to confirm the download or log in"
        )
    return head


def _is_safetensors(head: bytes) -> bool:
    """Whether the file starts with the length of a JSON header and that header."""
    return head[8:9] == b"{" and not head.startswith(_ZIP) and struct.unpack("<Q", head[:8])[0] > 1


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"reading {path} requires safetensors, which is not installed: pip install"
            " 'segtrain[hub]'"
        ) from error
    try:
        tensors: dict[str, Tensor] = load_file(path, device="cpu")
    except Exception as error:
        raise CheckpointError(_damaged(path)) from error
    return tensors


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged or not a file of PyTorch or safetensors ({path.stat().st_size} bytes);"
        " copy or download it again"
    )


def _needs_more(path: Path) -> str:
    start = f"{path} contains more than tensors and plain values, and reading it could run code"
    missing = missing_packages(path)
    if SCRIPT in missing:
        return (
            f"{start}; its classes are in the script that wrote it, so save model.state_dict() in"
            " that script and give the new file"
        )
    needs, where = "", ""
    if missing:
        listed = ", ".join(missing[:_SHOWN])
        needs = f"; it needs {listed}, which cannot be imported here"
        where = f" where {listed} can be imported"
    plain = path.with_name(f"{path.stem}_plain.pth")
    return (
        f'{start}{needs}; if you trust it, convert it once with python -c "{_CONVERT}"'
        f" {shlex.quote(str(path))} {shlex.quote(str(plain))}{where} and give the new file"
    )


# An official checkpoint.pth.tar stores its best score as a NumPy number. The next two replace the
# classes of NumPy in the pickle: they convert its bytes to a plain number, without NumPy's code.


class _NumberType:
    """Replacement of ``numpy.dtype`` while a file is read."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        """Ignore the state (byte order, ...), which a little-endian number does not need."""


def _number(kind: Any = None, data: Any = b"", *_: Any) -> float | None:
    """Replacement of ``numpy.core.multiarray.scalar``."""
    layout = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}.get(getattr(kind, "code", ""))
    if layout is None or not isinstance(data, bytes) or len(data) != struct.calcsize(layout):
        return None
    number: float = struct.unpack(layout, data)[0]
    return number


_NUMPY_SCALARS: list[Any] = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]


def find_state(content: Any, source: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Find the state dict in the content of a file, and the keys under which it is nested.

    Args:
        content: The result of :func:`read_weights`.
        source: The file as the user wrote it, for messages.

    Raises:
        CheckpointError: If there is none.

    Example:
        >>> nested = {"epoch": 3, "state_dict": {"weight": torch.zeros(2)}}
        >>> find_state(nested, "last.ckpt")
        ({'weight': tensor([0., 0.])}, ('state_dict',))
    """
    path: tuple[str, ...] = ()
    while isinstance(content, Mapping) and len(path) < _DEPTH:
        inner = _inner_key(content)
        if inner is None:
            break
        content, path = content[inner], (*path, inner)
    if not isinstance(content, Mapping) or not _has_tensors(content):
        raise CheckpointError(f"{source} does not contain weights: {_described(content)}")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}, path


_DEPTH = 4
_NESTS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("params", "weights"),
)
# Moving averages that training code keeps beside the weights; the weights themselves are preferred.
AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema", "ema")


def _inner_key(content: Mapping[Any, Any]) -> str | None:
    """The key that holds the weights, if they are not in `content` itself."""
    return next((key for key in (*_NESTS, *AVERAGES) if holds_weights(content.get(key))), None)


def holds_weights(value: Any) -> bool:
    """Whether `value` is a state dict, or an entry of a file with one inside."""
    return isinstance(value, Mapping) and (_has_tensors(value) or _inner_key(value) is not None)


def _has_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(item, Tensor) for item in value.values())


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}, not a dict of tensors"
    if not content:
        return "its dict is empty"
    names = [repr(key)[:40] for key in content]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"its entries are {', '.join(names[:5])}{more}"
