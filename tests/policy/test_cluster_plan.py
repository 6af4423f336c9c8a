"""From cluster.toml's groups to steps: what is asked for, in which order, and that it ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.model.cluster import Instance, SlurmJob, SlurmNode
from nodewatch.policy import cluster_plan as to
from nodewatch.policy.cluster_nodes import HEADER, Lines, Shape, conf_problems, nodes_conf, read_lines, records
from nodewatch.policy.rules import Group

SHAPE = Shape(keys={"CPUs": "192", "RealMemory": "1000", "Gres": "gpu:8"})
POOLS = {"a": ("a1", "a2", "a3", "a4"), "b": ("b1", "b2", "b3")}


def group(name: str, count: int, partition: str = "", **more: object) -> to.Wanted:
    pool = POOLS[name]
    made = Group(name=name, nodes=pool[:count], partition=partition or f"p{name}", launch_template="t", **more)  # type: ignore[arg-type]
    return to.Wanted(group=made, pool=pool, count=count, shape=SHAPE)


class Model:
    """A cluster that does what each step asks, at once."""

    def __init__(self, theirs: Lines | None = None) -> None:
        self.theirs = theirs or Lines()
        self.nodes: dict[str, SlurmNode] = {}
        self.jobs: dict[int, SlurmJob] = {}
        self.instances: dict[str, Instance] = {}
        self.text = ""
        self.loaded = ""
        self.refuses: set[str] = set()
        self.refused: dict[str, str] = {}
        self.repaired: set[str] = set()
        for name in self.theirs.nodes:
            self.nodes[name] = SlurmNode(name=name, address=name, states=frozenset({"IDLE"}))

    @property
    def seen(self) -> to.Seen:
        return to.Seen(
            nodes=dict(self.nodes),
            jobs=dict(self.jobs),
            instances=dict(self.instances),
            text=self.text,
            ours=read_lines([self.text]).nodes,
            theirs=self.theirs,
            loaded=self.loaded,
            repaired=frozenset(self.repaired),
            refused=dict(self.refused),
        )

    def is_used(self, node: str) -> bool:
        return any(job.is_active and node in job.nodes for job in self.jobs.values())

    def start(self, node: str) -> None:
        known = self.nodes.get(node)
        if known is None or known.is_out or known.is_down or self.is_used(node):
            return
        number = len(self.jobs) + 1
        self.jobs[number] = SlurmJob(job_id=number, states=frozenset({"RUNNING"}), nodes=(node,))

    def end_jobs(self) -> None:
        self.jobs.clear()

    def boot(self) -> None:
        """Machines whose node Slurm knows register."""
        for name, node in self.nodes.items():
            if "UNKNOWN" in node.states and any(i.node == name and i.is_alive for i in self.instances.values()):
                states = frozenset({"IDLE"} | ({"DRAIN"} if node.is_out else set()))
                self.nodes[name] = dataclasses.replace(node, states=states, slurmd_started_at=1.0)

    def do(self, step: to.Step) -> None:
        match step:
            case to.LaunchNode(node=node):
                assert not [i for i in self.instances.values() if i.node == node and i.is_alive], "two machines"
                assert node not in self.theirs.nodes
                if node in self.refuses:
                    self.refused[node] = "none"
                    return
                number = len(self.instances) + 1
                self.instances[f"i-{number}"] = Instance(
                    instance_id=f"i-{number}",
                    state="running",
                    private_ip=f"10.0.0.{number}",
                    node=node,
                    tags={"nodewatch:action": f"cluster:{node}:x"},
                )
            case to.DrainNode(node=node, reason=reason):
                self._set(node, {"DRAIN"}, reason)
            case to.DownNode(node=node):
                self.jobs = {k: j for k, j in self.jobs.items() if node not in j.nodes}
                self._set(node, {"DOWN"}, to.LEAVING)
            case to.KeepNode(node=node):
                self.nodes[node] = dataclasses.replace(
                    self.nodes[node], states=self.nodes[node].states - {"DRAIN", "DOWN"} | {"IDLE"}, reason=""
                )
            case to.EndMachine(node=node, instance_id=instance_id):
                assert not self.is_used(node), f"{node} runs a job"
                assert node not in self.theirs.nodes
                self.instances[instance_id] = dataclasses.replace(self.instances[instance_id], state="terminated")
            case to.WriteLines(text=text):
                assert conf_problems(text, theirs=self.theirs) == []
                self.text = text
            case to.Reconfigure(digest=digest):
                assert digest == to.digest_of(self.text)
                wanted = read_lines([self.text]).nodes | self.theirs.nodes
                for name in set(self.nodes) - wanted:
                    assert not self.is_used(name), f"{name} was taken from Slurm with a job on it"
                    del self.nodes[name]
                for name in wanted - set(self.nodes):
                    states = frozenset({"UNKNOWN", "NOT_RESPONDING"})
                    self.nodes[name] = SlurmNode(name=name, address=name, states=states)
                self.loaded = digest
            case to.PointNode(node=node, address=address):
                self.nodes[node] = dataclasses.replace(self.nodes[node], address=address)

    def _set(self, node: str, states: set[str], reason: str) -> None:
        self.nodes[node] = dataclasses.replace(self.nodes[node], states=self.nodes[node].states | states, reason=reason)

    def settle(self, *groups: to.Wanted, force: bool = False, rounds: int = 12) -> to.ClusterPlan:
        for _ in range(rounds):
            found = to.plan(groups, self.seen, force=force)
            assert not found.problems
            if not found.steps:
                return found
            before = set(self.refused)
            for step in found.steps:
                if set(self.refused) != before and isinstance(step, (to.WriteLines, to.Reconfigure)):
                    continue
                self.do(step)
            self.boot()
        raise AssertionError(f"never done: {found.steps}")

    def alive(self) -> list[str]:
        return sorted(i.node for i in self.instances.values() if i.is_alive)


def kinds(plan: to.ClusterPlan) -> list[str]:
    return [f"{type(step).__name__}:{getattr(step, 'node', '')}" for step in plan.steps]


def test_a_first_apply_launches_writes_and_reads() -> None:
    model = Model()
    plan = to.plan([group("a", 2)], model.seen)
    assert kinds(plan) == ["LaunchNode:a1", "LaunchNode:a2", "WriteLines:", "Reconfigure:"]
    assert model.settle(group("a", 2)) == to.ClusterPlan()
    assert model.alive() == ["a1", "a2"]
    assert model.text == (
        f"{HEADER}NodeName=a[1-2] CPUs=192 RealMemory=1000 Gres=gpu:8 State=UNKNOWN\n"
        "PartitionName=pa Nodes=a[1-2] State=UP\n"
    )
    assert [model.nodes[name].address for name in ("a1", "a2")] == ["10.0.0.1", "10.0.0.2"]


def test_a_moved_count_is_two_numbers() -> None:
    model = Model()
    model.settle(group("a", 3), group("b", 1))
    assert model.settle(group("a", 2), group("b", 2)).steps == ()
    assert model.alive() == ["a1", "a2", "b1", "b2"]
    assert set(model.nodes) == {"a1", "a2", "b1", "b2"}


def test_a_node_with_a_job_is_drained_and_waited_for() -> None:
    model = Model()
    model.settle(group("a", 2))
    model.start("a2")
    left = model.settle(group("a", 1))
    assert (left.steps, [(h.node, h.why, h.waits) for h in left.held]) == (
        (),
        [("a2", "job 1 runs there: its machine goes afterwards", True)],
    )
    assert model.nodes["a2"].reason == to.LEAVING
    assert model.alive() == ["a1", "a2"]
    model.end_jobs()
    assert model.settle(group("a", 1)) == to.ClusterPlan()
    assert model.alive() == ["a1"]


def test_force_ends_what_runs_there_first() -> None:
    model = Model()
    model.settle(group("a", 2))
    model.start("a2")
    assert kinds(to.plan([group("a", 1)], model.seen, force=True)) == ["DownNode:a2"]
    assert model.settle(group("a", 1), force=True) == to.ClusterPlan()
    assert (model.alive(), model.jobs) == (["a1"], {})


def test_an_idle_node_is_looked_at_again_after_its_drain() -> None:
    model = Model()
    model.settle(group("a", 2))
    first = to.plan([group("a", 1)], model.seen)
    assert kinds(first) == ["DrainNode:a2"]
    # A job that began in between holds the machine.
    model.start("a2")
    model.do(first.steps[0])
    assert kinds(to.plan([group("a", 1)], model.seen)) == []


def test_wanted_again_before_it_has_gone() -> None:
    model = Model()
    model.settle(group("a", 2))
    model.start("a2")
    model.settle(group("a", 1))
    assert kinds(to.plan([group("a", 2)], model.seen)) == ["KeepNode:a2"]
    assert model.settle(group("a", 2)) == to.ClusterPlan()
    assert not model.nodes["a2"].is_out


@pytest.mark.parametrize(
    ("states", "reason", "why"),
    [
        ({"IDLE", "DRAIN"}, "disk swap", "somebody else took it out of service (disk swap)"),
        ({"IDLE", "MAINTENANCE"}, "", "it is reserved or powered away"),
    ],
)
def test_what_somebody_else_holds_is_left(states: set[str], reason: str, why: str) -> None:
    model = Model()
    model.settle(group("a", 2))
    model.nodes["a2"] = dataclasses.replace(model.nodes["a2"], states=frozenset(states), reason=reason)
    plan = to.plan([group("a", 1)], model.seen)
    assert plan.steps == ()
    assert plan.held[0].why.startswith(why)


def test_a_node_under_repair_is_left_to_the_controller() -> None:
    model = Model()
    model.settle(group("a", 2))
    model.repaired = {"a1", "a2"}
    model.instances = {}
    plan = to.plan([group("a", 1)], model.seen)
    assert plan.steps == ()
    assert [item.node for item in plan.held] == ["a1", "a2"]


def test_a_machine_that_is_gone_is_not_launched_twice() -> None:
    model = Model()
    model.settle(group("a", 1))
    model.instances = {}
    plan = to.plan([group("a", 1)], model.seen)
    assert (plan.steps, plan.held[0].why) == ((), "its machine is gone: `nodewatch replace a1` has it replaced")


def test_wanted_again_after_its_machine_has_gone() -> None:
    model = Model()
    model.settle(group("a", 2))
    model.do(to.plan([group("a", 1)], model.seen).steps[0])
    end = to.plan([group("a", 1)], model.seen).steps[0]
    assert isinstance(end, to.EndMachine)
    # Cut off here, before Slurm has lost the node.
    model.do(end)
    assert kinds(to.plan([group("a", 2)], model.seen)) == ["LaunchNode:a2"]
    assert model.settle(group("a", 2)) == to.ClusterPlan()
    assert not model.nodes["a2"].is_out


def test_a_spare_goes_too() -> None:
    model = Model()
    model.settle(group("a", 2))
    spare = dataclasses.replace(model.nodes["a2"], states=frozenset({"IDLE", "DRAIN"}), reason="nodewatch: spare")
    model.nodes["a2"] = spare
    # Under its old reason the controller might put it into service meanwhile.
    assert kinds(to.plan([group("a", 1)], model.seen)) == ["DrainNode:a2"]
    model.settle(group("a", 1))
    assert model.alive() == ["a1"]


def test_refused_capacity_leaves_no_line() -> None:
    model = Model()
    model.refuses = {"a2"}
    left = model.settle(group("a", 3))
    assert [(item.node, item.why) for item in left.held] == [("a2", "EC2 gives no machine: none")]
    assert set(model.nodes) == {"a1", "a3"}
    model.refuses, model.refused = set(), {}
    assert model.settle(group("a", 3)) == to.ClusterPlan()


def test_the_sites_own_nodes_are_not_touched() -> None:
    model = Model(Lines(nodes=frozenset({"a1", "a2"})))
    assert model.settle(group("a", 3), group("b", 1)) == to.ClusterPlan()
    assert model.alive() == ["a3", "b1"]
    assert "PartitionName=pa Nodes=a[1-3]" in model.text
    assert model.settle(group("a", 0), group("b", 0)) == to.ClusterPlan()
    assert (model.alive(), sorted(model.nodes)) == ([], ["a1", "a2"])


@pytest.mark.parametrize(("nodes", "fits"), [("ALL", True), ("x[1-4]", False)])
def test_a_partition_of_the_sites(nodes: str, fits: bool) -> None:
    model = Model(Lines(partitions={"pa": nodes}))
    plan = to.plan([group("a", 1)], model.seen)
    assert bool(plan.problems) is not fits
    if fits:
        model.settle(group("a", 1))
        assert "PartitionName" not in model.text
    else:
        assert plan.steps == ()
        assert "give it Nodes=ALL there" in plan.problems[0]


def test_a_group_that_is_no_more_keeps_its_lines_until_it_is_empty() -> None:
    model = Model()
    model.settle(group("a", 1), group("b", 2))
    model.start("b2")
    model.settle(group("a", 1))
    assert [keys["nodename"] for kind, keys in records(model.text) if kind == "nodename"] == ["a1", "b2"]
    assert "PartitionName=pb Nodes=b2" in model.text
    model.end_jobs()
    assert model.settle(group("a", 1)) == to.ClusterPlan()
    assert model.alive() == ["a1"]


def test_a_node_that_slurm_gave_up_while_it_booted_comes_back() -> None:
    model = Model()
    model.settle(group("a", 1))
    down = dataclasses.replace(model.nodes["a1"], states=frozenset({"DOWN"}), reason="Not responding")
    model.nodes["a1"] = down
    assert kinds(to.plan([group("a", 1)], model.seen)) == ["KeepNode:a1"]
    model.nodes["a1"] = dataclasses.replace(down, states=frozenset({"DOWN", "NOT_RESPONDING"}))
    assert kinds(to.plan([group("a", 1)], model.seen)) == []


@pytest.mark.parametrize(
    ("text", "theirs", "problem"),
    [
        ("NodeName=n1\nPartitionName=p Nodes=n[1-2]\n", Lines(), "partition p names n2, which no line defines"),
        ("NodeName=n1\nNodeName=n[1-2]\n", Lines(), "n1 has two NodeName lines"),
        ("NodeName=n1\n", Lines(nodes=frozenset({"n1"})), "n1 stands in the site's lines as well"),
        ("NodeName=n1\nPartitionName=p Nodes=n1\nPartitionName=p Nodes=n1\n", Lines(), "partition p has two"),
    ],
)
def test_lines_that_would_end_slurmctld(text: str, theirs: Lines, problem: str) -> None:
    assert conf_problems(text, theirs=theirs)[0].startswith(problem)


@pytest.mark.parametrize("word", ["a b", "x\nNodeName=evil", "#"])
def test_no_word_breaks_a_line(word: str) -> None:
    from nodewatch.policy.cluster_nodes import Block

    blocks = [Block(nodes=("n1",), partition="p", shape=Shape(keys={"Feature": word}))]
    with pytest.raises(ValueError, match="cannot be"):
        nodes_conf(blocks, {}, theirs=frozenset())


def test_lines_of_the_site_are_read_as_slurm_reads_them() -> None:
    text = "# NodeName=no\nnodename=n[1-2] CPUs=4 \\\n  Gres=gpu:1 # x\nNodeName=DEFAULT CPUs=1\nPartitionName=p Nodes=ALL\n"
    assert read_lines([text]) == Lines(nodes=frozenset({"n1", "n2"}), partitions={"p": "ALL"})


WISHES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=150)
@given(wishes=WISHES, data=st.data())
def test_every_history_ends_where_it_was_wanted(wishes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Counts change, jobs come, EC2 refuses, an apply is cut off after any step: the model asserts that no machine with a job
    is ended and that no node has two; and when the jobs have gone, a last apply makes it so and a further plan is empty."""
    model = Model(Lines(nodes=frozenset(data.draw(st.sets(st.sampled_from(["b1", "a2"])), label="site"))))
    names = st.sampled_from([*POOLS["a"], *POOLS["b"]])
    a = b = 0
    for a, b, cut in wishes:
        model.refuses, model.refused = data.draw(st.sets(names, max_size=2), label="refused"), {}
        wanted = [group("a", a, "train"), group("b", b, "train")]
        for _ in range(3):
            found = to.plan(wanted, model.seen)
            for step in found.steps[: cut or None]:
                if model.refused and isinstance(step, (to.WriteLines, to.Reconfigure)):
                    continue
                model.do(step)
                model.start(data.draw(names, label="job"))
        if data.draw(st.booleans(), label="boots"):
            model.boot()
    model.end_jobs()
    model.refuses, model.refused = set(), {}
    wanted = [group("a", a, "train"), group("b", b, "train")]
    left = model.settle(*wanted)
    assert left == to.ClusterPlan()
    expected = {name for each in wanted for name in each.nodes} - model.theirs.nodes
    assert set(model.alive()) == expected
    assert set(model.nodes) == expected | model.theirs.nodes
    assert to.plan(wanted, model.seen) == to.ClusterPlan()


def addresses(model: Model) -> Mapping[str, str]:
    return {name: node.address for name, node in model.nodes.items()}


def test_an_address_is_given_to_ours_alone() -> None:
    model = Model(Lines(nodes=frozenset({"a1"})))
    model.instances["i-9"] = Instance(instance_id="i-9", state="running", private_ip="10.9.9.9", node="a1")
    model.settle(group("a", 2))
    assert addresses(model) == {"a1": "a1", "a2": "10.0.0.2"}
