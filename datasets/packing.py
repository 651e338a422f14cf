"""Writing a prepared data set as shards, in the form that `datasets.shards` describes."""

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from path import Path
from tqdm import tqdm

from datasets.layout import CAMERA_FILE, RECORD_FILE, Scene, depth_file
from datasets.shards import INDEX_FILE, VERSION, later_name
from datasets.snippets import SnippetDataset
from files.atomic import write_bytes, write_text


def pack(
    training: SnippetDataset, validation: SnippetDataset | None, root: Path, out: Path, size: int, overlap: int
) -> int:
    """Write a prepared data set as shards. The index comes last: without it there is no packed set.

    Args:
        training, validation: the snippets of the prepared set, which was thereby found to be sound.
        root: folder of the prepared set.
        out: folder of the shards.
        size: bytes after which a shard is full.
        overlap: frames behind a cut that both shards hold.

    Returns:
        The number of shards.
    """
    lines = [_scene_line(root, scene) for scene in training.scenes]
    count = sum(len(scene.frames) for scene in training.scenes)
    with tqdm(total=count, desc="packing", unit="frame", delay=2) as bar:
        for number, (files, frames) in enumerate(_training_shards(root, training.scenes, size, overlap)):
            lines.append(_write_shard(out, "train", number, files, frames))
            bar.update(frames)
    scenes = [] if validation is None else validation.scenes
    files = tqdm(_scene_files(scenes), desc="packing validation scenes", unit="file", delay=2)
    for number, group in enumerate(_groups(((_name(root, file), file) for file in files), size)):
        lines.append(_write_shard(out, "val", number, group, 0))
    head: dict[str, Any] = {"version": VERSION, "height": training.height, "width": training.width, "overlap": overlap}
    head |= {"scenes": len(training.scenes), "validation": [_name(root, scene.folder) for scene in scenes]}
    write_text(out / INDEX_FILE, "".join(f"{json.dumps(line)}\n" for line in [head, *lines]))
    return len(lines) - len(training.scenes)


def number_runs(names: Iterable[str]) -> list[tuple[str, int]]:
    """Names of frames as runs of consecutive numbers: (first name, count) of each."""
    runs: list[tuple[str, int]] = []
    for name in names:
        if runs and later_name(*runs[-1]) == name:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((name, 1))
    return runs


def _scene_line(root: Path, scene: Scene) -> dict[str, Any]:
    return {
        "scene": _name(root, scene.folder),
        "intrinsics": scene.intrinsics.tolist(),
        "guessed": scene.guessed,
        "breaks": scene.breaks,
        "frames": number_runs(str(frame.name) for frame in scene.frames),
    }


def _training_shards(
    root: Path, scenes: Sequence[Scene], size: int, overlap: int
) -> Iterator[tuple[list[tuple[str, Path]], int]]:
    """(name and file of each frame, number of frames that belong to it) of each shard."""
    frames = (((scene, place), file) for scene in scenes for place, file in enumerate(scene.frames))
    for group in _groups(frames, size):
        last, place = group[-1][0]
        files = [file for _, file in group] + [*last.frames[place + 1 : place + 1 + overlap]]
        yield [(_name(root, file), file) for file in files], len(group)


def _groups(files: Iterable[tuple[Any, Path]], size: int) -> Iterator[list[tuple[Any, Path]]]:
    """Files, with what belongs to each, in groups that end with the file that makes them full."""
    group, total = [], 0
    for key, file in files:
        group.append((key, file))
        total += file.size if file.is_file() else 0
        if total >= size:
            yield group
            group, total = [], 0
    if group:
        yield group


def _scene_files(scenes: Sequence[Scene]) -> Iterator[Path]:
    """All files of scenes that validation reads."""
    for scene in scenes:
        for name in ("cam.txt", "poses.txt", RECORD_FILE, CAMERA_FILE):
            if (scene.folder / name).is_file():
                yield scene.folder / name
        for frame in scene.frames:
            yield frame
            if os.path.lexists(depth_file(frame)):
                yield depth_file(frame)


def _write_shard(out: Path, kind: str, number: int, files: list[tuple[str, Path]], frames: int) -> dict[str, Any]:
    """Write a shard; its line of the index."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, file in files:
            content = file.read_bytes() if file.is_file() else b""  # a dangling link stays a damaged frame
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    content, name = stream.getvalue(), f"{kind}-{number:05d}.tar"
    write_bytes(out / name, content)
    return {"shard": name, "kind": kind, "bytes": len(content), "crc32": zlib.crc32(content), "frames": frames}


def _name(root: Path, file: Path) -> str:
    """A file's name in the set: SCENE/0000000.jpg."""
    return str(file)[len(str(root)) + 1 :]
