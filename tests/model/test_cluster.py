"""What Slurm's words for a node and a job amount to."""

from __future__ import annotations

import pytest

from nodewatch.model.cluster import AgentView, Instance, SlurmJob, SlurmNode, Snapshot

OURS = "nodewatch: n1.gpu.100 gpu.lost on GPU-0"
SPARE = "nodewatch: spare"


def node(states: str, reason: str = "", name: str = "n1") -> SlurmNode:
    return SlurmNode(name=name, address="10.0.0.1", states=frozenset(states.split("+")), reason=reason)


PREDICATES = ("is_idle", "is_busy", "is_out", "is_down", "is_responding", "is_in_maintenance", "is_rebooting")


@pytest.mark.parametrize(
    ("states", "true"),
    [
        ("IDLE", "is_idle is_responding"),
        ("ALLOCATED", "is_busy is_responding"),
        ("MIXED", "is_busy is_responding"),
        ("IDLE+DRAIN", "is_out is_responding"),
        ("IDLE+DRAINED", "is_out is_responding"),
        ("ALLOCATED+DRAIN", "is_busy is_out is_responding"),
        ("MIXED+DRAIN", "is_busy is_out is_responding"),
        ("MIXED+DRAINING", "is_busy is_out is_responding"),
        ("IDLE+COMPLETING", "is_busy is_responding"),
        ("IDLE+COMPLETING+DRAIN", "is_busy is_out is_responding"),
        ("DOWN", "is_down is_responding"),
        ("DOWN+NOT_RESPONDING", "is_down"),
        ("DOWN+DRAIN+NOT_RESPONDING", "is_down is_out"),
        ("IDLE+NOT_RESPONDING", ""),
        ("IDLE+FAIL", "is_out is_responding"),
        ("ALLOCATED+FAILING", "is_busy is_out is_responding"),
        ("IDLE+RESERVED", "is_responding is_in_maintenance"),
        ("IDLE+MAINTENANCE", "is_responding is_in_maintenance"),
        ("IDLE+POWERED_DOWN", "is_responding is_in_maintenance"),
        ("IDLE+POWERING_DOWN", "is_responding is_in_maintenance"),
        ("IDLE+DRAIN+REBOOT_REQUESTED", "is_out is_responding is_rebooting"),
        ("DOWN+DRAIN+REBOOT_ISSUED", "is_down is_out is_responding is_rebooting"),
        ("UNKNOWN", "is_responding"),
        ("IDLE+CLOUD+DYNAMIC_NORM", "is_idle is_responding"),
    ],
)
def test_states(states: str, true: str) -> None:
    known = node(states)
    assert {name for name in PREDICATES if getattr(known, name)} == set(true.split())


@pytest.mark.parametrize(
    ("states", "reason", "is_ours", "is_foreign", "is_spare"),
    [
        ("IDLE", "", False, False, False),
        ("IDLE", "an old note", False, False, False),
        ("IDLE+DRAIN", OURS, True, False, False),
        ("MIXED+DRAIN", OURS, True, False, False),
        ("IDLE+DRAIN", SPARE, True, False, True),
        ("IDLE", SPARE, True, False, False),
        ("IDLE+DRAIN", "bad fan, Ada", False, True, False),
        ("IDLE+DRAIN", "", False, True, False),
        ("IDLE+DRAIN", "Prolog error", False, False, False),
        ("IDLE+DRAIN", "Epilog error", False, False, False),
        ("IDLE+FAIL", "bad fan, Ada", False, True, False),
        ("DOWN", "bad fan, Ada", False, True, False),
        ("DOWN", "see nodewatch: later", False, True, False),
        ("DOWN+NOT_RESPONDING", "", False, False, False),
        ("DOWN+NOT_RESPONDING", "Not responding", False, False, False),
        ("DOWN+NOT_RESPONDING", "Node unexpectedly rebooted", False, False, False),
        ("DOWN+DRAIN+NOT_RESPONDING", "Not responding", False, True, False),
        ("DOWN", OURS, True, False, False),
    ],
)
def test_whose_it_is(states: str, reason: str, is_ours: bool, is_foreign: bool, is_spare: bool) -> None:
    known = node(states, reason)
    assert (known.is_ours, known.is_foreign, known.is_spare) == (is_ours, is_foreign, is_spare)


JOB_PREDICATES = ("is_active", "is_running", "is_pending", "has_failed", "has_succeeded")


@pytest.mark.parametrize(
    ("states", "true"),
    [
        ("PENDING", "is_pending"),
        ("RUNNING", "is_active is_running"),
        ("RUNNING+COMPLETING", "is_active"),
        ("PENDING+COMPLETING", "is_active is_pending"),
        ("CONFIGURING+RUNNING", "is_active is_running"),
        ("SUSPENDED", "is_active"),
        ("COMPLETED", "has_succeeded"),
        ("COMPLETED+COMPLETING", "is_active has_succeeded"),
        ("FAILED", "has_failed"),
        ("FAILED+COMPLETING", "is_active has_failed"),
        ("NODE_FAIL", "has_failed"),
        ("BOOT_FAIL", "has_failed"),
        ("OUT_OF_MEMORY", "has_failed"),
        ("CANCELLED", ""),
        ("TIMEOUT", ""),
        ("DEADLINE", ""),
        ("PREEMPTED", ""),
    ],
)
def test_job_states(states: str, true: str) -> None:
    job = SlurmJob(job_id=1, states=frozenset(states.split("+")))
    assert {name for name in JOB_PREDICATES if getattr(job, name)} == set(true.split())


def test_a_node_is_busy_while_a_job_or_its_clean_up_is_on_it() -> None:
    running = SlurmJob(job_id=2, states=frozenset({"RUNNING"}), nodes=("n1", "n2"))
    ended = SlurmJob(job_id=1, states=frozenset({"FAILED"}), nodes=("n3",))
    nodes = {"n1": node("IDLE"), "n3": node("IDLE", name="n3"), "n4": node("IDLE+COMPLETING", name="n4")}
    snapshot = Snapshot(taken_at=0.0, nodes=nodes, jobs={2: running, 1: ended})

    assert snapshot.jobs_on("n1") == (running,)
    assert snapshot.is_busy("n1")
    assert not snapshot.is_busy("n3")
    assert snapshot.is_busy("n4")
    assert snapshot.is_busy("unheard-of"), "a node that Slurm did not list is not known to be empty"


def instance(name: str, state: str = "running", bears: str = "n1") -> Instance:
    return Instance(instance_id=name, state=state, node=bears)


def view(instance_id: str) -> AgentView:
    return AgentView(node="n1", heard_at=0.0, boot_id="b", instance_id=instance_id, verdict=None)


@pytest.mark.parametrize(
    ("agent", "instances", "expected"),
    [
        ("", [], None),
        ("", [instance("i-1")], "i-1"),
        ("", [instance("i-1", "terminated")], None),
        ("", [instance("i-1", "terminated"), instance("i-2", "pending")], "i-2"),
        ("", [instance("i-1"), instance("i-2")], None),
        ("", [instance("i-1", bears="n2")], None),
        ("i-1", [instance("i-1"), instance("i-2")], "i-1"),
        ("i-1", [instance("i-1", "terminated"), instance("i-2")], "i-2"),
        ("i-9", [instance("i-2")], "i-2"),
    ],
)
def test_which_instance_bears_a_node(agent: str, instances: list[Instance], expected: str | None) -> None:
    agents = {"n1": view(agent)} if agent else {}
    snapshot = Snapshot(taken_at=0.0, instances={i.instance_id: i for i in instances}, agents=agents)
    found = snapshot.instance_of("n1")
    assert (found.instance_id if found else None) == expected
