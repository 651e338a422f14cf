import os
import re
import resource
import subprocess
import sys

from cli.flags import run_script

import numpy as np
import pytest
import torch
from path import Path
from PIL import Image

import export
import models
from datasets.layout import read_intrinsics, write_scene_names
from inference import graphs
from inference.graphs import GraphOptions, graph_inputs
from models.checkpoint import checkpoint_content, load_model, save_checkpoint

ROOT = Path(__file__).absolute().parent.parent
RECORDED = ROOT / "tests/recorded/version_1/demo.pt"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run export.py as typed: (exit status, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, words)])
        status = 0
        try:
            run_script(export.main)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_a_checkpoint_becomes_published_weights_as_typed(tmp_path):
    file = Path(tmp_path) / "weights.safetensors"
    command = [sys.executable, ROOT / "export.py", RECORDED, file, "--half"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{file}: 0.")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((RECORDED, "weights.pt"), 2, "weights.pt: expected a name that ends with .safetensors, .onnx, .pt2 or .txt"),
        (("nowhere.pt", "weights.safetensors"), 1, "nowhere.pt: no such file, expected a checkpoint"),
        ((ROOT / "tests", "weights.safetensors"), 1, "found no checkpoint of a run in this folder"),
        ((RECORDED, "nowhere/weights.safetensors"), 1, "no such folder"),
        ((RECORDED, "a.onnx", "--half"), 2, "--half goes with .safetensors, folder, not with a.onnx"),
        ((RECORDED, "cam.txt", "--input", "uint8"), 2, "--input goes with .onnx, .pt2, not with cam.txt"),
        ((RECORDED, "a.pt2", "--opset", "20"), 2, "--opset goes with .onnx"),
        ((RECORDED, "a.pt2", "--network", "pose", "--output", "depth"), 2, "--output goes with --network depth"),
        ((RECORDED, "a.onnx", "--batch", "3"), 2, "--batch 3 goes with --fixed batch"),
        ((RECORDED, "a.onnx", "--batch", "3", "--fixed", "size"), 2, "--batch 3 goes with --fixed batch"),
        (("world", "w.safetensors"), 1, "world: weights that are already published"),
        (("world", "folder/"), 1, "world: weights that are already published"),
        ((RECORDED, "a.onnx", "--height", "16"), 1, "the networks take images from 32 on"),
        ((RECORDED, "cam.txt"), 1, "has no learned camera; it was trained with K of the data"),
        ((RECORDED, RECORDED.parent), 1, "expected a new folder or one that this command wrote"),
    ],
)
def test_wrong_use_is_one_line(run, monkeypatch, tmp_path, words, status, message):
    monkeypatch.chdir(tmp_path)
    found, _, error = run(*words)
    assert found == status
    assert message in error
    assert error.count("\n") == 1
    assert not Path(tmp_path).files()


@pytest.mark.parametrize("name", ["w.safetensors", "mine"])
def test_networks_of_another_project_are_no_checkpoint_to_publish(run, tmp_path, name):
    """They were "no such file", with the name of a folder that is there."""
    folder = (Path(tmp_path) / "mono_640x192").makedirs_p()
    (folder / "encoder.pth").touch()
    status, _, error = run(folder, Path(tmp_path) / name)
    assert status == 1
    expected = "the networks of monodepth2, another project, expected a checkpoint of train.py (last.pt)"
    assert error == f"export.py: error: {folder}: {expected}\n"
    assert os.listdir(tmp_path) == ["mono_640x192"]


@pytest.mark.parametrize("name", ["weights.safetensors", "folder"])
def test_a_full_disk_leaves_nothing_that_looks_whole(run, tmp_path, name):
    """A limit on the size of files stands for the full disk: the system refuses the write in the same way."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        status, out, error = run(RECORDED, Path(tmp_path) / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, out, error.count("\n")) == (1, "", 1)
    assert "File too large" in error
    assert not list(Path(tmp_path).walkfiles("*.safetensors"))


def test_pictures_of_a_data_set_whose_images_are_gone_are_those_of_the_docs(tmp_path):
    data = Path(tmp_path)
    write_scene_names(data / "train.txt", ["scene"])
    expected = export.find_pictures(None, None, 3)
    for gone in ("the folder", "its images"):
        pictures = export.find_pictures(None, str(data), 3)
        assert len(pictures) == 5, gone
        np.testing.assert_array_equal(pictures, expected)
        (data / "scene").makedirs_p()


def frames(batch: int, length: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, length, 3, height, width), dtype=torch.uint8)


@pytest.mark.slow
def test_a_pose_network_in_a_file_that_torch_loads(run, tmp_path):
    file = Path(tmp_path) / "pose.pt2"
    status, out, error = run(RECORDED, file, "--network", "pose", "--height", 32, "--width", 64, "--fixed", "size")
    assert status == 0, error
    assert out.count("greatest relative difference") == 4  # random and real images, two batches
    assert "target, sources -> source_from_target; any batch" in out
    pose_net = load_model(RECORDED).pose_net
    inputs = graph_inputs(frames(3, 3, 32, 64), 2, GraphOptions())
    with torch.no_grad():
        expected = pose_net(*inputs.values())[0]
        got = torch.export.load(file).module()(*inputs.values())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_depth_network_by_onnx_runtime_at_any_size(run, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    data = Path(tmp_path) / "data"  # with a size of its own
    (data / "a").makedirs()
    for k in range(3):
        picture = np.random.default_rng(k).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(picture).save(data / "a" / f"{k}.png")
    write_scene_names(data / "train.txt", ["a"])
    file = Path(tmp_path) / "depth.onnx"
    words = ("--input", "uint8", "--output", "depth", "--height", 32, "--width", 64, "--images", data / "a/0.png")
    status, out, error = run(RECORDED, file, *words)
    assert status == 0, error
    assert "random images, 2 of 64 x 32: greatest" in out
    assert "real images, 3 of 91 x 45: greatest" in out
    assert "image -> depth; any batch, size" in out
    session = onnxruntime.InferenceSession(file)
    images = frames(1, 1, 70, 96)
    (depth,) = session.run(["depth"], {"image": images[:, 0].numpy()})
    with torch.no_grad():
        expected = 1 / load_model(RECORDED).depth_net(images[:, 0] / 127.5 - 1)[0]
    np.testing.assert_allclose(depth, expected, rtol=1e-4)
    model = onnx.load(file)
    onnx.checker.check_model(model)
    assert {entry.key: entry.value for entry in model.metadata_props}["input"] == "uint8"


def test_a_graph_that_differs_is_no_file_and_a_failure(run, monkeypatch, tmp_path):
    plain = graphs.pt2_runner

    def wrong(content):
        return lambda inputs: plain(content)(inputs) * 1.001

    monkeypatch.setattr(export, "pt2_runner", wrong)
    file = Path(tmp_path) / "pose.pt2"
    words = ("--network", "pose", "--height", 32, "--width", 64, "--fixed", "batch", "size")
    status, out, error = run(RECORDED, file, *words)
    assert (status, out.count("greatest relative difference")) == (1, 2)
    assert "pose.pt2: not written: the graph differs from the network by" in error
    assert not file.exists()


@pytest.mark.slow
def test_the_operators_of_an_onnx_file_have_the_version_that_was_asked_for(run, tmp_path):
    onnx = pytest.importorskip("onnx")
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    file = Path(tmp_path) / "pose.onnx"
    words = ("--network", "pose", "--height", 32, "--width", 64, "--fixed", "batch", "size", "--opset")
    for opset in (5, 99):  # older and newer than any that the exporter can convert to
        status, _, error = run(RECORDED, file, *words, opset)
        assert status == 1
        assert re.fullmatch(rf"(.*: )?--opset {opset}: .* cannot write it, it reached version \d+\n", error)
        assert not Path(tmp_path).files()
    assert run(RECORDED, file, *words, 19)[0] == 0
    assert [(entry.domain, entry.version) for entry in onnx.load(file).opset_import] == [("", 19)]


def test_differences_are_relative():
    depth = np.array([[[[1.0, 100]]]])
    assert graphs.greatest_difference(depth, depth * [1, 1.01]) == pytest.approx(0.01)
    motion = np.eye(4)[None, None].repeat(2, 1)
    motion[0, 0, 2, 3] = 0.5
    assert graphs.greatest_difference(motion, motion + 1e-3) == pytest.approx(2e-3)
    assert np.isnan(graphs.greatest_difference(depth, depth * np.nan))


def small(name: str) -> models.NetworkSpec:
    arguments = {"width": 1 / 16} if name in ("disp_net", "pose_exp_net") else {}
    if name.startswith("timm:"):
        pytest.importorskip("timm")
        name = "timm:test_efficientnet"  # timm's own small network for tests, with the operations of EfficientNet
    return models.NetworkSpec(name, arguments)


# disp_net is exported above. The operations of resnet18 are in pair_pose_net (its encoder) and in mobilenet_v2 (the
# decoder); resnet50 has the same. Those of timm depend on the network that is chosen.
ALL = bool(os.environ.get("SFMLEARNER_ALL_RECIPES"))
ELSEWHERE = () if ALL else ("resnet18", "resnet50", "disp_net", "timm:NAME")
NETWORKS = [("depth", name) for name in models.DEPTH_NETS if name not in ELSEWHERE]
NETWORKS += [("pose", name) for name in models.POSE_NETS]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), NETWORKS)
def test_every_network_becomes_onnx_for_any_batch_and_size(kind, name):
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    compare(kind, name, ".onnx")


# The graph of pose_exp_net, whose images shrink twice more, takes PyTorch three times as long to load.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["pair_pose_net", *(["pose_exp_net"] if ALL else [])])
def test_a_network_becomes_pt2_for_any_batch_and_size(name):
    compare("pose", name, ".pt2")


def compare(kind: str, name: str, suffix: str) -> None:
    networks = models.DEPTH_NETS if kind == "depth" else models.POSE_NETS
    network, options = models.make(networks, small(name)).eval(), GraphOptions()
    sources = None if kind == "depth" else network.sources
    graph = (graphs.DepthGraph if kind == "depth" else graphs.PoseGraph)(network, options).eval()
    length = 1 if sources is None else sources + 1
    example = graph_inputs(frames(2, length, *export.EXAMPLE_SIZE), sources, options)
    program = graphs.capture(graph, example, checked=suffix == ".pt2")
    if suffix == ".pt2":
        run = graphs.pt2_runner(graphs.to_pt2(program))
    else:
        run = graphs.onnx_runner(graphs.to_onnx(program, "output", None, {}))
    for size in ((1, 64, 96), (3, 77, 131)):
        inputs = graph_inputs(frames(size[0], length, *size[1:]), sources, options)
        with torch.no_grad():
            expected = graph(*inputs.values()).numpy()
        assert graphs.greatest_difference(expected, run(inputs)) < graphs.TOLERANCE


def test_a_learned_camera_becomes_cam_txt(run, tmp_path):
    """Two cameras, of 96 x 64 pixels, for images of twice the size: f' = 2 f, c' = (c + 0.5) 2 - 0.5."""
    loaded = load_model(RECORDED)
    specs = loaded.specs | {"camera": models.NetworkSpec("learned", {"cameras": 2})}
    model = models.SfMLearner(loaded.depth_net, loaded.pose_net, models.make(models.CAMERAS, specs["camera"]))
    k = torch.tensor([[50.0, 0, 47.5], [0, 40, 30], [0, 0, 1]])
    model.camera.start_from(torch.stack([torch.eye(3), k]))
    record = {"height": 64, "width": 96, "scenes": ["a", "b"], "cameras": [["a"], ["b"]]}
    standing = {"step": 1, "skipped": 0, "validation_due": False, "best": {}, "damaged": []}
    optimizer = torch.optim.Adam(model.parameters())
    file = Path(tmp_path) / "last.pt"
    save_checkpoint(file, checkpoint_content(model, specs, optimizer, {}, record, standing))
    target = Path(tmp_path) / "cam.txt"
    status, _, error = run(file, target)
    assert (status, target.exists()) == (1, False)
    assert "has 2 learned cameras; choose that of a --scene, such as a, b" in error
    assert run(file, target, "--scene", "b", "--width", 192, "--height", 128)[0] == 0
    np.testing.assert_allclose(read_intrinsics(target), [[100, 0, 95.5], [0, 80, 60.5], [0, 0, 1]])
    assert "was not trained on a scene of this name" in run(file, target, "--scene", "c")[2]
