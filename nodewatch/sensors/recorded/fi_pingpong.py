"""Output of libfabric's fi_pingpong: a table with k, m and g suffixes, one or two ends of it, and the errors beside it.

The tool writes no footer, so what tells a whole table is that its last row is whole and that no error stands anywhere.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiPingpongSample, PingpongRow
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._text import lines, shown

_HEADER = re.compile(r"^\s*bytes\s+#sent\s+#ack\s+total\s+time\s+MB/sec\s+usec/xfer\s+Mxfers/sec")
_ROW = re.compile(r"^\s*[0-9]+(?:\.[0-9]+)?[kmgt]?(?:\s|$)", re.IGNORECASE)
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)([kmgt]?)", re.IGNORECASE)
_ERROR = re.compile(
    r"\bfi_\w+(?:\(\))?: ?.*-\d+\b|\bret(?:urned)? ?=? ?-\d+|error|refused|timed? ?out|timeout|unreachable|"
    r"no route to host|cannot allocate|failed|failure|segmentation|no data available|not found|killed|unresponsive",
    re.IGNORECASE,
)
_LOGGED = re.compile(r"<(?:info|warn|debug|trace)>", re.IGNORECASE)
"""Libfabric's own log: a run that measured all it should may have such lines."""
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MANY = 64
_SIZES = (64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20)
"""Libfabric util/pingpong.c: generate_test_sizes."""


def load(recording: Recording) -> Iterator[FiPingpongSample]:
    """One sample of both ends. Raises SensorError when there is neither a table nor an error of the tool."""
    yield parse(recording.read(), name=str(recording.path))


def parse(data: bytes, *, name: str = "this") -> FiPingpongSample:
    """What both ends wrote, in one. Raises SensorError when there is neither a table nor an error of the tool."""
    rows: list[PingpongRow] = []
    errors: dict[str, None] = {}
    incomplete: str | None = None
    has_header = False
    for line in lines(data):
        if _HEADER.match(line):
            has_header = True
        elif has_header and _ROW.match(line):
            row = _row(line.split())
            if row is None:
                incomplete = incomplete or f"the row {shown(line, at_most=80)!r} cannot be read"
            elif len(rows) < 10_000:
                rows.append(row)
        elif _ERROR.search(line) and len(errors) < _MANY:
            errors[shown(line)] = None
        elif re.match(r"^\s*bytes\s+#sent", line):
            incomplete = incomplete or "the header of the table was cut off"
    is_of_the_tool = has_header or any(re.search(r"fi_\w+|libfabric|pingpong|pp_\w+", line) for line in errors)
    if not is_of_the_tool and not (errors and not has_header and _is_only_errors(errors)):
        raise SensorError(f"{name} is no output of fi_pingpong: record fi_pingpong -p efa -e rdm")
    if rows and incomplete is None:
        errors = {line: None for line in errors if not _LOGGED.search(line)}
    if rows and not errors:
        incomplete = incomplete or _cut_after(rows)
    if has_header and not rows and not errors:
        incomplete = incomplete or "the table has no rows"
    return FiPingpongSample(rows=tuple(rows), errors=tuple(errors), incomplete=incomplete)


def _cut_after(rows: list[PingpongRow]) -> str | None:
    """Why the table lacks its end, by the sizes that fi_pingpong goes through when it is told none."""
    counts = Counter(row.size for row in rows)
    sizes = tuple(sorted(counts))
    if len(set(counts.values())) > 1:
        return f"one end has a row of {min(counts, key=lambda size: counts[size])} bytes that the other lacks"
    # Up to 4k is whole: a datagram is no longer. One row alone is what -S asks for.
    if sizes in (_SIZES[:2], _SIZES[:3], _SIZES[:5]):
        return f"it ends after {sizes[-1]} bytes"
    return None


def _is_only_errors(errors: dict[str, None]) -> bool:
    """A client that reached nobody prints the system's own words and nothing else."""
    return all(re.match(r"(?:connect|bind|accept|recv|send|read|write)(?:\(\))?:", line) for line in errors)


def _row(words: list[str]) -> PingpongRow | None:
    if len(words) != 8 or not re.fullmatch(r"[0-9.]+s", words[4]):
        return None
    size, sent = _size(words[0]), _size(words[1])
    bandwidth, latency, rate = (_number(word) for word in words[5:8])
    acknowledged = re.fullmatch(r"([=+-])([0-9.]+[kmgt]?)", words[2], re.IGNORECASE)
    if size is None or sent is None or bandwidth is None or latency is None or rate is None or acknowledged is None:
        return None
    return PingpongRow(
        size=size, bandwidth=bandwidth, latency_us=latency, all_acknowledged=acknowledged[1] == "=" and sent > 0
    )


def _size(word: str) -> int | None:
    match = _SIZE.fullmatch(word)
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
