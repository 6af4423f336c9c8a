"""Frozen dataclasses as plain JSON values and back, derived from their fields: a new field is carried without being named here.

A hint that cannot be carried raises TypeError when it is first met, not when a value is lost.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")
_Convert = Callable[[Any], Any]
_KIND = "is"
"""Key under which one of several dataclasses is named; no field can be called so."""


def to_plain(value: Any, hint: Any = None) -> Any:
    """`value` as JSON; `hint` is its type where that is no dataclass of its own."""
    kind: Any = hint if hint is not None else type(value)
    return _codec(kind)[0](value)


def from_plain(hint: type[_T], data: Any) -> _T:
    """The inverse of `to_plain`. A field that is missing gets its default; one that `hint` does not have is passed over.

    Raises ValueError, KeyError, TypeError or AttributeError when `data` is not one.
    """
    kind: Any = hint
    result: _T = _codec(kind)[1](data)
    return result


def shape_of(hint: Any) -> str:
    """All fields and types below `hint`, as text: another text means that another release wrote it."""
    lines: dict[str, None] = {}
    _describe(hint, lines)
    return "\n".join(sorted(lines))


@functools.cache
def _codec(hint: Any) -> tuple[_Convert, _Convert]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _same, _same
    if hint in (str, int, float, bool):
        return _same, _same if hint is str else hint
    if hint is type(None):
        return _same, _same
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return (lambda value: value.name), (lambda name: hint[name])
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _of_dataclass(hint)
    if origin in (types.UnionType, typing.Union):
        return _of_union(inner)
    if origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        return _of_items(inner[0], tuple)
    if origin is tuple:
        parts = [_codec(part) for part in inner]
        return (
            lambda value: [part[0](item) for part, item in zip(parts, value, strict=True)],
            lambda data: tuple(part[1](item) for part, item in zip(parts, data, strict=True)),
        )
    if origin is frozenset:
        encode, decode = _of_items(inner[0], frozenset)
        return (lambda value: sorted(encode(value))), decode
    if origin in (dict, Mapping) and inner[0] in (str, int):
        return _of_mapping(*inner)
    raise TypeError(f"{hint!r} cannot be carried as JSON: teach nodewatch/model/plain.py about it")


def _same(value: Any) -> Any:
    return value


def _of_items(item: Any, kind: Callable[[Any], Any]) -> tuple[_Convert, _Convert]:
    encode, decode = _codec(item)
    if encode is _same and decode is _same:
        return list, kind
    return (lambda value: [encode(each) for each in value]), (lambda data: kind([decode(each) for each in data]))


def _of_mapping(key: Any, value: Any) -> tuple[_Convert, _Convert]:
    encode, decode = _codec(value)
    # JSON has text for keys only.
    return (
        lambda table: {str(name): encode(each) for name, each in table.items()},
        lambda data: {key(name): decode(each) for name, each in data.items()},
    )


def _of_union(inner: tuple[Any, ...]) -> tuple[_Convert, _Convert]:
    options = [option for option in inner if option is not type(None)]
    if len(options) == 1:
        encode, decode = _codec(options[0])
        return (
            lambda value: None if value is None else encode(value),
            lambda data: None if data is None else decode(data),
        )
    if not all(dataclasses.is_dataclass(option) for option in options) or len(options) != len(inner):
        raise TypeError(f"{inner!r} cannot be told apart in JSON: teach nodewatch/model/plain.py about it")
    codecs = {option.__name__: _codec(option) for option in options}
    return (
        lambda value: {_KIND: type(value).__name__, **codecs[type(value).__name__][0](value)},
        lambda data: codecs[data[_KIND]][1](data),
    )


def _of_dataclass(kind: type) -> tuple[_Convert, _Convert]:
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    codecs = {field.name: _codec(hints[field.name]) for field in fields}
    encoders = [(name, encode) for name, (encode, _) in codecs.items()]
    needed = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def encode(value: Any) -> dict[str, Any]:
        return {name: each(getattr(value, name)) for name, each in encoders}

    def decode(data: Any) -> Any:
        if not isinstance(data, Mapping) or any(name not in data for name in needed):
            raise ValueError(f"no {kind.__name__}: {str(data)[:100]}")
        return kind(**{name: codecs[name][1](value) for name, value in data.items() if name in codecs})

    return encode, decode


def _describe(hint: Any, lines: dict[str, None]) -> None:
    for part in typing.get_args(hint):
        _describe(part, lines)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        lines[f"{hint.__name__}: {', '.join(hint.__members__)}"] = None
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        for field in dataclasses.fields(hint):
            line = f"{hint.__name__}.{field.name}: {hints[field.name]}"
            if line not in lines:
                lines[line] = None
                _describe(hints[field.name], lines)
