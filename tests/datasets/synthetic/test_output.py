"""The files of a world are written once, with the folders that they need."""

import os

from path import Path

from datasets.synthetic.output import write_bytes, write_text


def test_folders_are_made(tmp_path):
    write_bytes(Path(tmp_path / "a/b/file"), b"1")
    write_text(Path(tmp_path / "a/c/file"), "2")
    assert (tmp_path / "a/b/file").read_text() + (tmp_path / "a/c/file").read_text() == "12"


def test_a_text_that_is_there_is_not_written_again(tmp_path):
    file = Path(tmp_path / "file")
    write_text(file, "same")
    before = os.stat(file).st_ino
    write_text(file, "same")
    assert os.stat(file).st_ino == before
    write_text(file, "another")
    assert file.read_text() == "another"
