"""What can be set in controller.toml, with the defaults; the text below each field is its documentation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from nodewatch.config.cluster import load_cluster_config
from nodewatch.config.groups import checked_groups
from nodewatch.config.load import load
from nodewatch.config.pairs import PairsConfig
from nodewatch.errors import ConfigError
from nodewatch.model.auto_resume import SiteDefault
from nodewatch.policy.progress import HangRules
from nodewatch.policy.rules import Group, Rules

_SLURM_CLIENTS = ("auto", "pyslurm", "commands")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """The controller's configuration. Durations are seconds."""

    cluster: str = ""
    """Written as the tag `nodewatch:cluster` on instances that we launch; with it only instances so tagged are seen."""
    listen_address: str = "0.0.0.0"
    """Where agents report and Prometheus asks."""
    listen_port: int = 9410
    state_dir: Path = Path("/var/lib/nodewatch-controller")
    """The journal and the inbox live here."""
    socket: Path = Path("/run/nodewatch-controller/controller.sock")
    """`nodewatch status` and `nodewatch explain` ask here; anyone on the machine may."""
    slurm_user: str = "slurm"
    """Whose reports are believed beside root's."""
    tick_s: float = 1.0
    """The cluster is looked at so often when nothing is reported; a report is acted on at once."""
    journal_mb: int = 64
    """The journal goes on in a new file, which begins from a snapshot, when it is so large. MB of 2^20 bytes."""
    journal_keep_days: float = 400.0
    """Full files are kept so long, compressed, for `nodewatch history` and `nodewatch replay-journal`."""
    slurmctld_host: str = ""
    """What slurm.conf calls this host in SlurmctldHost; empty: its host name. The controller beside the active one acts."""
    takeover_s: float = 30.0
    """A controller that gave no sign of life for so long is taken over from; one whose process has ended, at once."""
    slurm_deadline_s: float = 10.0
    """A Slurm command that has not answered by then counts as Slurm being unreadable."""
    slurm_client: str = "auto"
    """"pyslurm" or "commands" (scontrol, squeue); "auto": pyslurm where it can be imported and matches the Slurm that runs."""
    ec2_period_s: float = 10.0
    """How long one reading of EC2 serves."""
    agent_port: int = 9411
    """Where a silent node's agent is looked for before the node is called lost."""
    slurmd_port: int = 6818
    """Where a silent node's slurmd is looked for before the node is called lost."""
    policy: Rules = field(default_factory=Rules)
    """Limits, waits and preferences: see policy/rules.py."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    """NCCL between idle nodes: see config/pairs.py."""
    hang: HangRules = field(default_factory=HangRules)
    """Jobs that make no step any more: see policy/progress.py."""
    auto_resume: tuple[SiteDefault, ...] = ()
    """What a job does not say of --auto-resume itself, by partition and account; the first table that is for it counts. Each
    has `partition`, `account`, `value` (such as "3,dir=/fsx/{user}/{job_name}") and `always`: see model/auto_resume.py."""
    groups: tuple[Group, ...] = ()
    """The nodes to look after."""
    cluster_file: Path | None = None
    """Take the groups and the cluster's name from this file, cluster.toml, which `nodewatch cluster` makes true."""

    def __post_init__(self) -> None:
        if self.slurm_client not in _SLURM_CLIENTS:
            raise ValueError(f"slurm_client is {self.slurm_client!r}: use one of {', '.join(_SLURM_CLIENTS)}")
        for name in ("tick_s", "slurm_deadline_s"):
            if not 0.01 <= getattr(self, name) <= 3600:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use a number of seconds from 0.01 to 3600")
        if not 0 <= self.ec2_period_s <= 3600:
            raise ValueError(f"ec2_period_s is {self.ec2_period_s!r}: use a number of seconds from 0 to 3600")
        if not 1 <= self.takeover_s <= 3600:
            raise ValueError(f"takeover_s is {self.takeover_s!r}: use a number of seconds from 1 to 3600")
        if not 1 <= self.journal_mb <= 4096:
            raise ValueError(f"journal_mb is {self.journal_mb!r}: use a number of MB from 1 to 4096")
        if not 0 < self.journal_keep_days <= 36500:
            raise ValueError(f"journal_keep_days is {self.journal_keep_days!r}: use a number of days above 0")
        for name in ("listen_port", "agent_port", "slurmd_port"):
            if not 1 <= getattr(self, name) <= 65535:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use a port from 1 to 65535")

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.state_dir / "journal.jsonl"

    @property
    def inbox(self) -> Path:
        """Where slurmctld's hooks leave their files."""
        return self.state_dir / "inbox"

    @property
    def rules(self) -> Rules:
        """The policy with the groups in it."""
        return dataclasses.replace(self.policy, groups=self.groups)


def load_controller_config(path: Path) -> ControllerConfig:
    """The configuration in `path`. Raises ConfigError with one sentence that says what to change."""
    config = load(ControllerConfig, path)
    if config.policy.groups:
        raise ConfigError(f"{path}: groups stand at the top level, as [[groups]], not under [policy]")
    if config.cluster_file is None:
        return dataclasses.replace(config, groups=checked_groups(config.groups, path))
    if config.groups:
        # Two lists of the same machines would differ one day, and a repair would follow the wrong one.
        raise ConfigError(
            f"{path}: groups stand here and in {config.cluster_file}: keep one, cluster_file or [[groups]]"
        )
    wanted = load_cluster_config(config.cluster_file)
    if config.cluster not in ("", wanted.cluster):
        raise ConfigError(
            f"{path}: cluster is {config.cluster!r}, and {wanted.cluster!r} in {config.cluster_file}: leave it out here"
        )
    return dataclasses.replace(config, cluster=wanted.cluster, groups=wanted.rule_groups)
