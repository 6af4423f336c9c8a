"""What is in the packages, and that what they carry is all they use."""

import importlib.metadata
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import PACKAGES, REPOSITORY, Package, build

SERVICES = ["agent", "controller"]
LAUNCHERS = [
    ("agent", "nodewatch-agent", "nodewatch.agent.main"),
    ("controller", "nodewatch-controller", "nodewatch.controller.main"),
    ("controller", "nodewatch", "nodewatch.cli"),
]


def home(packages: dict[str, Package], service: str) -> Path:
    return packages[f"nodewatch-{service}"].tree / "usr/lib/nodewatch" / service


def test_the_agent_carries_nothing_for_the_cloud_or_for_training(packages: dict[str, Package]) -> None:
    directory = home(packages, "agent")
    there = {path.name for path in directory.iterdir()}

    assert {"psutil", "prometheus_client", "pynvml.py", "nodewatch"} <= there
    assert set() == there & {"boto3", "botocore", "torch", "click", "moto"}
    assert set() == {path.name for path in (directory / "nodewatch").iterdir()} & {
        "lab",
        "cli",
        "controller",
        "testing",
    }
    assert packages["nodewatch-agent"].file.stat().st_size < 2_000_000


def test_the_controller_carries_boto3(packages: dict[str, Package]) -> None:
    there = {path.name for path in home(packages, "controller").iterdir()}

    assert {"boto3", "botocore", "click", "prometheus_client", "nodewatch"} <= there
    assert set() == there & {"torch", "moto"}


@pytest.mark.parametrize("service", SERVICES)
def test_libraries_serve_every_python(packages: dict[str, Package], service: str) -> None:
    """A module built for the builder's Python would fail to load on the node's."""
    for path in home(packages, service).rglob("*.so"):
        assert path.name.endswith(".abi3.so"), path


@pytest.mark.parametrize("service", SERVICES)
def test_the_pins_are_complete(packages: dict[str, Package], service: str) -> None:
    """They are installed with --no-deps: what one of them needs must be pinned too."""
    found = list(importlib.metadata.distributions(path=[str(home(packages, service))]))
    names = {re.sub(r"[-_.]+", "-", dist.metadata["Name"]).lower() for dist in found}
    needed = {
        re.sub(r"[-_.]+", "-", match.group()).lower()
        for dist in found
        for line in dist.requires or []
        if "extra ==" not in line and "sys_platform" not in line and (match := re.match(r"[\w.-]+", line))
    }

    assert set() == needed - names
    pins = (REPOSITORY / "packaging" / f"requirements-{service}.txt").read_text()
    assert names == {line.split("==")[0].lower() for line in pins.splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize("service", SERVICES)
def test_no_compiled_files_and_no_stray_commands(packages: dict[str, Package], service: str) -> None:
    files = packages[f"nodewatch-{service}"].files()

    assert [name for name in files if name.endswith(".pyc") or "/bin/" in name.removeprefix("usr/bin/")] == []


@pytest.mark.parametrize(("service", "command", "module"), LAUNCHERS)
def test_a_launcher_imports_from_its_own_directory(
    packages: dict[str, Package], tmp_path: Path, service: str, command: str, module: str
) -> None:
    """Whatever PYTHONPATH and the current directory hold."""
    launcher = packages[f"nodewatch-{service}"].tree / "usr/bin" / command
    text = launcher.read_text()
    assert os.access(launcher, os.X_OK)
    assert text.startswith("#!/usr/bin/python3 -I\n")
    assert f"from {module} import main" in text

    own = tmp_path / "own"
    foreign = tmp_path / "foreign"
    for directory, answer in ((own, "own"), (foreign, "foreign")):
        package = directory.joinpath(*module.split("."))
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"def main():\n    print({answer!r})\n    return 3\n")
    moved = tmp_path / command
    moved.write_text(text.replace(f"/usr/lib/nodewatch/{service}", str(own)))
    moved.chmod(0o755)

    done = subprocess.run(
        [str(moved)],
        cwd=foreign,
        env={**os.environ, "PYTHONPATH": str(foreign)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (3, "own\n"), done.stderr


@pytest.mark.parametrize(
    ("service", "modules"), [("agent", "psutil, pynvml, prometheus_client"), ("controller", "boto3, click, urllib3")]
)
def test_the_libraries_load_from_the_package(packages: dict[str, Package], service: str, modules: str) -> None:
    directory = home(packages, service)
    program = f"import sys; sys.path.insert(0, {str(directory)!r}); import {modules}; print(*[m.__file__ for m in ({modules})])"

    done = subprocess.run(["/usr/bin/python3", "-IS", "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(directory)) for path in done.stdout.split())


def test_the_hooks_package(packages: dict[str, Package]) -> None:
    package = packages["nodewatch-hooks"]
    hooks = {"healthcheck", "prolog", "epilog", "task_prolog", "prolog_slurmctld", "epilog_slurmctld", "resume_point"}
    directory = package.tree / "usr/lib/nodewatch/hooks"

    assert hooks | {"nodewatch_hooks.py", "nodewatch_train"} == {path.name for path in directory.iterdir()}
    assert all(os.access(directory / name, os.X_OK) for name in hooks)
    assert package.field("Depends") == "python3 (>= 3.11)"
    assert (directory / "nodewatch_hooks.py").read_bytes() == (REPOSITORY / "nodewatch/hooks.py").read_bytes()


@pytest.mark.parametrize("service", SERVICES)
def test_units_watch_over_their_service(packages: dict[str, Package], service: str) -> None:
    unit = packages[f"nodewatch-{service}"].tree / f"usr/lib/systemd/system/nodewatch-{service}.service"
    lines = set(unit.read_text().splitlines())

    assert {"Type=notify", "Restart=always", "RestartSec=1", f"ExecStart=/usr/bin/nodewatch-{service}"} <= lines
    assert {"WatchdogSec=30" if service == "agent" else "WatchdogSec=60"} <= lines


@pytest.mark.parametrize("name", ["nodewatch-agent", "nodewatch-controller", "nodewatch-hooks"])
def test_maintainer_scripts_are_filled_in(packages: dict[str, Package], name: str) -> None:
    scripts = [path for path in (packages[name].tree / "DEBIAN").iterdir() if os.access(path, os.X_OK)]

    assert scripts
    for script in scripts:
        assert not re.search(r"@[A-Z]+@", script.read_text()), script
        subprocess.run(["/bin/sh", "-n", str(script)], check=True)


@pytest.mark.usefixtures("packages")
def test_a_second_build_has_nothing_to_do() -> None:
    before = {path: path.stat().st_mtime_ns for path in PACKAGES.glob("nodewatch-hooks_*.deb")}
    started = time.monotonic()

    done = build("nodewatch-hooks")

    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout
    assert time.monotonic() - started < 2
    assert before == {path: path.stat().st_mtime_ns for path in PACKAGES.glob("nodewatch-hooks_*.deb")}


def test_a_package_that_nobody_knows() -> None:
    done = build("nodewatch-agnt")

    assert done.returncode == 1
    assert done.stderr == (
        "packaging/build: no package is called nodewatch-agnt; known are nodewatch-agent, nodewatch-controller, "
        "nodewatch-hooks\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give one argument"),
        (["/nonexistent"], "no such directory"),
        (["{empty}"], "install libslurm-dev in it"),
    ],
)
def test_build_spank_says_what_is_missing(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    if arguments == ["{empty}"] and os.geteuid() != 0:
        pytest.skip("build-spank enters the tree by chroot, as root")
    filled = [argument.replace("{empty}", str(tmp_path)) for argument in arguments]

    done = subprocess.run(
        [str(REPOSITORY / "packaging" / "build-spank"), *filled], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr
