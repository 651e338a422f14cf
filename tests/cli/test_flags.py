import argparse
import dataclasses
import os
import sys

from cli.flags import (
    ArgumentParser,
    add_hidden_flags,
    add_option_flags,
    choose_device,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    run_script,
    snippet_length,
)

import pytest
import torch

from files.errors import InputError, UsageError
from files.options import flag_name
from models import NetworkSpec
from training.options import OLD_FLAGS, TrainOptions, change, new_options


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("cam.txt: not\n 3 x 3"), 1, "script.py: error: cam.txt: not 3 x 3\n"),
        (UsageError("--beta1 1: expected less"), 2, "script.py: error: --beta1 1: expected less\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 1, "script.py: error: a.txt: No such file "),
        (OSError(28, "No space left on device"), 1, "script.py: error: No space left on device\n"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
            1,
            "script.py: error: the GPU's memory is full (CUDA out of memory); take a smaller --batch-size\n",
        ),
        (KeyboardInterrupt(), 130, "\nstopped by Ctrl-C\n"),
    ],
)
def test_what_a_user_can_cause_ends_in_one_line(monkeypatch, capsys, error, status, message):
    monkeypatch.setattr(sys, "argv", ["/somewhere/script.py"])

    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == status
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("a bug, too"), ZeroDivisionError()])
def test_a_bug_of_ours_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        run_script(main)


def test_a_script_that_ends_well_ends_quietly(capsys):
    run_script(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (snippet_length, {"3": 3, "5": 5}, ["1", "2", "4", "-3", "3.0", "x", ""]),
        (positive_int, {"1": 1, "10": 10}, ["0", "-1", "1.5", "x", ""]),
        (non_negative_int, {"0": 0, "7": 7}, ["-1", "1e3"]),
        (positive_float, {"1e-4": 1e-4}, ["0", "-1", "nan", "inf", "x"]),
        (non_negative_float, {"0": 0, "0.5": 0.5}, ["-0.1", "nan", "inf"]),
    ],
)
def test_numbers_of_flags(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"got {text!r}, expected an? .*number"):
            kind(text)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "xpu", "cuda:x", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=f"--device {name}: "):
        choose_device(name)


def test_devices(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")

    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert current == [torch.device("cuda:1")]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train.py")
    add_option_flags(parser, TrainOptions, positional="data")
    add_hidden_flags(parser, OLD_FLAGS)
    return parser


def given(*flags: str) -> dict:
    return vars(make_parser().parse_args(flags))


def option_fields() -> dict[str, dataclasses.Field]:
    """Every field that is one flag: those of the objective stand among the others."""
    found = {}
    for field in dataclasses.fields(TrainOptions):
        if dataclasses.is_dataclass(field.type) and field.type is not NetworkSpec:
            found |= {inner.name: inner for inner in dataclasses.fields(field.type)}
        else:
            found[field.name] = field
    return found


def test_flags_that_are_not_given_leave_nothing():
    assert given() == {}
    assert given("data") == {"data": "data"}
    assert new_options(given()) == TrainOptions()


OTHER_VALUES = {  # of each flag: as typed, and the option's value
    "data": (["/data/prepared"], "/data/prepared"),
    "name": (["--name", "run"], "run"),
    "runs": (["--runs", "a/b"], "a/b"),
    "recipe": (["--recipe", "paper-pose"], "paper-pose"),
    "sequence_length": (["--sequence-length", "5"], 5),
    "photometric_weight": (["--photometric-weight", "2"], 2.0),
    "smoothness_weight": (["--smoothness-weight", "0"], 0.0),
    "smoothness_decay": (["--smoothness-decay", "2.3"], 2.3),
    "smoothed": (["--smoothed", "depth"], "depth"),
    "photometric_error": (["--photometric-error", "ssim"], "ssim"),
    "error_range": (["--error-range", "unit"], "unit"),
    "largest_difference": (["--largest-difference", "1"], 1.0),
    "over_sources": (["--over-sources", "minimum"], "minimum"),
    "over_scales": (["--over-scales", "mean"], "mean"),
    "over_pixels": (["--over-pixels", "valid"], "valid"),
    "padding": (["--padding", "border"], "border"),
    "auto_mask": (["--auto-mask", "exclude"], "exclude"),
    "scales": (["--scales", "2"], 2),
    "scale_size": (["--scale-size", "full"], "full"),
    "smoothness": (["--smoothness", "edge-aware"], "edge-aware"),
    "geometry_weight": (["--geometry-weight", "0.5"], 0.5),
    "geometry_mask": (["--geometry-mask"], True),
    "fov": (["--fov", "60"], 60.0),
    "camera_rate": (["--camera-rate", "0.01"], 0.01),
    "auto_mask_after": (["--auto-mask-after", "0.2"], 0.2),
    "align_steps": (["--align-steps", "3"], 3),
    "motion_weight": (["--motion-weight", "0.1"], 0.1),
    "scale_weight": (["--scale-weight", "0.1"], 0.1),
    "prior_weight": (["--prior-weight", "0.1"], 0.1),
    "prior": (["--prior", "world"], "world"),
    "decay_after": (["--decay-after", "0.5"], 0.5),
    "decay_factor": (["--decay-factor", "0.2"], 0.2),
    "graph": (["--no-graph"], False),
    "data_in_memory": (["--data-in-memory"], True),
    "explainability": (["--no-explainability"], False),
    "explainability_weight": (["--explainability-weight", "1e-1"], 0.1),
    "depth_net": (["--depth-net", "disp_net", "width=0.5"], NetworkSpec("disp_net", {"width": "0.5"})),
    "pose_net": (
        ["--pose-net", "pose_exp_net", "orbit_depth=0.83", "rotation=quaternion"],
        NetworkSpec("pose_exp_net", {"orbit_depth": "0.83", "rotation": "quaternion"}),
    ),
    "camera": (["--camera", "given"], NetworkSpec("given")),
    "start_from": (["--start-from", "/a.pt", "--start-from", "/b.pt"], ("/a.pt", "/b.pt")),
    "steps": (["--steps", "10"], 10),
    "epochs": (["--epochs", "3"], 3),
    "batch_size": (["--batch-size", "8"], 8),
    "accumulate": (["--accumulate", "2"], 2),
    "learning_rate": (["--learning-rate", "1e-3"], 1e-3),
    "schedule": (["--schedule", "cosine"], "cosine"),
    "beta1": (["--beta1", "0.5"], 0.5),
    "beta2": (["--beta2", "0.99"], 0.99),
    "augmentation": (["--augmentation", "flip"], "flip"),
    "check": (["--no-check"], False),
    "seed": (["--seed", "7"], 7),
    "encoder_weights": (["--encoder-weights", "imagenet"], "imagenet"),
    "encoder_rate": (["--encoder-rate", "0.3"], 0.3),
    "skip_non_finite": (["--skip-non-finite"], True),
    "device": (["--device", "cpu"], "cpu"),
    "precision": (["--precision", "bf16"], "bf16"),
    "compile": (["--compile"], True),
    "channels_last": (["--channels-last"], True),
    "workers": (["--workers", "0"], 0),
    "log_every": (["--log-every", "1"], 1),
    "pictures_every": (["--pictures-every", "2"], 2),
    "validate_every": (["--validate-every", "3"], 3),
    "save_every": (["--save-every", "0.5"], 0.5),
}


def test_every_option_has_its_flag():
    assert OTHER_VALUES.keys() == option_fields().keys()
    for name, (flags, value) in OTHER_VALUES.items():
        parsed = given(*flags)
        assert parsed == {name: value}
        assert type(parsed[name]) is type(value)
        needed = {"camera": NetworkSpec("learned")} if name == "fov" else {}
        options = change(TrainOptions(), needed | parsed)
        assert getattr(options.objective if hasattr(options.objective, name) else options, name) == value
    once = [flag for name, (flags, _) in OTHER_VALUES.items() if name != "epochs" for flag in flags]
    assert given(*once).keys() == OTHER_VALUES.keys() - {"epochs"}


def test_the_help_has_every_flag_its_default_and_its_group(capsys):
    with pytest.raises(SystemExit) as end:
        given("--help")
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in option_fields():
        assert (flag_name(name) if name != "data" else " data prepared data set") in text
    assert "Adam's learning rate (default: 0.0002)" in text
    assert "check the data before training (see data/check_data.py) (default: on)" in text
    assert "the first 2 % of the steps" in text
    assert "with their defaults: disp_net first_disparity=5.01 width=1; resnet18 first_disparity=5 " in text
    assert "orbit_depth=none width=1 rotation=euler; pair_pose_net encoder=resnet18 order=time " in text
    assert "(default: disp_net)" in text
    assert "(default: pose_exp_net)" in text
    assert "sources=" not in text  # --sequence-length decides it
    titles = ["snippets and objective:", "networks:", "start:", "optimisation:", "devices:", "intervals, in steps"]
    assert sorted(titles, key=text.index) == titles
    assert text.index("snippets and objective:") < text.rindex("--smoothed") < text.index("networks:")
    for name in OLD_FLAGS:
        assert flag_name(name) not in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--recipe", "mine"), "argument --recipe: invalid choice: 'mine'"),
        (("--smoothed", "x"), "argument --smoothed: invalid choice: 'x'"),
        (("--smoothness-weight", "-1"), "argument --smoothness-weight: got '-1', expected a number of 0 or more"),
        (("--learning-rate", "nan"), "argument --learning-rate: got 'nan', expected a number greater than 0"),
        (("--learning-rate", "inf"), "argument --learning-rate: got 'inf'"),
        (("--beta1", "1"), "argument --beta1: got '1', expected a number greater than 0 and less than 1"),
        (("--steps", "0"), "argument --steps: got '0', expected a whole number greater than 0"),
        (("--steps", "1.5"), "argument --steps: got '1.5'"),
        (("--seed", "9" * 30), "argument --seed: got '9999"),
        (("--workers", "-1"), "argument --workers: got '-1', expected a whole number of 0 or more"),
        (("--depth-net",), "argument --depth-net: expected at least one argument"),
        (("--depth-net", "disp_net", "data"), "--depth-net: 'data' is no KEY=VALUE (the data set comes before the"),
        (("data", "more"), "unrecognized arguments: more"),
    ],
)
def test_a_wrong_flag_is_wrong_use(capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        given(*flags)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_flags_of_the_first_version_are_read():
    flags = [text for name in OLD_FLAGS for text in (flag_name(name), "0.5")]
    assert given(*flags) == dict.fromkeys(OLD_FLAGS, "0.5")


def test_a_pipe_that_nobody_reads_any_more_is_no_traceback():
    script = "from cli import flags; flags.run_script(lambda: [print('x' * 1000) for _ in range(10000)])"
    end = os.popen(f'{sys.executable} -c "{script}" 2>&1 | head -c 3')
    assert end.read() == "xxx"


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["--batchsize=4"], " (did you mean --batch-size?)"), (["--xyzzy"], ""), (["more"], ""), (["--name"], "")],
)
def test_a_wrong_flag_is_one_line_with_the_one_that_was_meant(words, meant, capsys):
    parser = ArgumentParser(prog="train.py")
    parser.add_argument("--batch-size")
    parser.add_argument("--name")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(words)
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("train.py: error: ")
    assert line.endswith(f"{meant}; train.py --help lists the flags\n")
    assert line.count("\n") == 1
