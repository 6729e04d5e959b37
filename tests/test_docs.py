"""The pages match the registries, their links exist, and their numbers are computed."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import segtrain
from segtrain.assembly.check import check_config
from segtrain.cli.compose import compose_config
from segtrain.cli.sweep import plan_sweep
from segtrain.engine.checkpoint import load_checkpoint
from segtrain.inference.writers import OUTPUTS
from segtrain.losses import LOSSES
from segtrain.metrics import METRICS
from segtrain.schema.sections import EvaluateConfig, PredictConfig
from segtrain.schema.values import build_dataclass
from tests.helpers import ROOT, TINY

DOCS = ROOT / "docs"
PAGES = sorted(file for file in DOCS.rglob("*.md"))


def test_the_generated_text_is_up_to_date() -> None:
    """In a separate process, because other tests register losses that have no page."""
    command = [sys.executable, "tools/gallery.py", "--check"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_stale_pages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    pages = importlib.import_module("gallery.pages")
    named = pages.stale({DOCS / "losses" / "focal.md": "old ![curve](img/nothing.png)"})
    assert named[:2] == ["docs/losses/focal.md", "docs/losses/img/nothing.png (missing)"]
    assert "docs/losses/dice.md (no such loss)" in named
    assert "docs/losses/README.md (no such loss)" not in named


def test_text_without_markers_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    pages = importlib.import_module("gallery.pages")
    assert pages._between_markers("plain", "new") == "plain"
    marked = "a\n<!-- losses:begin -->\nold\n<!-- losses:end -->\nb"
    assert pages._between_markers(marked, "new") == marked.replace("old", "new")


def test_docstrings_become_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    docstrings = importlib.import_module("gallery.docstrings")
    assert doctest.testmod(docstrings).failed == 0
    text = """One line.

    .. math:: a \\,
              b

    - An :math:`x
      - 1` goes on
    - `y`

    >>> 1
    1
    """
    assert docstrings.parse(text).body == (
        "```math\na \\,\nb\n```\n\n- An $`x - 1`$ goes on\n- `y`\n\n```python\n>>> 1\n1\n```"
    )
    with pytest.raises(ValueError, match=r"cannot convert .*note.* to Markdown"):
        docstrings.parse("One line.\n\n.. note:: here")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_exist(page: Path) -> None:
    for address in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in address:
            assert (page.parent / address.partition("#")[0]).exists(), address


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_accepted(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"^python tools/train.py (.*)$", text, flags=re.MULTILINE)
    for line in lines:
        given = shlex.split(line, comments=True)
        words = [word for word in given if not word.startswith("-")]
        if "-m" in given:
            plan_sweep(words, None)
        else:
            check_config(compose_config(words, "train"))


def test_the_commands_and_outputs_of_prediction() -> None:
    text = (DOCS / "predict.md").read_text(encoding="utf-8")
    lines = re.findall(r"^segtrain predict (.*)$", text, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        build_dataclass(PredictConfig, compose_config(shlex.split(line), "predict"))
    named = re.findall(r"^\| `(\w+)` \| `", text, flags=re.MULTILINE)
    assert named == [*OUTPUTS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_evaluations_of_a_page_are_accepted(page: Path) -> None:
    text = page.read_text("utf-8").replace("\\\n", " ")
    for line in re.findall(r"tools/evaluate.py (.*)$", text, flags=re.MULTILINE):
        if "=" in line:
            words = shlex.split(line, comments=True)
            build_dataclass(EvaluateConfig, compose_config(words, "evaluate"))


def test_the_losses_that_the_table_recommends_exist() -> None:
    text = (DOCS / "losses" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|`]+ \| ([^|]+) \|[^|]+\|[^|]+\|$", text, flags=re.MULTILINE)
    assert len(rows) > 10
    words = {word for row in rows for word in re.findall(r"`([^`]+)`", row)}
    parameters = {key for name in LOSSES.names() for key in LOSSES.schema(name)}
    known = {*segtrain.list_losses(), *segtrain.list_minings(), *parameters}
    presets = {file.stem for file in (ROOT / "configs" / "loss").glob("*.yaml")}
    for word in words:
        key, _, value = word.rpartition("=")
        assert value in (known | presets if key else known) or key in parameters, word


def test_the_figures_of_the_study_are_those_of_its_files() -> None:
    folder = ROOT / "benchmarks" / "verdicts"
    known, sentences = set(), set()
    for path in folder.glob("*/comparisons/*/comparison.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        factor = 100 if getattr(METRICS.get(content["metric"]), "is_share", False) else 1
        for group in content["groups"]:
            found = group["difference"]
            if found and found["ci95"]:
                mean, low, high = (factor * value for value in (found["mean"], *found["ci95"]))
                known.add(f"{mean:+.1f} ({low:.1f} to {high:.1f}")
                sentences.add(found["verdict"])
    pages = [DOCS / "losses" / "README.md", *folder.glob("*/README.md")]
    quoted = [
        text
        for page in pages
        for text in re.findall(
            r"[+-]\d+\.\d \(-?\d+\.\d to -?\d+\.\d", page.read_text(encoding="utf-8")
        )
    ]
    assert len(quoted) > 20
    assert set(quoted) <= known
    front = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace("\n> ", " ").split())
    assert any(sentence in front for sentence in sentences)


def test_pictures_are_small() -> None:
    pictures = sorted(DOCS.rglob("*.png"))
    assert pictures
    assert not [file.name for file in pictures if file.stat().st_size >= 40_000]


def test_the_numbers_of_the_theory_are_computed() -> None:
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    source = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    example = doctest.DocTestParser().get_doctest(source, {}, "theory.md", "docs/theory.md", 0)
    report: list[str] = []
    flags = doctest.NORMALIZE_WHITESPACE
    results = doctest.DocTestRunner(optionflags=flags).run(example, out=report.append)
    assert results.attempted > 40
    assert results.failed == 0, "".join(report)


def test_the_optimizer_of_the_page_trains(train: Callable[..., int], tmp_path: Path) -> None:
    text = (DOCS / "training.md").read_text(encoding="utf-8")
    (source,) = [
        code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "heavy_ball" in code
    ]
    plugin = tmp_path / "my_optimizers.py"
    plugin.write_text(source, encoding="utf-8")
    words = [f"plugins=[{TINY},{plugin}]", "optimizer=heavy_ball", "optimizer.momentum=0.5"]
    assert train("run", *words, "scheduler=inverse_root", "trainer.max_steps=2") == 0
    state = load_checkpoint(tmp_path / "run/checkpoints/last.pt")
    assert state["config"]["optimizer"] == {"name": "heavy_ball", "lr": 0.01, "momentum": 0.5}


def test_the_hook_of_the_page_writes_each_evaluation(
    train: Callable[..., int], tmp_path: Path
) -> None:
    text = (DOCS / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (source,) = [code for code in blocks if "register_hook" in code]
    plugin = tmp_path / "my_hooks.py"
    plugin.write_text(source, encoding="utf-8")
    hook = f"{{name: to_file, path: {tmp_path / 'scores.jsonl'}}}"
    words = [f"plugins=[{TINY},{plugin}]", f"hooks=[{hook}]", "trainer.evaluate_every=1"]
    assert train("run", *words, "trainer.max_steps=2") == 0
    found = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == [1, 2]
