"""What is known of the GPUs: as NVML or nvidia-smi describe them, and as DCGM judged them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EccCounts:
    """ECC errors since the driver was loaded or the GPU reset (volatile), or in the GPU's life (aggregate).

    `uncorrectable` and `correctable` are totals; the parts are None where the driver's generation does not tell them apart.
    """

    correctable: int | None = None
    uncorrectable: int | None = None
    sram_uncorrectable: int | None = None
    dram_uncorrectable: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A program that the driver lists on a GPU."""

    pid: int
    owner: str
    """job (of Slurm's, which is on this node), ended_job (which is not any more), agent (a test of ours), other, gone (it
    ended, and the driver still lists it), or unknown."""
    name: str = ""
    uid: int | None = None
    started: int | None = None
    """Clock ticks from the boot to its start: with `pid` it names one process and no later one."""
    age_s: float | None = None
    job: str | None = None
    used_mib: int | None = None
    """Memory of this GPU that it holds; None where the driver does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as NVML describes it. A value is None where the device, or its driver's generation, does not offer it."""

    index: int
    uuid: str
    pci_bus_id: str
    serial: str | None = None
    name: str | None = None
    is_lost: bool = False
    """NVML answered NVML_ERROR_GPU_IS_LOST: it has fallen off the bus or is otherwise inaccessible."""
    lost_because: str | None = None
    """The tool's own words where it is no plain GPU_IS_LOST."""
    failed_fields: tuple[str, ...] = ()
    """What the driver failed to read (Unknown Error, ERR!), which is something else than not offering it."""

    remap_pending: bool | None = None
    remap_failed: bool | None = None
    remapped_correctable: int | None = None
    remapped_uncorrectable: int | None = None
    remap_banks: tuple[int, int, int, int, int] | None = None
    """Banks by the spare rows they have left: all, most, some, few, none."""
    retired_single_bit: int | None = None
    retired_double_bit: int | None = None
    retirement_pending: bool | None = None

    ecc_enabled: bool | None = None
    ecc_volatile: EccCounts | None = None
    ecc_aggregate: EccCounts | None = None
    sram_threshold_exceeded: bool | None = None
    repair_pending: bool | None = None
    """A channel or TPC repair was recorded and takes effect at the next reset."""

    temperature_c: int | None = None
    temperature_margin_c: int | None = None
    """Degrees below the limit at which the GPU slows down (T.Limit), on devices that tell no absolute limits."""
    slowdown_at_c: int | None = None
    shutdown_at_c: int | None = None
    slowdown_margin_c: int | None = None
    """The T.Limit value at which the hardware slows down; 0 or negative."""
    shutdown_margin_c: int | None = None
    memory_temperature_c: int | None = None
    memory_max_c: int | None = None

    clock_reasons: frozenset[str] | None = None
    """Why the clocks are below their maximum: idle, sw_power_cap, hw_slowdown, hw_thermal, hw_power_brake, sw_thermal, ..."""
    hw_thermal_us: int | None = None
    """Microseconds in hardware thermal slowdown since the driver was loaded."""
    hw_power_brake_us: int | None = None
    performance_state: int | None = None
    utilization_percent: int | None = None

    pcie_generation: int | None = None
    pcie_generation_max: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    pcie_replays: int | None = None

    nvlinks_active: int | None = None
    nvlinks_inactive: tuple[int, ...] = ()
    nvlink_crc_errors: int | None = None
    nvlink_replays: int | None = None
    nvlink_recoveries: int | None = None
    fabric_state: str | None = None
    """completed, in_progress or not_started, on GPUs that a fabric manager has to set up; None elsewhere."""
    fabric_status: str | None = None
    """success, or the tool's own words for another outcome."""
    fabric_faults: tuple[str, ...] = ()
    """What the fabric's own health summary says is wrong."""

    recovery_action: str | None = None
    """none, gpu_reset, node_reboot, drain_p2p or drain_and_reset; any other word as it was given."""
    persistence: bool | None = None
    mig_enabled: bool | None = None
    mig_pending: bool | None = None
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    """Without what the driver keeps for itself."""
    processes: tuple[GpuProcess, ...] | None = None
    """None where the driver does not list them. They, and the memory in use, were read at most half a minute before."""
    job_on_node: bool | None = None
    """Whether Slurm had a job on this node then; None where that was not looked for."""
    inforom_corrupt: bool | None = None

    @property
    def subject(self) -> str:
        """The GPU's name in findings: as stable over time as what is known of it allows."""
        return self.uuid or self.pci_bus_id or f"gpu-{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """All GPUs that the driver knows, and how many the machine should have (None: not known)."""

    gpus: tuple[Gpu, ...]
    driver_version: str | None = None
    expected: int | None = None
    unreadable: tuple[tuple[int, str], ...] = ()
    """(index, why) for each device that is counted and cannot be described for another reason than being lost."""
    source: str = "NVML"
    partial: str | None = None
    """Why this is not the whole picture; None when it is. Nothing missing from a partial sample is a fault."""
    version_mismatch: str | None = None
    """The tool's words when the library and the loaded kernel module are of different releases."""
    nvlinks_expected: int | None = None
    """NVLinks that each GPU of this instance type has; None: not known."""
    previous: GpuSample | None = None
    """An earlier reading of the same machine: counters are judged by their rate then."""
    interval_s: float | None = None
    """Seconds since `previous`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmError:
    """One error or warning in a DCGM result. The numbers are DCGM's own, None where its release does not give them."""

    text: str
    error_id: int | None = None
    category: int | None = None
    severity: int | None = None
    gpu: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmResult:
    """How one test ended on some entities. `status` is pass, fail, warn, skip, or unknown for any other word."""

    test: str
    category: str
    status: str
    said: str = ""
    """The status in the tool's own word."""
    group: str = "GPU"
    ids: tuple[int, ...] = ()
    """DCGM's numbers of the entities; empty for a result about the machine or the test as a whole."""
    errors: tuple[DcgmError, ...] = ()
    is_summary: bool = False
    """A line over all entities of a test, given beside or in place of results of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmDiagSample:
    """One run of `dcgmi diag`. `serials` holds (entity group, entity id, serial number) where DCGM gives them."""

    results: tuple[DcgmResult, ...]
    version: str | None = None
    driver_version: str | None = None
    runtime_error: str | None = None
    serials: tuple[tuple[str, int, str], ...] = ()

    def serial_of(self, group: str, entity: int) -> str | None:
        """The serial number of one entity, None when DCGM did not give it."""
        for known_group, known_id, serial in self.serials:
            if known_id == entity and known_group.lower() == group.lower():
                return serial
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmIncident:
    """One entry of a DCGM health report. `health` is healthy, warning, failure, or unknown for any other word."""

    group: str
    entity: int | None
    system: str
    health: str
    text: str = ""
    error_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmHealthSample:
    """One `dcgmi health` report. `watches` is empty where the report does not say what is watched."""

    overall: str
    incidents: tuple[DcgmIncident, ...] = ()
    watches: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmEngineSample:
    """DCGM's host engine, and the releases that have to fit together; a release is None where it was not told."""

    is_answering: bool
    said: str = ""
    """Why it does not answer."""
    version: str | None = None
    """Of dcgmi, and so of the package that is installed."""
    engine_version: str | None = None
    driver_version: str | None = None
