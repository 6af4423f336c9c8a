"""The packages, built once a session by the command that everybody uses."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from .trees import Tree, base_tree

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = REPOSITORY / "build" / "packages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A built package and its unpacked tree."""

    file: Path
    tree: Path

    def field(self, name: str) -> str:
        done = subprocess.run(["dpkg-deb", "-f", str(self.file), name], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.tree)) for path in self.tree.rglob("*") if not path.is_dir()}


def build(*names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "packaging" / "build"), *names], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is needed to build the packages")
    done = build()
    if done.returncode != 0 and "-m pip install" in done.stderr:
        pytest.skip(f"the wheels could not be fetched: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    found = {}
    for name in ("nodewatch-agent", "nodewatch-controller", "nodewatch-hooks"):
        (file,) = PACKAGES.glob(f"{name}_*.deb")
        tree = tmp_path_factory.mktemp(name)
        subprocess.run(["dpkg-deb", "-R", str(file), str(tree)], check=True)
        found[name] = Package(file=file, tree=tree)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    if os.geteuid() != 0:
        pytest.skip("a tree is entered by chroot, as root")
    made = Tree(base=base_tree(), place=tmp_path / "tree").make()
    made.run("rmdir /etc/nodewatch")  # the rehearsal's images have it; a site's machine has not
    return made
