"""`lab up`: from a bare host to a Slurm cluster whose nodes are all idle."""

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nodewatch
from nodewatch.lab import image, machine, network, preflight, product, status
from nodewatch.lab.ec2 import Instance, addresses
from nodewatch.lab.errors import LabError
from nodewatch.lab.hosts import write_hosts
from nodewatch.lab.layout import CLOUD_NETNS, MARK_VARIABLE, Layout
from nodewatch.lab.mirror import find_mirror
from nodewatch.lab.plan import Plan, save
from nodewatch.lab.process import run, tail
from nodewatch.lab.slurm import Shape, write_nodewatch_config, write_slurm_config
from nodewatch.lab.training import copy_training_code, training_binds

READY_DEADLINE_S = 120.0
MOST_MACHINES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What `up` reports when the cluster is there."""

    seconds: float
    nodes: list[status.NodeStatus]


class Progress:
    """A line a step, with the seconds since the start, on standard error."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def __call__(self, text: str) -> None:
        self._write(f"[{self.elapsed_s:6.1f} s] {text}")


def bring_up(
    layout: Layout, shape: Shape, *, mirror: str | None, packages: Path | None, write: Callable[[str], None]
) -> Ready:
    """Build what is missing, start everything, and return when Slurm calls every node idle.

    Raises LabError; what was started by then is left for `lab down`, so that it can be looked at first.
    """
    say = Progress(write)
    if shape.nodes < 1 or shape.spares < 0 or shape.nodes + shape.spares > MOST_MACHINES:
        raise LabError(f"a lab has at least one node, and at most {MOST_MACHINES} with its spares: change the numbers")
    preflight.require_root()
    preflight.require_tools()
    if layout.plan_file.exists() or network.lab_namespaces():
        raise LabError("a lab is already up on this host, or was left half up: run lab down first")
    preflight.require_disk(layout, image_cached=image.base_image(layout).is_dir())
    preflight.require_namespaces(layout)
    with _only_one(layout):
        base = image.ensure_base(layout, lambda: find_mirror(mirror), say)
        nvml = image.ensure_nvml(layout, say)
        layers = [image.ensure_tools(layout), nvml, base]
        installed = None
        if not shape.plain:
            directory = packages or product.build_packages(layout, checkout(), say)
            installed = product.ensure_product(layout, product.find_packages(directory), checkout(), say)
            layers.insert(0, installed)
        binds = [f"--bind-ro={layout.hosts}:/etc/hosts", f"--bind={layout.fsx}:/fsx", *training_binds(base)]
        _prepare_run(layout, shape, layers, binds, installed)
        say(f"starting the cloud, the head and {shape.nodes + shape.spares} nodes")
        network.make_cloud_network()
        cloud = _start_cloud(layout)
        nodes = _wait_until_idle(layout, shape, cloud, say)
    say("every node is idle")
    return Ready(seconds=round(say.elapsed_s, 1), nodes=nodes)


def checkout() -> Path:
    """The source tree that this nodewatch runs from."""
    return Path(nodewatch.__file__).resolve().parent.parent


@contextmanager
def _only_one(layout: Layout) -> Iterator[None]:
    """Hold the state directory: a second `up` during a build would remove the first one's half-made image."""
    layout.images.mkdir(parents=True, exist_ok=True)
    handle = os.open(layout.images / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"another lab up is at work in {layout.root}: wait for it, or end it") from None
        yield
    finally:
        os.close(handle)


def _prepare_run(layout: Layout, shape: Shape, layers: list[Path], binds: list[str], installed: Path | None) -> None:
    shutil.rmtree(layout.run, ignore_errors=True)
    for place in (layout.run, layout.machines, layout.cloud, layout.fsx):
        place.mkdir(parents=True)
        place.chmod(0o755)
    # As on a site's shared file system: every user may make directories, and nobody removes another's.
    layout.fsx.chmod(0o1777)
    layout.munge_key.write_bytes(secrets.token_bytes(128))
    layout.munge_key.chmod(0o400)
    layout.ssh_key.parent.mkdir(mode=0o700)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "nodewatch-lab", "-f", layout.ssh_key], deadline_s=20)
    write_slurm_config(layout, shape, installed)
    write_nodewatch_config(layout, shape)
    # The names that the cloud is about to give out: slurmctld, which boots first, looks all of them up at once.
    write_hosts(layout.hosts, [Instance(ident="", state="pending", address=a, node=n) for n, a in addresses(shape)])
    copy_training_code(layout, checkout())
    save(
        layout,
        Plan(
            nodes=shape.nodes,
            spares=shape.spares,
            plain=shape.plain,
            lower=[str(layer) for layer in layers],
            binds=binds,
            munge_ids=image.uid_of(layers[-1], "munge"),
            started_at=time.time(),
        ),
    )


def _start_cloud(layout: Layout) -> subprocess.Popen[bytes]:
    # nsenter, not `ip netns exec`: the latter mounts a new /sys, in which the cgroups of the machines cannot be seen.
    argv = ["nsenter", f"--net={network.NETNS_DIR / CLOUD_NETNS}", sys.executable, "-m", "nodewatch.lab.cloud"]
    env = os.environ | {MARK_VARIABLE: str(layout.root), "PYTHONPATH": str(checkout()), "PYTHONUNBUFFERED": "1"}
    with open(layout.cloud / "log", "ab") as log:
        child = subprocess.Popen(
            [*argv, str(layout.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=env,
            start_new_session=True,
        )
    (layout.cloud / "pid").write_text(f"{child.pid}\n")
    return child


def _wait_until_idle(
    layout: Layout, shape: Shape, cloud: subprocess.Popen[bytes], say: Progress
) -> list[status.NodeStatus]:
    deadline = time.monotonic() + READY_DEADLINE_S
    told = ""
    while time.monotonic() < deadline:
        if cloud.poll() is not None:
            raise LabError(f"the lab's cloud ended while starting: {tail(layout.cloud / 'log')}")
        nodes = status.slurm_nodes(layout)
        idle = sum(1 for node in nodes if node.in_service)
        now = f"{idle} of {len(shape.names)} nodes idle" if nodes else "waiting for slurmctld"
        if now != told:
            say(now)
            told = now
        if idle == len(shape.names):
            return nodes
        time.sleep(0.5)
    booted = ", ".join(found.name for found in machine.machines(layout)) or "none"
    raise LabError(
        f"not every node was idle within {READY_DEADLINE_S:.0f} s ({told}; machines: {booted}): "
        "see lab status and lab logs, then run lab down"
    )
