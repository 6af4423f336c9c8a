"""Reads what a job has left behind: the told lines of its output, `failures.jsonl` and `progress.jsonl`. Run as a program.

    python -P -m nodewatch.sensors.job_output '{"uid":1001,"output":"/home/ada/slurm-17.out","directory":"/fsx/run1", ...}'

It is a program of its own because each of these paths may be on a file system that hangs. Started by root, it becomes the
job's user before it opens anything: root may be squashed there, and a user's path must open nothing that the user could not.
One line of JSON on standard output, the content of the event `job_witness` (docs/interfaces.md); with `"size": true` only the
size that the output has now.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nodewatch.knowledge.job_signs import told_lines

TAIL_BYTES = 262144
"""Of each file, the last so many: a thousand ranks leave a few hundred bytes each when one of them fails."""
_MOST_LINES = 24
_MOST_OF_A_SIGN = 3
"""Lines of one kind that are kept: the first rank that says it is of use, the thousandth is not."""
_LINE = 240
_MOST_FAILURES = 12
_ERROR = 300
_SAVED = re.compile(r"step-([0-9]{8,12})")
_STARTS_AGAIN = re.compile(r"nodewatch: job [0-9]+ starts again \(restart ([0-9]+)\)")
"""What the task prolog prints into the output of a run that is not the first."""
_CLOCKS_S = 5.0
"""Clocks of two nodes may differ so much; ours."""


class UnreadableError(Exception):
    """A file cannot be read, with the reason in one sentence."""


def tail(path: str, *, since: int = 0, at_most: int = TAIL_BYTES) -> tuple[bytes, bool]:
    """(the end of the file, whether it begins after `since`). Raises UnreadableError.

    `since` is the size that the file had when the run began.
    """
    try:
        # A pipe would be waited for, and a terminal taken over.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"{path} is no file")
        # Truncated meanwhile, all of it is of this run.
        first = since if since <= status.st_size else 0
        begin = max(first, status.st_size - at_most)
        data = b""
        while len(data) < at_most and (chunk := os.pread(fd, at_most - len(data), begin + len(data))):
            data += chunk
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)
    if begin > first:
        # The first line is half of one.
        data = data.partition(b"\n")[2]
    return data, begin > first


def output(path: str, *, since: int | None, restart: int) -> dict[str, Any]:
    """The told lines of the run's output. `since` is where it began, None where that is not known."""
    try:
        data, is_cut = tail(path, since=since or 0)
    except UnreadableError as error:
        return {"lines": None, "unread": str(error)}
    text = data.decode("utf-8", "replace")
    if since is None and restart > 0:
        # Appended to what the runs before it have left.
        marks = [mark for mark in _STARTS_AGAIN.finditer(text) if int(mark[1]) == restart]
        if not marks and not is_cut:
            return {"lines": None, "unread": f"{path}: where the output of this run begins is not known"}
        if marks:
            text, is_cut = text[marks[-1].end() :], False
    kept: list[str] = []
    counts: dict[str, int] = {}
    for sign, line in told_lines(text.splitlines()):
        counts[sign.name] = counts.get(sign.name, 0) + 1
        if counts[sign.name] <= _MOST_OF_A_SIGN and len(kept) < _MOST_LINES:
            kept.append(line[:_LINE])
    return {"lines": kept, "unread": "", "is_cut": is_cut}


def records(directory: str, *, restart: int, since: float | None) -> dict[str, Any]:
    """What the ranks of the run have written into the checkpoint directory. `since` is when it began, by the wall clock."""
    told: dict[str, Any] = {}

    def is_of_this_run(line: Mapping[str, Any]) -> bool:
        at = line.get("t")
        if since is not None and isinstance(at, int | float):
            return bool(at >= since - _CLOCKS_S)
        return line.get("restart") == restart

    failures = _lines(f"{directory}/failures.jsonl")
    if failures is not None:
        found = [line for line in failures if line.get("event") == "failed" and is_of_this_run(line)]
        found.sort(key=lambda line: (line.get("kind") == "peer_lost", line["t"] if _is_number(line.get("t")) else 0))
        told["failures"] = [_short(line) for line in found[:_MOST_FAILURES]]
    for line in _lines(f"{directory}/progress.jsonl") or ():
        step = line.get("step")
        if not isinstance(step, int):
            continue
        if line.get("event") == "saved":
            told["checkpoint_step"] = max(step, told.get("checkpoint_step", 0))
        if not is_of_this_run(line):
            continue
        if line.get("event") == "start":
            told["first_step"], told["resumed_from"] = step, str(line.get("resumed_from") or "")[:_LINE]
        if line.get("event") in ("step", "start", "done"):
            told["last_step"] = max(step, told.get("last_step", 0))
    saved = _newest_saved(directory)
    if saved is not None:
        # What is there counts, whatever was said of it.
        told["checkpoint_step"] = saved
    return told


def _newest_saved(directory: str) -> int | None:
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except OSError:
        return None
    steps = sorted((int(found[1]) for name in names if (found := _SAVED.fullmatch(name))), reverse=True)
    for step in steps:
        if Path(directory, f"step-{step:08d}", "manifest.json").is_file():
            return step
    return None


def _lines(path: str) -> Iterator[dict[str, Any]] | None:
    try:
        data, _ = tail(path)
    except UnreadableError:
        return None
    return _objects(data)


def _objects(data: bytes) -> Iterator[dict[str, Any]]:
    for raw in data.splitlines():
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            # A rank that was killed in mid-write left half a line.
            continue
        if isinstance(line, dict):
            yield line


def _short(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "t": line.get("t"),
        "rank": line.get("rank"),
        "host": str(line.get("host") or "")[:80],
        "kind": str(line.get("kind") or "")[:20],
        "error": str(line.get("error") or "")[:_ERROR],
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def become(uid: int) -> None:
    """Give up root for the user `uid`, with his groups where they are known. Raises OSError."""
    if os.geteuid() != 0 or uid == 0:
        return
    try:
        known = pwd.getpwuid(uid)
        os.initgroups(known.pw_name, known.pw_gid)
        gid = known.pw_gid
    except KeyError:
        os.setgroups([])
        gid = uid
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main(text: str) -> int:
    """Answer one question; the status is 0 also where nothing could be read, since that is an answer."""
    asked = json.loads(text)
    become(int(asked["uid"]))
    path = str(asked.get("output") or "")
    if asked.get("size"):
        try:
            print(json.dumps({"size": Path(path).stat().st_size}))
        except OSError:
            print(json.dumps({"size": 0}))
        return 0
    told: dict[str, Any] = {"lines": None, "unread": "Slurm did not tell where its output goes"}
    restart = int(asked["restart"])
    if path:
        told = output(path, since=asked.get("output_from"), restart=restart)
    if asked.get("directory"):
        told |= records(str(asked["directory"]), restart=restart, since=asked.get("since"))
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
