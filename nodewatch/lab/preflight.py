"""What must be true of the host before anything is touched; each refusal is one sentence that says what to do."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout
from nodewatch.lab.process import run

TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "mount": "mount",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FIRST_BUILD_BYTES = 2_500_000_000
LATER_BYTES = 400_000_000


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts, which needs root: run it with sudo")


def require_tools() -> None:
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if not KEYRING.exists():
        missing.append("debian-archive-keyring")
    if missing:
        raise LabError(f"the host lacks what the lab is made with: run apt-get install {' '.join(missing)}")
    if find_spec("moto") is None or find_spec("boto3") is None:
        raise LabError("this Python has no moto to play EC2 with: run pip install 'nodewatch[lab]'")


def require_disk(layout: Layout, *, image_cached: bool) -> None:
    layout.root.mkdir(parents=True, exist_ok=True)
    needed = LATER_BYTES if image_cached else FIRST_BUILD_BYTES
    free = shutil.disk_usage(layout.root).free
    if free < needed:
        raise LabError(
            f"{layout.root} has {free / 1e9:.1f} GB free and the lab needs {needed / 1e9:.1f} GB: "
            "free some, or choose another disk with --state-dir"
        )


def cgroup2_mount(mountinfo: str | None = None) -> Path | None:
    """Where the host has the unified cgroup hierarchy: /sys/fs/cgroup, or beside the v1 ones on a hybrid host."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            return Path(before.split()[4])
    return None


def require_namespaces(layout: Layout) -> None:
    """Try, in namespaces that end with the command, each kernel feature that a machine needs."""
    cgroup = cgroup2_mount()
    if cgroup is None:
        raise LabError(
            "the host has no cgroup2 hierarchy mounted: run mkdir -p /sys/fs/cgroup/unified && "
            "mount -t cgroup2 none /sys/fs/cgroup/unified"
        )
    if not os.access(cgroup, os.W_OK) or os.statvfs(cgroup).f_flag & os.ST_RDONLY:
        raise LabError(f"{cgroup} is read-only, as in an unprivileged container: run the lab on a machine or a VM")
    # Overlay on overlay is refused by the kernel, so it is the state directory itself that is tried.
    trial = layout.root / ".trial"
    for name in ("lower", "upper", "work", "merged"):
        (trial / name).mkdir(parents=True, exist_ok=True)
    script = (
        'set -e; cd "$1"; { umount -R /sys/fs/cgroup || umount -l /sys/fs/cgroup; } 2>/dev/null; '
        "mount -t cgroup2 none /sys/fs/cgroup || { echo cgroup2; exit 1; }; "
        "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged || { echo overlay; exit 1; }"
    )
    try:
        done = run(
            ["unshare", "--mount", "--cgroup", "--net", "--pid", "--fork", "sh", "-c", script, "sh", trial],
            deadline_s=20,
            check=False,
        )
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    if done.code == 0:
        return
    what = done.out.strip()
    if what == "overlay":
        raise LabError(
            f"the kernel refuses an overlay in {layout.root}: choose a directory on ext4 or xfs with --state-dir"
        )
    reason = done.err.strip().splitlines()[-1] if done.err.strip() else "no reason given"
    refused = "mounting cgroup2" if what == "cgroup2" else "new namespaces"
    raise LabError(
        f"this host refuses {refused} ({reason}): "
        "the lab needs a machine, a VM or a fully privileged container with nested namespaces"
    )
