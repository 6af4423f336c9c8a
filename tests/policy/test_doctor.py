"""What is said of a good slurm.conf, of a bare one, and of each thing that is missing."""

from __future__ import annotations

import pytest

from nodewatch.policy.doctor import HOOKS, slurm_problems

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
    assert len(problems) == 8
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
