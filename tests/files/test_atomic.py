import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch
from path import Path

from files.atomic import atomic_write, is_leftover, keep_copy, remove_leftovers, write_csv, write_json, write_text
from files.errors import InputError

ROOT = Path(__file__).absolute().parent.parent.parent


def names(folder) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_appears_whole_and_replaces_the_one_before(tmp_path, durable):
    file = Path(tmp_path) / "a.txt"
    for content in (b"first", b"second, longer"):
        with atomic_write(file, durable) as stream:
            stream.write(content)
            assert not file.exists() or file.read_bytes() == b"first"
        assert file.read_bytes() == content
    assert names(tmp_path) == ["a.txt"]


def test_a_file_has_the_mode_of_an_ordinary_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(Path(tmp_path) / "a.txt", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "a.txt").st_mode) == 0o640


def test_an_error_leaves_the_file_before_and_nothing_else(tmp_path):
    file = Path(tmp_path) / "a.txt"
    write_text(file, "before")

    def fail(error):
        with atomic_write(file) as stream:
            stream.write(b"half")
            raise error

    for error in (ValueError("a bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            fail(error)
    assert file.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def fail_with(error):
    def fail(*arguments):
        raise error

    return fail


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch):
    file = Path(tmp_path) / "a.txt"
    write_text(file, "before")
    monkeypatch.setattr(os, "fsync", fail_with(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"a\.txt: could not be written \(No space left on device\)"):
        with atomic_write(file, durable=True) as stream:
            stream.write(b"more")
    assert file.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_torchs_error_for_a_full_disk_names_the_systems_reason():
    with pytest.raises(InputError, match=r"/dev/full: could not be written \(No space left on device\)"):
        with atomic_write(Path("/dev/full")) as stream:
            torch.save({"a": torch.zeros(1_000_000)}, stream)


@pytest.mark.parametrize("place", ["missing/a.txt", "file/a.txt"])
def test_a_folder_that_is_not_there_is_an_error_that_names_the_file(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"a\.txt: could not be written \("):
        write_text(Path(tmp_path) / place, "a")


def test_a_library_s_own_error_stays(tmp_path):
    def fail():
        with atomic_write(Path(tmp_path) / "a"):
            raise RuntimeError("unforeseen")

    with pytest.raises(RuntimeError, match="unforeseen"):
        fail()


def test_a_link_is_replaced_and_never_followed(tmp_path):
    precious = Path(tmp_path) / "precious.txt"
    precious.write_text("precious")
    for name in ("a.txt", "a.txt.part", ".a.txt.part"):
        os.symlink(precious, tmp_path / name)
    write_text(Path(tmp_path) / "a.txt", "new")
    assert precious.read_text() == "precious"
    assert not (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "new"


def test_what_is_no_regular_file_is_written_to(tmp_path):
    write_text(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_killed_write_leaves_a_recognisable_file(tmp_path):
    script = (
        "import sys, time\nfrom path import Path\nfrom files.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'half'); stream.flush(); print('writing', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, tmp_path / "a.txt"], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = names(tmp_path)
    assert is_leftover(left)
    write_text(Path(tmp_path) / "notes.part", "mine")
    remove_leftovers(Path(tmp_path))
    assert names(tmp_path) == ["notes.part"]
    assert not any(map(is_leftover, ("a.txt", "a.part", ".a.part", ".lock", "notes.0123456789ab.part")))


def test_a_copy_is_whole_under_its_name_with_links_and_without(tmp_path, monkeypatch):
    file, copy, precious = (Path(tmp_path) / name for name in ("a", "b", "precious"))
    write_text(file, "content")
    precious.write_text("precious")
    os.symlink(precious, copy)
    for _ in range(2):  # the second time both names are one file already
        keep_copy(file, copy)
        assert os.path.samefile(file, copy)
        assert names(tmp_path) == ["a", "b", "precious"]
    monkeypatch.setattr(os, "link", fail_with(OSError(1, "Operation not permitted")))
    write_text(file, "changed")
    keep_copy(file, copy)
    assert copy.read_text() == "changed"
    assert not os.path.samefile(file, copy)
    assert precious.read_text() == "precious"
    assert names(tmp_path) == ["a", "b", "precious"]


@pytest.mark.parametrize("name", ["x" * 255, "\U0001f697" * 63])
def test_the_longest_name_can_be_written(tmp_path, name):
    write_text(Path(tmp_path) / name, "content")
    keep_copy(Path(tmp_path) / name, Path(tmp_path) / name[1:])
    assert names(tmp_path) == sorted([name, name[1:]])


def test_numbers_keep_their_full_precision(tmp_path):
    third = 1 / 3
    write_json(Path(tmp_path) / "a.json", {"third": third})
    assert json.loads((tmp_path / "a.json").read_text()) == {"third": third}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(Path(tmp_path) / "a.json", {"nan": float("nan")})
    write_csv(Path(tmp_path) / "a.csv", [{"image": "a,b", "third": third}, {"image": "c", "third": 1}])
    assert (tmp_path / "a.csv").read_text() == f'image,third\n"a,b",{third!r}\nc,1\n'
    assert time.time() - os.stat(tmp_path / "a.csv").st_mtime < 60
