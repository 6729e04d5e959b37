"""Classes of a model and of a dataset under common names."""

from __future__ import annotations

import pytest

from segtrain.data import LabelContract
from segtrain.data.labels.scored_classes import ClassMap, ScoredClasses, map_classes
from segtrain.errors import ConfigError


def mapped(class_map: ClassMap, dataset: list[str], model: list[str]) -> ScoredClasses:
    labels = LabelContract(len(dataset), 7, class_names=dataset)
    return map_classes(class_map, labels, model, [(index, 0, 0) for index in range(len(model))])


def test_classes_merge_on_both_sides() -> None:
    class_map = {"car": "vehicle", "bus": "vehicle", "Lorry": "vehicle", "pole": None}
    found = mapped(class_map, ["road", "Lorry", "pole"], ["bus", "pole", "car", "road", "sky"])
    assert found.names == ("road", "vehicle")
    assert found.predicted_only == ("pole", "sky")
    assert found.of_dataset == (0, 1, found.labels.ignore_label)
    assert found.of_model == (1, 2, 1, 0, 3)
    assert found.labels.colours[2:] == ((1, 0, 0), (4, 0, 0))
    assert found.labels.ignore_label == 255


def test_an_empty_map_relates_classes_by_name() -> None:
    found = mapped({}, ["traffic light", "Car"], ["car", "traffic_light", "tram"])
    assert (found.of_model, found.of_dataset) == ((1, 0, 2), (0, 1))
    assert mapped({}, ["a+", "a-"], ["a-", "a+"]).of_model == (1, 0)


def test_an_ignored_class_of_the_model_keeps_apart_from_a_scored_one() -> None:
    found = mapped({"pole": None, "mast": "pole"}, ["road", "mast"], ["road", "mast", "pole"])
    assert (found.names, found.predicted_only) == (("road", "pole"), ("pole (model)",))


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({"carr": "vehicle"}, "class_map.carr: neither .* has a class 'carr'; did you mean 'car'"),
        ({}, "no class for 'cars' and 'truck' of the dataset; .* as in cars: car, or to null"),
        ({"cars": None, "truck": None, "road": None}, "leaves no class to score"),
        ({"cars": "x", "car": "x", "truck": "x", "road": "x"}, "leaves one class, 'x'"),
    ],
)
def test_what_cannot_be_scored_is_refused(class_map: ClassMap, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mapped(class_map, ["road", "cars", "truck"], ["road", "car"])
