"""The controller is killed after each single record of a whole repair and starts again: nothing is done twice or lost."""

from typing import Any

import pytest

from nodewatch.testing import World


def repair(*, kills_at: int = 0, after: bool = False, after_actions: bool = False) -> World:
    world = World(nodes=4, spares=1)
    world.journal.kills_at, world.journal.kills_after = kills_at, after
    world.journal.kills_after_actions = after_actions
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


UNDISTURBED = repair()
RECORDS = len(UNDISTURBED.journal.records)


@pytest.mark.parametrize("after", [False, True], ids=["before the record", "after the record"])
@pytest.mark.parametrize("at", range(2, RECORDS + 1))
def test_a_kill_at_any_record_changes_nothing_in_the_end(at: int, after: bool) -> None:
    world = repair(kills_at=at, after=after)
    assert world.journal.kills_at == 0, "it was killed"
    assert outcome(world) == outcome(UNDISTURBED)


def test_a_kill_after_every_single_action_changes_nothing_in_the_end() -> None:
    world = repair(after_actions=True)
    starts = sum(record.kind == "started" for record in world.journal.records)
    assert starts == 1 + sum(record.kind in ("done", "failed") for record in world.journal.records)
    assert outcome(world) == outcome(UNDISTURBED)


def test_the_ledger_follows_from_the_journal_alone() -> None:
    from nodewatch.model.ledger import Ledger
    from nodewatch.policy.fold import fold

    assert fold(Ledger(), UNDISTURBED.journal.records) == UNDISTURBED.engine.ledger
