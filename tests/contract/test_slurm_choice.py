"""Which Slurm client is chosen, and what is said of it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nodewatch
from nodewatch.clients.slurm_choice import Choice, choose
from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.clients.slurm_pyslurm import SlurmPyslurm
from nodewatch.config.controller import load_controller_config
from nodewatch.errors import ConfigError


def chosen(wanted: str, *, is_installed: bool = True) -> Choice:
    return choose(wanted, deadline_s=60.0, is_installed=lambda: is_installed)


@pytest.mark.parametrize("wanted", ["auto", "pyslurm"])
def test_pyslurm_where_it_matches(cluster: Any, wanted: str) -> None:
    choice = chosen(wanted)
    assert isinstance(choice.client, SlurmPyslurm)
    assert choice.sentence == "Slurm is spoken to by pyslurm: pyslurm 25.11.2 can be imported and matches Slurm 25.11.7"
    assert choice.problems() == []
    assert choice.client.nodes() == {}
    choice.close()


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "another release": ({"pyslurm_version": "24.11.1"}, "pyslurm 24.11.1 is for Slurm 24.11 and this is Slurm 25.11.7"),
    "no slurm.conf": ({"import": "fatal"}, "cannot be used: fatal: Could not establish a configuration source"),
    "no libslurm": ({"import": "broken"}, "cannot be imported: ImportError: libslurm.so.44: cannot open"),
}


@pytest.mark.parametrize(("setup", "why"), UNFIT.values(), ids=list(UNFIT))
def test_the_commands_where_pyslurm_does_not_fit(cluster: Any, setup: dict[str, Any], why: str) -> None:
    cluster.set(**setup)
    choice = chosen("auto")
    assert isinstance(choice.client, SlurmCommands)
    (problem,) = choice.problems()
    assert problem.startswith("info: Slurm is spoken to by the commands: ")
    assert why in problem
    with pytest.raises(ConfigError, match=r'slurm_client = "pyslurm", but .* install the release that fits') as caught:
        chosen("pyslurm")
    assert why in str(caught.value)


def test_a_slurm_without_a_release(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    choice = chosen("auto")
    assert isinstance(choice.client, SlurmCommands)
    assert "the release of Slurm is not known, which pyslurm 25.11.2 has to match" in choice.why


def test_the_commands_where_there_is_no_pyslurm(cluster: Any) -> None:
    choice = chosen("auto", is_installed=False)
    assert (choice.name, choice.why, choice.problems()) == ("the commands", "pyslurm is not installed", [])
    choice.close()
    with pytest.raises(ConfigError, match="but pyslurm is not installed"):
        chosen("pyslurm", is_installed=False)


def test_the_commands_where_the_site_says_so(cluster: Any) -> None:
    choice = chosen("commands")
    assert isinstance(choice.client, SlurmCommands)
    assert (choice.why, choice.problems()) == ('slurm_client = "commands" in controller.toml', [])


def test_a_pyslurm_that_was_given_up_is_told(cluster: Any) -> None:
    choice = chosen("auto")
    cluster.set(**{"import": "broken"})
    assert choice.client.nodes() == {}
    (problem,) = choice.problems()
    assert problem.startswith("info: pyslurm's process ended with exit code 3")
    choice.close()


def test_whether_pyslurm_is_installed_is_seen_without_importing_it(cluster: Any) -> None:
    """An import would end this very process where there is no slurm.conf."""
    code = "from nodewatch.clients.slurm_choice import choose; print(choose('auto').name, 'pyslurm' in sys.modules)"
    code = f"import sys; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "pyslurm False\n"


def test_one_module_imports_pyslurm() -> None:
    root = Path(nodewatch.__file__).parent
    importers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(name.name.split(".")[0] == "pyslurm" for name in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pyslurm")
    }
    assert importers == {"clients/slurm_pyslurm_child.py"}


@pytest.mark.parametrize(
    ("setup", "name", "why"),
    [
        ({}, "pyslurm", "matches Slurm 25.11.7"),
        ({"pyslurm_version": "24.11.1"}, "the commands", "pyslurm 24.11.1 is for Slurm 24.11"),
    ],
)
def test_doctor_says_which_is_used_and_why(cluster: Any, setup: dict[str, Any], name: str, why: str) -> None:
    cluster.set(**setup)
    command = [sys.executable, "-m", "nodewatch.cli", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    (line,) = (line for line in done.stderr.splitlines() if "is spoken to" in line)
    assert line.startswith(f"nodewatch: Slurm is spoken to by {name}: ")
    assert why in line
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    said = json.loads(done.stdout)["slurm_client"]
    assert said["name"] == name
    assert why in said["why"]


def test_the_configuration_names_one_of_three(tmp_path: Path) -> None:
    path = tmp_path / "controller.toml"
    for way in ("auto", "pyslurm", "commands"):
        path.write_text(f'slurm_client = "{way}"\n')
        assert load_controller_config(path).slurm_client == way
    path.write_text('slurm_client = "rest"\n')
    with pytest.raises(ConfigError, match="slurm_client is 'rest': use one of auto, pyslurm, commands"):
        load_controller_config(path)
