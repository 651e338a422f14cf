import json
from dataclasses import dataclass, field, fields

import pytest
import torch

from files.errors import InputError, UsageError
from files.options import check_options, expectation, flag_name, from_plain, is_allowed, option, to_plain


@dataclass(frozen=True)
class Inner:
    weight: float = option(0.5, "a weight", at_least=0)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Named:
    name: str
    arguments: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    count: int = option(4, "a count", above=0)
    share: float = option(0.9, "a share", above=0, below=1)
    seed: int = option(0, "a seed", at_least=0, below=2**63)
    kind: str = option("a", "a kind", choices=("a", "b"))
    name: str | None = option(None, "a name")
    length: int | None = option(None, "a length", above=0)
    check: bool = option(True, "a switch")
    files: tuple[str, ...] = option((), "names of files")
    inner: Inner = Inner()
    network: Named = Named("x")

    def __post_init__(self) -> None:
        check_options(self)
        if self.count == 7:
            raise UsageError("--count 7: expected another number")


FIELDS = {f.name: f for f in fields(Example)}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("count", [1, 10**9], [0, -1, 1.0, True, "4", None, float("nan"), [4]]),
        ("share", [0.5, 1e-9], [0, 0.0, 1, 1.0, -1, float("nan"), float("inf"), True, "0.5", None]),
        ("seed", [0, 2**63 - 1], [-1, 2**63, 0.5]),
        ("kind", ["a", "b"], ["c", "", None, 1, ["a"]]),
        ("name", ["x", "", None], [1, ["x"]]),
        ("length", [1, None], [0, "1", 1.5]),
        ("check", [True, False], [0, 1, "true", None]),
        ("files", [(), ("a", "b")], [["a"], "a", None]),
    ],
)
def test_a_field_has_its_type_range_and_choices(name, good, bad):
    for value in good:
        assert is_allowed(FIELDS[name], value), value
        assert getattr(Example(**{name: value}), name) == value
    for value in bad:
        assert not is_allowed(FIELDS[name], value), value
        with pytest.raises(UsageError, match=rf"^--{name} .*: expected ") as caught:
            Example(**{name: value})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 10**400, torch.zeros(2)])
def test_numbers_are_finite(value):
    assert not is_allowed(fields(Inner)[0], value)


def test_expectations_in_words():
    assert {name: expectation(f) for name, f in FIELDS.items() if f.metadata} == {
        "count": "a whole number greater than 0",
        "share": "a number greater than 0 and less than 1",
        "seed": "a whole number of 0 or more and less than 9.22337e+18",
        "kind": "one of a, b",
        "name": "text",
        "length": "a whole number greater than 0",
        "check": "True or False",
        "files": "a list of names",
    }
    assert flag_name("batch_size") == "--batch-size"


def test_options_cannot_be_changed():
    with pytest.raises(AttributeError):
        Example().count = 3


@pytest.mark.parametrize(
    "options",
    [
        Example(),
        Example(3, 0.1, 2**62, "b", "å", 5, False, ("a", "b"), Inner(0.25), Named("y", {"width": 2})),
    ],
)
def test_plain_values_and_back(options):
    plain = to_plain(options)
    assert from_plain(Example, plain, "last.pt") == options
    assert from_plain(Example, json.loads(json.dumps(plain)), "last.pt") == options


def test_what_is_missing_keeps_its_default_and_what_is_unknown_is_left_out():
    plain = {"count": 3, "of a newer version": [1, 2], "inner": {"other": 1}, "network": {"name": "z", "x": 1}}
    assert from_plain(Example, plain, "last.pt") == Example(count=3, network=Named("z"))
    assert from_plain(Example, {}, "last.pt") == Example()


LISTS = [[]]
for _ in range(60):
    LISTS = [LISTS, LISTS]  # small in memory; printed it has 2^60 brackets


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ([1], "expected options by name, found list"),
        ({"count": "many"}, "count is 'many', expected a whole number greater than 0"),
        ({"count": 0}, "count is 0, expected a whole number greater than 0"),
        ({"count": LISTS}, "count is a list, expected a whole number"),
        ({"share": torch.zeros(2)}, "share is a Tensor, expected a number"),
        ({"kind": "c" * 999}, "kind is 'ccc"),
        ({"name": "x\n" * 99, "length": -1}, "length is -1"),
        ({"files": "abc"}, "files is 'abc', expected a list of names"),
        ({"files": [1]}, "files is a list, expected a list of names"),
        ({"inner": 3}, "expected options by name, found int"),
        ({"inner": {"weight": -1.0}}, "weight is -1.0, expected a number of 0 or more"),
        ({"network": {}}, "it lacks name"),
        ({"network": {"name": 3}}, "name is 3"),
        ({"network": {"name": "x", "arguments": LISTS}}, "arguments is a list"),
        ({"count": 7}, "--count 7: expected another number"),
    ],
)
def test_damage_is_refused_in_one_line(plain, message):
    with pytest.raises(InputError) as caught:
        from_plain(Example, plain, "run/last.pt")
    line = str(caught.value)
    assert line.startswith("run/last.pt: damaged: ")
    assert message in line
    assert not isinstance(caught.value, UsageError)
    assert "\n" not in line
    assert len(line) < 200
