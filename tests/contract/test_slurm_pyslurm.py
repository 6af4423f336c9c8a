"""pyslurm's process: what it does to the client when it dies, is late, talks nonsense, or is not what it says it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from nodewatch.clients.slurm_pyslurm import SlurmPyslurm
from nodewatch.errors import SlurmError

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def begin() -> Iterator[Callable[..., SlurmPyslurm]]:
    made: list[SlurmPyslurm] = []

    def make(script: str = "", *, deadline_s: float = 60.0) -> SlurmPyslurm:
        argv: dict[str, Sequence[str]] = {"argv": [sys.executable, "-c", script]} if script else {}
        made.append(SlurmPyslurm(deadline_s=deadline_s, **argv))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.mark.parametrize(
    ("setup", "says"),
    [
        ({"import": "fatal"}, "ended with exit code 1"),
        ({"import": "broken"}, "ended with exit code 3"),
        ({"renamed": True}, "not as its documentation says: jobs: AttributeError: .*allocated_nodes"),
    ],
    ids=["no slurm.conf", "no libslurm", "another API"],
)
def test_an_unusable_pyslurm_gives_way_to_the_commands(
    begin: Callable[..., SlurmPyslurm], cluster: Any, a_node: Make, a_job: Make, setup: dict[str, Any], says: str
) -> None:
    cluster.set(nodes=[a_node("n1")], jobs=[a_job(17)], **setup)
    client = begin()
    assert client.jobs()[17].is_running
    assert re.search(says, client.given_up)
    assert client.given_up.endswith("; the commands are used until nodewatch-controller is restarted")
    client.drain("n1", "nodewatch: r")
    client.requeue(17)
    client.reserve("r", ["n1"], 1)
    assert (client.nodes()["n1"].is_out, client.jobs()[17].is_pending) == (True, True)
    client.resume("n1")
    client.mark_down("n1", "nodewatch: r")
    client.set_address("n1", "10.0.0.9")
    client.unreserve("r")
    client.expedite(17, priority=7, exclude=("n1",), comment="nodewatch: c")
    assert (client.nodes()["n1"].is_down, client.nodes()["n1"].address) == (True, "10.0.0.9")
    assert (cluster.read()["reservations"], client.jobs()[17].priority) == ({}, 7)


def test_a_reservation_that_pyslurm_thinks_has_failed(begin: Callable[..., SlurmPyslurm], cluster: Any) -> None:
    """create() looks at an errno that an earlier call may have left."""
    cluster.set(stale_errno=True)
    begin().reserve("r", ["n1"], 1)
    assert list(cluster.read()["reservations"]) == ["r"]


def test_an_array_task_is_requeued_by_the_commands(
    begin: Callable[..., SlurmPyslurm], cluster: Any, a_job: Make
) -> None:
    cluster.set(jobs=[a_job(16, array=15, task=3)])
    begin().requeue("15_3")
    assert cluster.read()["jobs"][0]["restarts"] == 1


def test_an_exit_code_above_127(begin: Callable[..., SlurmPyslurm], cluster: Any, a_job: Make) -> None:
    """The one thing that is known to differ from the commands, which say 137."""
    cluster.set(jobs=[a_job(17, "FAILED", status=137 << 8)])
    assert begin().jobs()[17].exit_code == 9


HELLO = "import sys, time, json; print(json.dumps({'version': '25.11.2'}), flush=True); sys.stdin.readline();"
BAD_CHILDREN = {
    "dies": ("sys.exit(7)", "ended with exit code 7"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "ended with exit code -9"),
    "no JSON": ("print('nodes', flush=True); time.sleep(60)", "did not answer in JSON"),
    "a list": ("print('[]', flush=True); time.sleep(60)", "JSON that is no object"),
    "too deep": ("print('[' * 100000, flush=True); time.sleep(60)", "did not answer in JSON"),
    "half a line": ("sys.stdout.write('{'); sys.stdout.flush(); sys.exit(0)", "ended with exit code 0"),
}


@pytest.mark.parametrize(("script", "says"), BAD_CHILDREN.values(), ids=list(BAD_CHILDREN))
def test_a_bad_answer_is_an_error_each_time(begin: Callable[..., SlurmPyslurm], script: str, says: str) -> None:
    """And never the answer to the next question: a new process is asked then."""
    client = begin(HELLO + script)
    for _ in range(2):
        with pytest.raises(SlurmError, match=says):
            client.nodes()
    assert client.given_up == ""


def test_an_answer_without_a_line_end_is_late(begin: Callable[..., SlurmPyslurm]) -> None:
    client = begin(HELLO + "sys.stdout.write('{'); sys.stdout.flush(); time.sleep(60)", deadline_s=1.0)
    with pytest.raises(SlurmError, match="did not answer in time and its process was killed"):
        client.nodes()


def test_a_process_that_cannot_be_started(cluster: Any, a_node: Make) -> None:
    cluster.set(nodes=[a_node("n1")])
    client = SlurmPyslurm(argv=["/nonexistent/python"], deadline_s=60.0)
    assert client.nodes()["n1"].is_idle
    assert "cannot be started" in client.given_up


def test_a_question_larger_than_a_pipe(begin: Callable[..., SlurmPyslurm], cluster: Any, a_job: Make) -> None:
    cluster.set(jobs=[a_job(17, "PENDING")])
    names = [f"node-with-a-long-name-{index:05d}-x{index % 7}" for index in range(5000)]
    client = begin()
    client.expedite(17, priority=5, exclude=names, comment="nodewatch: c")
    assert set(client.jobs()[17].excluded_nodes) == set(names)
    assert client.given_up == ""
