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


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmeDevice:
    """One NVMe controller. What stands in its health log is None where it has none, or did not give it."""

    name: str
    model: str = ""
    state: str = ""
    """The kernel's word: live, new, resetting, connecting, deleting, dead; empty where it does not say."""
    critical_warning: int | None = None
    """Bits: 0 spare is low, 1 temperature, 2 unreliable, 3 read-only, 4 the backup of its cache failed, 5 its persistent
    memory is unreliable."""
    temperature_c: int | None = None
    spare_percent: int | None = None
    spare_threshold_percent: int | None = None
    used_percent: int | None = None
    """Of the life that the maker reckons with; more than 100 is possible, 255 at most."""
    media_errors: int | None = None
    """Times that data could not be read or kept whole, in the device's life."""
    unreadable: str | None = None
    """Why there is no health log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmeSample:
    """All NVMe controllers of the machine, and an earlier reading where there is one."""

    devices: tuple[NvmeDevice, ...]
    previous: tuple[NvmeDevice, ...] | None = None
    interval_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPolicy:
    """How fast the processors that share a clock may run; `cpu` is the first of them. None where the kernel does not say."""

    cpu: int
    driver: str = ""
    governor: str = ""
    limit_khz: int | None = None
    """What somebody, or the firmware, allows now."""
    maximum_khz: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFrequencySample:
    """The processors' clocks. `throttled_ms` is how long heat has held back the hottest one since the boot."""

    policies: tuple[CpuPolicy, ...] = ()
    throttled_ms: int | None = None
    throttled_rise_ms: int | None = None
    """By how much it rose over `interval_s`; None at the first reading."""
    interval_s: float | None = None
