"""What is said of a good slurm.conf, of a bare one, and of each thing that is missing."""

from __future__ import annotations

import pytest

from nodewatch.policy.doctor import HOOKS, slurm_advice, slurm_problems

GOOD = {
    "HealthCheckProgram": f"{HOOKS}/healthcheck",
    "Prolog[0]": f"{HOOKS}/prolog",
    "Epilog[0]": f"{HOOKS}/epilog",
    "PrologSlurmctld[0]": f"{HOOKS}/prolog_slurmctld",
    "EpilogSlurmctld[0]": f"{HOOKS}/epilog_slurmctld",
    "SchedulerParameters": "bf_continue,nohold_on_prolog_fail",
    "JobRequeue": "1",
    "JobFileAppend": "1",
    "PlugStackConfig": "/etc/slurm/plugstack.conf",
    "HealthCheckInterval": "30 sec",
    "PrologFlags": "Alloc,Contain",
    "RebootProgram": "/usr/sbin/reboot",
    "ReturnToService": "1",
}
BARE = {
    "HealthCheckProgram": "(null)",
    "Prolog": "(null)",
    "Epilog": "(null)",
    "PrologSlurmctld": "(null)",
    "EpilogSlurmctld": "(null)",
    "SchedulerParameters": "(null)",
    "JobRequeue": "1",
    "JobFileAppend": "0",
}
PLUGSTACK = "# ours\noptional nodewatch_auto_resume.so\n"


def test_nothing_is_said_of_a_good_set_up() -> None:
    assert slurm_problems(GOOD, PLUGSTACK) == []


def test_a_release_that_does_not_number_its_programs() -> None:
    plain = {key.removesuffix("[0]"): value for key, value in GOOD.items()}
    assert slurm_problems(plain, PLUGSTACK) == []


def test_a_bare_set_up_lacks_everything() -> None:
    problems = slurm_problems(BARE, "")
    assert len(problems) == 10
    assert all("\n" not in problem for problem in problems)
    for name in ("HealthCheckProgram", "Prolog", "Epilog", "PrologSlurmctld", "EpilogSlurmctld"):
        assert any(f"slurm.conf: {name} does not call nodewatch" in problem for problem in problems)
        assert any(f"set {name}={HOOKS}/" in problem for problem in problems)
    assert slurm_problems({}, "") == problems, "what scontrol does not print is not there"


@pytest.mark.parametrize(
    ("changes", "plugstack", "says"),
    [
        ({"Epilog[0]": "/site/epilog"}, PLUGSTACK, "Epilog does not call nodewatch"),
        ({"Prolog[0]": "(null)"}, PLUGSTACK, "Prolog does not call nodewatch"),
        ({"SchedulerParameters": "bf_continue"}, PLUGSTACK, "lacks nohold_on_prolog_fail"),
        ({"JobRequeue": "0"}, PLUGSTACK, "JobRequeue=0"),
        ({"JobFileAppend": "0"}, PLUGSTACK, "JobFileAppend=0"),
        ({}, None, "/etc/slurm/plugstack.conf cannot be read"),
        ({}, "# optional nodewatch_auto_resume.so", "add the line `optional nodewatch_auto_resume.so`"),
        ({}, "required other.so", "add the line"),
        ({"HealthCheckInterval": "0 sec"}, PLUGSTACK, "HealthCheckInterval=0, so the health check never runs"),
        ({"PrologFlags": "(null)"}, PLUGSTACK, "PrologFlags lacks Alloc"),
        ({"PrologFlags": "Serial"}, PLUGSTACK, "PrologFlags lacks Alloc"),
        ({"ReturnToService": "2"}, PLUGSTACK, "ReturnToService=2"),
        ({"SlurmdTimeout": "0 sec"}, PLUGSTACK, "SlurmdTimeout=0"),
        ({"RebootProgram": "(null)"}, PLUGSTACK, "RebootProgram is not set"),
        ({"MinJobAge": "2 sec"}, PLUGSTACK, "MinJobAge=2"),
        ({"SlurmdUser": "slurm(64030)"}, PLUGSTACK, "SlurmdUser is slurm"),
        ({"SuspendProgram": "/site/off", "SuspendTime": "600 sec"}, PLUGSTACK, "warm spares under the controller"),
    ],
)
def test_one_thing_missing_is_one_sentence(changes: dict[str, str], plugstack: str | None, says: str) -> None:
    (problem,) = slurm_problems({**GOOD, **changes}, plugstack)
    assert says in problem


@pytest.mark.parametrize(
    "line",
    [
        "required /usr/lib64/slurm/nodewatch_auto_resume.so",
        "\t optional   nodewatch_auto_resume.so max=3",
    ],
)
def test_ways_to_load_the_plugin(line: str) -> None:
    assert slurm_problems(GOOD, f"optional other.so\n{line}\n") == []


def test_a_second_program_of_the_site() -> None:
    both = {**GOOD, "Prolog[0]": "/site/prolog", "Prolog[1]": f"{HOOKS}/prolog"}
    assert slurm_problems(both, PLUGSTACK) == []


WELL = {
    **GOOD,
    "TaskProlog": f"{HOOKS}/task_prolog",
    "HealthCheckNodeState": "CYCLE,ANY",
    "PrologFlags": "Alloc,ForceRequeueOnFail",
    "PrologEpilogTimeout": "30",
    "MaxBatchRequeue": "100",
    "SlurmUser": "slurm(64030)",
    "SlurmdUser": "root(0)",
    "SLURM_VERSION": "24.11.5",
    "SuspendTime": "INFINITE",
}


def test_no_advice_for_a_site_that_has_all() -> None:
    assert slurm_advice(WELL, PLUGSTACK) == []


def test_names_and_values_in_the_spelling_of_a_file() -> None:
    """slurm.conf does not mind upper and lower case, and writes yes where scontrol prints 1."""
    spelled = {key.lower(): value for key, value in WELL.items()} | {"jobrequeue": "yes", "jobfileappend": "YES"}
    assert slurm_advice(spelled, PLUGSTACK) == []


@pytest.mark.parametrize(
    ("changes", "plugstack", "says"),
    [
        ({"TaskProlog": "(null)"}, PLUGSTACK, "TaskProlog does not call nodewatch"),
        ({}, "required nodewatch_auto_resume.so", "requires our plugin"),
        ({"HealthCheckNodeState": "START_ONLY"}, PLUGSTACK, "START_ONLY leaves nodes in other states unasked"),
        ({"HealthCheckNodeState": "ANY"}, PLUGSTACK, "HealthCheckNodeState lacks CYCLE"),
        ({"PrologFlags": "Alloc"}, PLUGSTACK, "PrologFlags lacks ForceRequeueOnFail"),
        ({"PrologFlags": "Alloc,NoHold,ForceRequeueOnFail"}, PLUGSTACK, "PrologFlags has NoHold"),
        ({"PrologEpilogTimeout": "65534"}, PLUGSTACK, "PrologEpilogTimeout is not set"),
        ({"PrologEpilogTimeout": "(null)"}, PLUGSTACK, "PrologEpilogTimeout is not set"),
        ({"MaxBatchRequeue": "5"}, PLUGSTACK, "MaxBatchRequeue=5"),
        ({"RequeueExit": "99"}, PLUGSTACK, "RequeueExit=99"),
        ({"ReturnToService": "0"}, PLUGSTACK, "ReturnToService=0"),
        ({"SlurmdTimeout": "3600 sec"}, PLUGSTACK, "SlurmdTimeout=3600"),
        ({"UnkillableStepTimeout": "30 sec"}, PLUGSTACK, "UnkillableStepTimeout=30"),
        ({"ResumeTimeout": "30 sec"}, PLUGSTACK, "ResumeTimeout=30"),
        ({"SlurmUser": "hpc(501)"}, PLUGSTACK, 'set slurm_user = "hpc"'),
        ({"SlurmUser": "(null)"}, PLUGSTACK, "SlurmUser is root"),
        ({"AuthType": "auth/slurm"}, PLUGSTACK, "keep munged running"),
        ({"SLURM_VERSION": "25.11.1"}, PLUGSTACK, "SlurmctldParameters lacks enable_expedited_requeue"),
        ({"SlurmctldParameters": "enable_expedited_requeue"}, PLUGSTACK, "which Slurm 24.11 does not know"),
    ],
)
def test_one_piece_of_advice_is_one_sentence_and_no_problem(
    changes: dict[str, str], plugstack: str | None, says: str
) -> None:
    (advice,) = slurm_advice({**WELL, **changes}, plugstack)
    assert says in advice.sentence
    assert "\n" not in advice.sentence
    assert not advice.is_needed
    assert slurm_problems({**WELL, **changes}, plugstack) == []


def test_expedited_requeue_where_it_exists() -> None:
    newer = {**WELL, "SLURM_VERSION": "26.05.0", "SlurmctldParameters": "cloud_reg_addrs,enable_expedited_requeue"}
    assert slurm_advice(newer, PLUGSTACK) == []
    del newer["SLURM_VERSION"]
    assert slurm_advice(newer, PLUGSTACK) == [], "a release that is not known is not argued with"
    assert len(slurm_advice(newer, PLUGSTACK, release="25.05")) == 1


def test_power_saving_with_exceptions() -> None:
    saving = {**WELL, "SuspendProgram": "/site/off", "SuspendTime": "600", "SuspendExcParts": "train"}
    assert slurm_advice(saving, PLUGSTACK) == []
