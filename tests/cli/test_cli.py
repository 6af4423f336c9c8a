"""The operator's commands as processes, asking a real engine over its real socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch import __version__
from nodewatch.cli.table import table
from nodewatch.controller.operators import OperatorServer
from nodewatch.controller.questions import Questions
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

Serve = Callable[..., Path]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nodewatch.cli", *map(str, arguments)]
    env = {**os.environ, "TZ": "UTC", **environment}
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, env=env)


def answerer(world: World, *, may_act: set[int]) -> Callable[[Mapping[str, Any], int], Mapping[str, Any]]:
    """The daemon's answers, with the world's clock for the time of day."""
    questions = Questions(
        world.engine, may_act=may_act, problems=list, clock=world.clock, wake=lambda: world.run(seconds=3)
    )
    return questions.answer


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[OperatorServer] = []

    def start(world: World, may_act: set[int] | None = None) -> Path:
        path = tmp_path / f"controller-{len(servers)}.sock"
        servers.append(OperatorServer(path, answerer(world, may_act={os.getuid()} if may_act is None else may_act)))
        kwargs = {"poll_interval": 0.02}
        threading.Thread(target=servers[-1].serve_forever, kwargs=kwargs, daemon=True).start()
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def broken_world() -> tuple[World, int]:
    """A marked job on n1-n3, of which n2 has just lost a GPU; n4 was the spare."""
    world = World(nodes=4, spares=1)
    world.run(seconds=3)
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=30)
    world.node("n2").loses_gpu()
    world.run(seconds=20)
    return world, job


def columns(text: str, first: str) -> list[str]:
    """The cells of the table row that begins with `first`."""
    row = next(line for line in text.splitlines() if line.split()[:1] == [first])
    return [cell.strip() for cell in row.split("  ") if cell.strip()]


def test_status_of_a_healthy_cluster(serve: Serve) -> None:
    world = World(nodes=3, spares=1)
    world.run(seconds=5)
    done = run("status", "--socket", serve(world))

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mode act\n")
    assert columns(done.stdout, "NODE") == ["NODE", "SLURM", "HEALTH", "INSTANCE", "REPAIR", "FINDING"]
    assert columns(done.stdout, "n1") == ["n1", "idle", "healthy", "i-0001", "-", "-"]
    assert columns(done.stdout, "n3") == ["n3", "drain+idle (spare)", "healthy", "i-0003", "-", "-"]
    assert "HELD BACK" not in done.stdout


def test_status_of_a_broken_one(serve: Serve) -> None:
    world, job = broken_world()
    path = serve(world)
    done = run("status", "--socket", path)

    assert (done.returncode, done.stderr) == (1, "")
    row = columns(done.stdout, "n2")
    assert row[2:] == ["failed", "i-0002", "replace: booting", "gpu.lost on GPU-0"] or "replace:" in " ".join(row)
    assert columns(done.stdout, "JOB") == ["JOB", "USER", "STATE", "NODES", "RESTARTS", "LAST INTERRUPTION"]
    row = columns(done.stdout, str(job))
    assert row[1:5] == ["ada", "running", "n1,n3,n4", "1 of 3"]
    assert "n2 failed (gpu." in row[5]
    assert columns(done.stdout, "HELD") == ["HELD BACK", "WHY"]
    assert "waiting for the agent on i-0005" in done.stdout

    done = run("status", "--json", "--socket", path)
    assert (done.returncode, done.stderr) == (1, "")
    data = json.loads(done.stdout)
    nodes = {node["node"]: node for node in data["nodes"]}
    assert list(nodes) == ["n1", "n2", "n3", "n4"]
    (case,) = nodes["n2"]["cases"]
    assert (case["rung"], case["step"], case["severity"]) == ("replace", "booting", "fatal")
    assert [entry["job"] for entry in data["jobs"]] == [job]
    assert (data["mode"], data["paused"], data["slurm_error"], data["ec2_error"]) == ("act", False, None, None)


def test_status_without_slurm_says_so(serve: Serve) -> None:
    world = World(nodes=3, spares=0, rules=Rules(mode="observe", paused=True))
    world.run(seconds=3)
    world.slurm.outage = world.ec2.outage = True
    world.run(seconds=3)
    done = run("status", "--socket", serve(world))
    assert done.returncode == 1
    assert done.stdout.startswith("mode observe, paused\nSLURM UNREADABLE: `scontrol` failed: Unable to contact")
    assert "\nEC2 UNREADABLE: EC2 could not be asked" in done.stdout
    assert columns(done.stdout, "n1")[1:3] == ["not in slurm", "healthy"]


def test_explain_a_node(serve: Serve) -> None:
    world, _ = broken_world()
    world.run(minutes=4)
    path = serve(world)
    done = run("explain", "n2", "--socket", path)

    assert (done.returncode, done.stderr) == (0, "")
    head, story = done.stdout.split("\n\n", 1)
    assert head.startswith("node n2: drain+idle, held as a warm spare, healthy\n")
    assert "  machine   i-0005 at 10.0.0.5" in head
    told = [line.split("  ", 1)[1] for line in story.splitlines()]
    expected = [
        "the agent says failed: ",
        "case n2.gpu.",
        "done: drain n2 (nodewatch: ",
        "done: put the spare n4 into service for n2",
        "done: launch a new instance for n2 from compute: i-0005 at 10.0.0.5",
        "done: terminate i-0002 (was n2)",
        "done: give n2 the address 10.0.0.5",
        "the deep checks passed",
        "done: hold n2 as a warm spare",
    ]
    places = [next((i for i, line in enumerate(told) if line.startswith(words)), -1) for words in expected]
    assert -1 not in places, (expected[places.index(-1)], told)
    assert told[-1].startswith("case n2.gpu.")
    assert "cured: i-0002 was replaced by i-0005" in told[-1]
    assert story.startswith("2023-11-14 22:1"), "the operator's own time zone"

    data = json.loads(run("explain", "n2", "--json", "--socket", path).stdout)
    assert (data["kind"], data["subject"], data["now"]["instance"]) == ("node", "n2", "i-0005")
    assert [entry["text"] for entry in data["story"]] == told


def test_explain_jobs(serve: Serve) -> None:
    world, job = broken_world()
    plain = world.submit(nodes=1, auto_resume=None)
    world.run(seconds=3)
    path = serve(world)
    done = run("explain", str(job), "--socket", path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"job {job} : running on n1,n3,n4\n  restarts  1 of 3 used\n")
    assert "  judged    hardware: n2 failed (gpu." in done.stdout
    assert "started on n1,n2,n3, --auto-resume=3\n" in done.stdout
    assert "started again (run 2) on n1,n3,n4, --auto-resume=3\n" in done.stdout

    done = run("explain", str(plain), "--socket", path)
    assert done.returncode == 0
    assert (
        f"job {plain} : pending on no nodes\n  restarts  none: it was submitted without --auto-resume\n" in done.stdout
    )
    assert done.stdout.endswith("nothing has happened to it since the journal began\n")


@pytest.mark.parametrize(
    ("subject", "says"),
    [
        ("n99", "no node 'n99' is known to Slurm or by its agent: `sinfo` lists the names"),
        ("99", "no job 99 is known: give the id of a job of this cluster, or a node name"),
        ("²", "no node '²' is known to Slurm or by its agent: `sinfo` lists the names"),
        ("9" * 5000, "is known to Slurm or by its agent: `sinfo` lists the names"),
        ("", "no node '' is known"),
    ],
)
def test_what_is_not_known_is_one_sentence(serve: Serve, subject: str, says: str) -> None:
    world = World(nodes=2, spares=0)
    world.run(seconds=3)
    done = run("explain", "--socket", serve(world), "--", subject)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("nodewatch: ")
    assert says in line


@pytest.mark.parametrize("arguments", [("status",), ("explain", "n1"), ("status", "--json")])
def test_without_a_controller(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, "--socket", tmp_path / "none.sock")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"nodewatch: no controller answers at {tmp_path / 'none.sock'}: run this on the head node")


def test_a_socket_that_nobody_serves_any_more(tmp_path: Path) -> None:
    path = tmp_path / "controller.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    done = run("status", "--socket", path)
    assert done.returncode == 2
    assert "no controller answers at" in done.stderr


@pytest.mark.parametrize("reply", [b"", b"garbage\n", b"[]\n", b"17\n", b'"error"\n'])
def test_an_answer_that_is_none(tmp_path: Path, reply: bytes) -> None:
    path = tmp_path / "controller.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def speak() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(reply)
            connection.close()

        threading.Thread(target=speak, daemon=True).start()
        done = run("status", "--socket", path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"nodewatch: the controller at {path} answered something that is no JSON")


def fake_scontrol(tmp_path: Path, answer: str, code: int = 0) -> dict[str, str]:
    (tmp_path / "answer").write_text(answer)
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {tmp_path / 'answer'}\nexit {code}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


GOOD = """Configuration data as of 2026-01-01T00:00:00
Epilog[0]               = /usr/lib/nodewatch/hooks/epilog
EpilogSlurmctld[0]      = /usr/lib/nodewatch/hooks/epilog_slurmctld
HealthCheckInterval     = 30 sec
HealthCheckProgram      = /usr/lib/nodewatch/hooks/healthcheck
JobFileAppend           = 1
JobRequeue              = 1
PlugStackConfig         = {plugstack}
Prolog[0]               = /usr/lib/nodewatch/hooks/prolog
PrologFlags             = Alloc
PrologSlurmctld[0]      = /usr/lib/nodewatch/hooks/prolog_slurmctld
RebootProgram           = /usr/sbin/reboot
SchedulerParameters     = nohold_on_prolog_fail
SLURM_VERSION           = 24.11.5
"""


def test_doctor_on_a_good_set_up(tmp_path: Path) -> None:
    plugstack = tmp_path / "plugstack.conf"
    plugstack.write_text("optional nodewatch_auto_resume.so\n")
    environment = fake_scontrol(tmp_path, GOOD.format(plugstack=plugstack))
    done = run("doctor", **environment)
    assert (done.returncode, done.stdout) == (0, "nothing to change\n")
    assert "more would be well: nodewatch doctor --advice" in done.stderr
    done = run("doctor", "--json", **environment)
    said = json.loads(done.stdout)
    assert (done.returncode, said["slurm_version"], said["problems"]) == (0, "24.11.5", [])
    done = run("doctor", "--advice", **environment)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["nothing to change", *(f"advice: {sentence}" for sentence in said["advice"])]


def test_doctor_on_a_sites_file(tmp_path: Path) -> None:
    """No slurmctld, no scontrol: the file, what it includes, and plugstack.conf beside it."""
    lines = (Path(__file__).parents[2] / "slurm_hooks" / "conf" / "slurm.conf").read_text()
    (tmp_path / "nodewatch.conf").write_text(lines)
    (tmp_path / "plugstack.conf").write_text("optional nodewatch_auto_resume.so\n")
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=x\nSlurmUser=slurm\nRebootProgram=/usr/sbin/reboot\nInclude nodewatch.conf\n")
    done = run("doctor", "--config", conf, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "nothing to change\n"), done.stdout
    done = run("doctor", "--config", conf, "--release", "25.11", "--json", PATH=str(tmp_path))
    assert any("enable_expedited_requeue" in sentence for sentence in json.loads(done.stdout)["advice"])
    conf.write_text(conf.read_text() + "SchedulerParameters=bf_continue\n")
    done = run("doctor", "--config", conf, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "SchedulerParameters is given more than once" in done.stdout
    assert "lacks nohold_on_prolog_fail" in done.stdout


def test_doctor_on_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("doctor", "--config", tmp_path / "slurm.conf")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be read (No such file or directory)" in done.stderr


def test_doctor_follows_what_plugstack_includes(tmp_path: Path) -> None:
    (tmp_path / "plugstack.conf.d").mkdir()
    (tmp_path / "plugstack.conf.d" / "a.conf").write_text("optional nodewatch_auto_resume.so\n")
    plugstack = tmp_path / "plugstack.conf"
    plugstack.write_text("include plugstack.conf.d/*\n")
    assert run("doctor", **fake_scontrol(tmp_path, GOOD.format(plugstack=plugstack))).returncode == 0


def test_doctor_on_a_bare_one(tmp_path: Path) -> None:
    plugstack = tmp_path / "none.conf"
    done = run("doctor", **fake_scontrol(tmp_path, f"Prolog = (null)\nPlugStackConfig = {plugstack}\n"))
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 10
    assert f"{plugstack} cannot be read" in done.stdout


def test_doctor_without_slurm(tmp_path: Path) -> None:
    done = run("doctor", PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nodewatch: `scontrol show config` failed: scontrol is not installed\n"
    done = run("doctor", **fake_scontrol(tmp_path, "", code=1))
    assert done.returncode == 2


def test_the_commands_that_there_are() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in ("status", "explain", "doctor"):
        assert f"\n  {name} " in done.stdout
    assert run("--version").stdout == f"nodewatch, version {__version__}\n"
    assert run("statsu").returncode == 2


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "LONG"), [("wide", "x"), ("b", "")]) == "A     LONG\nwide  x\nb"
    assert table(("A", "B"), []) == "A  B"


def test_check_waits_for_the_answer_and_says_what_failed(serve: Serve) -> None:
    world = World(nodes=3, spares=0)
    world.run(seconds=5)
    socket = serve(world)
    done = run("check", "--deep", "n[1-2]", "--socket", socket)

    assert (done.returncode, done.stdout.count("passed")) == (0, 2), done.stderr
    assert columns(done.stdout, "n1")[1] == "passed"

    world.node("n2").deep_checks = False
    world.clock.advance(1)
    done = run("check", "--deep", "n1", "n2", "--json", "--socket", socket)

    answers = {each["node"]: each["passed"] for each in json.loads(done.stdout)["checks"]}
    assert (done.returncode, answers) == (1, {"n1": True, "n2": False})


def test_check_of_a_busy_node_waits_and_can_be_withdrawn(serve: Serve) -> None:
    world = World(nodes=2, spares=0)
    world.run(seconds=5)
    job = world.submit(nodes=1, auto_resume=None)
    world.run(seconds=5)
    socket = serve(world)

    assert run("check", "--deep", "--no-wait", "n1", "--socket", socket).stdout == "asked for deep checks of n1\n"
    assert world.reasons("n1") == [f"deep checks were asked for: n1 is busy with {job}"]
    assert run("check", "--withdraw", "n1", "--socket", socket).stdout == "withdrawn: n1\n"
    assert world.reasons("n1") == []
    assert "deep_check" not in world.story()


def test_check_is_refused_to_those_who_may_only_look_and_for_unknown_nodes(serve: Serve) -> None:
    world = World(nodes=2, spares=0)
    world.run(seconds=5)
    done = run("check", "n1", "--socket", serve(world, may_act=set()))
    assert (done.returncode, done.stdout) == (2, "")
    assert "may look and not act: run this as root or as SlurmUser" in done.stderr
    assert world.engine.ledger.check_wishes == {}

    done = run("check", "n[1-9]", "--socket", serve(world))
    assert done.returncode == 2
    assert "no node n3, n4, n5, n6, n7 is known" in done.stderr
    assert world.engine.ledger.check_wishes == {}
