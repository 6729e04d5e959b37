"""Reading files of weights, none of which is trusted."""

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

_HEAD = 512  # bytes that tell what a file is
_TORCH_PROTOCOL = 2
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
    """What is in a file of PyTorch (zip or older) or safetensors, on the CPU; runs no code of it.

    Raises:
        CheckpointError: When there is no such file, or it is damaged, something else, or asks to
            run code.
        ConfigError: When it is one of safetensors and that library is not installed.
    """
    head = _head(path)
    if path.suffix == ".safetensors" or _is_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(_ZIP) and not is_whole_zip(path):
        raise CheckpointError(_damaged(path))
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # on old protocols and TorchScript; what follows says it
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        problem = _needs_more(path) if _asks_for_code(error, head) else _damaged(path)
        raise CheckpointError(problem) from error


def _asks_for_code(error: Exception, head: bytes) -> bool:
    """Whether torch refused what the file holds, rather than fail to read it."""
    said = str(error)
    if isinstance(error, RuntimeError):  # TorchScript, and the tar files of torch 0.1
        return "weights_only" in said and (head.startswith(_ZIP) or head[257:262] == b"ustar")
    if "Unsupported operand" in said:  # sound in newer protocols, which torch does not write
        is_pickle = head[:1] == pickle.PROTO and head[1] > _TORCH_PROTOCOL
        return is_pickle or head.startswith(_ZIP)
    return isinstance(error, pickle.UnpicklingError) and any(word in said for word in _REFUSED)


def _head(path: Path) -> bytes:
    """The first bytes of `path`, when they can be those of a file of weights."""
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
            f"{path} is a pointer of Git LFS and not the file itself; run git lfs pull where it"
            " came from"
        )
    if head.lstrip().lower().startswith(_MARKUP):
        raise CheckpointError(
            f"{path} is a web page and no weights; open its address in a browser, where it may ask"
            " to confirm the download or to log in"
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
            f"{path} is read by safetensors, which is not installed: pip install 'segtrain[hub]'"
        ) from error
    try:
        tensors: dict[str, Tensor] = load_file(path, device="cpu")
    except Exception as error:
        raise CheckpointError(_damaged(path)) from error
    return tensors


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged or no file of PyTorch or safetensors at all ({path.stat().st_size}"
        " bytes); copy or download it again"
    )


def _needs_more(path: Path) -> str:
    plain = path.with_name(f"{path.stem}_plain.pth")
    return (
        f"{path} holds more than tensors and plain values, and reading that could run code; where"
        f' you trust it, convert it once with python -c "{_CONVERT}"'
        f" {shlex.quote(str(path))} {shlex.quote(str(plain))} and give the new file"
    )


# The best score beside the weights of an official checkpoint.pth.tar is a NumPy number. These two
# take its place in the pickle: they make a plain number of its bytes, and none of NumPy's own code
# sees the file.


class _NumberType:
    """Stands for ``numpy.dtype`` while a file is read."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like; a number of the usual order needs none of it."""


def _number(kind: Any = None, data: Any = b"", *_: Any) -> float | None:
    """Stands for ``numpy.core.multiarray.scalar``."""
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
    """The state dict inside of what a file held, and the keys under which it was nested.

    Args:
        content: What :func:`read_weights` gave.
        source: What the user calls the file, for messages.

    Raises:
        CheckpointError: When there is none, or it holds a tensor that no layer has.

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
        raise CheckpointError(f"{source} holds no weights: {_described(content)}")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}, path


_DEPTH = 4
_NESTS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("params", "weights"),
)


def _inner_key(content: Mapping[Any, Any]) -> str | None:
    """Where the weights are, when they are not in `content` itself."""
    return next((key for key in _NESTS if _holds_weights(content.get(key))), None)


def _holds_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and (_has_tensors(value) or _inner_key(value) is not None)


def _has_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(item, Tensor) for item in value.values())


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__} and no dict of tensors"
    if not content:
        return "its dict is empty"
    names = [repr(key)[:40] for key in content]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"its entries are {', '.join(names[:5])}{more}"
