"""Adam for weights whose channels are last."""

from typing import Any

import torch
from torch import Tensor


class FusedAdam(torch.optim.Adam):
    """PyTorch's fused Adam, without its copies of gradients that lie in memory with their channels last.

    On a CPU PyTorch's kernel first makes each gradient contiguous, which copies those of channels-last weights: more
    than half of the update's time (docs/benchmarks.md). The kernel works element by element, so it is given the same
    memory in the order in which it lies. The results are the same bits, and so is the state that a checkpoint keeps.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__(params, lr, betas, fused=True)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> Any:
        result = super()._init_group(group, *lists)
        same_order = lists[:4]  # parameters, gradients and both of Adam's means, as PyTorch 2.8 to 2.14 pass them
        for index, parameter in enumerate(lists[0]):
            if parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
                for tensors in same_order:
                    tensors[index] = tensors[index].permute(0, 2, 3, 1)
        return result
