"""cluster.toml is taken again when its groups are other ones, and only then; and the whole controller does it by itself."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodewatch.cli.ask import ask
from nodewatch.config.controller import load_controller_config
from nodewatch.controller.cluster_file import ClusterFile
from nodewatch.errors import ChannelError
from nodewatch.model.health import Severity
from nodewatch.model.ledger import Case, Rung, Step
from nodewatch.testing import FakeClock

TEXT = """cluster = "east"
[[groups]]
name = "gpu"
nodes = ["n[1-4]"]
count = 3
instance_type = "p5.48xlarge"
partition = "train"
launch_template = "compute"
"""
WRONG = TEXT.replace("count", "cout")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def file(path: Path, clock: FakeClock) -> ClusterFile:
    site = path.with_name("controller.toml")
    site.write_text(f'cluster_file = "{path}"\n')
    return ClusterFile(load_controller_config(site), monotonic=clock)


def looks(file: ClusterFile, clock: FakeClock, seconds: int = 5, cases: tuple[Case, ...] = ()) -> list[str]:
    said = []
    for _ in range(seconds):
        clock.advance(1.0)
        why = file.look(cases)
        said += [why] if why else []
    return said


def change(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def case(node: str, step: Step) -> Case:
    return Case(
        case_id=f"{node}.gpu.1",
        node=node,
        family="gpu",
        fault="gpu.lost",
        subject="GPU-0",
        severity=Severity.FATAL,
        rung=Rung.REPLACE,
        step=step,
        opened_at=1.0,
        step_at=1.0,
        fault_at=1.0,
    )


def test_the_groups_of_before_are_no_news(file: ClusterFile, path: Path, clock: FakeClock) -> None:
    assert looks(file, clock) == []
    change(path, f"# counted on Monday\n{TEXT}")
    assert looks(file, clock) == []
    assert not file.is_other()
    assert file.problems == []


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("count = 3", "count = 2"),
        TEXT.replace("count = 3", "count = 3\nspares = 1"),
        TEXT.replace('launch_template = "compute"', 'launch_template = "other"'),
        TEXT + TEXT.partition("\n")[2].replace("gpu", "more").replace("n[", "m["),
    ],
)
def test_other_groups_are(file: ClusterFile, path: Path, clock: FakeClock, text: str) -> None:
    looks(file, clock)
    change(path, text)
    assert set(looks(file, clock)) == {f"{path} has other groups"}
    assert file.is_other()


def test_a_file_is_read_when_nobody_writes_to_it(file: ClusterFile, path: Path, clock: FakeClock) -> None:
    looks(file, clock)
    for size in range(len(TEXT)):
        path.write_text(TEXT.replace("count = 3", "count = 2")[:size])
        assert looks(file, clock, seconds=1) == []
        assert file.problems == []
    path.write_text(TEXT)
    assert looks(file, clock) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WRONG, "unknown key 'cout'"),
        ("[[", "is not valid TOML"),
        (None, "does not exist"),
        (TEXT.replace("east", "west"), "cluster is 'west' and was 'east'"),
    ],
)
def test_a_wrong_file_changes_nothing_and_is_said(
    file: ClusterFile, path: Path, clock: FakeClock, text: str | None, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    looks(file, clock)
    if text is None:
        path.unlink()
    else:
        change(path, text)
    assert looks(file, clock, seconds=30) == []
    (problem,) = file.problems
    assert says in problem
    assert "the groups of before stay in force" in problem
    assert [record.getMessage() for record in caplog.records] == [problem]
    change(path, TEXT)
    assert looks(file, clock) == []
    assert file.problems == []


def test_a_node_under_repair_is_brought_to_its_end_first(file: ClusterFile, path: Path, clock: FakeClock) -> None:
    looks(file, clock)
    change(path, TEXT.replace("count = 3", "count = 2"))
    assert looks(file, clock, cases=(case("n3", Step.BOOTING),)) == []
    assert file.problems == [f"info: {path} has other groups: they are taken once n3 is not under repair"]
    for other in (case("n3", Step.HELD), case("n3", Step.WAITING_FOR_HUMAN), case("n1", Step.BOOTING)):
        assert looks(file, clock, cases=(other,)) != []
        assert file.problems == []


def test_groups_of_controller_toml_are_not_watched(tmp_path: Path, clock: FakeClock) -> None:
    site = tmp_path / "controller.toml"
    site.write_text('[[groups]]\nname = "g"\nnodes = ["n1"]\npartition = "p"\n')
    file = ClusterFile(load_controller_config(site), monotonic=clock)
    site.unlink()
    assert looks(file, clock) == []
    assert not file.is_other()


# -- the whole controller -----------------------------------------------------------------------------------------------

SCONTROL = """#!/bin/sh
case "$1 $2" in
  "ping "*) echo "Slurmctld(primary) at here is UP" ;;
  "show nodes") echo '{"nodes": [], "errors": []}' ;;
  "show config") echo "ClusterName = east" ;;
  *) echo "slurm 25.11.7" ;;
esac
"""


@pytest.fixture
def controller(path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("scontrol", SCONTROL), ("squeue", '#!/bin/sh\necho \'{"jobs": [], "errors": []}\'\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    path.write_text(TEXT.replace('launch_template = "compute"\n', ""))
    site = tmp_path / "controller.toml"
    site.write_text(
        f'cluster_file = "{path}"\nlisten_address = "127.0.0.1"\nlisten_port = {port}\nstate_dir = "{tmp_path}/state"\n'
        f'socket = "{tmp_path}/c.sock"\nslurm_user = "{pwd.getpwuid(os.getuid()).pw_name}"\nslurm_client = "commands"\n'
        "tick_s = 0.1\n"
    )
    argv = [sys.executable, "-m", "nodewatch.controller.main", "--config", str(site)]
    environment = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin"}
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def eventually(tmp_path: Path, holds: Callable[[dict[str, Any]], bool]) -> None:
    end = time.monotonic() + 60
    told: Any = None
    while time.monotonic() < end:
        try:
            told = ask(tmp_path / "c.sock", {"ask": "status"})
        except ChannelError as error:
            told = {"problems": [str(error)]}
        if holds(told):
            return
        time.sleep(0.1)
    pytest.fail(f"not within a minute: {told}")


def groups_taken(tmp_path: Path) -> list[list[str]]:
    """The nodes of the first group, at each start."""
    journal = tmp_path / "state" / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record["rules"]["groups"][0]["nodes"] for record in records if record["kind"] == "started"]


def test_the_controller_begins_again_with_other_groups_and_stays_with_its_own_where_they_are_wrong(
    controller: subprocess.Popen[str], path: Path, tmp_path: Path
) -> None:
    eventually(tmp_path, lambda told: "nodes" in told and groups_taken(tmp_path) == [["n[1-3]"]])
    good = path.read_text().replace("count = 3", "count = 4")
    change(path, WRONG)
    eventually(tmp_path, lambda told: any("stay in force" in each for each in told["problems"]))
    change(path, good)
    eventually(tmp_path, lambda told: "nodes" in told and groups_taken(tmp_path) == [["n[1-3]"], ["n[1-4]"]])
    controller.send_signal(signal.SIGTERM)
    _, said = controller.communicate(timeout=30)
    assert controller.returncode == 0, "the process is the same one, and stops when it is told to"
    assert said.count("stay in force") == 1
    assert f"beginning again: {path} has other groups" in said
