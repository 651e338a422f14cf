from types import SimpleNamespace

import pytest

from files.errors import InputError
from training.options import new_options, plain_options, resume_options
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
