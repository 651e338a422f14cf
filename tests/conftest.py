"""What all tests share."""

import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import settings
from path import Path
from PIL import Image

from benchmarks.surroundings import signals_as_before
from models import CAMERAS, DEPTH_NETS, POSE_NETS, NetworkSpec, build, complete
from models.checkpoint import checkpoint_content, save_checkpoint

ROOT = Path(__file__).absolute().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real KITTI frames and reference figures that lies beside the project, where there is one."""
    folder = Path(__file__).absolute().parent.parent.parent / "shared"
    parts = ("kitti_odometry", "kitti_raw", "reference", "video", "weights")
    if not all((folder / part).is_dir() for part in parts):
        pytest.skip(f"no folder shared/ with {', '.join(parts)} beside the project: real data and reference figures")
    return folder


@contextmanager
def _as_before() -> Iterator[None]:
    of_children = signal.getsignal(signal.SIGCHLD)
    try:
        with signals_as_before():
            yield
    finally:
        signal.signal(signal.SIGCHLD, of_children)
        torch.set_flush_denormal(False)


@pytest.fixture
def process_as_before():
    """Undo what a run in this process changes: it listens to signals, wraps the output, and rounds tiny numbers."""
    with _as_before():
        yield


@pytest.fixture
def script_here(monkeypatch) -> Callable[..., None]:
    """Run a script of the project in this process, as typed: `script_here("train.py", "prepared", "--steps", 2)`.

    A process of its own would import PyTorch again, which takes seconds.
    """

    def run(file: str, *words: object) -> None:
        with _as_before(), monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [file, *map(str, words)])
            runpy.run_path(ROOT / file, run_name="__main__")

    return run


@pytest.fixture(scope="session")
def write_checkpoint():
    """Write a checkpoint of new, narrow networks, as training would: `write_checkpoint(file, step=3, scenes=[...])`."""

    def write(file, step=3, height=32, width=64, scenes=None, data=None):
        torch.manual_seed(0)
        specs = {
            "depth": complete(DEPTH_NETS, NetworkSpec("disp_net", {"width": 1 / 8})),
            "pose": complete(
                POSE_NETS, NetworkSpec("pose_exp_net", {"sources": 2, "explainability": False, "width": 1 / 8})
            ),
            "camera": complete(CAMERAS, NetworkSpec("given")),
        }
        model = build(specs["depth"], specs["pose"], specs["camera"])
        optimizer = torch.optim.Adam(model.parameters())
        options = {} if data is None else {"data": str(data)}
        record = {"height": height, "width": width} | ({} if scenes is None else {"scenes": scenes})
        standing = {"step": step, "skipped": 0, "validation_due": False, "best": {}, "damaged": []}
        save_checkpoint(file, checkpoint_content(model, specs, optimizer, options, record, standing))
        return file

    return write


@pytest.fixture(scope="session")
def make3d(tmp_path_factory) -> Path:
    """A folder in Make3D's formats: 134 portraits and grids, the test set's number, with nothing to see."""
    root = Path(tmp_path_factory.mktemp("make3d"))
    for package in ("Test134", "Gridlaserdata"):
        (root / package).makedirs()
    for number in range(134):
        grid = np.zeros((55, 305, 4))
        grid[..., 3] = np.linspace(80, 2 + number % 7, 55)[:, None]
        file = root / f"Gridlaserdata/depth_sph_corr-op{number}-p.mat"
        scipy.io.savemat(file, {"Position3DGrid": grid}, do_compression=True)
        picture = np.full((100, 75, 3), number, dtype=np.uint8)
        Image.fromarray(picture).save(root / f"Test134/img-op{number}-p.jpg")
    return root


@pytest.fixture(scope="session")
def write_video():
    """Write a video: `write_video(file, images, rate=25)`; see `write` below for the rest."""

    def write(
        file, images, rate=25, codec="libx264", pixels="yuv420p", source="rgb24", times=None, rotation=0, **options
    ):
        """`images` are uint8 [H, W, 3] (or what `source` says), `times` in seconds for a variable rate, `rotation` in
        degrees counter-clockwise, `options` are the encoder's."""
        with av.open(str(file), "w", options={"movflags": "+faststart"} if str(file).endswith(".mp4") else {}) as out:
            stream = None
            for number, image in enumerate(images):
                if stream is None:
                    stream = out.add_stream(codec, rate=rate, options={k: str(v) for k, v in options.items()})
                    stream.height, stream.width, stream.pix_fmt = *image.shape[:2], pixels
                    stream.codec_context.time_base = Fraction(1, 12800)
                    if rotation:
                        stream.set_display_rotation(rotation)
                frame = av.VideoFrame.from_ndarray(image, format=source)
                frame.time_base = Fraction(1, 12800)
                frame.pts = round(12800 * (number / rate if times is None else times[number]))
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        return file

    return write


@pytest.fixture
def peak_memory() -> Callable[[Callable[[], object]], float]:
    """Function that calls another one and returns the MiB that it took at its peak.

    The call may take 3 GiB of address space at most, so that a test that fails does not take the machine's memory.
    """
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell the peak of the memory in use")

    def in_use(name: str) -> float:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024

    def measure(call: Callable[[], object]) -> float:
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        before = in_use("VmRSS")
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(in_use("VmSize") * 2**20 + 3 * 2**30), limits[1]))
        try:
            call()
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        return in_use("VmHWM") - before

    return measure


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    """Cheap tests first: what is marked slow runs after the rest; GPU tests skip themselves without a GPU."""
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


# One thread per process, also in the processes that tests start. pytest-xdist starts as many processes as there are
# cores, the same sums give the same bits, and a process with several threads hangs after a fork.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples each time, and few; HYPOTHESIS_PROFILE=long tries others each time, and many.
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=40, database=None)
settings.register_profile("long", deadline=None, max_examples=4000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
