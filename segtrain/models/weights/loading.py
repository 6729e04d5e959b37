"""Load weights strictly: all of them, or none with an error message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segtrain.errors import CheckpointError, ConfigError
from segtrain.models.backbones.hrnet import IMAGENET_FUSION, HRNetTrunk
from segtrain.models.load_report import LoadReport
from segtrain.models.segmentor import Segmentor
from segtrain.models.weights.files import read_weights
from segtrain.models.weights.formats import WeightFile, recognise
from segtrain.models.weights.names import ModelNames
from segtrain.models.weights.order import COUNT
from segtrain.models.weights.plan import ABN, LoadPlan, plan_loading, with_absolute_norms
from segtrain.models.weights.prefixes import under_best_prefix
from segtrain.models.weights.refusal import refusal
from segtrain.models.weights.sources import IMAGENET, check_source, find_file
from segtrain.models.weights.values import check_values


class WeightsError(CheckpointError):
    """Weights do not fit a model.

    Attributes:
        report: What happened to every weight; nothing was loaded.
    """

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


class Weights:
    """Weights that were opened and recognised, but not loaded yet.

    Args:
        file: The recognised file; None for the ImageNet weights, which the model provides.
        reinit: Modules that keep their initial values.
        abn: Whether the file was trained with InPlaceABN; None if not specified.
        where: The section of the configuration with these keys; empty in library code.
    """

    def __init__(
        self, file: WeightFile | None, *, reinit: Sequence[str], abn: bool | None, where: str
    ) -> None:
        self.file = file
        self._reinit = reinit
        self._abn = abn
        self._where = where
        self._is_chosen = False  # whether the user chose align_corners

    def align_corners(self, given: bool | None) -> bool | None:
        """Return the value to build the model with: `given`, or the value of the file.

        The result is None if neither is known. Loading then raises an error if the value matters;
        it does not for a backbone alone.
        """
        self._is_chosen = given is not None
        if given is not None or self.file is None:
            return given
        return self.file.align_corners

    def _unknown_align_corners(self, file: WeightFile) -> str:
        hint = "" if file.align_corners_hint is None else f"; it is {file.align_corners_hint}"
        return (
            f"{key_of(self._where, 'align_corners')} is not set, and {file.source} ({file.kind})"
            " does not contain the value that it was trained with; set it to true or"
            f" false{hint}"
        )

    def load_into(self, model: Segmentor) -> LoadReport:
        """Load all weights into `model`, or none.

        Raises:
            WeightsError: If a weight is missing, unexpected or has another shape, or nothing would
                be loaded. The error contains the report.
            CheckpointError: If a weight is not a dense tensor of finite real numbers.
            ConfigError: If a module to reinitialise does not exist, or the file requires a key that
                is not set.
        """
        if model.has_adapter:
            raise ConfigError(
                f"{model.label} has an adapter, and weights are loaded before it is added; pass"
                " weights= and adapter= to build_model"
            )
        names = ModelNames(model)
        file = _imagenet(model) if self.file is None else under_best_prefix(self.file, names)
        key = key_of(self._where, "reinit")
        kept = names.in_modules(self._reinit, f"{key}=[{','.join(self._reinit)}]")
        plan = plan_loading(file, names, kept)
        if plan.refused or not plan.values:
            report = plan.report(file)
            raise WeightsError(refusal(file, names, plan, self._where), report)
        self._check_required_keys(file, plan)
        if self._abn:
            plan = with_absolute_norms(plan)
        check_values(plan.values, file.source, names.own)
        # The plan is strict already; it knows which weights may be missing.
        model.load_state_dict({**plan.values, **plan.counts}, strict=False)
        report = plan.report(file, notes=_notes(file, model))
        model.load_report = report
        return report

    def _check_required_keys(self, file: WeightFile, plan: LoadPlan) -> None:
        if self.file is None:  # ImageNet weights, which the model provides
            return
        if not plan.is_backbone and file.align_corners is None and not self._is_chosen:
            raise ConfigError(self._unknown_align_corners(file))
        abn = key_of(self._where, "abn")
        if self._abn and (plan.is_backbone or file.is_own):
            raise ConfigError(
                f"{abn}=true, but {file.source} ({file.kind}) has plain batch norms; remove the key"
            )
        may_be_abn = plan.lacks_counts and not plan.is_backbone and not file.is_own
        if self._abn is None and may_be_abn:
            raise ConfigError(
                f"{file.source} ({file.kind}) has batch norms without {COUNT}, as in PyTorch 0.4.1:"
                f" set {abn}=true if they are InPlaceABN, which uses {ABN} (as in every official"
                f" HRNet of 0.4.1), or {abn}=false if they are plain"
            )


def key_of(where: str, name: str) -> str:
    """The dotted key `name` in the section `where`; `name` itself if `where` is empty."""
    return f"{where}.{name}" if where else name


def _imagenet(model: Segmentor) -> WeightFile:
    return WeightFile(
        source=IMAGENET,
        kind=f"ImageNet weights for {model.label}",
        state=model.pretrained_backbone(),
        has_heads=False,
        fusion=None if _trunk(model) is None else IMAGENET_FUSION,
    )


def _trunk(model: Segmentor) -> HRNetTrunk | None:
    return next((module for module in model.modules() if isinstance(module, HRNetTrunk)), None)


def _notes(file: WeightFile, model: Segmentor) -> tuple[str, ...]:
    notes = []
    if file.align_corners not in (None, model.align_corners):
        trained, built = (str(value).lower() for value in (file.align_corners, model.align_corners))
        notes.append(f"trained with align_corners={trained}, used with {built}")
    trunk = _trunk(model)
    if trunk is not None and file.fusion not in (None, trunk.fusion):
        why = f"; fusion={file.fusion} gives the features of the file"
        if file.fusion == IMAGENET_FUSION and not file.has_heads:
            why = f", as in the published segmentation models{why}"
        notes.append(f"trained with fusion={file.fusion}, used with {trunk.fusion}{why}")
    return tuple(notes)


# ---------------------------------------------------------------------- keys and arguments


def check_weight_keys(
    weights: str | None, *, reinit: Sequence[str], abn: bool | None, where: str
) -> None:
    """Check that the keys are consistent, without opening a file.

    Raises:
        ConfigError: If `weights` is not a valid source, or another key is set without `weights`.
    """
    if weights is not None:
        check_source(weights, key_of(where, "weights"))
        return
    for name, value in (("reinit", reinit or None), ("abn", abn)):
        if value is not None:
            raise ConfigError(
                f"{key_of(where, name)} applies to loading weights, but"
                f" {key_of(where, 'weights')} is null"
            )


def open_weights(
    weights: str | None, *, reinit: Sequence[str], abn: bool | None, where: str
) -> Weights | None:
    """Open and recognise weights; return None if `weights` is None.

    Args:
        weights: A file, a run directory, ``imagenet`` or ``hf://owner/name[/file][@revision]``.
        reinit: Modules that keep their initial values: ``head``, or any submodule.
        abn: Whether the file was trained with InPlaceABN (PyTorch 0.4.1).
        where: The section of the configuration with these keys, for messages.

    Raises:
        ConfigError: If the keys contradict each other.
        CheckpointError: If the file is missing, damaged or does not contain weights.
        ResourceError: If the hub cannot be reached and its cache does not contain the file.
    """
    check_weight_keys(weights, reinit=reinit, abn=abn, where=where)
    if weights is None:
        return None
    if weights == IMAGENET:
        if abn is not None:
            raise ConfigError(f"{key_of(where, 'abn')}: ImageNet weights have plain batch norms")
        return Weights(None, reinit=reinit, abn=abn, where=where)
    path = find_file(weights, key_of(where, "weights"))
    return Weights(recognise(read_weights(path), weights), reinit=reinit, abn=abn, where=where)


def load_weights(
    model: Segmentor,
    weights: str | Path,
    *,
    reinit: Sequence[str] = (),
    abn: bool | None = None,
    align_corners: bool | None = None,
) -> LoadReport:
    """Load weights into a model: all of them, or none.

    Args:
        model: Any segmentor.
        weights: A file, a run directory, ``imagenet`` or ``hf://owner/name[/file][@revision]``.
        reinit: Modules that keep their initial values: ``head``, or any submodule, such as
            ``stage4``.
        abn: Whether the file was trained with InPlaceABN (PyTorch 0.4.1), whose batch norms use
            ``|weight| + 1e-5``; only needed for files that may be.
        align_corners: The value that the file was trained with, if the file does not contain it.
            The model must have been built with the same value.

    Returns:
        What happened to every weight.

    Raises:
        ConfigError: If an argument does not fit the model or the file.
        CheckpointError: If the file cannot be read or does not fit the model.
        ResourceError: If the weights have to be downloaded and cannot be.

    Example:
        >>> import tempfile, torch
        >>> from segtrain.models import MODELS
        >>> model = MODELS.build("hrnet_w18_small_v1", num_classes=3)
        >>> file = Path(tempfile.mkdtemp()) / "trunk.pth"
        >>> heads = ("last_layer.",)
        >>> state = {k: v for k, v in model.state_dict().items() if not k.startswith(heads)}
        >>> torch.save(state, file)
        >>> report = load_weights(model, file)
        >>> report.kind, len(report.loaded), len(report.new)
        ('trunk of an HRNet (hrnet_w18_small_v1)', 426, 9)
    """
    if align_corners is not None and align_corners != model.align_corners:
        raise ConfigError(
            f"align_corners={align_corners}, but the model was built with"
            f" align_corners={model.align_corners}; build it with the same value"
        )
    opened = open_weights(str(weights), reinit=reinit, abn=abn, where="")
    assert opened is not None
    # True is not a default, so it was chosen when the model was built.
    opened.align_corners(
        align_corners if align_corners is not None else model.align_corners or None
    )
    return opened.load_into(model)
