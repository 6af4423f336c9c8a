"""What a console tells of a machine that did not become a node."""

from __future__ import annotations

import pytest

from nodewatch.model import actions as act
from nodewatch.model.cluster import SlurmNode, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import ActionRecord, ActionState, Case, Ledger, Rung, Step
from nodewatch.policy.bootstrap import (
    Cause,
    last_failure,
    last_look,
    look,
    noted,
    script_failure,
    tries,
    unheard,
    words_of,
)
from nodewatch.policy.rules import Rules

NOW = 1_000_000.0
CASE = Case(
    case_id="n1.gpu.1",
    node="n1",
    family="gpu",
    fault="gpu.lost",
    subject="GPU-0",
    severity=Severity.FATAL,
    rung=Rung.REPLACE,
    step=Step.BOOTING,
    opened_at=NOW - 700,
    step_at=NOW - 650,
    new_instance="i-2",
    old_slurmd=5.0,
)


def read(text: str, *, error: str = "") -> Ledger:
    action = last_look(CASE, Ledger(), Rules(), NOW)
    assert action is not None
    result = {"console_error": error} if error else {"console": text}
    record = ActionRecord(action=action, state=ActionState.DONE, at=NOW, tries=1, result=result)
    return Ledger(actions={action.key: record})


@pytest.mark.parametrize(
    ("text", "cause", "said"),
    [
        ("", Cause.NEVER_REGISTERED, "its console is empty"),
        ("[ 0.1] booting", Cause.NEVER_REGISTERED, "its console says nothing of it"),
        ("x\nnodewatch bootstrap: FAILED: must run as root\n", Cause.LIFECYCLE_SCRIPT, "must run as root"),
        ("nodewatch bootstrap: FAILED:", Cause.LIFECYCLE_SCRIPT, "it does not say why"),
        (
            "cloud-init[1]: util.py[WARNING]: Failed running /var/lib/cloud/instance/scripts/part-001 [1]\r\n",
            Cause.LIFECYCLE_SCRIPT,
            "/var/lib/cloud/instance/scripts/part-001 [1]",
        ),
        (
            "RuntimeError: Runparts: 1 failures (part-001) in 2 attempted commands",
            Cause.LIFECYCLE_SCRIPT,
            "Runparts: 1 failures (part-001) in 2 attempted commands",
        ),
        (
            "[ 9.9] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n",
            Cause.NEVER_REGISTERED,
            "Kernel panic - not syncing: VFS: Unable to mount root fs",
        ),
        (
            "You are in emergency mode. After logging in",
            Cause.NEVER_REGISTERED,
            "it is in emergency mode: a mount or a unit failed",
        ),
        (
            "ip-10-0-0-1 login: \n",
            Cause.NEVER_REGISTERED,
            "it booted to its login prompt: nothing has started the agent",
        ),
    ],
)
def test_a_console(text: str, cause: Cause, said: str) -> None:
    assert unheard(CASE, Snapshot(taken_at=NOW), read(text)) == (cause, said)


def test_a_console_that_could_not_be_read_is_said() -> None:
    assert unheard(CASE, Snapshot(taken_at=NOW), read("", error="EC2 refused")) == (
        Cause.NEVER_REGISTERED,
        "its console could not be read: EC2 refused",
    )


def test_a_slurmd_without_an_agent_is_said() -> None:
    node = SlurmNode(name="n1", address="a", states=frozenset({"IDLE"}), slurmd_started_at=9.0)
    _, said = unheard(CASE, Snapshot(taken_at=NOW, nodes={"n1": node}), read("x"))
    assert said == "slurmd has registered, the agent was not heard; its console says nothing of it"


def test_a_cloud_init_that_failed_is_no_reason_to_give_up_early() -> None:
    assert script_failure(CASE, read("Failed running /var/lib/cloud/instance/scripts/part-001 [1]")) is None
    assert script_failure(CASE, read("nodewatch bootstrap: FAILED: a\nnodewatch bootstrap: complete")) is None
    assert script_failure(CASE, read("nodewatch bootstrap: FAILED: a")) == "a"


@pytest.mark.parametrize(("every_s", "number"), [(300.0, "2"), (700.0, None), (0.0, None)])
def test_when_the_console_is_read(every_s: float, number: str | None) -> None:
    action = look(CASE, Ledger(), Rules(console_every_s=every_s), NOW)
    assert (action.key if action else None) == (f"n1.gpu.1:replace:console:i-2:{number}" if number else None)
    assert action is None or isinstance(action, act.KeepEvidence)


def test_failed_tries_are_told_in_words() -> None:
    case = noted(noted(CASE, Cause.DEEP_CHECKS, "gpu.lost on GPU-1", NOW), Cause.SLURMD, "", NOW + 1)
    assert [words_of(one) for one in tries(case)] == [
        "i-2: deep checks failed (gpu.lost on GPU-1)",
        "i-2: slurmd not registered",
    ]
    assert last_failure(Ledger(cases={case.case_id: case})) == "i-2: slurmd not registered"
    assert last_failure(Ledger()) == ""
