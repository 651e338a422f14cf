import dataclasses

import pytest

from files.errors import InputError
from training.recipes import RECIPES, Recipe, get_recipe


def test_the_papers_numbers():
    depth, pose = RECIPES["paper-depth"], RECIPES["paper-pose"]
    assert (depth.sequence_length, pose.sequence_length) == (3, 5)
    for recipe in (depth, pose):
        assert recipe.photometric_weight == 1
        assert recipe.smoothness_weight == 0.5
        assert recipe.smoothness_decay == 2
        assert recipe.smoothed == "disparity"
        assert recipe.explainability
        assert recipe.explainability_weight == 0.2


def test_every_field_says_what_it_means():
    assert all(field.metadata["help"] for field in dataclasses.fields(Recipe))


def test_fields_can_be_changed_and_the_recipe_stays():
    changed = get_recipe("paper-pose", smoothness_weight=0.1, explainability=False, explainability_weight=0.0)
    assert (changed.sequence_length, changed.smoothness_weight, changed.explainability) == (5, 0.1, False)
    assert RECIPES["paper-pose"].smoothness_weight == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": 4}, "sequence length is 4, expected an odd number of frames from 3 on"),
        ({"sequence_length": 1}, "sequence length is 1"),
        ({"sequence_length": -3}, "sequence length is -3"),
        ({"smoothed": "colour"}, "smoothed is 'colour', expected one of disparity, "),
        ({"photometric_weight": -1.0}, "photometric-weight is -1.0, expected a number from 0 on"),
        ({"smoothness_weight": float("nan")}, "smoothness-weight is nan"),
        ({"smoothness_decay": 0.0}, "smoothness-decay is 0.0, expected a number above 0"),
        ({"explainability_weight": 0.0}, "--no-explainability"),
    ],
)
def test_values_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        get_recipe("paper-depth", **changes)


def test_an_unknown_recipe_names_those_that_there_are():
    with pytest.raises(InputError, match="unknown recipe 'paper', expected one of paper-depth, paper-pose"):
        get_recipe("paper")
