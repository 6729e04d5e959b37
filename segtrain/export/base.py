"""The base of the file formats: how one is written, and run in its runtime."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch.export import ExportedProgram

Run = Callable[[NDArray[Any]], NDArray[Any]]
"""Runs a loaded file: images ``(N, C, H, W)``, float32, to the output of the graph."""


class Format(ABC):
    """A file format.

    Attributes:
        name: The name in commands.
        title: What it is, for messages.
        ending: The ending of its files.
        packages: The packages that writing and running it need.
        extra: The extra of segtrain that installs them.
        runtime: The package that runs its files.
        settings: What the runtime must be told for the results that were compared.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    ending: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    runtime: ClassVar[str] = "torch"
    settings: ClassVar[dict[str, Any]] = {}

    @abstractmethod
    def write(
        self, program: ExportedProgram, path: Path, output: str, *, opset: int | None
    ) -> int | None:
        """Write a traced graph.

        Args:
            program: The graph.
            path: The file; other files of the format go beside it.
            output: The name of the output.
            opset: The opset of ONNX; None: torch's default.

        Returns:
            The opset of the file, if it has one.

        Raises:
            ConfigError: When the graph cannot be written in this format.
        """

    @abstractmethod
    def load(self, path: Path, threads: int | None = None) -> Run:
        """Load a file in its runtime, on the CPU, with this number of threads."""

    def results(self, path: Path, batches: Sequence[NDArray[Any]]) -> Iterable[NDArray[Any]]:
        """Yield the output of a file for each batch, as someone else would compute it."""
        run = self.load(path)
        return (run(batch) for batch in batches)

    def files(self, path: Path) -> Iterator[Path]:
        """Yield all files of a model, the main one last."""
        yield path

    def version(self) -> str:
        """The version of the runtime."""
        return str(importlib.import_module(self.runtime).__version__)

    def missing(self) -> str | None:
        """What is missing to use the format, with the command that installs it; None: nothing."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if not absent:
            return None
        listed = " and ".join(absent)
        return f"{self.ending} files need {listed}: pip install 'segtrain[{self.extra}]'"
