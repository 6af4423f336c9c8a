"""The files that slurmctld's hooks leave for us (docs/interfaces.md section 3)."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


def take_all(inbox: Path, receive: Callable[[Mapping[str, Any]], None]) -> int:
    """Hand each file to `receive`, oldest first, and remove it after that; returns how many there were.

    A file is removed only once `receive` has kept it: a crash in between hands it over again, which changes nothing. One
    that cannot be understood is moved to `rejected/` with a word in the log, so that it does not block the others.
    """
    try:
        paths = sorted((p for p in inbox.iterdir() if p.suffix == ".json"), key=_age)
    except FileNotFoundError:
        return 0
    for path in paths:
        try:
            message = json.loads(path.read_bytes())
            if not isinstance(message, Mapping):
                raise ValueError("not a JSON object")
            receive(message)
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            rejected = inbox / "rejected"
            rejected.mkdir(exist_ok=True)
            _log.warning("%s is no message of a slurmctld hook (%s): moved to %s", path, error, rejected)
            path.replace(rejected / path.name)
            continue
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return len(paths)


def _age(path: Path) -> tuple[float, str]:
    try:
        return (path.stat().st_mtime, path.name)
    except FileNotFoundError:
        return (0.0, path.name)
