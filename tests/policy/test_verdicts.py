"""Findings over time: the properties that hold for any sequence of answers, and the cases that a reader would ask about."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.model.health import CheckResult, CheckStatus, Finding, NodeState, Remedy, Severity, Verdict
from nodewatch.policy import verdicts
from nodewatch.policy.verdicts import CheckRule, Memory, Rules, answer, booted, fold, forget, passed

RULES = Rules(checks={"log": CheckRule(lasting=True, every_s=10.0), "gpu": CheckRule(lasting=False, every_s=10.0)})
EMPTY = Memory(boot_id="b1")


def finding(
    fault: str = "gpu.lost", severity: Severity = Severity.FATAL, subject: str = "g0", remedy: Remedy = Remedy.REBOOT
) -> Finding:
    return Finding(fault=fault, subject=subject, severity=severity, remedy=remedy)


def ok(check: str) -> CheckResult:
    return CheckResult(check=check, status=CheckStatus.OK)


def found(check: str, *findings: Finding) -> CheckResult:
    return CheckResult(check=check, status=CheckStatus.FINDINGS, findings=findings)


def unknown(check: str, error: str = "no answer") -> CheckResult:
    return CheckResult(check=check, status=CheckStatus.UNKNOWN, error=error)


def run(
    *steps: tuple[float, list[CheckResult]], memory: Memory = EMPTY, rules: Rules = RULES
) -> tuple[Memory, Verdict, bool]:
    verdict, changed = None, False
    for now, results in steps:
        memory, verdict, changed = fold(memory, results, now, rules)
    assert verdict is not None
    return memory, verdict, changed


findings = st.builds(
    Finding,
    fault=st.sampled_from(["gpu.lost", "gpu.xid.31", "gpu.xid.79", "filesystem.hung"]),
    subject=st.sampled_from(["a", "b"]),
    severity=st.sampled_from(Severity),
    remedy=st.sampled_from(Remedy),
)
results = st.one_of(
    st.builds(ok, st.sampled_from(["log", "gpu"])),
    st.builds(unknown, st.sampled_from(["log", "gpu"])),
    st.builds(
        lambda check: CheckResult(check=check, status=CheckStatus.NOT_APPLICABLE), st.sampled_from(["log", "gpu"])
    ),
    st.builds(
        lambda check, some: found(check, *some),
        st.sampled_from(["log", "gpu"]),
        st.lists(findings, min_size=1, max_size=3),
    ),
)
histories = st.lists(st.tuples(st.floats(0.1, 500.0), st.lists(results, max_size=3)), max_size=12)


def play(history: list[tuple[float, list[CheckResult]]]) -> tuple[Memory, float]:
    memory, now = EMPTY, 1000.0
    for pause, batch in history:
        now += pause
        memory, _, _ = fold(memory, batch, now, RULES)
    return memory, now


def identities(memory: Memory) -> set[tuple[str, str, str]]:
    return {(held.check, *held.finding.identity) for held in memory.held}


@given(histories, st.sampled_from(["log", "gpu"]))
def test_unknown_neither_opens_nor_clears(history: list[tuple[float, list[CheckResult]]], check: str) -> None:
    memory, now = play(history)
    after, verdict, _ = fold(memory, [unknown(check)], now, RULES)
    assert identities(after) == identities(memory)
    assert check in dict(verdict.unknown)


@given(histories)
def test_a_lasting_finding_of_degraded_or_worse_holds_whatever_follows(
    history: list[tuple[float, list[CheckResult]]],
) -> None:
    memory, _, _ = fold(EMPTY, [found("log", finding("gpu.xid.95"))], 1000.0, RULES)
    now = 1000.0
    for pause, batch in history:
        now += pause
        memory, verdict, _ = fold(memory, batch, now, RULES)
        assert verdict.state is NodeState.FAILED
    assert ("log", "gpu.xid.95", "g0") in identities(memory)


@given(histories, st.integers(1, 4))
def test_other_findings_clear_after_enough_good_readings_and_not_before(
    history: list[tuple[float, list[CheckResult]]], clear_after: int
) -> None:
    rules = Rules(checks=RULES.checks, clear_after=clear_after)
    memory, now = play(history)
    memory, _, _ = fold(memory, [found("gpu", finding())], now, rules)
    for reading in range(clear_after):
        assert ("gpu", "gpu.lost", "g0") in identities(memory), reading
        memory, _, _ = fold(memory, [ok("gpu")], now, rules)
    assert not any(check == "gpu" for check, _, _ in identities(memory))


@given(histories)
def test_the_same_answers_again_change_nothing(history: list[tuple[float, list[CheckResult]]]) -> None:
    memory, now = play(history)
    batch = [found("gpu", finding()), unknown("log")]
    memory, before, _ = fold(memory, batch, now, RULES)
    _, after, _ = fold(memory, batch, now, RULES)
    outline = {
        (s.finding.identity, s.finding.severity) for s in before.findings if s.finding.identity == ("gpu.lost", "g0")
    }
    assert outline <= {(s.finding.identity, s.finding.severity) for s in after.findings}
    assert after.state is before.state
    assert after.since == before.since


@given(histories)
def test_what_is_kept_survives_being_written_and_read(history: list[tuple[float, list[CheckResult]]]) -> None:
    memory, _ = play(history)
    back = Memory.from_json(json.loads(json.dumps(memory.to_json())))
    assert identities(back) == identities(memory)
    assert back.boot_id == memory.boot_id


@given(histories)
def test_a_verdict_travels(history: list[tuple[float, list[CheckResult]]]) -> None:
    memory, now = play(history)
    _, verdict, _ = fold(memory, [], now, RULES)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@given(histories)
def test_forgetting_all_leaves_nothing_and_a_family_only_the_others(
    history: list[tuple[float, list[CheckResult]]],
) -> None:
    memory, _ = play(history)
    assert forget(memory, None).held == ()
    assert all(held.finding.family != "gpu" for held in forget(memory, "gpu").held)
    kept = [held for held in memory.held if held.finding.family != "gpu"]
    assert list(forget(memory, "gpu").held) == kept


@given(histories)
@settings(max_examples=50)
def test_a_new_boot_ends_what_the_old_log_said(history: list[tuple[float, list[CheckResult]]]) -> None:
    memory, _ = play(history)
    assert booted(memory, "b1") == memory
    assert all(not held.lasting for held in booted(memory, "b2").held)


def test_no_answer_yet_is_unknown_and_so_is_an_old_one() -> None:
    memory, verdict, changed = run((0.0, []))
    assert changed
    assert dict(verdict.unknown) == {"gpu": "it has not answered yet", "log": "it has not answered yet"}
    memory, verdict, _ = run((1.0, [ok("gpu"), ok("log")]), memory=memory)
    assert verdict.state is NodeState.HEALTHY
    memory, verdict, changed = run((31.0, []), memory=memory)
    assert (verdict.state, changed) == (NodeState.HEALTHY, False)
    memory, verdict, changed = run((31.1, [ok("log")]), memory=memory)
    assert (verdict.state, changed) == (NodeState.UNKNOWN, True)
    assert [check for check, _ in verdict.unknown] == ["gpu"]


def test_an_unknown_between_two_good_readings_begins_the_count_again() -> None:
    _, verdict, _ = run(
        (0.0, [ok("log"), found("gpu", finding())]), (1.0, [ok("gpu")]), (2.0, [unknown("gpu")]), (3.0, [ok("gpu")])
    )
    assert verdict.state is NodeState.FAILED


def test_information_expires_and_a_fault_does_not() -> None:
    mild = finding("gpu.xid.31", Severity.INFO, remedy=Remedy.RESTART_APP)
    memory, verdict, _ = run((0.0, [found("log", mild, finding("gpu.xid.79")), ok("gpu")]))
    assert len(verdict.findings) == 2
    _, verdict, changed = run((3601.0, [ok("gpu"), ok("log")]), memory=memory)
    assert [s.finding.fault for s in verdict.findings] == ["gpu.xid.79"]
    assert changed


def test_a_milder_line_does_not_talk_down_a_fault() -> None:
    _, verdict, _ = run(
        (0.0, [found("log", finding("gpu.xid.154"))]),
        (1.0, [found("log", finding("gpu.xid.154", Severity.INFO, remedy=Remedy.NONE))]),
    )
    assert verdict.state is NodeState.FAILED


def test_one_of_two_findings_clears_alone() -> None:
    both = found("gpu", finding(subject="g0"), finding(subject="g1"))
    one = found("gpu", finding(subject="g1"))
    _, verdict, _ = run((0.0, [both]), (1.0, [one]), (2.0, [one]))
    assert [s.finding.subject for s in verdict.findings] == ["g1"]


def test_a_check_that_is_switched_off_takes_its_findings_along() -> None:
    memory, _, _ = run((0.0, [found("gpu", finding()), ok("log")]))
    rules = Rules(checks={"log": RULES.checks["log"]})
    _, verdict, _ = run((1.0, []), memory=memory, rules=rules)
    assert verdict.findings == ()


def test_what_is_kept_is_bounded_and_the_worst_stays() -> None:
    many = [finding(f"gpu.xid.{n}", Severity.WARN) for n in range(500)]
    _, verdict, _ = run((0.0, [found("log", *many, finding())]))
    assert len(verdict.findings) == RULES.max_findings
    assert verdict.state is NodeState.FAILED


def test_hooks() -> None:
    _, healthy, _ = run((0.0, [ok("log"), ok("gpu")]))
    assert answer("prolog", healthy) == verdicts.HookAnswer(allow=True)
    _, failed, _ = run((0.0, [found("log", finding("gpu.xid.79")), ok("gpu")]))
    for ask in ("prolog", "epilog", "healthcheck"):
        said = answer(ask, failed)
        assert not said.allow
        assert "gpu.xid.79 on g0" in said.reason
    _, degraded, _ = run((0.0, [found("gpu", finding("gpu.row_remap_pending", Severity.DEGRADED)), ok("log")]))
    assert answer("prolog", degraded).allow
    _, hung, _ = run((0.0, [found("gpu", finding("filesystem.hung", Severity.DEGRADED)), ok("log")]))
    assert not answer("prolog", hung).allow
    assert answer("epilog", hung).allow
    _, dark, _ = run((0.0, [unknown("gpu", "NVML hangs"), ok("log")]))
    said = answer("prolog", dark)
    assert said.allow and said.counted
    assert "NVML hangs" in said.reason


def test_passed() -> None:
    off = CheckResult(check="x", status=CheckStatus.NOT_APPLICABLE)
    assert passed([ok("a"), off]) is True
    assert passed([ok("a"), found("b", finding(severity=Severity.WARN))]) is True
    assert passed([ok("a"), unknown("b")]) is None
    assert passed([found("a", finding(severity=Severity.DEGRADED)), unknown("b")]) is False
    assert passed([off]) is None
    assert passed([]) is None


def test_a_shared_file_system_is_no_reason_to_drain_oneself() -> None:
    _, verdict, _ = run((0.0, [found("gpu", finding("filesystem.not_mounted"), finding("gpu.lost"))]))
    assert [s.finding.fault for s in verdict.findings if verdicts.is_local_and_fatal(s)] == ["gpu.lost"]
