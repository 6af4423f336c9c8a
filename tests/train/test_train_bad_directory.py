"""Checkpoint directories in which nothing can be right: what a run says of each, in one sentence, and what it leaves alone.

File systems that are full or read-only are mounted in a mount namespace of their own.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from live_run import TRAIN
from nodewatch_train import manifest
from test_train_checkpoint import Job

PRELUDE = """
import os, sys
from pathlib import Path
root = Path(sys.argv[1])
from test_train_checkpoint import Job
from nodewatch_train.manifest import newest_verified
def told(work):
    try:
        print(work())
    except Exception as error:
        print(type(error).__name__, error)
def fill():
    with open(root / "filler", "wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(4096))
        except OSError:
            pass
"""


def in_namespace(mount: str, directory: Path, script: str) -> list[str]:
    """What `script` prints, with `mount` done first where nobody else sees it."""
    directory.mkdir(exist_ok=True)
    command = f'{mount} && exec "$0" -c "$1" "$2"'
    ran = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-ec",
            command,
            sys.executable,
            PRELUDE + script,
            str(directory),
        ],
        env=os.environ
        | {"PYTHONPATH": f"{TRAIN}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1", "PLACE": str(directory)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_full_disk_is_said_the_one_before_stays_and_the_run_goes_on_once_there_is_room(tmp_path: Path) -> None:
    script = """
job = Job(root, width=256)
job.step()
told(lambda: job.checkpointer.save(1).name)
fill()
told(lambda: job.checkpointer.save(2).name)
job.checkpointer.begin_save(3)
told(lambda: job.checkpointer.wait().name)
print(newest_verified(root))
(root / "filler").unlink()
told(lambda: job.checkpointer.save(4).name)
"""
    first, second, third, left, after = in_namespace(
        'mount -t tmpfs -o size=4m none "$PLACE"', tmp_path / "full", script
    )
    assert first == "step-00000001"
    for line in (second, third):
        assert line.startswith("CheckpointError cannot ")
        assert "full" in line
        assert line.endswith("No space left on device")
    assert left == f"(PosixPath('{tmp_path}/full/step-00000001'), [])"
    assert after == "step-00000004"


def test_a_run_that_starts_on_a_full_disk_is_told_so(tmp_path: Path) -> None:
    script = """
fill()
job = Job(root)
told(job.checkpointer.resume)
"""
    [line] = in_namespace('mount -t tmpfs -o size=1m none "$PLACE"', tmp_path / "full", script)
    assert line == (
        f"CheckpointError the lock {tmp_path}/full/.lock cannot be written (No space left on device): make room there, or "
        "name another directory"
    )


def test_a_read_only_directory_is_said(tmp_path: Path) -> None:
    script = """
job = Job(root)
told(job.checkpointer.resume)
"""
    [line] = in_namespace('mount -t tmpfs -o ro none "$PLACE"', tmp_path / "read-only", script)
    assert line == (
        f"CheckpointError the checkpoint directory {tmp_path}/read-only cannot be written (Read-only file system): make it "
        "writable, or name another"
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory with the checkpoints of steps 1 and 2."""
    job = Job(tmp_path)
    for step in (1, 2):
        job.step()
        job.checkpointer.save(step)
    job.checkpointer.close()
    return tmp_path


def _of_a_newer_version(path: Path) -> None:
    body = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps(body | {"format_version": 3}))


def _torn(path: Path) -> None:
    os.truncate(path / "__0_0.distcp", 10)


def _lying(path: Path) -> None:
    shutil.copytree(path, path.with_name("step-00000009"))


def _without_a_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_torn, "skipped step-00000002: __0_0.distcp has 10 bytes and should have "),
        (_lying, "skipped step-00000009: manifest.json says step 2: it lies, or the directory was renamed"),
        (_without_a_manifest, "skipped step-00000002 has no manifest.json: it was never completed, or was damaged"),
        (
            _of_a_newer_version,
            "skipped step-00000002: manifest.json has format version 3, and this nodewatch reads up to 2",
        ),
    ],
)
def test_one_that_is_wrong_is_passed_over_in_one_sentence(
    saved: Path, harm: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(saved / "step-00000002")
    job = Job(saved)
    at = job.checkpointer.resume()
    job.checkpointer.close()
    assert at == (2 if harm is _lying else 1)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"checkpoint: {said}")


def test_nothing_but_checkpoints_of_a_newer_version_is_no_reason_to_start_anew(saved: Path) -> None:
    for name in ("step-00000001", "step-00000002"):
        _of_a_newer_version(saved / name)
    job = Job(saved)
    with pytest.raises(manifest.RefusedError) as refused:
        job.checkpointer.resume()
    job.checkpointer.close()
    assert str(refused.value) == (
        f"{saved} holds step-00000002 of a newer nodewatch and nothing else that verifies: update nodewatch_train here, or use "
        "another checkpoint directory"
    )


def test_what_a_newer_version_wrote_is_not_deleted(saved: Path) -> None:
    _of_a_newer_version(saved / "step-00000001")
    job = Job(saved, keep=1)
    assert job.checkpointer.resume() == 2
    job.checkpointer.save(3)
    job.checkpointer.close()
    assert [path.name for path in manifest.checkpoints(saved)] == ["step-00000003", "step-00000001"]
