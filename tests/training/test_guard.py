"""A step that is not finite changes no weight, at once as on a CPU and late as on a GPU."""

import pytest
import torch

from training import distributed
from training.guard import NonFiniteGuard, Outcome

pytestmark = pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
NAN, INF = float("nan"), float("inf")


class Training:
    """Two parameters, BatchNorm's statistics and Adam; each step has a given loss and gradient."""

    def __init__(self, late: bool, skip: bool = False) -> None:
        self.parameters = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
        self.norms = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(5))
        self.norms.register_buffer("constant", torch.ones(1), persistent=False)
        self.optimizer = torch.optim.Adam(self.parameters, 0.1, fused=True)
        self.guard = NonFiniteGuard(self.norms, self.optimizer, skip, late)
        self.steps = 0

    def step(self, loss=0.5, gradient=1.0, stop=False, save=False) -> None:
        self.steps += 1
        self.guard.request(stop, save)
        self.guard.begin_step()
        for norm in self.norms:  # a loss that is not finite comes from features that are not
            norm(torch.linspace(loss, 7, 4 * norm.num_features).view(2, -1, 2, 1))
        for parameter in self.parameters:
            parameter.grad = torch.ones_like(parameter)
        self.parameters[1].grad[0, 1] = gradient
        terms = {"photometric": torch.tensor(loss), "smoothness": torch.tensor(0.25)}
        self.guard.check(torch.tensor(loss), terms)
        self.optimizer.step()
        self.guard.note(self.steps, [self.steps, 10])

    def state(self) -> list[torch.Tensor]:
        """Weights, and Adam's state where there is one."""
        moments = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        tensors = (*self.parameters, *moments, *self.norms.state_dict().values())
        return [tensor.detach().clone() for tensor in tensors]


def unchanged(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return len(before) == len(after) and all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_finite_step_is_adam_s(late):
    training, plain = Training(late), Training(late)
    for _ in range(3):
        training.step()
        for parameter in plain.parameters:
            parameter.grad = torch.ones_like(parameter)
        for norm in plain.norms:
            norm(torch.linspace(0.5, 7, 4 * norm.num_features).view(2, -1, 2, 1))
        plain.optimizer.step()
    assert unchanged(plain.state(), training.state())
    outcomes = training.guard.outcomes(wait=True)
    assert [outcome.step for outcome in outcomes] == [1, 2, 3]
    assert outcomes[0] == Outcome(
        step=1,
        finite=True,
        stop=False,
        save=False,
        loss=0.5,
        gradient_norm=pytest.approx(7**0.5),
        terms={"photometric": 0.5, "smoothness": 0.25},
        indices=[1, 10],
    )


@pytest.mark.parametrize(("loss", "gradient"), [(NAN, 1.0), (INF, 1.0), (0.5, NAN), (0.5, INF), (0.5, -INF)])
def test_a_step_that_is_not_finite_changes_nothing_and_blocks_the_later_ones(late, loss, gradient):
    training = Training(late)
    training.step()
    before = training.state()
    training.step(loss, gradient)
    assert unchanged(before, training.state())
    training.step()  # late, the host does not know yet
    assert unchanged(before, training.state())
    assert [outcome.finite for outcome in training.guard.outcomes(wait=True)] == [True, False, False]


@pytest.mark.parametrize(("loss", "gradient"), [(NAN, 1.0), (0.5, INF)])
def test_with_skip_only_the_step_itself_is_left_out(late, loss, gradient):
    training, plain = Training(late, skip=True), Training(late)
    for k in range(4):
        before = training.state()
        training.step(*((loss, gradient) if k in (1, 2) else ()))
        assert unchanged(before, training.state()) == (k in (1, 2))
    for _ in range(2):
        plain.step()
    assert unchanged(plain.state(), training.state())
    assert [outcome.finite for outcome in training.guard.outcomes(wait=True)] == [True, False, False, True]


def test_the_first_step_may_be_the_one(late):
    training = Training(late, skip=True)
    training.step(NAN)
    assert all((parameter == 1).all() for parameter in training.parameters)
    training.step()
    assert all((parameter < 1).all() for parameter in training.parameters)


def test_the_host_reads_one_step_late_unless_it_waits(late):
    training = Training(late)
    read = []
    for k in range(6):
        training.step()
        read.append([outcome.step for outcome in training.guard.outcomes(wait=k == 4)])
    assert read == ([[], [1], [2], [3], [4, 5], []] if late else [[1], [2], [3], [4], [5], [6]])
    assert [outcome.step for outcome in training.guard.outcomes(wait=True)] == ([6] if late else [])
    assert training.guard.outcomes(wait=True) == []


def test_requests_come_back_with_their_step(late):
    training = Training(late)
    training.step()
    training.step(save=True)
    training.step(stop=True)
    outcomes = training.guard.outcomes(wait=True)
    assert [(outcome.stop, outcome.save) for outcome in outcomes] == [(False, False), (False, True), (True, False)]


def test_processes_share_loss_and_requests(late, monkeypatch):
    """The other process has a loss of 1.5 and asks for a stop."""
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "total", lambda shared: shared + torch.tensor([1.5 / 2, 1, 0]))
    training = Training(late)
    training.step(loss=0.5, save=True)
    (outcome,) = training.guard.outcomes(wait=True)
    assert (outcome.loss, outcome.stop, outcome.save) == (1.0, True, True)
    monkeypatch.setattr(distributed, "total", lambda shared: shared + torch.tensor([NAN, 0, 0]))
    before = training.state()
    training.step()
    (outcome,) = training.guard.outcomes(wait=True)
    assert not outcome.finite
    assert outcome.terms["photometric"] == 0.5  # of this process
    assert unchanged(before, training.state())


def test_parameters_without_a_gradient_are_left_out(late):
    training = Training(late)
    training.guard.begin_step()
    training.parameters[0].grad = None
    training.parameters[1].grad = torch.ones(2, 2)
    training.guard.check(torch.tensor(0.5), {})
    training.optimizer.step()
    training.guard.note(1, [])
    (outcome,) = training.guard.outcomes(wait=True)
    assert outcome.gradient_norm == 2
    assert (training.parameters[0] == 1).all()
