"""What the controller relies on in its Slurm client, asked of both: the commands and pyslurm, over one and the same cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nodewatch.clients.slurm_choice import AnySlurm
from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.clients.slurm_pyslurm import SlurmPyslurm
from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode

Make = Callable[..., dict[str, Any]]
# Generous: only the tests of a hang wait for it.
_DEADLINE_S = 60.0


@pytest.fixture(params=["commands", "pyslurm"])
def begin(request: pytest.FixtureRequest, cluster: Any) -> Iterator[Callable[[float], AnySlurm]]:
    """Makes the client with a deadline."""
    made: list[AnySlurm] = []

    def make(deadline_s: float) -> AnySlurm:
        kind = SlurmCommands if request.param == "commands" else SlurmPyslurm
        made.append(kind(deadline_s=deadline_s))
        return made[-1]

    yield make
    for client in made:
        if isinstance(client, SlurmPyslurm):
            client.close()
            # Otherwise what was tested here was the commands.
            assert client.given_up == ""


@pytest.fixture
def client(begin: Callable[[float], AnySlurm]) -> AnySlurm:
    return begin(_DEADLINE_S)


def test_nodes(client: AnySlurm, cluster: Any, a_node: Make) -> None:
    why: dict[str, Any] = {"reason": "nodewatch: n2.gpu.1", "reason_at": 1700000200}
    cluster.set(
        nodes=[
            a_node("n1"),
            a_node("n2", "MIXED", "DRAIN", "NOT_RESPONDING", partitions=["train", "all"], **why),
            a_node("n3", "DOWN", started=0, partitions=[]),
        ]
    )
    assert client.nodes() == {
        "n1": SlurmNode(
            name="n1",
            address="10.0.0.1",
            states=frozenset({"IDLE"}),
            partitions=("train",),
            slurmd_started_at=1700000000.0,
        ),
        "n2": SlurmNode(
            name="n2",
            address="10.0.0.2",
            states=frozenset({"MIXED", "DRAIN", "NOT_RESPONDING"}),
            reason="nodewatch: n2.gpu.1",
            reason_at=1700000200.0,
            partitions=("train", "all"),
            slurmd_started_at=1700000000.0,
        ),
        "n3": SlurmNode(name="n3", address="10.0.0.3", states=frozenset({"DOWN"})),
    }


def test_jobs(client: AnySlurm, cluster: Any, a_job: Make) -> None:
    lists = {"excluded": "n[3,5]", "required": "n1", "comment": "nodewatch: again", "extra": "auto-resume"}
    cluster.set(
        jobs=[
            a_job(17, "FAILED", status=0x300, end=1700000500, restarts=2, **lists),
            a_job(18, "PENDING", nodes=None, start=0, priority=-1, batch=False, user="bob", uid=1002),
            a_job(19, "FAILED", status=9, end=1700000500),
        ]
    )
    common: dict[str, Any] = {"may_requeue": True, "account": "physics", "stderr_path": "/home/ada/train.err"}
    assert client.jobs() == {
        17: SlurmJob(
            job_id=17,
            states=frozenset({"FAILED"}),
            nodes=("n1", "n2"),
            partition="train",
            user="ada",
            name="train.sh",
            priority=100,
            restart_count=2,
            exit_code=3,
            started_at=1700000010.0,
            ended_at=1700000500.0,
            excluded_nodes=("n3", "n5"),
            required_nodes=("n1",),
            comment="nodewatch: again",
            extra="auto-resume",
            **common,
        ),
        18: SlurmJob(
            job_id=18,
            states=frozenset({"PENDING"}),
            partition="train",
            user="bob",
            name="train.sh",
            begins_at=1700000000.0,
            is_batch=False,
            **common,
        ),
        19: SlurmJob(
            job_id=19,
            states=frozenset({"FAILED"}),
            nodes=("n1", "n2"),
            partition="train",
            user="ada",
            name="train.sh",
            priority=100,
            exit_signal=9,
            started_at=1700000010.0,
            ended_at=1700000500.0,
            **common,
        ),
    }


def test_a_task_of_an_array_is_named_alone(client: AnySlurm, cluster: Any, a_job: Make) -> None:
    """Task 0 too, which pyslurm shows as having no number: by the array's id all its tasks would be requeued."""
    cluster.set(
        jobs=[
            a_job(16, array=15, task=0),
            a_job(17, array=15, task=1),
            a_job(15, "PENDING", nodes=None, array=15, waiting="2-9"),
        ]
    )
    jobs = client.jobs()
    assert {job_id: job.slurm_id for job_id, job in jobs.items()} == {16: "15_0", 17: "15_1", 15: "15"}
    client.requeue(jobs[16].slurm_id)
    assert [job["restarts"] for job in cluster.read()["jobs"]] == [1, 0, 0]


def test_an_empty_cluster(client: AnySlurm) -> None:
    assert (client.nodes(), client.jobs()) == ({}, {})


def test_a_node_is_changed(client: AnySlurm, cluster: Any, a_node: Make) -> None:
    cluster.set(nodes=[a_node("n1", "MIXED"), a_node("n2")])
    client.drain("n1", "nodewatch: a = b, 'c'")
    assert (client.nodes()["n1"].is_out, client.nodes()["n1"].reason) == (True, "nodewatch: a = b, 'c'")
    client.mark_down("n1", "nodewatch: down")
    assert (client.nodes()["n1"].is_down, client.nodes()["n1"].reason) == (True, "nodewatch: down")
    client.set_address("n1", "10.0.0.99")
    client.resume("n1")
    assert client.nodes()["n1"].is_idle
    assert client.nodes()["n1"].address == "10.0.0.99"
    client.reboot("n1", "nodewatch: reboot")
    assert client.nodes()["n1"].is_rebooting
    assert client.nodes()["n2"].is_idle, "the other node was not touched"


def test_a_reason_is_written_over_while_it_is_the_one_that_was_read(
    client: AnySlurm, cluster: Any, a_node: Make
) -> None:
    cluster.set(nodes=[a_node("n1", "MIXED", "DRAIN", reason="Action:Replce"), a_node("n2", "IDLE", "FAIL")])
    before = client.nodes()
    client.set_reason("n1", "Action:Replce [nodewatch: a = b; c]", was="Action:Replce")
    client.set_reason("n1", "too late", was="Action:Replce")
    client.set_reason("n9", "nobody", was="")
    after = client.nodes()
    assert after["n1"].reason == "Action:Replce [nodewatch: a = b; c]"
    assert (after["n1"].states, after["n2"]) == (before["n1"].states, before["n2"])


def test_a_node_in_service_need_not_be_resumed(client: AnySlurm, cluster: Any, a_node: Make) -> None:
    cluster.set(nodes=[a_node("n1", "MIXED")])
    client.resume("n1")
    assert client.nodes()["n1"].states == {"MIXED"}


def test_a_requeue(client: AnySlurm, cluster: Any, a_job: Make) -> None:
    cluster.set(jobs=[a_job(17)])
    client.requeue(17)
    client.requeue("17")
    job = client.jobs()[17]
    assert (job.is_pending, job.restart_count) == (True, 1), "the second found it pending, which is no error"


HOLDS = {
    "its user": ({"state": "PENDING", "reason": "JobHeldUser"}, "user"),
    "an administrator": ({"state": "PENDING", "reason": "JobHeldAdmin"}, "administrator"),
    "MaxBatchRequeue": ({"state": "REQUEUE_HOLD", "reason": "JobHoldMaxRequeue"}, "slurm"),
    "a launch": ({"state": "PENDING", "reason": "JobHeldAdmin", "description": "launch failed requeued held"}, "slurm"),
    "requeuehold": ({"state": "REQUEUE_HOLD", "reason": "None"}, "administrator"),
    "nobody": ({"state": "PENDING", "reason": "Priority"}, ""),
    "no longer": ({"state": "RUNNING", "reason": "JobHeldUser"}, ""),
}


@pytest.mark.parametrize(("fields", "who"), HOLDS.values(), ids=list(HOLDS))
def test_who_holds_a_job(client: AnySlurm, cluster: Any, a_job: Make, fields: dict[str, Any], who: str) -> None:
    cluster.set(jobs=[a_job(17, nodes=None, **fields)])
    job = client.jobs()[17]
    assert (job.held_by, job.is_pending) == (who, fields["state"] != "RUNNING")


def test_a_hold_is_taken_off(client: AnySlurm, cluster: Any, a_job: Make) -> None:
    cluster.set(
        jobs=[a_job(17, "PENDING", nodes=None, reason="JobHoldMaxRequeue"), a_job(16, "PENDING", array=15, task=0)]
    )
    client.release(17)
    client.release("15_0")
    assert [job["reason"] for job in cluster.read()["jobs"]] == ["None", "None"]


def test_components_of_a_heterogeneous_job(client: AnySlurm, cluster: Any, a_job: Make) -> None:
    cluster.set(jobs=[a_job(17, het=17, offset=0), a_job(18, het=17, offset=1)])
    jobs = client.jobs()
    assert [(jobs[i].slurm_id, jobs[i].requeue_id, jobs[i].het_job_offset) for i in (17, 18)] == [
        ("17", "17", 0),
        ("18", "17", 1),
    ]


def test_a_job_is_let_start_at_once(client: AnySlurm, cluster: Any, a_job: Make) -> None:
    cluster.set(jobs=[a_job(17, "PENDING", required="n1")])
    client.expedite(17, priority=900, exclude=("n3", "n2"), comment="nodewatch: n2 failed", require=("n4", "n5"))
    job = client.jobs()[17]
    assert (job.priority, job.comment) == (900, "nodewatch: n2 failed")
    assert (set(job.excluded_nodes), set(job.required_nodes)) == ({"n2", "n3"}, {"n4", "n5"})
    client.expedite(17, priority=901, exclude=("n2",), comment="nodewatch: again")
    assert set(client.jobs()[17].required_nodes) == {"n4", "n5"}, "None leaves the list alone"
    client.expedite(17, priority=902, exclude=(), comment="nodewatch: again", require=())
    job = client.jobs()[17]
    assert (job.priority, job.excluded_nodes, job.required_nodes) == (902, (), ()), "an empty list empties"


def test_a_reservation(client: AnySlurm, cluster: Any) -> None:
    for _ in range(2):
        client.reserve("nodewatch-17-0", ["n3", "n1"], 7)
    assert cluster.read()["reservations"] == {
        "nodewatch-17-0": {"nodes": "n[1,3]", "minutes": 7, "users": ["root"], "ignores_jobs": True}
    }
    for _ in range(2):
        client.unreserve("nodewatch-17-0")
    assert cluster.read()["reservations"] == {}


REFUSED: dict[str, tuple[Callable[[AnySlurm], object], str]] = {
    "drain": (lambda s: s.drain("n9", "r"), "Invalid node name specified"),
    "down": (lambda s: s.mark_down("n9", "r"), "Invalid node name specified"),
    "resume": (lambda s: s.resume("n9"), "Invalid node name specified"),
    "address": (lambda s: s.set_address("n9", "10.0.0.9"), "Invalid node name specified"),
    "reboot": (lambda s: s.reboot("n9", "r"), "Invalid node name specified"),
    "requeue": (lambda s: s.requeue(99), "Invalid job id specified"),
    "release": (lambda s: s.release(99), "Invalid job id specified"),
    "expedite": (lambda s: s.expedite(99, priority=1, exclude=("n1",), comment="c"), "Invalid job id specified"),
}


@pytest.mark.parametrize(("ask", "says"), REFUSED.values(), ids=list(REFUSED))
def test_what_slurm_refuses_is_an_error_in_its_words(
    client: AnySlurm, ask: Callable[[AnySlurm], object], says: str
) -> None:
    with pytest.raises(SlurmError, match=says) as caught:
        ask(client)
    assert len(str(caught.value).splitlines()) == 1


ALL: dict[str, Callable[[AnySlurm], object]] = {
    "nodes": lambda s: s.nodes(),
    "jobs": lambda s: s.jobs(),
    "config": lambda s: s.config(),
    "reserve": lambda s: s.reserve("r", ["n1"], 1),
    "unreserve": lambda s: s.unreserve("r"),
    **{name: ask for name, (ask, _) in REFUSED.items()},
}


@pytest.mark.parametrize("ask", ALL.values(), ids=list(ALL))
def test_no_slurmctld(client: AnySlurm, cluster: Any, ask: Callable[[AnySlurm], object]) -> None:
    cluster.set(fault="outage")
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        ask(client)


def test_a_slurmctld_that_hangs_and_comes_back(begin: Callable[[float], AnySlurm], cluster: Any, a_node: Make) -> None:
    cluster.set(fault="hang", nodes=[a_node("n1")])
    client = begin(2.0)
    for ask in (client.nodes, lambda: client.drain("n1", "nodewatch: r")):
        with pytest.raises(SlurmError, match="did not answer in time"):
            ask()
    cluster.set(fault="")
    assert begin(_DEADLINE_S).nodes()["n1"].is_idle


def test_a_text_that_cannot_be_passed_on(client: AnySlurm, cluster: Any, a_node: Make) -> None:
    cluster.set(nodes=[a_node("n1")])
    with pytest.raises(SlurmError, match="embedded null byte"):
        client.drain("n1", "nodewatch: \0 more")
    assert client.nodes()["n1"].is_idle


def test_the_requests_of_a_tick_do_not_grow(client: AnySlurm, cluster: Any, a_node: Make, a_job: Make) -> None:
    asked = []
    for size in (2, 2000):
        nodes = [a_node(f"n{index}") for index in range(size)]
        cluster.set(nodes=nodes, jobs=[a_job(index + 1) for index in range(size)])
        assert (len(client.nodes()), len(client.jobs())) == (size, size)
        asked.append(cluster.requests())
    assert asked == [["read nodes", "read jobs"]] * 2


def test_release_and_configuration(client: AnySlurm) -> None:
    assert client.version() == "25.11.7"
    assert client.config() == {"ClusterName": "east"}
