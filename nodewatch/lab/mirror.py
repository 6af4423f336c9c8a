"""Where to fetch Debian from: the host's own apt sources say it, so that no mirror is written into the project."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nodewatch.lab.errors import LabError

MIRROR_VARIABLE = "NODEWATCH_LAB_MIRROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One archive that apt fetches packages from."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def parse_one_line(text: str) -> Iterator[Source]:
    """Read `deb [options] URI SUITE COMPONENT...` lines; anything else is not a binary source."""
    for raw in text.splitlines():
        line = re.sub(r"\[[^\]]*\]", " ", raw.split("#", 1)[0])
        words = line.split()
        if len(words) >= 3 and words[0] == "deb":
            yield Source(uri=words[1], suites=(words[2],), components=tuple(words[3:]))


def parse_deb822(text: str) -> Iterator[Source]:
    """Read deb822 stanzas; `Enabled: no` and source-only stanzas are left out."""
    # A comment line does not end a stanza, so comments go first.
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace() and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off", "without", "disable"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            yield Source(
                uri=uri,
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
            )


def debian_archive(sources: Iterable[Source], os_release: str) -> str | None:
    """The URI of the Debian archive proper among a Debian host's sources, or None.

    The archive proper is the one that serves the host's own release with the component main: neither -security nor
    a third party's repository has the other releases.
    """
    facts = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    if facts.get("ID", "").strip('"') != "debian":
        return None
    names = {"stable", "testing", "unstable", "sid", facts.get("VERSION_CODENAME", "").strip('"')} - {""}
    for source in sources:
        reachable = source.uri.startswith(("http://", "https://", "file:"))
        if reachable and "main" in source.components and names.intersection(source.suites):
            return source.uri.rstrip("/")
    return None


def find_mirror(option: str | None, *, etc: Path = Path("/etc")) -> str:
    """The mirror given by the user, else the host's own; LabError when neither is there."""
    if option:
        if not option.startswith(("http://", "https://", "file:")):
            raise LabError(f"--mirror {option} is not a URI: give the address of a Debian archive, starting http://")
        return option.rstrip("/")
    sources: list[Source] = []
    places = [etc / "apt" / "sources.list", *sorted((etc / "apt" / "sources.list.d").glob("*"))]
    for place in places:
        try:
            text = place.read_text(errors="replace")
        except OSError:
            continue
        if place.suffix == ".list":
            sources.extend(parse_one_line(text))
        elif place.suffix == ".sources":
            sources.extend(parse_deb822(text))
    try:
        os_release = (etc / "os-release").read_text()
    except OSError:
        os_release = ""
    found = debian_archive(sources, os_release)
    if found is None:
        raise LabError(
            "this host's apt sources name no Debian archive to build the machines from: "
            f"give one with --mirror or in {MIRROR_VARIABLE}"
        )
    return found
