"""Files of `torch.save`: what is read, and that nothing else is: no code runs, and no small file takes much memory."""

import _codecs
import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from path import Path
from torch import nn

from files.errors import InputError
from models import torch_files
from models.torch_files import read_torch_file

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@pytest.fixture
def save(tmp_path):
    def save(content, legacy=False):
        file = Path(tmp_path) / "file.pt"
        torch.save(content, file, _use_new_zipfile_serialization=not legacy)
        return file

    return save


@pytest.fixture
def write(tmp_path):
    """Write a file of torch.save whose pickle has these bytes. It has one storage, "0" of 4 bytes, for its tensors."""

    def write(content: bytes, legacy=False):
        file, storage = Path(tmp_path) / "file.pt", struct.pack("<f", 7)
        if legacy:
            stream = io.BytesIO()
            torch.save({}, stream, _use_new_zipfile_serialization=False)
            head = stream.getvalue().partition(b"\x80\x02}q\x00.")[0]  # magic number, version, machine
            keys, values = (["0"], struct.pack("<q", 1) + storage) if b"_rebuild_tensor" in content else ([], b"")
            file.write_bytes(head + content + pickle.dumps(keys, 2) + values)
        else:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("archive/data.pkl", content)
                archive.writestr("archive/data/0", storage)
        return file

    return write


def refusal(file: Path) -> str:
    """The line by which a file is refused."""
    with pytest.raises(InputError) as caught:
        read_torch_file(file)
    line = str(caught.value)
    assert line.startswith(f"{file}: ")
    assert len(line.splitlines()) == 1
    assert len(line) < len(file) + 250
    return line.removeprefix(f"{file}: ")


class Calls:
    """Unpickles by calling a function that the file names."""

    def __init__(self, function, *arguments, state=None):
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self):
        return self.function, self.arguments, self.state


# What is read --------------------------------------------------------------------------------------------------------


@FORMATS
def test_plain_values(save, legacy):
    content = {
        "numbers": [0, -1, 255, 65536, -(2**31), 2**62, -(2**100), 0.5, float("inf"), True, False],
        "text": "å\n" * 300,
        "nothing": None,
        "nested": {"a": {1: [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [[]]]}, 2: {}, None: {True: 0.5}},
        "many": list(range(1000)),
    }
    assert read_torch_file(save(content, legacy)) == content


@FORMATS
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_tensors_of_each_type(save, legacy, dtype):
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, dtype))
    content = read_torch_file(save({"a": tensor, "scalar": tensor[1, 2], "empty": tensor[:0]}, legacy))
    assert content["a"].dtype == tensor.dtype
    assert torch.equal(content["a"], tensor)
    assert torch.equal(content["scalar"], tensor[1, 2])
    assert content["empty"].shape == (0, 3)


@FORMATS
def test_views_share_their_storage(save, legacy):
    whole = torch.arange(12.0).view(3, 4)
    content = read_torch_file(save({"whole": whole, "turned": whole.T, "part": whole[1:, 2]}, legacy))
    for name, expected in (("whole", whole), ("turned", whole.T), ("part", whole[1:, 2])):
        assert torch.equal(content[name], expected)
    content["whole"].zero_()
    assert not content["turned"].any()
    assert not content["part"].any()


@FORMATS
def test_weights_of_a_network_and_the_state_of_its_optimiser(save, legacy):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    saved = {"weights": network.state_dict(), "optimizer": optimizer.state_dict(), "parameter": network[0].bias}
    content = read_torch_file(save(saved, legacy))
    assert list(content["weights"]) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(content["weights"][name], tensor)
    assert content["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    for index, moments in optimizer.state_dict()["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(content["optimizer"]["state"][index][name], tensor)
    assert torch.equal(content["parameter"], network[0].bias)


@FORMATS
@pytest.mark.parametrize(
    "kind",
    ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"],
)
def test_numbers_of_numpy_become_python_s(save, legacy, kind):
    number = np.dtype(kind).type(1)
    value = read_torch_file(save({"best_error": number, "again": number}, legacy))["best_error"]
    assert value == 1
    assert type(value) in (float, int, bool)


def test_the_order_of_the_bytes_is_checked(save, tmp_path):
    file = save({"a": torch.arange(4.0)})
    turned = Path(tmp_path) / "turned.pt"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(turned, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    assert "big-endian" in refusal(turned)
    file = save({"a": torch.arange(4.0)}, legacy=True)
    file.write_bytes(file.read_bytes().replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    assert "big-endian" in refusal(file)


# Another file, and damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"<html>", b"PK\x03\x04", b"\x80\x02}q\x00.", b"PK" * 99])
def test_another_file_is_refused(tmp_path, content):
    file = Path(tmp_path) / "file.pt"
    file.write_bytes(content)
    refusal(file)


def test_no_file_and_a_folder_are_refused(tmp_path):
    for file in (Path(tmp_path), Path(tmp_path) / "nothing.pt"):
        assert refusal(file) == "no such file, expected a checkpoint"


@FORMATS
@pytest.mark.parametrize("content", [[1], torch.zeros(3), "a", None])
def test_a_file_without_a_dict_is_refused(save, legacy, content):
    assert refusal(save(content, legacy)) == f"not a checkpoint: it holds a {type(content).__name__}, expected a dict"


@FORMATS
def test_a_truncated_file_is_refused_wherever_it_ends(save, legacy):
    file = save({"a": torch.arange(4.0), "b": [1, "x"]}, legacy)
    data = file.read_bytes()
    for end in [*range(0, len(data), 7), len(data) - 1]:
        file.write_bytes(data[:end])
        refusal(file)


def test_an_archive_with_two_pickles_or_none_is_refused(tmp_path):
    file = Path(tmp_path) / "file.pt"
    for names in ((), ("a/data.pkl", "b/data.pkl"), ("data.pkl",)):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/other", b"")
            for name in names:
                archive.writestr(name, pickle.dumps({}, 2))
        refusal(file)


def test_the_older_format_needs_every_storage(save):
    """Memory that no storage of the file fills would hold what was there before."""
    file = save({"a": torch.full((1000,), 7.0)}, legacy=True)
    data = file.read_bytes()
    keys = data[data.rindex(b"\x80\x02]") : -4000 - 8]
    file.write_bytes(data.replace(keys, pickle.dumps([], 2)))
    assert "its list of storages is not that of its tensors" in refusal(file)
    file.write_bytes(data.replace(keys, pickle.dumps([*pickle.loads(keys) * 2], 2)))
    assert "its list of storages is not that of its tensors" in refusal(file)


# No code runs --------------------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize(
    "attack",
    [
        Calls(os.mkdir, "executed"),
        Calls(eval, "__import__('os').mkdir('executed')"),
        Calls(getattr, torch.zeros(1), "tolist"),
        Calls(torch.load, "file.pt"),
        Calls(torch.hub.load, "a", "b"),
        os.mkdir,
        nn.Linear,
        nn.ReLU(),
        pickle.PickleBuffer,
    ],
    ids=["mkdir", "eval", "getattr", "torch.load", "hub", "function", "class", "module", "buffer"],
)
def test_nothing_that_could_run_code_is_loaded(save, tmp_path, monkeypatch, attack, legacy):
    monkeypatch.chdir(tmp_path)
    for content in (attack, {"state_dict": {"a": attack}}, {"a": torch.zeros(2), "b": [attack]}):
        if not legacy or not isinstance(attack, type):  # the older format of a class is a reference of its own
            assert "could run code" in refusal(save(content, legacy))
        else:
            refusal(save(content, legacy))
    assert os.listdir() == ["file.pt"]


def test_names_in_a_message_stay_in_one_short_line(write):
    for name in (b"os\r\x1b[2J", "os\u2028".encode(), b"x" * 3000, b"os\x85"):
        refusal(write(b"\x80\x02}X\x01\0\0\0ac" + name + b"\nmkdir\ns."))


@FORMATS
def test_state_changes_no_function_of_this_project(write, legacy):
    """BUILD sets attributes of the object before it, whatever it is."""
    state = pickle.dumps(({"dump_patches": True}, {"__name__": "changed"}), 2)[2:-1]
    read_torch_file(write(b"\x80\x02}X\x01\0\0\0ac_codecs\nencode\n" + state + b"bs.", legacy))
    assert torch_files._encode.__name__ == "_encode"
    assert not vars(torch_files._encode)


ENCODE = b"c_codecs\nencode\nX\x01\0\0\0aX\x06\0\0\0latin1\x86"  # function and arguments, ready for REDUCE
INSTRUCTIONS = {
    "INST": b"(X\x01\0\0\0aicollections\nOrderedDict\n",
    "OBJ": b"(ccollections\nOrderedDict\no",
    "NEWOBJ": b"ccollections\nOrderedDict\n)\x81",
    "NEWOBJ_EX": b"ccollections\nOrderedDict\n)}\x92",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\0\0\0",
    "STACK_GLOBAL": b"\x8c\x02os\x8c\x05mkdir\x93",
    "EMPTY_SET": b"\x8f",
    "ADDITEMS": b"\x8f(K\x01\x90",
    "FROZENSET": b"(K\x01\x91",
    "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**40),
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"X\x01\0\0\0a\x98",
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**40),
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**40),
    "LONG4": b"\x8b" + struct.pack("<i", 2**30),
    "FRAME": b"\x95" + struct.pack("<Q", 2**40),
    "DICT": b"(X\x01\0\0\0aK\x01d",
    "PERSID": b"P0\n",
    "DUP": b"K\x012",
    "of no name": b"\xff",
}


@FORMATS
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_that_torch_save_does_not_write_are_refused(write, legacy, name):
    assert read_torch_file(write(b"\x80\x02}X\x01\0\0\0a" + ENCODE + b"Rs.", legacy)) == {
        "a": b"a"
    }  # such a file reads
    line = refusal(write(b"\x80\x02}X\x01\0\0\0a" + INSTRUCTIONS[name] + b"s.", legacy))
    assert "an instruction that torch.save does not write" in line


# Tensors of another kind ---------------------------------------------------------------------------------------------


def other_tensors() -> dict[str, torch.Tensor]:
    dense = torch.eye(4)
    return {
        "sparse": dense.to_sparse(),
        "sparse rows": dense.to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
        "complex": dense.to(torch.complex64),
        "meta": dense.to("meta"),
        "nested": torch.nested.nested_tensor([dense, dense[:2]]),
        "float8": dense.to(torch.float8_e4m3fn),
    }


@FORMATS
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "sparse rows", "quantised", "complex", "meta", "nested", "float8"])
def test_tensors_of_another_kind_are_refused(save, legacy, kind):
    assert "only dense tensors and plain values are loaded" in refusal(save({"a": other_tensors()[kind]}, legacy))


@FORMATS
def test_an_expanded_tensor_is_refused(save, legacy):
    line = refusal(save({"a": torch.zeros(1).expand(1000)}, legacy))
    assert "a tensor claims more values than its storage has" in line


# Sizes that a file claims --------------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "negative size": (0, (-1,), (1,)),
    "negative offset": (-1, (1,), (1,)),
    "negative stride": (0, (2,), (-1,)),
    "offset beyond": (10**6, (1,), (1,)),
    "size beyond": (0, (10**6,), (1,)),
    "stride beyond": (0, (2,), (10**9,)),
    "a product that overflows": (0, (2**33, 2**33), (1, 1)),
    "huge and empty": (0, (2**62, 2**62, 0), (1, 1, 1)),
    "fewer strides": (0, (1, 1), (1,)),
    "many dimensions": (0, (1,) * 1000, (1,) * 1000),
    "a float": (0, (1.5,), (1,)),
    "text": (0, "11", "11"),
    "a list": (0, [1], [1]),
}


@FORMATS
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_shapes_that_do_not_fit_their_storage_are_refused(save, legacy, name):
    storage = torch.zeros(4).storage()
    offset, size, stride = IMPOSSIBLE[name]
    tensor = Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, collections.OrderedDict())
    refusal(save({"a": tensor}, legacy))


REFERENCES = {
    "another kind": ("module", torch.float32, "0", "cpu", 1),
    "no tuple": ["storage", torch.float32, "0", "cpu", 1],
    "too short": ("storage", torch.float32, "0"),
    "no type": ("storage", "float32", "0", "cpu", 1),
    "a key of another type": ("storage", torch.float32, ("0",), "cpu", 1),
    "no such key": ("storage", torch.float32, "../../9", "cpu", 1),
    "more values": ("storage", torch.float32, "0", "cpu", 2),
    "many more values": ("storage", torch.float32, "0", "cpu", 2**40),
    "a negative count": ("storage", torch.float32, "0", "cpu", -1),
    "a count of another type": ("storage", torch.float32, "0", "cpu", 1.0),
    "a larger type": ("storage", torch.float64, "0", "cpu", 1),
    "a view": ("storage", torch.float32, "0", "cpu", 1, ("1", 0, 1)),
}


def reference(identity) -> bytes:
    """A tensor of one value in a pickle, of the storage with this identity."""
    named = pickle.dumps(identity, 2, fix_imports=False)[2:-1]
    for dtype, name in (
        (b"ctorch\nfloat32\n", b"ctorch\nFloatStorage\n"),
        (b"ctorch\nfloat64\n", b"ctorch\nDoubleStorage\n"),
    ):
        named = named.replace(dtype, name)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + named + b"QK\0K\x01\x85K\x01\x85\x89NtR"


@FORMATS
@pytest.mark.parametrize("name", REFERENCES)
def test_references_to_something_else_than_a_storage_of_the_file_are_refused(write, legacy, name):
    good = reference(("storage", torch.float32, "0", "cpu", 1, None))
    assert read_torch_file(write(b"\x80\x02}X\x01\0\0\0a" + good + b"s.", legacy))["a"].tolist() == [7]
    refusal(write(b"\x80\x02}X\x01\0\0\0a" + reference(REFERENCES[name]) + b"s.", legacy))


@FORMATS
def test_one_storage_has_one_type(write, legacy):
    both = [reference(("storage", dtype, "0", "cpu", 1)) for dtype in (torch.float32, torch.int32)]
    both[1] = both[1].replace(b"ctorch\nint32\n", b"ctorch\nIntStorage\n")
    refusal(write(b"\x80\x02}X\x01\0\0\0a" + both[0] + b"sX\x01\0\0\0b" + both[1] + b"s.", legacy))


@FORMATS
@pytest.mark.parametrize("target", ["a tensor", "a list"])
def test_items_are_those_of_dicts_alone(write, legacy, target):
    """A tensor's items could be set by indices whose product takes all memory."""
    owner = reference(("storage", torch.float32, "0", "cpu", 1)) if target == "a tensor" else b"]K\x01a"
    for set_items in (b"K\0K\x02s", b"(K\0K\x02u"):
        assert "it holds a key" in refusal(write(b"\x80\x02}X\x01\0\0\0a" + owner + set_items + b"s.", legacy))


@FORMATS
@pytest.mark.parametrize("depth", [50, 300_000])
def test_keys_are_plain(write, legacy, depth):
    """The hash of 50 tuples, each twice in the next, takes 2^50 steps; that of 300,000 in each other has no stack."""
    if depth == 50:
        tuples = b")q\0" + b"".join(b"h\0h\0\x86q\0" for _ in range(depth))
        key = b"(" + tuples + b"t"
    else:
        key = b")" + b"\x85" * depth
    for set_items in (key + b"K\x01s", b"(" + key + b"K\x01u"):
        assert "a key of type tuple, expected text or numbers" in refusal(
            write(b"\x80\x02}" + set_items + b".", legacy)
        )


# Memory --------------------------------------------------------------------------------------------------------------


def nested(make, innermost, depth):
    for _ in range(depth):
        innermost = make(innermost)
    return innermost


def many(what, count=20_000) -> list:
    return [what() for _ in range(count)]


LARGE = torch.zeros(1).expand(2**31)
TEXT, PAIRS, ITEMS = "a" * 100_000, [[k, 0] for k in range(5000)], {k: 0 for k in range(5000)}
BOMBS = {  # files of less than a megabyte
    "bytes as ever longer text": lambda: nested(lambda inner: Calls(_codecs.encode, inner, "hex"), b"a" * 9, 30),
    "text as bytes, many times": lambda: many(lambda: Calls(_codecs.encode, TEXT, "latin1")),
    "an expanded tensor": lambda: LARGE,
    "an expanded tensor from another device": lambda: Calls(
        torch._utils._rebuild_device_tensor_from_cpu_tensor, LARGE, torch.float32, "cpu", False
    ),
    "a set of an expanded tensor": lambda: Calls(set, LARGE),
    "a counter of an expanded tensor": lambda: Calls(collections.Counter, LARGE),
    "a list of an expanded tensor": lambda: Calls(list, LARGE),
    "a dict of an expanded tensor": lambda: Calls(collections.OrderedDict, LARGE),
    "a dict of a list, many times": lambda: many(lambda: Calls(collections.OrderedDict, PAIRS)),
    "attributes of a dict, many times": lambda: many(lambda: Calls(collections.OrderedDict, state=ITEMS)),
    "a range": lambda: Calls(list, Calls(range, 2**31)),
    "bytes of a size": lambda: Calls(bytes, 2**31),
    "a sized object": lambda: Calls(bytearray, 2**31),
    "a tensor of a size": lambda: Calls(torch.FloatTensor, 2**29),
    "an array of numpy": lambda: Calls(np.zeros, 2**29),
    "a repeated text": lambda: nested(lambda inner: Calls(str.__mul__, inner, 2**10), "a" * 99, 3),
}


@FORMATS
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(save, peak_memory, legacy, name):
    file = save({"a": BOMBS[name]()}, legacy)
    assert file.size < 2**20
    if name == "attributes of a dict, many times":  # they are not needed, and are not set
        assert peak_memory(lambda: read_torch_file(file)) < 100
        assert not vars(read_torch_file(file)["a"][0])
    else:
        assert peak_memory(lambda: refusal(file)) < 100


@FORMATS
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"]" * 200_000 + b"a" * 199_999 + b".", "it holds a list, expected a dict"),
        (b"(" * 200_000 + b".", "damaged"),
        (b"}r\xff\xff\xff\x7f.", None),  # a place in the memo whose number is all that is large
        (b"}X\xff\xff\xff\x7f", "damaged"),  # a text of 2 GiB
        (b"}\x8a\xff", "damaged"),
    ],
    ids=["deep lists", "marks", "memo", "long text", "long number"],
)
def test_pickles_that_claim_much_take_little_memory(write, peak_memory, legacy, content, message):
    file = write(b"\x80\x02" + content, legacy)
    if message is None:
        assert peak_memory(lambda: read_torch_file(file)) < 100
    else:
        assert peak_memory(lambda: refusal(file)) < 100
        assert message in refusal(file)


def test_many_storages_may_not_claim_more_than_the_file_together(write, peak_memory):
    """Each is as large as the file; in the older format their memory is taken before their values are read."""
    count = 1000
    size = 2000 * 1000 // 4
    each = [reference(("storage", torch.float32, str(k), "cpu", size)) for k in range(count)]
    file = write(b"\x80\x02}X\x01\0\0\0a](" + b"".join(each) + b"es.", legacy=True)
    with open(file, "ab") as stream:
        stream.write(bytes(2_000_000))
    assert peak_memory(lambda: refusal(file)) < 100
    assert "a storage claims more values than the file holds" in refusal(file)


def test_members_of_the_archive_may_not_claim_more_than_the_file(tmp_path, save, peak_memory):
    file = save({"a": torch.zeros(1000)})
    bomb = Path(tmp_path) / "bomb.pt"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(2**29) if name.endswith("data/0") else old.read(name))
    assert bomb.size < 2**20
    assert peak_memory(lambda: refusal(bomb)) < 100
    assert "its parts claim more than the file holds" in refusal(bomb)


def test_a_pickle_is_not_larger_than_that_of_a_large_network(write, monkeypatch):
    content = b"\x80\x02}X\x01\0\0\0a](" + b"}" * 1000 + b"es."
    for legacy in (False, True):
        assert len(read_torch_file(write(content, legacy))["a"]) == 1000
    monkeypatch.setattr(torch_files, "_LARGEST_PICKLE", 500)
    for legacy in (False, True):
        refusal(write(content, legacy))
