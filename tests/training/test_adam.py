"""Adam of channels-last weights: the same bits as PyTorch's, by the memory in its order."""

import copy

import pytest
import torch
from torch import nn

from training.adam import FusedAdam

pytestmark = pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])


def network(memory_format: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 4), nn.Conv2d(4, 1, 1))
    return layers.to(memory_format=memory_format)


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for step in range(count):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(2, 3, 16, 20, generator=generator)).square().mean().backward()
        optimizer.step()


def test_updates_are_those_of_pytorch_bit_for_bit(memory_format):
    ours, theirs = network(memory_format), network(memory_format)
    take_steps(ours, FusedAdam(ours.parameters(), 1e-2, (0.8, 0.99)), 5)
    take_steps(theirs, torch.optim.Adam(theirs.parameters(), 1e-2, (0.8, 0.99), fused=True), 5)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other)


def test_gradients_in_another_order_than_their_weights(memory_format):
    ours, theirs = network(memory_format), network(memory_format)
    optimizers = FusedAdam(ours.parameters(), 1e-2), torch.optim.Adam(theirs.parameters(), 1e-2, fused=True)
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        for number, parameter in enumerate(model.parameters()):
            gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.grad = gradient  # channels in planes
        optimizer.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, other)


def test_the_kernel_gets_contiguous_tensors(memory_format, monkeypatch):
    seen: list[bool] = []
    kernel = torch._fused_adam_

    def watching(parameters, gradients, *rest, **settings):
        seen.extend(tensor.is_contiguous() for tensor in [*parameters, *gradients])
        return kernel(parameters, gradients, *rest, **settings)

    monkeypatch.setattr(torch, "_fused_adam_", watching)
    model = network(memory_format)
    take_steps(model, FusedAdam(model.parameters(), 1e-2), 1)
    assert seen
    assert all(seen)


def test_state_has_the_shapes_of_the_weights_and_goes_on_after_loading(memory_format):
    model = network(memory_format)
    optimizer = FusedAdam(model.parameters(), 1e-2)
    take_steps(model, optimizer, 3)
    for parameter in model.parameters():
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape

    again = copy.deepcopy(model)
    loaded = FusedAdam(again.parameters(), 1e-2)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(model, optimizer, 2)
    take_steps(again, loaded, 2)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
