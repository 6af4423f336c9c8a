"""The agent's witness of a job's end: whose it is, what is sent, and what hangs."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch.agent import job_witness
from nodewatch.agent.job_witness import JobWitness

from .world import FakeController, Node, until

ERROR = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"


def job(**fields: str) -> dict[str, str]:
    return {"id": "17", "uid": str(os.getuid()), "nodes": "n[1-2]", "restart": "0", "auto_resume": "3", **fields}


class Desk:
    """A witness, and what it has told."""

    def __init__(
        self, *, node: str = "n1", command: tuple[str, ...] = job_witness.COMMAND, step: int | None = None
    ) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.witness = JobWitness(
            node,
            marks=lambda known: known.get("auto_resume"),
            steps=lambda _job: step,
            tell=self.told.append,
            command=command,
        )

    def until(self, met: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not met():
            assert time.monotonic() < end, "nothing came"
            fds = list(self.witness.filenos())
            select.select(fds, [], [], 0.02)
            self.witness.step(time.monotonic())

    def idle(self) -> None:
        self.until(lambda: self.witness.due_at() is None)


def test_what_the_run_left_is_told(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text(ERROR)
    (tmp_path / "progress.jsonl").write_text('{"t": 9e9, "event": "step", "restart": 0, "step": 12}\n')
    desk = Desk()
    marked = job(output=str(path), auto_resume=f"3,dir={tmp_path}")
    desk.witness.started(marked, time.monotonic())
    desk.idle()
    with path.open("a") as file:
        file.write("MemoryError\n")
    desk.witness.ended({"id": "17"}, time.monotonic())
    desk.until(lambda: desk.told)
    (told,) = desk.told
    assert (told["job_id"], told["restart_count"]) == (17, 0)
    assert told["lines"] == ["MemoryError"], "what stood there before is another job's"
    assert told["last_step"] == 12
    desk.witness.close()


def test_the_run_is_the_one_that_the_prolog_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    desk = Desk()
    desk.witness.started(job(restart="1", output=str(tmp_path / "out")), time.monotonic())
    desk.witness.ended(job(restart="2"), time.monotonic())
    desk.until(lambda: desk.told)
    assert desk.told[0]["restart_count"] == 1


def test_only_marked_jobs_on_their_first_node(tmp_path: Path) -> None:
    path = str(tmp_path / "out")
    for desk, fields in (
        (Desk(node="n2"), {}),
        (Desk(), {"auto_resume": "off"}),
        (Desk(), {"nodes": "n[1-"}),
        (Desk(), {"id": "x"}),
    ):
        desk.witness.started(job(output=path, **fields), time.monotonic())
        desk.witness.ended(job(output=path, **fields), time.monotonic())
        assert (desk.witness.due_at(), desk.told) == (None, [])
    unmarked = Desk()
    unmarked.witness.ended({key: value for key, value in job().items() if key != "auto_resume"}, time.monotonic())
    assert unmarked.witness.due_at() is None


def test_a_file_system_that_hangs_is_said_and_waited_for_no_longer() -> None:
    desk = Desk(command=("/bin/sh", "-c", "sleep 600"), step=40)
    now = time.monotonic()
    desk.witness.ended(job(output="/nowhere"), now)
    desk.witness.step(now + job_witness.DEADLINE_S / 2)
    assert desk.told == []
    desk.witness.step(now + job_witness.DEADLINE_S)
    (told,) = desk.told
    assert (told["lines"], told["last_step"]) == (None, 40)
    assert "may hang" in told["unread"]
    assert desk.witness.due_at() is None


def test_a_reader_that_fails_or_babbles() -> None:
    for script in ("exit 3", "echo nonsense", "echo '[1]'"):
        desk = Desk(command=("/bin/sh", "-c", script))
        desk.witness.ended(job(output="/nowhere"), time.monotonic())
        desk.until(lambda desk=desk: desk.told)  # type: ignore[misc]
        assert desk.told[0]["lines"] is None
        assert desk.told[0]["unread"]


def test_a_reader_that_cannot_be_started(tmp_path: Path) -> None:
    desk = Desk(command=(str(tmp_path / "none"),))
    desk.witness.ended(job(output="/nowhere"), time.monotonic())
    assert (desk.witness.due_at(), desk.told) == (None, [])


def test_the_agent_sends_it_after_the_epilog(node: Node, controller: FakeController, tmp_path: Path) -> None:
    node.settings["controller_url"] = controller.url
    node.settings["heartbeat_s"] = 0.1
    node.start()
    path = tmp_path / "slurm-17.out"
    run = job(output=str(path), nodes="n1")

    assert node.ask("prolog", **run)["allow"]
    path.write_text(ERROR)
    assert node.ask("epilog", **run)["allow"]

    (told,) = until(lambda: controller.of_kind("job_witness"), what="the witness")
    assert (told["job_id"], told["restart_count"], told["lines"]) == (17, 0, [ERROR.strip()])


def test_an_answer_is_bounded() -> None:
    babble = 'import json; print(json.dumps({"lines": ["x" * 4000] * 30, "failures": [{"error": "y" * 100}] * 30}))'
    desk = Desk(command=(sys.executable, "-c", babble))
    desk.witness.ended(job(output="/nowhere"), time.monotonic())
    desk.until(lambda: desk.told)
    assert len(json.dumps(desk.told[0])) < 16384


@pytest.mark.parametrize(
    ("held", "asks_systemd"),
    [("000001ffffffffff", False), ("000001ffffffff1f", True), ("00000000000000e0", False), ("0000000000000000", True)],
)
def test_an_agent_that_may_become_nobody_has_systemd_start_the_reader(
    tmp_path: Path, held: str, asks_systemd: bool
) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython3\nCapPrm:\t{held}\nCapEff:\t{held}\n")
    prefix = job_witness.as_user(1000, status)
    assert (prefix[:1] == ("systemd-run",)) is (asks_systemd and os.geteuid() == 0)
    assert ("--uid=1000" in prefix) is bool(prefix)
    assert job_witness.as_user(0, status) == ()
