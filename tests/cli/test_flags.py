import argparse
import os
import sys

import pytest
import torch

from cli.flags import (
    add_recipe_flags,
    choose_device,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
    recipe_from_flags,
    run_script,
)
from files.errors import InputError
from training.recipes import RECIPES, Recipe


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("cam.txt: not\n 3 x 3"), 1, "script.py: error: cam.txt: not 3 x 3\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 1, "script.py: error: a.txt: No such file "),
        (OSError(28, "No space left on device"), 1, "script.py: error: No space left on device\n"),
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
        (positive_int, {"1": 1, "10": 10}, ["0", "-1", "1.5", "x", ""]),
        (non_negative_int, {"0": 0, "7": 7}, ["-1", "1e3"]),
        (positive_float, {"1e-4": 1e-4}, ["0", "-1", "nan", "inf", "x"]),
        (non_negative_float, {"0": 0, "0.5": 0.5}, ["-0.1", "nan", "inf"]),
    ],
)
def test_numbers_of_flags(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"got {text!r}, expected a .*number"):
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


def recipe(*flags: str) -> Recipe:
    parser = argparse.ArgumentParser()
    add_recipe_flags(parser)
    return recipe_from_flags(parser.parse_args(flags))


def test_every_field_of_a_recipe_has_its_flag():
    assert recipe() == RECIPES["paper-depth"]
    assert recipe("--recipe", "paper-pose") == RECIPES["paper-pose"]
    changed = recipe(
        *("--recipe", "paper-pose", "--sequence-length", "7", "--photometric-weight", "2", "--smoothness-weight", "0"),
        *("--smoothness-decay", "2.3", "--smoothed", "depth", "--no-explainability", "--explainability-weight", "0"),
    )
    assert changed == Recipe(7, 2.0, 0.0, 2.3, "depth", False, 0.0)


@pytest.mark.parametrize("flags", [("--recipe", "mine"), ("--smoothed", "x"), ("--smoothness-weight", "-1")])
def test_a_wrong_flag_is_wrong_use(capsys, flags):
    with pytest.raises(SystemExit) as end:
        recipe(*flags)
    assert end.value.code == 2
    assert f"argument {flags[0]}: " in capsys.readouterr().err


def test_a_pipe_that_nobody_reads_any_more_is_no_traceback():
    script = "from cli import flags; flags.run_script(lambda: [print('x' * 1000) for _ in range(10000)])"
    end = os.popen(f'{sys.executable} -c "{script}" 2>&1 | head -c 3')
    assert end.read() == "xxx"
