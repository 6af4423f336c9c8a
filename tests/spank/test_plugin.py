"""The built plugin: what it exports, and how it behaves in each of Slurm's contexts."""

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from .conftest import SPANK, build_plugin

ENTRY_POINTS = {"slurm_spank_init", "slurm_spank_init_post_opt", "slurm_spank_user_init"}
MARKED_JOB = {"SLURM_JOB_ID": "17", "NODEWATCH_AUTO_RESUME": "default"}
IDENTITY = {"plugin_name", "plugin_type", "plugin_version", "spank_plugin_version"}


def exported(plugin: Path) -> set[str]:
    done = subprocess.run(["nm", "-D", "--defined-only", str(plugin)], capture_output=True, text=True, check=True)
    return {line.split()[2] for line in done.stdout.splitlines()}


def test_exports_are_exactly_those_of_the_map(plugin: Path) -> None:
    """A stray global could shadow one of Slurm's own names inside sbatch or slurmstepd."""
    patterns = re.findall(r"^\t\t(\S+);$", (SPANK / "exports.map").read_text().split("local:")[0], re.MULTILINE)
    names = exported(plugin)

    assert names == IDENTITY | ENTRY_POINTS
    for name in names:
        assert any(re.fullmatch(pattern.replace("*", ".*"), name) for pattern in patterns), name
    for pattern in patterns:
        assert any(re.fullmatch(pattern.replace("*", ".*"), name) for name in names), pattern


@pytest.mark.parametrize(
    ("version", "has_it"), [("22,5,8", False), ("24,11,5", False), ("25,5,0", True), ("26,5,5", True)]
)
def test_a_plugin_fault_is_no_node_fault_where_slurm_can_be_told_so(tmp_path: Path, version: str, has_it: bool) -> None:
    assert has_it is ("slurm_spank_init_failure_mode" in exported(build_plugin(tmp_path, version)))


def test_it_is_hardened(plugin: Path) -> None:
    done = subprocess.run(["readelf", "-dlW", str(plugin)], capture_output=True, text=True, check=True)

    assert "BIND_NOW" in done.stdout
    assert "GNU_RELRO" in done.stdout
    (stack,) = [line for line in done.stdout.splitlines() if "GNU_STACK" in line]
    assert "RWE" not in stack


def run(stub_slurm: Path, plugin: Path, command: str, context: str, *argv: str, **env: str) -> tuple[int, list[str]]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "NODEWATCH"))}
    done = subprocess.run(
        [str(stub_slurm / command), *argv],
        env={**kept, "STUB_PLUGIN": str(plugin), "STUB_CONTEXT": context, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout.splitlines()


def test_help_explains_it_in_two_lines(stub_slurm: Path, plugin: Path) -> None:
    """Slurm prints the option in 30 columns and wraps what is said of it at 50; a longer option gets a line of its own."""
    _, (option, usage, *_) = run(stub_slurm, plugin, "sbatch", "allocator", STUB_HELP="1")

    assert len(option) < 30
    assert len(textwrap.wrap(usage, 50)) == 2


def test_sbatch_with_the_option_in_the_script(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(stub_slurm, plugin, "sbatch", "allocator", "script=2")

    assert (code, lines) == (
        0,
        [
            "registered --auto-resume has_arg=2",
            "read SBATCH_OPEN_MODE=append",
            "read SBATCH_REQUEUE=",
            "job control NODEWATCH_AUTO_RESUME=2",
            "job NODEWATCH_AUTO_RESUME=2",
        ],
    )


def test_the_directory_and_the_spares_reach_the_job(stub_slurm: Path, plugin: Path) -> None:
    _, lines = run(stub_slurm, plugin, "sbatch", "allocator", "script=spares=1,dir=/fsx/run1")

    assert "job control NODEWATCH_AUTO_RESUME=default,dir=/fsx/run1,spares=1" in lines


@pytest.mark.parametrize("value", ["3,dir=run1", "spares=many", "3,every=5"])
def test_what_follows_n_is_judged_at_submission(stub_slurm: Path, plugin: Path, value: str) -> None:
    code, lines = run(stub_slurm, plugin, "sbatch", "allocator", f"script={value}")

    assert code == 1
    assert len([line for line in lines if line.startswith("error nodewatch: --auto-resume: ")]) == 1


def test_sbatch_with_the_option_on_the_command_line(stub_slurm: Path, plugin: Path) -> None:
    """Seen in /proc/self/cmdline before sbatch reads its environment; the callback would come too late."""
    code, lines = run(stub_slurm, plugin, "sbatch", "allocator", "--auto-resume")

    assert code == 0
    assert lines == [
        "registered --auto-resume has_arg=2",
        "read SBATCH_OPEN_MODE=append",
        "read SBATCH_REQUEUE=",
        "job control NODEWATCH_AUTO_RESUME=default",
        "job NODEWATCH_AUTO_RESUME=default",
    ]


def test_no_requeue_on_the_command_line_is_told(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(stub_slurm, plugin, "sbatch", "allocator", "--no-requeue", "--auto-resume")

    assert code == 0
    assert any("--no-requeue forbids what --auto-resume needs" in line for line in lines)


def test_the_command_line_has_the_last_word(stub_slurm: Path, plugin: Path) -> None:
    _, lines = run(stub_slurm, plugin, "sbatch", "allocator", "--auto-resume=off", "script=2")

    assert "job control NODEWATCH_AUTO_RESUME=off" in lines


def test_without_the_option_nothing_is_touched(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(stub_slurm, plugin, "sbatch", "allocator")

    assert (code, lines) == (0, ["registered --auto-resume has_arg=2"])


def test_a_mark_is_not_inherited_by_a_job_submitted_from_a_marked_one(stub_slurm: Path, plugin: Path) -> None:
    _, lines = run(stub_slurm, plugin, "sbatch", "allocator", NODEWATCH_AUTO_RESUME="3")

    assert lines == ["registered --auto-resume has_arg=2"]


def test_what_the_user_set_is_kept(stub_slurm: Path, plugin: Path) -> None:
    _, lines = run(stub_slurm, plugin, "sbatch", "allocator", "script", SBATCH_OPEN_MODE="truncate")

    assert "read SBATCH_OPEN_MODE=truncate" in lines
    assert "job SBATCH_OPEN_MODE=truncate" in lines


def test_a_site_can_switch_the_extras_off(stub_slurm: Path, plugin: Path) -> None:
    _, lines = run(
        stub_slurm,
        plugin,
        "sbatch",
        "allocator",
        "script",
        "plugstack=append_output=no",
        "plugstack=request_requeue=no",
    )

    assert [line for line in lines if line.startswith("read")] == []


def test_no_requeue_from_the_environment_is_told(stub_slurm: Path, plugin: Path) -> None:
    _, lines = run(stub_slurm, plugin, "sbatch", "allocator", "script", SBATCH_NO_REQUEUE="1")

    assert "read SBATCH_REQUEUE=" not in lines
    assert any("--no-requeue forbids what --auto-resume needs" in line for line in lines)


@pytest.mark.parametrize("command", ["sbatch", "salloc", "srun"])
def test_a_wrong_value_is_refused_in_one_sentence(stub_slurm: Path, plugin: Path, command: str) -> None:
    context = "local" if command == "srun" else "allocator"

    code, lines = run(stub_slurm, plugin, command, context, "--auto-resume=many")

    assert code == 1
    sentence = (
        'error nodewatch: --auto-resume: "many" is not understood: write N (0 to 99), default or off, and dir=/PATH or '
        "spares=K after a comma"
    )
    assert [line for line in lines if line.startswith(("error", "info"))] == [sentence]


def test_an_unknown_plugstack_argument_stops_the_plugin(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(stub_slurm, plugin, "sbatch", "allocator", "plugstack=apend=yes")

    assert code == 1
    assert lines[0].startswith('error nodewatch: plugstack.conf: unknown argument "apend=yes"')


def test_salloc_says_that_it_cannot_be_restarted(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(stub_slurm, plugin, "salloc", "allocator", "--auto-resume=1")

    assert code == 0
    assert any("submit a script with sbatch --auto-resume" in line for line in lines)
    assert "job control NODEWATCH_AUTO_RESUME=1" in lines


def test_srun_alone_says_what_works(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(stub_slurm, plugin, "srun", "local", "--auto-resume=1")

    assert code == 0
    assert any("srun on its own leaves no script" in line for line in lines)


def test_srun_inside_a_marked_job_is_quiet(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(
        stub_slurm, plugin, "srun", "local", "--auto-resume=1", SLURM_JOB_ID="17", NODEWATCH_AUTO_RESUME="default"
    )

    assert (code, lines) == (0, ["registered --auto-resume has_arg=2", "job NODEWATCH_AUTO_RESUME=1"])


MARKS = "update job 17 extra=nodewatch:auto-resume=1"


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"STUB_BATCH": "1", "STUB_REQUEUE": "1"}, [MARKS]),
        ({"STUB_BATCH": "1"}, [f"{MARKS} requeue"]),
        ({"STUB_BATCH": "1", "STUB_REQUEUE": "1", "STUB_EXTRA": ""}, [MARKS]),
        ({"STUB_BATCH": "1", "STUB_REQUEUE": "1", "STUB_EXTRA": "nodewatch:auto-resume=5"}, [MARKS]),
        ({"STUB_BATCH": "1", "STUB_REQUEUE": "1", "STUB_EXTRA": "nodewatch:auto-resume=1"}, []),
    ],
)
def test_srun_inside_an_unmarked_batch_job_marks_it(
    stub_slurm: Path, plugin: Path, job: dict[str, str], said: list[str]
) -> None:
    """Scripts written for HyperPod have the option on srun only."""
    code, lines = run(stub_slurm, plugin, "srun", "local", "--auto-resume=1", SLURM_JOB_ID="17", **job)

    assert code == 0
    assert lines[1:] == [*said, "job NODEWATCH_AUTO_RESUME=1"]


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({}, "slurmctld did not say what it is"),
        ({"STUB_BATCH": "1", "STUB_EXTRA": "mine"}, "its Extra field holds something of the user's"),
        ({"STUB_BATCH": "1", "STUB_REFUSE": "1"}, "slurmctld refused"),
        ({"STUB_BATCH": "0"}, "submit a script with sbatch --auto-resume"),
    ],
)
def test_srun_says_when_the_job_cannot_be_marked(
    stub_slurm: Path, plugin: Path, job: dict[str, str], sentence: str
) -> None:
    """The step runs all the same."""
    code, lines = run(stub_slurm, plugin, "srun", "local", "--auto-resume=1", SLURM_JOB_ID="17", **job)

    assert code == 0
    (told,) = [line for line in lines if line.startswith("info")]
    assert sentence in told


def test_srun_off_marks_nothing(stub_slurm: Path, plugin: Path) -> None:
    _, lines = run(stub_slurm, plugin, "srun", "local", "--auto-resume=off", SLURM_JOB_ID="17", STUB_BATCH="1")

    assert lines[1:] == ["job NODEWATCH_AUTO_RESUME=off"]


@pytest.mark.parametrize(("given", "value"), [("--auto-resume=", "default"), ("--auto-resume=2", "2")])
def test_the_step_gets_the_variable(stub_slurm: Path, plugin: Path, given: str, value: str) -> None:
    code, lines = run(stub_slurm, plugin, "srun", "remote", given)

    assert code == 0
    assert f"step NODEWATCH_AUTO_RESUME={value}" in lines


def test_a_step_survives_a_value_of_a_later_release(stub_slurm: Path, plugin: Path) -> None:
    code, lines = run(stub_slurm, plugin, "srun", "remote", "--auto-resume=forever")

    assert code == 0
    assert any(line.startswith("verbose nodewatch: ignoring") for line in lines)


@pytest.mark.parametrize("context", ["slurmd", "job_script"])
def test_the_daemons_need_nothing(stub_slurm: Path, plugin: Path, context: str) -> None:
    assert run(stub_slurm, plugin, "srun", context) == (0, [])
