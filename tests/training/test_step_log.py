import math

import pytest
import torch

from geometry.pose import pose_to_matrix
from geometry.snippets import Snippets
from loss_functions import ObjectiveOptions, objective
from models.sfm_learner import Prediction
from training import distributed
from training.step_log import StepLog

CPU = torch.device("cpu")
K = torch.tensor([[[30.0, 0, 23.5], [0, 30, 15.5], [0, 0, 1]]])


def example(batch=2, explainability=True) -> tuple[Snippets, Prediction]:
    frames = torch.rand(batch, 3, 3, 32, 48) * 2 - 1
    sizes = [(32, 48), (16, 24), (8, 12), (4, 6)]
    disparities = [torch.rand(batch, 1, *size) + 0.5 for size in sizes]
    logits = [torch.randn(batch, 2, *size) for size in sizes] if explainability else None
    transforms = pose_to_matrix(0.01 * torch.randn(batch, 2, 6))
    intrinsics = K.repeat(batch, 1, 1)
    prediction = Prediction(disparities, transforms, logits, intrinsics)
    return Snippets(frames[:, 0], frames[:, 1:], intrinsics), prediction


def logged(*batches, accumulate=None, options=None) -> StepLog:
    log = StepLog(accumulate or len(batches), CPU)
    log.begin(1, diagnose=True)
    for snippets, prediction in batches:
        explainability = prediction.mask_logits is not None
        log.add(
            snippets,
            prediction,
            objective(snippets, prediction, options or ObjectiveOptions(explainability=explainability)),
        )
    return log


def test_values_by_hand():
    """A camera that moves by (-3, 0, 4) and turns by 0.1, a flat left half at disparity 1 and a right half at 3."""
    snippets, prediction = example(1)
    disparity = torch.ones(1, 1, 32, 48)
    disparity[..., 24:] = 3
    pose = torch.tensor([-3.0, 0, 4, 0, 0.1, 0]).expand(1, 2, 6)
    logits = [torch.full_like(scale, math.log(3)) for scale in prediction.mask_logits]
    prediction = prediction._replace(
        disparities=[disparity, *prediction.disparities[1:]],
        source_from_target=pose_to_matrix(pose),
        mask_logits=logits,
    )
    log = logged((snippets, prediction))
    values = log.values()
    assert values["pose/translation"] == pytest.approx(5)
    assert values["pose/rotation"] == pytest.approx(0.1)
    assert values["disparity/mean"] == pytest.approx(2)
    assert values["disparity/spread"] == pytest.approx(0.5, rel=1e-3)  # the standard deviation is 1
    assert values["explainability/mean"] == pytest.approx(0.75)
    warps = log.last[2].warps[0]
    assert values["photometric/valid_pixels"] == pytest.approx(warps.valid.float().mean().item())


def test_cameras_that_stand_have_the_identity_s_error():
    snippets, prediction = example()
    still = prediction._replace(source_from_target=torch.eye(4).expand(2, 2, 4, 4))
    values = logged((snippets, still)).values()
    error = (snippets.target[:, None] - snippets.sources).abs().mean().item()
    assert values["photometric/identity_warp"] == pytest.approx(error)
    assert values["photometric/warp"] == pytest.approx(error, rel=1e-4)
    assert values["photometric/valid_pixels"] == 1


@pytest.mark.parametrize("explainability", [True, False])
def test_terms_and_their_shares(explainability):
    snippets, prediction = example(explainability=explainability)
    log = logged((snippets, prediction))
    values, loss = log.values(), log.last[2]
    assert values["objective/loss"] == pytest.approx(loss.total.item())
    assert log.loss.item() == pytest.approx(loss.total.item())
    for name, term in loss.terms.items():
        assert values[f"objective/{name}"] == pytest.approx(term.item())
        assert values[f"share/{name}"] == pytest.approx(loss.weights[name] * term.item() / loss.total.item())
        assert log.terms[name].item() == pytest.approx(term.item())
    assert sum(value for name, value in values.items() if name.startswith("share/")) == pytest.approx(1)
    assert ("explainability/mean" in values) == ("share/explainability" in values) == explainability


def test_a_loss_of_0_has_shares_of_0():
    snippets, prediction = example(explainability=False)
    options = ObjectiveOptions(photometric_weight=0.0, smoothness_weight=0.0, explainability=False)
    assert logged((snippets, prediction), options=options).values()["share/photometric"] == 0


def test_several_batches_are_logged_as_one_larger_batch():
    snippets, prediction = example(4)
    parts = [
        (
            Snippets(*(tensor[k : k + 2] for tensor in snippets[:3])),
            Prediction(
                [scale[k : k + 2] for scale in prediction.disparities],
                prediction.source_from_target[k : k + 2],
                [scale[k : k + 2] for scale in prediction.mask_logits],
                prediction.intrinsics[k : k + 2],
            ),
        )
        for k in (0, 2)
    ]
    whole, halves = logged((snippets, prediction)), logged(*parts)
    assert halves.values() == pytest.approx(whole.values(), rel=1e-4)
    assert halves.loss.item() == pytest.approx(whole.loss.item())
    assert {k: v.item() for k, v in halves.terms.items()} == pytest.approx(
        {k: v.item() for k, v in whole.terms.items()}
    )
    assert halves.last[0] is parts[1][0]  # pictures are of the last batch


def test_processes_are_averaged(monkeypatch):
    batch = example()
    alone = logged(batch).values()
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "total", lambda means: means + 3 * means)
    values = logged(batch).values()
    assert values["disparity/mean"] == pytest.approx(2 * alone["disparity/mean"])
    assert values["share/photometric"] == pytest.approx(alone["share/photometric"])


def test_a_new_step_begins_empty():
    log = logged(example())
    log.indices += [1, 2]
    log.damaged.append("a.jpg: truncated")
    log.begin(7, diagnose=False)
    log.clear()
    assert (log.step, log.diagnose) == (7, False)
    assert (log.loss.item(), log.terms, log.indices, log.damaged, log.last) == (0, {}, [], [], None)


def test_what_is_logged_keeps_no_graph():
    snippets, prediction = example()
    for tensor in (*prediction.disparities, *prediction.mask_logits):
        tensor.requires_grad_()
    log = logged((snippets, prediction))
    assert not log.loss.requires_grad
    assert not any(term.requires_grad for term in log.terms.values())
    assert all(isinstance(value, float) for value in log.values().values())
