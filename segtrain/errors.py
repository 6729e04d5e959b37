"""Errors with a message for the user, one class per exit code.

A command that fails prints one line, which says what was found, where, and what to do next, and
exits with the code of the error; see :mod:`segtrain.cli.main`.
"""

from __future__ import annotations


class SegtrainError(Exception):
    """Base of every error with a message for the user; `exit_code` is what a command returns."""

    exit_code = 1


class ConfigError(SegtrainError, ValueError):
    """A key, a name or a value of the configuration (or of a `build_*` function) is wrong."""

    exit_code = 2


class NormError(ConfigError, ValueError):
    """A batch is too small for batch norm to train on."""


class DataError(SegtrainError, ValueError):
    """A file of the dataset is missing, unreadable or outside the label contract."""

    exit_code = 3


class ChannelsError(DataError):
    """An image has the wrong number of channels."""


class SizeError(DataError):
    """An image and its mask, or its valid file, differ in size."""


class NoFilesError(DataError):
    """A folder, archive or pattern of the dataset has no files.

    Args:
        found: What was found, where, and what is allowed.
        advice: What else a training run can do; an evaluation leaves it out.
    """

    def __init__(self, found: str, advice: str = "") -> None:
        super().__init__(found + advice)
        self.found = found


class CheckpointError(SegtrainError):
    """A checkpoint is missing, damaged or does not fit."""

    exit_code = 4


class NumericError(SegtrainError, ArithmeticError):
    """A loss, a gradient or a prediction is NaN or infinite."""

    exit_code = 5


class ResourceError(SegtrainError, RuntimeError):
    """The machine cannot run the command: incompatible packages, memory, devices, disk."""

    exit_code = 6


class RunDirectoryBusyError(SegtrainError):
    """The run directory already holds a run."""

    exit_code = 7


class IncompleteError(SegtrainError):
    """Some inputs of a command failed, and the others were done.

    Args:
        message: Which ones failed, and why.
        exit_code: The exit code of the first failure.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OtherProcessError(SegtrainError):
    """Another process of the run failed.

    Args:
        message: Which one, and why.
        exit_code: Its exit code.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def printable(text: object) -> str:
    r"""Escape the characters of a text that cannot be printed, so that none controls the terminal.

    Example:
        >>> print(printable("a\x1b[31m.png"))
        a\x1b[31m.png
    """
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape", "surrogatepass").decode()
        for mark in str(text)
    )


def one_line(text: object, limit: int = 300) -> str:
    """The text of a message or an error, on one line and cut off at `limit` characters.

    Example:
        >>> one_line("sizes  must    match")
        'sizes must match'
    """
    return " ".join(str(text).split())[:limit]


def describe_error(error: BaseException) -> str:
    """The type and the message of an error of other code, on one line.

    Example:
        >>> describe_error(ValueError("sizes  must match"))
        'ValueError: sizes must match'
    """
    return f"{type(error).__name__}: {one_line(error)}"


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that `error` ends.

    Example:
        >>> [exit_code_of(error) for error in (DataError(), KeyboardInterrupt(), OSError())]
        [3, 130, 6]
    """
    if isinstance(error, SegtrainError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if is_out_of_memory(error) or isinstance(error, OSError):
        return ResourceError.exit_code
    return 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` reports a failed allocation, as any of the libraries in use words it.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory."))
        (True, True)
        >>> is_out_of_memory(RuntimeError("sizes must match"))
        False
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


# Messages of CUDA, MPS, torch on a CPU (an allocation, and a size that overflows), C++, OpenCV.
_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "storage size calculation overflowed",
    "bad_alloc",
    "insufficient memory",
)
