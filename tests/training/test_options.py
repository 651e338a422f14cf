import dataclasses
import json
import os

import pytest
import torch

from files.errors import InputError, UsageError
from loss_functions import ObjectiveOptions
from models import NetworkSpec, version_1
from training.options import (
    OLD_FLAGS,
    TrainOptions,
    change,
    describe_recipe,
    fit_batch,
    new_options,
    plain_options,
    resume_options,
)

FIELDS = {field.name: field for field in dataclasses.fields(TrainOptions)}


def test_every_field_says_what_it_means():
    for cls in (TrainOptions, ObjectiveOptions):
        for field in dataclasses.fields(cls):
            if field.name not in ("objective", "depth_net", "pose_net", "camera"):
                assert field.metadata["help"], field.name


def test_the_papers_length_and_the_machine_s_workers_are_the_defaults():
    options = TrainOptions()
    assert (options.steps, options.epochs) == (None, None)
    assert options.workers == min(4, os.cpu_count())
    assert options.networks() == {
        "depth": NetworkSpec("disp_net", {"first_disparity": 5.01, "width": 1.0}),
        "pose": NetworkSpec(
            "pose_exp_net",
            {
                **{"sources": 2, "explainability": True, "translation_scale": 0.01, "rotation_scale": 0.01},
                **{"orbit_depth": None, "width": 1.0, "rotation": "euler"},
            },
        ),
        "camera": NetworkSpec("given"),
    }


@pytest.mark.parametrize(("length", "explainability"), [(3, True), (5, False), (7, True)])
def test_the_pose_network_gets_its_sources_and_masks_from_the_training(length, explainability):
    options = new_options({"sequence_length": length, "explainability": explainability})
    arguments = options.networks()["pose"].arguments
    assert (arguments["sources"], arguments["explainability"]) == (length - 1, explainability)


@pytest.mark.parametrize(
    ("given", "arguments", "flag"),
    [
        ({}, {"sources": "4"}, "--sequence-length"),
        ({"explainability": False}, {"explainability": "true"}, "--explainability"),
        ({}, {"explainability": "false"}, "--no-explainability"),
    ],
)
def test_a_pose_network_s_argument_that_contradicts_the_training_is_wrong_use(given, arguments, flag):
    """The first was a traceback after the run's folder was made."""
    with pytest.raises(UsageError, match=rf"--pose-net pose_exp_net .*: .*{flag}.* decides it"):
        new_options({**given, "pose_net": NetworkSpec("pose_exp_net", arguments)})
    with pytest.raises(UsageError, match=r"--pose-net pair_pose_net sources=8: --sequence-length decides it, and the "):
        new_options({"explainability": False, "pose_net": NetworkSpec("pair_pose_net", {"sources": "8"})})


def test_a_pose_network_s_argument_may_repeat_what_the_training_decides():
    pose = NetworkSpec("pose_exp_net", {"sources": "4", "explainability": "false"})
    options = new_options({"sequence_length": 5, "explainability": False, "pose_net": pose})
    assert options.networks()["pose"].arguments["sources"] == 4


# New runs ------------------------------------------------------------------------------------------------------------


def test_flags_prevail_over_the_recipe_which_prevails_over_the_defaults():
    options = new_options({"recipe": "paper-pose", "smoothness_weight": 0.1, "explainability": False, "seed": 3})
    assert (options.sequence_length, options.seed) == (5, 3)
    assert options.objective == ObjectiveOptions(smoothness_weight=0.1, explainability=False)
    assert new_options({"recipe": "paper-pose", "sequence_length": 3}).sequence_length == 3
    assert new_options({"recipe": "paper-pose"}).objective == ObjectiveOptions()  # the recipe stays as it is


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "paper"}, "--recipe 'paper': expected one of paper-depth, paper-pose"),
        ({"sequence_length": 4}, "--sequence-length 4: expected an odd number of frames from 3 on"),
        ({"sequence_length": 1}, "--sequence-length 1: expected a whole number of 3 or more"),
        ({"sequence_length": -3}, "--sequence-length -3: expected"),
        ({"smoothed": "colour"}, "--smoothed 'colour': expected one of disparity, "),
        ({"photometric_weight": -1.0}, "--photometric-weight -1.0: expected a number of 0 or more"),
        ({"smoothness_weight": float("nan")}, "--smoothness-weight nan: expected"),
        ({"smoothness_decay": 0.0}, "--smoothness-decay 0.0: expected a number greater than 0"),
        ({"explainability_weight": 0.0}, "--explainability-weight 0: .*--no-explainability"),
        ({"steps": 3, "epochs": 1}, "--steps 3 --epochs 1: expected one of them"),
        ({"beta1": 1.0}, "--beta1 1.0: expected a number greater than 0 and less than 1"),
        ({"seed": 2**63}, "--seed 9223372036854775808: expected"),
        ({"depth_net": NetworkSpec("resnet")}, "--depth-net unknown network 'resnet', expected one of disp_net"),
        ({"depth_net": NetworkSpec("disp_net", {"width": "x"})}, "--depth-net disp_net: width is 'x', expected float"),
        ({"pose_net": NetworkSpec("pose_exp_net", {"size": "3"})}, "--pose-net pose_exp_net: unknown argument 'size'"),
        ({"pose_net": NetworkSpec("disp_net")}, "--pose-net unknown network 'disp_net'"),
        ({"camera": NetworkSpec("given", {"f": "3"})}, "--camera given: unknown argument 'f', it has no arguments"),
    ],
)
def test_values_that_cannot_be_are_wrong_use(given, message):
    with pytest.raises(UsageError, match=f"^{message}") as caught:
        new_options(given)
    assert "\n" not in str(caught.value)


def test_without_masks_their_weight_may_be_0():
    given = {"explainability": False, "explainability_weight": 0.0}
    assert new_options(given).objective == ObjectiveOptions(explainability=False, explainability_weight=0.0)


# Flags of the first version ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", OLD_FLAGS)
def test_flags_of_the_first_version_are_arguments_of_the_networks(flag):
    value = {"rotation": "quaternion"}.get(flag, "0.5")
    networks = new_options({flag: value}).networks()
    changed = {
        (role, name): argument
        for role, spec in networks.items()
        for name, argument in spec.arguments.items()
        if TrainOptions().networks()[role].arguments[name] != argument
    }
    expected = value if flag == "rotation" else 0.5
    assert (
        changed
        == {
            "network_width": {("depth", "width"): 0.5, ("pose", "width"): 0.5},
            "pose_net_width": {("pose", "width"): 0.5},
            "first_disparity": {("depth", "first_disparity"): 0.5},
            "translation_scale": {("pose", "translation_scale"): 0.5},
            "rotation_scale": {("pose", "rotation_scale"): 0.5},
            "fixation_depth": {("pose", "orbit_depth"): 0.5},
            "rotation": {("pose", "rotation"): expected},
        }[flag]
    )


def test_old_flags_add_up_and_the_special_one_prevails():
    given = {"network_width": 0.5, "pose_net_width": 0.25, "fixation_depth": "0.83", "rotation_scale": 0.2}
    given["pose_net"] = NetworkSpec("pose_exp_net", {"translation_scale": "0.1"})
    networks = new_options(given).networks()
    assert networks["depth"].arguments["width"] == 0.5
    assert networks["pose"].arguments == {
        **{"sources": 2, "explainability": True, "translation_scale": 0.1, "rotation_scale": 0.2},
        **{"orbit_depth": 0.83, "width": 0.25, "rotation": "euler"},
    }
    assert given["pose_net"].arguments == {"translation_scale": "0.1"}  # what was given stays as it is
    assert new_options({"pose_net_width": 0.25, "network_width": 0.5}) == new_options(
        {"network_width": 0.5, "pose_net_width": 0.25}
    )


def test_a_wrong_value_of_an_old_flag_is_wrong_use():
    with pytest.raises(UsageError, match="--pose-net pose_exp_net: orbit_depth is 'far', expected float or none"):
        new_options({"fixation_depth": "far"})


# Stored options ------------------------------------------------------------------------------------------------------

OTHERS = TrainOptions(
    data="prepared",
    name="run",
    recipe="paper-pose",
    sequence_length=5,
    objective=ObjectiveOptions(smoothness_weight=0.1, smoothed="depth"),
    depth_net=NetworkSpec("disp_net", {"width": "0.5"}),
    pose_net=NetworkSpec("pose_exp_net", {"orbit_depth": 0.83, "rotation": "quaternion"}),
    start_from=("a.pt", "b.pt"),
    steps=100,
    seed=2**62,
    skip_non_finite=True,
    save_every=0.5,
)


@pytest.mark.parametrize("options", [TrainOptions(), OTHERS])
def test_stored_options_come_back_but_for_the_length(options):
    """The checkpoint's record has the length, which may have been given as epochs."""
    for plain in (plain_options(options), json.loads(json.dumps(plain_options(options)))):
        assert resume_options(plain, {}, "runs/a") == dataclasses.replace(options, steps=None, epochs=None)


def test_options_newer_than_the_checkpoint_get_their_default():
    plain = plain_options(OTHERS)
    for name in ("augmentation", "accumulate", "camera"):
        del plain[name]
    del plain["objective"]["smoothness_decay"]
    assert resume_options(plain, {}, "runs/a") == dataclasses.replace(OTHERS, steps=None)


CHANGES = {  # another value for each field
    **{
        "data": os.path.abspath("moved"),
        "name": "other",
        "runs": "elsewhere",
        "recipe": "paper-depth",
        "sequence_length": 3,
    },
    **{"photometric_weight": 2.0, "smoothness_weight": 0.2, "smoothness_decay": 3.0, "smoothed": "disparity"},
    **{"explainability": False, "explainability_weight": 0.3, "depth_net": NetworkSpec("disp_net", {"width": 0.25})},
    **{"pose_net": NetworkSpec("pose_exp_net", {"orbit_depth": 0.8, "rotation": "quaternion"})},
    **{"encoder_weights": "imagenet", "encoder_rate": 0.3},
    **{"start_from": ("a.pt",), "steps": 200, "epochs": 7, "batch_size": 9, "accumulate": 3, "learning_rate": 0.1},
    **{"photometric_error": "ssim", "error_range": "unit", "largest_difference": 1.0, "over_sources": "minimum"},
    **{"over_scales": "mean", "over_pixels": "valid", "padding": "border", "auto_mask": "exclude", "scales": 2},
    **{"scale_size": "full", "smoothness": "edge-aware", "geometry_weight": 0.5, "geometry_mask": True},
    **{"schedule": "cosine", "beta1": 0.8, "beta2": 0.99, "augmentation": "none", "check": False, "seed": 1},
    **{"decay_after": 0.5, "decay_factor": 0.2},
    **{"skip_non_finite": False, "device": "cpu", "precision": "bf16", "compile": True, "channels_last": True},
    "data_in_memory": True,
    "graph": False,
    **{"fov": 70.0, "camera_rate": 0.01, "auto_mask_after": 0.25},
    **{"align_steps": 3, "motion_weight": 0.1, "scale_weight": 0.2, "prior_weight": 0.3, "prior": "other.pt"},
    **{"workers": 7, "log_every": 1, "pictures_every": 2, "validate_every": 3, "save_every": 1.0},
}
MAY_CHANGE = {
    **dict.fromkeys(["data", "steps", "epochs", "batch_size", "accumulate", "check", "skip_non_finite", "device"]),
    **dict.fromkeys(
        [
            "compile",
            "channels_last",
            "data_in_memory",
            "graph",
            "workers",
            "log_every",
            "pictures_every",
            "validate_every",
        ]
    ),
    **dict.fromkeys(["save_every"]),
}


def test_each_field_may_change_or_is_refused():
    objective = {field.name for field in dataclasses.fields(ObjectiveOptions)}
    assert CHANGES.keys() | {"camera"} == (FIELDS.keys() - {"objective"}) | objective
    stored = plain_options(OTHERS)
    for name, value in CHANGES.items():
        if name in MAY_CHANGE:
            assert getattr(resume_options(stored, {name: value}, "runs/a"), name) == value
            continue
        with pytest.raises(InputError) as caught:
            resume_options(stored, {name: value}, "runs/a")
        line = str(caught.value)
        assert line.startswith(f"--{name.replace('_', '-')} ")
        assert ": the run in runs/a has " in line
        assert "--start-from begins a new run with these weights" in line
        assert "\n" not in line


def test_the_same_value_is_no_change():
    given = {"learning_rate": 2e-4, "smoothed": "depth", "recipe": "paper-pose", "network_width": "0.5"}
    given |= {"depth_net": NetworkSpec("disp_net", {"width": 0.5, "first_disparity": "5.01"})}
    with pytest.raises(InputError, match=r"--pose-net pose_exp_net .* width=0.5 .*: the run in runs/a has .* width=1 "):
        resume_options(plain_options(OTHERS), given, "runs/a")
    del given["network_width"]
    assert resume_options(plain_options(OTHERS), given, "runs/a").learning_rate == 2e-4


def test_a_schedule_spans_all_steps():
    stored = plain_options(dataclasses.replace(OTHERS, schedule="cosine"))
    assert resume_options(stored, {"workers": 1}, "runs/a").schedule == "cosine"
    for given in ({"steps": 200}, {"epochs": 3}):
        with pytest.raises(InputError, match="the cosine schedule of the run in runs/a spans all of its steps"):
            resume_options(stored, given, "runs/a")


VERSION_1 = {  # of a checkpoint's config
    **{"data": "prepared", "name": "run", "runs": "runs", "recipe": "paper-pose", "sequence_length": 5},
    **{"photometric_weight": 1.0, "smoothness_weight": 0.1, "smoothness_decay": 2.0, "smoothed": "depth"},
    **{"explainability": True, "explainability_weight": 0.2, "rotation": "quaternion", "network_width": 0.0625},
    **{"pose_net_width": 0.125, "start_from": ["a.pt"], "first_disparity": 1.2, "translation_scale": 0.1},
    **{"rotation_scale": 0.2, "fixation_depth": 0.83, "steps": 20, "epochs": None, "batch_size": 2},
    **{"learning_rate": 0.001, "schedule": "constant", "beta1": 0.8, "beta2": 0.99, "augmentation": "flip"},
    **{"no_check": True, "seed": 3, "skip_non_finite": True, "accumulate": 2, "device": "cpu"},
    **{"precision": "float32", "compile": False, "channels_last": True, "workers": 0, "log_every": 51},
    **{"pictures_every": 501, "validate_every": 7, "save_every": 11, "height": 64, "width": 96, "snippets": 8},
    **{"processes": 1, "scenes": ["a", "b"], "total_steps": 20},
}


def upgraded(config: dict) -> dict:
    """The options in a checkpoint of version 1."""
    pose = {"pose_pred.weight": torch.zeros(24, 32, 1, 1), "predict_mask1.weight": 0, "conv1.0.bias": torch.zeros(2)}
    content = {"format": "sfmlearner", "version": 1, "step": 1, "best": {}, "optimizer": {}, "config": config}
    content |= {"disp_net": {"upconv1.0.bias": torch.zeros(1)}, "pose_exp_net": pose}
    return version_1.upgrade(content, "last.pt")["options"]


def test_options_of_a_checkpoint_of_version_1():
    assert resume_options(upgraded(VERSION_1), {"workers": 3}, "runs/a") == TrainOptions(
        **{"data": "prepared", "name": "run", "runs": "runs", "recipe": "paper-pose", "sequence_length": 5},
        objective=ObjectiveOptions(smoothness_weight=0.1, smoothed="depth"),
        depth_net=NetworkSpec("disp_net", {"width": 0.0625, "first_disparity": 1.2}),
        pose_net=NetworkSpec(
            "pose_exp_net",
            {
                **{"width": 0.125, "translation_scale": 0.1, "rotation_scale": 0.2, "orbit_depth": 0.83},
                "rotation": "quaternion",
            },
        ),
        **{"start_from": ("a.pt",), "batch_size": 2, "accumulate": 2, "learning_rate": 0.001, "beta1": 0.8},
        **{"beta2": 0.99, "augmentation": "flip", "check": False, "seed": 3, "skip_non_finite": True},
        **{"device": "cpu", "channels_last": True, "workers": 3, "log_every": 51, "pictures_every": 501},
        **{"validate_every": 7, "save_every": 11},
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"batch_size": "many"}, "batch_size is 'many'"),
        ({"smoothed": 3}, "smoothed is 3, expected one of disparity"),
        ({"first_disparity": torch.zeros(2)}, "first_disparity is a Tensor, expected float"),
        ({"rotation_scale": "x"}, "rotation_scale is 'x', expected float"),
        ({"explainability": torch.zeros(2)}, "explainability is a Tensor"),
    ],
)
def test_damaged_options_of_version_1_are_refused(damage, message):
    with pytest.raises(InputError, match=f"^runs/a/last.pt: damaged: .*{message}"):
        resume_options(upgraded(VERSION_1 | damage), {}, "runs/a")


def test_what_the_first_checkpoints_did_not_have_gets_its_default():
    assert resume_options(upgraded({"no_check": torch.ones(2)}), {}, "runs/a").check
    few = {"sequence_length": 5, "batch_size": 2}
    assert resume_options(upgraded(few), {}, "runs/a") == TrainOptions(
        **few,
        depth_net=NetworkSpec("disp_net", {"width": 1 / 16}),
        pose_net=NetworkSpec("pose_exp_net", {"width": 0.125}),
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"batch_size": "many"}, "batch_size is 'many', expected a whole number greater than 0"),
        ({"learning_rate": [1]}, "learning_rate is a list, expected a number greater than 0"),
        ({"learning_rate": torch.zeros(2)}, "learning_rate is a Tensor"),
        ({"schedule": "x"}, "schedule is 'x', expected one of constant, cosine"),
        ({"seed": 10**40}, "seed is 1000"),
        ({"start_from": [1]}, "start_from is a list, expected a list of names"),
        ({"objective": {"smoothed": "x"}}, "smoothed is 'x', expected one of disparity"),
        ({"objective": 3}, "expected options by name, found int"),
        ({"sequence_length": 4}, "--sequence-length 4: expected an odd number"),
        ({"depth_net": {"name": "swin", "arguments": {}}}, "--depth-net unknown network 'swin'"),
        ({"depth_net": {}}, "it lacks name"),
        ({"depth_net": {"name": "disp_net", "arguments": {"width": [1]}}}, "width is a list, expected float"),
        ({"pose_net": {"name": "pose_exp_net", "arguments": {"x\n" * 99: 1}}}, "unknown argument 'x"),
    ],
)
def test_damaged_options_are_refused_in_one_line(damage, message):
    with pytest.raises(InputError) as caught:
        resume_options(plain_options(OTHERS) | damage, {}, "runs/a")
    line = str(caught.value)
    assert line.startswith("runs/a/last.pt: damaged: ")
    assert message in line
    assert "\n" not in line
    assert len(line) < 300


# Batches over processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "before", "now", "expected"),
    [
        ({}, 1, 1, (4, 2)),
        ({}, 1, 2, (2, 2)),
        ({}, 2, 1, (8, 2)),
        ({}, 1, 4, (1, 2)),
        ({"batch_size": 8, "accumulate": 1}, 1, 1, (8, 1)),
        ({"batch_size": 2, "accumulate": 1}, 1, 4, (2, 1)),
        ({"accumulate": 4}, 2, 1, (4, 4)),
        ({"accumulate": 8}, 1, 1, None),
        ({"batch_size": 8}, 1, 1, None),
        ({}, 1, 3, None),
        ({}, 1, 16, None),
    ],
)
def test_the_snippets_per_step_stay(given, before, now, expected):
    stored = TrainOptions(batch_size=4, accumulate=2)
    options = change(stored, given)
    if expected is None:
        with pytest.raises(InputError, match="the run has 8 snippets per step; a resumed run keeps that number"):
            fit_batch(options, stored, before, now)
    else:
        fitted = fit_batch(options, stored, before, now)
        assert (fitted.batch_size, fitted.accumulate) == expected
        assert dataclasses.replace(fitted, batch_size=4, accumulate=2) == stored


def test_a_recipe_is_printed_as_what_decides_the_result():
    printed = dict(line.split(maxsplit=1) for line in describe_recipe(OTHERS).splitlines())
    assert (printed["sequence_length"], printed["smoothed"], printed["batch_size"]) == ("5", "depth", "4")
    assert printed["depth_net"] == "disp_net first_disparity=5.01 width=0.5"
    assert "rotation=quaternion" in printed["pose_net"]
    assert printed.keys() & {"data", "name", "runs", "workers", "seed", "start_from", "recipe"} == set()
    assert printed["images"] == "416 x 128 (prepare the data with --width 416 --height 128)"
