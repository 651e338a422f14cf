import re
import sys

import pytest
import torch
from path import Path

from benchmarks import train_step as benchmark
from benchmarks.surroundings import make_noise
from training.options import new_options
from training.run import open_run

pytestmark = pytest.mark.usefixtures("process_as_before")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_timing_the_parts_changes_no_step(tmp_path, accumulate):
    folder = Path(tmp_path)
    make_noise(folder / "data", 32, 48, 20)
    given = {"data": folder / "data", "runs": folder, "network_width": 1 / 16, "batch_size": 2, "workers": 0}
    given |= {"check": False, "steps": 5, "accumulate": accumulate}
    weights = []
    for timed in (False, True):
        with open_run(new_options(given | {"name": f"timed_{timed}"}), None, torch.device("cpu")) as run:
            parts = run.loader, run.model, run.objective
            benchmark.train_steps(run, 1)
            if timed:
                with benchmark.timed_parts(run) as (seconds, _):
                    benchmark.train_steps(run, 2)
                assert seconds.keys() == set(benchmark.PARTS) - {"compiled model", "after the step"}
            else:
                benchmark.train_steps(run, 2)
            assert (run.loader, run.model, run.objective) == parts
            benchmark.train_steps(run, 1)
            assert run.step == 4
            weights.append(torch.cat([parameter.detach().flatten() for parameter in run.weights.parameters()]))
    assert torch.equal(*weights)


def test_it_reports_the_step_and_its_parts(monkeypatch, capsys):
    flags = "--height 32 --width 48 --rounds 1 --steps 2 --batch-size 2 --workers 0 --network-width 0.0625 --device cpu"
    monkeypatch.setattr(sys, "argv", ["train_step.py", *flags.split()])
    benchmark.main()
    out = capsys.readouterr().out
    assert "48 x 32, batch 2, 3 frames, masks on, float32, disp_net width=0.0625 and pose_exp_net width=0.0625" in out
    shares = {name.strip(): float(share) for name, share in re.findall(r"^  (\D+?) +([\d.]+) %$", out, re.MULTILINE)}
    assert list(shares) == [part for part in benchmark.PARTS if part != "compiled model"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.6)
    step, images = (
        float(re.search(rf"^{title} +([\d.]+)", out, re.MULTILINE)[1]) for title in ("step", "images per second")
    )
    assert images == pytest.approx(2000 / step, rel=0.01, abs=0.005)  # printing rounds by up to 0.005


def test_the_port_is_measured_in_turns(tmp_path, monkeypatch, capsys):
    steps = []
    monkeypatch.setattr(benchmark, "load_port", lambda folder: folder)
    monkeypatch.setattr(benchmark, "port_step", lambda *given: steps.append(given) or (lambda: steps.append(None)))
    flags = "--height 32 --width 48 --rounds 2 --steps 3 --batch-size 2 --workers 0 --network-width 0.0625 --device cpu"
    monkeypatch.setattr(sys, "argv", ["train_step.py", *flags.split(), "--port", str(tmp_path)])
    benchmark.main()
    out = capsys.readouterr().out
    assert steps[0] == (Path(tmp_path), 2, 3, 32, 48, torch.device("cpu"))
    assert len(steps) == 1 + benchmark.WARM_UP + 2 * 3
    assert re.search(
        r"^the port's step +[\d.]+ ms \(best round [\d.]+ ms\); ours is [\d.]+ times as fast", out, re.MULTILINE
    )


def test_flags_that_the_benchmark_decides_itself_are_wrong_use(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_step.py", "--epochs", "3"])
    with pytest.raises(SystemExit) as end:
        benchmark.parse_arguments()
    assert end.value.code == 2
    assert "unrecognized arguments: --epochs 3" in capsys.readouterr().err
