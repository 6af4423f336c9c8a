"""The files that slurmctld's hooks leave for us (docs/interfaces.md section 3)."""

from __future__ import annotations

import contextlib
import json
import logging
import re
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
        paths = sorted((p for p in inbox.iterdir() if p.suffix == ".json"), key=_order)
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
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
            rejected = inbox / "rejected"
            rejected.mkdir(exist_ok=True)
            _log.warning("%s is no message of a slurmctld hook (%s): moved to %s", path, error, rejected)
            path.replace(rejected / path.name)
            continue
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    return len(paths)


def _order(path: Path) -> tuple[int, tuple[int, int, bool], str]:
    """By age. File systems count time in steps, and of two files of one step the end of a run must not come before its
    start: the controller would wait for ever for the end of a run that it took for running."""
    try:
        age = path.stat().st_mtime_ns
    except FileNotFoundError:
        age = 0
    match = re.fullmatch(r"job_(started|ended)-([0-9]{1,18})-([0-9]{1,18})\.json", path.name)
    run = (int(match[2]), int(match[3]), match[1] == "ended") if match else (0, 0, False)
    return (age, run, path.name)
