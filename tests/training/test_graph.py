"""A step that is captured and replayed is the step as it is written.

On a CPU a tape stands for the CUDA graph. Like one, it holds the operations of one step with the tensors and the
numbers that they had, and a replay computes them again in place: what reaches the step in another way than by its
buffers stays as it was.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from path import Path
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.surroundings import make_noise
from models.checkpoint import load_checkpoint
from train import train, train_step
from training import steps
from training.graph import WARM_UP, StepGraph
from training.guard import NonFiniteGuard
from training.logger import read_metrics
from training.options import new_options
from training.run import open_run, read_stopped_run, resumed_options

TINY = {"network_width": 1 / 16, "batch_size": 2, "workers": 0, "check": False, "log_every": 2, "pictures_every": 3}


class Tape(TorchDispatchMode):
    """The operations of a step; `play` computes them again, each result to where it was."""

    def __init__(self):
        super().__init__()
        self._operations = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        self._operations.append((function, arguments, options or {}, result))
        return result

    def play(self):
        for function, arguments, options, before in self._operations:
            if function.is_view:
                continue
            after = function(*arguments, **options)
            if any(part.alias_info is not None for part in function._schema.returns):
                continue  # in place
            flat, _ = torch.utils._pytree.tree_flatten((before, after))
            olds, news = flat[: len(flat) // 2], flat[len(flat) // 2 :]
            for old, new in zip(olds, news, strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.detach().copy_(new)


def record(step):
    tape = Tape()
    with tape:
        step()
    return lambda: no_gradient(tape.play)


def no_gradient(function):
    with torch.no_grad():
        function()


pytestmark = pytest.mark.usefixtures("process_as_before")


@pytest.fixture
def data(tmp_path):
    make_noise(Path(tmp_path) / "data", 32, 48, 20)
    return Path(tmp_path) / "data"


def as_on_a_gpu(run, captured):
    """Learning rates in tensors, results one step late, and the step on a tape."""
    for group in run.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    run.guard = NonFiniteGuard(run.weights, run.optimizer, run.options.skip_non_finite, late=True)
    if captured:
        run.graph = StepGraph(capture=record, warm_up=lambda step: step())
    return run


def begin(data, name, captured, given, resume=False):
    options = TINY | {"data": str(data), "runs": str(data.parent), "name": name, "device": "cpu"} | given
    if resume:
        stopped = read_stopped_run(data.parent / name)
        return as_on_a_gpu(open_run(resumed_options(stopped, given), stopped, torch.device("cpu")), captured)
    return as_on_a_gpu(open_run(new_options(options), None, torch.device("cpu")), captured)


def finished(data, name, captured, given):
    with begin(data, name, captured, given) as run:
        train(run)
    return result(data, name)


def result(data, name):
    lines = [line for line in read_metrics(data.parent / name / "metrics.jsonl") if line["split"] == "train"]
    lines = [{k: v for k, v in line.items() if not k.startswith("speed/") and k != "time"} for line in lines]
    return load_checkpoint(data.parent / name / "last.pt"), lines


def assert_same(one, other):
    (content, lines), (content_2, lines_2) = one, other
    assert content["step"] == content_2["step"]
    assert [k for k, v in content["model"].items() if not torch.equal(v, content_2["model"][k])] == []
    moments, moments_2 = content["optimizer"]["state"], content_2["optimizer"]["state"]
    assert all(torch.equal(v, moments_2[p][k]) for p, state in moments.items() for k, v in state.items())
    assert lines == lines_2
    assert len(lines) >= 3


@pytest.mark.parametrize(
    "given",
    [
        {"schedule": "cosine"},
        {"accumulate": 2, "augmentation": "flip", "precision": "bf16"},
        {"auto_mask": "minimum", "explainability": False, "smoothed": "depth", "auto_mask_after": 0.5, "steps": 12},
        {"geometry_weight": 0.5, "geometry_mask": True, "scales": 1},
    ],
    ids=["cosine", "accumulated", "other terms", "geometry"],
)
def test_replayed_or_as_written_the_training_is_the_same_to_the_bit(data, given):
    given = {"steps": 7} | given
    assert_same(finished(data, "written", False, given), finished(data, "replayed", True, given))


def test_a_replayed_run_resumes_exactly(data):
    whole = finished(data, "whole", True, {"steps": 9, "schedule": "cosine"})
    with begin(data, "parts", True, {"steps": 9, "schedule": "cosine"}) as run:
        run.total_steps, total = 5, run.total_steps
        while steps.before_step(run):
            run.total_steps = total  # the schedule's
            steps.take_step(run, train_step)
            steps.after_step(run)
            if run.step == 5:
                run.stopping = True
    with begin(data, "parts", True, {}, resume=True) as run:
        assert run.step == 5
        train(run)
    assert_same(whole, result(data, "parts"))


def test_a_step_that_is_not_finite_is_skipped_inside_the_replay(data, monkeypatch):
    """The images of some steps become NaN in their buffer, and K with them."""
    batches = steps.batches
    wrong = (WARM_UP + 1, WARM_UP + 2)

    def spoilt(run):
        for snippets, random in batches(run):
            factor = float("nan") if run.step in wrong else 1.0
            yield snippets._replace(intrinsics=snippets.intrinsics * factor), random

    monkeypatch.setattr(steps, "batches", spoilt)
    given = {"steps": 7, "skip_non_finite": True}
    one, other = finished(data, "written", False, given), finished(data, "replayed", True, given)
    assert one[0]["skipped"] == other[0]["skipped"] == 2
    assert_same(one, other)


def test_a_step_that_cannot_be_captured_is_taken_as_it_is_written(data, capsys):
    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    given = {"steps": 5}
    with begin(data, "refused", False, given) as run:
        run.graph = StepGraph(capture=refuse, warm_up=lambda step: step())
        train(run)
    assert "cannot be captured as a CUDA graph, and runs without, more slowly: operation not" in capsys.readouterr().out
    content, lines = result(data, "refused")
    written, expected = finished(data, "written", False, given)
    assert all(torch.equal(v, written["model"][k]) for k, v in content["model"].items())
    assert lines == expected


def test_the_step_after_a_failed_capture_does_not_hold_its_tensors():
    def refuse(step):
        step()
        raise RuntimeError("out of memory")

    def step(inputs):
        handled.append(sys.exc_info()[0])  # while an error is handled its traceback holds the failed step's tensors

    handled = []
    graph = StepGraph(capture=refuse, warm_up=lambda step: step())
    for _ in range(WARM_UP + 2):
        graph.take(step, [], SimpleNamespace(keep=False))
    assert handled == [None] * (WARM_UP + 3)


def test_on_a_cpu_and_with_no_graph_nothing_is_captured(data):
    options = new_options(
        TINY | {"data": str(data), "runs": str(data.parent), "name": "a", "device": "cpu", "steps": 2}
    )
    with open_run(options, None, torch.device("cpu")) as run:
        assert run.graph is None


@pytest.mark.gpu
@pytest.mark.parametrize(
    "given", [{}, {"accumulate": 2}, {"precision": "bf16", "channels_last": True}, {"geometry_weight": 0.5}]
)
def test_on_a_gpu_50_captured_steps_are_50_steps(data, given, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    given = (
        TINY | {"data": str(data), "runs": str(data.parent), "steps": 50, "log_every": 1, "network_width": 0.25} | given
    )
    curves = []
    for graph in (False, True):
        options = new_options(given | {"name": f"graph_{graph}", "graph": graph, "device": "cuda"})
        with open_run(options, None, torch.device("cuda")) as run:
            monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
            assert (run.graph is not None) is graph
            train(run)
        curves.append([line["objective/loss"] for line in result(data, f"graph_{graph}")[1]])
    assert len(curves[0]) == 50
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


@pytest.mark.gpu
def test_a_replay_does_not_make_the_host_wait(data):
    options = new_options(
        TINY | {"data": str(data), "runs": str(data.parent), "name": "a", "steps": 20, "log_every": 100}
    )
    with open_run(options, None, torch.device("cuda")) as run:
        while steps.before_step(run):
            torch.cuda.set_sync_debug_mode("error" if run.step > WARM_UP + 1 else "default")
            try:
                steps.take_step(run, train_step)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            steps.after_step(run)
