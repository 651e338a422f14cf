import argparse
import shlex
from dataclasses import replace

from cli.flags import add_option_flags

import numpy as np
import pytest
import torch
import torchvision
from path import Path

from datasets.layout import write_intrinsics, write_text
from datasets.preparation import check
from datasets.preparation.focal_check import FocalCheck
from datasets.snippets import SnippetDataset
from files.errors import InputError, UsageError
from files.images import write_jpeg
from loss_functions import ObjectiveOptions
from models import NetworkSpec, build, checkpoint
from models.checkpoint import checkpoint_content, save_checkpoint
from models.disp_net import DispNet
from models.layers import to_channels_last
from models.learned_camera import LearnedCamera
from models.pose_exp_net import PoseExpNet
from models.sfm_learner import GivenCamera
from tests.tools.published_files import file_shapes, fill
from training import distributed, start
from training.options import OLD_FLAGS, TrainOptions, new_options, plain_options
from training.start import check_before_training, make_model, make_optimizer, network_specs, uses_channels_last

SMALL = {"network_width": 1 / 16}
RECORD = {"height": 64, "width": 96, "snippets": 8, "processes": 1, "total_steps": 9, "scenes": ["a", "b"]}
STANDING = {"step": 7, "skipped": 0, "validation_due": False, "best": {}, "damaged": []}


@pytest.fixture
def save(tmp_path):
    """Save a checkpoint of a run with these options after 7 steps: its file and its model."""

    def save(cameras=1, **given):
        options = new_options(given if "depth_net" in given else SMALL | given)
        torch.manual_seed(99)
        specs = network_specs(options, cameras)
        model = build(specs["depth"], specs["pose"], specs["camera"])
        optimizer = torch.optim.Adam(model.parameters())
        file = Path(tmp_path) / "last.pt"
        content = checkpoint_content(model, specs, optimizer, plain_options(options), RECORD, STANDING)
        save_checkpoint(file, content)
        return str(file), model

    return save


@pytest.fixture
def port(tmp_path):
    """Save networks as the PyTorch port does: the files."""

    def port(*networks):
        files = [f"{tmp_path}/{k}_{type(network).__name__}.pth.tar" for k, network in enumerate(networks)]
        for file, network in zip(files, networks, strict=True):
            torch.save({"epoch": 1, "state_dict": network.state_dict()}, file)
        return tuple(files)

    return port


def equal(network, other) -> bool:
    weights = other.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_the_seed_alone_decides_the_first_weights():
    models = []
    for seed in (3, 3, 4):
        torch.rand(7)
        models.append(make_model(new_options(SMALL | {"seed": seed})))
    assert equal(models[0][0], models[1][0])
    assert not equal(models[0][0], models[2][0])
    assert models[0][1] == []


def test_the_options_make_the_networks():
    given = {"sequence_length": 5, "explainability": False, "fixation_depth": "0.83", "rotation": "quaternion"}
    model, _ = make_model(new_options({"network_width": 0.25, "pose_net_width": 0.5, "rotation_scale": 0.2} | given))
    pose_net = model.pose_net
    assert (pose_net.sources, pose_net.explainability, pose_net.orbit_depth) == (4, False, 0.83)
    assert pose_net.rotation == "quaternion"
    torch.testing.assert_close(pose_net.pose_scales, torch.tensor([0.01] * 3 + [0.2] * 3))
    assert (model.depth_net.width, len(pose_net.conv1[0].bias)) == (0.25, 8)


# --start-from --------------------------------------------------------------------------------------------------------


def test_start_from_takes_each_network_from_where_it_is(port):
    networks = DispNet(width=1 / 16), PoseExpNet(2, width=1 / 16)
    files = port(*networks)
    for start_from in (files, files[::-1]):
        model, ancestors = make_model(new_options(SMALL | {"start_from": start_from}))
        assert equal(model.depth_net, networks[0])
        assert equal(model.pose_net, networks[1])
        assert ancestors == [None, None]  # the port's files do not say what they were trained on
    model, ancestors = make_model(new_options(SMALL | {"start_from": files[:1], "seed": 5}))
    assert equal(model.depth_net, networks[0])
    assert equal(model.pose_net, make_model(new_options(SMALL | {"seed": 5}))[0].pose_net)
    assert ancestors == [None]


def test_start_from_a_run_takes_all_and_names_its_scenes(save, port):
    file, saved = save(rotation="quaternion")
    model, ancestors = make_model(new_options(SMALL | {"rotation": "quaternion", "start_from": (file,)}))
    assert equal(model, saved)
    assert ancestors == [["a", "b"]]
    (other,) = port(DispNet(width=1 / 16))
    model, ancestors = make_model(new_options(SMALL | {"rotation": "quaternion", "start_from": (file, other)}))
    assert equal(model.pose_net, saved.pose_net)
    assert not equal(model.depth_net, saved.depth_net)  # the later file prevails
    assert ancestors == [["a", "b"], None]


def test_start_from_a_run_s_folder_takes_its_last_checkpoint(save, tmp_path):
    file, saved = save()
    model, ancestors = make_model(new_options(SMALL | {"start_from": (Path(file).parent,)}))
    assert equal(model, saved)
    assert ancestors == [["a", "b"]]
    empty = (Path(tmp_path) / "empty").makedirs_p()
    with pytest.raises(InputError, match=r"empty/last\.pt: no such file, found no checkpoint of a run in this folder"):
        make_model(new_options(SMALL | {"start_from": (empty,)}))


def test_the_first_disparity_means_nothing_to_weights_that_are_there(save):
    file, saved = save(first_disparity=1.2)
    assert equal(make_model(new_options(SMALL | {"start_from": (file,)}))[0], saved)


def test_start_from_shares_nothing_with_the_file(save):
    file, saved = save()
    model, _ = make_model(new_options(SMALL | {"start_from": (file,)}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    assert equal(make_model(new_options(SMALL | {"start_from": (file,)}))[0], saved)


@pytest.mark.parametrize(
    ("saved", "given", "flags"),
    [
        ({"sequence_length": 5}, {}, ["--pose-net pose_exp_net", "--sequence-length 5"]),
        ({"explainability": False}, {}, ["--no-explainability"]),
        ({}, {"explainability": False}, ["--explainability"]),
        ({"network_width": 0.125}, {}, ["--depth-net disp_net width=0.125"]),
        ({"pose_net_width": 0.125}, {}, ["--pose-net pose_exp_net", "width=0.125"]),
        ({}, {"rotation": "quaternion"}, ["rotation=euler"]),
        ({"rotation": "quaternion"}, {}, ["rotation=quaternion"]),
        (
            {"recipe": "paper-pose", "network_width": 0.5},
            {"rotation": "quaternion"},
            ["--depth-net disp_net width=0.5"],
        ),
    ],
)
def test_other_networks_are_refused_and_the_flags_named_make_them_fit(save, saved, given, flags):
    file, saved_model = save(**saved)
    options = new_options(SMALL | given)
    given = {name: value for name, value in given.items() if name not in OLD_FLAGS}
    given |= {"depth_net": options.depth_net, "pose_net": options.pose_net, "start_from": (file,)}
    parser = argparse.ArgumentParser()
    add_option_flags(parser, TrainOptions, positional="data")
    hints = []
    for _ in range(2):  # of the depth network, then of the pose network
        try:
            make_model(new_options(given))
        except InputError as error:
            line = str(error)
            assert line.startswith((f"{file}: its depth network is ", f"{file}: its pose network is "))
            assert "\n" not in line
            hints.append(line.partition("; give ")[2])
            given |= vars(parser.parse_args(shlex.split(hints[-1])))
    assert all(flag in hints[0] for flag in flags), hints
    assert equal(make_model(new_options(given))[0], saved_model)


@torch.no_grad()
@pytest.mark.parametrize(
    ("saved", "given"),
    [
        ({"rotation_scale": 0.3}, {}),
        ({}, {"translation_scale": 0.2, "rotation_scale": 0.5}),
        ({"fixation_depth": 5 / 6}, {"fixation_depth": 0.4}),
        ({}, {"fixation_depth": 0.83, "translation_scale": 0.05}),
        ({"fixation_depth": 0.83}, {}),
    ],
)
def test_other_scales_of_motion_change_the_last_layer_and_not_the_motion(save, saved, given):
    file, saved_model = save(**saved)
    model, _ = make_model(new_options(SMALL | given | {"start_from": (file,)}))
    fresh, _ = make_model(new_options(SMALL | given))
    assert model.pose_net.orbit_depth == fresh.pose_net.orbit_depth
    assert torch.equal(model.pose_net.pose_scales, fresh.pose_net.pose_scales)
    frames = torch.rand(2, 3, 3, 32, 64)
    found, expected = (one.pose_net.pose_vectors(frames[:, 0], frames[:, 1:])[0] for one in (model, saved_model))
    assert expected.abs().max() > 1e-6
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_message_of_a_pose_network_that_does_not_fit_says_what_the_file_holds(save):
    file, _ = save(translation_scale=0.05, rotation="quaternion")
    with pytest.raises(InputError, match=r"is pose_exp_net .*translation_scale=0\.05.*, the options' is .*=0\.01 "):
        make_model(new_options(SMALL | {"start_from": (file,)}))


def test_the_port_s_poses_have_the_port_s_form(port):
    (file,) = port(PoseExpNet(2, width=1 / 16))
    with pytest.raises(InputError, match=r"its pose network is .*; give --pose-net .*=euler"):
        make_model(new_options(SMALL | {"rotation": "quaternion", "start_from": (file,)}))


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.pt", "nowhere.pt: no such file, expected a checkpoint"), (__file__, "test_start.py: not a checkpoint")],
)
def test_what_is_no_checkpoint_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        make_model(new_options(SMALL | {"start_from": (name,)}))


def test_weights_that_are_not_finite_are_refused(save):
    file, _ = save()
    content = torch.load(file, weights_only=True)
    content["model"]["pose_net.conv3.0.bias"].fill_(float("nan"))
    torch.save(content, file)
    with pytest.raises(InputError, match=r"last.pt: conv3.0.bias of pose_exp_net holds values that are not finite"):
        make_model(new_options(SMALL | {"start_from": (file,)}))


K = np.array([[50.0, 0, 47.5], [0, 50, 31.5], [0, 0, 1]])
LEARNED = {"camera": NetworkSpec("learned")}


def save_learned(save, cameras):
    """A checkpoint of a run with a learned camera that began at these K."""
    file, saved = save(**LEARNED, cameras=len(cameras))
    content = torch.load(file, weights_only=True)
    saved.camera.start_from(torch.from_numpy(np.stack(cameras)))
    with torch.no_grad():
        saved.camera.log_focal += 0.1
    content["model"] = saved.state_dict()
    torch.save(content, file)
    return file, saved


def test_a_learned_camera_starts_at_the_data_s(save):
    model, _ = make_model(new_options(SMALL | LEARNED), [K, 2 * K])
    torch.testing.assert_close(model.camera.matrices(), torch.from_numpy(np.stack([K, 2 * K])).float())
    specs = network_specs(new_options(SMALL | LEARNED), 2)
    assert specs["camera"] == NetworkSpec("learned", {"cameras": 2})


def test_a_learned_camera_is_taken_where_it_is_that_of_the_data(save):
    file, saved = save_learned(save, [K, 2 * K])
    options = new_options(SMALL | LEARNED | {"start_from": (file,)})
    model, _ = make_model(options, [K, 2 * K])
    assert equal(model, saved)
    for others in ([K, 3 * K], [K]):
        model, _ = make_model(options, others)
        torch.testing.assert_close(model.camera.matrices(), torch.from_numpy(np.stack(others)).float())
        assert equal(model.depth_net, saved.depth_net)


def test_a_learned_camera_may_follow_a_given_one_and_the_reverse(save):
    file, saved = save()
    model, _ = make_model(new_options(SMALL | LEARNED | {"start_from": (file,)}), [K])
    assert equal(model.depth_net, saved.depth_net)
    torch.testing.assert_close(model.camera.matrices()[0], torch.from_numpy(K).float())
    file, saved = save_learned(save, [K])
    model, _ = make_model(new_options(SMALL | {"start_from": (file,)}), [K])
    assert equal(model.depth_net, saved.depth_net)


def test_another_kind_of_camera_is_taken_too(save, monkeypatch):
    class Other(torch.nn.Module):
        def __init__(self, scale: float = 1.0) -> None:
            super().__init__()
            self.focal_length = torch.nn.Parameter(scale * torch.rand(2))

    monkeypatch.setitem(checkpoint.CAMERAS, "other", Other)
    file, saved = save(camera=NetworkSpec("other"))
    model, _ = make_model(new_options(SMALL | {"camera": NetworkSpec("other"), "start_from": (file,)}))
    assert torch.equal(model.camera.focal_length, saved.camera.focal_length)
    options = new_options(SMALL | LEARNED | {"start_from": (file,)})
    with pytest.raises(
        InputError, match=r"its camera network is other scale=1, the options' is learned .*; give --camera other"
    ):
        make_model(options)


def test_a_learned_camera_has_its_own_rate():
    options = new_options(SMALL | LEARNED | {"camera_rate": 0.01, "learning_rate": 0.002})
    model, _ = make_model(options, [K])
    optimizer = make_optimizer(model, options)
    assert [group["peak"] for group in optimizer.param_groups] == [0.002, 0.01]
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in model.parameters()}
    assert [len(group["params"]) for group in optimizer.param_groups][1] == 2


# The check of the data -----------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """Smooth pictures that move by two pixels a frame."""
    root = Path(tmp_path) / "data"
    (root / "a").makedirs()
    write_intrinsics(root / "a" / "cam.txt", np.array([[56.0, 0, 47.5], [0, 56, 31.5], [0, 0, 1]]))
    wide = (
        torch.nn.functional.interpolate(torch.rand(1, 3, 9, 14) * 255, (64, 110), mode="bicubic").clamp(0, 255).byte()
    )
    for k in range(6):
        write_jpeg(root / "a" / f"{k:07d}.jpg", wide[0, :, :, 2 * k : 2 * k + 96].permute(1, 2, 0).numpy())
    write_text(root / "train.txt", "a\n")
    return root


def test_the_data_are_checked_and_warnings_returned(data, capsys):
    warnings = check_before_training(TrainOptions(data=str(data)))
    assert any("too few frames" in warning for warning in warnings)
    assert "WARNING: too few frames: " in capsys.readouterr().out


def test_a_wrong_focal_length_is_named_unless_the_camera_is_learned(data, monkeypatch):
    monkeypatch.setattr(check, "check_focal", lambda scenes, clips: FocalCheck(32, 56.0, 0.69, 0.01))
    warnings = check_before_training(TrainOptions(data=str(data)))
    assert any("wrong focal length: fx in cam.txt is 56.0 pixels" in warning for warning in warnings)
    for learned in (
        TrainOptions(data=str(data), camera=NetworkSpec("learned")),
        TrainOptions(data=str(data), fov=60.0),
    ):
        assert not any(warning.startswith("wrong focal") for warning in check_before_training(learned))


def learned_cameras(data, monkeypatch, found, **given):
    """A learned camera that has begun by what the check of the focal length finds, and the lines about it."""
    monkeypatch.setattr(start, "check_focal", lambda scenes: found)
    camera = LearnedCamera()
    camera.start_from(torch.tensor([[[56.0, 0, 23.5], [0, 56, 15.5], [0, 0, 1]]]))
    options = TrainOptions(data=str(data), camera=NetworkSpec("learned"), **given)
    return camera, start.begin_cameras(camera, SnippetDataset(data, "train.txt", 3), options)


def test_a_learned_camera_begins_where_the_motion_in_the_images_shows_it(data, monkeypatch):
    camera, lines = learned_cameras(data, monkeypatch, FocalCheck(32, 56.0, 0.75, 0.01))
    torch.testing.assert_close(camera.matrices()[0, 0, 0].item(), 42.0)
    torch.testing.assert_close(camera.matrices()[0, 1, 1].item(), 42.0)
    assert lines == [
        "learned camera 0: the guess of fx is 56.0 pixels; by the motion in 32 clips that turn, it begins at 42.0 "
        "(+- 1 %)"
    ]
    _, lines = learned_cameras(data, monkeypatch, FocalCheck(32, 56.0, 2.5, 0.01))
    assert lines[0].endswith("the end of the range that was tried: give a better guess by --fov")


def test_a_learned_camera_keeps_its_guess_where_the_motion_does_not_show_it(data, monkeypatch):
    camera, lines = learned_cameras(data, monkeypatch, FocalCheck(problem="no turns"))
    assert not camera.log_focal.any()
    assert lines == [
        "learned camera 0: the guess of fx is 56.0 pixels, and it begins there: no turns; with "
        "--camera-rate 1e-3 it moves farther"
    ]
    camera, lines = learned_cameras(data, monkeypatch, FocalCheck(32, 56.0, 0.75, 0.01), check=False)
    assert not camera.log_focal.any()
    assert lines == []


def test_a_camera_that_a_checkpoint_has_brought_along_stays_as_it_is(data, monkeypatch):
    monkeypatch.setattr(start, "check_focal", lambda scenes: FocalCheck(32, 56.0, 0.75, 0.01))
    camera = LearnedCamera()
    with torch.no_grad():
        camera.log_focal[0, 0] = 0.1
    options = TrainOptions(data=str(data), camera=NetworkSpec("learned"))
    assert start.begin_cameras(camera, SnippetDataset(data, "train.txt", 3), options) == []
    assert camera.log_focal[0, 0].item() == pytest.approx(0.1)
    assert start.begin_cameras(GivenCamera(), SnippetDataset(data, "train.txt", 3), options) == []


def test_data_that_teach_nothing_are_refused(data):
    write_intrinsics(data / "a" / "cam.txt", np.array([[56.0, 0, 15.5], [0, 56, 10.5], [0, 0, 1]]))
    with pytest.raises(InputError, match=r"the data set is refused: wrong K: a: its centre \(15.5, 10.5\)"):
        check_before_training(TrainOptions(data=str(data)))


def test_an_auto_mask_of_a_camera_that_stands_is_refused(data):
    for file in (data / "a").files("*.jpg"):
        file.write_bytes((data / "a/0000000.jpg").read_bytes())
    options = TrainOptions(data=str(data))
    assert any("static video" in warning for warning in check_before_training(options))
    masked = replace(options, objective=ObjectiveOptions(auto_mask="minimum"))
    with pytest.raises(InputError, match=r"--auto-mask minimum: the camera stands in every training scene of .*data, "):
        check_before_training(masked)


def test_without_the_check_and_in_other_processes_nothing_is_read(capsys, monkeypatch):
    assert check_before_training(TrainOptions(data="nowhere", check=False)) == []
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert check_before_training(TrainOptions(data="nowhere")) == []
    assert capsys.readouterr().out == ""


# --encoder-weights and --encoder-rate --------------------------------------------------------------------------------

ENCODERS = {
    "depth_net": NetworkSpec("mobilenet_v2", {"statistics": "monodepth2"}),
    "pose_net": NetworkSpec("pair_pose_net", {"encoder": "mobilenet_v2"}),
    "explainability": False,
}


@pytest.fixture
def encoder_file(tmp_path):
    torch.manual_seed(5)
    weights = torchvision.models.mobilenet_v2().state_dict()
    torch.save(weights, f"{tmp_path}/mobilenet.pth")
    return f"{tmp_path}/mobilenet.pth", weights


def test_encoders_begin_with_the_weights_of_a_file(encoder_file):
    file, weights = encoder_file
    plain, model = (make_model(new_options(ENCODERS | more))[0] for more in ({}, {"encoder_weights": file}))
    for net in (model.depth_net, model.pose_net):
        own = net.encoder.network.state_dict()
        assert all(torch.equal(own[name], weights[name]) for name in own if name != "features.0.0.weight")
    assert equal(plain.depth_net.decoder, model.depth_net.decoder)  # drawn from the seed as without the file


def test_start_from_prevails_over_encoder_weights(encoder_file, save):
    saved, model = save(**ENCODERS)
    options = new_options(ENCODERS | {"encoder_weights": encoder_file[0], "start_from": (saved,)})
    assert equal(make_model(options)[0], model)


def test_encoder_weights_without_an_encoder_or_of_another_one_are_refused(encoder_file):
    with pytest.raises(InputError, match="no network has an encoder"):
        make_model(new_options(SMALL | {"encoder_weights": encoder_file[0]}))
    other = {"depth_net": NetworkSpec("timm:test_efficientnet"), "encoder_weights": encoder_file[0]}
    with pytest.raises(InputError, match=r"no weights of timm:test_efficientnet: it lacks conv_stem.weight"):
        make_model(new_options(other))


def test_the_encoders_rate():
    options = new_options(ENCODERS | {"encoder_rate": 0.25, "learning_rate": 0.1})
    model, _ = make_model(options)
    others, encoders = make_optimizer(model, options).param_groups
    assert (others["peak"], encoders["peak"]) == (0.1, 0.025)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert all(".encoder." in names[parameter] for parameter in encoders["params"])
    assert not any(".encoder." in names[parameter] for parameter in others["params"])
    assert {*others["params"], *encoders["params"]} == names.keys()
    (group,) = make_optimizer(model, new_options(ENCODERS)).param_groups
    assert group["params"] == list(model.parameters())  # as in checkpoints of older versions


def test_an_encoders_rate_needs_an_encoder():
    options = new_options(SMALL | {"encoder_rate": 0.25})
    with pytest.raises(UsageError, match=r"--encoder-rate 0.25: no network has an encoder"):
        make_optimizer(make_model(options)[0], options)


def test_start_from_takes_monodepth2_s_networks_and_names_the_flags_that_fit(tmp_path):
    """`sources` makes no difference to a network of pairs."""
    folder = Path(tmp_path)
    shapes = file_shapes("resnet18")
    for name in ("encoder", "depth", "pose_encoder", "pose"):
        torch.save(fill(shapes[f"monodepth2_{name}"]), folder / f"{name}.pth")
    check_start_from(folder, given={}, pose={})


def test_start_from_takes_sc_sfmlearner_s_two_files_and_names_the_flags_that_fit(tmp_path):
    """Its depth ends at 10.01, and its pose network sees the target first and predicts Euler angles."""
    shapes = file_shapes("resnet18")
    files = {kind: Path(tmp_path) / f"{kind}_model_best.pth.tar" for kind in ("dispnet", "exp_pose")}
    for name, file in zip(("scsfm_disp", "scsfm_pose"), files.values(), strict=True):
        torch.save({"epoch": 200, "state_dict": fill(shapes[name])}, file)
    pose = {"order": "target-first", "rotation": "euler"}
    check_start_from(*files.values(), given={"max_disparity": 10.01}, pose=pose)
    depth_net = NetworkSpec("resnet18", {"statistics": "monodepth2", "max_disparity": 10.01})
    wrong = {"start_from": tuple(files.values()), "depth_net": depth_net, "explainability": False}
    with pytest.raises(InputError, match=r"give --pose-net pair_pose_net .*order=target-first rotation=euler"):
        make_model(new_options(wrong | {"pose_net": NetworkSpec("pair_pose_net", {"statistics": "monodepth2"})}))
    other = new_options({"start_from": (files["exp_pose"],), "explainability": False, **SMALL})
    with pytest.raises(InputError, match=r"exp_pose_model_best.pth.tar: its pose network is pair_pose_net"):
        make_model(other)


def check_start_from(*files: Path, given: dict, pose: dict) -> None:
    """A training with networks of these arguments begins with the files' weights; plain networks are refused."""
    torch.manual_seed(6)
    depth_net = NetworkSpec("resnet18", {"statistics": "monodepth2", "first_disparity": 1.2} | given)
    theirs = {"depth_net": depth_net, "explainability": False}
    theirs["pose_net"] = NetworkSpec("pair_pose_net", {"statistics": "monodepth2"} | pose)
    model, ancestors = make_model(new_options(theirs | {"start_from": files, "sequence_length": 5}))
    loaded = [checkpoint.load_model(file) for file in files]
    assert equal(model.depth_net, loaded[0].depth_net)
    assert equal(model.pose_net, loaded[-1].pose_net)
    assert (model.pose_net.sources, ancestors) == (4, [None] * len(files))
    plain = {"start_from": files, "depth_net": NetworkSpec("resnet18"), "explainability": False}
    with pytest.raises(InputError, match=r"give --depth-net resnet18 .* statistics=monodepth2"):
        make_model(new_options(plain))


@pytest.mark.parametrize(
    ("given", "device", "capability", "expected"),
    [
        ({}, "cpu", "AVX512", True),
        ({}, "cpu", "AVX2", False),
        ({}, "cuda", "AVX512", False),
        ({"channels_last": False}, "cpu", "AVX512", False),
        ({"channels_last": True}, "cuda", "AVX2", True),
        ({"recipe": "small"}, "cpu", "AVX2", True),
    ],
)
def test_memory_format_of_the_networks(given, device, capability, expected, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert uses_channels_last(new_options(given), torch.device(device)) is expected


@pytest.mark.parametrize("large", [1, 2**12, 2**21])
def test_channels_last_changes_no_step_beyond_rounding(large, monkeypatch):
    """Fused Adam reads raw memory: weights, gradients and moments must lie alike."""
    monkeypatch.setattr("models.layers.LARGE", large)
    options, images = new_options(SMALL), torch.rand(2, 3, 3, 33, 47) * 2 - 1
    weights = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        specs = network_specs(options, 1)
        model = build(specs["depth"], specs["pose"], specs["camera"])
        if channels_last:
            to_channels_last(model, torch.device("cpu"))
        optimizer = make_optimizer(model, options)
        for _ in range(2):
            optimizer.zero_grad()
            sum(scale.mean() for scale in model.depth_net(images[:, 0])).backward()
            transforms, masks = model.pose_net(images[:, 1], images[:, [0, 2]])
            (transforms.sum() + sum(mask.mean() for mask in masks)).backward()
            for parameter in model.parameters():
                assert parameter.grad is None or parameter.grad.stride() == parameter.stride()
            optimizer.step()
        weights.append([weight.detach() for weight in model.parameters()])
    for plain, other in zip(*weights, strict=True):
        assert (plain - other).abs().mean() < 0.01 * options.learning_rate
