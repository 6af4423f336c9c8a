"""Repairs on the rehearsal cluster while what they stand on goes away: slurmctld, the controller, the file system."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nodewatch.lab import demo, hardware, machine
from nodewatch.model.records import Record
from tests.lab.rehearsal import (
    LAYOUT,
    done_since,
    eventually,
    explain,
    head,
    in_service,
    job_state,
    lab,
    restarted,
    running_past,
    since,
    status,
    status_if_any,
    submit,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]

REPAIR_S = 180.0
SECOND = "/run/nodewatch-second/controller.sock"


def alive() -> dict[str, str]:
    """The node of each instance that EC2 has not ended."""
    rows = json.loads(lab("status", "--json").stdout)["instances"]
    return {row["instance"]: row["node"] for row in rows if row["state"] not in ("shutting-down", "terminated")}


def slurm(node: str) -> tuple[str, str]:
    """State and reason of a node as Slurm shows them."""
    told = head("sinfo", "-N", "-h", "-n", node, "-o", "%T|%E").splitlines()[0]
    state, _, reason = told.partition("|")
    return state, reason


def step_of(record: Record) -> tuple[str, str] | None:
    """What a record says that a repair has come to: a step of a case, an action begun, an action done, an answer."""
    if record.kind == "case":
        case = record.data["case"]
        return "case", f"{case['case_id']} {case['rung']} {case['step']}"
    if record.kind in ("intended", "done"):
        action = record.data["action"]
        return record.kind, f"{action['action']} {action['key']}"
    if record.kind == "validated":
        return record.kind, str(record.data["key"])
    return None


@contextmanager
def at_each_step(begun: float, deed: Callable[[tuple[str, str]], bool]) -> Iterator[list[tuple[str, str]]]:
    """While the block runs: `deed` once for each step that the controller writes down, again where it comes back and `deed`
    could not be done before. Gives the steps for which it was done."""
    seen: list[tuple[str, str]] = []
    over = threading.Event()
    pid = machine.init_pid(machine.find(LAYOUT, "head"))
    journal = Path(f"/proc/{pid}/root") / demo.JOURNAL

    def watch() -> None:
        # Between two records of the controller lie a few milliseconds.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -20)
        known: set[tuple[str, str]] = set()
        with journal.open("rb") as stream:
            rest = b""
            while not over.is_set():
                rest += stream.read()
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    record = Record.from_json(json.loads(line))
                    step = step_of(record)
                    if record.at < begun or step is None or step in known:
                        continue
                    if deed(step):
                        known.add(step)
                        seen.append(step)
                if not lines:
                    time.sleep(0.002)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def kill_controller(_: tuple[str, str] = ("", "")) -> bool:
    """kill -9, at once: from the host, with no command between. False when it does not run just now."""
    victims = []
    for pid in machine.members(machine.cgroup_of("head")):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if pid and any(word.endswith(b"/nodewatch-controller") for word in words):
                victims.append(pid)
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(victims)


def test_killed_at_each_step_of_a_repair_the_controller_comes_to_the_same_end(calm: float) -> None:
    before = alive()
    job_id = submit("killed", steps=200, step_seconds=0.05)
    broken = running_past("killed", job_id, 30)[1]
    with at_each_step(calm, kill_controller) as kills:
        lab("inject", "gpu-lost", broken)
        eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the repair ends", REPAIR_S)
    eventually(status_if_any, "the controller answers again")
    eventually(lambda: job_state(job_id) == "COMPLETED", "the job completes", REPAIR_S)
    # Which of two records in a row it dies after is a matter of milliseconds; that it dies often and in all parts is not.
    assert len(kills) >= 10, kills
    assert {word.split()[0] for kind, word in kills if kind != "case"} >= {"drain", "launch"}, kills
    assert {kind for kind, _ in kills} >= {"case", "intended", "done"}, kills
    # Fewer than kills: some meet a controller that is only just beginning.
    assert len([r for r in since(calm) if r.kind == "started"]) >= 8

    after = alive()
    old = next(instance for instance, node in before.items() if node == broken)
    (new,) = set(after) - set(before)
    assert set(before) - set(after) == {old}
    assert after[new] == broken
    for word in ("launch", "terminate"):
        assert len(done_since(calm, word)) == 1
    again = restarted(job_id, calm)
    assert again is not None
    assert again.data["restart_count"] == 1
    eventually(lambda: "cured" in explain(broken), "the case is closed")


def test_a_repair_goes_on_when_slurmctld_is_started_anew_in_its_middle(calm: float) -> None:
    before = alive()
    job_id = submit("anew", steps=150, step_seconds=0.05)
    broken = running_past("anew", job_id, 30)[1]

    def restart(step: tuple[str, str]) -> bool:
        is_due = step[0] == "case" and step[1].split()[2] in ("draining", "launching", "validating", "returning")
        if is_due:
            head("systemctl", "restart", "slurmctld")
        return is_due

    with at_each_step(calm, restart) as restarts:
        lab("inject", "gpu-lost", broken)
        eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the repair ends", REPAIR_S)
    assert len(restarts) == 4
    eventually(lambda: job_state(job_id) == "COMPLETED", "the job completes", REPAIR_S)
    assert restarted(job_id, calm) is not None
    assert len(done_since(calm, "launch")) == 1
    assert len(set(alive()) - set(before)) == 1


def test_a_reboot_that_does_not_help_ends_in_another_machine(calm: float) -> None:
    node = in_service()[0]
    before = alive()
    # Its diagnostics keep failing, also after the reboot.
    lab("inject", "nccl-slow", node)
    assert lab("exec", "head", "--", "nodewatch", "check", "--deep", node, deadline_s=120).returncode == 1
    eventually(lambda: done_since(calm, "launch"), "another machine is launched", REPAIR_S)
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "it is back", REPAIR_S)
    acts = [each["action"] for each in done_since(calm, "reboot", "launch", "terminate")]
    assert acts == ["reboot", "launch", "terminate"]
    assert "up to replace" in explain(node)
    after = alive()
    assert [node] == [after[new] for new in set(after) - set(before)]


def test_a_second_controller_stands_by_and_takes_over_in_the_middle_of_a_repair(calm: float) -> None:
    epochs = lambda: [  # noqa: E731
        json.loads(line) for line in head("sh", "-c", "cat /var/lib/nodewatch-controller/epoch-*").splitlines()
    ]
    first = epochs()[-1]
    head(
        "sh",
        "-c",
        "{ echo 'slurmctld_host = \"other\"'; echo 'socket = \"" + SECOND + "\"'; echo 'takeover_s = 5';"
        " cat /etc/nodewatch/controller.toml; } > /run/second.toml",
    )
    # Nobody starts the first one again before the second has had its turn.
    head(
        "sh",
        "-c",
        "cd /run/systemd/system && mkdir -p nodewatch-controller.service.d &&"
        " printf '[Service]\\nRestart=no\\n' > nodewatch-controller.service.d/once.conf && systemctl daemon-reload",
    )
    head(
        "systemd-run", "--unit=nodewatch-second", "--property=Type=notify", "--property=User=slurm",
        "--property=RuntimeDirectory=nodewatch-second", "--property=EnvironmentFile=/etc/nodewatch/controller.env",
        "nodewatch-controller", "--config", "/run/second.toml",
    )  # fmt: skip
    active = f"the controller on {first['host']} (process {first['pid']}"
    assert active in json.loads(head("nodewatch", "status", "--json", "--socket", SECOND))["standing_by"]
    refused = lab("exec", "head", "--", "nodewatch", "plan", "--socket", SECOND)
    assert refused.returncode != 0
    assert active in refused.stderr
    assert epochs()[-1] == first

    LAYOUT.launches_held.touch()
    try:
        broken = in_service()[0]
        lab("inject", "gpu-lost", broken)
        eventually(
            lambda: any(r.kind == "intended" and r.data["action"]["action"] == "launch" for r in since(calm)),
            "the launch is intended",
        )
        head("systemctl", "kill", "--signal=KILL", "nodewatch-controller")
        eventually(lambda: epochs()[-1]["host"] == "other", "the second takes over")
    finally:
        LAYOUT.launches_held.unlink()
    assert epochs()[-1]["epoch"] == first["epoch"] + 1
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the repair ends", REPAIR_S)
    assert len(done_since(calm, "launch")) == len(done_since(calm, "terminate")) == 1
    assert len([r for r in since(calm) if r.kind == "started"]) == 1

    head("sh", "-c", "rm /run/systemd/system/nodewatch-controller.service.d/once.conf && systemctl daemon-reload")
    head("systemctl", "start", "nodewatch-controller")
    told = eventually(status_if_any, "it answers")
    assert "the controller on other" in told["standing_by"]
    head("systemctl", "stop", "nodewatch-second")
    eventually(lambda: "standing_by" not in (status_if_any() or {"standing_by": ""}), "the first is active again")
    assert epochs()[-1]["epoch"] == first["epoch"] + 2


def held() -> dict[str, str]:
    """By node, what `nodewatch plan` holds back and why."""
    answer = json.loads(head("nodewatch", "plan", "--json"))
    assert answer["actions"] == []
    told: dict[str, str] = {}
    for each in answer["held"]:
        told[each["subject"]] = f"{told.get(each['subject'], '')}{each['why']}; "
    return told


def play(node: str, *lines: str) -> None:
    """Append to the state that plays the node's hardware."""
    ident = machine.find(LAYOUT, node).ident
    hardware.append(LAYOUT.machine(ident) / "instance" / hardware.FILE_NAME, list(lines))


def test_a_file_system_that_hangs_everywhere_and_an_operators_drain_cost_no_node(calm: float) -> None:
    theirs, *ours = in_service()
    head("scontrol", "update", f"nodename={theirs}", "state=drain", "reason=bad fan, Ada")
    play(theirs, "gpu 2 lost 1")
    lab("inject", "fsx-hang")
    try:
        is_storm = lambda: sum("storm" in why for why in held().values()) >= 3  # noqa: E731
        eventually(is_storm, "a storm is seen", 120)
        told = held()
        assert "taken out of service by somebody else (bad fan, Ada): left alone" in told[theirs]
        # A job that is turned away at such a node has Slurm drain it.
        job = int(head("sbatch", "--parsable", f"--nodelist={ours[0]}", "--chdir=/tmp", "--wrap=true"))
        eventually(lambda: slurm(ours[0])[1] == "Prolog error", "the job is turned away")
        assert "storm" in explain(ours[1])
        assert done_since(calm) == []
    finally:
        lab("inject", "fsx-well")
    play(theirs, "gpu 2 lost 0")
    in_order = lambda: all(node["health"] == "healthy" and not node["cases"] for node in status()["nodes"])  # noqa: E731
    eventually(in_order, "every node is healthy", 120)
    eventually(lambda: {slurm(node)[0] for node in ours} == {"idle"}, "all take jobs again")
    assert {each["action"] for each in done_since(calm)} == {"return_to_service"}
    assert [each["node"] for each in done_since(calm)] == [ours[0]]
    assert slurm(theirs) == ("drained", "bad fan, Ada")
    head("scancel", str(job))
    head("scontrol", "update", f"nodename={theirs}", "state=resume")


def test_an_operators_words_replace_a_machine_and_those_not_understood_are_answered(calm: float) -> None:
    first, second = in_service()[:2]
    before = alive()

    def fail(node: str, reason: str) -> None:
        head("scontrol", "update", f"nodename={node}", "state=fail", f"reason={reason}")

    fail(first, "Action:Repalce")
    answer = "Action:Repalce [nodewatch: not understood; type Action:Replace or Action:Reboot]"
    eventually(lambda: slurm(first)[1] == answer, "it is answered where it was typed")
    assert "is not understood, nothing is done" in held()[first]
    assert 'write reason="Action:Replace"' in explain(first)
    assert [(each["action"], each["node"]) for each in done_since(calm)] == [("answer_reason", first)]
    fail(first, "Action:Replace")
    fail(second, "action: replace.")
    eventually(lambda: len(done_since(calm, "hold_spare", "return_to_service")) == 2, "both are back", REPAIR_S)
    assert sorted(each["node"] for each in done_since(calm, "launch")) == [first, second]
    after = alive()
    assert sorted(after[new] for new in set(after) - set(before)) == [first, second]
    assert sorted(before[old] for old in set(before) - set(after)) == [first, second]
