"""The attack's own tests: it finds what is wrong, and a short attack on the project's readers finds nothing."""

import ctypes
import random

import pytest
from path import Path

from files.errors import InputError
from tests.tools import attack as tool


@pytest.fixture
def attack(tmp_path):
    return tool.Attack(Path(tmp_path), 1)


def test_a_short_attack_on_every_reader_finds_nothing(attack):
    count = 2 * len(tool.make_readers(Path(attack.folder)))
    tool.attack_readers(attack, count)
    assert attack.findings == []
    assert sum(attack.counts.values()) == count


def refuse(message):
    def read(file):
        raise InputError(message.format(file=file))

    return read


@pytest.mark.parametrize(
    ("read", "finding"),
    [
        (lambda file: 1 / 0, "ZeroDivisionError"),
        (lambda file: None, "a wrong result: None"),
        (refuse("{file}: " + "x" * 2000), "a message of 2"),
        (refuse("{file}: two\nlines"), "a message of"),
        (refuse("damaged"), "does not name the file"),
        (lambda file: ctypes.string_at(0), "SIGSEGV"),
        (lambda file: bytearray(5 * 2**30), "MemoryError"),
        (lambda file: len(b"x" * 2**31) > 0, "took "),
    ],
)
def test_it_finds_what_a_reader_does_wrong(attack, monkeypatch, read, finding, tmp_path):
    monkeypatch.setattr(tool, "make_readers", lambda folder: {"a.txt": (b"1 2\n", read, bool)})
    monkeypatch.setattr(tool.tempfile, "gettempdir", lambda: str(tmp_path))
    tool.attack_readers(attack, 1)
    (found,) = attack.findings
    assert found.startswith("a.txt: ")
    assert finding in found


@pytest.mark.parametrize(
    ("status", "text", "must", "finding"),
    [
        (0, "done\n", "succeed", ""),
        (1, "x.py: error: a: no space left\n", "refuse", ""),
        (1, "x.py: error: a: no space left\n", "succeed", "exit status 1"),
        (0, "done\n", "refuse", "exit status 0"),
        (1, "Traceback (most recent call last):\nKeyError: 1\n", "refuse", "a traceback"),
        (1, "oh\n", "refuse", "no line that says why"),
        (-9, "", "refuse", "ended by signal 9"),
    ],
)
def test_it_judges_how_a_command_ends(status, text, must, finding, tmp_path):
    (tmp_path / "output.txt").write_text(text)
    found = tool.judge(status, Path(tmp_path) / "output.txt", Path(tmp_path), must)
    assert found.startswith(finding)
    assert bool(found) == bool(finding)


def test_it_finds_unfinished_files(tmp_path):
    (tmp_path / "output.txt").write_text("done\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scene.part").mkdir()  # of prepare_video.py, which goes on there
    assert tool.judge(0, Path(tmp_path) / "output.txt", Path(tmp_path) / "out", "succeed") == ""
    (tmp_path / "out/.a.0123456789ab.part").touch()
    assert ".a.0123456789ab.part" in tool.judge(0, Path(tmp_path) / "output.txt", Path(tmp_path) / "out", "succeed")


def test_changes_are_those_of_the_seed():
    content = b"1 2 3\n4 5 6\n" * 20
    changed = [[tool.change(content, random.Random(seed), [content]) for seed in range(50)] for _ in range(2)]
    assert changed[0] == changed[1]
    assert len(set(changed[0])) > 40
