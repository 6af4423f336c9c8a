"""Read a TOML file into a frozen dataclass whose fields are the schema and whose defaults are the defaults."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from nodewatch.errors import ConfigError

_T = TypeVar("_T")


def load(schema: type[_T], path: Path) -> _T:
    """The configuration in `path`, checked against the dataclass `schema`.

    Raises ConfigError with one sentence that names the file, the key and the remedy: for a missing or unreadable file, for
    text that is no TOML, for a key that `schema` does not have, and for a value of another type or out of its range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist: create it, or name another file with --config") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return build(schema, data, where=str(path))


def build(schema: type[_T], data: Mapping[str, Any], *, where: str) -> _T:
    """The dataclass `schema` filled from `data`; `where` names the place in messages. Raises ConfigError."""
    fields = {field.name: field for field in dataclasses.fields(schema) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(schema)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the known keys are {', '.join(sorted(fields))}."
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
        values[key] = _value(hints[key], value, where=f"{where}: {key}")
    try:
        return schema(**values)
    except TypeError as error:
        missing = [
            name
            for name, field in fields.items()
            if name not in values
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        raise ConfigError(f"{where}: the key {', '.join(map(repr, missing))} is required and missing") from error
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _value(hint: Any, value: Any, *, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return _value(options[0], value, where=where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table, not {value!r}")
        return build(hint, value, where=where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, entry, where=where) for entry in value)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table, not {value!r}")
        item = typing.get_args(hint)[1]
        return {str(key): _value(item, entry, where=f"{where}.{key}") for key, entry in value.items()}
    return _scalar(hint, value, where=where)


def _scalar(hint: Any, value: Any, *, where: str) -> Any:
    if hint is Any:
        return value
    if hint is Path:
        if not isinstance(value, str):
            raise ConfigError(f"{where} must be a path in quotes, not {value!r}")
        return Path(value)
    # bool is a subclass of int: without this, `max_out = true` would be read as 1.
    if hint in (int, float) and isinstance(value, bool):
        raise ConfigError(f"{where} must be a number, not {value!r}")
    if hint is float and isinstance(value, int):
        return float(value)
    # TOML has `nan` and `inf`: with the first every comparison is false, the limits among them.
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, not {value!r}")
    if not isinstance(value, hint):
        names = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
        raise ConfigError(f"{where} must be {names.get(hint, hint.__name__)}, not {value!r}")
    return value
