import argparse
import sys

import pytest
from path import Path

from benchmarks import against_commit
from files.errors import InputError

# A stand-in for train.py that logs known speeds, and refuses the batch size 13.
TRAIN = """
import json, os, sys

if __name__ == "__main__":
    def value(flag):
        return sys.argv[sys.argv.index(flag) + 1]

    if value("--batch-size") == "13":
        sys.exit("train.py: error: unlucky")
    assert value("--width-of-networks") == "0.5"
    folder = os.path.join(value("--runs"), value("--name"))
    os.makedirs(folder)
    with open(os.path.join(folder, "metrics.jsonl"), "w") as stream:
        for step, speed in {1: 1, 5: 100, 10: 400, 15: 80, 20: 20}.items():
            print(json.dumps({"split": "train", "step": step, "speed/images_per_second": speed}), file=stream)
        print(json.dumps({"split": "validation", "step": 20}), file=stream)
"""


@pytest.fixture
def checkout(tmp_path):
    folder = Path(tmp_path) / "checkout"
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    return folder


def options(**changes) -> argparse.Namespace:
    flags = {"steps": 20, "batch_size": 4, "device": "cpu", "flags": ["--width-of-networks", "0.5"]}
    return argparse.Namespace(**flags | changes)


def test_the_step_is_the_median_of_the_second_half(checkout, tmp_path):
    assert against_commit.time_step(checkout, Path(tmp_path), "run", options()) == 4 / 50
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_is_named(checkout, tmp_path):
    with pytest.raises(InputError, match=r"checkout: train\.py .*: exit status 1: train\.py: error: unlucky"):
        against_commit.time_step(checkout, Path(tmp_path), "run", options(batch_size=13))


def test_the_import_is_that_of_the_checkout(checkout):
    assert 0 < against_commit.time_import(checkout) < 5  # the stand-in imports no PyTorch
    (checkout / "train.py").unlink()
    with pytest.raises(InputError, match="No module named 'train'"):
        against_commit.time_import(checkout)


def test_ratios_are_those_of_the_rounds(capsys):
    against_commit.report("training step", {"this": [0.1, 0.4, 0.3], "other": [0.2, 0.2, 0.3]})
    assert capsys.readouterr().out == "training step       300.0 ms    200.0 ms   1.00 (rounds 0.50 to 2.00)\n"


def test_another_checkout_without_train_py_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["against_commit.py", "--other", str(tmp_path)])
    with pytest.raises(InputError, match=r"has no train\.py"):
        against_commit.main()
