"""The directory of a job on its node: who may write where, what is in it, and that it goes."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from nodewatch.agent.job_files import JobFiles
from nodewatch.model.auto_resume import SiteDefault
from nodewatch.policy.mtbf import PRIOR_NODE_MTBF_S

from .world import until

JOB = {"id": "17", "uid": str(os.geteuid()), "user": "ada", "nodes": "n[1-4]", "restart": "0"}


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path, clock: Clock) -> JobFiles:
    return JobFiles(tmp_path / "jobs", clock=clock)


def environment(files: JobFiles, job_id: str = "17") -> dict[str, str]:
    text = (files.directory(job_id) / "environment").read_text()
    return dict(line.split("=", 1) for line in text.splitlines())


def settle(files: JobFiles, root: Path) -> None:
    def is_clean() -> bool:
        files.keep_house(time.monotonic())
        return not any(path.name.startswith(".gone-") for path in root.iterdir())

    until(is_clean, what="the removal")


def test_what_a_job_is_told(files: JobFiles) -> None:
    files.opened({**JOB, "auto_resume": "3,dir=/fsx/run1"}, 0.0)

    home = files.directory("17")
    assert environment(files) == {
        "NODEWATCH_SAVE_NOW": f"{home}/save-now",
        "NODEWATCH_HEARTBEATS": f"{home}/heartbeats",
        "NODEWATCH_BAD_NODES": f"{home}/bad-nodes",
        "NODEWATCH_MTBF_S": f"{PRIOR_NODE_MTBF_S / 4:.0f}",
        "NODEWATCH_AUTO_RESUME": "3,dir=/fsx/run1",
    }
    assert not (home / "save-now").exists()


def test_everybody_may_read_and_only_the_heartbeats_are_the_users(files: JobFiles) -> None:
    before = os.umask(0o077)
    try:
        files.opened({**JOB, "uid": "4711"} if os.geteuid() == 0 else JOB, 0.0)
    finally:
        os.umask(before)

    home = files.directory("17")
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (home.parent, home, home / "heartbeats")}
    assert set(modes.values()) == {0o755}
    assert stat.S_IMODE((home / "environment").stat().st_mode) == 0o644
    assert home.stat().st_uid == os.geteuid()
    assert (home / "heartbeats").stat().st_uid == (4711 if os.geteuid() == 0 else os.geteuid())


@pytest.mark.parametrize("job_id", ["", "0", "../x", "17/..", "017", "99999999999", "1 7"])
def test_what_is_no_job_makes_no_directory(files: JobFiles, tmp_path: Path, job_id: str) -> None:
    files.opened({**JOB, "id": job_id}, 0.0)
    files.closed(job_id, 0.0)

    assert list(tmp_path.rglob("*")) == []


def test_the_mark_comes_from_the_flag_from_a_step_and_from_the_site(files: JobFiles) -> None:
    files.defaults = (
        SiteDefault(partition="train", value="3,dir=/fsx/{user}/{job_name}"),
        SiteDefault(account="llm", always=True),
    )
    marks: dict[str, str | None] = {}
    for name, told in {
        "flag": {"auto_resume": "default", "partition": "train", "name": "run1"},
        "old release": {"auto_resume": "2", "partition": "train"},
        "step": {"extra": "nodewatch:auto-resume=1"},
        "always": {"account": "llm"},
        "off": {"account": "llm", "auto_resume": "off"},
        "none": {"partition": "train"},
        "other extra": {"extra": "mine"},
    }.items():
        files.opened({**JOB, **told}, 0.0)
        marks[name] = environment(files).get("NODEWATCH_AUTO_RESUME")

    assert marks == {
        "flag": "3,dir=/fsx/ada/run1",
        "old release": "2,dir=/fsx/ada/{job_name}",
        "step": "1",
        "always": "default",
        "off": None,
        "none": None,
        "other extra": None,
    }


@pytest.mark.parametrize(
    ("restart", "comment", "told"),
    [
        ("1", "nodewatch: n2 failed (gpu.xid.79): restart 1 of 3", "n2 failed (gpu.xid.79): restart 1 of 3"),
        ("1", "nodewatch: a\nPATH=/evil", "a PATH=/evil"),
        ("1", "mine", None),
        ("0", "nodewatch: of another life", None),
        ("1", "", None),
    ],
)
def test_the_comment_tells_why(files: JobFiles, restart: str, comment: str, told: str | None) -> None:
    files.opened({**JOB, "restart": restart, "comment": comment}, 0.0)

    assert environment(files).get("NODEWATCH_INTERRUPTION") == told
    assert "PATH" not in environment(files)


@pytest.mark.parametrize("nodes", ["", "n[", "n[1-999999]"])
def test_a_job_of_unknown_size_is_told_no_rate(files: JobFiles, nodes: str) -> None:
    files.opened({**JOB, "nodes": nodes}, 0.0)

    assert "NODEWATCH_MTBF_S" not in environment(files)


def test_the_controller_tells_the_rate_and_the_sites_defaults(files: JobFiles) -> None:
    defaults = [SiteDefault(always=True, value="2").to_json()]

    assert files.asked({"kind": "cluster", "node_mtbf_s": 4000.0, "auto_resume": defaults, "jobs": []}, 0.0)

    files.opened(JOB, 0.0)
    assert environment(files)["NODEWATCH_MTBF_S"] == "1000"
    assert environment(files)["NODEWATCH_AUTO_RESUME"] == "2"


def test_a_checkpoint_is_asked_for_once_for_each_reason(files: JobFiles) -> None:
    files.opened(JOB, 0.0)
    file = files.directory("17") / "save-now"
    versions = []
    for key, stop in (("a", False), ("a", False), ("b", False), ("b", True)):
        assert files.asked({"kind": "save_now", "job": 17, "key": key, "stop": stop}, 0.0)
        versions.append((file.stat().st_ino, file.read_text()))

    assert versions[0] == versions[1]
    # Another file: the program sees a change, whatever its content.
    assert versions[1][0] != versions[2][0]
    assert [text for _, text in versions] == ["", "", "", "stop"]


def test_bad_nodes_are_a_line_each(files: JobFiles) -> None:
    files.opened(JOB, 0.0)

    files.asked({"kind": "bad_nodes", "job": 17, "nodes": ["n2", "n3\nn4", ""]}, 0.0)

    assert (files.directory("17") / "bad-nodes").read_text() == "n2\n"


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "save_now"},
        {"kind": "save_now", "job": "x"},
        {"kind": "save_now", "job": -1},
        {"kind": "save_now", "job": 99},
        {"kind": "bad_nodes", "job": 17},
        {"kind": "cluster", "jobs": 5},
        {"kind": "cluster", "node_mtbf_s": "x", "auto_resume": [{}]},
    ],
)
def test_a_request_that_makes_no_sense_is_no_crash(
    files: JobFiles, tmp_path: Path, request_: dict[str, object]
) -> None:
    assert files.asked(request_, 0.0)
    assert list(tmp_path.rglob("save-now")) == []


def test_requests_of_other_kinds_are_not_its_own(files: JobFiles) -> None:
    assert not files.asked({"kind": "validate", "key": "k"}, 0.0)


def test_the_directory_goes_with_the_job_and_follows_no_link(files: JobFiles, tmp_path: Path) -> None:
    """What the user puts into what is his is removed itself, never what it points to."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    files.opened(JOB, 0.0)
    (files.directory("17") / "heartbeats" / "0").symlink_to(kept / "file")
    (files.directory("17") / "heartbeats" / "1").symlink_to(kept)

    files.closed("17", time.monotonic())

    assert not files.directory("17").exists()
    settle(files, tmp_path / "jobs")
    assert (kept / "file").read_text() == "x"


def test_the_next_run_of_a_job_finds_nothing_of_the_last(files: JobFiles) -> None:
    files.opened(JOB, 0.0)
    files.asked({"kind": "save_now", "job": 17, "key": "a", "stop": False}, 0.0)
    (files.directory("17") / "heartbeats" / "0").write_text("old")

    files.opened({**JOB, "restart": "1"}, 0.0)

    assert sorted(path.name for path in files.directory("17").iterdir()) == ["environment", "heartbeats"]
    assert list((files.directory("17") / "heartbeats").iterdir()) == []
    files.asked({"kind": "save_now", "job": 17, "key": "a", "stop": False}, 0.0)
    assert (files.directory("17") / "save-now").exists()


def test_a_component_of_a_heterogeneous_job_is_found_under_the_jobs_id(files: JobFiles) -> None:
    files.opened({**JOB, "id": "18", "het": "17"}, 0.0)

    assert environment(files, "17") == environment(files, "18")
    files.closed("18", 0.0)
    assert not files.directory("17").is_symlink()


def test_what_jobs_left_goes_when_the_controller_does_not_see_them(
    files: JobFiles, clock: Clock, tmp_path: Path
) -> None:
    for job_id in ("17", "18", "19"):
        files.opened({**JOB, "id": job_id}, 0.0)
    clock.now += 300.0
    os.utime(files.directory("19") / "environment", (clock.now, clock.now))

    files.asked({"kind": "cluster", "jobs": [18]}, 0.0)

    assert [files.directory(job_id).exists() for job_id in ("17", "18", "19")] == [False, True, True]


def test_a_controller_that_does_not_know_removes_nothing(files: JobFiles, clock: Clock) -> None:
    files.opened(JOB, 0.0)
    clock.now += 300.0

    files.asked({"kind": "cluster", "node_mtbf_s": 1.0}, 0.0)

    assert files.directory("17").exists()


def test_a_removal_that_an_earlier_agent_did_not_end_is_ended(files: JobFiles, tmp_path: Path) -> None:
    (tmp_path / "jobs" / ".gone-1-2" / "heartbeats").mkdir(parents=True)

    settle(files, tmp_path / "jobs")

    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_full_or_missing_runtime_directory_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file in the way")
    files = JobFiles(tmp_path / "jobs")

    files.opened(JOB, 0.0)
    files.closed("17", 0.0)
    files.keep_house(0.0)
    files.close()

    assert (tmp_path / "jobs").read_text() == "a file in the way"
