import numpy as np
import pytest
from path import Path

from evaluation import cache
from evaluation.cache import cached, code_state, file_states


@pytest.fixture
def made(tmp_path):
    """`cached` for one name, and how often it has made something."""
    folder, source, count = Path(tmp_path) / "new/cache", Path(tmp_path) / "source", [0]
    source.write_text("abc")

    def make():
        count[0] += 1
        return {"a": np.arange(6.0).reshape(2, 3), "b": np.array([3, -1], np.int16), "none": np.zeros((0, 2))}

    def get(name="name", **key):
        arrays = cached(folder, name, {"files": file_states([source])} | key, make)
        expected = make()
        count[0] -= 1
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)
            assert arrays[name].dtype == array.dtype
        return count[0]

    return folder, source, get


def test_made_once_and_anew_with_another_key(made):
    folder, _, get = made
    assert [get(), get(), get()] == [1, 1, 1]
    assert get(kind="other") == 2
    assert get() == 3  # one file a name: the other key's has replaced it
    assert len(folder.files()) == 1
    assert get("another name") == 4
    assert (get(), get("another name")) == (4, 4)
    assert not folder.files("*.part")


def test_made_anew_when_a_file_has_changed(made):
    _, source, get = made
    assert get() == 1
    source.write_text("abcd")
    assert get() == 2
    before = source.stat()
    source.write_text("abce")  # as long, and given the old time, as unpacking an archive does
    source.utime((before.st_atime, before.st_mtime))
    assert get() == 3


def test_a_damaged_cache_is_made_anew(made):
    folder, _, get = made
    assert get() == 1
    (file,) = folder.files()
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    damages = [
        whole[:-1],
        whole + b"x",
        whole[:30],
        b"",
        b"{}",
        whole.replace(b"<f8", b"<f4"),
        whole.replace(b"2", b"9"),
    ]
    for position in random.integers(0, len(whole), 40):
        damages.append(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    for damage in damages:
        file.write_bytes(damage)
        get()  # compares what comes out
    file.write_bytes(whole)
    count = get()
    assert get() == count


def test_a_cache_that_cannot_be_written_is_no_error(made, tmp_path):
    _, _, get = made
    (Path(tmp_path) / "new").write_text("a file where the folder should be")
    assert (get(), get()) == (1, 2)


def test_no_cache_makes_anew():
    assert cached(None, "x", {}, lambda: {"a": np.ones(1)})["a"] == 1


def test_code_state_follows_the_source():
    assert code_state(cache) == code_state(cache)
    assert code_state(cache) != code_state(np)
