"""What sensors read: one frozen value a source, complete enough that a check needs nothing else.

A sensor that cannot read raises `SensorError`; it never returns a sample that looks healthy because it is empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodewatch.model.gpu_samples import Gpu as Gpu
from nodewatch.model.gpu_samples import GpuSample as GpuSample


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsgRecord:
    """One record of the kernel log.

    `sequence` is the kernel's own counter and `since_boot_us` its monotonic time in microseconds; both restart at a boot,
    so a record is identified by (boot id, sequence). Both are None where the source is text without them.
    """

    text: str
    sequence: int | None = None
    since_boot_us: int | None = None
    priority: int | None = None
    """syslog level 0 (emergency) to 7 (debug)."""
    stamp: str = ""
    """The wall-clock time as the text spells it, where the source has no time since the boot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KmsgSample:
    """Kernel-log records in order, none of them handed out before in this boot."""

    records: tuple[KmsgRecord, ...]
    garbled: int = 0
    """Lines that are no kernel-log record; they are skipped and counted."""
    recent: tuple[KmsgRecord, ...] = ()
    """The records just before, handed out already: what a line means can depend on one that came seconds earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountProbe:
    """One shared file system, asked for its size by a child process that may hang instead of us."""

    path: str
    is_mounted: bool
    answered: bool
    seconds: float
    """How long the answer took, or how long it has been missing."""
    fs_type: str | None = None
    error: str | None = None
    """What the probe said when it answered with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSample:
    """The shared file systems that the node must have."""

    mounts: tuple[MountProbe, ...]


Sample = object
"""Any frozen dataclass of `nodewatch.model` that a sensor fills in; a check names the one that it reads."""
