"""Checkpoints of monodepth2 and SC-SfMLearner: names, shapes and outputs of the reference implementations."""

import json

import numpy as np
import pytest
import torch
from path import Path

from files.errors import InputError
from models import NetworkSpec
from models.checkpoint import find_checkpoint, load_model
from models.other_projects import is_monodepth2
from tests.tools.published_files import file_shapes, fill


@pytest.fixture(scope="module")
def weights():
    return {name: fill(shapes) for name, shapes in file_shapes("resnet18").items()}


@pytest.fixture
def monodepth2(tmp_path, weights):
    """Write a folder of monodepth2: its path."""

    def write(weights=weights, pose=True, **encoder):
        folder = Path(tmp_path) / "mono_640x192"
        folder.makedirs_p()
        for name in ("encoder", "depth", *(("pose_encoder", "pose") if pose else ())):
            more = {"height": 192, "width": 640, "use_stereo": False} | encoder if name == "encoder" else {}
            torch.save(more | weights[f"monodepth2_{name}"], folder / f"{name}.pth")
        return folder

    return write


@pytest.fixture
def scsfm(tmp_path, weights):
    """Write a checkpoint of SC-SfMLearner's "disp" or "pose" network: its file."""

    def write(kind, weights=weights):
        file = Path(tmp_path) / {"disp": "dispnet_model_best.pth.tar", "pose": "exp_pose_model_best.pth.tar"}[kind]
        torch.save({"epoch": 200, "state_dict": weights[f"scsfm_{kind}"]}, file)
        return file

    return write


def made_up_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images [1, 3, 64, 96] in [0, 1]."""
    x, y, c = torch.meshgrid(torch.arange(96.0), torch.arange(64.0), torch.arange(3.0), indexing="xy")
    first, second = (0.5 + 0.4 * torch.sin(0.13 * (x + shift) + 0.21 * y + c) for shift in (0, 2))
    return first.permute(2, 0, 1)[None], second.permute(2, 0, 1)[None]


def in_our_range(*images: torch.Tensor) -> list[torch.Tensor]:
    return [2 * image - 1 for image in images]


# Names and shapes ----------------------------------------------------------------------------------------------------


def test_names_and_shapes_are_those_of_the_reference(shared):
    """Loading is strict: with these names and shapes every weight of a network comes from its file."""
    assert file_shapes("resnet18") == json.loads((shared / "reference/network_parameters_resnet.json").read_text())


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "parallel"), [("resnet18", True), ("resnet50", False)])
def test_each_weight_is_loaded_also_from_data_parallel_and_beside_numpy_s_numbers(tmp_path, encoder, parallel):
    shapes = file_shapes(encoder)
    prefix = "module." if parallel else ""
    folder = Path(tmp_path)
    for name, names in shapes.items():
        content: dict = {f"{prefix}{key}": torch.full(shape, 2.0) for key, shape in names.items()}
        for key in content:
            if key.endswith("num_batches_tracked"):
                content[key] = torch.tensor(2)
        if name == "monodepth2_encoder":
            content |= {"height": np.int64(96), "width": np.int64(320), "use_stereo": np.bool_(True)}
        if name.startswith("scsfm"):
            content = {"epoch": np.int64(3), "best": np.float32(0.1), "state_dict": content}
        torch.save(content, folder / f"{name.removeprefix('monodepth2_')}.pth")
    loaded = load_model(folder)
    assert (loaded.height, loaded.width, loaded.scenes, loaded.camera) == (96, 320, None, None)
    disp, pose = load_model(folder / "scsfm_disp.pth"), load_model(folder / "scsfm_pose.pth")
    assert (disp.pose_net, pose.depth_net, disp.height) == (None, None, None)
    for network in (loaded.depth_net, loaded.pose_net, disp.depth_net, pose.pose_net):
        assert not network.training
        assert all((tensor == 2).all() for tensor in network.state_dict().values())
    assert disp.specs["depth"].name == loaded.specs["depth"].name == encoder
    assert pose.specs["pose"].arguments["encoder"] == loaded.specs["pose"].arguments["encoder"] == encoder


# Outputs -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_monodepth2_s_outputs_are_those_of_the_reference(shared, monodepth2):
    reference = {k: torch.from_numpy(v) for k, v in np.load(shared / "reference/networks_resnet.npz").items()}
    loaded = load_model(monodepth2())
    first, second = in_our_range(reference["image"], reference["second_image"])
    for scale, disparity in enumerate(loaded.depth_net(first)):
        expected = 0.01 + 9.99 * reference[f"monodepth2_sigmoid_{scale}"]
        torch.testing.assert_close(disparity, expected, rtol=0, atol=1e-5)
    for number, features in enumerate(loaded.depth_net.encoder(first)):
        torch.testing.assert_close(features, reference[f"monodepth2_feature_{number}"], rtol=0, atol=1e-5)
    pose = loaded.pose_net.pose_vectors(first, second[:, None])[:, 0]  # the one source comes after the target
    torch.testing.assert_close(pose[:, :3], reference["monodepth2_translation"], rtol=0, atol=1e-8)
    torch.testing.assert_close(pose[:, 3:], reference["monodepth2_axisangle"], rtol=0, atol=1e-8)


@torch.no_grad()
def test_scsfm_s_outputs_are_those_of_the_reference(shared, scsfm):
    reference = {k: torch.from_numpy(v) for k, v in np.load(shared / "reference/networks_resnet.npz").items()}
    first, second = in_our_range(reference["image"], reference["second_image"])
    for scale, disparity in enumerate(load_model(scsfm("disp")).depth_net(first)):
        torch.testing.assert_close(disparity, reference[f"scsfm_disparity_{scale}"], rtol=0, atol=1e-5)
    pose = load_model(scsfm("pose")).pose_net.pose_vectors(first, second[:, None])
    torch.testing.assert_close(pose[:, 0], reference["scsfm_pose"], rtol=0, atol=1e-8)


# For the images of `made_up_images`, by networks that agreed with the reference on its own images: mean and one value.
RECORDED: dict[str, tuple[float, float]] = {
    "monodepth2 0": (4.913212, 4.913457),
    "monodepth2 1": (4.969554, 4.967108),
    "monodepth2 2": (5.127237, 5.126208),
    "monodepth2 3": (4.941432, 4.939724),
    "scsfm 0": (4.918108, 4.917974),
    "scsfm 1": (4.974546, 4.979953),
    "scsfm 2": (5.132148, 5.127419),
    "scsfm 3": (4.946054, 4.945607),
    "monodepth2 pose": (0.182228, -0.585004),
    "scsfm pose": (0.182190, -0.770516),
}


@torch.no_grad()
def test_outputs_stay_as_they_were(monodepth2, scsfm):
    first, second = in_our_range(*made_up_images())
    loaded, disp, pose = load_model(monodepth2()), load_model(scsfm("disp")), load_model(scsfm("pose"))
    outputs = {f"monodepth2 {s}": disparity for s, disparity in enumerate(loaded.depth_net(first))}
    outputs |= {f"scsfm {s}": disparity for s, disparity in enumerate(disp.depth_net(first))}
    outputs |= {"monodepth2 pose": 1000 * loaded.pose_net.pose_vectors(first, second[:, None])}
    outputs |= {"scsfm pose": 1000 * pose.pose_net.pose_vectors(first, second[:, None])}
    found = {name: (output.mean().item(), output.flatten()[1].item()) for name, output in outputs.items()}
    assert found == {name: pytest.approx(values, abs=1e-5) for name, values in RECORDED.items()}


@torch.no_grad()
def test_frames_go_in_the_order_of_each_project(monodepth2, scsfm):
    before, target, after = torch.rand(3, 2, 3, 64, 96) * 2 - 1
    sources = torch.stack([before, after], 1)
    in_time, target_first = load_model(monodepth2()).pose_net, load_model(scsfm("pose")).pose_net
    # monodepth2: (before, target) is the motion target_from_before, whose inverse is returned.
    transforms, masks = in_time(target, sources)
    assert masks is None
    single = [in_time(first, second[:, None])[0][:, 0] for first, second in ((before, target), (target, after))]
    torch.testing.assert_close(transforms[:, 0], torch.linalg.inv(single[0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(transforms[:, 1], single[1], rtol=0, atol=1e-6)
    transforms, _ = target_first(target, sources)
    single = [target_first(target, source[:, None])[0][:, 0] for source in (before, after)]
    torch.testing.assert_close(transforms, torch.stack(single, 1), rtol=0, atol=1e-6)


def test_arguments_say_what_differs(monodepth2, scsfm):
    specs = load_model(monodepth2()).specs
    assert specs["depth"].arguments["max_disparity"] == 10
    assert specs["pose"].arguments["order"] == "time"
    assert specs["pose"].arguments["rotation"] == "axis-angle"
    assert load_model(scsfm("disp")).specs["depth"].arguments["max_disparity"] == 10.01
    pose = load_model(scsfm("pose")).specs["pose"]
    assert isinstance(pose, NetworkSpec)
    assert (pose.arguments["order"], pose.arguments["rotation"]) == ("target-first", "euler")
    assert {spec.arguments["statistics"] for spec in (*specs.values(), pose)} == {"monodepth2"}


# Damage --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_monodepth2_is_a_checkpoint_itself(monodepth2, tmp_path):
    folder = monodepth2()
    assert is_monodepth2(folder)
    assert find_checkpoint(folder, "last") == folder
    assert not is_monodepth2(Path(tmp_path))
    (folder / "last.pt").touch()
    assert find_checkpoint(folder, "last") == folder / "last.pt"


def test_without_its_pose_files_a_folder_has_a_depth_network_alone(monodepth2):
    loaded = load_model(monodepth2(pose=False))
    assert (loaded.pose_net, loaded.specs.keys()) == (None, {"depth"})


@pytest.mark.parametrize("name", ["encoder", "depth", "pose_encoder", "pose"])
def test_a_missing_file_is_named_in_one_line(monodepth2, name):
    folder = monodepth2()
    (folder / f"{name}.pth").remove()
    with pytest.raises(
        InputError, match=rf"{name}.pth: no such file, expected encoder.pth, depth.pth.*; found "
    ) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def test_another_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"encoder.pth: no such file, expected .*; found none of monodepth2's files"):
        load_model(Path(tmp_path))


@pytest.mark.parametrize(
    ("file", "name", "tensor", "message"),
    [
        ("encoder", "encoder.layer1.1.bn2.running_var", None, "it lacks encoder.network.layer1.1.bn2.running_var"),
        (
            "encoder",
            "encoder.layer1.2.conv1.weight",
            torch.ones(2),
            "it has encoder.network.layer1.2.conv1.weight, too",
        ),
        ("encoder", "encoder.conv1.weight", torch.ones(2), r"encoder.network.conv1.weight is \[2\], expected"),
        ("depth", "decoder.13.conv.bias", torch.tensor([float("nan")]), "values that are not finite"),
        ("depth", "decoder.14.conv.bias", torch.ones(1), "it has decoder.heads.4.bias, too"),
        ("depth", "decoder.4.conv.conv.bias", None, "it lacks decoder.before.2.bias"),
        ("pose", "net.3.weight", torch.ones(5), "pose.pth: no pose network of monodepth2: net.3.weight"),
        ("pose", "net.3.bias", None, "pose.pth: no pose network of monodepth2: net.3.bias"),
        ("pose", "net.4.bias", torch.ones(1), "it has net.4.bias, too"),
        ("encoder", "height", -1, "its height is -1, expected pixels"),
        ("encoder", "width", torch.ones(2), "its width is a Tensor, expected pixels"),
    ],
)
def test_damage_is_named_in_one_line(monodepth2, weights, file, name, tensor, message):
    damaged = weights | {f"monodepth2_{file}": weights[f"monodepth2_{file}"] | {name: tensor}}
    if tensor is None:
        del damaged[f"monodepth2_{file}"][name]
    with pytest.raises(InputError, match=message) as error:
        load_model(monodepth2(damaged))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
