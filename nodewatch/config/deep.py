"""What can be set under [deep] of agent.toml: the long diagnostics; the text below each field is its documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODES = ("auto", "on", "off")
TOOLS = ("dcgm", "nccl", "fi_info", "fi_pingpong", "cpu", "memory", "disk")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepConfig:
    """Each diagnostic is `auto` (run where its hardware is there and its tool is installed), `on` (run; what is missing makes
    the validation unknown) or `off`. Durations and deadlines are seconds."""

    dcgm: str = "auto"
    """`dcgmi diag`."""
    nccl: str = "auto"
    """`all_reduce_perf` on all GPUs of the node."""
    fi_info: str = "auto"
    """Whether libfabric offers the EFA devices."""
    fi_pingpong: str = "auto"
    """A ping-pong of the node with itself over each EFA device."""
    cpu: str = "auto"
    """stress-ng on all processors, with verification."""
    memory: str = "auto"
    """stress-ng on a share of the memory, with verification."""
    disk: str = "auto"
    """A file written, synced and read back in each of `disk_directories`."""

    lock: Path = Path("/run/nodewatch/deep.lock")
    """Held while a diagnostic runs, so that there are never two on a node."""
    own_scope: bool = True
    """Whether each tool runs in a systemd scope of its own: the agent's service has too little memory for them."""

    dcgmi: str = "dcgmi"
    """The command, by name or path; for this and the others name a path on a local disk."""
    dcgm_level: int = 2
    """1 (seconds), 2 (about 2 minutes), 3 (about 15 minutes) or 4 (1 to 2 hours)."""
    dcgm_deadline_s: float = 0.0
    """0: by level 300, 900, 3600 or 10800 s, several times what each usually takes."""

    all_reduce_perf: str = "all_reduce_perf"
    """The command of nccl-tests; /opt/nccl-tests/build is searched after PATH."""
    nccl_environment: Mapping[str, str] = field(default_factory=dict)
    """Added to its environment, such as `{ LD_LIBRARY_PATH = "/opt/nccl/build/lib" }`."""
    nccl_stuck_after_s: int = 60
    """A collective that takes this long hangs, the tool says so itself; 20 of 16 GiB take a p5 1 to 2 s."""
    nccl_deadline_s: float = 600.0

    fi_info_command: str = "fi_info"
    """The command; /opt/amazon/efa/bin is searched after PATH."""
    fi_pingpong_command: str = "fi_pingpong"
    """The command, as for fi_info."""
    fi_pingpong_devices: int = 32
    """How many devices are tried at most."""
    fi_pingpong_iterations: int = 100
    """Messages of each size."""
    fi_pingpong_port: int = 47592
    """TCP port on 127.0.0.1 over which the two ends find each other; 47592 is the tool's own."""
    fi_pingpong_each_s: float = 30.0
    """Deadline of one device: one takes 1 to 3 s."""
    fabric_deadline_s: float = 1200.0

    stress_ng: str = "stress-ng"
    """The command."""
    cpu_method: str = "all"
    """What the processors compute, one of stress-ng's `--cpu-method`."""
    cpu_seconds: int = 30
    memory_method: str = "all"
    """How memory is tested, one of stress-ng's `--vm-method`."""
    memory_seconds: int = 60
    memory_share: float = 0.5
    """Of the memory that is available when the test begins."""
    memory_max_mib: int = 0
    """Upper bound of that; 0: none."""

    disk_directories: tuple[str, ...] = ()
    """Directories on local disks, such as `["/opt/dlami/nvme"]`; never one on a shared file system."""
    disk_mib: int = 1024
    """Size of the file."""
    disk_deadline_s: float = 300.0

    def __post_init__(self) -> None:
        for name in TOOLS:
            if getattr(self, name) not in MODES:
                raise ValueError(f'{name} is {getattr(self, name)!r}: use "auto", "on" or "off"')
        if not 1 <= self.dcgm_level <= 4:
            raise ValueError(f"dcgm_level is {self.dcgm_level}: use 1, 2, 3 or 4")
        if not (self.dcgm_deadline_s == 0 or 1 <= self.dcgm_deadline_s <= 86400):
            raise ValueError(
                f"dcgm_deadline_s is {self.dcgm_deadline_s!r}: use 1 to 86400 seconds, or 0 for the level's own"
            )
        for name, least, most in (
            ("nccl_stuck_after_s", 1, 3600),
            ("nccl_deadline_s", 1, 86400),
            ("fi_pingpong_each_s", 1, 3600),
            ("fabric_deadline_s", 1, 86400),
            ("cpu_seconds", 1, 86400),
            ("memory_seconds", 1, 86400),
            ("disk_deadline_s", 1, 86400),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use {least} to {most} seconds")
        for name, least, most in (
            ("fi_pingpong_devices", 1, 64),
            ("fi_pingpong_iterations", 1, 1_000_000),
            ("fi_pingpong_port", 1, 65535),
            ("memory_max_mib", 0, 1 << 24),
            ("disk_mib", 1, 1 << 20),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}: use a number from {least} to {most}")
        if not 0 < self.memory_share <= 0.9:
            raise ValueError(f"memory_share is {self.memory_share!r}: use a share above 0 and not above 0.9")
        for name in ("dcgmi", "all_reduce_perf", "fi_info_command", "fi_pingpong_command", "stress_ng"):
            if not getattr(self, name):
                raise ValueError(f'{name} is empty: name the command, or set its diagnostic to "off"')
        for path in self.disk_directories:
            if not path.startswith("/"):
                raise ValueError(f'disk_directories holds {path!r}: write a whole path, such as "/opt/dlami/nvme"')
