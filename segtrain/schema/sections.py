"""The sections of the configuration: their keys, defaults and meaning.

Sections that choose a registered part (`model`, `loss`, `mining`, `dataset`, `optimizer`,
`scheduler`) are mappings with a ``name``. Their other keys are the parameters of that part, which
:func:`segtrain.assembly.check.check_config` checks against its signature.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from segtrain.errors import ConfigError
from segtrain.schema.ranges import Range, check_ranges
from segtrain.schema.values import build_dataclass

Spec = dict[str, Any]
Pair = tuple[float, float]

AUTO = "auto"
SWEEP = "sweep"
WEIGHT_METHODS = ("inverse_frequency", "median_frequency", "inverse_log", "effective_number")
"""Methods that compute class weights from the data; `class_weights` also takes ``auto``."""

WINDOW_MULTIPLE = 32
"""Windows start at multiples of so many pixels, and so do their logits in any model."""

Precision = Literal["fp32", "bf16", "fp16"]

Output = Literal[
    "ids", "color", "overlay", "probabilities", "uncertainty", "labels", "geojson", "coco"
]
"""The kinds of files that ``segtrain predict`` writes."""


DEFAULT_METRICS = ("iou", "dice", "precision", "recall", "accuracy", "fw_iou")
"""Metrics that follow from the counts of the confusion matrix, so that they cost nothing."""


def _positive(name: str, value: float | None, *, zero: bool = False) -> None:
    Range(0, open_low=not zero).check(name, value)


def _check_size(size: tuple[int, int] | None) -> None:
    if size is not None and min(size) < 1:
        raise ConfigError(f"size must be at least [1, 1], got {list(size)}")


@dataclass(frozen=True, kw_only=True)
class CriterionConfig:
    """How the losses of the model's outputs are computed and added."""

    output_weights: dict[str, float | Literal["learned"]] | Literal["learned"] | None = None
    """Weight per output; null: 1 for ``out``, 0.4 for the others; ``learned``: trained weights."""
    output_losses: dict[str, str | Spec] | None = None
    """Loss per output, in place of `loss`: a name, or a mapping with name and parameters."""
    output_targets: dict[str, str | Spec | None] | None = None
    """Target per output, such as ``boundary``; null: the class ids."""
    strip_rows: int | Literal["auto"] | None = "auto"
    """Rows of the target per strip of upsampled logits; null: no strips."""

    def __post_init__(self) -> None:
        if isinstance(self.output_weights, dict):
            for name, weight in self.output_weights.items():
                if not isinstance(weight, str):
                    _positive(f"output_weights.{name}", weight, zero=True)


_RESCALE = (
    "; it is for pixels from 0 to 1: divide numbers for raw pixels by the largest value of a pixel,"
    " such as 255"
)
MEAN_RANGE = Range(high=1, hint=_RESCALE)
STD_RANGE = Range(0, 1, open_low=True, hint=_RESCALE)


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """The augmentation of training images, and the normalisation, which evaluation shares.

    :class:`~segtrain.data.transforms.training.TrainTransform` applies every key to each sample but
    `mix` and `mix_prob`, which :class:`~segtrain.data.transforms.mixing.Mixing` applies to batches.
    """

    scale: Annotated[Pair, Range(0, open_low=True)] = (0.5, 2.0)
    """Range of the factor by which image and target are resized; [1, 1] turns it off."""
    crop_size: Annotated[tuple[int, int] | None, Range(1)] = None
    """Height and width of training images, smaller ones padded with ignored pixels; null: as is."""
    cat_max_ratio: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    """Draw another crop, up to ten times, when a class fills more than this share of its valid
    pixels; 1 accepts any crop."""
    flip: Annotated[float, Range(0, 1)] = 0.5
    """Probability that left and right change places; the classes of `dataset.flip_pairs` do too."""
    vertical_flip: Annotated[float, Range(0, 1)] = 0.0
    """Probability that top and bottom change places; likewise."""
    rotate: Annotated[float, Range(0, 180)] = 0.0
    """Largest angle of a rotation about the middle of the crop, in degrees."""
    brightness: Annotated[float, Range(0)] = 0.0
    """Largest relative change of the brightness."""
    contrast: Annotated[float, Range(0)] = 0.0
    """Largest relative change of the contrast."""
    saturation: Annotated[float, Range(0)] = 0.0
    """Largest relative change of the saturation; for RGB images."""
    hue: Annotated[float, Range(0, 0.5)] = 0.0
    """Largest shift of the hue, as a fraction of the colour circle; for RGB images."""
    transforms: tuple[Spec, ...] = ()
    """Transforms of albumentations, applied last, each a mapping with ``name`` and parameters."""
    mix: Literal["cutmix", "classmix"] | None = None
    """What is pasted from one sample of a batch into another: a box, or the pixels of classes."""
    mix_prob: Annotated[float, Range(0, 1)] = 0.5
    """Probability that a sample is mixed."""
    mean: Annotated[tuple[float, ...] | None, MEAN_RANGE] = None
    """Mean of each channel, for pixels from 0 to 1; null: that of ImageNet, for RGB images."""
    std: Annotated[tuple[float, ...] | None, STD_RANGE] = None
    """Standard deviation of each channel; likewise."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.scale[0] > self.scale[1]:
            raise ConfigError(f"scale must have the smaller number first, got {list(self.scale)}")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Budget, batch and precision of a training run."""

    epochs: int | None = None
    """Passes over the training split; used when `max_steps` is null."""
    max_steps: int | None = None
    """Optimizer steps; takes precedence over `epochs`."""
    stop_after: int | None = None
    """Save a checkpoint and stop at this step; the schedule keeps its full length."""
    batch_size: int = 8
    """Images per process and forward pass."""
    accumulate: int = 1
    """Forward passes per optimizer step."""
    precision: Precision = "fp32"
    clip_grad_norm: float | None = None
    """Maximum norm of all gradients together; null: no clipping."""
    clip_grad_value: float | None = None
    """Maximum absolute value of a gradient, applied before `clip_grad_norm`; null: no clipping."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What happens at a step whose loss or gradient is not finite: the run ends, or the step leaves
    the weights as they are. More than 25 such steps in a row end the run anyway."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that are not trained: ``backbone``, ``head``, names of modules or patterns
    of them. Their batch norms keep their statistics."""
    thaw_at: int | None = None
    """The step from which frozen parts are trained; null: never."""
    ema_decay: float | None = None
    """Largest decay of the moving average of the weights, which is scored and saved; null: none.

    The decay of step t is at most (1 + t) / (10 + t), so that short runs average fewer steps."""
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    """Use deterministic algorithms on a GPU, which may be slower; a CPU needs no such choice."""
    overfit: bool = False
    """Train on the batches of the first step only, to see whether the loss approaches zero."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several processes train the model: ``ddp``, each has a copy; ``fsdp``, each holds a part
    of the weights, gradients and moments. No effect with one process."""
    sync_batchnorm: bool = True
    """Synchronise batch norm over all processes; no effect with one process."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, ...; ``auto``: a GPU if available."""
    evaluate_every: int | None = None
    """Steps between evaluations; null: once per epoch, but at most 20 times in a run. The last step
    is always evaluated."""
    best: str = "mIoU"
    """The score that decides which weights are the best: a metric of `evaluation.metrics`, or its
    value for a class, such as ``iou[pole]``."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; null: with every evaluation."""
    keep_every: int | None = None
    """Steps between checkpoints that are kept for good, as ``step_N.pt``; null: none."""
    timeout: float = 10.0
    """Minutes without progress after which a run ends; a process or a data worker hangs then."""
    checkpoint_minutes: float = 10.0
    """Save a checkpoint after a step when the last one is older than this many minutes."""
    log_every: int = 10
    """Steps between lines of ``metrics.jsonl``."""
    log_images: int = 4
    """Validation images that each evaluation draws with target and prediction."""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "max_steps",
            "stop_after",
            "batch_size",
            "accumulate",
            "clip_grad_norm",
            "clip_grad_value",
            "thaw_at",
            "evaluate_every",
        ):
            _positive(name, getattr(self, name))
        _positive("checkpoint_every", self.checkpoint_every)
        _positive("checkpoint_minutes", self.checkpoint_minutes)
        _positive("timeout", self.timeout)
        _positive("keep_every", self.keep_every)
        _positive("log_every", self.log_every)
        _positive("log_images", self.log_images, zero=True)
        if self.epochs is None and self.max_steps is None:
            raise ConfigError("epochs and max_steps are both null; set one of them")
        if self.thaw_at is not None and not self.freeze:
            raise ConfigError("thaw_at has no effect without freeze; set freeze=[backbone] as well")
        if self.thaw_at is not None and self.parallel == "fsdp":
            raise ConfigError("thaw_at needs parallel=ddp: FSDP cannot change what is trained")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(f"ema_decay must be between 0 and 1, got {self.ema_decay}")


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How images are read."""

    num_workers: int = 2
    """Worker processes that load and augment, without effect on the batches; 0: none."""
    prefetch_factor: int | None = None
    """Batches that each worker loads in advance; null: 2."""
    cache: Literal["none", "compressed", "decoded"] = "none"
    """Keep in memory: nothing, the bytes of the files, or images and targets as arrays."""
    sampling: Literal["uniform", "rare_class"] = "uniform"
    """Images of an epoch: each one once, or images with rare classes more often."""
    rare_class_temperature: float = 0.01
    """For `rare_class`: lower values prefer rarer classes."""

    def __post_init__(self) -> None:
        _positive("num_workers", self.num_workers, zero=True)
        _positive("prefetch_factor", self.prefetch_factor)
        _positive("rare_class_temperature", self.rare_class_temperature)


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What of an image a model sees: the whole or windows, at several scales, flipped."""

    window: tuple[int, int] | None = None
    """Height and width of sliding windows, multiples of 32, at least 64; null: the whole image."""
    stride: tuple[int, int] | None = None
    """Distance of the windows, multiples of 32; null: half a window."""
    blend: Literal["gaussian", "uniform"] = "gaussian"
    """Weights of the windows that cover a pixel: larger at the centre of a window, or equal."""
    scales: Annotated[tuple[float, ...], Range(0.1, 10)] = (1.0,)
    """Sizes at which the model sees an image, relative to `size`; probabilities are averaged."""
    flip: bool = False
    """Whether the model also sees the image flipped from left to right; likewise."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.scales:
            raise ConfigError("scales is empty; [1.0] is the image as it is")
        for name, values in (("window", self.window), ("stride", self.stride)):
            if values is not None and any(v < 1 or v % WINDOW_MULTIPLE for v in values):
                raise ConfigError(
                    f"{name} must be multiples of {WINDOW_MULTIPLE} above 0, such as"
                    f" {[_rounded_up(value) for value in values]}, got {list(values)}"
                )
        if self.window is not None and min(self.window) < 2 * WINDOW_MULTIPLE:
            # With fewer pixels, the output stride of a model cannot be told from its logits.
            raise ConfigError(
                f"window must be at least {2 * WINDOW_MULTIPLE}, got {list(self.window)}"
            )
        if self.stride is not None:
            if self.window is None:
                raise ConfigError("stride is the distance of windows; set window as well")
            if any(s > w for s, w in zip(self.stride, self.window, strict=True)):
                raise ConfigError(
                    f"stride {list(self.stride)} is larger than window {list(self.window)}, so"
                    " pixels between the windows would have no class"
                )

    @property
    def distance(self) -> tuple[int, int]:
        """The distance of the windows."""
        assert self.window is not None
        if self.stride is not None:
            return self.stride
        down, across = (max(v // 2 // WINDOW_MULTIPLE, 1) * WINDOW_MULTIPLE for v in self.window)
        return down, across

    @property
    def is_plain(self) -> bool:
        """Whether the model sees each image once and whole."""
        return self.window is None and self.scales == (1.0,) and not self.flip


def _rounded_up(value: int) -> int:
    return max(-(-value // WINDOW_MULTIPLE), 1) * WINDOW_MULTIPLE


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(ViewConfig):
    """How validation images are fed to the model, and what is scored."""

    batch_size: int = 1
    """Images per forward pass; images of different sizes are never combined."""
    size: tuple[int, int] | None = None
    """Height and width that images are resized to, masks not; null: no resizing."""
    metrics: tuple[str | Spec, ...] = DEFAULT_METRICS
    """The metrics: names, or mappings with a name and parameters."""
    classes: tuple[str, ...] | None = None
    """Names of the classes that count in the mean of a metric; null: all."""
    max_images: int | None = None
    """Score only the first images of the split; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive("max_images", self.max_images)
        _positive("batch_size", self.batch_size)
        _check_size(self.size)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A training run."""

    dataset: Spec
    model: Spec
    loss: Spec
    optimizer: Spec
    scheduler: Spec
    trainer: TrainerConfig
    mining: Spec = field(default_factory=lambda: {"name": "none"})
    criterion: CriterionConfig = CriterionConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    loader: LoaderConfig = LoaderConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    name: str | None = None
    """Name of the run; null: ``<dataset>_<model>_<loss>``."""
    seed: int = 0
    run_dir: str | None = None
    """The run directory; null: ``outputs/<name>/<time>``."""
    resume: str | None = None
    """A checkpoint to resume; ``auto``: ``checkpoints/last.pt`` in `run_dir` if it exists."""
    hooks: tuple[str | Spec, ...] = ()
    """Hooks that watch the run: names, or mappings with a name and parameters."""
    resume_allow: tuple[str, ...] = ()
    """Sections and keys that may differ from those of the checkpoint, such as ``loss``."""
    plugins: list[str] = field(default_factory=list)
    """Python files or modules that register losses, models or datasets."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed must be from 0 to {2**32 - 1}, got {self.seed}")
        if self.augmentation.mix is not None and self.trainer.batch_size < 2:
            raise ConfigError(
                f"augmentation.mix={self.augmentation.mix} pastes parts of one sample into another"
                f" and needs trainer.batch_size of at least 2, got {self.trainer.batch_size}"
            )
        if self.resume == "auto" and self.run_dir is None:
            raise ConfigError("resume=auto needs run_dir=..., the directory of the run to resume")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain lists and dicts, as in checkpoints and ``config.yaml``."""
        plain: dict[str, Any] = _tuples_to_lists(asdict(self))
        return plain


def _tuples_to_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples_to_lists(item) for key, item in value.items()}
    return [_tuples_to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """One evaluation of a checkpoint."""

    checkpoint: str
    """A file, or a run directory (its ``checkpoints/best.pt``)."""
    dataset: Spec | None = None
    """Null: the dataset of the training; a mapping without a name changes some of its keys."""
    split: str = "val"
    evaluation: Spec | None = None
    """Keys of :class:`EvaluationConfig`; the others are as in training."""
    class_map: dict[str, str | None] | None = None
    """The scored name of a class of the model or the dataset; null: pixels of it are ignored. The
    other classes keep their names. Without a map both must have the same classes."""
    thresholds: float | tuple[float, ...] | Literal["sweep"] | None = None
    """For one logit and multi-label data: the probability above which a class is predicted, one or
    one per class; null: those in the checkpoint, else 0.5; sweep: choose them on the val split."""
    list_images: int = 5
    """The number of the worst and of the best images that are listed; 0: none."""
    loader: LoaderConfig = LoaderConfig()
    precision: Precision | None = None
    """Precision of the model; null: as in training."""
    device: str = "auto"
    output: str | None = None
    """A JSON file to write the scores to."""
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.loader.cache, self.loader.sampling) != ("none", "uniform"):
            raise ConfigError(
                "loader.cache and loader.sampling are for training; an evaluation reads every"
                " sample once, so leave them out"
            )
        _positive("list_images", self.list_images, zero=True)
        if self.thresholds == SWEEP:
            self._check_sweep()
        elif self.thresholds is not None:
            given = self.thresholds if isinstance(self.thresholds, tuple) else [self.thresholds]
            for value in given:
                if not 0 < float(value) < 1:
                    raise ConfigError(f"thresholds must be between 0 and 1, got {value}")

    def _check_sweep(self) -> None:
        if self.split != "val":
            raise ConfigError(
                f"thresholds=sweep with split={self.split} would fit the thresholds to the split"
                " that is scored or was trained on; choose them with split=val, which stores them"
                " in the checkpoint, and then score this split without thresholds="
            )
        if self.class_map is not None:
            raise ConfigError(
                "thresholds=sweep chooses the thresholds of the model's own classes; leave out"
                " class_map"
            )


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare runs over their seeds."""

    directories: tuple[str, ...]
    """Run directories, sweep directories, or folders of them."""
    metric: str = "iou"
    """The score: a metric that the runs computed, or its value for a class: ``iou[pole]``."""
    baseline: str | None = None
    """Keys and values of the baseline, such as ``loss=cross_entropy``; null: ``cross_entropy`` if a
    group has it, else the first value of the first swept key."""
    output: str | None = None
    """The folder to write to; null: the sweep, or a new folder in ``outputs/comparisons``."""
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.directories:
            raise ConfigError("compare needs run or sweep directories, as in outputs/sweeps/NAME")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Predict masks for images, volumes and videos."""

    checkpoint: str
    """A file, or a run directory (its ``checkpoints/best.pt``)."""
    input: str
    """An image, a NIfTI volume or a video; a folder, which is searched with its subfolders; a glob,
    in which ``**`` matches any number of folders; or a ``.txt`` file with one path per line."""
    output: str
    """The folder to write to; each of `outputs` has a folder in it."""
    outputs: list[Output] = field(default_factory=lambda: ["ids", "color", "overlay"])
    """What is written for each image. `docs/predict.md` describes the files."""
    probabilities_format: Literal["float16", "uint8"] = "float16"
    """``float16``: ``.npy`` files (classes, height, width); ``uint8``: TIFF files with a band per
    class, in which 255 means 1."""
    min_area: Annotated[int, Range(1)] = 1
    """The smallest region in `geojson` and `coco`, in pixels."""
    valid: str | None = None
    """A directory or a glob of files that are not 0 at the pixels of an image that count; they pair
    with the images by name. The other pixels get the ignore label. null: all pixels count."""
    size: tuple[int, int] | None = None
    """Height and width that images are resized to; null: as in training. Images that are read in
    windows are not resized."""
    evaluation: Spec | None = None
    """Keys of :class:`ViewConfig`: windows, scales and flips; the others are as in training."""
    device: str = "auto"
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_size(self.size)
        check_ranges(self)
        if not self.outputs:
            raise ConfigError("outputs must name at least one kind of file, as in [ids]")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export a trained model for another runtime."""

    checkpoint: str
    """A file, or a run directory (its ``checkpoints/best.pt``)."""
    output: str
    """The file to write; its ending chooses the format: ``.onnx``, ``.pt2`` or ``.xml``."""
    normalize: bool = True
    """Whether the input is pixels from 0 to 1, and mean and deviation are part of the graph."""
    upsample: bool = True
    """Whether the output has the height and width of the input."""
    argmax: bool = True
    """Whether the output is class ids instead of logits."""
    images: str | None = None
    """A folder or a glob of images to compare on; null: the validation split of the training."""
    num_images: int = 8
    """How many of them are compared, at equal distances."""
    opset: int | None = None
    """The opset of ONNX; null: torch's default."""
    dynamic: bool = True
    """Whether batch, height and width may vary; false: one image of `size`."""
    size: tuple[int, int] | None = None
    """Height and width that images are resized to for the model; null: as in training."""
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_size(self.size)
        _positive("num_images", self.num_images)
        if self.opset is not None:
            _positive("opset", self.opset)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Time a trained model in several formats."""

    checkpoint: str
    """A file, or a run directory (its ``checkpoints/best.pt``)."""
    formats: tuple[Literal["torch", "onnx", "pt2", "openvino"], ...] = (
        "torch",
        "onnx",
        "pt2",
        "openvino",
    )
    """The formats; those whose packages are missing are left out."""
    size: tuple[int, int] | None = None
    """Height and width of the images; null: those of the training, or 512 x 512."""
    batch_sizes: tuple[int, ...] = (1, 4)
    """Images per call."""
    repetitions: int = 20
    """Timed calls of each format with each batch size."""
    threads: int | None = None
    """Threads of each runtime; null: torch's default."""
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_size(self.size)
        _positive("repetitions", self.repetitions)
        for name, values in (("batch_sizes", self.batch_sizes), ("formats", self.formats)):
            if not values:
                raise ConfigError(f"{name} must name at least one")
        for number in self.batch_sizes:
            _positive("batch_sizes", number)
        if self.threads is not None:
            _positive("threads", self.threads)


@dataclass(frozen=True, kw_only=True)
class ShardsConfig:
    """Write one split of a dataset as tar shards."""

    dataset: Spec
    output: str
    """The directory to write to."""
    split: str = "train"
    """The split; the names of the shards start with it."""
    samples_per_shard: int = 1000
    max_shard_gb: float = 1.0
    """Maximum size of the files in a shard, in 1e9 bytes."""
    shuffle: bool = True
    """Whether to write the samples in a random order, which depends on `seed` alone."""
    seed: int = 0
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _positive("samples_per_shard", self.samples_per_shard)
        _positive("max_shard_gb", self.max_shard_gb)
        _positive("seed", self.seed, zero=True)


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Inspect a whole dataset."""

    dataset: Spec
    augmentation: AugmentationConfig = AugmentationConfig()
    """The augmentation that the sheet of augmented samples shows."""
    output: str | None = None
    """The directory to write to; null: ``outputs/inspect/<title of the dataset>``."""
    decode: bool = True
    """Whether to decode the images; false: read only their headers, which is faster."""
    num_examples: int = 12
    """Samples that the report shows."""
    class_weights: Literal[
        "auto", "inverse_frequency", "median_frequency", "inverse_log", "effective_number"
    ] = "auto"
    """Method that computes the weights in ``class_weights.json``."""
    augment: bool = False
    """Whether to write the sheet of augmented samples."""
    num_augmented: int = 8
    """Samples on the sheet."""
    num_epochs: int = 5
    """Epochs that the sheet shows of each sample."""
    seed: int = 0
    """Seed of the run whose augmentation the sheet shows."""
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("num_examples", "num_augmented", "seed"):
            _positive(name, getattr(self, name), zero=True)
        _positive("num_epochs", self.num_epochs)


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Import weights; model, classes and normalization are configured as for a training run."""

    weights: str
    """A file, a run directory, or ``hf://owner/name[/file][@revision]``."""
    output: str
    """The checkpoint to write."""

    def __post_init__(self) -> None:
        if Path(self.output).suffix != ".pt":
            raise ConfigError(f"output={self.output} must end in .pt")
        if Path(self.output).absolute() == Path(self.weights).absolute():
            raise ConfigError(
                f"output={self.output} is also the input, weights=; choose another file"
            )


def parse_config(given: dict[str, Any]) -> Config:
    """Build a :class:`Config` from nested plain values.

    Raises:
        ConfigError: When a key is unknown or a value has the wrong type.
    """
    return build_dataclass(Config, given)
