"""The commit protocol against damage and crashes: what verifies is whole, and the one before is always found."""

import json
import os
import random
import shutil
import signal
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nodewatch_train import manifest
from nodewatch_train.crc import combined
from nodewatch_train.digest import CHUNK_BYTES, Digest
from nodewatch_train.manifest import CheckpointError, FileEntry, Manifest

CONTENT = {"__0_0.distcp": b"weights of rank 0", "__1_0.distcp": b"weights of rank 1" * 9, ".metadata": b"\x80plan"}


def write(root: Path, step: int, *, after: manifest.AfterCall | None = None, content: bytes = b"") -> Path:
    tmp = manifest.begin(root, step, after=after)
    for name, data in CONTENT.items():
        (tmp / name).write_bytes(data + content)
    return manifest.commit(tmp, step, world_size=2, extra={"model": "m"}, created_at=1_764_000_000.25, after=after)


def write_manifest(path: Path, **changes: object) -> None:
    """Put a manifest in place whose own checksum is right, whatever else it says."""
    found = manifest.verify(path, checksums=False).manifest
    assert found is not None
    fields = {name: getattr(found, name) for name in ("step", "world_size", "files", "created_at", "extra")}
    (path / "manifest.json").write_bytes(Manifest(**(fields | changes)).render())


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pristine")
    write(root, 20)
    write(root, 40)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A directory of its own with the checkpoints of step 20 and step 40."""
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


def test_a_committed_checkpoint_verifies_and_says_what_it_holds(root: Path) -> None:
    newest, skipped = manifest.newest_verified(root)
    assert newest == root / "step-00000040"
    assert skipped == []
    found = manifest.verify(newest).manifest
    assert found is not None
    assert (found.step, found.world_size, found.extra, found.created_at) == (40, 2, {"model": "m"}, 1_764_000_000.25)
    assert {name: entry.size for name, entry in found.files.items()} == {n: len(d) for n, d in CONTENT.items()}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_to_any_byte_of_any_file_is_found_and_the_one_before_is_taken(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("damaged") / "checkpoints"))
    path = root / "step-00000040" / data.draw(st.sampled_from([*CONTENT, "manifest.json"]), label="file")
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1), label="at")
    kind = data.draw(st.sampled_from(["truncate", "flip", "insert", "delete", "zero the rest", "swap for a pipe"]))
    if kind == "delete":
        path.unlink()
    elif kind == "swap for a pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        flip = data.draw(st.integers(1, 255), label="flip")
        damaged = {
            "truncate": whole[:at],
            "flip": whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :],
            "insert": whole[:at] + bytes([flip]) + whole[at:],
            "zero the rest": whole[:at] + b"\0" * (len(whole) - at),
        }[kind]
        path.write_bytes(damaged)
    newest, skipped = manifest.newest_verified(root)
    assert newest == root / "step-00000020"
    assert len(skipped) == 1
    assert "step-00000040" in skipped[0]
    assert path.name in skipped[0]
    assert "\n" not in skipped[0]
    shutil.rmtree(root)


@settings(max_examples=100, deadline=None)
@given(
    raw=st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_any_bytes_in_place_of_a_manifest_are_refused_without_an_exception(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.mktemp("garbled") / "step-00000001"
    path.mkdir()
    (path / "manifest.json").write_bytes(raw)
    verification = manifest.verify(path)
    assert not verification.ok
    assert "manifest.json" in verification.reason


def _body(**changes: object) -> bytes:
    body = {"format_version": 1, "step": 40, "world_size": 1, "files": {"a": {"size": 1, "sha256": "0" * 64}}}
    return json.dumps(body | {"created_at": 1.0, "extra": {}, "manifest_sha256": "0" * 64} | changes).encode()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[" * 200_000, "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (_body(format_version=3), "format version 3, and this nodewatch reads up to 2: update"),
        (_body(format_version=True), "no format version that is known"),
        (_body(step=-1), "no valid step"),
        (_body(world_size=0), "no valid world_size"),
        (_body(created_at=float("nan")), "no valid created_at"),
        (_body(created_at=10**400), "no valid created_at"),
        (_body(extra=[]), "no valid extra"),
        (_body(files={}), "lists no files"),
        (_body(files={"../step-00000020/.metadata": {}}), "is not the name of a checkpoint file"),
        (_body(files={"a": {"size": "1", "sha256": "0" * 64}}), "valid size and sha256 for a"),
        (_body(), "does not match its own checksum"),
    ],
)
def test_a_garbled_manifest_is_described(root: Path, raw: bytes, said: str) -> None:
    (root / "step-00000040" / "manifest.json").write_bytes(raw)
    newest, skipped = manifest.newest_verified(root)
    assert newest == root / "step-00000020"
    assert said in skipped[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 60}, "says step 60"),
        ({"files": {".metadata": FileEntry(size=5, sha256="0" * 64)}}, ".metadata does not match its checksum"),
        ({"files": {".metadata": FileEntry(size=6, sha256="0" * 64)}}, ".metadata has 5 bytes and should have 6"),
        ({"files": {"never": FileEntry(size=6, sha256="0" * 64)}}, "never is missing"),
    ],
)
def test_a_lying_manifest_is_caught(root: Path, changes: dict[str, object], said: str) -> None:
    write_manifest(root / "step-00000040", **changes)
    newest, skipped = manifest.newest_verified(root)
    assert newest == root / "step-00000020"
    assert said in skipped[0]


def test_nothing_that_verifies_is_none_with_every_reason(root: Path) -> None:
    (root / "step-00000040" / ".metadata").unlink()
    (root / "step-00000020" / "manifest.json").unlink()
    newest, skipped = manifest.newest_verified(root)
    assert newest is None
    assert [".metadata is missing" in skipped[0], "has no manifest.json" in skipped[1]] == [True, True]


def test_the_files_are_on_disk_before_the_name_is(tmp_path: Path) -> None:
    calls: list[str] = []
    write(tmp_path, 1, after=calls.append)
    assert calls == [
        "mkdir",
        *[f"fsync {name}" for name in sorted(CONTENT)],
        "write manifest",
        "fsync manifest",
        "fsync directory",
        "rename",
        "fsync parent",
    ]


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; the wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("step", [40, 60], ids=["replacing a checkpoint", "a new checkpoint"])
def test_a_kill_after_any_call_leaves_a_good_checkpoint(root: Path, step: int) -> None:
    calls: list[str] = []
    write(Path(shutil.copytree(root, root.with_name("dry run"))), step, after=calls.append, content=b"new")
    assert ("rename the one before" in calls) == (step == 40)
    for count in range(1, len(calls) + 1):
        here = Path(shutil.copytree(root, root.with_name(f"killed after {count}")))
        seen: list[str] = []

        def stop(call: str, seen: list[str] = seen, count: int = count) -> None:
            seen.append(call)
            if len(seen) == count:
                os.kill(os.getpid(), signal.SIGKILL)

        status = in_child(partial(write, here, step, after=stop, content=b"new"))
        assert os.WTERMSIG(status) == signal.SIGKILL
        newest, skipped = manifest.newest_verified(here)
        assert newest is not None, calls[:count]
        assert skipped == [], calls[:count]
        if "rename" in calls[:count]:
            assert newest.name == f"step-{step:08d}"
            assert (newest / ".metadata").read_bytes().endswith(b"new")
        else:
            assert newest.name.startswith("step-00000040")
        # And the next life tidies up, and writes the same step again.
        manifest.sweep(here)
        assert write(here, step, content=b"again").name == f"step-{step:08d}"
        left = {path.name for path in here.iterdir()}
        assert left == {"step-00000020", "step-00000040", f"step-{step:08d}"}


def test_a_kill_at_any_moment_leaves_a_good_checkpoint(root: Path) -> None:
    chance = random.Random(7)
    highest = 40

    def write_for_ever() -> None:
        step = highest
        while True:
            step += 1
            write(root, step)
            manifest.prune(root, 2)

    for _ in range(200):
        child = os.fork()
        if child == 0:
            try:
                write_for_ever()
            finally:
                os._exit(1)  # an error must not bring a second pytest to life
        time.sleep(chance.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        newest, skipped = manifest.newest_verified(root)
        assert newest is not None
        assert skipped == []
        manifest.sweep(root)
        step = int(newest.name.removeprefix("step-"))
        assert step >= highest
        highest = step
    assert highest > 40


def test_prune_keeps_the_newest_that_verify_and_never_the_only_one(root: Path) -> None:
    write(root, 60)
    write(root, 80)
    (root / "step-00000080" / ".metadata").write_bytes(b"torn!")
    assert manifest.prune(root, 4) == []
    assert manifest.prune(root, 2) == ["step-00000020"]
    (root / "step-00000060" / ".metadata").unlink()
    assert manifest.prune(root, 1) == []
    assert manifest.newest_verified(root)[0] == root / "step-00000040"
    with pytest.raises(CheckpointError, match="keep at least 1"):
        manifest.prune(root, 0)


def test_a_run_that_was_sent_back_keeps_its_own_checkpoints(root: Path) -> None:
    write(root, 11)
    assert manifest.prune(root, 1, up_to=11) == []
    assert manifest.prune(root, 1, up_to=30) == ["step-00000011"]
    assert manifest.newest_verified(root)[0] == root / "step-00000040"


def test_prune_looks_at_the_sizes_of_trusted_checkpoints_too(root: Path) -> None:
    (root / "step-00000040" / ".metadata").write_bytes(b"truncated"[:2])
    assert manifest.prune(root, 1, trusted={"step-00000040"}) == []


@pytest.mark.parametrize("step", [-1, 100_000_000])
def test_a_step_that_does_not_fit_the_name_is_refused(tmp_path: Path, step: int) -> None:
    with pytest.raises(CheckpointError, match=f"step {step} cannot name a checkpoint"):
        manifest.begin(tmp_path, step)


def test_a_file_that_a_rank_wrote_and_rank_0_cannot_see_stops_the_commit(tmp_path: Path) -> None:
    tmp = manifest.begin(tmp_path, 1)
    (tmp / "a").write_bytes(b"a")
    with pytest.raises(CheckpointError, match=r"__1_0\.distcp, which a rank wrote"):
        manifest.commit(tmp, 1, world_size=2, described={"__1_0.distcp": FileEntry(size=1, sha256="0" * 64)})
    assert manifest.newest_verified(tmp_path) == (None, [])


def test_an_empty_checkpoint_is_not_committed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing was written"):
        manifest.commit(manifest.begin(tmp_path, 1), 1, world_size=1)


def test_a_writer_that_outlived_its_job_cannot_commit(tmp_path: Path) -> None:
    tmp = manifest.begin(tmp_path, 1)
    (tmp / "a").write_bytes(b"a")
    assert manifest.sweep(tmp_path) == [tmp.name]
    with pytest.raises(CheckpointError, match="No such file"):
        manifest.commit(tmp, 1, world_size=1)


def test_a_directory_that_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path) -> None:
    manifest.check_directory(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist: create it"):
        manifest.check_directory(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is not a directory"):
        manifest.check_directory(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot list the checkpoint directory"):
        manifest.newest_verified(tmp_path / "none")
    # /proc takes no directories, from root neither: the nearest to a read-only mount that every machine has.
    with pytest.raises(CheckpointError, match="/proc cannot be written"):
        manifest.check_directory(Path("/proc"))


def test_a_large_file_is_verified_by_chunks_and_a_small_checkpoint_stays_version_1(tmp_path: Path) -> None:
    assert json.loads((write(tmp_path, 1) / "manifest.json").read_bytes())["format_version"] == 1
    tmp = manifest.begin(tmp_path, 2)
    size = CHUNK_BYTES * 3 + 5
    with open(tmp / "large", "wb") as stream:
        stream.truncate(size)
        stream.write(b"weights")
    (tmp / "small").write_bytes(b"x")
    path = manifest.commit(tmp, 2, world_size=1)
    body = json.loads((path / "manifest.json").read_bytes())
    assert (body["format_version"], len(body["files"]["large"]["chunks"])) == (2, 4)
    assert "chunks" not in body["files"]["small"]
    assert manifest.verify(path).ok
    assert manifest.verify(path, sample=0.1).ok
    with open(path / "large", "r+b") as stream:
        stream.seek(size - 1)
        stream.write(b"!")
    assert manifest.verify(path).reason == "step-00000002: large does not match its checksum in chunk 3"
    found = manifest.verify(path, checksums=False).manifest
    assert found is not None
    lie = replace(found.files["large"], chunks=found.files["large"].chunks[:3])
    write_manifest(path, files={"large": lie})
    assert "does not give valid chunks for large" in manifest.verify(path).reason


def test_a_digest_is_the_same_however_the_bytes_come() -> None:
    data = random.Random(3).randbytes(2**20) * 17
    whole, parts = Digest(), Digest()
    whole.update(data)
    for start in range(0, len(data), 777_777):
        parts.update(data[start : start + 777_777])
    assert whole.entry() == parts.entry()
    assert [len(whole.entry().chunks), whole.size] == [2, len(data)]


def test_checksums_of_stretches_are_put_together() -> None:
    chance = random.Random(4)
    for _ in range(200):
        first, second = chance.randbytes(chance.randrange(3000)), chance.randbytes(chance.randrange(3000))
        assert combined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)
    digest = Digest()
    digest.update(b"before")
    digest.mark()
    digest.update(b"one")
    digest.update(b"two")
    assert digest.mark() == zlib.crc32(b"onetwo")
