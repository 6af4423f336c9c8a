"""What a marked job finds in its environment, and the line at the top of a restarted one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from .conftest import REPOSITORY, Hooks, Ran

sys.path.insert(0, str(REPOSITORY / "train"))

from nodewatch_train import manifest

RESTARTED = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1", "SLURM_JOB_NAME": "run1"}


def leave(hooks: Hooks, *lines: str) -> None:
    (hooks.jobs / "17").mkdir(parents=True)
    (hooks.jobs / "17" / "environment").write_text("".join(f"{line}\n" for line in lines))


def checkpoint(root: Path, step: int) -> Path:
    tmp = manifest.begin(root, step)
    (tmp / "weights").write_bytes(b"w" * 1000)
    return Path(manifest.commit(tmp, step, world_size=1))


def run(hooks: Hooks, **variables: str) -> list[str]:
    ran: Ran = hooks.run("task_prolog", **{**RESTARTED, **variables})
    assert (ran.code, ran.err) == (0, "")
    return ran.out.splitlines()


def test_a_marked_job_gets_what_the_agent_left(hooks: Hooks) -> None:
    leave(hooks, "NODEWATCH_AUTO_RESUME=3", "NODEWATCH_SAVE_NOW=/run/x/save-now", "PATH=/evil", "nonsense")

    assert run(hooks, SLURM_RESTART_COUNT="0") == [
        "export NODEWATCH_AUTO_RESUME=3",
        "export NODEWATCH_SAVE_NOW=/run/x/save-now",
    ]


def test_each_task_gets_it_and_only_the_batch_script_says_a_line(hooks: Hooks) -> None:
    leave(hooks, "NODEWATCH_AUTO_RESUME=3")

    assert run(hooks, SLURM_STEP_ID="0") == ["export NODEWATCH_AUTO_RESUME=3"]


def test_a_step_with_the_flag_in_a_job_without(hooks: Hooks) -> None:
    leave(hooks, "NODEWATCH_SAVE_NOW=/run/x/save-now")

    assert run(hooks, NODEWATCH_AUTO_RESUME="1", SLURM_STEP_ID="0") == ["export NODEWATCH_SAVE_NOW=/run/x/save-now"]


@pytest.mark.parametrize("mark", [{}, {"NODEWATCH_AUTO_RESUME": "off"}])
def test_a_job_without_the_mark_is_left_alone(hooks: Hooks, mark: dict[str, str]) -> None:
    leave(hooks, "NODEWATCH_SAVE_NOW=/run/x/save-now")

    assert run(hooks, **mark) == []


def test_without_the_agents_file_the_restart_is_told_all_the_same(hooks: Hooks) -> None:
    assert run(hooks, NODEWATCH_AUTO_RESUME="2") == ["print nodewatch: job 17 starts again (restart 1)"]


def test_one_line_says_what_happened_and_where_it_goes_on(hooks: Hooks, tmp_path: Path) -> None:
    root = tmp_path / "run1"
    root.mkdir()
    whole, torn = checkpoint(root, 40), checkpoint(root, 60)
    (torn / "weights").write_bytes(b"w" * 999)
    why = "n2 failed (gpu.xid.79 on 0000:75:00): restart 1 of 3"
    leave(hooks, f"NODEWATCH_AUTO_RESUME=3,dir={tmp_path}/{{job_name}}", f"NODEWATCH_INTERRUPTION={why}")

    lines = run(hooks)

    assert lines[-2:] == [
        f"export NODEWATCH_RESUME_FROM={whole}",
        f"print nodewatch: job 17 starts again (restart 1): {why}; goes on from step 40, {whole} (step-00000060 not whole)",
    ]


@pytest.mark.parametrize(
    ("make", "clause"),
    [
        (lambda root: None, "no checkpoint can be looked at: {root} does not exist"),
        (lambda root: root.mkdir(), "no whole checkpoint is in {root}"),
    ],
)
def test_what_is_not_verified_is_not_named(hooks: Hooks, tmp_path: Path, make: object, clause: str) -> None:
    root = tmp_path / "run1"
    assert callable(make)
    make(root)

    lines = run(hooks, NODEWATCH_AUTO_RESUME=f"default,dir={root}")

    assert lines == [f"print nodewatch: job 17 starts again (restart 1); {clause.format(root=root)}"]


def test_a_look_that_hangs_is_left_behind(hooks: Hooks, tmp_path: Path) -> None:
    root = tmp_path / "run1"
    (root / "checkpoint-10").mkdir(parents=True)
    os.mkfifo(root / "checkpoint-10" / "trainer_state.json")
    (root / "checkpoint-10" / "model.safetensors").touch()

    lines = run(hooks, NODEWATCH_AUTO_RESUME=f"default,dir={root}", NODEWATCH_VERIFY_S="0")

    assert lines[-1].endswith("could be verified in time: the program looks by itself")
    assert not any(line.startswith("export") for line in lines)


def test_a_name_is_one_part_of_the_path(hooks: Hooks) -> None:
    leave(hooks, "NODEWATCH_AUTO_RESUME=3,dir=/fsx/{job_name}")

    assert run(hooks, SLURM_JOB_NAME="../a,b\nc", SLURM_RESTART_COUNT="0") == [
        "export NODEWATCH_AUTO_RESUME=3,dir=/fsx/.._a_b_c"
    ]
