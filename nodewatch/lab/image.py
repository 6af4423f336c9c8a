"""The machines' root trees: a base, a builder above it, and layers made with the builder.

Each image is a directory named by the hash of its recipe. It is made under a temporary name and renamed when whole, so
that a build cut short is never used.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from nodewatch.lab.errors import LabError
from nodewatch.lab.layout import Layout, file_of
from nodewatch.lab.process import run

SUITE = "trixie"
BASE_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2", "procps", "python3", "munge", "libmunge2", "slurmd", "slurm-client",
    "slurmctld", "openssh-server",
)  # fmt: skip
BUILDER_PACKAGES = ("gcc", "make", "libc6-dev", "libslurm-dev")
# Units that only cost boot time or memory in a machine with no disk, console or network of its own to look after.
MASKED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "console-getty.service",
    "getty@tty1.service", "getty.target", "systemd-networkd.service",
    "systemd-tmpfiles-clean.timer", "systemd-pcrphase.service", "systemd-firstboot.service",
)  # fmt: skip
BASE_FILES = {
    "user-data.service": "etc/systemd/system/nodewatch-lab-user-data.service",
    "slurmd-lab.conf": "etc/systemd/system/slurmd.service.d/lab.conf",
    "slurmctld-lab.conf": "etc/systemd/system/slurmctld.service.d/lab.conf",
    "system-lab.conf": "etc/systemd/system.conf.d/lab.conf",
    "journald-lab.conf": "etc/systemd/journald.conf.d/lab.conf",
    "tmpfiles-lab.conf": "etc/tmpfiles.d/nodewatch-lab.conf",
    "agent-lab.conf": "etc/systemd/system/nodewatch-agent.service.d/lab.conf",
    "controller-lab.conf": "etc/systemd/system/nodewatch-controller.service.d/lab.conf",
}
LAB_USER = "ada"
LAB_USER_UID = 1000
BASE_REVISION = "4"

Say = Callable[[str], None]


def base_image(layout: Layout) -> Path:
    """Where the base for this recipe is, or will be."""
    parts = [BASE_REVISION, SUITE, *BASE_PACKAGES, *MASKED_UNITS, LAB_USER]
    parts += [f"{target}={file_of('files/' + name).read_text()}" for name, target in BASE_FILES.items()]
    return layout.images / f"base-{_key(*parts)}"


def builder_image(layout: Layout) -> Path:
    return layout.images / f"builder-{_key(base_image(layout).name, *BUILDER_PACKAGES)}"


def nvml_image(layout: Layout) -> Path:
    return layout.images / f"nvml-{_key(builder_image(layout).name, file_of('libnvidia_ml.c').read_text())}"


def ensure_base(layout: Layout, find: Callable[[], str], say: Say) -> Path:
    """Make the base image if it is not there; `find` gives the mirror and is asked only then."""
    image = base_image(layout)
    if image.is_dir():
        return image
    mirror = find()
    say(f"building the base image ({SUITE}, once; about a minute)")
    with_temporary(image, lambda tree: _build_base(tree, mirror, layout.images / "build.log"))
    prune(image, "base-*")
    return image


def ensure_builder(layout: Layout, say: Say) -> Path:
    """Make the image with a compiler and Slurm's headers if it is not there."""
    image = builder_image(layout)
    if image.is_dir():
        return image
    say("building the builder image (compiler and Slurm headers, once)")
    base = base_image(layout)
    apt = ["apt-get", "-o", "Dpkg::Use-Pty=0", "-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any"]

    def build(tree: Path) -> None:
        log = layout.images / "build.log"
        in_layer(layout, [base], tree, [*apt, "update"], deadline_s=300, log=log)
        in_layer(
            layout, [base], tree, [*apt, "install", "-y", "--no-install-recommends", *BUILDER_PACKAGES],
            deadline_s=600, log=log,
        )  # fmt: skip
        for leftover in ("var/lib/apt/lists", "var/cache/apt"):
            shutil.rmtree(tree / leftover, ignore_errors=True)

    with_temporary(image, build)
    prune(image, "builder-*")
    return image


def ensure_nvml(layout: Layout, say: Say) -> Path:
    """Compile the fake libnvidia-ml.so.1 into a layer of its own if it is not there."""
    image = nvml_image(layout)
    if image.is_dir():
        return image
    builder = ensure_builder(layout, say)
    say("compiling the fake libnvidia-ml.so.1")

    def build(tree: Path) -> None:
        upper = layout.images / f".building-scratch-{os.getpid()}"
        source = upper / "nvml"
        source.mkdir(parents=True)
        shutil.copy(file_of("libnvidia_ml.c"), source / "libnvidia_ml.c")
        compile_line = [
            "gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden",
            "-Wl,-soname,libnvidia-ml.so.1", "-o", "/nvml/libnvidia-ml.so.1", "/nvml/libnvidia_ml.c", "-lpthread",
        ]  # fmt: skip
        try:
            in_layer(layout, [builder, base_image(layout)], upper, compile_line, deadline_s=120)
            target = tree / "usr/lib/x86_64-linux-gnu"
            target.mkdir(parents=True)
            shutil.copy(source / "libnvidia-ml.so.1", target / "libnvidia-ml.so.1")
        finally:
            shutil.rmtree(upper, ignore_errors=True)

    with_temporary(image, build)
    prune(image, "nvml-*")
    return image


def tools_image(layout: Layout) -> Path:
    recipe = [f"{tool.name}={tool.read_text()}" for tool in _tools()]
    return layout.images / f"tools-{_key(*recipe)}"


def ensure_tools(layout: Layout) -> Path:
    """Put the fake diagnostics (DCGM, nccl-tests, libfabric) into a layer of their own if it is not there."""
    image = tools_image(layout)
    if image.is_dir():
        return image

    def build(tree: Path) -> None:
        target = tree / "usr/local/bin"
        target.mkdir(parents=True)
        for parent in (tree / "usr", tree / "usr/local", target):
            parent.chmod(0o755)
        for tool in _tools():
            shutil.copy(tool, target / tool.name)
            (target / tool.name).chmod(0o755)

    with_temporary(image, build)
    prune(image, "tools-*")
    return image


def _tools() -> list[Path]:
    return sorted(path for path in file_of("tools").iterdir() if path.is_file())


def with_temporary(image: Path, build: Callable[[Path], None]) -> None:
    """Build under a name that no lab uses, then rename; leftovers of builds that were cut short are removed first."""
    image.parent.mkdir(parents=True, exist_ok=True)
    for stale in image.parent.glob(".building-*"):
        shutil.rmtree(stale, ignore_errors=True)
    tree = image.parent / f".building-{image.name}"
    tree.mkdir()
    # The tree becomes a machine's /: 0755 whatever the caller's umask, or no user but root could enter it.
    tree.chmod(0o755)
    build(tree)
    tree.rename(image)


def in_layer(
    layout: Layout,
    lower: list[Path],
    upper: Path,
    argv: list[str],
    *,
    deadline_s: float,
    log: Path | None = None,
    chroot: bool = True,
) -> None:
    """Run a command where `upper` lies over `lower`; with `chroot` inside, else with `{root}` in argv replaced."""
    scratch = layout.images / f".building-mount-{os.getpid()}"
    work, merged = scratch / "work", scratch / "merged"
    for place in (work, merged):
        place.mkdir(parents=True, exist_ok=True)
    command = ["chroot", str(merged), *argv] if chroot else [word.replace("{root}", str(merged)) for word in argv]
    env = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    env |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(
            [
                "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", file_of("files/with-layer"),
                ":".join(map(str, lower)), upper, work, merged, *command,
            ],
            deadline_s=deadline_s, log=log, env=env,
        )  # fmt: skip
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build_base(tree: Path, mirror: str, log: Path) -> None:
    packages = ",".join(BASE_PACKAGES)
    # Its own mount and process namespaces: what debootstrap mounts or starts ends with it, even when it is killed.
    inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    run(
        [*inside, "debootstrap", "--variant=minbase", f"--include={packages}", SUITE, tree, mirror],
        deadline_s=900, log=log,
    )  # fmt: skip
    run(
        ["chroot", tree, "useradd", "--create-home", "--uid", str(LAB_USER_UID), "--shell", "/bin/bash", LAB_USER],
        deadline_s=20,
    )
    for name, target in BASE_FILES.items():
        place = tree / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file_of("files/" + name), place)
        place.chmod(0o644)
    units = tree / "etc/systemd/system"
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "nodewatch-lab-user-data.service").symlink_to("/etc/systemd/system/nodewatch-lab-user-data.service")
    # Started by the first connection: a machine to which nobody logs in runs no sshd.
    (wants / "ssh.service").unlink(missing_ok=True)
    sockets = units / "sockets.target.wants"
    sockets.mkdir(exist_ok=True)
    (sockets / "ssh.socket").unlink(missing_ok=True)
    (sockets / "ssh.socket").symlink_to("/usr/lib/systemd/system/ssh.socket")
    for unit in MASKED_UNITS:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    # A training environment may lie below /root on the host; jobs of ordinary users have to pass through.
    (tree / "root").chmod(0o711)
    (tree / "fsx").mkdir()
    (tree / "etc/slurm").mkdir(exist_ok=True)
    # Names come from the hosts file alone: without this an unknown one is asked of a DNS server that is not there, and
    # Slurm waits for it, five seconds a name.
    nsswitch = tree / "etc/nsswitch.conf"
    nsswitch.write_text(re.sub(r"(?m)^hosts:.*$", "hosts: files", nsswitch.read_text()))
    # Each machine draws its own id at its first boot; D-Bus's copy would make them all the same.
    (tree / "etc/machine-id").write_text("")
    for name in ("etc/resolv.conf", "etc/hostname", "var/lib/dbus/machine-id"):
        (tree / name).unlink(missing_ok=True)
    for heavy in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists"):
        shutil.rmtree(tree / heavy, ignore_errors=True)
    (tree / "var/lib/apt/lists").mkdir()
    for archive in (tree / "var/cache/apt").rglob("*.deb"):
        archive.unlink()


def prune(kept: Path, pattern: str) -> None:
    """Remove the images that `kept` replaces: no recipe leads to them any more."""
    for old in kept.parent.glob(pattern):
        if old != kept:
            shutil.rmtree(old, ignore_errors=True)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def uid_of(image: Path, user: str) -> tuple[int, int]:
    """The numeric ids that a user has in an image."""
    for line in (image / "etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == user:
            return int(fields[2]), int(fields[3])
    raise LabError(f"{image} has no user {user}: remove that directory and run lab up again to build it anew")
