"""Sources of weights: files, run directories, and the Hugging Face hub with a local cache."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import save_file

import segtrain
from segtrain.errors import CheckpointError, ConfigError, ResourceError
from segtrain.models.weights.sources import HubAddress, check_source, choose_file, find_file

KEY = "model.weights"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def cached(hub: Path, repo: str, *files: str, revision: str = "main") -> Path:
    """The folder of a repository in the layout of huggingface_hub, with empty `files`."""
    base = hub / f"models--{repo.replace('/', '--')}"
    snapshot = base / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    (base / "refs").mkdir(exist_ok=True)
    (base / "refs" / revision).write_text(COMMIT)
    for name in files:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).touch()
    return snapshot


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("hf://timm/hrnet_w18.ms_in1k", ("timm/hrnet_w18.ms_in1k", None, None)),
        ("hf://a/b/best.pth", ("a/b", "best.pth", None)),
        ("hf://a/b/sub/best.pth@v1.0", ("a/b", "sub/best.pth", "v1.0")),
        ("hf://a/b@refs/pr/1", ("a/b", None, "refs/pr/1")),
    ],
)
def test_an_address_has_a_repository_a_file_and_a_revision(given: str, expected: Any) -> None:
    address = HubAddress.parse(given, KEY)
    assert (address.repo, address.file, address.revision) == expected


@pytest.mark.parametrize("given", ["hf://", "hf://name", "hf:///a/b", "hf://a/b c", "hf://a/b@"])
def test_an_invalid_hub_address_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"not of the form hf://owner/name\[/file\]\[@revision\]"):
        check_source(given, KEY)


def test_urls_and_empty_sources_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.weights=https://a/b\.pth: downloads from URLs are not"
    ):
        check_source("https://a/b.pth", KEY)
    with pytest.raises(ConfigError, match=r"model\.weights is empty"):
        check_source("", KEY)


def test_a_path_is_a_file_or_a_run_directory(tmp_path: Path) -> None:
    file = tmp_path / "best.pth"
    file.touch()
    assert find_file(str(file), KEY) == file
    with pytest.raises(CheckpointError, match=r"is a folder without checkpoints/best\.pt"):
        find_file(str(tmp_path), KEY)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").touch()
    assert find_file(str(tmp_path), KEY) == tmp_path / "checkpoints" / "best.pt"
    with pytest.raises(CheckpointError, match=r"no such file; did you mean .*best\.pth\?"):
        find_file(str(tmp_path / "bst.pth"), KEY)
    with pytest.raises(CheckpointError, match=r"no such file, and no folder .*nowhere"):
        find_file(str(tmp_path / "nowhere" / "best.pth"), KEY)
    with pytest.raises(CheckpointError, match=r"no such file; did you mean imagenet\?"):
        find_file("imagenett", KEY)


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "other.pth"], "model.safetensors"),
        (["README.md", "pytorch_model.bin", "optimizer.pt"], "pytorch_model.bin"),
        (["README.md", "config.json", "seg_hrnet.pth"], "seg_hrnet.pth"),
    ],
)
def test_the_file_of_a_repository_is_chosen(files: list[str], chosen: str) -> None:
    assert choose_file(files, "hf://a/b") == chosen


def test_a_repository_with_none_or_several_files(hub: Path) -> None:
    cached(hub, "a/several", "x.pth", "y.pth")
    cached(hub, "a/none", "README.md")
    with pytest.raises(
        ConfigError, match=r"has 2 files of weights; name one, as in hf://owner/name/x"
    ):
        find_file("hf://a/several", KEY)
    with pytest.raises(CheckpointError, match=r"has no file of weights, only README\.md"):
        find_file("hf://a/none", KEY)
    assert find_file("hf://a/several/y.pth", KEY).name == "y.pth"


def test_a_repository_is_found_in_the_cache_at_its_revision(hub: Path) -> None:
    snapshot = cached(hub, "a/b", "model.safetensors", "sub/best.pth", revision="v1")
    assert find_file("hf://a/b@v1", KEY) == snapshot / "model.safetensors"
    assert find_file("hf://a/b/sub/best.pth@v1", KEY) == snapshot / "sub" / "best.pth"
    assert find_file(f"hf://a/b@{COMMIT}", KEY) == snapshot / "model.safetensors"
    with pytest.raises(ResourceError, match="not in the cache and the hub cannot be reached"):
        find_file("hf://a/b", KEY)  # main is not in the cache


def test_weights_of_the_hub_load_like_a_file(hub: Path) -> None:
    model = segtrain.build_model("hrnet_w18_small_v1", num_classes=5)
    trunk = {k: v for k, v in model.state_dict().items() if not k.startswith("last_layer")}
    snapshot = cached(hub, "timm/hrnet_w18_small.gluon_in1k")
    save_file(trunk, snapshot / "model.safetensors")
    weights = "hf://timm/hrnet_w18_small.gluon_in1k"
    loaded = segtrain.build_model("hrnet_w18_small_v1", num_classes=3, weights=weights)
    assert loaded.load_report is not None
    assert loaded.load_report.source == weights
    assert set(loaded.load_report.loaded) == trunk.keys()
    assert torch.equal(loaded.state_dict()["conv1.weight"], trunk["conv1.weight"])


@pytest.mark.parametrize("given", ["hf://a/b", "hf://a/b/best.pth"])
def test_offline_the_message_says_where_to_put_the_file(hub: Path, given: str) -> None:
    with pytest.raises(
        ResourceError, match="not in the cache and the hub cannot be reac"
    ) as caught:
        find_file(given, KEY)
    message = str(caught.value)
    assert message.startswith(f"{KEY}={given} ")
    assert f"put the repository's folder models--a--b into {hub}" in message
    assert ("best.pth" if given.endswith("best.pth") else "the file of weights") in message
    assert "\n" not in message


def _said(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    """The error of the client for a response with `status`, for any HTTP library."""
    answer: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("said no", response=answer)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (_said(errors.GatedRepoError, 403), CheckpointError, "accept them at http"),
        (_said(errors.RepositoryNotFoundError, 404), CheckpointError, "no repository a/b"),
        (_said(errors.RevisionNotFoundError, 404), CheckpointError, "no revision v9"),
        (_said(errors.RemoteEntryNotFoundError, 404), CheckpointError, "no file x.pth"),
        (errors.HFValidationError("bad name"), CheckpointError, "bad name"),
        (_said(errors.HfHubHTTPError, 503), ResourceError, "cannot be reached"),
        (ConnectionError("no route"), ResourceError, r"cannot be reached \(ConnectionError\)"),
    ],
)
def test_errors_of_the_hub_give_one_message(
    error: Exception,
    kind: type[Exception],
    sentence: str,
    hub: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(kind, match=sentence):
        find_file("hf://a/b/x.pth@v9", KEY)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", refuse)
    if not isinstance(error, errors.RemoteEntryNotFoundError):
        with pytest.raises(kind, match=sentence):
            find_file("hf://a/b@v9", KEY)


def test_a_file_that_the_hub_lists_is_downloaded(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo: str, name: str, *, revision: str | None) -> str:
        asked.append((repo, name, revision))
        return str(tmp_path / name)

    listing = ["README.md", "hrnet.pth"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: listing)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert find_file("hf://a/b@v2", KEY) == tmp_path / "hrnet.pth"
    assert asked == [("a/b", "hrnet.pth", "v2")]


def test_a_missing_extra_is_reported_with_its_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'segtrain\[hub\]'"):
        find_file("hf://a/b", KEY)
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    model = segtrain.build_model("hrnet_w18_small_v1", num_classes=2)
    with pytest.raises(ConfigError, match=r"pip install 'segtrain\[hub\]'"):
        segtrain.load_weights(model, tmp_path / "a.safetensors")
