from types import SimpleNamespace

import pytest
import torch
from path import Path

from benchmarks.surroundings import make_noise
from files.errors import InputError
from train import train_step
from training import steps
from training.options import new_options, plain_options, resume_options
from training.run import open_run
from training.steps import objective_options


def test_the_auto_mask_begins_after_its_share_of_the_steps():
    options = new_options({"auto_mask": "minimum", "auto_mask_after": 0.25, "over_sources": "minimum"})
    masks = []
    for step in range(10):
        of_step = objective_options(SimpleNamespace(options=options, step=step, total_steps=10))
        assert of_step.over_sources == "minimum"
        masks.append(of_step.auto_mask)
    assert masks == ["off"] * 3 + ["minimum"] * 7


def test_a_run_with_a_share_of_its_steps_keeps_its_length():
    stored = plain_options(new_options({"auto_mask": "minimum", "auto_mask_after": 0.25, "steps": 100}))
    with pytest.raises(InputError, match="--auto-mask-after of the run in RUN spans all of its steps"):
        resume_options(stored, {"steps": 200}, "RUN")


@pytest.mark.usefixtures("process_as_before")
def test_a_read_error_comes_before_the_step_changes_batch_norm(tmp_path, monkeypatch):
    make_noise(Path(tmp_path) / "data", 32, 48, 8)
    given = {"recipe": "small", "data": str(tmp_path / "data"), "runs": str(tmp_path), "name": "run", "steps": 2}
    given |= {"batch_size": 2, "accumulate": 2, "workers": 0, "check": False, "align_steps": 0}
    read, left = steps._next_batch, [True]  # the first batch can be read

    def read_once(run):
        if not left:
            raise InputError("no more")
        left.pop()
        return read(run)

    monkeypatch.setattr(steps, "_next_batch", read_once)
    with open_run(new_options(given), None, torch.device("cpu")) as run:
        before = {name: value.clone() for name, value in run.weights.named_buffers()}
        assert any("running_mean" in name for name in before)
        assert steps.before_step(run)
        with pytest.raises(InputError, match="no more"):
            steps.take_step(run, train_step)
        assert all(torch.equal(value, before[name]) for name, value in run.weights.named_buffers())
