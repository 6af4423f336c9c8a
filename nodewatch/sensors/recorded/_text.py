"""Lines of a recording as a person would see them: decoded, without the marks that launchers put before each line."""

from __future__ import annotations

import re

_PREFIX = re.compile(
    r"^(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d) )?"
    r"(?:\[\d+,\d+\]<std(?:out|err)>: ?|\[rank ?\d+\] ?|\d{1,5}: )?"
)
"""Time stamps of a log collector; mpirun --tag-output, torchrun and srun --label."""
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def decoded(data: bytes) -> str:
    """`data` as text; what is no UTF-8 becomes a replacement character, so that one odd byte hides nothing else."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace").replace("\x00", "\ufffd")


def lines(data: bytes) -> list[str]:
    """The lines of `data` without line ends, terminal colours and launchers' marks."""
    return [_PREFIX.sub("", _ESCAPE.sub("", line)) for line in re.split(r"\r?\n", decoded(data))]


def shown(line: str, *, at_most: int = 300) -> str:
    """`line` as evidence: short, on one line."""
    text = " ".join(line.split())
    return text if len(text) <= at_most else text[: at_most - 3] + "..."
