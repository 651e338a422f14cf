"""A step whose loss or gradient is not finite changes no weight, and the host learns of it without waiting."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from training import distributed


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: int  # the first is 1
    finite: bool  # loss and gradient, of all processes
    stop: bool  # a process was asked to stop
    save: bool  # the first process wants a checkpoint
    loss: float  # mean over the processes
    gradient_norm: float
    terms: dict[str, float]  # of this process
    indices: list[int]  # of this process's snippets


class StepCheck:
    """Looks at each step between its backward pass and the optimiser's step.

    On a GPU the optimiser itself leaves out a step that the device finds to be not finite, and the host reads what
    became of a step one step later, when the device has long done it: it never waits for the step that it has just
    given to the device. Elsewhere the host looks at once, and drops the gradients.

    Unless single steps may be skipped, the first one that is not finite makes all after it do nothing, too: when the
    host hears of it, the weights are still those of before.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, skip: bool, late: bool) -> None:
        """`late`: the host reads a step late (on a GPU); the optimiser must be fused."""
        self._optimizer, self._skip, self._late = optimizer, skip, late
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._spoilt = torch.zeros((), dtype=torch.bool, device=self._parameters[0].device)
        self._reports: deque[tuple] = deque()

    def before_step(
        self, step: int, loss: Tensor, terms: dict[str, Tensor], indices: list[int], stop: bool, save: bool
    ) -> None:
        """Call it after the backward pass.

        Args:
            step: its number, the first being 1.
            loss: of this process's snippets.
            terms: of the loss.
            indices: of the snippets, to name their files.
            stop, save: what this process wants; all processes hear of it in the outcome of the same step.
        """
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)  # of the processes' mean: the same in each
        wants = torch.tensor([float(stop), float(save)]).to(loss.device, non_blocking=True)
        shared = distributed.total(torch.cat([loss.detach()[None] / distributed.count(), wants]))
        spoilt = ~(shared[0].isfinite() & norm.isfinite())
        self._spoilt = spoilt if self._skip else spoilt | self._spoilt
        report = torch.stack([self._spoilt, *shared, norm, *(term.detach() for term in terms.values())]).to(
            "cpu", non_blocking=True
        )
        event = None
        if report.is_pinned():
            event = torch.cuda.Event()
            event.record()
        self._reports.append((step, report, event, list(terms), indices))
        if self._late:
            # The protocol of fused optimisers with torch.amp.GradScaler: where it is 1 the step does nothing.
            self._optimizer.found_inf = self._spoilt.float()  # type: ignore[attr-defined]
        elif bool(self._spoilt):
            self._optimizer.zero_grad()  # without gradients the optimiser does nothing

    def outcomes(self, all_of_them: bool) -> list[Outcome]:
        """What has become of steps that were not told yet: of all, or of those that can be told without waiting."""
        told = []
        while len(self._reports) > (1 if self._late and not all_of_them else 0):
            step, report, event, names, indices = self._reports.popleft()
            if event is not None:
                event.synchronize()
            spoilt, loss, stop, save, norm, *terms = report.tolist()
            told.append(
                Outcome(step, not spoilt, stop > 0, save > 0, loss, norm, dict(zip(names, terms, strict=True)), indices)
            )
        return told
