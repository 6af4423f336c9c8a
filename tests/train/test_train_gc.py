"""Whatever is done to whichever checkpoints: clearing up never takes the last that is good, nor more than was asked."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from nodewatch_train import manifest

from nodewatch.cli.checkpoint import checkpoint as command


def good(path: Path) -> None:
    """As it was written."""


def torn(path: Path) -> None:
    (path / "weights").write_bytes(b"torn")


def flipped(path: Path) -> None:
    whole = (path / "weights").read_bytes()
    (path / "weights").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def missing(path: Path) -> None:
    (path / "weights").unlink()


def unfinished(path: Path) -> None:
    (path / "manifest.json").unlink()


def empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def half_replaced(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.replaced-00ff"))


def no_directory(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


HARMS = [good, good, half_replaced, torn, flipped, missing, unfinished, empty, no_directory]
"""Good ones twice: else most directories would hold none."""


def by_prune(root: Path, keep: int) -> None:
    manifest.prune(root, keep)


def by_command(root: Path, keep: int) -> None:
    ran = CliRunner().invoke(command, ["gc", str(root), "--keep", str(keep), "--unfinished", "--yes"])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int], Path]:
    """Puts the checkpoint of a step into a directory: copied, since flushing each would take the most of the time."""
    pristine = tmp_path_factory.mktemp("pristine")
    for step in range(8):
        tmp = manifest.begin(pristine, step)
        (tmp / "weights").write_bytes(b"%d" % step * 50)
        manifest.commit(tmp, step, world_size=1)

    def put(root: Path, step: int) -> Path:
        return Path(shutil.copytree(pristine / f"step-{step:08d}", root / f"step-{step:08d}"))

    return put


@pytest.mark.parametrize("clear_up", [by_prune, by_command])
@settings(max_examples=120, deadline=None)
@given(harms=st.lists(st.sampled_from(HARMS), max_size=8), keep=st.integers(1, 4))
def test_the_newest_good_ones_stay(
    checkpoint: Callable[[Path, int], Path],
    clear_up: Callable[[Path, int], None],
    harms: list[Callable[[Path], None]],
    keep: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for step, harm in enumerate(harms):
            harm(checkpoint(root, step))
        before = [path.name for path in manifest.checkpoints(root) if manifest.verify(path).ok]
        clear_up(root, keep)
        after = [path.name for path in manifest.checkpoints(root) if manifest.verify(path).ok]
        assert after[:keep] == before[:keep]
        assert bool(after) == bool(before)
        if len(before) < keep:
            assert after == before
        # And what is newer than the ones that stay is left as evidence.
        if len(before) >= keep:
            assert len(after) == keep or clear_up is by_command
        assert clear_up_again_changes_nothing(root, keep, clear_up)


def clear_up_again_changes_nothing(root: Path, keep: int, clear_up: Callable[[Path, int], None]) -> bool:
    before = sorted(path.name for path in root.iterdir())
    clear_up(root, keep)
    return before == sorted(path.name for path in root.iterdir())


def test_what_a_newer_version_wrote_is_not_deleted_as_torn(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        begun = manifest.begin(tmp_path, step)
        (begun / "weights").write_bytes(b"weights")
        manifest.commit(begun, step, world_size=1)
    oldest = tmp_path / "step-00000001"
    body = json.loads((oldest / "manifest.json").read_text())
    (oldest / "manifest.json").write_text(json.dumps(body | {"format_version": 99}))

    done = CliRunner().invoke(command, ["gc", str(tmp_path), "--keep", "1", "--yes"])

    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000001", "step-00000003"]
