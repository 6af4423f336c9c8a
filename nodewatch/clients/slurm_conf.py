"""A site's slurm.conf, read without a slurmctld: its Include lines too, in the order in which Slurm reads them."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nodewatch.errors import SlurmError

_LISTS = {"prolog", "epilog", "prologslurmctld", "epilogslurmctld", "slurmctldhost"}
"""Parameters that may be given more than once; of others the last one counts."""
_RECORDS = ("nodename", "partitionname", "downnodes", "nodeset", "frontendname", "switchname")
_PAIR = re.compile(r'([A-Za-z_][\w]*)\s*(?:\+|-)?=\s*("[^"]*"|\S*)')
_DEEPEST = 8


@dataclass(slots=True, kw_only=True)
class SlurmConf:
    """What the files say. `values` is by parameter as written, `repeated` what was given twice and is not a list."""

    values: dict[str, str] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def read_slurm_conf(path: Path) -> SlurmConf:
    """Read `path` and what it includes. Raises SlurmError with one sentence for a file that cannot be read."""
    conf = SlurmConf()
    spelling: dict[str, str] = {}
    for key, value in _pairs(path, conf, path.parent, 0):
        name = key.lower()
        if name in _LISTS:
            count = sum(known.startswith(f"{name}[") for known in map(str.lower, conf.values))
            conf.values[f"{key}[{count}]"] = value
            continue
        if name in spelling:
            conf.values.pop(spelling[name])
            if key not in conf.repeated:
                conf.repeated.append(key)
        spelling[name] = key
        conf.values[key] = value
    return conf


def _pairs(path: Path, conf: SlurmConf, base: Path, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        raise SlurmError(f"{path} is included by itself: take the Include line out")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SlurmError(
            f"{path} cannot be read ({error.strerror}): name the site's slurm.conf, or correct the Include"
        ) from error
    conf.files.append(path)
    for line in _lines(text):
        words = line.split(None, 1)
        if words[0].lower() == "include" and len(words) == 2:
            pattern = words[1].strip().replace("%c", conf.values.get("ClusterName", "%c"))
            whole = pattern if pattern.startswith("/") else str(base / pattern)
            for included in sorted(glob.glob(whole)) or [whole]:  # noqa: PTH207 (a pattern may be absolute)
                yield from _pairs(Path(included), conf, base, depth + 1)
        elif not words[0].lower().startswith(_RECORDS):
            for match in _PAIR.finditer(line):
                yield match[1], match[2].strip('"')


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, those that end in a backslash joined with the next; \\# is no comment."""
    held = ""
    for raw in text.splitlines():
        line = re.sub(r"(?<!\\)#.*", "", raw).replace("\\#", "#").rstrip()
        if line.endswith("\\"):
            # Slurm joins them as they are: a list may go on in the next line.
            held += line[:-1]
            continue
        line, held = (held + line).strip(), ""
        if line:
            yield line
    if held.strip():
        yield held.strip()
