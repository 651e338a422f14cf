"""Shards: packed and read again, from a folder and from a server on this machine."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
from path import Path

from datasets import shards as shards_module
from datasets.layout import write_depth, write_intrinsics, write_poses
from datasets.loading import SHARDS_AHEAD, _look_ahead, load_batches
from datasets.packing import number_runs, pack
from datasets.shards import (
    FrameNames,
    ShardedBatches,
    ShardedSnippets,
    read_index,
    read_tar,
    unpack_validation,
)
from datasets.snippets import SnippetDataset
from files import remote
from files.atomic import write_text
from files.errors import InputError, UsageError
from files.images import write_jpeg
from tests.tools.file_server import serve

HEIGHT, WIDTH = 16, 24
SCENES = {"a": 20, "day 2/b": 3, "c": 2, "d": 9}  # frames
SIZE = 6 * 700  # bytes of a shard: some six frames


@pytest.fixture
def root(tmp_path):
    """Scenes of noise, two cameras, a frame of `a` left out for damage, a damaged frame in `d`; `v` validates."""
    root, random = Path(tmp_path) / "prepared", np.random.default_rng(0)
    for name, count in {**SCENES, "v": 5}.items():
        (root / name).makedirs()
        focal = 25.0 if name == "d" else 20.0
        write_intrinsics(root / name / "cam.txt", np.array([[focal, 0, 11], [0, focal, 7.25], [0, 0, 1]]))
        for k in range(count):
            number = k if k < 12 or name != "a" else k + 1
            image = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            write_jpeg(root / name / f"{number:07d}.jpg", image)
    record = {"source": {}, "frames": 20, "static": [], "problems": {"0000012": "truncated"}}
    write_text(root / "a/prepared.json", json.dumps(record))
    write_text(root / "d/camera.json", '{"source": "guess"}')
    damaged = root / "d/0000004.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-60])
    write_poses(root / "v/poses.txt", np.tile(np.eye(3, 4), (5, 1, 1)))
    write_depth(root / "v/0000001.npy", np.full((HEIGHT, WIDTH), 7, np.float32))
    write_text(root / "train.txt", "".join(f"{name}\n" for name in SCENES))
    write_text(root / "val.txt", "v\n")
    return root


def packed(root: Path, size: int = SIZE, overlap: int = 4) -> Path:
    out = root.parent / "packed"
    out.makedirs()
    training, validation = SnippetDataset(root, "train.txt", 3), SnippetDataset(root, "val.txt", 3, ground_truth=True)
    pack(training, validation, root, out, size, overlap)
    return out


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(remote, "_WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def same(item, other) -> bool:
    plain = ("camera", "index")
    tensors = ("frames", "intrinsics")
    return all(item[name] == other[name] for name in plain) and all(torch.equal(item[n], other[n]) for n in tensors)


@pytest.mark.parametrize("length", [3, 5])
@pytest.mark.parametrize("size", [1, SIZE, 10**9])
def test_samples_are_those_of_the_files(root, size, length):
    files = SnippetDataset(root, "train.txt", length)
    out = packed(root, size)
    shards = ShardedSnippets(read_index(out), length)
    assert len(out.files("train-*.tar")) == {1: 34, 10**9: 1}.get(size, len(shards.shards))
    assert len(shards) == len(files)
    for k in range(len(files)):
        assert same(shards[k], files[k])
        assert [line.removeprefix(out) for line in shards[k]["damaged"]] == [
            line.removeprefix(root) for line in files[k]["damaged"]
        ]
        (scene, first), (other, other_first) = shards.snippet(k), files.snippet(k)
        assert scene.frames[first].removeprefix(out) == other.frames[other_first].removeprefix(root)
    assert any(shards[k]["damaged"] for k in range(len(shards)))
    assert [scene.guessed for scene in shards.scenes] == [scene.guessed for scene in files.scenes]
    assert all(np.array_equal(*pair) for pair in zip(shards.cameras, files.cameras, strict=True))
    assert ShardedSnippets(read_index(out), length, fov=90).cameras[0][0, 0] == pytest.approx(WIDTH / 2)


def test_each_shard_holds_its_snippets_whole(root):
    shards = ShardedSnippets(read_index(packed(root)), 5)
    for k in range(len(shards)):
        scene, first = shards.snippet(k)
        held = shards.shards[shards.shard_of(k)].read()
        assert all(frame.removeprefix(root.parent / "packed/") in held for frame in scene.frames[first : first + 5])


def test_longer_snippets_than_the_overlap_are_refused(root):
    with pytest.raises(InputError, match=r"packed for snippets of up to 5 frames, expected 7; .* --overlap 6"):
        ShardedSnippets(read_index(packed(root)), 7)


def test_validation_scenes_come_back_as_they_were(root, tmp_path):
    folder = Path(tmp_path) / "val"
    folder.mkdir()
    unpack_validation(read_index(packed(root)), folder)
    before, after = (SnippetDataset(place, "val.txt", 3, ground_truth=True) for place in (root, folder))
    for k in range(len(before)):
        assert same(before[k], after[k])
        assert torch.equal(before[k]["depth"], after[k]["depth"])
        assert torch.equal(before[k]["poses"], after[k]["poses"])


def batches_of(dataset, batch, start=0, stop=24, pieces=1, first=0, every=1, seed=0):
    return ShardedBatches(dataset, batch, seed, start, stop, pieces, first, every)


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_an_epoch_has_each_snippet_once_and_the_next_another_order(root, batch):
    dataset = ShardedSnippets(read_index(packed(root)), 3)
    steps = len(dataset) // batch
    order = list(batches_of(dataset, batch, 0, 2 * steps))
    epochs = [[index for indices in order[k : k + steps] for index in indices] for k in (0, steps)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == steps * batch
        assert set(epoch) <= set(range(len(dataset)))
    assert epochs[0] != epochs[1]
    assert list(batches_of(dataset, batch, seed=1)) != list(batches_of(dataset, batch))


def test_the_order_does_not_depend_on_where_a_run_was_stopped_nor_on_its_processes(root):
    dataset = ShardedSnippets(read_index(packed(root)), 3)
    whole = list(batches_of(dataset, 4))
    for start in range(24):
        assert list(batches_of(dataset, 4, start)) == whole[start:]
    first, second = (iter(batches_of(dataset, 1, pieces=4, first=first, every=2)) for first in (0, 1))  # accumulating
    for step in whole:
        assert step == next(first) + next(second) + next(first) + next(second)


def test_two_processes_and_two_workers_have_their_own_shards(tmp_path):
    """100 snippets in 50 equal shards: no border lies within a shard."""
    root = Path(tmp_path) / "prepared"
    (root / "a").makedirs()
    write_intrinsics(root / "a/cam.txt", np.array([[20.0, 0, 11], [0, 20, 7.25], [0, 0, 1]]))
    for k in range(102):
        write_jpeg(root / f"a/{k:07d}.jpg", np.full((HEIGHT, WIDTH, 3), k, np.uint8))
    write_text(root / "train.txt", "a\n")
    write_text(root / "val.txt", "a\n")
    dataset = ShardedSnippets(read_index(packed(root, size=700)), 3)
    counts = np.diff(dataset.first_snippets)
    assert set(counts[:-1]) == {2}
    order = [list(batches_of(dataset, 2, 0, 25, 2, first, 2)) for first in (0, 1)]
    snippets = [{index for batch in process for index in batch} for process in order]
    shards = [{dataset.shard_of(index) for index in process} for process in snippets]
    assert snippets[0] & snippets[1] == set()
    assert snippets[0] | snippets[1] == set(range(100))
    assert shards[0] & shards[1] == set()
    places = [{dataset.shard_of(batch[place]) for batch in order[0]} for place in (0, 1)]
    assert len(places[0] & places[1]) <= 1  # a place for each worker; 12.5 shards: the border's is read by both


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_batches_are_those_of_the_files_whatever_the_workers(root, workers):
    files = SnippetDataset(root, "train.txt", 3)
    with serve(packed(root)) as (url, _):
        dataset = ShardedSnippets(read_index(url), 3)
        order = list(batches_of(dataset, 4))
        loaded = list(load_batches(dataset, batches_of(dataset, 4), workers, False))
    expected = list(load_batches(files, order, 0, False))
    assert any(batch.damaged for batch in expected)
    for ours, theirs in zip(loaded, expected, strict=True):
        assert ours.indices == theirs.indices
        assert len(ours.damaged) == len(theirs.damaged)
        assert all(torch.equal(*pair) for pair in zip(ours.snippets[:4], theirs.snippets[:4], strict=True))
    assert multiprocessing.active_children() == []


def test_a_process_reads_each_of_its_shards_once_and_workers_read_their_own(root):
    with serve(packed(root)) as (url, asked):
        dataset = ShardedSnippets(read_index(url), 3)
        steps = len(dataset) // 2
        list(load_batches(dataset, batches_of(dataset, 2, 0, steps), 0, False))
        alone = [name for name in asked if "train" in name]
        del asked[:]
        list(load_batches(dataset, batches_of(dataset, 2, 0, steps), 2, False))
        helped = [name for name in asked if "train" in name]
    assert len(alone) == len(set(alone))
    assert len(helped) <= len(set(helped)) + 2  # the border of the two places; a snippet in place of a damaged one


def test_shards_are_announced_and_dropped(root, monkeypatch):
    dataset = ShardedSnippets(read_index(packed(root, size=1)), 3)
    held = dataset._opened()
    held.expect([0, 1])
    assert set(held._files) == {0, 1}
    for _ in range(SHARDS_AHEAD):
        held.expect([1])
    assert set(held._files) == {0, 1}
    held.expect([])
    assert set(held._files) == {1}
    assert len(held.get(2)) == 5


def test_batches_are_named_ahead_of_their_reading():
    batches = [[k] for k in range(4)]
    assert list(_look_ahead(batches, 2)) == [([0], [[0], [1], [2]]), ([1], [[3]]), ([2], []), ([3], [])]
    assert list(_look_ahead(iter(batches), 0)) == [([k], [[k]]) for k in range(4)]


def test_a_broken_connection_and_a_servers_error_are_tried_again(root):
    with serve(packed(root), hiccups=3) as (url, asked):
        dataset = ShardedSnippets(read_index(url), 3)
        assert same(dataset[0], SnippetDataset(root, "train.txt", 3)[0])
    assert asked.count("/train-00000.tar") == 4


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", ["folder", "url"])
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda file: file.remove(), r"train-00001.tar: no such file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1024]), r"train-00001.tar: damaged: \d+ bytes, expected"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), r"train-00001.tar: damaged: at least \d+ bytes, exp"),
        (lambda file: file.write_bytes(file.read_bytes()[::-1]), r"train-00001.tar: damaged: .* with the checksum"),
    ],
)
def test_a_missing_or_damaged_shard_is_one_line(root, change, line, at, workers):
    out = packed(root)
    change(out / "train-00001.tar")
    with serve(out) as (url, _):
        dataset = ShardedSnippets(read_index(url if at == "url" else out), 3)
        with pytest.raises(InputError, match=line) as caught:
            list(load_batches(dataset, batches_of(dataset, 4), workers, False))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def test_no_server_no_set_and_an_unknown_protocol_are_one_line(root, tmp_path):
    with serve(Path(tmp_path)) as (url, _), pytest.raises(InputError, match=r"shards.jsonl: no such file"):
        read_index(url)
    with pytest.raises(InputError, match=r"shards.jsonl: could not be read in 4 tries .*"):
        read_index(url)  # nobody listens there any more
    with pytest.raises(UsageError, match=r"what://ever/shards.jsonl: Protocol not known"):
        read_index("what://ever")


HEAD = {"version": 1, "height": 16, "width": 24, "overlap": 4, "scenes": 1, "validation": []}
SCENE = {"scene": "a", "intrinsics": [[20, 0, 11], [0, 20, 7], [0, 0, 1]], "guessed": False, "breaks": []}
SCENE |= {"frames": [["0.jpg", 5]]}
SHARD = {"shard": "train-00000.tar", "kind": "train", "bytes": 10, "crc32": 0, "frames": 5}


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["text"],
        [{}],
        [HEAD],
        [[1]],
        [HEAD | {"version": 2}, SCENE, SHARD],
        [HEAD | {"height": 0}, SCENE, SHARD],
        [HEAD | {"height": 10**9}, SCENE, SHARD],
        [HEAD | {"scenes": 2}, SCENE, SHARD],
        [HEAD | {"scenes": -1}, SCENE, SHARD],
        [HEAD | {"validation": 3}, SCENE, SHARD],
        [HEAD, SCENE | {"intrinsics": [[1]]}, SHARD],
        [HEAD, SCENE | {"intrinsics": [[20, 0, 1100], [0, 20, 7], [0, 0, 1]]}, SHARD],
        [HEAD, SCENE | {"breaks": [9]}, SHARD],
        [HEAD, SCENE | {"breaks": [3, 2]}, SHARD],
        [HEAD, SCENE | {"frames": [["0.jpg", 1.5]]}, SHARD],
        [HEAD, SCENE | {"frames": [["0.jpg", 10**30]]}, SHARD],
        [HEAD, SCENE, SHARD | {"frames": 4}],
        [HEAD, SCENE, SHARD | {"bytes": 10**12}],
        [HEAD, SCENE, SHARD | {"shard": "../a.tar"}],
        [HEAD, SCENE, SHARD | {"shard": "/etc/a.tar"}],
        [HEAD, SCENE, "train-00000.tar"],
    ],
)
def test_a_damaged_index_is_one_line(tmp_path, lines):
    (Path(tmp_path) / "shards.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(InputError, match=r"shards.jsonl: damaged, expected the index of data/pack_shards.py \(.+\)"):
        read_index(str(tmp_path))


def test_this_index_would_be_whole(tmp_path):
    (Path(tmp_path) / "shards.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in (HEAD, SCENE, SHARD)))
    assert len(read_index(str(tmp_path)).scenes[0].frames) == 5


def test_a_tar_file_that_leads_out_of_its_folder_or_is_none_is_refused(root, tmp_path, monkeypatch):
    index = read_index(packed(root))
    for name in ("../a", "/a", "b/../../a", "c\\d"):
        monkeypatch.setattr(shards_module.Shard, "read", lambda self, name=name: {name: b"x"})
        with pytest.raises(InputError, match="leads out of its folder"):
            unpack_validation(index, Path(tmp_path))
    for content in (b"", b"x" * 2000):
        with pytest.raises(InputError, match=r"a\.tar: no readable tar file"):
            read_tar(content, "a.tar")


def test_names_of_frames_are_kept_as_runs():
    names = ["0000008.jpg", "0000009.jpg", "0000010.jpg", "0000012.jpg", "9.png", "10.png", "x.jpg", "0.5.png"]
    runs = number_runs(names)
    assert runs == [("0000008.jpg", 3), ("0000012.jpg", 1), ("9.png", 2), ("x.jpg", 1), ("0.5.png", 1)]
    frames = FrameNames(Path("s"), runs)
    assert [*frames] == [Path("s") / name for name in names]
    assert [*frames[2:6][1:]] == [Path("s") / name for name in names[3:6]]
    assert frames[-1] == "s/0.5.png"
    with pytest.raises(IndexError):
        frames[8]
