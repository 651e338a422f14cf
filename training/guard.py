"""A step whose loss or gradient is not finite changes no weight, and the host learns of it without waiting."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training import distributed


@dataclass(frozen=True)
class Outcome:
    """The result of a step, read back from the device."""

    step: int  # the first is 1
    finite: bool  # loss and gradient, of all processes
    stop: bool  # a process was asked to stop
    save: bool  # the first process wants a checkpoint
    loss: float  # mean over the processes
    gradient_norm: float
    terms: dict[str, float]  # of this process
    indices: list[int]  # of this process's snippets


class NonFiniteGuard:
    """Stands between the backward pass and the optimiser's step.

    On a GPU the fused optimiser skips a step that the device found to be not finite. The host reads the result of a
    step one step later, when the device has finished it, and so never waits. On a CPU the host looks at once and drops
    the gradients.

    Unless single steps may be skipped, the first step that is not finite also blocks all later ones: when the host
    reads of it, the weights are unchanged.

    The forward pass has changed the running statistics of BatchNorm by then. They are kept before the step and put
    back after one that is not finite, also without the host.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, skip: bool, late: bool) -> None:
        """
        Args:
            model: whose running statistics are kept.
            optimizer: fused, if `late`.
            skip: only the step itself is skipped; later steps go on.
            late: the host reads a step's result one step later, as on a GPU.
        """
        self._optimizer, self._skip, self._late = optimizer, skip, late
        statistics = distributed.running_statistics(model)
        kinds = dict.fromkeys(buffer.dtype for buffer in statistics)
        self._statistics = [[buffer for buffer in statistics if buffer.dtype == kind] for kind in kinds]
        self._before: list[Tensor] = []
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._non_finite = torch.zeros((), dtype=torch.bool, device=self._parameters[0].device)
        self._requests = torch.zeros(2, device=self._parameters[0].device)
        self._result, self._names = torch.zeros(0), list[str]()
        self._results: deque[tuple] = deque()  # not yet returned

    def request(self, stop: bool, save: bool) -> None:
        """Call it before a step: the requests of this process, which reach all processes in the outcome of the step."""
        self._requests.copy_(torch.tensor([float(stop), float(save)]), non_blocking=True)

    def begin_step(self) -> None:
        """Call it before the forward pass."""
        self._before = [_flat(buffers) for buffers in self._statistics]

    def check(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Call it after the backward pass. It works on the device alone, so that a CUDA graph can hold it.

        Args:
            loss: mean over this process's snippets.
            terms: of the loss.
        """
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)  # averaged over the processes: the same in each
        shared = distributed.total(torch.cat([loss.detach()[None] / distributed.count(), self._requests]))
        non_finite = ~(shared[0].isfinite() & norm.isfinite())
        self._non_finite.copy_(non_finite if self._skip else non_finite | self._non_finite)
        for buffers, before in zip(self._statistics, self._before, strict=True):
            values = torch.where(self._non_finite, before, _flat(buffers)).split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(values, buffers, strict=True)])
        self._result = torch.stack([self._non_finite, *shared, norm, *(term.detach() for term in terms.values())])
        self._names = list(terms)
        if self._late:
            # Fused optimisers skip the step where `found_inf` is 1 (the protocol of torch.amp.GradScaler).
            self._optimizer.found_inf = self._non_finite.float()  # type: ignore[attr-defined]
        elif bool(self._non_finite):
            self._optimizer.zero_grad()  # without gradients the optimiser does nothing

    def note(self, step: int, indices: list[int]) -> None:
        """Call it after a step: its result is on the way to the host.

        Args:
            step: number of the step, the first is 1.
            indices: of the snippets, to name their files.
        """
        result = self._result.to("cpu", non_blocking=True, copy=True)
        event = None
        if result.is_pinned():
            event = torch.cuda.Event()
            event.record()
        self._results.append((step, result, event, self._names, indices))

    def outcomes(self, wait: bool) -> list[Outcome]:
        """The results not yet returned: with `wait` all of them, else those that are ready."""
        outcomes = []
        while len(self._results) > (1 if self._late and not wait else 0):
            step, result, event, names, indices = self._results.popleft()
            if event is not None:
                event.synchronize()
            non_finite, loss, stop, save, norm, *terms = result.tolist()
            values = dict(zip(names, terms, strict=True))
            outcomes.append(Outcome(step, not non_finite, stop > 0, save > 0, loss, norm, values, indices))
        return outcomes


def _flat(tensors: list[Tensor]) -> Tensor:
    """All values of some tensors in one new tensor: two kernels serve a hundred small buffers."""
    return torch.cat([tensor.flatten() for tensor in tensors])
