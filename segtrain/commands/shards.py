"""The command ``segtrain shards``."""

from __future__ import annotations

from segtrain.assembly.splits import scan_split
from segtrain.data import DATASETS, FileDataset, ShardsReport, make_shards, write_config
from segtrain.errors import ConfigError
from segtrain.schema.sections import ShardsConfig
from segtrain.terminal import logger, progress


def write_shards(config: ShardsConfig) -> ShardsReport:
    """Write a split as tar shards, together with the dataset config that reads them.

    Raises:
        ConfigError: If the dataset has no files.
        DataError: If a file is broken or outside the label contract, beyond ``dataset.max_bad``.
    """
    dataset = DATASETS.build(config.dataset, split=config.split)
    title = str(dataset.title or config.dataset["name"])
    if not isinstance(dataset, FileDataset):
        raise ConfigError(f"dataset {title!r} has no files to write to shards")
    if dataset.max_bad:
        with progress(f"check {config.split}", len(dataset)) as bar:
            _, dataset = scan_split(dataset, lambda *_: bar.advance())
        for text in dataset.left_out:
            logger.warning("left out: %s", text)
    with progress(f"write {config.split} shards", len(dataset)) as bar:
        report = make_shards(
            dataset,
            config.output,
            config.split,
            samples_per_shard=config.samples_per_shard,
            max_bytes=int(config.max_shard_gb * 1e9),
            seed=config.seed if config.shuffle else None,
            progress=lambda done, _: bar.move_to(done),
        )
    name = write_config(dataset, config.output, title)
    logger.info(
        "%d samples in %d shards (%d new), %.2f GB, index %s; train on them with: segtrain train"
        " --config-dir %s dataset=%s",
        report.num_samples,
        report.num_shards,
        report.num_written,
        report.size / 1e9,
        report.index,
        config.output,
        name,
    )
    return report
