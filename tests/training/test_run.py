"""What a run says when it begins."""

import pytest
import torch
from path import Path

from benchmarks.surroundings import make_noise
from datasets.layout import write_scene_names
from training.logger import read_metrics
from training.options import new_options
from training.run import STRUCTURE_UNKNOWN, open_run

pytestmark = pytest.mark.usefixtures("process_as_before")


@pytest.mark.parametrize(("frames", "expected"), [(24, [STRUCTURE_UNKNOWN]), (6, [])])
def test_a_validation_without_a_rigid_scene_is_a_warning_unless_it_is_short(tmp_path, capsys, frames, expected):
    data = Path(tmp_path) / "data"
    make_noise(data, 32, 48, frames)
    write_scene_names(data / "val.txt", ["noise"])
    given = {"data": str(data), "runs": str(tmp_path), "name": "run", "workers": 0, "check": False, "steps": 1}
    with open_run(new_options(given), None, torch.device("cpu")) as run:
        lines = read_metrics(run.folder / "metrics.jsonl")
    assert [line["name"] for line in lines if line["split"] == "warning"] == expected
    assert ("WARNING: depth cannot be judged" in capsys.readouterr().out) == bool(expected)
