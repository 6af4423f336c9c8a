"""Silence alone does not make a node lost; each second witness does."""

from __future__ import annotations

import pytest

from nodewatch.model.cluster import AgentView, Instance, SlurmNode, Snapshot
from nodewatch.model.health import Remedy, Severity, StandingFinding
from nodewatch.policy.lost import is_silent, lost_nodes
from nodewatch.policy.rules import Rules

NOW = 1_000_000.0
RULES = Rules()


def snapshot(
    *, silent_s: float = 20.0, states: str = "MIXED", unreachable: bool = False, instance: str | None = "running"
) -> Snapshot:
    view = AgentView(node="n1", heard_at=NOW - silent_s, boot_id="b", instance_id="i-1", verdict=None)
    node = SlurmNode(name="n1", address="10.0.0.1", states=frozenset(states.split("+")))
    return Snapshot(
        taken_at=NOW,
        nodes={"n1": node},
        agents={"n1": view},
        instances={"i-1": Instance(instance_id="i-1", state=instance, node="n1")} if instance else {},
        unreachable=frozenset({"n1"} if unreachable else ()),
    )


def lost(seen: Snapshot) -> list[tuple[str, StandingFinding]]:
    return list(lost_nodes(seen.agents.values(), seen, RULES, NOW))


@pytest.mark.parametrize("silent_s", [0.0, 14.9, 15.0, 3600.0])
def test_silence(silent_s: float) -> None:
    assert is_silent(snapshot(silent_s=silent_s).agents["n1"], RULES, NOW) == (silent_s >= 15.0)


@pytest.mark.parametrize(
    ("states", "unreachable", "instance", "witness"),
    [
        ("MIXED", False, "running", None),
        ("MIXED", False, "pending", None),
        ("MIXED", False, None, None),
        ("DOWN", False, "running", None),
        ("MIXED+DRAIN", False, "running", None),
        ("MIXED", True, "running", "no answer on the ports"),
        ("MIXED+NOT_RESPONDING", False, "running", "slurmctld has no answer from slurmd"),
        ("MIXED", False, "stopped", "EC2 says that i-1 is stopped"),
        ("MIXED", False, "terminated", "EC2 says that i-1 is terminated"),
        # Somebody reboots it through Slurm: it is silent and will be back. Not while a job runs: then it only was asked for.
        ("DOWN+REBOOT_ISSUED", True, "running", None),
        ("IDLE+REBOOT_ISSUED+NOT_RESPONDING", True, None, None),
        ("IDLE+REBOOT_ISSUED", True, "terminated", "EC2 says that i-1 is terminated"),
        ("MIXED+REBOOT_REQUESTED", True, "running", "no answer on the ports"),
    ],
)
def test_one_witness_is_enough_and_silence_is_none(
    states: str, unreachable: bool, instance: str | None, witness: str | None
) -> None:
    heard = snapshot(silent_s=1.0, states=states, unreachable=unreachable, instance=instance)
    assert lost(heard) == [], "an agent that speaks is not lost, whatever the others say"

    found = lost(snapshot(states=states, unreachable=unreachable, instance=instance))
    if witness is None:
        assert found == []
        return
    ((node, standing),) = found
    assert node == "n1"
    finding = standing.finding
    assert (finding.fault, finding.subject) == ("node.lost", "i-1")
    assert (finding.severity, finding.remedy) == (Severity.FATAL, Remedy.REPLACE)
    assert finding.evidence["agent_silent_s"] == 20.0
    assert [w for w in finding.evidence["witnesses"] if witness in w]
    assert (standing.first_at, standing.last_at) == (NOW - 5.0, NOW)


def test_all_witnesses_are_named() -> None:
    seen = snapshot(states="DOWN+NOT_RESPONDING", unreachable=True, instance="terminated")
    ((_, standing),) = lost(seen)
    assert len(standing.finding.evidence["witnesses"]) == 3


def test_an_agent_that_was_never_heard_is_not_lost() -> None:
    node = SlurmNode(name="n9", address="10.0.0.9", states=frozenset({"DOWN", "NOT_RESPONDING"}))
    seen = Snapshot(taken_at=NOW, nodes={"n9": node}, unreachable=frozenset({"n9"}))
    assert lost(seen) == []
