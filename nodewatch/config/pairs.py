"""What can be set under [pairs] of controller.toml: NCCL between idle nodes; the text below each field is its documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nodewatch.clients.nccl_pair import DEFAULT_COMMAND, PLACEHOLDERS, unknown_placeholders


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsConfig:
    """Each run takes two idle nodes of one group as a job of SlurmUser. Durations are seconds."""

    command: tuple[str, ...] = DEFAULT_COMMAND
    """The whole command line. Placeholders: {nodes}, {tasks} and {gpus} (of one node), {name}, {immediate}, {minutes},
    {partition}, {mpi}, {program}, {begin}, {end}, {stuck}; {extra} alone stands for `extra`. A word with an empty one is
    left out. It has to print the table of nccl-tests, keep the job's name and give way to SIGTERM."""
    program: str = "all_reduce_perf"
    """nccl-tests built with MPI, by name or path on the nodes."""
    mpi: str = "pmix"
    """How srun starts the ranks (`srun --mpi=list`); empty: what slurm.conf's MpiDefault says."""
    partition: str = ""
    """Where the runs are submitted; empty: the group's partition."""
    extra: tuple[str, ...] = ()
    """More words for salloc, such as `["--account=ops", "--qos=healthcheck"]`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the program needs, such as `{ LD_LIBRARY_PATH = "/opt/nccl/build/lib", FI_PROVIDER = "efa" }`. Of the controller's
    own environment only PATH, HOME, LANG, LC_ALL and SLURM_CONF are passed on."""
    gpus_per_node: int = 0
    """0: by the group's instance_type."""
    begin_bytes: int = 0
    """Smallest message; 0: the smallest that a floor is known for, else 8 MiB."""
    end_bytes: int = 0
    """Largest message; 0: the largest that a floor is known for, else 1 GiB."""
    floor_gbps: float = 0.0
    """All-reduce bus bandwidth that two nodes must reach at the largest size; 0: by the group's instance_type
    (knowledge/efa.toml). Where neither is known a run proves nothing: there is no floor to hold it against."""
    immediate_s: int = 10
    """Nodes that are not to be had by then are somebody's: the pair is tried again later."""
    stuck_after_s: int = 60
    """A collective that takes this long hangs."""
    deadline_s: float = 600.0
    """One run, from its submission to its end."""
    at_once: int = 4
    """Pairs that run at the same time."""
    expires_s: float = 21600.0
    """A test whose nodes do not become idle is judged by then, by what could be run."""
    sweep_every_s: float = 0.0
    """All idle nodes are tested so often; 0: only when asked for."""

    def __post_init__(self) -> None:
        unknown = unknown_placeholders(self.command)
        if unknown:
            raise ValueError(
                f"command has the placeholder {{{unknown[0]}}}, which is none: use {', '.join(sorted(PLACEHOLDERS))}"
            )
        if not self.command or not any("{nodes}" in word for word in self.command):
            raise ValueError("command does not say {nodes}: it would run anywhere")
        for name, least, most in (
            ("deadline_s", 1, 86400),
            ("expires_s", 1, 2592000),
            ("immediate_s", 1, 3600),
            ("stuck_after_s", 1, 3600),
            ("at_once", 1, 1000),
            ("gpus_per_node", 0, 64),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use a number from {least} to {most}")
        if 0 < self.sweep_every_s < 3600 or self.sweep_every_s < 0:
            raise ValueError(f"sweep_every_s is {self.sweep_every_s!r}: use at least 3600 seconds, or 0 for never")
        if self.floor_gbps < 0:
            raise ValueError(f"floor_gbps is {self.floor_gbps!r}: use GB/s above 0, or 0 for the table's")
        if self.begin_bytes < 0 or self.end_bytes < 0 or 0 < self.end_bytes < self.begin_bytes:
            raise ValueError("begin_bytes and end_bytes must not be negative, and the end not below the begin")
