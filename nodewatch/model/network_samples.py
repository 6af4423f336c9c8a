"""What is read of the network interfaces of EC2, and of what a fabric needs of the host: kernel modules, locked memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class EnaInterface:
    """One interface of EC2's network adapter. `allowances` by counter name, since the driver was loaded."""

    name: str
    operstate: str = ""
    """In the kernel's words: up, down, unknown, ...; empty where it cannot be read."""
    allowances: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    """Why it has no counters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnaSample:
    """The ENA interfaces. `previous` is the reading before, `interval_s` seconds ago; both are None without one."""

    interfaces: tuple[EnaInterface, ...]
    previous: tuple[EnaInterface, ...] | None = None
    interval_s: float | None = None
    were_up: frozenset[str] = frozenset()
    """Interfaces that were up at some reading since the agent started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModulesSample:
    """Kernel modules, and the hardware or file system that asks for them."""

    loaded: frozenset[str]
    """Loaded or built in, of those that the agent looks for."""
    installed: frozenset[str]
    """Of those that are not loaded: a file for the running kernel is there."""
    hardware: frozenset[str]
    """nvidia, efa, infiniband (seen on the PCI bus), lustre (mounted at the boot by /etc/fstab)."""
    kernel: str = ""
    uptime_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemlockSample:
    """The limit on locked memory of a daemon, which its children inherit. Bytes; None is no limit."""

    daemon: str
    pid: int
    soft: int | None
    hard: int | None
