"""Who this process is among the ranks, told by torchrun or by srun. Standard library and torch.device; no scontrol."""

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import torch

from nodewatch_train.manifest import RefusedError

_FIRST_HOST = re.compile(r"([^,\[]+)(?:\[([0-9]+)[^\]]*\]([^,\[]*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One rank's place. `restart` counts the lives of the job before this one; `master` is where rank 0 listens."""

    rank: int
    world_size: int
    local_rank: int
    restart: int
    master: tuple[str, int]
    device: torch.device

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, gpus: int) -> "Launch":
        """Read torchrun's variables where they are set, else srun's; without either, a single process.

        gpus: how many this process sees; none means the CPU. Raises RefusedError for a variable that is no number, or
        for a rank outside the world.
        """
        rank = _number(environment, "RANK", "SLURM_PROCID", default=0)
        world_size = _number(environment, "WORLD_SIZE", "SLURM_NTASKS", default=1)
        if "RANK" not in environment and "SLURM_PROCID" not in environment:
            world_size = 1  # inside a batch script but not under srun: SLURM_NTASKS speaks of tasks that nobody started
        if rank >= world_size:
            raise RefusedError(f"rank {rank} of {world_size} ranks: RANK and WORLD_SIZE, or srun's own, contradict")
        local_rank = _number(environment, "LOCAL_RANK", "SLURM_LOCALID", default=0)
        restart = _number(environment, "SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT", default=0)
        # With one GPU bound to each task (--gpus-per-task) every rank sees its own as number 0.
        device = torch.device("cuda", local_rank % gpus) if gpus else torch.device("cpu")
        host = environment.get("MASTER_ADDR") or first_host(
            environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "localhost"
        )
        # A single process meets nobody: any free port (0), so that two of them can run side by side.
        derived = master_port(_number(environment, "SLURM_JOB_ID"), restart) if world_size > 1 else 0
        port = _number(environment, "MASTER_PORT", default=derived)
        return cls(
            rank=rank,
            world_size=world_size,
            local_rank=local_rank,
            restart=restart,
            master=(host, port),
            device=device,
        )

    def export(self, environment: MutableMapping[str, str]) -> None:
        """Set the variables that torch.distributed's `env://` rendezvous reads."""
        environment.update(
            RANK=str(self.rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_RANK=str(self.local_rank),
            MASTER_ADDR=self.master[0],
            MASTER_PORT=str(self.master[1]),
        )


def first_host(nodelist: str) -> str:
    """The first node of a Slurm host list: n1 of `n[1-3,7]`."""
    match = _FIRST_HOST.match(nodelist)
    if match is None:
        raise RefusedError(f"cannot find a host name in the node list {nodelist!r}: set MASTER_ADDR")
    return match[1] + (match[2] or "") + (match[3] or "")


def master_port(job_id: int, restart: int) -> int:
    """A port that differs between jobs and between the lives of one job, below Linux's ephemeral ports.

    A socket of the job's last life may still be in TIME_WAIT, or held by a rank that has not died yet.
    """
    return 20_000 + (job_id * 64 + restart) % 12_000


def _number(environment: Mapping[str, str], *names: str, default: int = 0) -> int:
    for name in names:
        if text := environment.get(name):
            if not text.isdecimal():
                raise RefusedError(f"the environment variable {name} is {text!r}, and should be a whole number")
            return int(text)
    return default
