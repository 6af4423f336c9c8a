"""Checks of other packages: loaded beside the built-in ones, and left out, with a word in the log, when anything is wrong."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nodewatch.checks import _api
from nodewatch.checks._api import built_in_checks, load_checks

REPOSITORY = Path(__file__).parents[2]
GOOD = '''"""Disks that are almost full of logs."""

from nodewatch.checks._api import Phase, check
from nodewatch.model.host_samples import SpaceSample


@check(reads=SpaceSample, phases=Phase.PERIODIC)
def {name}(sample):
    """`site.logs` always."""
    return ()
'''


@dataclass(frozen=True)
class Entry:
    """One line of an installed package's entry points."""

    name: str
    value: str

    def load(self) -> Any:
        module, _, function = self.value.partition(":")
        loaded = importlib.import_module(module)
        return getattr(loaded, function) if function else loaded


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory from which modules are imported, and forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_check_of_another_package(site: Path) -> None:
    (site / "site_logs.py").write_text(GOOD.format(name="site_logs"))
    (site / "site_more.py").write_text(GOOD.format(name="site_more"))
    specs = load_checks([Entry("site_logs", "site_logs"), Entry("site_more", "site_more:site_more")])
    assert set(specs) == {*built_in_checks(), "site_logs", "site_more"}
    assert specs["site_logs"].summary == "Disks that are almost full of logs."


BROKEN = {
    "no module": ("", Entry("site_gone", "site_gone"), "No module named 'site_gone'"),
    "an import error": ("import there_is_none\n", None, "No module named 'there_is_none'"),
    "a syntax error": ("def (\n", None, "SyntaxError"),
    "it ends the program": ("import sys; sys.exit('bye')\n", None, "SystemExit: bye"),
    "it declares none": ('"""Nothing."""\n', None, "is no check"),
    "no such function": (GOOD.format(name="site_bad"), Entry("site_bad", "site_bad:other"), "has no attribute 'other'"),
    "something else": (GOOD.format(name="site_bad"), Entry("site_bad", "site_bad:Phase"), "is no check"),
    "another name": (GOOD.format(name="site_bad"), Entry("site_fine", "site_bad"), "it is called site_bad"),
    "a function of another name": (GOOD.format(name="other"), None, "must stand in other.py"),
    "no docstring": (GOOD.format(name="site_bad").partition("\n")[2], None, "has no module docstring"),
    "no sample": (GOOD.format(name="site_bad").replace("reads=SpaceSample", "reads=dict"), None, "it reads dict"),
    "a name that is taken": (
        GOOD.format(name="gpu_lost"),
        Entry("gpu_lost", "site_checks.gpu_lost"),
        "there is a check of that name already, in nodewatch.checks.gpu_lost",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_is_told_and_left_out(site: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    text, entry, says = BROKEN[case]
    entry = entry or Entry("site_bad", "site_bad")
    (site / "site_checks").mkdir()
    (site / "site_bad.py").write_text(text)
    (site / "site_checks" / "gpu_lost.py").write_text(text)
    (site / "site_logs.py").write_text(GOOD.format(name="site_logs"))
    specs = load_checks([entry, Entry("site_logs", "site_logs")])
    assert set(specs) == {*built_in_checks(), "site_logs"}
    assert specs["gpu_lost"].function.__module__ == "nodewatch.checks.gpu_lost"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert f"the check {entry.name} ({entry.value}) is left out" in record.getMessage()
    assert says in record.getMessage()


def test_two_packages_with_one_name(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    for package in ("a_site", "b_site"):
        (site / package).mkdir()
        (site / package / "site_logs.py").write_text(GOOD.format(name="site_logs"))
    specs = load_checks([Entry("site_logs", "b_site.site_logs"), Entry("site_logs", "a_site.site_logs")])
    assert specs["site_logs"].function.__module__ == "a_site.site_logs", "the same one at every start"
    assert "in a_site.site_logs" in caplog.text


def test_the_example_of_the_page_works_as_it_stands(tmp_path: Path) -> None:
    """docs/writing-checks.md: its files are written, installed by their metadata, and found by a real agent."""
    page = (REPOSITORY / "docs" / "writing-checks.md").read_text()
    files = dict(re.findall(r"`([\w./-]+)`:\n\n```\w+\n(.*?)```", page, re.DOTALL))
    assert set(files) == {"site_checks/site_scratch.py", "pyproject.toml", "tests/test_site_scratch.py"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    # What an installer would leave, without the network that a build needs.
    (tmp_path / "site_checks-1.dist-info").mkdir()
    (tmp_path / "site_checks-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: site-checks\nVersion: 1\n"
    )
    group = re.search(r'\[project\.entry-points\."(.+)"\]\n(.+)\n', files["pyproject.toml"])
    assert group is not None
    entry = group[2].replace('"', "")
    (tmp_path / "site_checks-1.dist-info" / "entry_points.txt").write_text(f"[{group[1]}]\n{entry}\n")
    (tmp_path / "agent.toml").write_text("[checks.site_scratch]\nleast_free_share = 0.2\n")
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    agent = [sys.executable, "-m", "nodewatch.agent.main", "--check-config", "--config", str(tmp_path / "agent.toml")]
    done = subprocess.run(agent, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "site_scratch" in done.stdout
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "tests")]
    done = subprocess.run(tests, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert group[1] == _api.GROUP
