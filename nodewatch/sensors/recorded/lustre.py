"""Output of a Lustre client's tools, alone or one after the other in one file; each line tells which tool it is from.

Known are `lfs check servers`, `lfs df` with -h and -i, `lfs hsm_state`, `lnetctl net show` and `peer show` with -v, `lctl
get_param *.*.import` and `*.*.state`, and health_check. A directory is searched for files of those names, as below
/sys/fs/lustre.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.errors import SensorError
from nodewatch.model.storage_samples import LustreSample
from nodewatch.sensors.lustre_text import LustreText
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._text import lines

_FILES = frozenset({"health_check", "import", "state"})


def load(recording: Recording) -> Iterator[LustreSample]:
    """One sample of the whole recording. Raises SensorError when no line of it is known."""
    parser = LustreText()
    line = ""
    for line in _lines(recording):
        parser.take(line)
    if line:
        parser.end_without_newline(line)
    sample = parser.sample()
    if sample == LustreSample():
        raise SensorError(
            f"{recording.path} is no output of lfs check servers, lfs df, lnetctl show or lctl import: record one of them"
        )
    yield sample


def _lines(recording: Recording) -> Iterator[str]:
    if not recording.path.is_dir():
        yield from lines(recording.read())
        return
    for place in sorted(recording.path.rglob("*")):
        if place.name in _FILES and place.is_file():
            if place.name != "health_check":
                yield f"{place.parent.name}.{place.name}="
            yield from lines(Recording(path=place).read(at_most=1 << 20))
