"""A node fails under a job that has nodes to spare: told to its agents, and requeued only when it does not go on."""

from __future__ import annotations

from collections.abc import Mapping

from nodewatch.model.health import Remedy, Severity
from nodewatch.testing import World

NODES = ("n1", "n2", "n3")


class Step:
    """The ranks of one job, one on each node of `on`, as their nodes' agents tell of them."""

    def __init__(self, world: World, job: int, on: tuple[str, ...]) -> None:
        self.world = world
        self.job = job
        self.on = on
        self.step = 10
        self.changed_at: dict[str, float] = {}
        self._told: dict[str, Mapping[str, object]] = {}
        for node in world.job(job).nodes:
            world.node(node).tells = lambda node=node: self._tell(node)

    def runs(self, seconds: int) -> None:
        for _ in range(seconds):
            self.step += 1
            for rank, node in enumerate(self.on):
                self.changed_at[node] = self.world.clock()
                self._told[node] = {"rank": rank, "step": self.step, "phase": "step"}
            self.world.run(seconds=1)

    def starts(self, *on: str) -> None:
        """It starts again on other nodes; what was told of the ones before stays in their files."""
        self.on = on
        for rank, node in enumerate(on):
            self.changed_at[node] = self.world.clock()
            self._told[node] = {"rank": rank, "step": self.step, "phase": "starting"}

    def _tell(self, node: str) -> Mapping[str, object]:
        told = self._told.get(node)
        if told is None:
            return {"jobs": {}}
        rank = {**told, "still_s": self.world.clock() - self.changed_at[node]}
        return {"jobs": {str(self.job): {"ranks": {str(rank.pop("rank")): rank}}}}


def started(auto_resume: str = "3,spares=1", *, on: tuple[str, ...] = NODES[:2]) -> tuple[World, Step]:
    world = World(nodes=5, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume=auto_resume)
    world.run(seconds=2)
    assert world.job(job).nodes == NODES
    step = Step(world, job, on)
    step.runs(20)
    return world, step


def loses_gpu(world: World, node: str) -> None:
    world.node(node).reports("gpu.lost", Severity.FATAL, Remedy.REPLACE, "GPU-3")


def records(world: World, kind: str) -> list[Mapping[str, object]]:
    return [record.data for record in world.journal.records if record.kind == kind]


def test_it_goes_on_without_the_node_and_is_left_alone() -> None:
    world, step = started()
    loses_gpu(world, "n2")
    world.run(seconds=3)
    assert world.bad_nodes == {(step.job, node): ("n2",) for node in NODES}
    assert "its supervisor is told" in world.reasons(f"job {step.job}")[0]

    step.starts("n1", "n3")
    world.run(seconds=5)
    step.runs(120)

    assert [data["step"] for data in records(world, "went_on")] == [None, records(world, "went_on")[1]["step"]]
    assert world.reasons(f"job {step.job}") == ["it goes on without n2 inside its allocation"]
    assert (world.job(step.job).restart_count, records(world, "judged")) == (0, [])


def test_one_that_does_not_is_put_back_into_the_queue() -> None:
    world, step = started()
    loses_gpu(world, "n2")
    world.run(seconds=58)
    assert records(world, "judged") == []

    world.run(seconds=10)

    assert world.job(step.job).restart_count == 1
    assert "n2 failed (gpu.lost on GPU-3)" in world.judged(step.job)


def test_ranks_that_start_have_longer_for_their_first_step() -> None:
    world, step = started()
    loses_gpu(world, "n2")
    world.run(seconds=5)
    step.starts("n1", "n3")
    world.run(seconds=500)
    assert world.job(step.job).restart_count == 0

    world.run(seconds=120)

    assert world.job(step.job).restart_count == 1


def test_a_spare_that_fails_interrupts_nobody() -> None:
    world, step = started()
    loses_gpu(world, "n3")
    step.runs(120)

    assert world.reasons(f"job {step.job}") == ["it goes on without n3 inside its allocation"]
    assert (world.job(step.job).restart_count, records(world, "judged")) == (0, [])


def test_a_second_node_is_one_too_many() -> None:
    world, step = started()
    loses_gpu(world, "n2")
    step.starts("n1", "n3")
    step.runs(60)
    assert world.job(step.job).restart_count == 0

    loses_gpu(world, "n3")
    world.run(seconds=10)

    assert world.job(step.job).restart_count == 1


def test_a_job_without_spares_is_put_back_at_once_and_nobody_is_told() -> None:
    world, step = started("3")
    loses_gpu(world, "n2")
    world.run(seconds=10)

    assert (world.job(step.job).restart_count, world.bad_nodes) == (1, {})


def test_the_controller_that_starts_anew_goes_on_waiting_and_knows_what_went_on() -> None:
    world, step = started()
    loses_gpu(world, "n2")
    world.run(seconds=3)
    step.starts("n1", "n3")
    step.runs(30)
    world.restart_controller()
    step.runs(90)

    assert world.engine.ledger.jobs[step.job].inside == ("n2",)
    assert world.job(step.job).restart_count == 0
