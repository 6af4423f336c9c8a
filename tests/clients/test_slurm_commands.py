"""Slurm's commands: what three releases print, and that nothing but a whole answer is taken for one.

The programs are small scripts put first on PATH; what they print has the shapes of Slurm 22.05 (data_parser 0.0.37: plain
numbers, a state word and state_flags), 24.11 (0.0.42) and 26.05 (lists, `{"set","infinite","number"}`).
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodewatch.clients.command import run
from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.errors import SlurmError
from nodewatch.model.cluster import SlurmJob, SlurmNode

Install = Callable[[str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a shell script of that name on PATH; it logs its arguments to `<name>.log`, one call a line."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    def put(name: str, body: str) -> Path:
        path = programs / name
        log = tmp_path / f"{name}.log"
        path.write_text(f"""#!/bin/sh\n(printf '%s|' "$@"; echo) >> {log}\n{body}\n""")
        path.chmod(0o755)
        return log

    return put


def printing(tmp_path: Path, document: object) -> str:
    file = tmp_path / f"answer-{time.monotonic_ns()}.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return f"cat {file}"


def number(value: float) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}


UNSET = {"set": False, "infinite": False, "number": 0}

NODE_22 = {
    "architecture": "x86_64",
    "address": "10.0.0.2",
    "hostname": "n2",
    "name": "n2",
    "partitions": ["train", "all"],
    "reason": "nodewatch: n2.gpu.100 gpu.lost on GPU-0",
    "reason_changed_at": 1700000000,
    "state": "mixed",
    "state_flags": ["DRAIN", "NOT_RESPONDING"],
}
NODE_24 = {
    "address": "10.0.0.2",
    "hostname": "n2",
    "name": "n2",
    "partitions": ["train", "all"],
    "reason": "nodewatch: n2.gpu.100 gpu.lost on GPU-0",
    "reason_changed_at": number(1700000000),
    "state": ["MIXED", "DRAIN", "NOT_RESPONDING"],
    "next_state_after_reboot": ["INVALID"],
}
NODE_26 = {**NODE_24, "topology": "default:/sw1", "gres_used": "gpu:0", "cert_flags": [], "instance_id": ""}
NODE = SlurmNode(
    name="n2",
    address="10.0.0.2",
    states=frozenset({"MIXED", "DRAIN", "NOT_RESPONDING"}),
    reason="nodewatch: n2.gpu.100 gpu.lost on GPU-0",
    partitions=("train", "all"),
    reason_at=1700000000.0,
)

JOB_22 = {
    "array_job_id": 0,
    "array_task_id": None,
    "batch_flag": True,
    "comment": "nodewatch: n2 failed",
    "eligible_time": 1700000000,
    "end_time": 1700003600,
    "excluded_nodes": "n[2,5]",
    "exit_code": 256,
    "job_id": 17,
    "job_state": "FAILED",
    "name": "train.sh",
    "nodes": "n[1-3]",
    "partition": "train",
    "priority": 4294901750,
    "restart_cnt": 1,
    "start_time": 1700000010,
    "user_name": "ada",
}
JOB_24 = {
    **JOB_22,
    "array_job_id": number(0),
    "array_task_id": UNSET,
    "eligible_time": number(1700000000),
    "end_time": number(1700003600),
    "exit_code": {
        "status": ["ERROR"],
        "return_code": number(1),
        "signal": {"id": UNSET, "name": ""},
    },
    "extra": "",
    "job_state": ["FAILED"],
    "priority": number(4294901750),
    "start_time": number(1700000010),
}
JOB_26 = {**JOB_24, "licenses_allocated": "", "submit_line": "sbatch --auto-resume train.sh"}
JOB = SlurmJob(
    job_id=17,
    states=frozenset({"FAILED"}),
    nodes=("n1", "n2", "n3"),
    partition="train",
    user="ada",
    name="train.sh",
    priority=4294901750,
    restart_count=1,
    exit_code=1,
    started_at=1700000010.0,
    ended_at=1700003600.0,
    excluded_nodes=("n2", "n5"),
    comment="nodewatch: n2 failed",
)


@pytest.mark.parametrize("entry", [NODE_22, NODE_24, NODE_26], ids=["22.05", "24.11", "26.05"])
def test_a_node_reads_the_same_in_every_release(install: Install, tmp_path: Path, entry: dict[str, Any]) -> None:
    log = install("scontrol", printing(tmp_path, {"meta": {}, "errors": [], "nodes": [entry]}))
    assert SlurmCommands().nodes() == {"n2": NODE}
    assert log.read_text() == "show|nodes|--json|\n"


@pytest.mark.parametrize("entry", [JOB_22, JOB_24, JOB_26], ids=["22.05", "24.11", "26.05"])
def test_a_job_reads_the_same_in_every_release(install: Install, tmp_path: Path, entry: dict[str, Any]) -> None:
    log = install("squeue", printing(tmp_path, {"meta": {}, "errors": [], "warnings": [], "jobs": [entry]}))
    assert SlurmCommands().jobs() == {17: JOB}
    assert log.read_text() == "--all|--states=all|--json|\n"


def one_job(install: Install, tmp_path: Path, **fields: Any) -> SlurmJob:
    install("squeue", printing(tmp_path, {"jobs": [{**JOB_24, **fields}]}))
    return SlurmCommands().jobs()[17]


def test_a_requeued_job_that_waits(install: Install, tmp_path: Path) -> None:
    job = one_job(
        install,
        tmp_path,
        job_state=["PENDING", "COMPLETING"],
        nodes="",
        start_time=number(0),
        end_time=UNSET,
        eligible_time=number(1700000121),
        priority={"set": True, "infinite": True, "number": 0},
    )
    assert job.is_pending
    assert job.is_active
    assert (job.nodes, job.started_at, job.ended_at, job.begins_at) == ((), None, None, 1700000121.0)
    assert job.priority == 0


def test_a_task_of_an_array_that_was_killed(install: Install, tmp_path: Path) -> None:
    killed = {"status": ["SIGNALED"], "return_code": UNSET, "signal": {"id": number(9), "name": "SIGKILL"}}
    job = one_job(install, tmp_path, array_job_id=number(15), array_task_id=number(0), exit_code=killed)
    assert (job.array_job_id, job.array_task_id) == (15, 0)
    assert (job.exit_code, job.exit_signal) == (0, 9)
    assert one_job(install, tmp_path, exit_code=9).exit_signal == 9, "22.05 gives the wait status"


def test_nodes_without_partition_or_reason(install: Install, tmp_path: Path) -> None:
    entry = {"name": "n9", "state": "idle", "state_flags": [], "partitions": [], "reason": "", "address": "n9"}
    install("scontrol", printing(tmp_path, {"errors": [], "nodes": [entry]}))
    assert SlurmCommands().nodes()["n9"].is_idle


BAD_ANSWERS: dict[str, tuple[object, str]] = {
    "errors": (
        {"nodes": [], "jobs": [], "errors": [{"error": "Unable to contact slurm controller"}]},
        "reported errors",
    ),
    "another key": ({"errors": [], "hosts": []}, "has no list"),
    "null": ({"errors": [], "nodes": None, "jobs": None}, "has no list"),
    "a table": ({"errors": [], "nodes": {}, "jobs": {}}, "has no list"),
    "a list": ([], "no object"),
    "text": ("slurm_load_node error: Unable to contact slurm controller", "did not print JSON"),
    "nothing": ("", "did not print JSON"),
    "half": ('{"errors": [], "nodes": [{"name": "n1"', "did not print JSON"),
    "deep": ("[" * 100_000, "did not print JSON"),
    "an entry without a name": ({"nodes": [NODE_24, {"state": ["IDLE"]}], "jobs": [JOB_24, {}]}, "cannot read"),
    "an entry that is none": ({"nodes": [NODE_24, None], "jobs": [JOB_24, 17]}, "cannot read"),
    "a bad hostlist": ({"nodes": [{}], "jobs": [{**JOB_24, "nodes": "n[1-"}]}, "cannot read"),
    "a bad number": ({"nodes": [[]], "jobs": [{**JOB_24, "priority": {"set": True}}]}, "cannot read"),
    "an infinite number": ({"nodes": ["n1"], "jobs": [{**JOB_24, "restart_cnt": float("inf")}]}, "cannot read"),
}


@pytest.mark.parametrize(("answer", "says"), BAD_ANSWERS.values(), ids=list(BAD_ANSWERS))
def test_what_is_no_whole_answer_is_an_error(install: Install, tmp_path: Path, answer: object, says: str) -> None:
    for program in ("scontrol", "squeue"):
        install(program, printing(tmp_path, answer))
    with pytest.raises(SlurmError, match=says) as nodes:
        SlurmCommands().nodes()
    with pytest.raises(SlurmError, match=says) as jobs:
        SlurmCommands().jobs()
    assert str(nodes.value).startswith("`scontrol show nodes --json` ")
    assert str(jobs.value).startswith("`squeue ")


def test_a_whole_list_with_exit_code_1_is_not_believed(install: Install, tmp_path: Path) -> None:
    body = printing(tmp_path, {"errors": [], "nodes": [NODE_24]})
    install("scontrol", f"{body}; echo 'slurm_load_node error: Zero Bytes were transmitted or received' >&2; exit 1")
    with pytest.raises(SlurmError, match="failed: slurm_load_node error: Zero Bytes"):
        SlurmCommands().nodes()


def test_exit_1_without_a_word(install: Install) -> None:
    install("squeue", "exit 1")
    with pytest.raises(SlurmError, match="ended with exit code 1 and no word"):
        SlurmCommands().jobs()


def test_a_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (SlurmCommands().nodes, SlurmCommands().jobs, SlurmCommands().config):
        with pytest.raises(SlurmError, match="is not installed"):
            ask()


def test_a_program_that_cannot_be_run(install: Install, tmp_path: Path) -> None:
    install("scontrol", "")
    (tmp_path / "bin" / "scontrol").write_bytes(b"\x7fELF garbage")
    with pytest.raises(SlurmError, match="scontrol cannot be run"):
        SlurmCommands().nodes()
    with pytest.raises(SlurmError, match="cannot be run: embedded null byte"):
        SlurmCommands().drain("n1", "nodewatch: \0")


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_hang_is_ended_with_its_children(install: Install, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    install("scontrol", f"sleep 60 & echo $! >> {pids}; echo $$ >> {pids}; trap '' TERM; wait; sleep 60")
    began = time.monotonic()
    with pytest.raises(SlurmError, match="scontrol did not answer in time and was killed"):
        SlurmCommands(deadline_s=0.5).nodes()
    assert time.monotonic() - began < 3.0
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 2
    end = time.monotonic() + 5
    while any(map(is_alive, children)):
        assert time.monotonic() < end, "a child outlived the deadline"
        time.sleep(0.01)


def test_a_child_that_fled_its_group_does_not_hold_us(install: Install, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    install("scontrol", f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 30' & sleep 60")
    began = time.monotonic()
    with pytest.raises(SlurmError, match="did not answer in time"):
        SlurmCommands(deadline_s=0.5).nodes()
    assert time.monotonic() - began < 4.0
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_output_of_many_megabytes_is_read_whole(install: Install, tmp_path: Path) -> None:
    nodes = [{**NODE_24, "name": f"n{index}", "comment": "x" * 500} for index in range(10_000)]
    install("scontrol", printing(tmp_path, {"errors": [], "nodes": nodes}))
    assert len(SlurmCommands().nodes()) == 10_000


CHANGES: list[tuple[Callable[[SlurmCommands], None], str]] = [
    (lambda s: s.drain("n2", "nodewatch: a b"), "update|nodename=n2|state=drain|reason=nodewatch: a b|"),
    (lambda s: s.mark_down("n2", "nodewatch: c"), "update|nodename=n2|state=down|reason=nodewatch: c|"),
    (lambda s: s.resume("n2"), "update|nodename=n2|state=resume|"),
    (lambda s: s.set_address("n2", "10.0.0.9"), "update|nodename=n2|nodeaddr=10.0.0.9|"),
    (lambda s: s.reboot("n2", "nodewatch: d"), "reboot|ASAP|nextstate=DOWN|reason=nodewatch: d|n2|"),
    (lambda s: s.requeue(17), "requeue|17|"),
    (lambda s: s.release("15_0"), "release|15_0|"),
    (
        lambda s: s.expedite("15_0", priority=5, exclude=(), comment="g"),
        "update|jobid=15_0|starttime=now|priority=5|comment=g|excnodelist=|",
    ),
    (
        lambda s: s.expedite(17, priority=5, exclude=("n2", "n3"), comment="nodewatch: e"),
        "update|jobid=17|starttime=now|priority=5|comment=nodewatch: e|excnodelist=n[2-3]|",
    ),
    (
        lambda s: s.expedite(17, priority=5, exclude=(), comment="f"),
        "update|jobid=17|starttime=now|priority=5|comment=f|excnodelist=|",
    ),
    (
        lambda s: s.reserve("nodewatch-17-0", ["n1", "n3"], 1),
        "create|reservationname=nodewatch-17-0|starttime=now|duration=1|users=root|nodes=n[1,3]|flags=ignore_jobs|",
    ),
    (lambda s: s.unreserve("nodewatch-17-0"), "delete|reservationname=nodewatch-17-0|"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[words for _, words in CHANGES])
def test_changes(install: Install, change: Callable[[SlurmCommands], None], words: str) -> None:
    log = install("scontrol", "exit 0")
    change(SlurmCommands())
    assert log.read_text() == words + "\n"

    install("scontrol", "echo 'slurm_update error: Access/permission denied' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"^`scontrol .*` failed: slurm_update error: Access/permission denied$"):
        change(SlurmCommands())


@pytest.mark.parametrize(
    ("complaint", "change"),
    [
        ("Job is pending execution", lambda s: s.requeue(17)),
        ("Error creating the reservation: Duplicate reservation name", lambda s: s.reserve("r", ["n1"], 1)),
        ("Error deleting reservation: Requested reservation not found", lambda s: s.unreserve("r")),
    ],
)
def test_what_is_so_already_is_no_error(
    install: Install, complaint: str, change: Callable[[SlurmCommands], None]
) -> None:
    install("scontrol", f"echo '{complaint}' >&2; exit 1")
    change(SlurmCommands())


@pytest.mark.parametrize(("state", "is_error"), [("idle", False), ("down", True)])
def test_a_node_in_service_need_not_be_resumed(install: Install, tmp_path: Path, state: str, is_error: bool) -> None:
    show = printing(tmp_path, {"errors": [], "nodes": [{"name": "n2", "state": state, "state_flags": []}]})
    refuse = "echo 'slurm_update error: Invalid node state specified' >&2; exit 1"
    install("scontrol", f'if [ "$1" = show ]; then {show}; else {refuse}; fi')
    if is_error:
        with pytest.raises(SlurmError, match="Invalid node state"):
            SlurmCommands().resume("n2")
    else:
        SlurmCommands().resume("n2")


def test_configuration(install: Install) -> None:
    lines = (
        "Configuration data as of 2026",
        "Prolog[0] = /a/b",
        "SchedulerParameters = x=1,y",
        "Epilog   =",
        "",
        "is UP",
    )
    text = "\\n".join(lines)
    install("scontrol", f"printf '{text}'")
    assert SlurmCommands().config() == {"Prolog[0]": "/a/b", "SchedulerParameters": "x=1,y", "Epilog": ""}


def test_the_environment_can_be_given() -> None:
    result = run(["/bin/sh", "-c", "echo $WORD"], deadline_s=5, env={"WORD": "hello"})
    assert (result.ok, result.stdout) == (True, "hello\n")
    assert not run(["/bin/sh", "-c", "kill -9 $$"], deadline_s=5).ok
