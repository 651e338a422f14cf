import json

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def reference(shared):
    return {key: torch.from_numpy(value) for key, value in np.load(shared / "reference/networks.npz").items()}


@pytest.fixture(scope="session")
def parameter_shapes(shared):
    return json.loads((shared / "reference/network_parameters.json").read_text())


@pytest.fixture
def fill():
    """Give a network the weights that the reference outputs were made with (see the folder's README)."""

    def fill(network):
        weights = network.state_dict()
        for i, name in enumerate(sorted(weights)):
            tensor = weights[name]
            j, n = torch.arange(tensor.numel(), dtype=torch.float64), tensor.numel()
            values = 0.05 * torch.sin(0.7 * j + i)
            if not name.endswith("bias"):
                values = 1.2 * (2 / (n / tensor.shape[0])) ** 0.5 * torch.sin(1.3 * j * (1 + 0.01 * i) + i)
            tensor.copy_(values.view(tensor.shape))
        return network

    return fill
