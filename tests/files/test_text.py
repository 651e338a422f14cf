import pytest
from path import Path

from files import text
from files.errors import InputError
from files.text import parse_numbers, read_json, read_lines, read_names, read_rows


@pytest.fixture
def write(tmp_path):
    def write(content):
        file = Path(tmp_path) / "file.txt"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


@pytest.mark.parametrize("content", ["a\nb\n", "a\nb", "a\r\nb\r\n", "\ufeffa\nb\n"])
def test_lines_of_any_editor(write, content):
    assert read_lines(write(content)) == ["a", "b"]


def test_rows(write):
    rows = read_rows(write("1 2.5e0  3\n-4 5 6\n\n \n"), 3)
    assert rows.dtype == "float64"
    assert rows.tolist() == [[1, 2.5, 3], [-4, 5, 6]]
    assert read_rows(write(""), 12).shape == (0, 12)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3\n4 5\n", r"file.txt, line 2: got 2 numbers, expected 3"),
        ("1 2 3\n\n4 5 6\n", r"line 2: got 0 numbers"),
        ("1 2 x\n", r"line 1: could not convert string to float: 'x'"),
        ("1 2 nan\n", r"line 1: got a number that is not finite"),
        ("1 2 1e999\n", r"line 1: got a number that is not finite"),
        (b"\x89PNG\xff\xfe", r"file.txt: byte 0 is not UTF-8 text"),
        (b"1 2 \x00", r"line 1: could not convert"),
    ],
)
def test_damage_is_named_with_file_and_line(write, content, message):
    with pytest.raises(InputError, match=message):
        read_rows(write(content), 3)


def test_no_file_a_folder_and_a_huge_file_are_refused(write, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="nothing: no such file"):
        read_lines(Path(tmp_path) / "nothing")
    with pytest.raises(InputError, match="is a folder, expected a text file"):
        read_lines(Path(tmp_path))
    monkeypatch.setattr(text, "_LARGEST_FILE", 3)
    with pytest.raises(InputError, match="expected a text file of at most"):
        read_lines(write("1234"))


def test_names(write):
    assert read_names(write("# drives\n\n a_02 \n2011_09_26/b c\n..d\n")) == ["a_02", "2011_09_26/b c", "..d"]


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b", "/etc", "\\\\server\\a", "a\\..\\b", "a\0b"])
def test_a_name_that_leads_out_of_its_folder_is_refused(write, name):
    with pytest.raises(InputError, match=r"line 2: .* leads out of its folder"):
        read_names(write(f"fine\n{name}\n"))


def test_parse_numbers_counts():
    assert parse_numbers("1 2", 2, "here") == [1, 2]
    with pytest.raises(InputError, match="here: got 0 numbers, expected 2"):
        parse_numbers("", 2, "here")


def test_json_is_an_object(write):
    assert read_json(write('{"speed": 3}')) == {"speed": 3}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000])
def test_json_that_is_none(write, content):
    with pytest.raises(InputError, match=r"file.txt: "):
        read_json(write(content))
