"""What goes wrong in a simulated cluster, and how often: each rate with its source. A TOML file may change every one of them.

Rates are per GPU node (8 GPUs) and day. Llama 3 (arXiv 2407.21783, section 3.3.4) saw 419 unexpected interruptions in 54 days
on 2,048 nodes: 3.8 in a thousand node-days. Meta's RSC clusters (arXiv 2410.21680) saw 6.5 and 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nodewatch.config.load import load
from nodewatch.model.health import Severity, remedy_of, severity_of

_LLAMA_NODE_DAYS = 2048 * 54.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """One kind of fault of single nodes."""

    fault: str
    """As a check names it; `node.lost` is a machine that stops dead, `program` a job that fails of itself."""
    per_node_day: float
    source: str
    severity: str = "fatal"
    remedy: str = "replace"
    reset_cures: float = 0.0
    """The share of such faults that a GPU reset cures."""
    reboot_cures: float = 0.0
    lasts_s: float = 0.0
    """It goes away by itself after so long; 0: never."""
    fails_job: float = 0.9
    """The share of fatal ones of which a job dies at once; the others hang until something ends them."""

    def __post_init__(self) -> None:
        severity_of(self.severity)
        remedy_of(self.remedy)
        if self.per_node_day < 0:
            raise ValueError(f"per_node_day of {self.fault!r} must not be negative")

    @property
    def is_actionable(self) -> bool:
        """Whether a node may be taken out for it."""
        return severity_of(self.severity) >= Severity.DEGRADED


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """One cause that shows on many nodes."""

    fault: str
    """`switch` cuts nodes off; anything else is what their checks report."""
    per_month: float
    """How often in 30 days."""
    share: float
    """Of the nodes, neighbours by name."""
    spread_s: float
    """From the first node that shows it to the last."""
    lasts_s: float
    severity: str = "degraded"
    remedy: str = "human"
    source: str = "assumed"


_KINDS = (
    FaultKind(
        fault="gpu.lost",
        per_node_day=148 / _LLAMA_NODE_DAYS,
        source="Llama 3: faulty GPU, 148 of 419",
        reboot_cures=0.1,
    ),
    FaultKind(
        fault="gpu.ecc",
        per_node_day=(72 + 19) / _LLAMA_NODE_DAYS,
        source="Llama 3: HBM3 72 and SRAM 19 of 419",
        remedy="reset_gpu",
        reset_cures=0.7,
        reboot_cures=0.5,
    ),
    FaultKind(
        fault="gpu.gsp",
        per_node_day=17 / _LLAMA_NODE_DAYS,
        source="Llama 3: GPU system processor, 17 of 419",
        remedy="reboot",
        reboot_cures=0.8,
    ),
    FaultKind(
        fault="efa.port_down",
        per_node_day=35 / _LLAMA_NODE_DAYS,
        source="Llama 3: network switch or cable, 35 of 419",
        severity="degraded",
        remedy="reboot",
        reboot_cures=0.5,
    ),
    FaultKind(fault="node.lost", per_node_day=0.0008, source="TPU v4: 0.08 % of machines a day", fails_job=0.0),
    FaultKind(
        fault="program",
        per_node_day=54 / _LLAMA_NODE_DAYS,
        source="Llama 3: software, 54 of 419",
        severity="info",
        remedy="restart_app",
    ),
    FaultKind(
        fault="gpu.thermal",
        per_node_day=0.84 / 63,
        source="Lablup: 0.84 false positives a day on 63 nodes (arXiv 2605.09370), here as warnings",
        severity="warn",
        remedy="none",
        lasts_s=600.0,
    ),
    FaultKind(
        fault="disk.slow",
        per_node_day=0.0005,
        source="assumed: impaired for twenty minutes and well again by itself",
        severity="degraded",
        remedy="human",
        lasts_s=1200.0,
    ),
)

_STORMS = (
    Storm(fault="switch", per_month=2.0, share=0.01, spread_s=2.0, lasts_s=900.0, severity="fatal", source="assumed"),
    Storm(fault="filesystem.hung", per_month=2.0, share=1.0, spread_s=60.0, lasts_s=1800.0, source="assumed"),
    Storm(
        fault="gpu.driver",
        per_month=1.0,
        share=0.25,
        spread_s=300.0,
        lasts_s=3600.0,
        remedy="reboot",
        source="assumed: a driver roll-out after which a check fails wherever it has been",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultMix:
    """Everything that goes wrong. Times are seconds."""

    kinds: tuple[FaultKind, ...] = _KINDS
    storms: tuple[Storm, ...] = _STORMS
    lemon_share: float = 0.01
    """Of the machines. RSC found 40 lemon nodes in some 3,000."""
    lemon_factor: float = 20.0
    """A lemon fails so much more often: 3 of 63 nodes were behind more than half of all exclusions (arXiv 2605.09370)."""
    bad_replacements: float = 0.03
    """New machines whose deep checks fail. SuperBench (arXiv 2402.06194) found 10 % of nodes defective before any test; a
    provider's have passed some."""
    operator_drains_per_node_day: float = 0.0003
    """Drained by hand for something of the operators' own; assumed."""
    refusals_per_month: float = 4.0
    """How often EC2 has no capacity; assumed."""
    refusal_s: float = 10800.0
    marked_share: float = 0.6
    """Of the jobs, submitted with --auto-resume."""
    requeueable_share: float = 0.3
    """Of the others, those that Slurm may put back into the queue."""
    job_s: float = 86400.0
    """The mean length of a job."""
    boot_s: float = 600.0
    """From a launch to the agent. With the deep checks a replacement takes 20 to 30 min, as HyperPod's (field notes 6.3)."""
    reboot_s: float = 180.0
    """HyperPod's reboots take 1 to 3 min (AWS's description of its resilience)."""
    deep_s: float = 900.0
    """The deep checks."""
    human_s: float = 28800.0
    """Until a human has dealt with a node that waits for one; assumed: the next shift."""


def load_fault_mix(path: Path) -> FaultMix:
    """The mix in a TOML file; what it does not name keeps its default. Raises ConfigError."""
    return load(FaultMix, path)
