"""The agent as a process: a kernel log, hooks, a controller, and what happens when any of them goes away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from nodewatch.clients.munge import Munge

from .world import ROOT, XID_79, FakeController, Node, until


def test_a_lost_gpu_is_told_within_a_second_and_no_job_starts(node: Node, controller: FakeController) -> None:
    node.settings["controller_url"] = controller.url
    node.start()
    until(lambda: controller.messages and controller.messages[-1]["verdict"]["state"] == "healthy", what="healthy")
    assert node.ask("prolog", id="17", user="ada") == {"v": 1, "allow": True, "reason": "", "counted": False}

    said_at = node.kernel_says(XID_79)
    until(lambda: "gpu.xid.79" in controller.faults(), what="the verdict event")
    event = next(e for e in controller.of_kind("verdict") if e["verdict"]["findings"])
    assert controller.received_at[event["id"]] - said_at < 1.0
    assert event["verdict"]["state"] == "failed"
    finding = event["verdict"]["findings"][0]
    assert (finding["subject"], finding["severity"], finding["remedy"]) == ("0000:53:00", "fatal", "reboot")
    assert finding["evidence"]["line"] == XID_79

    for ask in ("prolog", "epilog", "healthcheck"):
        answer = node.ask(ask)
        assert answer["allow"] is False
        assert "gpu.xid.79" in answer["reason"]
    until(lambda: len(controller.of_kind("hook_denied")) == 2, what="both denials told")

    message = controller.messages[-1]
    assert (message["v"], message["node"], message["instance_id"]) == (1, "n1", "i-0123456789abcdef0")
    assert all(e["id"].startswith(message["boot_id"] + ":") for e in controller.events)
    assert controller.events[0]["kind"] == "hello"
    assert node.stop() < 1.0
    assert not node.socket.exists()


def test_a_program_error_leaves_the_node_in_service(node: Node, controller: FakeController) -> None:
    node.settings["controller_url"] = controller.url
    node.start()
    node.kernel_says("NVRM: Xid (PCI:0000:53:00): 31, pid=7194, name=python, Ch 00000010, intr 10000000. MMU Fault")
    until(lambda: "gpu.xid.31" in controller.faults(), what="the information")
    assert node.ask("prolog")["allow"] is True
    assert controller.messages[-1]["verdict"]["state"] != "failed"


def test_garbage_harms_nothing(node: Node, controller: FakeController) -> None:
    node.settings["controller_url"] = controller.url
    node.start()
    os.write(node._pipe, b"\xff\xfe no record at all\n" + b"x" * 20000 + b"\n")
    for line in (
        b"hello\n",
        b"{}\n",
        b"[]\n",
        b'{"v":1,"ask":"format disk"}\n',
        b'{"v":9,"ask":"prolog"}\n',
        b"\xff" * 70000,
    ):
        try:
            answer = json.loads(node.ask_raw(line))
        except OSError:
            continue
        assert "error" in answer
    node.kernel_says(XID_79)
    until(lambda: "gpu.xid.79" in controller.faults(), what="the fault after the garbage")


def test_a_slow_client_does_not_hold_up_the_others(node: Node) -> None:
    import socket

    node.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.connect(str(node.socket))
        slow.sendall(b'{"v":1,')
        began = time.monotonic()
        assert node.ask("healthcheck")["allow"] is True
        assert time.monotonic() - began < 0.5
        slow.settimeout(5)
        assert slow.recv(100) == b""


def test_nothing_is_lost_while_the_controller_is_away(node: Node, munge: Munge) -> None:
    first = FakeController(munge)
    node.settings["controller_url"] = first.url
    node.start()
    until(lambda: first.of_kind("hello"), what="hello")
    first.close()
    node.kernel_says(XID_79)
    node.kernel_says("NVRM: Xid (PCI:0000:9a:00): 48, pid=1, name=python, DBE (double bit error)")
    until(lambda: "gpu.xid.48" in node.ask("prolog")["reason"] or len(_spooled(node)) >= 3, what="events in the spool")
    node.kill()

    node.start()
    assert node.ask("prolog")["allow"] is False
    second = FakeController(munge, port=first.port)
    try:
        until(lambda: {"gpu.xid.79", "gpu.xid.48"} <= second.faults(), what="both faults told")
        until(lambda: second.of_kind("hook_denied"), what="the denial told")
        ids = [event["id"] for event in second.events]
        assert len(ids) == len(set(ids))
        until(lambda: not _spooled(node), what="an empty spool")
    finally:
        second.close()


def test_a_fault_outlives_the_agent_and_is_not_told_twice_as_new(node: Node, controller: FakeController) -> None:
    node.settings["controller_url"] = controller.url
    node.start()
    node.kernel_says(XID_79)
    until(lambda: "gpu.xid.79" in controller.faults(), what="the fault")
    first_at = _first_at(controller)
    node.kill()
    controller.events.clear()
    node.start()
    until(lambda: "gpu.xid.79" in controller.faults(), what="the fault after the restart")
    assert _first_at(controller) == first_at
    assert node.ask("epilog")["allow"] is False


def test_events_that_are_not_accepted_are_sent_again(node: Node, controller: FakeController) -> None:
    controller.accepts = False
    node.settings["controller_url"] = controller.url
    node.start()
    until(lambda: len(controller.messages) >= 3, what="three messages")
    assert all(message["events"] for message in controller.messages)
    controller.accepts = True
    until(lambda: controller.of_kind("hello"), what="hello")
    until(lambda: controller.messages[-1]["events"] == [], what="a heartbeat")


def test_validation_is_answered_once_and_repeated_from_memory(
    node: Node, controller: FakeController, tmp_path: Path
) -> None:
    node.settings |= {"controller_url": controller.url, "shared_filesystems": ["/dev/shm"]}
    node.start()
    controller.requests = [
        {"kind": "validate", "key": "c1:validate"},
        {"kind": "nonsense", "key": "k"},
        {"kind": "validate"},
    ]
    answer = until(lambda: controller.of_kind("validated"), what="the answer")[0]
    assert (answer["key"], answer["passed"]) == ("c1:validate", True)
    by_check = {result["check"]: result["status"] for result in answer["results"]}
    assert by_check["kernel_xid"] == "ok"
    assert by_check["gpu_count"] == "not_applicable"
    assert by_check["shared_filesystem"] == "ok"
    assert by_check["shared_filesystem.write"] == "ok"
    assert not list(Path("/dev/shm").glob(".nodewatch-probe-*"))
    until(lambda: len(controller.of_kind("validated")) >= 2, what="the answer from memory")
    assert controller.of_kind("validated")[1]["results"] == answer["results"]


def test_validation_fails_on_an_old_fault_until_it_is_forgotten(node: Node, controller: FakeController) -> None:
    node.settings["controller_url"] = controller.url
    node.start()
    node.kernel_says(XID_79)
    until(lambda: "gpu.xid.79" in controller.faults(), what="the fault")
    controller.requests = [{"kind": "validate", "key": "c1:validate"}]
    assert until(lambda: controller.of_kind("validated"), what="the answer")[0]["passed"] is False
    controller.requests = [{"kind": "validate", "key": "c2:validate", "forget": "gpu"}]
    answer = until(
        lambda: [e for e in controller.of_kind("validated") if e["key"] == "c2:validate"], what="the second"
    )[0]
    assert answer["passed"] is True
    until(lambda: controller.messages[-1]["verdict"]["state"] == "healthy", what="healthy")
    assert node.ask("prolog")["allow"] is True


def test_validation_that_cannot_tell_says_null(node: Node, controller: FakeController) -> None:
    node.settings |= {"controller_url": controller.url, "kmsg": str(node.home / "nowhere")}
    node.start()
    controller.requests = [{"kind": "validate", "key": "c1:validate"}]
    answer = until(lambda: controller.of_kind("validated"), what="the answer")[0]
    assert answer["passed"] is None
    answer = node.ask("prolog")
    assert (answer["allow"], answer["counted"]) == (True, True)
    assert "the check kernel_" in answer["reason"]


def test_an_agent_without_a_controller_drains_its_own_node(node: Node, munge: Munge) -> None:
    calls = node.home / "calls"
    scontrol = node.home / "scontrol"
    scontrol.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\n[ "$1" = show ] && echo "NodeName=n1 State=IDLE Cores=1"\nexit 0\n'
    )
    scontrol.chmod(0o755)
    with_nobody = "http://127.0.0.1:9"
    node.settings |= {
        "controller_url": with_nobody,
        "self_drain": True,
        "controller_silence_s": 0.5,
        "scontrol": str(scontrol),
    }
    node.start()
    node.kernel_says(XID_79)
    until(lambda: any("drained_self" in line for line in _spooled(node)), what="the drain")
    lines = calls.read_text().splitlines()
    assert lines[0] == "show node -o n1"
    assert lines[1].startswith("update nodename=n1 state=drain reason=nodewatch: gpu.xid.79 on 0000:53:00")
    time.sleep(0.3)
    assert len(calls.read_text().splitlines()) == 2


def test_a_node_that_somebody_drained_is_left_alone(node: Node) -> None:
    calls = node.home / "calls"
    scontrol = node.home / "scontrol"
    scontrol.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {calls}\necho "NodeName=n1 State=IDLE+DRAIN Reason=mine"\n')
    scontrol.chmod(0o755)
    node.settings |= {"self_drain": True, "controller_silence_s": 0.3, "scontrol": str(scontrol)}
    node.start()
    node.kernel_says(XID_79)
    until(lambda: "left as it is" in node.log(), what="the decision")
    assert calls.read_text().splitlines() == ["show node -o n1"]


def test_metrics_and_hook_misses(node: Node) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node.settings |= {"metrics_port": port, "metrics_address": "127.0.0.1"}
    (node.home / "hook-misses").write_text("one\ntwo\n")
    node.start()
    node.kernel_says(XID_79)
    until(lambda: node.ask("prolog")["allow"] is False, what="the denial")
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert 'nodewatch_verdict{state="failed"} 1.0' in text
    assert 'nodewatch_findings{fault="gpu.xid.79",severity="fatal"} 1.0' in text
    assert 'nodewatch_hook_answers_total{answer="denied",ask="prolog"} 1.0' in text
    assert "nodewatch_hook_misses_total 2.0" in text


def test_systemd_hears_ready_and_the_watchdog(node: Node) -> None:
    import socket

    address = node.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(5)
        node.environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "400000"}
        node.start()
        heard = [manager.recv(4096).decode() for _ in range(6)]
        assert heard[0] == "READY=1"
        assert heard.count("WATCHDOG=1") >= 2
        node.stop()


def test_a_second_agent_does_not_start(node: Node) -> None:
    node.start()
    again = subprocess.run(
        [sys.executable, "-m", "nodewatch.agent.main", "--config", str(node.home / "agent.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert again.returncode == 2
    assert "another agent listens" in again.stderr
    assert node.ask("healthcheck")["allow"] is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("controler_url = 'x'", "did you mean 'controller_url'"),
        ("controller_url = 'head:9410'", 'write it as "http://HEAD:9410"'),
        ("nvml = 'maybe'", 'use "on", "off" or "auto"'),
        ("heartbeat_s = 0", "above 0"),
        ("shared_filesystems = ['fsx']", "write the mount point"),
        ("[checks.gpu_lots]\nenabled = false", "did you mean 'gpu_lost'"),
        ("[checks.kernel_xid]\nignord = [1]", "did you mean 'ignored'"),
        ("[checks.kernel_xid]\nseverity = { '63' = 'awful' }", "'awful' is no severity"),
        ("[checks.kernel_xid]\nevery_s = -1", "above 0"),
        ("= nonsense", "is not valid TOML"),
        (None, "does not exist"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    config = tmp_path / "agent.toml"
    if text is not None:
        config.write_text(text)
    ended = subprocess.run(
        [sys.executable, "-m", "nodewatch.agent.main", "--config", str(config), "--check-config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_the_agent_stays_small() -> None:
    heavy = ("click", "boto3", "torch", "psutil", "pynvml")
    code = f"import sys, nodewatch.agent.main; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
    )
    assert ended.stdout.strip() == "[]"


def _spooled(node: Node) -> list[str]:
    path = node.home / "state" / "spool.jsonl"
    pending: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        entry = json.loads(line)
        if "event" in entry:
            pending[entry["event"]["id"]] = line
        for event_id in entry.get("accepted", ()):
            pending.pop(event_id, None)
    return list(pending.values())


def _first_at(controller: FakeController) -> float:
    verdict = next(e["verdict"] for e in controller.of_kind("verdict") if e["verdict"]["findings"])
    return float(verdict["findings"][0]["first_at"])


def test_the_real_hooks_are_answered(node: Node) -> None:
    node.start()
    environment = {
        **os.environ,
        "NODEWATCH_AGENT_SOCKET": str(node.socket),
        "NODEWATCH_HOOK_MISSES": str(node.home / "hook-misses"),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_USER": "ada",
    }

    # As the package lays them out: the hooks and their one module side by side.
    hooks = node.home / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / "nodewatch" / "hooks.py", hooks / "nodewatch_hooks.py")

    def hook(name: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-IS", shutil.copy(ROOT / name, hooks)]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=10, check=False)

    for name in ("prolog_epilog/prolog", "prolog_epilog/epilog", "slurm_hooks/healthcheck"):
        assert hook(name).returncode == 0, name
    node.kernel_says(XID_79)
    until(lambda: node.ask("prolog")["allow"] is False, what="the denial")
    for name in ("prolog_epilog/prolog", "prolog_epilog/epilog"):
        denied = hook(name)
        assert denied.returncode != 0, name
    assert not (node.home / "hook-misses").exists()
    assert any('"hook_denied"' in line and '"id":"17"' in line for line in _spooled(node))
