"""The agent's smaller parts: requests, answers, the runner, own drain, state, validation, configuration, sd_notify."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.agent.hook_socket import HookRequest, HookSocket, parse_request
from nodewatch.agent.runner import Cadence, run_check
from nodewatch.agent.self_drain import SelfDrain, is_out
from nodewatch.agent.sender import parse_answer
from nodewatch.agent.state import State, StateFile
from nodewatch.agent.validation import Answers, Given, Validation
from nodewatch.checks._api import CheckSpec, Phase, load_checks
from nodewatch.config.agent import AgentConfig, CheckSettings, check_settings, gpus_expected, warnings_of
from nodewatch.errors import ChannelError, ConfigError, SensorError
from nodewatch.model.health import (
    CheckResult,
    CheckStatus,
    Finding,
    NodeState,
    Remedy,
    Severity,
    StandingFinding,
    Verdict,
)
from nodewatch.model.samples import MountSample
from nodewatch.policy.verdicts import CheckRule, HookAnswer, Memory, Rules, fold
from nodewatch.sensors.kmsg import Position
from nodewatch.sensors.reading import Reading
from nodewatch.service import Notifier, watchdog_interval_s

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["v", "ask", "job", "accepted", "requests", "x"]), inner)
    ),
)
LOST = Finding(fault="gpu.lost", subject="g0", severity=Severity.FATAL, remedy=Remedy.REBOOT)


def failed_verdict(finding: Finding = LOST) -> Verdict:
    standing = StandingFinding(finding=finding, first_at=0.0, last_at=0.0)
    return Verdict(state=NodeState.FAILED, since=0.0, findings=(standing,))


HEALTHY = Verdict(state=NodeState.HEALTHY, since=0.0)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_request_is_understood_or_refused_in_one_sentence(line: bytes) -> None:
    try:
        request = parse_request(line)
    except ChannelError as error:
        assert "\n" not in str(error)
    else:
        assert request.ask in ("prolog", "epilog", "healthcheck")


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_an_answer_is_understood_or_refused(body: bytes) -> None:
    try:
        answer = parse_answer(body)
    except ChannelError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(event_id, str) for event_id in answer.accepted)


def test_a_request_with_a_job() -> None:
    line = b'{"v":1,"ask":"prolog","job":{"id":"17","user":"ada","restart":0}}'
    assert parse_request(line) == HookRequest(ask="prolog", job={"id": "17", "user": "ada", "restart": "0"})


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[HookSocket]:
    made = HookSocket(tmp_path / "run" / "agent.sock", uids=(os.geteuid(),), owner=os.geteuid())
    made.open()
    yield made
    made.close()


def test_only_the_owner_may_open_the_socket(hooks: HookSocket, tmp_path: Path) -> None:
    assert (tmp_path / "run" / "agent.sock").stat().st_mode & 0o777 == 0o600


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(hooks: HookSocket, tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    with pytest.raises(ConfigError, match="another agent listens"):
        HookSocket(path, uids=(), owner=os.geteuid()).open()
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    again = HookSocket(stale, uids=(), owner=os.geteuid())
    again.open()
    again.close()
    assert not stale.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_stranger_is_refused_even_when_the_file_lets_him_in(hooks: HookSocket, tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.sock"
    with socket.socket(socket.AF_UNIX) as client:
        # Credentials are those at connect: a child that gave up root connects, as a user on the node would.
        here = socket.socketpair()
        if os.fork() == 0:
            try:
                fd = os.open(path.parent, os.O_PATH)
                path.chmod(0o666)
                os.setgid(65534)
                os.setuid(65534)
                client.connect(f"/proc/self/fd/{fd}/agent.sock")
                client.settimeout(5)
                client.sendall(b'{"v":1,"ask":"prolog"}\n')
                here[1].sendall(client.recv(4096))
            finally:
                os._exit(0)
        end = time.monotonic() + 5
        while hooks.refused == 0 and time.monotonic() < end:
            hooks.serve(set(hooks.filenos()), time.monotonic(), lambda _: HookAnswer(allow=True))
            time.sleep(0.01)
        os.wait()
    assert hooks.refused == 1
    here[0].settimeout(2)
    assert b"only root and SlurmUser" in here[0].recv(4096)
    for end_of_pair in here:
        end_of_pair.close()


def spec_of(function: object) -> CheckSettings:
    spec = CheckSpec(
        name="it",
        summary="",
        reads=MountSample,
        phases=Phase.PERIODIC,
        every_s=10.0,
        lasting=False,
        thresholds=None,
        function=function,  # type: ignore[arg-type]
    )
    return CheckSettings(spec=spec, every_s=10.0, thresholds=None)


def raises(error: Exception) -> object:
    def function(_: object) -> list[Finding]:
        raise error

    return function


def loops(_: object) -> list[Finding]:
    while True:
        pass


@pytest.mark.parametrize(
    ("function", "status", "said"),
    [
        (lambda _: [], CheckStatus.OK, None),
        (lambda _: [LOST], CheckStatus.FINDINGS, None),
        (raises(SensorError("set it")), CheckStatus.UNKNOWN, "set it"),
        (raises(ZeroDivisionError("by 0")), CheckStatus.UNKNOWN, "ZeroDivisionError: by 0"),
        (loops, CheckStatus.UNKNOWN, "did not end within 0.1 s"),
    ],
)
def test_the_runner(function: object, status: CheckStatus, said: str | None) -> None:
    reading = Reading(sample=MountSample(mounts=()))
    result = run_check(spec_of(function), reading, deadline_s=0.1)
    assert result.status is status
    assert said is None or said in (result.error or "")
    assert result.seconds < 1.0


def test_the_runner_without_a_sample() -> None:
    good = spec_of(lambda _: [])
    assert run_check(good, Reading(error="hangs")).error == "hangs"
    assert run_check(good, Reading()).status is CheckStatus.UNKNOWN
    assert run_check(good, Reading(not_applicable="none here")).status is CheckStatus.NOT_APPLICABLE


def test_a_cadence_has_a_little_chance_in_it() -> None:
    cadence = Cadence(period_s=10.0, random=random.Random(1))
    assert cadence.is_due(0.0)
    nexts = set()
    for _ in range(20):
        cadence.done(100.0)
        assert 109.5 <= cadence.next_at <= 110.5
        nexts.add(cadence.next_at)
    assert len(nexts) > 10


@pytest.mark.parametrize(
    ("shown", "out"),
    [
        ("NodeName=n1 Arch=x State=IDLE ThreadsPerCore=1", False),
        ("NodeName=n1 State=MIXED+CLOUD Reason=x", False),
        ("NodeName=n1 State=IDLE+DRAIN ", True),
        ("NodeName=n1 State=IDLE+CLOUD+DRAIN+POWERED_DOWN ", True),
        ("NodeName=n1 State=ALLOCATED+DRAIN*", True),
        ("NodeName=n1 State=DOWN* ", True),
        ("NodeName=n1 State=IDLE+FAIL", True),
        ("Node n1 not found", None),
        ("", None),
    ],
)
def test_slurms_states_are_flags(shown: str, out: bool | None) -> None:
    assert is_out(shown) is out


def drain_until(drain: SelfDrain, verdict: Verdict, seconds: float = 3.0) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        drained = drain.step(verdict, -100.0, time.monotonic())
        if drained is not None:
            return drained
        time.sleep(0.01)
    return None


def test_own_drain_waits_for_silence_and_for_a_fault_of_this_node(tmp_path: Path) -> None:
    drain = SelfDrain(node="n1", scontrol=str(tmp_path / "none"), silence_s=60.0)
    assert drain.due_at(HEALTHY, 0.0) is None
    assert drain.due_at(failed_verdict(), 100.0) == 160.0
    assert drain.due_at(failed_verdict(replace(LOST, fault="filesystem.not_mounted")), 100.0) is None
    assert drain.step(failed_verdict(), 100.0, 159.0) is None
    assert drain.due_at(failed_verdict(), 100.0) == 160.0
    # The command is not there: said once, tried again later.
    assert drain.step(failed_verdict(), 100.0, 161.0) is None
    assert drain.due_at(failed_verdict(), 100.0) == 191.0


def test_own_drain_that_scontrol_refuses_is_no_drain(tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        '#!/bin/sh\n[ "$1" = show ] && { echo State=IDLE; exit 0; }\necho "Invalid user id" >&2; exit 1\n'
    )
    scontrol.chmod(0o755)
    drain = SelfDrain(node="n1", scontrol=str(scontrol), silence_s=0.0)
    assert drain_until(drain, failed_verdict(), 0.5) is None
    drain.close()


def test_state_is_kept_and_garbage_is_a_fresh_start(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state" / "state.json")
    assert file.load("b1") == State(memory=Memory(boot_id="b1"))
    rules = Rules(checks={"log": CheckRule(lasting=True, every_s=10.0)})
    result = CheckResult(check="log", status=CheckStatus.FINDINGS, findings=(LOST,))
    memory, _, _ = fold(Memory(boot_id="b1"), [result], 5.0, rules)
    file.save(State(memory=memory, position=Position(boot_id="b1", sequence=77)))
    back = file.load("b1")
    assert back.position == Position(boot_id="b1", sequence=77)
    assert [held.finding for held in back.memory.held] == [LOST]
    assert file.load("b2").memory.held == ()
    for garbage in (b"", b"{", b"[]", b'{"memory":{}}', b"\xff"):
        (tmp_path / "state" / "state.json").write_bytes(garbage)
        assert file.load("b1").memory.held == ()


def test_state_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    file = StateFile(tmp_path / "blocked" / "state.json")
    file.save(State(memory=Memory(boot_id="b1")))
    assert file.error is not None


def test_a_validation_takes_only_readings_that_began_after_it() -> None:
    good = CheckResult(check="a", status=CheckStatus.OK)
    validation = Validation(key="k", began_at=10.0, until=70.0, awaited={"a", "b"})
    validation.take([good], began_at=9.9)
    assert validation.awaited == {"a", "b"}
    validation.take([good], began_at=10.0)
    assert not validation.is_done(20.0)
    assert validation.is_done(70.0)
    late = validation.finish()[1]
    assert (late.check, late.status) == ("b", CheckStatus.UNKNOWN)


def test_answers_are_bounded_and_not_repeated_in_a_circle() -> None:
    answers = Answers()
    for number in range(100):
        answers.keep(f"k{number}", Given(content={}, event_id="id", at=10.0))
    assert answers.given("k0") is None
    assert answers.given("k99") == Given(content={}, event_id="id", at=10.0)
    assert not answers.may_repeat("k99", 10.1)
    assert answers.may_repeat("k99", 12.0)
    assert not answers.may_repeat("k0", 99.0)


def test_settings_of_checks() -> None:
    config = AgentConfig(
        checks={"gpu_lost": {"enabled": False}, "gpu_count": {"every_s": 1}, "kernel_xid": {"ignored": [31]}}
    )
    settings = check_settings(config, load_checks())
    assert set(settings) == set(load_checks()) - {"gpu_lost"}
    assert settings["gpu_count"].every_s == 1.0
    assert settings["kernel_xid"].thresholds.ignored == (31,)


@pytest.mark.parametrize(
    ("config", "detected", "gpus"),
    [
        (AgentConfig(gpus=4, instance_type="p5.48xlarge"), "", 4),
        (AgentConfig(gpus=0), "p5.48xlarge", 0),
        (AgentConfig(instance_type="p5.48xlarge"), "m7i.large", 8),
        (AgentConfig(), "g6.12xlarge", 4),
        (AgentConfig(), "Standard PC", None),
    ],
)
def test_how_many_gpus(config: AgentConfig, detected: str, gpus: int | None) -> None:
    assert gpus_expected(config, detected) == gpus


def test_warnings() -> None:
    (said,) = warnings_of(AgentConfig(controller_url="http://head:9410", instance_type="p5.49xlarge"))
    assert "did you mean 'p5.4" in said
    assert any("controller_url is empty" in sentence for sentence in warnings_of(AgentConfig()))


def test_sd_notify(tmp_path: Path) -> None:
    for address in (str(tmp_path / "notify"), f"@nodewatch-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + address[1:] if address[0] == "@" else address)
            manager.settimeout(2)
            notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
            notifier.ready()
            notifier.status("two\nlines")
            notifier.watchdog()
            notifier.stopping()
            heard = [manager.recv(4096) for _ in range(4)]
            assert heard == [b"READY=1", b"STATUS=two lines", b"WATCHDOG=1", b"STOPPING=1"]
            notifier.close()
            notifier.ready()


def test_sd_notify_without_a_manager(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:1:2"}, {"NOTIFY_SOCKET": str(tmp_path / "no")}):
        Notifier.from_environment(environ).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_interval(environ: dict[str, str], interval: float | None) -> None:
    assert watchdog_interval_s(environ, pid=7) == interval
