"""ONNX files, run in ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from segtrain.errors import ConfigError, describe_error
from segtrain.export.base import Format, Run
from segtrain.export.graph import AXES, INPUT

_LARGEST = 2**31 - 2**24
"""Most bytes of weights in one file of ONNX, with room for the graph: protobuf ends at 2 GiB."""


class OnnxFormat(Format):
    """A file of ONNX with all weights inside."""

    name = "onnx"
    title = "ONNX"
    ending = ".onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"
    runtime = "onnxruntime"

    def write(
        self, program: ExportedProgram, path: Path, output: str, *, opset: int | None
    ) -> int | None:
        size = sum(weight.nbytes for weight in program.state_dict.values())
        if size > _LARGEST:
            raise ConfigError(
                f"the model has {size / 1e9:.1f} GB of weights, and a file of ONNX holds at most 2"
                " GB; choose output=NAME.pt2 or NAME.xml"
            )
        return write_onnx(program, path, output, opset=opset)

    def load(self, path: Path, threads: int | None = None) -> Run:
        import onnxruntime  # noqa: PLC0415  an extra

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, too
        options.intra_op_num_threads = threads or 0
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

        def run(images: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(session.run(None, {INPUT: images})[0])

        return run


def write_onnx(
    program: ExportedProgram, path: Path, output: str, *, opset: int | None, external: bool = False
) -> int:
    """Write a traced graph as ONNX and return its opset.

    Args:
        program: The graph.
        path: The file.
        output: The name of the output.
        opset: The opset; None: torch's default.
        external: Whether the weights go into a file of their own beside it.

    Raises:
        ConfigError: When torch cannot convert the graph.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            converted = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[output],
                opset_version=opset,
                dynamic_shapes={INPUT: AXES} if program.range_constraints else None,
            )
        assert converted is not None
        converted.save(path, external_data=external)
    except Exception as error:  # torch, onnxscript and onnx raise their own kinds
        chosen = "" if opset is None else f" with opset={opset}"
        raise ConfigError(
            f"the model cannot be converted to ONNX{chosen}: {describe_error(error)}"
        ) from error
    return int(converted.model.opset_imports[""])
