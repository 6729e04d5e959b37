"""Loggers send a run to a service; each is tested offline, and read back."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from segtrain.engine.hooks import sender as sending
from segtrain.engine.hooks import tracker as tracking
from segtrain.engine.hooks import wandb as logger_for_wandb
from segtrain.engine.hooks.sender import Sender
from tests.helpers import differences, state

# Of packages that the loggers use; what segtrain does is checked everywhere else.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Train = Callable[..., int]
RUN = ["trainer.max_steps=4", "trainer.evaluate_every=2", "trainer.log_every=1"]


@dataclass
class Stored:
    """What a service has of a run."""

    name: str = ""
    status: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    values: dict[tuple[str, int], float] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def read_mlflow(folder: Path) -> dict[str, Stored]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mine")
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        one = Stored(run.info.run_name, run.info.status, {**run.data.tags, **run.data.params})
        for key in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, key):
                one.values[key, point.step] = point.value
        one.files = [file.path for file in client.list_artifacts(run.info.run_id, "checkpoints")]
        found[run.info.run_id] = one
    return found


def read_wandb(folder: Path) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for path in sorted(folder.glob("*/wandb/offline-run-*/*.wandb")):
        one = found.setdefault(path.stem, Stored())
        for record in wandb_records(path):
            one.name = record.run.display_name or one.name
            for item in record.run.config.update:
                one.config[item.key] = json.loads(item.value_json)
            row = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            one.values |= {(key, row["step"]): row[key] for key in row if not key.startswith("_")}
            one.files += [entry.path for entry in record.artifact.manifest.contents]
            if record.HasField("exit"):
                one.status = str(record.exit.exit_code)
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: the log format of LevelDB, each a message of protobuf."""
    from wandb.proto import wandb_internal_pb2

    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        rest = 32768 - place % 32768
        if rest < 7:
            place += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record
            part = b""


def read_trackio(folder: Path) -> dict[str, Stored]:
    from trackio.sqlite_storage import SQLiteStorage

    found = {}
    for run in SQLiteStorage.get_run_records("mine"):
        config = SQLiteStorage.get_run_config("mine", run["name"], run_id=run["id"]) or {}
        if not str(config.get("run_dir", "")).startswith(str(folder)):
            continue  # of another test
        one = Stored(run["name"], config=config)
        for row in SQLiteStorage.get_logs("mine", run["name"], run_id=run["id"]):
            one.values |= {(key, row["step"]): row[key] for key in row if "/" in key}
        for artifact in SQLiteStorage.list_artifacts("mine"):
            if artifact["name"].startswith(run["name"]):
                one.files.append(artifact["name"])
        found[run["id"]] = one
    return found


READERS = {"mlflow": read_mlflow, "wandb": read_wandb, "trackio": read_trackio}
OFFLINE = {
    "mlflow": "tracking_uri: 'sqlite:///FOLDER/mlflow.db', experiment: mine",
    "wandb": "mode: offline, project: mine",
    "trackio": "project: mine",
}


@dataclass
class Service:
    """A service that works offline: the hook, and what it has stored."""

    name: str
    folder: Path

    def hook(self, extra: str = "") -> str:
        given = OFFLINE[self.name].replace("FOLDER", str(self.folder))
        return f"hooks=[{{name: {self.name}, {given}{extra}}}]"

    def read(self) -> dict[str, Stored]:
        return READERS[self.name](self.folder)

    def only(self) -> Stored:
        (one,) = self.read().values()
        return one


@pytest.fixture(scope="session")
def trackio_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """trackio reads the variable once, when it is imported."""
    return os.environ.setdefault("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))


@pytest.fixture(params=list(READERS))
def service(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trackio_dir: str,
) -> Service:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # where mlflow keeps files
    return Service(request.param, tmp_path)


def test_a_service_has_the_configuration_the_values_and_the_scores(
    train: Train, tmp_path: Path, service: Service
) -> None:
    assert train("plain", *RUN) == 0
    assert train("run", *RUN, "name=first", service.hook()) == 0
    one = service.only()
    assert one.name.startswith("first")
    assert one.status == {"mlflow": "FINISHED", "wandb": "0", "trackio": ""}[service.name]
    assert one.config["run_dir"] == str(tmp_path / "run")
    assert str(one.config["trainer.max_steps"]) == "4"
    assert one.config["model.name"] == "tiny"

    for text in (tmp_path / "run/metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if "evaluation" not in line:
            for key in ("loss", "lr", "grad_norm"):
                assert one.values[f"train/{key}", line["step"]] == pytest.approx(line[key])
            for key, value in line["parts"].items():
                assert one.values[f"train_parts/{key}", line["step"]] == pytest.approx(value)
            continue
        found = line["evaluation"]
        assert one.values["val/mIoU", line["step"]] == pytest.approx(found["mIoU"])
        assert one.values["val/loss", line["step"]] == pytest.approx(found["val_loss"])
        for key, value in found["scores"]["iou"]["per_class"].items():
            if value is not None:
                assert one.values[f"val_iou/{key}", line["step"]] == pytest.approx(value)

    results = json.loads((tmp_path / "run/results.json").read_text())
    assert one.values["final/mIoU", 4] == pytest.approx(results["mIoU"])
    assert one.values["best/mIoU", 4] == pytest.approx(results["best"]["mIoU"])
    assert one.files == []
    states = [state(tmp_path / name) for name in ("plain", "run")]
    assert [len(one.pop("hooks")) for one in states] == [0, 1]
    assert differences(*states) == []  # a hook changes nothing


def test_a_resumed_run_is_the_same_run_of_the_service(
    train: Train, tmp_path: Path, service: Service
) -> None:
    assert train("run", *RUN, service.hook(), "trainer.stop_after=2") == 0
    (first,) = service.read()
    words = [service.hook(), "trainer.log_every=2"]  # a value that changes
    assert train("run", *RUN, *words, "resume=auto") == 0
    (again,) = service.read()
    assert again == first
    steps = {step for name, step in service.only().values if name == "train/loss"}
    assert steps == {1, 2, 4}
    # Another directory is another run: many may start from one checkpoint.
    assert train("other", *RUN, service.hook(), f"resume={tmp_path}/run/checkpoints/last.pt") == 0
    assert len(service.read()) == 2


def test_the_best_checkpoint_is_uploaded_by_choice(train: Train, service: Service) -> None:
    hook = service.hook(", checkpoints: true, run_name: with_file")
    assert train("run", *RUN, hook) == 0
    one = service.only()
    assert one.name.startswith("with_file")
    assert len(one.files) == 1
    assert "best" in one.files[0]


def test_a_run_that_fails_is_marked(train: Train, service: Service) -> None:
    if service.name == "trackio":
        pytest.skip("trackio has no states of runs")
    words = ["optimizer.lr=1e30", "trainer.max_steps=20", service.hook()]
    assert train("run", *words, "scheduler=constant", "trainer.clip_grad_norm=null") == 5
    assert service.only().status == {"mlflow": "FAILED", "wandb": "1"}[service.name]


def test_a_missing_package_is_named(
    train: Train, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    for name in READERS:
        assert train("run", f"hooks=[{name}]") == 2
        assert f'not installed: pip install "segtrain[{name}]"' in last_line()


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("{name: mlflow, experiment: ''}", "hooks[0].experiment is empty"),
        ("{name: mlflow, tracking_uri: 'foo://x'}", "unsupported URI 'foo://x'"),
        ("{name: wandb, mode: offline, project: a/b}", "Invalid project name 'a/b'"),
        ("{name: wandb, mode: of}", "hooks[0].mode must be 'online' or 'offline' or null"),
    ],
)
def test_wrong_values_are_refused_before_the_run(
    train: Train, tmp_path: Path, last_line: Callable[[], str], hook: str, said: str
) -> None:
    pytest.importorskip("mlflow" if "mlflow" in hook else "wandb")
    assert train("run", f"hooks=[{hook}]") == 2
    assert said in last_line()
    assert not (tmp_path / "run").exists()


def test_wandb_without_a_key_is_refused(
    train: Train, tmp_path: Path, last_line: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert train("run", "hooks=[wandb]") == 2
    assert "finds no API key: run `wandb login`" in last_line()
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ servers that do not answer

NOWHERE = "http://127.0.0.1:9"


def test_a_server_of_mlflow_that_does_not_answer_stops_nothing(
    train: Train, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setattr(tracking, "_AT_START", 0.2)
    monkeypatch.setattr(tracking, "_AT_END", 0.2)
    assert train("run", *RUN, f"hooks=[{{name: mlflow, tracking_uri: '{NOWHERE}'}}]") == 0
    warnings = [text for text in messages if text.startswith("mlflow:")]
    assert len(warnings) == 2
    assert "no answer after" in warnings[0]
    assert "the server does not answer" in warnings[1]


@pytest.mark.slow
def test_a_run_that_does_not_reach_wandb_is_recorded_offline(
    train: Train, tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setattr(logger_for_wandb, "_LONGEST_START", 1)
    try:
        assert train("run", *RUN, "hooks=[wandb]") == 0
    finally:
        wandb.teardown()
    assert any("the run is recorded offline" in text for text in messages)
    (one,) = read_wandb(tmp_path).values()
    assert ("final/mIoU", 4) in one.values


def test_a_sender_never_waits_and_warns_once(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_LARGEST", 3)
    answers = threading.Event()
    sender = Sender("mine", answers.wait)
    begun = time.monotonic()
    assert sender.is_connected(0.05) is None
    for _ in range(5):
        sender.send(lambda: None)
    assert not sender.close(0.05)
    assert time.monotonic() - begun < 5
    answers.set()
    (text,) = messages
    assert text.startswith("mine: the server does not answer; unsent messages: 5")


def test_messages_that_fail_are_counted(messages: list[str]) -> None:
    sent: list[int] = []

    def fail() -> None:
        raise ConnectionError("gone")

    sender = Sender("mine", lambda: None)
    for message in (fail, lambda: sent.append(1), fail):
        sender.send(message)
    assert not sender.close(10)
    assert sent == [1]
    assert messages == [
        "mine: a message could not be sent (ConnectionError: gone); training goes on",
        "mine: the server did not take everything; unsent messages: 2; metrics.jsonl has all"
        " values",
    ]


def test_nothing_is_sent_when_the_start_fails(messages: list[str]) -> None:
    sent: list[int] = []

    def fail() -> None:
        raise ConnectionError("gone")

    sender = Sender("mine", fail)
    assert sender.is_connected(10) is False
    sender.send(lambda: sent.append(1))
    sender.close(10)
    assert sent == []
    (text,) = messages
    assert text.startswith("mine: nothing is logged there (ConnectionError: gone)")
