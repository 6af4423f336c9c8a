"""Copies of checkpoints elsewhere, and what is fetched when none here verifies."""

import shutil
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from nodewatch_train import manifest
from nodewatch_train.copies import CommandCopy, Copy, DirectoryCopy, S3Copy, newest_copy
from nodewatch_train.manifest import CheckpointError


def write(root: Path, step: int) -> Path:
    tmp = manifest.begin(root, step)
    (tmp / "weights").write_bytes(b"%d" % step * 1000)
    return manifest.commit(tmp, step, world_size=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "local"
    path.mkdir()
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared"


def by_command(shared: Path) -> CommandCopy:
    return CommandCopy(
        put=["sh", "-c", f"mkdir -p {shared} && cp -r {{path}} {shared}/{{name}}"],
        names=["ls", str(shared)],
        fetch=["sh", "-c", f"cp -r {shared}/{{name}}/. {{path}}"],
    )


@pytest.mark.parametrize("make", [DirectoryCopy, by_command])
def test_a_lost_directory_comes_back_from_the_copy(root: Path, shared: Path, make: type[DirectoryCopy]) -> None:
    copy: Copy = make(shared)
    for step in (10, 20):
        copy.put(write(root, step))
    shutil.rmtree(root)
    root.mkdir()
    said: list[str] = []
    newest = newest_copy(root, None, [copy], say=said.append)
    assert newest == root / "step-00000020"
    assert manifest.verify(newest).ok
    assert said == ["step-00000020 was fetched from a copy"]


def test_a_torn_copy_is_skipped_for_the_one_before_and_a_newer_one_here_is_kept(root: Path, shared: Path) -> None:
    copy = DirectoryCopy(shared, keep=5)
    for step in (10, 20):
        copy.put(write(root, step))
    (shared / "step-00000020" / "weights").write_bytes(b"torn")
    shutil.rmtree(root / "step-00000020")
    shutil.rmtree(root / "step-00000010")
    said: list[str] = []
    assert newest_copy(root, None, [copy], say=said.append) == root / "step-00000010"
    assert said[0] == "skipped the copy of step-00000020: step-00000020: weights has 4 bytes and should have 2000"
    here = write(root, 30)
    assert newest_copy(root, here, [copy], say=said.append) == here
    assert sorted(path.name for path in root.iterdir()) == ["step-00000010", "step-00000030"]


def test_a_copy_keeps_a_few_and_a_failure_stops_nothing(
    root: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = DirectoryCopy(shared, keep=2)
    for step in (10, 20, 30):
        copy.put(write(root, step))
    assert copy.names() == ["step-00000030", "step-00000020"]
    DirectoryCopy(Path("/proc/none")).put(root / "step-00000030")
    assert "step-00000030 was not copied to /proc/none" in capsys.readouterr().err
    failing = CommandCopy(put=["false"], names=["sh", "-c", "echo no route >&2; exit 3"], fetch=["no-such-command"])
    failing.put(root / "step-00000030")
    assert "step-00000030 was not copied: false ended with 1" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="sh ended with 3: no route"):
        failing.names()
    said: list[str] = []
    assert newest_copy(root, root / "step-00000030", [failing], say=said.append) == root / "step-00000030"
    assert said == ["sh ended with 3: no route"]


def test_s3(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        copy = S3Copy("bucket", "runs/demo/", client=client)
        copy.put(write(root, 10))
        copy.put(write(root, 20))
        client.delete_object(Bucket="bucket", Key="runs/demo/step-00000020/manifest.json")  # an upload that did not end
        assert copy.names() == ["step-00000010"]
        shutil.rmtree(root / "step-00000010")
        assert newest_copy(root, None, [copy], say=lambda _: None) == root / "step-00000010"
        S3Copy("none", "x", client=client).put(root / "step-00000020")
        with pytest.raises(CheckpointError, match="s3://none/x cannot be read"):
            S3Copy("none", "x", client=client).names()
