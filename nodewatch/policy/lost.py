"""Whether a node that has gone silent is lost. Silence alone says nothing: it takes a second witness."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nodewatch.model.cluster import AgentView, Snapshot
from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding
from nodewatch.policy.rules import Rules


def is_silent(view: AgentView, rules: Rules, now: float) -> bool:
    """Whether the agent has not been heard for so long that something must be wrong with it or with the way to it."""
    return now - view.heard_at >= rules.agent_silence_s


def lost_nodes(
    views: Iterable[AgentView], snapshot: Snapshot, rules: Rules, now: float
) -> Iterator[tuple[str, StandingFinding]]:
    """(node, finding) for each node of `views` whose agent is silent and that a second witness gives up as well.

    Witnesses: neither the agent's nor slurmd's port could be reached just now, slurmctld has no answer from slurmd, or EC2
    says that the instance does not run. An agent that was never heard is not known, hence not lost.
    """
    for view in views:
        if not is_silent(view, rules, now):
            continue
        name = view.node
        instance = snapshot.instances.get(view.instance_id)
        node = snapshot.nodes.get(name)
        is_ended = instance is not None and not instance.is_alive
        if node is not None and node.is_rebooting and not node.is_busy and not is_ended:
            # It is silent because somebody reboots it through Slurm; slurmctld gives it up by itself after ResumeTimeout.
            continue
        witnesses = []
        if name in snapshot.unreachable:
            witnesses.append("no answer on the ports of the agent and of slurmd")
        if node is not None and not node.is_responding:
            witnesses.append("slurmctld has no answer from slurmd")
        if instance is not None and is_ended:
            witnesses.append(f"EC2 says that {instance.instance_id} is {instance.state}")
        if not witnesses:
            continue
        finding = Finding(
            fault="node.lost",
            subject=view.instance_id or name,
            severity=Severity.FATAL,
            remedy=Remedy.REPLACE,
            evidence={"agent_silent_s": round(now - view.heard_at, 1), "witnesses": witnesses},
        )
        yield name, StandingFinding(finding=finding, first_at=view.heard_at + rules.agent_silence_s, last_at=now)
