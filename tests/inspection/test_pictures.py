"""Which samples a report shows, and how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from segtrain.data import LabelContract, Sample
from segtrain.inspection.pictures import choose_examples, draw_example
from segtrain.pages.pictures import draw_overlay, draw_target


def test_examples_show_every_class() -> None:
    pixels = np.zeros((50, 6), dtype=np.int64)
    pixels[:, 0] = 5
    pixels[7, 3] = pixels[30, 4] = pixels[49, 5] = pixels[49, 2] = 1
    pixels[10:20, 1] = 3
    chosen = choose_examples(pixels, 4)
    assert pixels[chosen].any(0).all()
    assert len(set(choose_examples(pixels, 12))) == 12
    assert 49 not in choose_examples(pixels, 12, without=[49])
    assert choose_examples(np.zeros((3, 2), dtype=np.int64), 5) == [0, 2, 1]


def test_targets_and_overlays_are_drawn() -> None:
    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    target = np.zeros((8, 8), dtype=np.uint8)
    target[0, 0], target[4:] = 1, 255
    labels = LabelContract(1, palette=[[200, 0, 0]])
    over = draw_overlay(image, target, labels)
    assert over[0, 1].tolist() == [100, 100, 100]  # the background of an object is left clear
    assert over[0, 0, 0] > 100 > over[0, 0, 1]
    assert len(np.unique(draw_target(target, labels)[4:])) == 2  # stripes
    many = LabelContract(2, multi_label=True, palette=[[200, 0, 0], [0, 100, 0]])
    answers = np.zeros((8, 8, 2), dtype=np.uint8)
    answers[0, 0], answers[0, 1] = (1, 1), (1, 0)
    assert draw_target(answers, many)[0, :3].tolist() == [[100, 50, 0], [200, 0, 0], [0, 0, 0]]
    assert draw_overlay(image, answers, many)[0, 2].tolist() == [100, 100, 100]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_examples_of_any_number_of_channels(channels: int) -> None:
    image = np.random.default_rng(0).random((900, 30, channels), dtype=np.float32)
    target = np.zeros((900, 30), dtype=np.uint8)
    example = draw_example(Sample(image, target, "a"), LabelContract(3))
    assert example.image.shape == example.mask.shape == example.overlay.shape == (360, 12, 3)
    assert example.class_names == ("class_0",)
