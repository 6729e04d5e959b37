"""Build the evaluation of a run, or of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial

from segtrain.assembly.check import check_config
from segtrain.assembly.scored_split import open_scored_split, scored_classes
from segtrain.assembly.splits import scan_on_main
from segtrain.assembly.thresholds import Thresholds, chosen_thresholds
from segtrain.assembly.trial import try_dataset
from segtrain.data import (
    EvalTransform,
    FileDataset,
    ImageValues,
    LabelContract,
    Normalization,
    SegmentationDataset,
    build_eval_loader,
)
from segtrain.data.labels.scored_classes import ScoredClasses
from segtrain.engine import Evaluator
from segtrain.engine.checkpoint import State, find_checkpoint, load_checkpoint
from segtrain.engine.distributed import Processes
from segtrain.engine.scoring import Scoring
from segtrain.engine.views import ModelViews
from segtrain.errors import CheckpointError, ConfigError
from segtrain.inference.predictor import restore_model
from segtrain.metrics import MetricCollector, build_metrics, check_choice
from segtrain.models import Segmentor
from segtrain.schema.sections import Config, EvaluateConfig, EvaluationConfig, LoaderConfig
from segtrain.schema.values import build_dataclass
from segtrain.terminal import logger


def build_evaluator(
    config: Config,
    dataset: SegmentationDataset,
    processes: Processes,
    *,
    align_corners: bool,
    evaluation: EvaluationConfig | None = None,
    loader: LoaderConfig | None = None,
    classes: ScoredClasses | None = None,
    thresholds: Thresholds | None = None,
) -> Evaluator:
    """Build the evaluator of one split.

    Args:
        config: The configuration that the model was trained with.
        dataset: The split.
        processes: The processes that share the work.
        align_corners: How the model's logits are upsampled.
        evaluation: Replaces the section `evaluation` of `config`.
        loader: Replaces the section `loader` of `config`.
        classes: The scored classes, if they are not those of the dataset.
        thresholds: One probability per logit; None: one half.
    """
    evaluation, loader = evaluation or config.evaluation, loader or config.loader
    given = config.augmentation
    normalization = Normalization(given.mean, given.std, dataset.channels)
    return Evaluator(
        build_eval_loader(
            dataset,
            EvalTransform(normalization.mean, normalization.std, dataset.labels, evaluation.size),
            batch_size=evaluation.batch_size,
            max_images=evaluation.max_images,
            world_size=processes.world_size,
            rank=processes.rank,
            nodes=processes.nodes(),
            num_workers=loader.num_workers,
            prefetch_factor=loader.prefetch_factor,
        ),
        scoring=Scoring(
            dataset.labels,
            partial(metric_collector, evaluation, dataset.labels, classes),
            thresholds,
            classes,
        ),
        processes=processes,
        align_corners=align_corners,
        apply=partial(
            ModelViews,
            views=evaluation,
            device=processes.device,
            precision=config.trainer.precision,
            channels_last=config.trainer.channels_last,
            multi_label=dataset.labels.multi_label,
            batch_size=evaluation.batch_size,
        ),
        normalization=normalization,
        num_pictures=config.trainer.log_images,
    )


def metric_collector(
    evaluation: EvaluationConfig, labels: LabelContract, classes: ScoredClasses | None = None
) -> MetricCollector:
    """Build the collector of the metrics that `evaluation` names.

    Args:
        evaluation: The metrics, and the classes that count in their means.
        labels: The label contract of the dataset.
        classes: The scored classes, if they are not those of the dataset.

    Raises:
        ConfigError: When a metric or a class does not exist.
    """
    scored = labels if classes is None else classes.labels
    return MetricCollector(
        build_metrics(evaluation.metrics),
        class_names=labels.names if classes is None else classes.names,
        ignore_label=scored.ignore_label,
        multi_label=labels.multi_label,
        classes=evaluation.classes,
        predicted_only=() if classes is None else classes.predicted_only,
    )


def check_scores(config: Config, labels: LabelContract) -> None:
    """Check that the metrics, the classes and the best score that `config` names exist.

    Raises:
        ConfigError: When ``evaluation.metrics``, ``evaluation.classes`` or ``trainer.best`` names
            something unknown.
    """
    collector = metric_collector(config.evaluation, labels)
    check_choice(config.trainer.best, collector.metrics, labels.names)


def warn_of_other_values(values: ImageValues | None, metadata: State, split: str) -> None:
    """Warn if image files hold other values than those that a model was trained on."""
    trained = metadata.get("image_values")
    if values is None or trained is None or not values.differs(ImageValues(*trained)):
        return
    logger.warning(
        "the %s images hold %s, but the model was trained on %s, so the scores may mean nothing:"
        " convert the images, or train with dataset.value_range",
        *(split, values, ImageValues(*trained)),
    )


def build_evaluation(
    config: EvaluateConfig, processes: Processes
) -> tuple[Evaluator, Segmentor, State]:
    """Build the evaluator, the model and the state of a checkpoint that is to be scored.

    Raises:
        SegtrainError: When the checkpoint, the dataset or the configuration is wrong.
    """
    path = find_checkpoint(config.checkpoint)
    state = load_checkpoint(path)
    model = restore_model(state, path)
    try:
        trained = check_config(state["config"])
    except ConfigError as error:
        names = ",".join(state["config"].get("plugins") or ())
        hint = f"; if a plugin registers it, add plugins=[{names}]" if names else ""
        raise CheckpointError(
            f"{path} holds a configuration that is not valid: {error}{hint}"
        ) from error
    if config.precision is not None:
        trained = replace(trained, trainer=replace(trained.trainer, precision=config.precision))
    metadata = state["metadata"]
    dataset, spec = open_scored_split(config, trained.dataset, model, metadata, path, processes)
    classes = scored_classes(config, dataset, metadata)
    thresholds = chosen_thresholds(config, metadata)
    evaluation = _evaluation_of(config, trained, classes)
    if isinstance(dataset, FileDataset):
        report, dataset = scan_on_main(dataset, processes)
        if processes.is_main and report is not None:
            warn_of_other_values(report.values, metadata, config.split)
    try_dataset(dataset, str(spec["name"]))
    evaluator = build_evaluator(
        trained,
        dataset,
        processes,
        align_corners=model.align_corners,
        evaluation=evaluation,
        loader=config.loader,
        classes=classes,
        thresholds=thresholds,
    )
    return evaluator, model.to(processes.device), state


def _evaluation_of(
    config: EvaluateConfig, trained: Config, classes: ScoredClasses | None
) -> EvaluationConfig:
    """The section `evaluation`: that of the training, with the keys that are given."""
    given = config.evaluation or {}
    section = {**asdict(trained.evaluation), **given}
    if classes is not None and section["classes"] is not None and "classes" not in given:
        names = [(config.class_map or {}).get(name, name) for name in section["classes"]]
        kept = [name for name in dict.fromkeys(names) if name in classes.names]
        section["classes"] = kept or None
    return build_dataclass(EvaluationConfig, section, "evaluation")
