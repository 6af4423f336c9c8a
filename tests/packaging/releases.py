"""Trees with Debian's releases of Slurm, and one node of each that runs the plugin for real."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nodewatch.lab import image
from nodewatch.lab.layout import STATE_DIR_DEFAULT, STATE_DIR_VARIABLE, Layout
from nodewatch.lab.mirror import MIRROR_VARIABLE, find_mirror
from nodewatch.lab.process import run

from .trees import Tree, alone, base_tree, held

PACKAGES = (
    "munge", "libmunge2", "slurmd", "slurm-client", "slurmctld", "slurm-wlm-basic-plugins", "libslurm-dev", "gcc", "make",
    "libc6-dev",
)  # fmt: skip
# A tree can be made again: waiting for the disk after each file, and pages that nobody reads, are half of the time.
DPKG_SETTINGS = (
    "force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n"
)
REVISION = "1"
BUILD_DEADLINE_S = 120.0
RUN_DEADLINE_S = 150.0
HERE = Path(__file__).resolve().parent


def layers(suite: str) -> str:
    """The lower directories of a tree of this suite, made where nothing has made them yet."""
    layout = Layout(root=Path(os.environ.get(STATE_DIR_VARIABLE) or STATE_DIR_DEFAULT))
    if suite == image.SUITE:
        base = base_tree()
        with held(layout):
            return f"{image.ensure_builder(layout, print)}:{base}"
    key = hashlib.sha256("\0".join([REVISION, suite, DPKG_SETTINGS, *PACKAGES]).encode()).hexdigest()[:12]
    wanted = layout.images / f"slurm-{suite}-{key}"
    with held(layout):
        if not wanted.is_dir():
            mirror = find_mirror(os.environ.get(MIRROR_VARIABLE))
            image.with_temporary(wanted, lambda tree: _debootstrap(tree, suite, mirror, layout.images / "build.log"))
            image.prune(wanted, f"slurm-{suite}-*")
    return str(wanted)


def _debootstrap(tree: Path, suite: str, mirror: str, log: Path) -> None:
    settings = tree / "etc/dpkg/dpkg.cfg.d/lab"
    settings.parent.mkdir(parents=True)
    settings.write_text(DPKG_SETTINGS)
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    run(
        [*own, "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, tree, mirror],
        deadline_s=900, log=log,
    )  # fmt: skip
    for archive in (tree / "var/cache/apt").rglob("*.deb"):
        archive.unlink()
    shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneNode:
    """What was built for one release, and what its node printed."""

    release: str
    package: Path
    tries: Path

    def said(self, name: str) -> str:
        """What a try printed; its last line is its exit code."""
        return (self.tries / name).read_text()

    def variables(self, name: str) -> dict[str, str]:
        """The environment that `env` printed."""
        return dict(line.split("=", 1) for line in self.said(name).splitlines() if "=" in line)

    def record(self, name: str) -> dict[str, str]:
        """A job's record, as `scontrol show job -o` prints it."""
        return dict(word.split("=", 1) for word in self.said(name).split() if "=" in word)


def build_spank(tree: Tree, *options: str) -> subprocess.CompletedProcess[str]:
    """Run packaging/build-spank on a tree."""
    command = HERE.parents[1] / "packaging/build-spank"
    return alone(f"{tree.mount()} && exec {shlex.join([str(command), *options])} {tree.root}", BUILD_DEADLINE_S)


def run_one_node(suite: str, release: str, place: Path) -> OneNode:
    """Build the plugin in a tree of this suite, install it in another, and run jobs there."""
    lower = Path(layers(suite))
    built = build_spank(Tree(base=lower, place=place / "build").make())
    assert built.returncode == 0, built.stderr
    name = built.stdout.split(":")[0]
    assert name.startswith(f"nodewatch-spank-slurm{release}_"), f"{suite} has another release of Slurm: {built.stdout}"
    package = HERE.parents[1] / "build/packages" / name

    tree = Tree(base=lower, place=place / "node").make()
    inside = tree.upper / "srv"
    inside.mkdir()
    inside.chmod(0o755)
    shutil.copy(HERE / "one-node", inside / "one-node")
    shutil.copy(package, inside / name)
    root = shlex.quote(str(tree.root))
    done = alone(
        f"ip link set lo up && ip addr add 192.0.2.1/32 dev lo && {tree.mount()} && mount -t proc proc {root}/proc && "
        f"mount -t sysfs sysfs {root}/sys && mount -t tmpfs tmpfs {root}/run && "
        f"exec chroot {root} /srv/one-node /srv/{name}",
        RUN_DEADLINE_S,
        "--net", "--uts", "--ipc",
    )  # fmt: skip
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in tree.upper.glob("var/log/slurm/*.log"))
    assert done.returncode == 0, f"one-node ended with {done.returncode}\n{done.stderr}\n{logs}"
    return OneNode(release=release, package=package, tries=inside / "tries")
