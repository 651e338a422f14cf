"""Networks by name and arguments: `models.build`, `make` and `complete`."""

from functools import partial

import pytest
import torch
from torch import nn

from files.errors import InputError
from models import CAMERAS, DEPTH_NETS, POSE_NETS, NetworkSpec, SfMLearner, build, complete, make
from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet

SMALL = {"width": 1 / 16}


class Example(nn.Module):
    """One argument of each type that a network's constructor may have."""

    def __init__(
        self, layers: int, scale: float = 0.5, bias: bool = True, kind: str = "a", depth: float | None = None
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers is {layers}, expected 1 or more")
        self.given = (layers, scale, bias, kind, depth)


NETWORKS = {"example": Example}


def completed(**arguments) -> dict:
    return complete(NETWORKS, NetworkSpec("example", {"layers": 1} | arguments)).arguments


def test_build_makes_the_networks_that_are_named():
    torch.manual_seed(3)
    model = build(NetworkSpec("disp_net", SMALL), NetworkSpec("pose_exp_net", SMALL), NetworkSpec("given"))
    assert isinstance(model, SfMLearner)
    assert model.depth_net.width == 1 / 16
    assert model.pose_net.sources == 2
    torch.manual_seed(3)  # weights are drawn in this order: depth, pose
    expected = SfMLearner(DispNet(**SMALL), PoseExpNet(**SMALL)).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_every_network_can_be_made_from_its_defaults_alone():
    for networks in (DEPTH_NETS, POSE_NETS, CAMERAS):
        for name in networks:
            name = name.replace("timm:NAME", "timm:resnet10t")
            spec = complete(networks, NetworkSpec(name))
            assert complete(networks, spec) == spec
            with torch.device("meta"):
                assert isinstance(make(networks, spec), torch.nn.Module)


def test_the_defaults_are_the_constructor_s():
    assert complete(DEPTH_NETS, NetworkSpec("disp_net")).arguments == {"first_disparity": 5.01, "width": 1.0}
    assert completed() == {"layers": 1, "scale": 0.5, "bias": True, "kind": "a", "depth": None}
    assert completed(scale=2.0, bias=False, depth=1.5)["depth"] == 1.5


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("layers", "7", 7),
        ("scale", "0.25", 0.25),
        ("scale", "1e-3", 0.001),
        ("scale", 2, 2.0),
        ("bias", "false", False),
        ("bias", "true", True),
        ("kind", "none", "none"),
        ("depth", "none", None),
        ("depth", "0.83", 0.83),
        ("depth", 3, 3.0),
    ],
)
def test_text_becomes_the_annotated_type(name, text, value):
    got = completed(**{name: text})[name]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers", "x", "example: layers is 'x', expected int"),
        ("layers", "1.5", "example: layers is '1.5', expected int"),
        ("layers", 1.5, "example: layers is 1.5, expected int"),
        ("layers", True, "example: layers is True, expected int"),
        ("layers", None, "example: layers is a NoneType, expected int"),
        ("scale", "wide", "example: scale is 'wide', expected float"),
        ("scale", 10**400, "example: scale is 1000"),
        ("bias", "yes", "example: bias is 'yes', expected bool"),
        ("bias", 1, "example: bias is 1, expected bool"),
        ("kind", 3, "example: kind is 3, expected str"),
        ("depth", "deep", "example: depth is 'deep', expected float or none"),
        ("depth", [[]], "example: depth is a list, expected float or none"),
        ("depth", torch.zeros(2), "example: depth is a Tensor, expected float or none"),
        ("kind", {"a": 1}, "example: kind is a dict, expected str"),
        ("bias", torch.zeros(2), "example: bias is a Tensor, expected bool"),
        ("height", "7", "example: unknown argument 'height', expected layers, scale, bias, kind, depth"),
    ],
)
def test_another_value_or_name_is_refused_in_one_line(name, value, message):
    with pytest.raises(InputError, match=message) as caught:
        completed(**{name: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_an_argument_without_a_default_must_be_given():
    with pytest.raises(InputError, match="example: layers is missing, expected int"):
        complete(NETWORKS, NetworkSpec("example"))


def define(code: str) -> dict:
    """A network whose class is defined by a file with this constructor and `from __future__ import annotations`."""
    scope: dict = {}
    lines = ["from __future__ import annotations", "from torch import nn", "class Late(nn.Module):", f"    {code}"]
    exec("\n".join([*lines, "        super().__init__()", "        self.given = layers"]), scope)
    return {"late": scope["Late"]}


@pytest.mark.parametrize("wrap", [lambda network: network, partial])
def test_annotations_may_be_text(wrap):
    """As in a file with `from __future__ import annotations`: it was a TypeError."""
    networks = define("def __init__(self, layers: int = 2, depth: float | None = None) -> None:")
    networks["late"] = wrap(networks["late"])
    assert complete(networks, NetworkSpec("late", {"depth": "0.5"})).arguments == {"layers": 2, "depth": 0.5}
    assert make(networks, NetworkSpec("late", {"layers": "3"})).given == 3
    with pytest.raises(InputError, match="late: layers is 'x', expected int"):
        complete(networks, NetworkSpec("late", {"layers": "x"}))


def test_an_argument_without_an_annotation_is_named():
    """It was "expected _empty"."""
    networks = define("def __init__(self, scale: float = 1.0, layers=2):")
    with pytest.raises(InputError, match="late: its constructor's argument layers has no annotation, expected int, "):
        complete(networks, NetworkSpec("late"))
    networks = define("def __init__(self, layers: Number = 2):")
    with pytest.raises(InputError, match=r"late: an annotation of its constructor cannot be read .*'Number'"):
        complete(networks, NetworkSpec("late"))


def test_an_unknown_network_names_those_that_there_are():
    with pytest.raises(InputError, match="unknown network 'resnet', expected one of disp_net"):
        make(DEPTH_NETS, NetworkSpec("resnet"))
    with pytest.raises(InputError, match="given: unknown argument 'f', it has no arguments"):
        make(CAMERAS, NetworkSpec("given", {"f": 1}))


def test_an_argument_out_of_range_is_the_user_s_error():
    with pytest.raises(InputError, match="example: layers is 0, expected 1 or more"):
        make(NETWORKS, NetworkSpec("example", {"layers": "0"}))
    with pytest.raises(InputError, match=r"disp_net: width is 0.3, expected a multiple of 1/16 up to 2"):
        build(NetworkSpec("disp_net", {"width": 0.3}), NetworkSpec("pose_exp_net"), NetworkSpec("given"))


def test_a_specification_as_text_is_what_the_flags_take():
    arguments = {"layers": 3, "scale": 0.1 + 0.2, "bias": False, "kind": "b", "depth": None}
    text = str(NetworkSpec("example", arguments))
    assert text == "example layers=3 scale=0.30000000000000004 bias=false kind=b depth=none"
    name, *settings = text.split()
    parsed = NetworkSpec(name, dict(setting.split("=") for setting in settings))
    assert complete(NETWORKS, parsed) == NetworkSpec("example", arguments)
    assert str(NetworkSpec("disp_net", {"width": 0.5})) == "disp_net width=0.5"
    assert str(NetworkSpec("given")) == "given"
