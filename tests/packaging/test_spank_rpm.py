"""The plugin as .rpm: from the same sources, tied to the Slurm package that the tree's own rpm names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nodewatch.lab import image

from .conftest import PACKAGES
from .releases import build_spank, layers
from .trees import Tree


@pytest.fixture
def builder(tmp_path: Path) -> Tree:
    """A tree with Slurm and a compiler. Its rpm is played: no distribution with .rpm packages can be fetched from Debian."""
    if os.geteuid() != 0:
        pytest.skip("a tree is entered by chroot, as root")
    tree = Tree(base=Path(layers(image.SUITE)), place=tmp_path / "tree").make()
    rpm = tree.upper / "usr/local/bin/rpm"
    rpm.parent.mkdir(parents=True)
    rpm.write_text('#!/bin/sh\n[ "$1 $4" = "-qf $(find /usr/lib -name auth_munge.so)" ] && echo slurm\n')
    for path in (rpm, *list(rpm.parents)[:3]):
        path.chmod(0o755)
    (tree.upper / "usr/bin").mkdir()
    (tree.upper / "usr/bin").chmod(0o755)
    (tree.upper / "usr/bin/rpm").symlink_to("/usr/local/bin/rpm")
    return tree


def asked(package: Path, *words: str) -> str:
    return subprocess.run(["rpm", *words, str(package)], capture_output=True, text=True, check=True).stdout


def test_an_rpm_of_the_plugin(builder: Tree, tmp_path: Path) -> None:
    done = build_spank(builder, "--rpm")
    assert done.returncode == 0, done.stderr
    package = PACKAGES / done.stdout.split(":")[0]
    assert package.match("nodewatch-spank-slurm24.11-[0-9]*-1.*.rpm")

    needed = asked(package, "-qpR").splitlines()
    files = asked(package, "-qpl").split()
    (plugin,) = [name for name in files if name.endswith(".so")]
    assert {"slurm >= 24.11", "slurm < 24.12", "glibc"} <= set(needed)
    assert plugin.endswith("/nodewatch_auto_resume.so")
    assert asked(package, "-qpc").split() == ["/etc/slurm/plugstack.conf.d/nodewatch.conf"]
    assert "nodewatch-spank\n" in asked(package, "-qp", "--conflicts")

    with package.open("rb") as file:
        archive = subprocess.run(["rpm2archive", "-"], stdin=file, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-xz"], input=archive, check=True, cwd=tmp_path)
    assert build_spank(builder).returncode == 0
    (deb,) = PACKAGES.glob("nodewatch-spank-slurm24.11_*.deb")
    subprocess.run(["dpkg-deb", "-x", deb, tmp_path / "deb"], check=True)
    assert (tmp_path / plugin[1:]).read_bytes() == (tmp_path / "deb" / plugin[1:]).read_bytes()


def test_a_second_build_has_nothing_to_do(builder: Tree) -> None:
    assert build_spank(builder, "--rpm").returncode == 0

    done = build_spank(builder, "--rpm")

    assert done.stdout.endswith(": unchanged\n")


def test_a_tree_without_dpkg_is_told_of_rpm(builder: Tree) -> None:
    (builder.upper / "usr/bin/dpkg").write_text("")
    (builder.upper / "usr/bin/dpkg").chmod(0o644)

    done = build_spank(builder)

    assert done.returncode == 1
    assert "give --rpm" in done.stderr
    assert done.stderr.count("\n") == 1
