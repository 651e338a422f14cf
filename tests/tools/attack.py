"""Attack the project: damaged files, kills, signals, folders and disks that cannot be written, odd terminals."""

import argparse
import contextlib
import faulthandler
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from path import Path
from tqdm import tqdm

TOOLS = Path(__file__).absolute().parent
ROOT = TOOLS.parent.parent
sys.path[:0] = [ROOT, TOOLS]

from cli.flags import non_negative_int, positive_int, run_script

import kill_and_resume

import tests.data.test_prepare_cityscapes as cityscapes
import tests.test_damage as damage
from datasets.formats.depth_archive import read_depth_archive
from datasets.formats.kitti_folders import read_drive_list, read_image_list
from datasets.formats.video import open_video, read_video
from datasets.layout import read_intrinsics
from evaluation.odometry import load_snippets
from evaluation.predictions import load_depth, save_predictions
from files.atomic import is_leftover
from files.errors import InputError
from models.checkpoint import load_checkpoint, load_model
from models.published import publish

DESCRIPTION = """\
Attack the project in four ways, print what was tried and what was found, and end with status 1 if there are findings.

  readers       files of every kind, changed at random in bytes, words, values, members of archives: each must be read
                to a right result or refused in one line, in bounded time and memory, whatever is in it
  kills         a training that is killed at random moments must resume to what it would have been (kill_and_resume.py)
  signals       trainings at once that get SIGTERM while their readers start: each must stop in order
  surroundings  every command in a folder that cannot be written, on disks that are full, with a terminal that knows
                ASCII alone, from another folder, with names of any bytes

  python tests/tools/attack.py --mutations 2000 --kills 50 --runs 14
  python tests/tools/attack.py --parts readers --mutations 20000 --seed 7

Disks that are full or cannot be written are small tmpfs, which only root can mount; without it they are left out."""

PARTS = ("readers", "kills", "signals", "surroundings")
LONGEST = 60  # seconds for a reader; for a command ten times as long
MOST_MEMORY = 2**30  # bytes that reading a small file may take, at the peak
DEPTH_ARCHIVE, VIDEO = "depths.npz", "drive.mp4"


class Attack:
    """Counts what was tried, and collects what was found."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []

    def count(self, what: str, finding: str = "") -> None:
        self.counts[what] += 1
        if finding:
            self.findings.append(finding)
            tqdm.write(f"FOUND: {finding}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="(default: all)")
    parser.add_argument("--mutations", type=positive_int, default=2000, help="of files (default: 2000)")
    parser.add_argument("--kills", type=positive_int, default=50, help="of a training (default: 50)")
    parser.add_argument("--runs", type=positive_int, default=14, help="at once that get a signal (default: 14)")
    parser.add_argument("--commands", nargs="+", metavar="NAME", help="of the surroundings (default: all)")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="(default: 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        attack = Attack(Path(folder), args.seed)
        if "readers" in args.parts:
            attack_readers(attack, args.mutations)
        if "kills" in args.parts:
            attack_by_kills(attack, args.kills)
        if "signals" in args.parts:
            attack_by_signals(attack, args.runs)
        if "surroundings" in args.parts:
            attack_surroundings(attack, args.commands)
    for what, count in sorted(attack.counts.items()):
        print(f"{count:6} {what}")
    if attack.findings:
        raise InputError(f"{len(attack.findings)} findings, the first: {attack.findings[0]}")
    print("nothing was found")


# A process of its own for each try -----------------------------------------------------------------------------------


def in_a_process(work: Callable[[], Any], output: Path, longest: float) -> tuple[int, Any]:
    """Run `work` in a copy of this process: (exit status, `os.wait4`'s usage). Its prints go to the file `output`.

    The status is negative for the number of a signal that ended it, SIGALRM where it took too long.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.setsid()
            faulthandler.disable()  # pytest's writes into its own output
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
            tqdm.set_lock(threading.RLock())  # the parent's may be held by another copy
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(longest))
            code = work() or 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(process, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # what it has left
    return os.waitstatus_to_exitcode(status), usage


def last_lines(output: Path, count: int = 3) -> str:
    text = output.read_bytes().decode(errors="replace")
    return " | ".join(text.replace("\r", "\n").strip().splitlines()[-count:])[-500:]


# Readers -------------------------------------------------------------------------------------------------------------


def attack_readers(attack: Attack, count: int) -> None:
    """Change files of every kind, and read them."""
    folder = (attack.folder / "readers").makedirs_p()
    readers = make_readers(folder)
    names, output = sorted(readers), folder / "output.txt"
    for number in tqdm(range(count), desc="damaged files"):
        name = names[number % len(names)]
        content, read, holds = readers[name]
        chance = random.Random(f"{attack.seed} {number}")
        data = content
        for _ in range(chance.choice((1, 1, 2, 4))):
            data = change(data, chance, [readers[other][0] for other in names])
        file = folder / name
        file.write_bytes(data)
        status, usage = in_a_process(lambda f=file, r=read, h=holds: read_once(f, r, h), output, LONGEST)
        finding = ""
        if status < 0:
            finding = f"ended by {signal.Signals(-status).name}"
        elif status not in (0, READ):
            finding = last_lines(output, 1) or f"exit status {status}"
        elif usage.ru_maxrss * 1024 > MOST_MEMORY + own_memory():
            finding = f"took {usage.ru_maxrss >> 10} MiB"
        if finding:
            kept = Path(tempfile.gettempdir()) / f"attack_{attack.seed}_{number}_{name}"
            kept.write_bytes(data)
            finding = f"{name}: {finding} (seed {attack.seed}, mutation {number}, kept as {kept})"
        kind = "FOUND" if finding else "read to a right result" if status == READ else "refused in one line"
        attack.count(f"damaged files {kind}", finding)
        file.remove_p()


READ = 3  # exit status of a process that has read a file


def read_once(file: Path, read: Callable, holds: Callable) -> int:
    """0 where the file is refused, READ where it is read; an exception or a wrong result is printed with status 1."""
    limit = own_memory("VmSize") + 3 * MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            result = read(file)
    except InputError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or len(message) > 1000:
            print(f"a message of {len(message)} characters: {message[:200]!r}")
            return 1
        if file not in message and file.parent not in message:
            print(f"a message that does not name the file: {message[:300]!r}")
            return 1
        return 0
    except OSError as error:  # a script prints its reason
        if error.strerror is None:
            raise
        return 0
    if not holds(result):
        print(f"a wrong result: {result!r:.300}")
        return 1
    return READ


def own_memory(name: str = "VmRSS") -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) * 1024


def make_readers(folder: Path) -> dict[str, tuple[bytes, Callable, Callable]]:
    """By a file's name: its content, its reader, and what holds for a result. tests/test_damage.py has most of them."""
    readers: dict[str, tuple[bytes, Callable, Callable]] = {}
    for name, (content, read, holds) in (damage.READERS | damage.BINARY).items():
        readers[name] = (content.encode() if isinstance(content, str) else content, read, holds)
    whole = np.ones((2, 3, 4), np.float32)

    def made(name: str, write: Callable[[Path], Any]) -> bytes:
        write(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).remove()
        return content

    files = {"files": np.array(["a.png", "b.png"]), "depth": whole}
    content = made("depth_by_name.npz", lambda file: save_predictions(file, "depth", files, {"step": 1}))
    readers["depth_by_name.npz"] = (content, load_depth, lambda r: all(d.ndim == 2 for d in r[0].values()))
    poses = {"snippets_09": np.tile(np.eye(3, 4), (4, 3, 1, 1))}
    content = made("snippets.npz", lambda file: save_predictions(file, "snippets", poses, {"scenes": ["a"]}))
    readers["snippets.npz"] = (
        content,
        lambda file: load_snippets(file, None),
        lambda r: all(p.ndim == 4 and len(p) for p in r[0].values()),
    )
    maps = np.empty(2, dtype=object)
    maps[:] = [np.ones((3, 4), np.float32), np.ones((3, 5), np.float32)]
    content = made(DEPTH_ARCHIVE, lambda file: np.savez_compressed(file, data=maps))
    readers[DEPTH_ARCHIVE] = (content, read_depth_archive, lambda found: all(depth.ndim == 2 for depth in found))
    readers["images.txt"] = (
        b"2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png\n"
        b"2011_09_26/2011_09_26_drive_0002_sync 70 l\n",
        lambda file: read_image_list(file, file.parent),
        lambda names: all(map(damage.inside, names)),
    )
    readers["drives.txt"] = (
        b"2011_09_26/2011_09_26_drive_0002_sync\n2011_09_26_drive_0005_sync_02\n",
        lambda file: read_drive_list(file, file.parent),
        lambda drives: all(len(drive) == 21 for drive in drives),
    )
    readers["k.txt"] = (damage.CAM.encode(), read_intrinsics, lambda k: k.shape == (3, 3) and damage.finite(k))
    small = folder / "small.pt"
    small.write_bytes(damage.bytes_of(damage.checkpoint_of_a_run))
    content = made("weights.safetensors", lambda file: publish(load_checkpoint(small), file))
    small.remove()
    readers["weights.safetensors"] = (content, load_model, damage.finite_model)
    readers[VIDEO] = (made(VIDEO, write_video), read_all_frames, lambda sizes: all(min(size) > 0 for size in sizes))
    return readers


def write_video(file: Path, frames: int = 6) -> None:
    av = importlib.import_module("av")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        chance = np.random.default_rng(0)
        wide = chance.integers(0, 255, (48, 64 + 2 * frames, 3), dtype=np.uint8)
        for number in range(frames):
            picture = np.ascontiguousarray(wide[:, 2 * number : 2 * number + 64])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_all_frames(file: Path) -> list[tuple[int, ...]]:
    return [frame.image().shape for frame in read_video(open_video(file), 10.0)]


# Changes


def change(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """One change of a file's content: of its bytes, or of what they mean."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [change_bytes]
    if content[:2] == b"PK":
        ways += [change_archive] * 3
    elif content[:4] == b"\x89PNG":
        ways += [change_png]
    elif content[:1] in (b"{", b"["):
        ways += [change_json, change_words]
    elif content[:200].isascii() and b"\n" in content:
        ways += [change_words] * 2
    ways.append(lambda data, chance: data[: chance.randrange(len(data) + 1)] + chance.choice(others)[-5000:])
    try:
        return chance.choice(ways)(content, chance)
    except Exception:  # what was changed before is no archive or no JSON any more
        return change_bytes(content, chance)


EXTREMES = [0, 1, -1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63)]
# fmt: off
WORDS = ["nan", "inf", "-inf", "1e400", "1e300", "1e19", "-1", "0", "-0", "0.1", "1e-320", "1_0", "0x10", "٣", "a",
         "#", ",", ";", "..", "/", "\\", "\0", "\u2028", "9" * 20, "9" * 5000]
# fmt: on


def change_bytes(content: bytes, chance: random.Random) -> bytes:
    data, place = bytearray(content), chance.randrange(len(content) + 1)
    end = min(len(data), place + chance.choice((1, 2, 4, 8, 64, 1000)))
    way = chance.randrange(8)
    if way == 0:
        return bytes(data[:place])
    if way == 1:
        data[place:end] = bytes(byte ^ (1 << chance.randrange(8)) for byte in data[place:end])
    elif way == 2:
        data[place:end] = chance.randbytes(end - place)
    elif way == 3:
        data[place:place] = chance.randbytes(chance.choice((1, 4, 16)))
    elif way == 4:
        del data[place:end]
    elif way == 5:
        data[place:place] = data[place:end] * chance.choice((1, 2, 50))
    elif way == 6:
        data[place:end] = bytes([chance.choice((0, 255))]) * (end - place)
    else:
        kind = chance.choice(["<b", "<h", ">h", "<i", ">i", "<q", ">q"])
        size = struct.calcsize(kind)
        value = chance.choice(EXTREMES) & ((1 << (8 * size)) - 1)
        data[place : place + size] = value.to_bytes(size, "little" if kind[0] == "<" else "big")
    return bytes(data)


def change_words(content: bytes, chance: random.Random) -> bytes:
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    place = chance.randrange(len(lines))
    way = chance.randrange(7)
    if way == 0:
        lines[place:place] = [chance.choice(["", "#", lines[place], chance.choice(lines)])]
    elif way == 1:
        del lines[place]
    elif way == 2:
        chance.shuffle(lines)
    elif way == 3:
        text = "\n".join(lines)
        return text.encode(chance.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"]), "replace")
    elif way == 4:
        return "\n".join(lines).replace(" ", chance.choice([",", "\t", "  ", ";", "\x0b"])).encode(errors="replace")
    else:
        words = lines[place].split(" ")
        words[chance.randrange(len(words))] = chance.choice(WORDS)
        lines[place] = " ".join(words) * chance.choice((1, 1, 1, 3))
    return "\n".join(lines).encode("utf-8", "surrogateescape")


VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "\ud800",
    [],
    {},
    [[]],
    "../a",
]


def change_json(content: bytes, chance: random.Random) -> bytes:
    lines = content.decode().strip().split("\n")
    whole = len(lines) == 1 or (content[-3:].strip() in (b"}", b"]") and not lines[0].endswith("}"))
    place = 0 if whole else chance.randrange(len(lines))
    tree = json.loads(content if whole else lines[place])
    paths = list(damage.places(tree))
    path = chance.choice(paths)
    inner = tree
    for part in path[:-1]:
        inner = inner[part]
    if chance.random() < 0.2:
        del inner[path[-1]]
    else:
        inner[path[-1]] = chance.choice(VALUES)
    if whole:
        return json.dumps(tree).encode()
    lines[place] = json.dumps(tree)
    return "\n".join(lines).encode()


def change_png(content: bytes, chance: random.Random) -> bytes:
    """Change a chunk, and correct its checksum."""
    chunks, place = [], 8
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    number = chance.randrange(len(chunks))
    kind, data = chunks[number]
    way = chance.randrange(4)
    if way == 0:
        del chunks[number]
    elif way == 1:
        chunks.insert(chance.randrange(len(chunks)), chunks[number])
    else:
        chunks[number] = (kind, change_bytes(data, chance))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return content[:8] + b"".join(parts)


def change_archive(content: bytes, chance: random.Random) -> bytes:
    """Change a member of a zip file (.npz, .pt), with checksums that fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    # Mostly what says how the others are to be read: a pickle, headers.
    small = [number for number, (_, data) in enumerate(members) if len(data) < 20_000] or [0]
    number = chance.choice(small if chance.random() < 0.8 else range(len(members)))
    name, data = members[number]
    way = chance.randrange(8)
    if way == 0:
        del members[number]
    elif way == 1:
        members.append((name, chance.choice(members)[1]))
    elif way == 2:
        members[number] = (chance.choice(["../" + name, name + "\0", "data.pkl", "about.npy", "x/" * 50]), data)
    else:
        members[number] = (name, change_bytes(data, chance))
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
        with zipfile.ZipFile(stream, "w", kind) as archive:
            for name, data in members:
                archive.writestr(name, data)
    return stream.getvalue()


# Kills and signals ---------------------------------------------------------------------------------------------------


def attack_by_kills(attack: Attack, count: int) -> None:
    """Kill a training again and again; it must end as one that never was."""
    folder = (attack.folder / "kills").makedirs_p()
    try:
        phases, _ = kill_and_resume.kill_and_resume(folder, count, attack.seed)
    except InputError as error:
        attack.count("trainings of many kills", str(error))
        return
    for phase, kills in phases.items():
        attack.counts[f"kills {phase}"] += kills
    attack.count("trainings of many kills that ended as one that never was")


def attack_by_signals(attack: Attack, count: int) -> None:
    """Send SIGTERM to the process groups of trainings within 30 ms of the start of their readers."""
    folder = (attack.folder / "signals").makedirs_p()
    kill_and_resume.make_data(folder / "data")
    main_of("train.py")  # imported once, before the copies
    outcomes: list[str] = [""] * count
    threads = [
        threading.Thread(target=lambda n=number: outcomes.__setitem__(n, signal_one(folder, n, attack.seed)))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, finding in enumerate(outcomes):
        attack.count(
            f"trainings with a signal that {'FOUND' if finding else 'stopped in order'}",
            finding and f"run {number}: {finding}",
        )


def signal_one(folder: Path, number: int, seed: int) -> str:
    """Start a training, end it by a signal: the finding, or "" where it stops in order."""
    chance = random.Random(f"{seed} signal {number}")
    name, output = f"run{number}", folder / f"run{number}.txt"
    command = ["train.py", folder / "data", "--runs", folder / "runs", "--name", name, "--no-check", "--steps", "40"]
    command += ["--batch-size", "2", "--workers", "2", "--validate-every", "1", "--device", "cpu", "--log-every", "1"]
    command += ["--depth-net", "disp_net", "width=0.0625", "--pose-net", "pose_exp_net", "width=0.0625"]
    with open(output, "wb") as stream:
        process = subprocess.Popen(
            [sys.executable, ROOT / command[0], *command[1:]],
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    # 2 readers of the training; from 3 on those of a validation are starting. At the first, a later, or any one.
    wanted, deadline = chance.choice((1, 2, 3, 3, 3, 4)), time.monotonic() + 600
    begun = folder / "runs" / name / "metrics.jsonl"  # before it there is nothing to lose
    while process.poll() is None and not (begun.exists() and children(process.pid) >= wanted):
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            return f"its readers did not start: {last_lines(output)}"
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.03))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        status = process.wait(300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"did not end within 300 s of the signal: {last_lines(output)}"
    text = output.read_bytes().decode(errors="replace")
    if status != 0 or "Traceback" in text or ("stopped at step" not in text and "done: step" not in text):
        return f"exit status {status}: {last_lines(output, 5)}"
    try:
        load_checkpoint(folder / "runs" / name / "last.pt")
    except InputError as error:
        return str(error)
    left = children(process.pid)
    return f"{left} processes are left" if left else ""


def children(process: int) -> int:
    try:
        with open(f"/proc/{process}/task/{process}/children") as stream:
            return len(stream.read().split())
    except OSError:
        return 0


# Surroundings --------------------------------------------------------------------------------------------------------


def main_of(script: str) -> Callable[[], None]:
    """The `main` of a script, imported once in this process: its copies need not import PyTorch again."""
    return importlib.import_module(script.removesuffix(".py").replace("/", ".")).main


class Inputs:
    """What the commands read: a world, prepared data, a run, predictions, other people's files."""

    def __init__(self, folder: Path) -> None:
        self.world, self.prepared, self.runs = folder / "world", folder / "prepared", folder / "runs"
        self.raw, self.odometry = self.world / "raw", self.world / "odometry"
        self.checkpoint, self.make3d = self.runs / "run/last.pt", folder / "make3d"
        self.cityscapes, self.video, self.trajectory = (folder / name for name in ("cityscapes", VIDEO, "mine.txt"))

    def make(self, output: Path) -> None:
        """Make them by the project's own commands, which must succeed."""
        size = ["--width", "96", "--height", "48"]
        steps = [
            ["data/make_world.py", self.world, "--drives", "3", "--frames", "6", "--dense-depth", "--jobs", "1", *size],
            ["data/prepare_kitti.py", self.raw, self.prepared, "--with-depth", "--with-poses", "--jobs", "1", *size]
            + ["--keep-test-scenes"],
            train_command(self.prepared, self.runs),
        ]
        for command in steps:
            status = run_command(command, output, {}, Path("/"))
            if status != 0:
                raise InputError(f"{command[0]} ended with status {status}: {last_lines(output)}")
        (sequence,) = sorted((self.odometry / "poses").files("*.txt"))[:1]
        shutil.copy(sequence, self.trajectory)
        self._make_make3d()
        for city in ("aachen", "bochum"):
            cityscapes.write_sequence(self.cityscapes, city, 0, frames=range(10, 26))
        write_video(self.video, 30)

    def _make_make3d(self) -> None:
        import scipy.io
        from PIL import Image

        for package in ("Test134", "Gridlaserdata"):
            (self.make3d / package).makedirs()
        for number in range(2):
            grid = np.zeros((55, 305, 4))
            grid[..., 3] = np.linspace(60, 2 + number, 55)[:, None]
            file = self.make3d / f"Gridlaserdata/depth_sph_corr-op{number}-p.mat"
            scipy.io.savemat(file, {"Position3DGrid": grid}, do_compression=True)
            picture = np.full((100, 75, 3), 90, dtype=np.uint8)
            Image.fromarray(picture).save(self.make3d / f"Test134/img-op{number}-p.jpg")

    def commands(self, out: Path) -> dict[str, list]:
        """Every command that writes, by a name; it writes into the folder `out`."""
        split, truth = self.world / "splits/test_files.txt", sorted((self.odometry / "poses").files("*.txt"))[0]
        sequence = str(truth.stem)
        test = [self.checkpoint, "--device", "cpu", "--batch-size", "2", "--workers", "2", "--allow-training-overlap"]
        depth = ["test_depth.py", *test, "--kitti", self.raw, "--list", split, "--protocol", "dense"]
        depth += ["--json", out / "depth.json", "--csv", out / "depth.csv", "--pictures", out / "depth.png"]
        pose = ["test_pose.py", *test, "--kitti", self.odometry, "--sequences", sequence, "--save", out / "pose.npz"]
        trajectory = ["test_pose.py", "--trajectory", self.trajectory, "--ground-truth", truth]
        frames = self.prepared / read_first(self.prepared / "train.txt")
        return {
            "make_world": ["data/make_world.py", out / "world", "--drives", "2", "--frames", "3", "--jobs", "1"]
            + ["--width", "64", "--height", "32", "--mono"],
            "prepare_kitti": ["data/prepare_kitti.py", self.raw, out / "prepared", "--with-depth", "--with-poses"]
            + ["--jobs", "1", "--width", "64", "--height", "32", "--keep-test-scenes"],
            "prepare_cityscapes": ["data/prepare_cityscapes.py", self.cityscapes, out / "cityscapes", "--jobs", "1"]
            + ["--height", "24", "--width", "64"],
            "prepare_video": ["data/prepare_video.py", self.video, out / "video", "--width", "64", "--height", "32"]
            + ["--fps", "10", "--jobs", "1"],
            "check_data": ["data/check_data.py", self.prepared, "--json", out / "check.json", "--pairs", "8"],
            "train": train_command(self.prepared, out / "runs"),
            "test_depth": [*depth, "--save", out / "depth.npz"],
            "test_pose": [*pose, "--json", out / "pose.json", "--export", out / "exported"],
            "test_pose --trajectory": [*trajectory, "--json", out / "mine.json", "--export", out / "exported"],
            "test_make3d": ["test_make3d.py", self.checkpoint, "--make3d", self.make3d, "--allow-missing"]
            + ["--device", "cpu", "--save", out / "m.npz", "--json", out / "m.json", "--csv", out / "m.csv"],
            "export": ["export.py", self.checkpoint, out / "weights.safetensors"],
            "predict": ["predict.py", self.checkpoint, frames, "--out", out / "predicted", "--device", "cpu"],
            "demo": ["demo.py", "--folder", out / "demo", "--steps", "2", "--drives", "3", "--frames", "10"]
            + ["--width", "64", "--height", "32", "--device", "cpu"],
        }


def read_first(file: Path) -> str:
    return file.read_text().split("\n")[0]


def train_command(data: Path, runs: Path) -> list:
    command = ["train.py", data, "--runs", runs, "--name", "run", "--no-check", "--steps", "3", "--batch-size", "2"]
    command += ["--workers", "1", "--log-every", "1", "--validate-every", "2", "--device", "cpu"]
    return [*command, "--depth-net", "disp_net", "width=0.0625", "--pose-net", "pose_exp_net", "width=0.0625"]


def run_command(command: list, output: Path, environment: dict[str, str], cwd: Path) -> int:
    """Exit status of a command: in a copy of this process, or where it has an environment, in a new one."""
    arguments = [str(argument) for argument in command]
    if environment:
        with open(output, "wb") as stream:
            return subprocess.run(
                [sys.executable, ROOT / arguments[0], *arguments[1:]], stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, cwd=cwd, env=os.environ | environment, check=False, timeout=10 * LONGEST,
            ).returncode  # fmt: skip
    script = main_of(arguments[0])

    def work() -> None:
        os.chdir(cwd)
        sys.argv = arguments
        run_script(script)

    return in_a_process(work, output, 10 * LONGEST)[0]


@contextmanager
def disk(place: Path, size: str, read_only: bool = False) -> Iterator[None]:
    """A small disk in memory at a folder, with room for `size`."""
    options = f"size={'4k' if size == '0' else size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True, capture_output=True)
    try:
        if size == "0":
            (place / "full").write_bytes(bytes(4096))
        if read_only:
            subprocess.run(["mount", "-o", "remount,ro", place], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True, capture_output=True)


@dataclass(frozen=True)
class Surrounding:
    """Where and how a command runs, and how it must end: "succeed", "refuse" (in one line), or either."""

    name: str
    out: str  # the folder that it writes to
    must: str = "succeed"
    environment: dict[str, str] = field(default_factory=dict)
    relative: bool = False  # its arguments are relative paths
    again: bool = False  # in the folder as the command before has left it
    size: str = ""  # of a disk of its own
    read_only: bool = False


ROOM = ("0", "40k", "200k", "1m")
ASCII = {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
SURROUNDINGS = (
    Surrounding("in a folder with odd letters, with a terminal of ASCII", "m\u00f6h $x_{ \u2028", environment=ASCII),
    Surrounding("in a folder whose name is no UTF-8", os.fsdecode(b"m\xff"), "either"),
    Surrounding("given by relative paths from another folder", "plain", relative=True),
    Surrounding("a second time in the same folder", "plain", "either", again=True),
    Surrounding("in a folder that cannot be written", "disk", "refuse", size="1m", read_only=True),
    *(Surrounding(f"on a disk with room for {size}", "disk", "either", size=size) for size in ROOM),
)


def attack_surroundings(attack: Attack, names: list[str] | None) -> None:
    """Run every command in each of the surroundings."""
    folder = (attack.folder / "surroundings").makedirs_p()
    inputs, output, elsewhere = Inputs(folder / "inputs"), folder / "output.txt", folder / "elsewhere"
    for place in (folder / "inputs", elsewhere):
        place.makedirs_p()
    inputs.make(output)
    commands = [name for name in inputs.commands(folder) if names is None or name in names]
    surroundings = [one for one in SURROUNDINGS if not one.size or os.geteuid() == 0]
    with tqdm(total=len(commands) * len(surroundings), desc="surroundings") as bar:
        for name in commands:
            for one in surroundings:
                bar.set_postfix_str(f"{name}, {one.name}")
                out = folder / one.out
                command = inputs.commands(out)[name]
                if one.relative:
                    command[1:] = [os.path.relpath(a, elsewhere) if isinstance(a, Path) else a for a in command[1:]]
                if not one.again:
                    out.rmtree_p()
                    out.makedirs_p()
                with disk(out, one.size, one.read_only) if one.size else contextlib.nullcontext():
                    status = run_command(command, output, one.environment, elsewhere)
                    finding = judge(status, output, out, one.must)
                attack.count(f"commands {one.name}", finding and f"{name}, {one.name}: {finding}")
                bar.update()


def judge(status: int, output: Path, out: Path, must: str) -> str:
    """What is wrong with a command's end; "" for nothing."""
    text = output.read_bytes().decode(errors="replace")
    if "Traceback" in text:
        return f"a traceback: {last_lines(output, 2)}"
    if status < 0:
        return f"ended by signal {-status}: {last_lines(output)}"
    if status not in (0, 1, 2):
        return f"exit status {status}: {last_lines(output)}"
    if status != 0 and must == "succeed":
        return f"exit status {status}: {last_lines(output)}"
    if status == 0 and must == "refuse":
        return f"exit status 0: {last_lines(output)}"
    if status != 0 and ": error: " not in text.replace("\r", "\n").strip().splitlines()[-1]:
        return f"no line that says why it failed: {last_lines(output)}"
    left = [file for file in out.walk() if is_leftover(file.name)] if out.is_dir() else []
    return f"left {left[0]}" if left else ""


if __name__ == "__main__":
    run_script(main)
