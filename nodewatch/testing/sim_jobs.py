"""The jobs of a simulated cluster: as many wait or run at all times, and one that was interrupted goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable

from nodewatch.model.cluster import SlurmJob
from nodewatch.testing.sim_stage import Stage

_SIZES = ((1, 55), (2, 15), (4, 12), (8, 10), (16, 5), (32, 2.5), (64, 0.5))
"""Nodes of a job and how many of a hundred jobs are so large; most are small (RSC, arXiv 2410.21680). Four on average."""


class Jobs:
    """See the module."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.is_broken: Callable[[str], bool] = lambda _node: False
        """Whether a job that starts on a node dies."""
        self._marks: dict[int, str | None] = {}
        self._left_s: dict[int, float] = {}
        self._hit_at: dict[int, float] = {}
        self._next_job = 1

    def hit(self, job_id: int) -> None:
        """A fault came over one of its nodes."""
        self._hit_at.setdefault(job_id, self._stage.agenda.now)

    def submit(self) -> None:
        """One more job of a random size."""
        job_id = self._next_job
        self._next_job += 1
        size = self._stage.chance.choices([n for n, _ in _SIZES], [weight for _, weight in _SIZES])[0]
        size = min(size, max(1, len(self._stage.names) // 8))
        is_marked = self._stage.chance.random() < self._stage.mix.marked_share
        self._marks[job_id] = "20" if is_marked else None
        self._left_s[job_id] = max(600.0, self._stage.chance.expovariate(1 / self._stage.mix.job_s))
        job = SlurmJob(
            job_id=job_id,
            states=frozenset({"PENDING"}),
            partition=self._stage.rules.groups[0].partition,
            user="ada",
            priority=1000,
            may_requeue=not is_marked and self._stage.chance.random() < self._stage.mix.requeueable_share,
        )
        self._stage.slurm.submit(job, size)

    def start(self) -> None:
        """Slurm starts what fits."""
        if not self._stage.slurm.pending:
            return
        for job in self._stage.slurm.schedule():
            hook = {"job_id": job.job_id, "restart_count": job.restart_count, "node_names": list(job.nodes)}
            self._stage.note(
                "job_started", {**hook, "auto_resume": self._marks[job.job_id], "partition": job.partition}
            )
            run = (job.job_id, job.restart_count)
            self._stage.agenda.later(self._left_s[job.job_id], lambda run=run: self._job_ends(*run))  # type: ignore[misc]
            hit = self._hit_at.pop(job.job_id, None)
            if hit is not None and job.restart_count > 0:
                self._stage.tally.job_back(self._stage.agenda.now - hit)
            for node in job.nodes:
                if self.is_broken(node):
                    restart = job.restart_count
                    self._stage.agenda.later(10.0, lambda job=job, restart=restart: self.fails(job.job_id, restart))  # type: ignore[misc]
                    break

    def _job_ends(self, job_id: int, restart: int) -> bool:
        job = self._stage.slurm.job_table.get(job_id)
        if job is None or not job.is_running or job.restart_count != restart:
            return False
        return self._ended(self._stage.slurm.end(job_id, "COMPLETED"), "0:0")

    def fails(self, job_id: int, restart: int) -> bool:
        """The program of a run fails, if that run still goes on; whether it did."""
        job = self._stage.slurm.job_table.get(job_id)
        if job is None or not job.is_running or job.restart_count != restart:
            return False
        self._stage.tally.failed_jobs += 1
        self._progressed(job)
        self._ended(self._stage.slurm.end(job_id, "FAILED", 1), "1:0")
        self._stage.agenda.later(self._stage.rules.attribution_wait_s + 0.5, lambda: True)
        return True

    def _ended(self, job: SlurmJob, exit_code: str) -> bool:
        """Returns whether the planner may have waited for it."""
        hook = {"job_id": job.job_id, "restart_count": job.restart_count, "exit_code": exit_code}
        self._stage.note("job_ended", hook)
        self._stage.agenda.later(600.0, lambda: self._forgotten(job.job_id))
        self.submit()
        return any(self._stage.slurm.node_table[node].is_ours for node in job.nodes)

    def _forgotten(self, job_id: int) -> bool:
        self._stage.slurm.forget(job_id)
        if job_id not in self._stage.slurm.job_table:
            self._marks.pop(job_id, None)
            self._left_s.pop(job_id, None)
            self._hit_at.pop(job_id, None)
        return False

    def ended_by_the_controller(self) -> None:
        """What the actions of the controller ended."""
        for job, exit_code in self._stage.slurm.ended:
            self._progressed(job)
            self.hit(job.job_id)
            self._stage.tally.requeued_running += 1
            hook = {"job_id": job.job_id, "restart_count": job.restart_count, "exit_code": exit_code}
            self._stage.note("job_ended", hook)
            if self._marks.get(job.job_id) is None:
                self._stage.agenda.later(122.0, lambda: False)
        self._stage.slurm.ended = []

    def _progressed(self, job: SlurmJob) -> None:
        ran_s = self._stage.agenda.now - (job.started_at or self._stage.agenda.now)
        self._left_s[job.job_id] = max(600.0, self._left_s[job.job_id] - ran_s)
