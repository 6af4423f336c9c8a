"""What the commands say when they cannot do what was asked: one sentence, exit code 1, nothing touched."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nodewatch.lab import preflight
from nodewatch.lab.command import lab
from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout
from nodewatch.lab.process import run


def call(state: Path, *words: str) -> Result:
    return CliRunner().invoke(lab, ["--state-dir", str(state), *words])


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "require_root", lambda: None)


def test_without_root_the_lab_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for words in (["up"], ["status"], ["down"], ["inject", "gpu-lost", "n1"], ["exec", "n1", "--", "true"]):
        result = call(tmp_path, *words)
        assert result.exit_code == 1
        assert "needs root: run it with sudo" in result.output
        assert "Traceback" not in result.output


def test_missing_tools_come_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "shutil.which", lambda tool: None if tool in ("debootstrap", "systemd-nspawn") else f"/bin/{tool}"
    )
    monkeypatch.setattr(preflight, "KEYRING", Path("/"))
    with pytest.raises(LabError, match="run apt-get install debootstrap systemd-container"):
        preflight.require_tools()


def test_a_lab_that_is_not_up_is_said_to_be_so(tmp_path: Path, as_root: None) -> None:
    for words in (["status"], ["inject", "benign", "n1"], ["exec", "n1", "--", "true"], ["logs", "n1"]):
        result = call(tmp_path, *words)
        assert result.exit_code == 1
        assert "the lab is not up: run lab up first" in result.output


def test_a_second_lab_is_refused(tmp_path: Path, as_root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "require_tools", lambda: None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lab.json").write_text("{}")
    result = call(tmp_path, "up", "--plain")
    assert result.exit_code == 1
    assert "already up" in result.output
    assert "lab down" in result.output


def test_too_little_disk_is_said_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "FIRST_BUILD_BYTES", 10**18)
    with pytest.raises(LabError, match=r"has .* GB free and the lab needs .* GB"):
        preflight.require_disk(Layout(root=tmp_path), image_cached=False)


def test_refused_namespaces_are_told_with_the_kernels_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "cgroup2_mount", lambda: tmp_path)

    def refuse(argv: list[str], **_: object) -> object:
        return run(
            ["sh", "-c", "echo 'unshare failed: Operation not permitted' >&2; exit 1"], deadline_s=5, check=False
        )

    monkeypatch.setattr(preflight, "run", refuse)
    with pytest.raises(LabError, match=r"refuses new namespaces .*Operation not permitted"):
        preflight.require_namespaces(Layout(root=tmp_path))


def test_a_size_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    result = call(tmp_path, "up", "--nodes", "0")
    assert result.exit_code == 1
    assert "at least one node" in result.output


def test_a_command_past_its_deadline_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(LabError, match="did not end within"):
        run(["sh", "-c", f"sleep 1; touch {mark}"], deadline_s=0.2)
    run(["sleep", "1.2"], deadline_s=5)
    assert not mark.exists()


def test_a_failing_command_is_told_with_its_own_words() -> None:
    with pytest.raises(LabError, match="exit code 3: no such thing"):
        run(["sh", "-c", "echo no such thing >&2; exit 3"], deadline_s=5)
    with pytest.raises(LabError, match="could not be started"):
        run(["/nonexistent/tool"], deadline_s=5)
