"""What is read of the fabric between nodes: NCCL runs, EFA and InfiniBand devices, and what libfabric says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class NcclRow:
    """One message size of one run. A bandwidth is in GB/s and None where that half was not measured."""

    size: int
    out_of_place: float | None = None
    in_place: float | None = None
    wrong: int | None = None
    """Elements with a wrong value, in both halves together; None where the run did not look."""

    @property
    def slower(self) -> float | None:
        """The bus bandwidth of the slower half."""
        measured = [value for value in (self.out_of_place, self.in_place) if value is not None]
        return min(measured) if measured else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NcclRun:
    """One run of an nccl-tests program, from its header to its footer."""

    collective: str = ""
    """`all_reduce`, ..., empty when neither a header nor the table tells."""
    ranks: int | None = None
    hosts: tuple[str, ...] = ()
    """Each host once, in the order of the ranks; empty when no header names them."""
    rows: tuple[NcclRow, ...] = ()
    out_of_bounds: int | None = None
    is_finished: bool = False
    """The footer was written: no row is missing."""
    is_below_asked: bool = False
    """The run was told what average to reach (NCCL_TESTS_MIN_BW), and says that it did not."""
    unreadable: tuple[str, ...] = ()
    """Rows of the table that are no rows."""

    @property
    def largest(self) -> int | None:
        """The largest message size that was measured, in bytes."""
        return max((row.size for row in self.rows), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NcclSample:
    """Runs of nccl-tests, and what went wrong beside their tables. `instance_type` is empty when it is not known."""

    runs: tuple[NcclRun, ...]
    failures: tuple[str, ...] = ()
    """Lines by which a program, NCCL or the launcher says that a run failed."""
    warnings: tuple[str, ...] = ()
    """NCCL WARN lines; a run may end well with some."""
    instance_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricPort:
    """One port as sysfs shows it. A text is empty, a rate None, where the file is missing or says nothing."""

    number: int
    state: str = ""
    """DOWN, INIT, ARMED, ACTIVE."""
    phys_state: str = ""
    """LinkUp, Polling, Disabled, ..."""
    link_layer: str = ""
    rate_gbps: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    """From both `counters` and `hw_counters`."""
    unreadable: tuple[str, ...] = ()
    """Counters whose file is there and holds no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetLink:
    """The network interface of the same PCI function. `operstate` as the kernel words it: up, down, unknown, ..."""

    name: str
    operstate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricDevice:
    """One device under /sys/class/infiniband."""

    name: str
    driver: str = ""
    vendor: str = ""
    """PCI vendor, `0x1d0f`; empty when it was not recorded."""
    model: str = ""
    """What devices of one kind have in common: the board, else the chip, else the PCI device; empty when none was recorded."""
    ports: tuple[FabricPort, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    """Of the device itself (`hw_counters` beside `ports`)."""
    unreadable: tuple[str, ...] = ()
    links: tuple[NetLink, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EfaSample:
    """The EFA devices. `previous` is an earlier reading, `interval_s` seconds before; both are None without one."""

    devices: tuple[FabricDevice, ...]
    expected: int | None = None
    previous: tuple[FabricDevice, ...] | None = None
    """A device that is gone stays in it: what it holds beyond `devices` is gone."""
    interval_s: float | None = None
    """None where `previous` holds only what is gone."""
    settles_in_s: float = 0.0
    """For how long devices that are missing may still come: after a boot some appear late."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IbSample:
    """The InfiniBand and RoCE devices; as `EfaSample`, but no machine type tells how many there should be."""

    devices: tuple[FabricDevice, ...]
    previous: tuple[FabricDevice, ...] | None = None
    interval_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FiEndpoint:
    """One block of fi_info's output."""

    provider: str
    fabric: str = ""
    domain: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FiInfoSample:
    """What fi_info lists, or the error that it ended with. `incomplete` says what is missing from the end of the list."""

    endpoints: tuple[FiEndpoint, ...]
    error: str | None = None
    incomplete: str | None = None
    expected: int | None = None
    """EFA devices that the machine should have; None when it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PingpongRow:
    """One message size of fi_pingpong. `bandwidth` is in MB/s, `latency_us` for one transfer one way."""

    size: int
    bandwidth: float
    latency_us: float
    all_acknowledged: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FiPingpongSample:
    """What fi_pingpong measured, and the errors that it printed. `incomplete` says why the table cannot be relied on."""

    rows: tuple[PingpongRow, ...]
    errors: tuple[str, ...] = ()
    incomplete: str | None = None
