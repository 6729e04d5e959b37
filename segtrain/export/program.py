"""Programs of ``torch.export``, run by torch alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from segtrain.errors import ConfigError, one_line
from segtrain.export.base import Format, Run

# A program also guards conditions that only decide how fast a layer runs, and refuses sizes for
# which they differ. It is right for these sizes, too, so nothing but the graph is run.
_RUN = """\
import sys, warnings
import numpy, torch
warnings.simplefilter("ignore")
folder, count = sys.argv[2], int(sys.argv[3])
run = torch.export.load(sys.argv[1]).module(check_guards=False)
with torch.no_grad():
    for index in range(count):
        images = torch.from_numpy(numpy.load(f"{folder}/{index}.npy", allow_pickle=False))
        numpy.save(f"{folder}/{index}.out.npy", run(images).numpy())
"""


class ProgramFormat(Format):
    """A program of ``torch.export``, which needs torch and neither segtrain nor the model's code.

    Its results are computed in a process of their own, which imports torch and NumPy only.
    """

    name = "pt2"
    title = "torch.export"
    ending = ".pt2"
    settings: ClassVar[dict[str, Any]] = {"check_guards": False}

    def write(
        self, program: ExportedProgram, path: Path, output: str, *, opset: int | None
    ) -> int | None:
        del output  # a program names its outputs itself
        if opset is not None:
            raise ConfigError(f"opset={opset} is for .onnx and .xml files; leave it out")
        torch.export.save(program, path)
        return None

    def load(self, path: Path, threads: int | None = None) -> Run:
        del threads  # torch has one number of threads for the whole process
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            module = torch.export.load(path).module(check_guards=False)

        def run(images: NDArray[Any]) -> NDArray[Any]:
            with torch.no_grad():
                return np.asarray(module(torch.from_numpy(images)))

        return run

    def results(self, path: Path, batches: Sequence[NDArray[Any]]) -> Iterable[NDArray[Any]]:
        with tempfile.TemporaryDirectory() as folder:
            for index, batch in enumerate(batches):
                np.save(Path(folder) / f"{index}.npy", batch)
            command = [sys.executable, "-c", _RUN, str(path), folder, str(len(batches))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                last = one_line((done.stderr.strip().splitlines() or ["no message"])[-1])
                raise RuntimeError(f"the program fails in a process of its own: {last}")
            for index in range(len(batches)):
                yield np.load(Path(folder) / f"{index}.out.npy")
