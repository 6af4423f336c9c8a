"""Write a dictionary of the inventory as TOML, in the order in which it was written there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping


class FilterModule:
    """Ansible's name for a file of filters."""

    def filters(self) -> dict:
        """The filters by name."""
        return {"nodewatch_toml": to_toml}


def to_toml(table: Mapping, path: str = "") -> str:
    """`table` as TOML. Raises ValueError for what TOML cannot say, such as null."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _is_table(value)]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in table.items():
        name = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, Mapping):
            inner = to_toml(value, name)
            text += f"\n[{name}]\n{inner}" if inner or not value else ""
        elif _is_table(value):
            text += "".join(f"\n[[{name}]]\n{to_toml(row, name)}" for row in value)
    return text


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )


def _key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # str(): values of the inventory are of ansible's own string type. JSON's escapes are TOML's, too.
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise ValueError(f"{value!r} cannot be written as TOML: leave the key out")
