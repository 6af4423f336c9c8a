"""Pair runs in memory: what all_reduce_perf would print of two nodes, with a job in the fake Slurm while they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from nodewatch.controller.pair_results import PairEnded
from nodewatch.model.cluster import SlurmJob
from nodewatch.model.pairs import JOB_NAME
from nodewatch.policy.rules import Group
from nodewatch.testing.slurm import FakeSlurm

_GPUS = 8
_SIZES = (1 << 27, 1 << 30, 1 << 31, 1 << 32, 1 << 34)
FAST_GBPS = (160.0, 437.0, 444.0, 466.0, 487.0)
"""What two p5 reach at the sizes above, the first rounded up from what is published (field notes 3.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Going:
    job_id: int
    ends_at: float
    cancelled: str = ""


class FakePairs:
    """See controller.pair_tests.PairRunner. Each run takes `takes_s`; nodes in `slow` and pairs in `slow_paths` are slow."""

    def __init__(self, clock: Callable[[], float], slurm: FakeSlurm) -> None:
        self._clock = clock
        self._slurm = slurm
        self._going: dict[tuple[str, str], _Going] = {}
        self.takes_s = 20.0
        self.slow: set[str] = set()
        self.slow_paths: set[frozenset[str]] = set()
        self.began: list[tuple[str, str]] = []
        """The pairs that were begun, in order."""

    def begin(self, nodes: tuple[str, str], group: Group) -> None:
        """See PairRunner."""
        self.began.append(nodes)
        job_id = self._slurm.submit(2)
        waiting = self._slurm.job_table[job_id]
        self._slurm.job_table[job_id] = dataclasses.replace(
            waiting,
            states=frozenset({"RUNNING"}),
            nodes=nodes,
            name=JOB_NAME,
            user="slurm",
            partition=group.partition,
            started_at=self._clock(),
        )
        for name in nodes:
            node = self._slurm.node_table[name]
            assert node.is_idle, f"a pair test was begun on {name}, which is {sorted(node.states)}"
            self._slurm.node_table[name] = dataclasses.replace(node, states=(node.states - {"IDLE"}) | {"ALLOCATED"})
        self._going[nodes] = _Going(job_id=job_id, ends_at=self._clock() + self.takes_s)

    def ended(self) -> list[PairEnded]:
        """See PairRunner."""
        told = []
        for nodes, going in list(self._going.items()):
            if going.cancelled or self._clock() >= going.ends_at:
                del self._going[nodes]
                self._end(going)
                is_slow = bool(self.slow & set(nodes)) or frozenset(nodes) in self.slow_paths
                text = "" if going.cancelled else table(nodes, share=0.3 if is_slow else 1.0)
                told.append(PairEnded(nodes=nodes, text=text, returncode=0, cancelled=going.cancelled))
        return told

    def cancel(self, nodes: tuple[str, str], why: str) -> None:
        """See PairRunner."""
        self._going[nodes] = dataclasses.replace(self._going[nodes], cancelled=why)

    def clear(self) -> None:
        """See PairRunner."""
        self._going.clear()
        for job in list(self._slurm.job_table.values()):
            if job.name == JOB_NAME and job.is_active:
                self._slurm.end_job(job.job_id, "CANCELLED", 0)

    def jobs(self) -> list[SlurmJob]:
        """The pair tests that run now."""
        return [job for job in self._slurm.job_table.values() if job.name == JOB_NAME and job.is_active]

    def _end(self, going: _Going) -> None:
        job = self._slurm.job_table[going.job_id]
        if job.is_running:
            self._slurm.end_job(job.job_id, "CANCELLED" if going.cancelled else "COMPLETED", 0)


def table(hosts: tuple[str, ...], *, share: float = 1.0, wrong: int = 0) -> str:
    """The standard output of all_reduce_perf on `hosts` of eight GPUs, at `share` of what two p5 reach."""
    ranks = [(rank, host) for rank, host in enumerate(host for host in hosts for _ in range(_GPUS))]
    lines = [
        "# nccl-tests version 2.17.1 nccl-headers=22703 nccl-library=22703",
        "# Collective test starting: all_reduce_perf",
        "# nThread 1 nGpus 1 minBytes 134217728 maxBytes 17179869184 step: 2(factor) warmup iters: 1 iters: 20",
        "# Using devices",
        *(
            f"#  Rank {rank:2d} Group  0 Pid {4000 + rank} on {host:>10s} device {rank % _GPUS:2d} [0000:53:00] NVIDIA H100"
            for rank, host in ranks
        ),
        "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong",
    ]
    for size, speed in zip(_SIZES, FAST_GBPS, strict=True):
        busbw = speed * share
        algbw = busbw * len(ranks) / (2 * (len(ranks) - 1))
        half = f"{size / (algbw * 1e3):9.1f} {algbw:7.2f} {busbw:7.2f} {wrong:6d}"
        lines.append(f"{size:12d} {size // 4:13d}     float     sum      -1 {half} {half}")
    lines += [
        f"# Out of bounds values : {wrong * 2 * len(_SIZES)} {'FAILED' if wrong else 'OK'}",
        f"# Avg bus bandwidth    : {sum(FAST_GBPS) * share / len(FAST_GBPS):g}",
        "# Collective test concluded: all_reduce_perf",
    ]
    return "\n".join(lines) + "\n"
