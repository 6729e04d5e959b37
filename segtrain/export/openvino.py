"""Files of OpenVINO, run in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch.export import ExportedProgram

from segtrain.errors import ConfigError, describe_error
from segtrain.export.base import Format, Run
from segtrain.export.onnx import write_onnx


class OpenVinoFormat(Format):
    """An intermediate representation of OpenVINO: a graph in ``.xml``, weights in ``.bin``.

    OpenVINO computes in 16 bits where the processor has instructions for it, and stores weights in
    16 bits, unless it is told otherwise. Here it is told both.
    """

    name = "openvino"
    title = "OpenVINO"
    ending = ".xml"
    packages = ("openvino", "onnx", "onnxscript")
    extra = "openvino"
    runtime = "openvino"
    settings: ClassVar[dict[str, Any]] = {"INFERENCE_PRECISION_HINT": "f32"}

    def write(
        self, program: ExportedProgram, path: Path, output: str, *, opset: int | None
    ) -> int | None:
        import openvino  # noqa: PLC0415  an extra

        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.onnx"
            found = write_onnx(program, source, output, opset=opset, external=True)
            try:
                model = openvino.convert_model(source)
                openvino.save_model(model, path, compress_to_fp16=False)
            except Exception as error:  # OpenVINO raises its own kinds
                raise ConfigError(
                    f"OpenVINO cannot convert the model: {describe_error(error)}"
                ) from error
        return found

    def load(self, path: Path, threads: int | None = None) -> Run:
        import openvino  # noqa: PLC0415  an extra

        limit = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
        model = openvino.Core().compile_model(path, "CPU", {**self.settings, **limit})

        def run(images: NDArray[Any]) -> NDArray[Any]:
            return np.array(model(images)[0])

        return run

    def files(self, path: Path) -> Iterator[Path]:
        yield path.with_suffix(".bin")
        yield path
