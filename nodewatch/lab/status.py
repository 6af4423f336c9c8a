"""`lab status`: the machines, the instances and Slurm's view of the nodes, side by side."""

from dataclasses import dataclass
from typing import Any

from nodewatch.lab import ec2, machine
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import HEAD_ADDRESS, Layout
from nodewatch.lab.plan import load
from nodewatch.lab.process import run


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A node as sinfo shows it."""

    name: str
    state: str
    reason: str

    @property
    def in_service(self) -> bool:
        # A spare is kept out of service by the controller on purpose: it is up all the same.
        return self.state in ("idle", "mixed", "allocated") or self.reason.startswith("nodewatch: spare")


def slurm_nodes(layout: Layout) -> list[NodeStatus]:
    """Slurm's nodes, or none while slurmctld does not answer."""
    try:
        head = machine.find(layout, "head")
        done = run(machine.entering(head, ["sinfo", "--noheader", "-N", "-o", "%N|%T|%E"]), deadline_s=10, check=False)
    except LabError:
        return []
    if done.code != 0:
        return []
    nodes = []
    for line in done.out.splitlines():
        name, state, reason = [*line.split("|", 2), "", ""][:3]
        nodes.append(NodeStatus(name=name, state=state, reason="" if reason == "none" else reason))
    return nodes


def picture(layout: Layout) -> dict[str, Any]:
    """Everything that `lab status` shows; LabError when no lab is up."""
    plan = load(layout)
    nodes = {node.name: node for node in slurm_nodes(layout)}
    machines = []
    for found in machine.machines(layout):
        node = nodes.get(found.name)
        machines.append(
            {
                "machine": found.name,
                "instance": found.ident,
                "address": found.address,
                "running": machine.init_pid(found) is not None,
                "slurm_state": node.state if node else None,
                "slurm_reason": node.reason if node else None,
            }
        )
    rows: list[dict[str, str]] | None
    try:
        with ec2.inside_cloud() as api:
            rows = [
                {"instance": row.ident, "state": row.state, "address": row.address, "node": row.node}
                for row in ec2.instances(api)
            ]
    except Exception:
        # A rehearsal may have stopped EC2 on purpose: the rest of the picture still stands.
        rows = None
    return {
        "state_dir": str(layout.root),
        "plain": plan.plain,
        "head": HEAD_ADDRESS,
        "machines": machines,
        "instances": rows,
    }
