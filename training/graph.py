"""The training step as a CUDA graph: captured once, then replayed by a single call of the host.

A step launches some thousand kernels, and Python takes longer to ask for them than a GPU to compute them. A graph
holds the kernels and their addresses. So everything that changes from step to step lies in buffers at fixed addresses,
which the host fills before a replay: snippets, random numbers, learning rates, requests. Everything that is read
afterwards lies at fixed addresses, too: the guard's result, and what the log keeps.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from geometry.snippets import Snippets
from training.step_log import StepLog

WARM_UP = 3  # steps before the capture, in which cuDNN chooses its algorithms and Adam makes its state

Inputs = list[tuple[Snippets, Any]]  # snippets of each batch of a step, and their random numbers (a NamedTuple)


def capture_on_gpu(step: Callable[[], None]) -> Callable[[], None]:
    """Capture a step, and take it; returns what takes the later ones.

    Raises:
        RuntimeError: the step cannot be captured, with the first reason; nothing was computed.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):  # nothing is computed here
            step()
    except RuntimeError as error:
        torch.cuda.set_stream(stream)  # PyTorch leaves its own stream current when a capture fails
        raise RuntimeError(str(error.__context__ or error)) from None
    graph.replay()
    return graph.replay


def warm_up_on_gpu(step: Callable[[], None]) -> None:
    """Take a step on another stream than the default one, which cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)


class StepGraph:
    """Takes training steps: the first ones as they are written, then by replaying the graph of one.

    Batches must have one size, and a step must do the same work each time. A step that cannot be captured is taken as
    it is written, and a line says so.
    """

    def __init__(
        self,
        capture: Callable[[Callable[[], None]], Callable[[], None]] = capture_on_gpu,
        warm_up: Callable[[Callable[[], None]], None] = warm_up_on_gpu,
    ) -> None:
        self._capture, self._warm_up = capture, warm_up
        self._inputs: Inputs = []
        self._taken = 0
        self._replay: Callable[[], None] | None = None

    def fresh(self) -> "StepGraph":
        """A graph that captures anew, for steps that do other work than before."""
        return StepGraph(self._capture, self._warm_up)

    def take(self, step: Callable[[Inputs], None], batches: Iterable[tuple[Snippets, Any]], log: StepLog) -> None:
        """Take a step.

        Args:
            step: the step, as it is written, of these inputs.
            batches: of the step, on the device.
            log: of the step; what it reads afterwards is kept by the graph.
        """
        for number, batch in enumerate(batches):
            if number == len(self._inputs):
                self._inputs.append(_map(torch.clone, batch))
            for buffer, value in zip(_tensors(self._inputs[number]), _tensors(batch), strict=True):
                buffer.copy_(value, non_blocking=True)
        self._taken += 1
        if self._replay is not None:
            self._replay()
        elif self._taken <= WARM_UP:
            self._warm_up(lambda: step(self._inputs))
        else:
            log.keep = True
            try:
                self._replay = self._capture(lambda: step(self._inputs))
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                tqdm.write(f"the step cannot be captured as a CUDA graph, and runs without, more slowly: {reason}")
            if self._replay is None:  # not within `except`: its traceback holds the tensors of the failed step
                log.keep = False
                self._replay = lambda: step(self._inputs)
                self._replay()


def _map(function: Callable[[Tensor], Tensor], batch: tuple[Snippets, Any]) -> tuple[Snippets, Any]:
    snippets, random = ([None if value is None else function(value) for value in part] for part in batch)
    return Snippets._make(snippets), batch[1]._make(random)


def _tensors(batch: tuple[Snippets, Any]) -> list[Tensor]:
    return [value for part in batch for value in part if value is not None]
