"""Find the file of weights: a path, a run directory, or a repository of the Hugging Face hub."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtrain.errors import CheckpointError, ConfigError, ResourceError, one_line
from segtrain.models.hub import asked_once

IMAGENET = "imagenet"
HUB = "hf://"
_PREFERRED = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")
_HUB_FORM = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)


@dataclass(frozen=True)
class HubAddress:
    """The parts of ``hf://owner/name[/file][@revision]``.

    Example:
        >>> HubAddress.parse("hf://timm/hrnet_w18.ms_in1k@main", "model.weights")
        HubAddress(repo='timm/hrnet_w18.ms_in1k', file=None, revision='main')
    """

    repo: str
    file: str | None
    revision: str | None

    @classmethod
    def parse(cls, given: str, key: str) -> HubAddress:
        """Parse the value `given` of the configuration `key`.

        Raises:
            ConfigError: If it does not have this form.
        """
        match = _HUB_FORM.fullmatch(given.removeprefix(HUB))
        if match is None:
            raise ConfigError(f"{key}={given} is not of the form hf://owner/name[/file][@revision]")
        return cls(**match.groupdict())


def check_source(weights: str, key: str) -> None:
    """Check that `weights` may be a source of weights, without opening a file.

    Raises:
        ConfigError: If `weights`, the value of `key`, is empty or a URL that is not supported.
    """
    if not weights.strip():
        raise ConfigError(f"{key} is empty; give a file, imagenet or hf://owner/name, or null")
    if weights.startswith(HUB):
        HubAddress.parse(weights, key)
    elif re.match(r"[a-z]\w+://", weights):
        raise ConfigError(
            f"{key}={weights}: downloads from URLs are not supported; download the file and give"
            " its path, or use hf://owner/name"
        )


def find_file(weights: str, key: str) -> Path:
    """Return the path of the file of weights; download it if it is on the hub.

    Args:
        weights: A file, a run directory (its ``checkpoints/best.pt``) or ``hf://owner/name``.
        key: The key of `weights` in the configuration, for messages.

    Raises:
        ConfigError: As in :func:`check_source`, or if huggingface_hub is not installed.
        CheckpointError: If there is no such file or repository.
        ResourceError: If the hub cannot be reached and the file is not in its cache.
    """
    check_source(weights, key)
    if weights.startswith(HUB):
        return _from_hub(HubAddress.parse(weights, key), f"{key}={weights}")
    path = Path(weights).expanduser()
    if path.is_dir():
        best = path / "checkpoints" / "best.pt"
        if not best.is_file():
            raise CheckpointError(
                f"{key}={weights} is a folder without checkpoints/best.pt; give a file or a run"
                " directory that has one"
            )
        return best
    if not path.exists():
        raise CheckpointError(f"{key}={weights}: no such file{_closest(path, weights)}")
    if not path.is_file():  # opening a named pipe would wait for ever
        raise CheckpointError(f"{key}={weights} is a pipe or a device, not a file of weights")
    return path


def _closest(path: Path, weights: str) -> str:
    """End of the message on a missing file: the closest name, or where it was searched."""
    if not path.parent.is_dir():
        return f", and no folder {path.parent}"
    names = {file.name: str(file) for file in path.parent.iterdir()}
    if path.name == weights:
        names[IMAGENET] = IMAGENET
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {names[close[0]]}?" if close else f" in {path.parent.resolve()}"


# ---------------------------------------------------------------------- the hub


def _from_hub(address: HubAddress, given: str) -> Path:
    try:
        import huggingface_hub  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"{given} requires huggingface_hub, which is not installed: pip install 'segtrain[hub]'"
        ) from error
    try:
        with asked_once():
            name = address.file or choose_file(_files(huggingface_hub, address), given)
            download = huggingface_hub.hf_hub_download
            return Path(download(address.repo, name, revision=address.revision))
    except (CheckpointError, ConfigError):
        raise
    except Exception as error:
        raise _explained(error, address, given) from error


def _files(hub: Any, address: HubAddress) -> list[str]:
    """List the files of the repository, or of its cached copy if the hub cannot be reached."""
    try:
        return list(hub.HfApi().list_repo_files(address.repo, revision=address.revision))
    except Exception as error:
        if not _is_unreachable(error):
            raise
        try:
            found = hub.snapshot_download(
                address.repo, revision=address.revision, local_files_only=True
            )
        except Exception as absent:  # not in the cache either: report the error of the hub
            raise error from absent
        folder = Path(found)
        return [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*"))]


def choose_file(files: Sequence[str], given: str) -> str:
    """Choose the file of weights among the `files` of a repository.

    Raises:
        CheckpointError: If there is none.
        ConfigError: If there are several and none has a standard name.

    Example:
        >>> choose_file(["README.md", "model.safetensors", "pytorch_model.bin"], "hf://a/b")
        'model.safetensors'
    """
    for name in _PREFERRED:
        if name in files:
            return name
    found = [name for name in files if name.endswith(_SUFFIXES)]
    if not found:
        shown = ", ".join(files[:5]) or "nothing"
        raise CheckpointError(f"{given}: the repository has no file of weights, only {shown}")
    if len(found) > 1:
        raise ConfigError(
            f"{given}: the repository has {len(found)} files of weights; name one, as in"
            f" hf://owner/name/{found[0]} (there are {', '.join(found[:5])})"
        )
    return found[0]


def _is_unreachable(error: Exception) -> bool:
    """Whether the hub did not answer or failed, rather than refused the request."""
    answered = getattr(getattr(error, "response", None), "status_code", None)
    return answered is None or answered >= 500


def _explained(
    error: Exception, address: HubAddress, given: str
) -> CheckpointError | ResourceError:
    """Convert an error of the hub into one with the next step for the user."""
    from huggingface_hub import constants, errors  # noqa: PLC0415

    page = f"{constants.ENDPOINT}/{address.repo}"
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{given} requires accepting its terms: accept them at {page} and log in with hf auth"
            " login, or give the path of the downloaded file"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"{given}: there is no repository {address.repo}, or it is private and requires hf auth"
            " login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(f"{given}: {address.repo} has no revision {address.revision}")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return CheckpointError(f"{given}: {address.repo} has no file {address.file}")
    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f"{given}: {one_line(error)}")
    return ResourceError(
        f"{given} is not in the cache and the hub cannot be reached ({type(error).__name__});"
        f" download {address.file or 'the file of weights'} from {page} on another machine and give"
        f" its path, or put the repository's folder models--{address.repo.replace('/', '--')} into"
        f" {constants.HF_HUB_CACHE}"
    )
