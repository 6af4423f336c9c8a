"""The site's own rows about instance types, from the file that `nodewatch learn --write` appends to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nodewatch.errors import ConfigError
from nodewatch.knowledge import instance_types
from nodewatch.knowledge.instance_types import InstanceType
from nodewatch.knowledge.learnt import contradiction, parse_learnt

DEFAULT = Path("/etc/nodewatch/instance_types.toml")


def read_learnt(path: Path) -> Mapping[str, InstanceType]:
    """The rows in `path`; none when there is no such file.

    Raises ConfigError with one sentence: for a file that cannot be read or understood, and for a row that says otherwise
    than the built-in table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        rows = parse_learnt(text, where=str(path))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for name, row in rows.items():
        known = instance_types.TABLE.get(name)
        said = None if known is None or known == row else contradiction(row, known)
        if said is not None:
            raise ConfigError(f'{path}: [types."{name}"]: {said}: take the row out, or set what differs in agent.toml')
    return rows


def load_learnt(path: Path) -> None:
    """Let the table of instance types know the rows in `path`. Raises ConfigError as `read_learnt`."""
    instance_types.add(read_learnt(path))
