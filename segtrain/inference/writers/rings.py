"""Rings of steps: which nodes are connected, and rings that touch themselves."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segtrain.inference.writers.regions import Ints


def connected(number: int, one: Ints, other: Ints) -> Ints:
    """Return the component of each of a number of nodes, of which some pairs are connected."""
    sparse: Any = importlib.import_module("scipy.sparse")
    graph: Any = importlib.import_module("scipy.sparse.csgraph")
    pairs = sparse.coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(number, number))
    return np.asarray(graph.connected_components(pairs, directed=False)[1], np.int64)


def occurs_twice(values: Ints) -> NDArray[np.bool_]:
    """Return which values occur more than once."""
    order = np.argsort(values, kind="stable")
    equal = values[order][1:] == values[order][:-1]
    found = np.zeros(len(values), np.bool_)
    found[order[1:]] = equal
    found[order[:-1]] |= equal
    return found


def split_ring(ring: Ints, corners: Ints, twice: NDArray[np.bool_]) -> list[Ints]:
    """Cut a ring at the corners that it visits twice, so that no ring touches itself."""
    cut: list[Ints] = []
    stack: list[int] = []
    places: dict[int, int] = {}
    for step, corner, is_twice in zip(ring.tolist(), corners.tolist(), twice.tolist(), strict=True):
        if is_twice:
            start = places.get(corner)
            if start is not None:
                cut.append(np.array(stack[start:]))
                del stack[start:]
                places = {key: place for key, place in places.items() if place < start}
            places[corner] = len(stack)
        stack.append(step)
    return [*cut, np.array(stack)]
