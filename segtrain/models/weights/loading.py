"""Loading weights strictly: all of them, or none and one sentence why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from segtrain.errors import CheckpointError, ConfigError
from segtrain.models.load_report import LoadReport
from segtrain.models.segmentor import Segmentor
from segtrain.models.weights.files import read_weights
from segtrain.models.weights.formats import WeightFile, recognise
from segtrain.models.weights.names import ModelNames
from segtrain.models.weights.plan import ABN, COUNT, LoadPlan, plan_loading, with_absolute_norms
from segtrain.models.weights.refusal import refusal
from segtrain.models.weights.sources import IMAGENET, check_source, find_file


class WeightsError(CheckpointError):
    """Weights do not fit a model.

    Attributes:
        report: What would have become of every weight.
    """

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


class Weights:
    """Weights that were opened and recognised, not yet loaded.

    Args:
        file: What was recognised; None for the ImageNet weights that the model itself knows of.
        reinit: Modules that keep their first values.
        abn: Whether the file is one of InPlaceABN; None where nobody said.
        where: The section of the configuration that holds these keys; empty in library code.
    """

    def __init__(
        self, file: WeightFile | None, *, reinit: Sequence[str], abn: bool | None, where: str
    ) -> None:
        self.file = file
        self._reinit = reinit
        self._abn = abn
        self._where = where
        self._is_asked = False  # whether the user chose align_corners

    def align_corners(self, given: bool | None) -> bool | None:
        """What the model is to be built with: `given`, or what the file was trained with.

        None where neither is known. Whether it has to be asked for shows when the weights are
        loaded: those of a backbone alone, or of another model, need no answer.
        """
        self._is_asked = given is not None
        if given is not None or self.file is None:
            return given
        return self.file.align_corners

    def _ask(self, file: WeightFile) -> str:
        hint = "" if file.align_corners_hint is None else f"; it is {file.align_corners_hint}"
        return (
            f"{key_of(self._where, 'align_corners')} is not set, and {file.source} ({file.kind})"
            f" cannot tell with which it was trained; set it to true or false{hint}"
        )

    def load_into(self, model: Segmentor) -> LoadReport:
        """Loads every weight into `model`, or none.

        Raises:
            WeightsError: When a weight is missing, unexpected or has another shape, or nothing
                would be loaded; it holds the report.
            CheckpointError: When a weight is no plain tensor or not finite.
            ConfigError: When a module to reinitialise does not exist, or something must be given
                that the file cannot tell.
        """
        file = self.file or _imagenet(model)
        names = ModelNames(model)
        key = key_of(self._where, "reinit")
        kept = names.reinitialised(self._reinit, f"{key}=[{','.join(self._reinit)}]")
        plan = plan_loading(file, names, kept)
        if plan.refused or not plan.values:
            report = plan.report(file)
            raise WeightsError(refusal(file, names, plan, self._where), report)
        self._check_given(file, plan)
        if self._abn:
            plan = with_absolute_norms(plan)
        _check_values(file, plan.values)
        # Strictness is in the plan, which knows what may be missing.
        model.load_state_dict({**plan.values, **plan.counts}, strict=False)
        report = plan.report(file, notes=_notes(file, model))
        model.load_report = report
        return report

    def _check_given(self, file: WeightFile, plan: LoadPlan) -> None:
        if self.file is None:  # the model knows its ImageNet weights
            return
        if not plan.is_backbone and file.align_corners is None and not self._is_asked:
            raise ConfigError(self._ask(file))
        abn = key_of(self._where, "abn")
        if self._abn and (plan.is_backbone or file.is_own):
            raise ConfigError(
                f"{abn}=true, but {file.source} ({file.kind}) holds plain batch norms; leave it out"
            )
        may_be_abn = plan.lacks_counts and not plan.is_backbone and not file.is_own
        if self._abn is None and may_be_abn:
            raise ConfigError(
                f"{file.source} ({file.kind}) has batch norms without {COUNT}, as PyTorch 0.4.1"
                f" wrote them: set {abn}=true where they were InPlaceABN, which uses {ABN} (every"
                f" official HRNet of 0.4.1 was), {abn}=false where they were plain"
            )


def key_of(where: str, name: str) -> str:
    """The dotted key `name` of the section `where`, or the argument of that name."""
    return f"{where}.{name}" if where else name


def _imagenet(model: Segmentor) -> WeightFile:
    return WeightFile(
        source=IMAGENET,
        kind=f"ImageNet weights for {model.label}",
        state=model.pretrained_backbone(),
        has_heads=False,
    )


def _notes(file: WeightFile, model: Segmentor) -> tuple[str, ...]:
    if file.align_corners is None or file.align_corners == model.align_corners:
        return ()
    trained, built = (str(value).lower() for value in (file.align_corners, model.align_corners))
    return (f"trained with align_corners={trained}, used with {built}",)


def _check_values(file: WeightFile, values: dict[str, Tensor]) -> None:
    for key, value in values.items():
        is_plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
        if not is_plain or value.is_complex():
            raise CheckpointError(
                f"{file.source}: {key} is no plain tensor of numbers; nothing was loaded"
            )
        if value.is_floating_point() and not bool(value.float().isfinite().all()):
            raise CheckpointError(
                f"{file.source}: {key} holds NaN or infinity; nothing was loaded, use an earlier"
                " checkpoint"
            )


# ---------------------------------------------------------------------- from keys and arguments


def check_weight_keys(
    weights: str | None, *, reinit: Sequence[str], abn: bool | None, where: str
) -> None:
    """Refuses keys that contradict each other or can mean nothing; looks at no file.

    Raises:
        ConfigError: When they do.
    """
    if weights is not None:
        check_source(weights, key_of(where, "weights"))
        return
    for name, value in (("reinit", reinit or None), ("abn", abn)):
        if value is not None:
            raise ConfigError(
                f"{key_of(where, name)} says how to load weights, but"
                f" {key_of(where, 'weights')} is null"
            )


def open_weights(
    weights: str | None, *, reinit: Sequence[str], abn: bool | None, where: str
) -> Weights | None:
    """The weights called `weights`, recognised; None where that is None.

    Args:
        weights: A file, a run directory, ``imagenet`` or ``hf://owner/name[/file][@revision]``.
        reinit: Modules that keep their first values: ``head``, or any submodule.
        abn: Whether the file is one of InPlaceABN (PyTorch 0.4.1).
        where: The section of the configuration that these keys stand in, for messages.

    Raises:
        ConfigError: When the keys contradict each other.
        CheckpointError: When the file is missing, damaged or holds no weights.
        ResourceError: When the hub cannot be reached and its cache has no such file.
    """
    check_weight_keys(weights, reinit=reinit, abn=abn, where=where)
    if weights is None:
        return None
    if weights == IMAGENET:
        if abn is not None:
            raise ConfigError(f"{key_of(where, 'abn')}: ImageNet weights hold plain batch norms")
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
    """Loads weights into a model that is built already; all of them, or none.

    Args:
        model: Any segmentor.
        weights: A file, a run directory, ``imagenet`` or ``hf://owner/name[/file][@revision]``.
        reinit: Modules that keep their first values: ``head``, or any submodule such as ``stage4``.
        abn: Whether the file is one of InPlaceABN (PyTorch 0.4.1), whose batch norms use
            ``|weight| + 1e-5``; needed only where the file shows signs of it.
        align_corners: The convention that the file was trained with, where it cannot tell; the
            model must have been built with the same.

    Returns:
        What became of every weight.

    Raises:
        ConfigError: When an argument does not fit the model or the file.
        CheckpointError: When the file cannot be read or does not fit the model.
        ResourceError: When weights by name are neither here nor to be had.

    Example:
        >>> import tempfile
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
            f" align_corners={model.align_corners}; build it with the same"
        )
    opened = open_weights(str(weights), reinit=reinit, abn=abn, where="")
    assert opened is not None
    # True is no default, so whoever built the model chose it.
    opened.align_corners(
        align_corners if align_corners is not None else model.align_corners or None
    )
    return opened.load_into(model)
