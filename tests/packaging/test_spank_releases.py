"""The plugin, built for each Slurm that Debian has, loaded by that release's own sbatch, srun, slurmctld and slurmstepd."""

from __future__ import annotations

import os
import subprocess
import textwrap

import pytest

from .releases import OneNode, run_one_node

SUITES = {"bookworm": "22.05", "trixie": "24.11", "testing": "26.05"}
"""Debian testing moves on: when it has a newer Slurm, this line says so by failing, and the plugin is looked at."""


@pytest.fixture(scope="module", params=SUITES.items(), ids=SUITES.values())
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OneNode:
    if os.geteuid() != 0:
        pytest.skip("a tree is entered by chroot, as root")
    suite, release = request.param
    return run_one_node(suite, release, tmp_path_factory.mktemp(f"slurm-{release}"))


def test_the_package_is_tied_to_its_release(node: OneNode) -> None:
    done = subprocess.run(["dpkg-deb", "-f", node.package, "Depends"], capture_output=True, text=True, check=True)
    year, month = node.release.split(".")

    assert f"slurm-wlm-basic-plugins (>= {node.release})" in done.stdout
    assert f"slurm-wlm-basic-plugins (<< {year}.{int(month) + 1:02}~)" in done.stdout
    assert f" {node.release}." in node.said("version")


@pytest.mark.parametrize("command", ["sbatch", "srun"])
def test_help_explains_it(node: OneNode, command: str) -> None:
    lines = node.said(f"help.{command}").splitlines()
    (start,) = [index for index, line in enumerate(lines) if line.startswith("      --auto-resume=N|off ")]

    told = " ".join(textwrap.dedent(line).strip() for line in lines[start : start + 2])
    assert "[nodewatch] restart when a node fails, N times at most; N,dir=PATH: from its checkpoints in PATH" in told


def test_a_wrong_value_is_refused_in_one_sentence(node: OneNode) -> None:
    said = node.said("refused")

    assert said.count("nodewatch: --auto-resume: ") == 1
    assert '"many" is not understood: write N (0 to 99), default or off' in said
    assert "Submitted batch job" not in said
    assert "exit code 0" not in said


def test_a_job_can_be_tried_without_being_submitted(node: OneNode) -> None:
    said = node.said("test_only")

    assert "to start at" in said
    assert "error" not in said
    assert said.endswith("exit code 0\n")


@pytest.mark.parametrize(("job", "value"), [("script", "2,dir=/fsx/x"), ("typed", "1")])
def test_a_job_is_marked(node: OneNode, job: str, value: str) -> None:
    """In a comment line of the script or on the command line: the program, the prolog and Slurm's own record know it."""
    assert node.said(job).endswith("exit code 0\n")
    variables = node.variables(f"{job}.env")
    record = node.record(f"{job}.record")

    assert variables["NODEWATCH_AUTO_RESUME"] == value
    assert {"SBATCH_REQUEUE", "SBATCH_OPEN_MODE"} & variables.keys() == set()
    assert node.variables(f"prolog.{record['JobId']}")["SPANK_NODEWATCH_AUTO_RESUME"] == value
    assert record["Requeue"] == "1"


def test_the_mark_reaches_a_step_that_inherits_nothing(node: OneNode) -> None:
    assert node.variables("step.env")["NODEWATCH_AUTO_RESUME"] == "2,dir=/fsx/x"


def test_what_is_not_marked_is_left_alone(node: OneNode) -> None:
    record = node.record("plain.record")

    assert record["Requeue"] == "0"
    assert "SPANK_NODEWATCH_AUTO_RESUME" not in node.variables(f"prolog.{record['JobId']}")
    assert "NODEWATCH_AUTO_RESUME" not in node.variables("child.env"), "submitted from inside a marked job"


def test_srun_inside_an_unmarked_job_marks_it_where_slurm_can(node: OneNode) -> None:
    said = node.said("srun.out")
    record = node.record("srun.record")

    assert "NODEWATCH_AUTO_RESUME=4\n" in said
    if node.release == "22.05":
        assert "cannot be marked now (this release of Slurm keeps no Extra field of a job)" in said
    else:
        assert record["Extra"] == "nodewatch:auto-resume=4"
        assert record["Requeue"] == "1"
        assert "cannot be marked" not in said


def test_srun_on_its_own_runs_and_says_what_works(node: OneNode) -> None:
    said = node.said("alone")

    assert "srun on its own leaves no script" in said
    assert "NODEWATCH_AUTO_RESUME=5\n" in said
    assert said.endswith("exit code 0\n")


def test_the_node_is_well_afterwards(node: OneNode) -> None:
    """Slurm drains a node whose plugins fail."""
    assert node.said("node") == "idle\n"
    assert "error" not in node.said("install")
