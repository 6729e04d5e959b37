"""Write a model, compare it with the checkpoint through its runtime, and only then keep it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.data import EvalTransform, LabelContract
from segtrain.data.io.missing import fill_missing
from segtrain.data.transforms.tensors import unit_range
from segtrain.engine.checkpoint import State, find_checkpoint, load_checkpoint
from segtrain.errors import NumericError
from segtrain.export.base import Format
from segtrain.export.contract import compared, describe, provenance, write_contract
from segtrain.export.graph import Graph, GraphOptions, Normalization, trace
from segtrain.export.verify import LEAST_AGREEMENT, Agreement, Batch, probes, verify
from segtrain.inference import Predictor
from segtrain.models.adapters import ADAPTERS


@dataclass(frozen=True)
class Trained:
    """A trained model with what its checkpoint says about it.

    Attributes:
        path: The file of the checkpoint.
        state: Its content.
        predictor: The model with its labels, its reader, and the size that images are resized to.
    """

    path: Path
    state: State
    predictor: Predictor

    @classmethod
    def load(cls, checkpoint: str | Path, size: tuple[int, int] | None = None) -> Trained:
        """Load a checkpoint on the CPU, with adapters merged into the weights of the backbone.

        Args:
            checkpoint: A file, or a run directory (its ``checkpoints/best.pt``).
            size: Height and width that images are resized to, in place of those of the training.

        Raises:
            CheckpointError: When the checkpoint does not exist or cannot be used.
        """
        path = find_checkpoint(checkpoint)
        state = _without_adapter(load_checkpoint(path))
        return cls(path, state, Predictor.from_state(state, path, device="cpu", size=size))

    @property
    def labels(self) -> LabelContract:
        """The label contract of the training."""
        return self.predictor.labels

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that images are resized to; None: they keep their size."""
        return self.predictor.size

    def graph(self, options: GraphOptions) -> Graph:
        """Return the graph to export."""
        metadata = self.state["metadata"]
        normalization = Normalization(metadata["mean"], metadata["std"])
        multi_label = self.labels.multi_label
        return Graph(
            self.predictor.model,
            normalization,
            options,
            multi_label=multi_label,
            thresholds=self.predictor.thresholds,
        )

    def batch(self, image: NDArray[Any]) -> Batch:
        """Return an image as a batch of one.

        Shape:
            - image: ``(H, W, C)``, uint8, or float32 from 0 to 1.
        """
        metadata = self.state["metadata"]
        mean, std = metadata["mean"], metadata["std"]
        none = np.zeros(image.shape[:2], np.uint8)
        filled = fill_missing(image, mean)
        transform = EvalTransform(mean, std, self.labels, self.size)
        images = transform(filled, none)[0][None]
        return Batch(unit_range(images), transform.normalization(images))


def _without_adapter(state: State) -> State:
    """The checkpoint of a model without an adapter that computes the same."""
    spec = state["metadata"]["model"]
    if spec.get("adapter") is None:
        return state
    adapter = ADAPTERS.build(spec["adapter"], where="adapter of the checkpoint")
    metadata = {**state["metadata"], "model": {**spec, "adapter": None}}
    merged = {key: adapter.merged(state[key]) for key in ("model", "ema") if state.get(key)}
    return {**state, **merged, "metadata": metadata}


@dataclass(frozen=True)
class Exported:
    """The result of :func:`export_model`.

    Attributes:
        path: The file.
        contract: The JSON beside it.
        agreement: How far the file agrees with the model.
    """

    path: Path
    contract: Path
    agreement: Agreement


def export_model(
    trained: Trained,
    output: Path,
    written: Format,
    options: GraphOptions,
    images: Sequence[tuple[str, NDArray[Any]]],
    *,
    dynamic: bool = True,
    opset: int | None = None,
) -> Exported:
    """Write a model and the JSON beside it, if its labels are those of the checkpoint's model.

    The file is written into a temporary folder, run in its runtime on `images` and compared with
    the model in float32. It takes its place only if at least `LEAST_AGREEMENT` of the labels agree.
    If the output is class ids, the logits are those of a second file of the same graph before the
    ids, which is deleted.

    Args:
        trained: The model.
        output: The file.
        written: Its format.
        options: What is part of the graph.
        images: Names and pixels of images, ``(H, W, C)``, uint8, or float32 from 0 to 1.
        dynamic: Whether batch, height and width may vary; otherwise all images have the size of
            `trained`.
        opset: The opset of ONNX; None: torch's default.

    Raises:
        ConfigError: When the model cannot be exported in this way.
        NumericError: When the results differ; nothing is written.
    """
    batches = [trained.batch(image) for _, image in images]
    size = (batches[0].shape[1], batches[0].shape[2])
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        graph = trained.graph(options)
        file = Path(folder) / output.name
        found = written.write(
            trace(graph, size, dynamic=dynamic), file, options.output, opset=opset
        )
        logits_file = file
        if options.argmax:
            logits_file = Path(folder) / f"logits{output.suffix}"
            before = trained.graph(options.with_logits())
            program = trace(before, size, dynamic=dynamic)
            written.write(program, logits_file, before.options.output, opset=opset)
        agreement = verify(graph, written, file, logits_file, probes(batches, dynamic=dynamic))
        if not agreement.is_enough:
            raise NumericError(
                f"{output} is not written, because {written.runtime} does not compute what the"
                f" model does: {agreement}; the labels must agree by {LEAST_AGREEMENT:.2%}. Try"
                f" another format{' or dynamic=false size=[HEIGHT,WIDTH]' if dynamic else ''}"
            )
        content = {
            **describe(graph, written, labels=trained.labels, size=trained.size, dynamic=dynamic),
            **provenance(written, list(written.files(file)), found, trained.state, trained.path),
            **compared(agreement, [name for name, _ in images]),
        }
        contract = output.with_name(f"{output.name}.json")
        contract.unlink(missing_ok=True)  # it must never stand beside another model
        for part in written.files(file):
            part.replace(output.with_name(part.name))
    write_contract(contract, content)
    return Exported(output, contract, agreement)
