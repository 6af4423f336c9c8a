"""What is read of a Lustre client: its servers, its network, its file systems' space, and its own health."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LustreTarget:
    """One server's target as this client sees it. `state` is upper case: ACTIVE, INACTIVE, FULL, EVICTED, ..., or
    ERROR."""

    name: str
    state: str
    said: str = ""
    """The tool's own words for an ERROR."""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LustreUsage:
    """How full a target, or a whole file system (`is_summary`), is."""

    name: str
    mount: str
    percent: int
    is_inodes: bool = False
    is_summary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LnetInterface:
    """One LNet interface of this node, or of a peer. `health` is 1000 when well; None where it was not printed."""

    nid: str
    status: str
    """up, down, NA, ...; lower case, empty where it was not printed."""
    health: int | None = None
    is_peer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HsmFile:
    """A file's state in hierarchical storage, by Lustre's own words: exists, archived, released, dirty, lost_from_hsm, ..."""

    path: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LustreSample:
    """All that a recording tells of a Lustre client. `incomplete` says what was cut off."""

    targets: tuple[LustreTarget, ...] = ()
    usages: tuple[LustreUsage, ...] = ()
    interfaces: tuple[LnetInterface, ...] = ()
    lnet_error: str | None = None
    """Why LNet could not be shown: it is not loaded, or down."""
    health: str | None = None
    """What the client's own health_check says; None where it was not recorded."""
    hsm: tuple[HsmFile, ...] = ()
    """Only of the files that were asked for."""
    incomplete: str | None = None
