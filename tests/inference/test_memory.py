"""An image that is larger than memory allows, in the library and from the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segtrain.cli.main import run_command
from segtrain.data import LabelContract
from segtrain.errors import ResourceError, is_out_of_memory
from segtrain.inference import Predictor
from segtrain.models import Segmentor

HUGE = 2**22  # squared, beyond the address space of any process


class Greedy(Segmentor):
    """Needs far more memory than there is, in its first layer."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": images[:, :1].new_empty(1, 1, HUGE, HUGE)}


def predictor(model: Segmentor, **keywords: Any) -> Predictor:
    labels = LabelContract(num_classes=2)
    return Predictor(model, labels, mean=(0.5,) * 3, std=(0.5,) * 3, device="cpu", **keywords)


@pytest.mark.fault("F27")
def test_an_image_beyond_memory_is_refused_with_its_size() -> None:
    view = np.broadcast_to(np.zeros((1, 1, 3), dtype=np.uint8), (HUGE, HUGE, 3))
    sentence = f"an image of {HUGE} x {HUGE} does not fit into the memory of cpu; set size"
    with pytest.raises(ResourceError, match=sentence):
        predictor(Greedy(num_classes=2))(view)


def test_a_model_that_needs_too_much_is_named_with_its_size() -> None:
    image = np.zeros((40, 50, 3), dtype=np.uint8)
    with pytest.raises(ResourceError, match=r"40 x 50 does not .* of cpu with size=\[8,9\]; set a"):
        predictor(Greedy(num_classes=2), size=(8, 9))(image)


def test_another_failure_is_not_called_memory() -> None:
    class Broken(Segmentor):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"out": images.reshape(7)}

    with pytest.raises(RuntimeError, match="invalid for input") as caught:
        predictor(Broken(num_classes=2))(np.zeros((4, 5, 3), dtype=np.uint8))
    assert not isinstance(caught.value, ResourceError)


def cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


def opencv() -> None:  # as OpenCV 5 says it
    raise RuntimeError("error: (-4:Insufficient memory) Failed to allocate 270000000000 bytes")


REFUSED: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.empty(HUGE, HUGE),
    "torch, beyond all numbers": lambda: torch.empty(2**40, 2**40),
    "numpy": lambda: np.zeros((HUGE, HUGE)),
    "python": lambda: [0] * 2**50,
    "cuda": cuda,
    "opencv": opencv,
}


@pytest.mark.parametrize("allocate", REFUSED.values(), ids=REFUSED.keys())
def test_every_library_says_it_in_words_that_are_known(allocate: Callable[[], Any]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  each library has a type of its own
        allocate()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("command", "words", "advice"),
    [
        ("train", [], "lower trainer.batch_size, augmentation.crop_size or evaluation.size"),
        ("evaluate", ["checkpoint=a"], "lower evaluation.batch_size or evaluation.size"),
        ("predict", ["checkpoint=a", "input=b", "output=c"], "lower size"),
    ],
)
@pytest.mark.parametrize("allocate", [REFUSED["torch"], REFUSED["numpy"], cuda])
def test_each_command_advises_what_it_has(
    command: str,
    words: list[str],
    advice: str,
    allocate: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(f"segtrain.commands.{command}.{command}", lambda *_: allocate())
    assert run_command(command, words) == 6
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"error: out of memory; {advice}")


def test_the_disk_is_not_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "run/last.pt")

    monkeypatch.setattr("segtrain.commands.train.train", full)
    assert run_command("train", []) == 6
    assert "error: No space left on device: run/last.pt" in capsys.readouterr().err
