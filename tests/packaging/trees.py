"""Trees of a real Debian with Slurm to install packages in: overlays above the rehearsal's base image, which is only read."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nodewatch.lab import image
from nodewatch.lab.layout import STATE_DIR_DEFAULT, STATE_DIR_VARIABLE, Layout
from nodewatch.lab.mirror import find_mirror


def base_tree() -> Path:
    """The rehearsal's base image; made now where nothing has made it yet."""
    layout = Layout(root=Path(os.environ.get(STATE_DIR_VARIABLE) or STATE_DIR_DEFAULT))
    wanted = image.base_image(layout)
    if wanted.is_dir():
        return wanted
    with held(layout):
        return image.ensure_base(layout, lambda: find_mirror(None), print)


@contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Keep others from making images meanwhile."""
    layout.images.mkdir(parents=True, exist_ok=True)
    with open(layout.images / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A machine's tree: what was written to it is kept in `place`, and it is mounted only while a command runs."""

    base: Path
    place: Path

    @property
    def root(self) -> Path:
        return self.place / "root"

    @property
    def upper(self) -> Path:
        return self.place / "upper"

    def make(self) -> Tree:
        for name in ("root", "upper", "work"):
            (self.place / name).mkdir(parents=True)
        self.upper.chmod(0o755)
        return self

    def mount(self) -> str:
        """The shell command that mounts it."""
        layers = f"lowerdir={self.base},upperdir={self.upper},workdir={self.place / 'work'}"
        root = shlex.quote(str(self.root))
        return f"mount -t overlay overlay -o {shlex.quote(layers)} {root} && mount --rbind /dev {root}/dev"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside."""
        proc = f"mount -t proc proc {self.root}/proc"
        return alone(f"{self.mount()} && {proc} && exec chroot {self.root} /bin/sh -c {shlex.quote(command)}")

    def listing(self) -> dict[str, str]:
        """Every path with its kind, mode and owner and what it holds, but for what any run of dpkg leaves: its own records."""
        find = r"find / -xdev \( -path /proc -o -path /dev -o -path /tmp \) -prune -o -printf '%p\t%y %m %U:%G %l\n'"
        kinds = dict(line.split("\t", 1) for line in self.run(find).stdout.splitlines())
        sums = self.run("cd / && find etc usr/bin usr/sbin usr/lib/systemd -xdev -type f -exec sha256sum {} +").stdout
        contents = {"/" + line[66:]: line[:64] for line in sums.splitlines()}
        own = (
            "/var/lib/dpkg",
            "/var/log/dpkg.log",
            "/var/cache/ldconfig",
            "/var/cache/debconf",
            "/root/.ansible",
            "/var/log/apt",
        )
        return {path: f"{kind} {contents.get(path, '')}" for path, kind in kinds.items() if not path.startswith(own)}


def alone(script: str, deadline_s: float = 120, *spaces: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script whose mounts and processes end with it, and what more is in `spaces` (`--net`, ...)."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(
        ["unshare", "--mount", "--pid", *spaces, "--fork", "--kill-child", "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=deadline_s, env=env,
    )  # fmt: skip


def with_version(package: Path, version: str, target: Path) -> Path:
    """The same package under another version: what an upgrade or a downgrade needs two of."""
    name, _, rest = package.name.split("_")
    tree = target / f".{name}"
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    lines = [
        f"Version: {version}" if line.startswith("Version: ") else line for line in control.read_text().splitlines()
    ]
    control.write_text("\n".join(lines) + "\n")
    made = target / f"{name}_{version}_{rest}"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(made)],
        check=True,
        capture_output=True,
    )
    subprocess.run(["rm", "-rf", str(tree)], check=True)
    return made
