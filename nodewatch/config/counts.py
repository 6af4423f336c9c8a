"""Change the counts of groups in the text of cluster.toml, everything else, comments too, left as it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

from nodewatch.errors import ConfigError

_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
_GROUP = re.compile(r"^[ \t]*\[\[\s*groups\s*\]\][^\n]*\n?", re.MULTILINE)
_COUNT = re.compile(r"^([ \t]*count[ \t]*=[ \t]*)(\d+)", re.MULTILINE)


def with_counts(text: str, counts: Mapping[str, int]) -> str:
    """`text` with each group of `counts` given its count. Raises ConfigError for a group that is not in it, and for a file
    that is written in a way which this cannot edit."""
    wanted = tomllib.loads(text)
    by_name = {group.get("name"): group for group in wanted.get("groups", ())}
    for name, count in counts.items():
        if name not in by_name:
            known = ", ".join(sorted(map(str, by_name))) or "none"
            raise ConfigError(f"there is no group {name!r} in cluster.toml; its groups: {known}")
        by_name[name]["count"] = count
    changed = text
    for name, count in counts.items():
        changed = _with_count(changed, name, count)
    try:
        is_meant = tomllib.loads(changed) == wanted
    except tomllib.TOMLDecodeError:
        is_meant = False
    if not is_meant:
        raise ConfigError(
            f"the counts of {', '.join(counts)} stand in no [[groups]] block of their own: edit them by hand"
        )
    return changed


def _with_count(text: str, name: str, count: int) -> str:
    for match in _GROUP.finditer(text):
        following = _TABLE.search(text, match.end())
        end = following.start() if following else len(text)
        body = text[match.end() : end]
        try:
            is_it = tomllib.loads(body).get("name") == name
        except tomllib.TOMLDecodeError:
            # A value over several lines with a bracket at a line's start: the whole is compared afterwards.
            continue
        if not is_it:
            continue
        has_one = _COUNT.search(body) is not None
        body = _COUNT.sub(rf"\g<1>{count}", body, count=1) if has_one else f"count = {count}\n{body}"
        return text[: match.end()] + body + text[end:]
    return text
