"""The controller is killed after each single record of a whole repair and starts again: nothing is done twice or lost."""

from collections.abc import Mapping
from typing import Any

import pytest

from nodewatch.model.records import Record
from nodewatch.testing import MemoryJournal, World


class Killed(BaseException):
    """The process ends here: nothing in the engine may catch it."""


class MortalJournal(MemoryJournal):
    """Kills the controller once, just before or just after its `at`-th record is on disk."""

    def __init__(self, at: int, *, after: bool) -> None:
        super().__init__()
        self._at = at
        self._after = after
        self.has_killed = False

    def append(self, at: float, kind: str, data: Mapping[str, Any]) -> Record:
        due = not self.has_killed and len(self.records) + 1 == self._at
        if due and not self._after:
            self.has_killed = True
            raise Killed
        record = super().append(at, kind, data)
        if due:
            self.has_killed = True
            raise Killed
        return record


def repair(journal: MemoryJournal | None) -> World:
    world = World(nodes=4, spares=1)
    if journal is not None:
        world.journal = journal

        def survive(action: Any) -> None:
            try:
                action()
            except Killed:
                survive(world.restart_controller)

        survive(world.restart_controller)
        original = world.step
        world.step = lambda: survive(original)  # type: ignore[method-assign]
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=30)
    world.node("n2").loses_gpu()
    world.run(minutes=6)
    assert job == 1
    return world


def outcome(world: World) -> dict[str, Any]:
    job = world.job(1)
    return {
        "launched": len(world.ec2.launched),
        "terminated": world.ec2.terminated,
        "alive": {name: len(world.ec2.alive(name)) for name in ("n1", "n2", "n3", "n4")},
        "nodes": {name: sorted(world.slurm_node(name).states) for name in ("n1", "n2", "n3", "n4")},
        "spares": [name for name in ("n1", "n2", "n3", "n4") if world.slurm_node(name).is_spare],
        "job": (sorted(job.states), job.restart_count, job.nodes),
        "cases": [(case.node, case.step.value) for name in ("n1", "n2", "n3", "n4") for case in world.cases(name)],
        "requeues": world.engine.ledger.jobs[1].requeues,
    }


UNDISTURBED = repair(None)
RECORDS = len(UNDISTURBED.journal.records)


@pytest.mark.parametrize("after", [False, True], ids=["before the record", "after the record"])
@pytest.mark.parametrize("at", range(2, RECORDS + 1))
def test_a_kill_at_any_record_changes_nothing_in_the_end(at: int, after: bool) -> None:
    journal = MortalJournal(at, after=after)
    world = repair(journal)
    assert journal.has_killed
    assert outcome(world) == outcome(UNDISTURBED)


def test_the_ledger_follows_from_the_journal_alone() -> None:
    from nodewatch.model.ledger import Ledger
    from nodewatch.policy.fold import fold

    assert fold(Ledger(), UNDISTURBED.journal.records) == UNDISTURBED.engine.ledger
