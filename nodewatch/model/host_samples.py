"""What sensors read of the host itself: memory, processors, processes, space, time, services, boots."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """Memory and processors. `instance_type` is set only where it is proved to be this machine's, else empty."""

    memory_bytes: int
    available_bytes: int
    """What programs can still have without swapping (MemAvailable)."""
    cpus_online: int
    cpus_present: int | None = None
    """None where the kernel does not say."""
    is_smt_off: bool = False
    """Sibling threads were switched off on purpose."""
    instance_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedProcess:
    """A program in an uninterruptible wait, and for how long it has been seen there without a tick of processor time."""

    pid: int
    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSample:
    """Programs that wait in the kernel, and dead ones that nobody collects. Threads of the kernel are not counted."""

    processes: int
    blocked: tuple[BlockedProcess, ...] = ()
    zombies: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """One local file system by the path that it was asked at. `inodes` is 0 where it has no fixed number."""

    path: str
    bytes: int
    free_bytes: int
    """For programs that are not root's."""
    inodes: int
    free_inodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSample:
    """The file systems that every node needs room on, each once."""

    spaces: tuple[Space, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSample:
    """The kernel's clock discipline (adjtimex)."""

    is_synchronised: bool
    max_error_s: float
    """The kernel's own bound on the error; 16 s is its way of saying that it has no idea."""
    uptime_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One systemd unit, in systemd's own words."""

    name: str
    load: str
    active: str
    sub: str
    file: str
    """`enabled`, `disabled`, `static`, ...; empty for a unit without a file."""
    result: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSample:
    """The services that a node of a Slurm cluster needs, those that are installed."""

    units: tuple[Unit, ...]
    has_nvswitch: bool
    uptime_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSample:
    """This boot and how the one before ended, by the note that the agent leaves; None when there is no note."""

    boot_id: str
    previous_boot_id: str | None = None
    previous_was_clean: bool | None = None
    """Whether the agent was told to stop before the boot ended."""
    unclean_in_a_day: int = 0
    """Boots that followed no clean end within the last 24 hours, this one counted."""
