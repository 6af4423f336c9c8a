"""What can be set in agent.toml, with the defaults; the text below each field is its documentation."""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nodewatch.checks._api import CheckSpec
from nodewatch.config.deep import DeepConfig
from nodewatch.config.load import build
from nodewatch.errors import ConfigError
from nodewatch.knowledge.instance_types import TABLE, expected_gpus
from nodewatch.model.health import Finding
from nodewatch.policy.maintenance import Window, parse_window, quieted


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """The agent's configuration. Durations are seconds."""

    controller_url: str = ""
    """Where the controller listens, such as `http://head:9410`; empty: nowhere, events stay in the spool."""
    node_name: str = ""
    """The node's name in Slurm; empty: the hostname's first label."""
    instance_type: str = ""
    """The EC2 instance type, such as `p5.48xlarge`; empty: what the firmware says (DMI product name)."""
    expect_host: bool = False
    """Whether memory and processors are held against `instance_type`; otherwise only against a type that the firmware says."""
    gpus: int | None = None
    """How many GPUs the machine should have; left out: by instance type. 0: none, NVML is left alone."""
    efa_devices: int | None = None
    """How many EFA devices the machine was launched with; left out: as many as its instance type takes. 0: none is expected."""
    efa_grace_s: float = 120.0
    """How long after a boot missing EFA devices may still come. AWS's own check of p5en, where they are late, tries again for
    15 s; by then the services of a large instance have been starting for a minute."""
    fabric_deadline_s: float = 10.0
    """EFA, InfiniBand and ENA devices that have not given their counters for this long are unknown."""
    imds_url: str = "http://169.254.169.254"
    """EC2's instance metadata service, which tells of spot interruptions and scheduled events. It is asked on EC2 alone unless
    another address stands here; empty: never."""
    capacity_block_ends: str = ""
    """When the machine's capacity block ends, such as `2026-03-01T11:30:00Z`, since instance metadata does not tell; empty:
    it is in none."""
    instance_id_file: Path = Path("/sys/devices/virtual/dmi/id/board_asset_tag")
    """Holds the EC2 instance id (on Nitro instances the DMI asset tag does)."""
    instance_type_file: Path = Path("/sys/devices/virtual/dmi/id/product_name")
    """Holds the instance type when `instance_type` is empty."""
    instance_types_file: Path = Path("/etc/nodewatch/instance_types.toml")
    """The site's own rows about instance types, as `nodewatch learn` writes them; there need not be one."""
    kmsg: Path = Path("/dev/kmsg")
    """The kernel log: the device, or a FIFO or a regular file that carries records in its format."""
    kmsg_lookback_s: float = 600.0
    """How old a line of the kernel log may be at the first start in a boot; later starts go on where the last one was."""
    boot_id_file: Path = Path("/proc/sys/kernel/random/boot_id")
    """Holds the kernel's boot id; the start of PID 1 is added to it, since containers share the kernel's."""
    shared_filesystems: tuple[str, ...] = ()
    """Mount points that the node must have, such as `["/fsx"]`."""
    filesystem_deadline_s: float = 10.0
    """A shared file system that has not answered for this long is hung."""
    filesystem_maintenance: tuple[str, ...] = ()
    """Weekly windows in which the shared file systems may be away, as FSx writes them (WeeklyMaintenanceStartTime): `d:HH:MM`
    in UTC, 1 being Monday, such as `["2:05:00"]`. What is found of a file system meanwhile is information."""
    filesystem_maintenance_s: float = 1800.0
    """How long such a window is open; FSx's is 30 minutes."""
    hsm_files: tuple[str, ...] = ()
    """Files on Lustre with a linked data repository, such as the newest checkpoint, whose content is watched over."""
    deep_write_probe: bool = True
    """Whether a validation writes, syncs and reads back a small file on each shared file system (root must be allowed to)."""
    systemd_deadline_s: float = 10.0
    """systemd that has not answered for this long is unknown."""
    nvml: str = "auto"
    """`on`, `off`, or `auto`: machines that should have no GPU and show none are left alone."""
    nvml_deadline_s: float = 10.0
    """NVML that has not answered for this long is unknown, and its process is ended."""
    dcgm: str = "auto"
    """`on` (a host engine must run and watch), `off`, or `auto`: asked where dcgmi is installed and a host engine is enabled or
    has answered."""
    dcgm_deadline_s: float = 20.0
    """dcgmi that has not answered for this long is ended."""
    heartbeat_s: float = 2.0
    """How often the controller hears from an agent that has nothing to say."""
    controller_silence_s: float = 60.0
    """How long the controller must have been out of reach before the agent drains its own node for a fatal fault."""
    self_drain: bool = True
    """Whether the agent may drain its own node at all."""
    scontrol: str = "scontrol"
    """The command that drains, by name or path."""
    state_dir: Path = Path("/var/lib/nodewatch")
    """Spool and state live here."""
    spool_max_bytes: int = 4_194_304
    """Bound on the spool; beyond it the oldest events are dropped and counted."""
    socket: Path = Path("/run/nodewatch/agent.sock")
    """Hooks ask here."""
    hook_misses: Path = Path("/run/nodewatch/hook-misses")
    """Hooks that got no answer append a line here."""
    slurm_user: str = "slurm"
    """May ask on the socket beside root."""
    munge_socket: str = ""
    """munged's socket; empty: the library's default."""
    metrics_address: str = "0.0.0.0"
    """Where Prometheus metrics are served."""
    metrics_port: int = 9411
    """0 switches the metrics off."""
    clear_after: int = 2
    """Readings in a row without a finding before it clears."""
    info_ttl_s: float = 3600.0
    """How long information and warnings from the kernel log stand when they are not repeated."""
    validate_timeout_s: float = 60.0
    """A check that has not answered a validation by then is unknown."""
    gpu_reset: tuple[str, ...] = ("nvidia-smi", "--gpu-reset")
    """The command that resets all GPUs of the empty node, when the controller asks; empty: this node's GPUs are not reset."""
    gpu_services: tuple[str, ...] = (
        "nvidia-dcgm.service",
        "nvidia-fabricmanager.service",
        "nvidia-persistenced.service",
    )
    """Services that may hold a GPU: those that run are stopped before a reset and started after it."""
    jobs_dir: Path = Path("/run/nodewatch/jobs")
    """The directories of this node's jobs, a directory by job id: what their programs are told, and their heartbeats."""
    stack_dump: tuple[str, ...] = ("py-spy", "dump", "--nonblocking", "--pid")
    """The command that shows where a process of a job that hangs is; its process id is added. Empty: nobody looks."""
    deep: DeepConfig = field(default_factory=DeepConfig)
    """The long diagnostics of a deep validation: see config/deep.py."""
    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """A table for each check by name: `enabled`, `every_s`, and the check's own thresholds."""

    def __post_init__(self) -> None:
        if self.nvml not in ("on", "off", "auto"):
            raise ValueError(f'nvml is {self.nvml!r}: use "on", "off" or "auto"')
        if self.dcgm not in ("on", "off", "auto"):
            raise ValueError(f'dcgm is {self.dcgm!r}: use "on", "off" or "auto"')
        if self.gpus is not None and not 0 <= self.gpus <= 64:
            raise ValueError(f"gpus is {self.gpus}: use a number from 0 to 64")
        if self.efa_devices is not None and not 0 <= self.efa_devices <= 64:
            raise ValueError(f"efa_devices is {self.efa_devices}: use a number from 0 to 64")
        if not 0 <= self.efa_grace_s < 1e9:
            raise ValueError(f"efa_grace_s is {self.efa_grace_s!r}: use a number of seconds, 0 or more")
        if not 0 <= self.metrics_port <= 65535:
            raise ValueError(f"metrics_port is {self.metrics_port}: use a port from 1 to 65535, or 0 for none")
        if self.clear_after < 1:
            raise ValueError(f"clear_after is {self.clear_after}: use 1 or more")
        if self.spool_max_bytes < 65536:
            raise ValueError(f"spool_max_bytes is {self.spool_max_bytes}: use 65536 or more")
        for name in (
            "filesystem_deadline_s",
            "filesystem_maintenance_s",
            "systemd_deadline_s",
            "nvml_deadline_s",
            "fabric_deadline_s",
            "dcgm_deadline_s",
            "heartbeat_s",
            "kmsg_lookback_s",
            "controller_silence_s",
            "info_ttl_s",
            "validate_timeout_s",
        ):
            if not 0 < getattr(self, name) < 1e9:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use a number of seconds above 0")
        for path in self.shared_filesystems:
            if not path.startswith("/"):
                raise ValueError(f'shared_filesystems holds {path!r}: write the mount point, such as "/fsx"')
        for path in self.hsm_files:
            if not path.startswith("/"):
                raise ValueError(f"hsm_files holds {path!r}: write the whole path of a file")
        windows_of(self)
        if self.controller_url and not _is_http(self.controller_url):
            raise ValueError(f'controller_url is {self.controller_url!r}: write it as "http://HEAD:9410"')
        if self.imds_url and not _is_http(self.imds_url):
            raise ValueError(f'imds_url is {self.imds_url!r}: write it as "http://169.254.169.254", or "" for never')
        if self.capacity_block_ends and not _is_moment(self.capacity_block_ends):
            raise ValueError(
                f"capacity_block_ends is {self.capacity_block_ends!r}: write it with its time zone, as 2026-03-01T11:30:00Z"
            )


def _is_http(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme == "http" and bool(url.hostname) and (url.port or 80) > 0
    except ValueError:
        return False


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def windows_of(config: AgentConfig) -> tuple[Window, ...]:
    """The file systems' maintenance windows. Raises ValueError for one that is none."""
    length_s = config.filesystem_maintenance_s
    return tuple(parse_window(text, length_s=length_s) for text in config.filesystem_maintenance)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How one check is to run."""

    spec: CheckSpec
    every_s: float
    thresholds: Any


def check_settings(
    config: AgentConfig,
    specs: Mapping[str, CheckSpec],
    *,
    where: str = "agent.toml",
    clock: Callable[[], float] = time.time,
) -> Mapping[str, CheckSettings]:
    """The checks that are switched on, with cadence and thresholds from `[checks.<name>]`. Raises ConfigError.

    While a maintenance window of the file systems is open by `clock` (seconds since the epoch), their findings are lowered.
    """
    windows = windows_of(config)
    for name in config.checks:
        if name not in specs:
            near = difflib.get_close_matches(name, specs, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the checks are {', '.join(sorted(specs))}."
            raise ConfigError(f"{where}: checks: there is no check {name!r}; {hint}")
    settings: dict[str, CheckSettings] = {}
    for name, spec in specs.items():
        table = dict(config.checks.get(name, {}))
        place = f"{where}: checks.{name}"
        enabled = table.pop("enabled", True)
        every_s = table.pop("every_s", spec.every_s)
        if not isinstance(enabled, bool):
            raise ConfigError(f"{place}: enabled must be true or false, not {enabled!r}")
        if isinstance(every_s, bool) or not isinstance(every_s, int | float) or not 0 < every_s < 1e6:
            raise ConfigError(f"{place}: every_s must be a number of seconds above 0, not {every_s!r}")
        thresholds = _thresholds(spec, table, place)
        if enabled:
            quiet = _quieted(spec, windows, clock) if windows else spec
            settings[name] = CheckSettings(spec=quiet, every_s=float(every_s), thresholds=thresholds)
    return settings


def _quieted(spec: CheckSpec, windows: Sequence[Window], clock: Callable[[], float]) -> CheckSpec:
    def judge(*arguments: Any) -> Iterable[Finding]:
        return quieted(spec.function(*arguments), windows, clock())

    return dataclasses.replace(spec, function=judge)


def _thresholds(spec: CheckSpec, table: Mapping[str, Any], place: str) -> Any:
    own = [] if spec.thresholds is None else [f.name for f in dataclasses.fields(spec.thresholds)]
    known = ["enabled", "every_s", *own]
    for key in table:
        if key not in own:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the known keys are {', '.join(known)}."
            raise ConfigError(f"{place}: unknown key {key!r}; {hint}")
    return None if spec.thresholds is None else build(spec.thresholds, table, where=place)


def gpus_expected(config: AgentConfig, detected_type: str) -> int | None:
    """How many GPUs the machine should have: as configured, else by the configured type, else by the detected one."""
    if config.gpus is not None:
        return config.gpus
    return expected_gpus(config.instance_type or detected_type)


def neuron_expected(config: AgentConfig, detected_type: str) -> int | None:
    """How many Neuron devices the machine should have, by its instance type; None: not known."""
    row = TABLE.get(config.instance_type or detected_type)
    return None if row is None else row.neuron_devices


def nvlinks_expected(config: AgentConfig, detected_type: str) -> int | None:
    """How many NVLinks each GPU should have, by the configured instance type, else by the detected one; None: not known."""
    row = TABLE.get(config.instance_type or detected_type)
    return None if row is None or not row.gpus else row.nvlinks_per_gpu


def efa_expected(config: AgentConfig, detected_type: str) -> int | None:
    """How many EFA devices the machine should have, as `gpus_expected`; None: not known, or none need be there."""
    if config.efa_devices is not None:
        return config.efa_devices
    row = TABLE.get(config.instance_type or detected_type)
    return None if row is None else row.efa_devices


def warnings_of(config: AgentConfig) -> tuple[str, ...]:
    """What is allowed and probably not meant, one sentence each."""
    found = []
    if config.instance_type and config.gpus is None and config.instance_type not in TABLE:
        near = difflib.get_close_matches(config.instance_type, TABLE, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        found.append(
            f"instance_type {config.instance_type!r} is in no table: {hint}set gpus to the number of GPUs it has"
        )
    if not config.controller_url:
        found.append('controller_url is empty: nobody hears of this node\'s faults, set it to "http://HEAD:9410"')
    return tuple(found)
