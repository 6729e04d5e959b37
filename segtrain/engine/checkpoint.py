"""Checkpoints: written atomically, and read without running code from the file."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segtrain.engine.checkpoint_values import check_values
from segtrain.engine.disk import RecordedErrors, check_free_space, no_space
from segtrain.errors import CheckpointError
from segtrain.files import atomic_write, is_whole_zip
from segtrain.terminal import logger

FORMAT = 1
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
State = dict[str, Any]


def save_checkpoint(path: Path, state: State, *, previous: Path | None = None) -> None:
    """Write `state` to `path` atomically.

    Args:
        path: The file.
        state: Tensors and plain values.
        previous: Where the checkpoint that `path` holds is kept; None: nowhere.

    Raises:
        ResourceError: When the volume is full. The files are as before.
    """
    needed = state_bytes(state)
    check_free_space(path, needed)
    try:
        with atomic_write(path, previous=previous) as stream:
            recorded = RecordedErrors(stream)
            try:
                torch.save({"format": FORMAT, **state}, recorded)  # type: ignore[arg-type]
            except Exception as error:
                # The writer of torch reports an error of the disk as one of its own.
                if recorded.error is None:
                    raise
                raise recorded.error from error
    except OSError as error:
        raise no_space(path, needed, error) from error


def find_checkpoint(given: str | Path, name: str = "best.pt") -> Path:
    """Return the checkpoint file: `given` itself, or ``checkpoints/<name>`` in a run directory.

    Raises:
        CheckpointError: When it does not exist.
    """
    path = Path(given)
    if path.is_dir():
        path = path / "checkpoints" / name
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}: give a .pt file or a run directory that has one"
        )
    return path


def load_latest(run_dir: Path) -> tuple[Path, State] | None:
    """Load the latest checkpoint of a run that can be loaded; None if the run has none.

    If ``checkpoints/last.pt`` is missing or damaged, ``previous.pt`` is loaded, with a warning.

    Raises:
        CheckpointError: When no file can be loaded, or the files are gone although the run saved
            one.
    """
    problems: list[str] = []
    for name in (LAST, PREVIOUS):
        path = run_dir / "checkpoints" / name
        if not path.is_file():
            problems += [f"{path} does not exist"]
            continue
        try:
            state = load_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            logger.warning("%s; resuming from %s at step %s", problems[0], path, state["step"])
        return path, state
    if any("does not exist" not in problem for problem in problems):
        raise CheckpointError(
            f"the checkpoints of {run_dir} cannot be loaded: {'; '.join(problems)}"
        )
    return None


def load_checkpoint(path: Path) -> State:
    """Load the state in `path`, on the CPU.

    Raises:
        CheckpointError: When the file is missing, damaged, not a checkpoint of segtrain, holds
            values that are not valid, or would run code.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if not is_whole_zip(path):
        raise CheckpointError(f"{path} is damaged or not a checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was not written by segtrain: it holds more than tensors and plain values, and"
            " loading it could run code"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint") from error
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} was not written by segtrain: it has no 'format' entry")
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {state['format']}; this version of segtrain reads format {FORMAT}"
        )
    for key in ("model", "config", "metadata", "step"):
        if state.get(key) in (None, {}):
            raise CheckpointError(f"{path} is not a complete checkpoint: it lacks {key!r}")
    check_values(state, path)
    return state


def state_bytes(value: Any) -> int:
    """About how many bytes a state takes in a file.

    Example:
        >>> state_bytes({"model": {"weight": torch.zeros(10, 10)}, "step": 3}) > 400
        True
    """
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size() + 200
    if isinstance(value, dict):
        return sum(20 + state_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(map(state_bytes, value))
    return 10


def entry(state: State, key: str, path: Path) -> Any:
    """Return ``state[key]``.

    Raises:
        CheckpointError: When the checkpoint lacks `key`.
    """
    if key not in state:
        raise CheckpointError(
            f"{path} lacks {key!r}, so a run cannot resume from it; use a checkpoints/last.pt"
        )
    return state[key]


def rng_state() -> State:
    """Return the state of every global random generator, as tensors and plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  the global generator is meant
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
    }


def set_rng_state(state: State) -> None:
    """Restore what :func:`rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002


def model_weights(state: State) -> State:
    """Return the weights to evaluate: the moving average if the run kept one."""
    weights: State = state["ema"] if state.get("ema") else state["model"]
    return weights
