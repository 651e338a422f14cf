import dataclasses

import pytest

from loss_functions import ObjectiveOptions
from training.options import TrainOptions, new_options
from training.recipes import RECIPES


def test_the_papers_numbers():
    depth, pose = (new_options({"recipe": name}) for name in ("paper-depth", "paper-pose"))
    assert (depth.sequence_length, pose.sequence_length) == (3, 5)
    for options in (depth, pose):
        objective = options.objective
        assert objective.photometric_weight == 1
        assert objective.smoothness_weight == 0.5
        assert objective.smoothness_decay == 2
        assert objective.smoothed == "disparity"
        assert objective.explainability
        assert objective.explainability_weight == 0.2
        assert (options.learning_rate, options.beta1, options.beta2, options.batch_size) == (2e-4, 0.9, 0.999, 4)
        assert (options.schedule, options.augmentation) == ("constant", "all")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_changes_options_that_there_are(name):
    fields = {field.name for cls in (TrainOptions, ObjectiveOptions) for field in dataclasses.fields(cls)}
    assert RECIPES[name].keys() <= fields
    assert new_options({"recipe": name}).recipe == name


def test_the_default_recipe_is_the_defaults():
    assert RECIPES[TrainOptions().recipe] == {}
    assert new_options({}) == new_options({"recipe": "paper-depth"}) == TrainOptions()
