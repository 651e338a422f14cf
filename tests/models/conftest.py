import json

import pytest
import torch

from tests.oracles import load, networks, sources


@pytest.fixture(scope="session", params=sources("networks"))
def reference(request):
    return {key: torch.as_tensor(value) for key, value in load("networks", request.param, networks).items()}


@pytest.fixture(scope="session", params=sources("networks"))
def parameter_shapes(request):
    """Names and shapes of the port's parameters by network."""
    if request.param == "reference":
        shared = request.getfixturevalue("shared")
        return json.loads((shared / "reference/network_parameters.json").read_text())
    return {
        "DispNetS": networks.disp_net_shapes(),
        "PoseExpNet_2refs_exp": networks.pose_exp_net_shapes(2, True),
        "PoseExpNet_4refs": networks.pose_exp_net_shapes(4, False),
    }


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
