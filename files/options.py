"""Options as frozen dataclasses: each field carries its default, meaning and range, and is checked when made.

`cli.flags.add_option_flags` derives a command line from such a dataclass, and a checkpoint stores it as plain values.
"""

import dataclasses
import sys
import types
import typing
from typing import Any

from files.errors import InputError, UsageError


def option(
    default: Any,
    help: str,
    *,
    group: str = "",
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    metavar: str | None = None,
    may_change: bool = False,
) -> Any:
    """A field of an options dataclass.

    Args:
        help: the flag's help, without the default.
        group: title of the flag's group in --help.
        above, at_least, below: the range of a number.
        choices: the values that a string may have.
        metavar: placeholder of the value in --help.
        may_change: a run that is resumed may change it.
    """
    metadata: dict[str, Any] = {"help": help, "group": group, "above": above, "at_least": at_least, "below": below}
    metadata |= {"choices": choices, "metavar": metavar, "may_change": may_change}
    return dataclasses.field(default=default, metadata=metadata)


def flag_name(name: str) -> str:
    """--batch-size of batch_size."""
    return "--" + name.replace("_", "-")


def base_type(field: dataclasses.Field) -> tuple[Any, bool]:
    """(type, whether None is allowed) of a field: (int, True) of `int | None`."""
    kind: Any = field.type
    if isinstance(kind, types.UnionType):
        (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
        return inner, True
    return kind, False


def expectation(field: dataclasses.Field) -> str:
    """The values that a field may have, in words: "a whole number greater than 0"."""
    kind, _ = base_type(field)
    limits = field.metadata
    if limits["choices"]:
        return f"one of {', '.join(limits['choices'])}"
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text", tuple: "a list of names"}
    words = names[typing.get_origin(kind) or kind]
    bounds = []
    if limits["at_least"] is not None:
        bounds.append(f"of {limits['at_least']:g} or more")
    if limits["above"] is not None:
        bounds.append(f"greater than {limits['above']:g}")
    if limits["below"] is not None:
        bounds.append(f"less than {limits['below']:g}")
    return " ".join([words, " and ".join(bounds)]) if bounds else words


def is_allowed(field: dataclasses.Field, value: Any) -> bool:
    """Whether a field may have this value: its type, range and choices."""
    kind, optional = base_type(field)
    if value is None:
        return optional
    if kind is float:
        right_type = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is int:
        right_type = isinstance(value, int) and not isinstance(value, bool)
    else:
        right_type = isinstance(value, typing.get_origin(kind) or kind)
    if not right_type:
        return False
    limits = field.metadata
    if limits["choices"] and value not in limits["choices"]:
        return False
    if kind not in (int, float):
        return True
    return (
        abs(value) <= sys.float_info.max  # False for NaN
        and (limits["above"] is None or value > limits["above"])
        and (limits["at_least"] is None or value >= limits["at_least"])
        and (limits["below"] is None or value < limits["below"])
    )


def check_options(options: Any) -> None:
    """UsageError naming the flag unless every field of an options dataclass has a value of its type and range."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.metadata and not is_allowed(field, value):
            raise UsageError(f"{flag_name(field.name)} {_short(value)}: expected {expectation(field)}")


def to_plain(options: Any) -> dict[str, Any]:
    """An options dataclass as numbers, strings, lists and dicts, for JSON and checkpoints."""
    plain = dataclasses.asdict(options)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def from_plain(cls: type, plain: Any, where: str) -> Any:
    """The options dataclass that `to_plain` wrote. Fields that are missing keep their default.

    Args:
        where: the file, for the error.

    Raises:
        InputError: something that cannot be such options, or a field without a default is missing.
    """
    if not isinstance(plain, dict):
        raise InputError(f"{where}: damaged: expected options by name, found {type(plain).__name__}")
    values = {}
    for field in dataclasses.fields(cls):
        if field.name not in plain:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise InputError(f"{where}: damaged: it lacks {field.name}")
            continue
        value = plain[field.name]
        kind, _ = base_type(field)
        if dataclasses.is_dataclass(kind):
            value = from_plain(typing.cast(type, kind), value, where)
        elif typing.get_origin(kind) is tuple:
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                raise InputError(f"{where}: damaged: {field.name} is {_short(value)}, expected a list of names")
            value = tuple(value)
        elif not field.metadata and not isinstance(value, typing.get_origin(kind) or kind):
            raise InputError(f"{where}: damaged: {field.name} is {_short(value)}")
        if field.metadata and not is_allowed(field, value):
            raise InputError(f"{where}: damaged: {field.name} is {_short(value)}, expected {expectation(field)}")
        values[field.name] = value
    try:
        return cls(**values)
    except InputError as error:
        raise InputError(f"{where}: damaged: {error}") from None


def _short(value: Any) -> str:
    """A value for a message. A container from a file may be huge when printed: only its type is named."""
    return f"{value!r:.40}" if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
