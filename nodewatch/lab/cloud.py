"""What makes EC2's rows real: `python -m nodewatch.lab.cloud STATE_DIR`, run inside the cloud's network.

It starts moto, makes the account, and from then on boots a machine for each instance that runs, stops it when the
instance is stopped, removes it when the instance is terminated, plays the VPC's private DNS through one hosts file,
and feeds the kernel logs. It decides nothing: EC2's rows say what there should be.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from nodewatch.lab import ec2, hardware, machine, network
from nodewatch.lab.feed import Feed
from nodewatch.lab.hosts import write_hosts
from nodewatch.lab.layout import CLOUD_ADDRESS, CLOUD_PORT, HEAD_ADDRESS, Layout
from nodewatch.lab.plan import Plan, load

LOOK_EVERY_S = 2.0
MOTO_START_S = 40.0
TERMINATE_GRACE_S = 3.0
HEAD = "head"
# nspawn's exit code when the system inside rebooted: its caller is to start it again.
REBOOT_ASKED = 133
# What a row's state asks of its machine. A state that is not here (pending a stop, say) asks for nothing yet.
WANTED = {"pending": "run", "running": "run", "stopping": "stop", "stopped": "stop"}
WANTED |= {"shutting-down": "remove", "terminated": "remove"}


class Cloud:
    """The machines as they are, brought after the rows as they should be."""

    def __init__(self, layout: Layout, plan: Plan) -> None:
        self._layout = layout
        self._plan = plan
        self._feed = Feed(layout)
        self._workers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="machine")
        # One job a machine at a time: a terminate that arrives during the boot waits for the boot.
        self._busy: dict[str, Future[None]] = {}
        self._did: dict[str, str] = {}
        self._reboots: set[str] = set()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def boot_head(self) -> None:
        self._start(HEAD, self._boot, HEAD, HEAD, HEAD_ADDRESS, b"")

    def wait(self) -> None:
        """Wait until no machine is being worked on; raises what went wrong with the first that failed."""
        for job in list(self._busy.values()):
            job.result()

    def look(self, api: ec2.Api) -> None:
        """One round: read the rows whole, then act on each."""
        rows = ec2.instances(api)
        self._reap()
        # Names first: a machine that boots finds its peers, and itself, in the hosts file.
        write_hosts(self._layout.hosts, rows)
        for row in rows:
            wanted = WANTED.get(row.state, "")
            if row.ident in self._busy:
                continue
            if wanted == "run" and row.ident in self._reboots:
                self._reboots.discard(row.ident)
                self._start(row.ident, self._reboot, row)
            elif not wanted or self._did.get(row.ident, "remove") == wanted:
                continue
            elif wanted == "run":
                data = ec2.user_data(api, row.ident)
                self._start(row.ident, self._boot, row.ident, row.node, row.address, data)
            elif wanted == "stop":
                self._start(row.ident, self._stop, row)
            else:
                self._start(row.ident, self._remove, row)
            self._did[row.ident] = wanted

    def heard(self, message: bytes) -> None:
        """A call that changed something went past the edge: note the reboots, which leave no trace in a row."""
        try:
            event = json.loads(message)
        except ValueError:
            return
        if event.get("action") == "RebootInstances":
            self._reboots.update(event.get("instances", []))

    def _start(self, ident: str, work: object, *arguments: object) -> None:
        assert callable(work)
        self._busy[ident] = self._workers.submit(work, *arguments)

    def _reap(self) -> None:
        for ident in [ident for ident, job in self._busy.items() if job.done()]:
            error = self._busy.pop(ident).exception()
            if error is not None:
                say(f"{ident}: {error}")
        # A copy first: the workers add to it meanwhile.
        for ident in [ident for ident, child in list(self._processes.items()) if child.poll() is not None]:
            code = self._processes.pop(ident).returncode
            say(f"{ident}: the machine has ended")
            if code == REBOOT_ASKED and ident not in self._busy:
                self._reboots.add(ident)

    def _boot(self, ident: str, node: str, address: str, user_data: bytes) -> None:
        place = self._layout.machine(ident)
        if not place.exists():
            self._furnish(place, ident, node, user_data)
            network.plug_in(ident, address)
        self._feed.add(ident)
        name = node or "ip-" + address.replace(".", "-")
        slurm_access = "--bind" if ident == HEAD else "--bind-ro"
        binds = [*self._plan.binds, f"{slurm_access}={self._layout.etc_slurm}:/etc/slurm"]
        self._processes[ident] = machine.boot(
            self._layout, ident=ident, name=name, address=address, lower=[Path(part) for part in self._plan.lower],
            binds=binds,
        )  # fmt: skip
        say(f"{ident}: booting {name} at {address}")

    def _furnish(self, place: Path, ident: str, node: str, user_data: bytes) -> None:
        """Lay out the directory of a new machine: what its instance tells it, and what a site would have baked in."""
        building = place.with_name("." + place.name)
        shutil.rmtree(building, ignore_errors=True)
        instance = building / "instance"
        instance.mkdir(parents=True)
        instance.chmod(0o755)
        (instance / "instance-id").write_text(ident + "\n")
        if ident == HEAD:
            (instance / "head").write_text("")
        elif node:
            (instance / "node-name").write_text(node + "\n")
        if user_data:
            (instance / "user-data").write_bytes(user_data)
            (instance / "user-data").chmod(0o755)
        (instance / hardware.FILE_NAME).write_text(hardware.healthy(ident))
        os.mkfifo(instance / hardware.FEED_NAME, 0o600)
        upper = building / "upper"
        munge = upper / "etc/munge"
        munge.mkdir(parents=True)
        shutil.copy(self._layout.munge_key, munge / "munge.key")
        for path, mode in ((munge, 0o700), (munge / "munge.key", 0o400)):
            os.chown(path, *self._plan.munge_ids)
            path.chmod(mode)
        if not self._plan.plain:
            shutil.copytree(self._layout.etc_nodewatch, upper / "etc/nodewatch")
            (upper / "etc/nodewatch").chmod(0o755)
        ssh = upper / "root/.ssh"
        ssh.mkdir(parents=True)
        shutil.copy(self._layout.ssh_key.with_suffix(".pub"), ssh / "authorized_keys")
        for path, mode in ((upper, 0o755), (upper / "etc", 0o755), (upper / "root", 0o711), (ssh, 0o700)):
            path.chmod(mode)
        building.rename(place)

    def _reboot(self, row: ec2.Instance) -> None:
        say(f"{row.ident}: rebooting")
        self._end(row.ident, TERMINATE_GRACE_S)
        network.plug_back(row.ident)
        self._boot(row.ident, row.node, row.address, b"")

    def _stop(self, row: ec2.Instance) -> None:
        say(f"{row.ident}: stopping")
        self._end(row.ident, TERMINATE_GRACE_S)

    def _remove(self, row: ec2.Instance) -> None:
        if not self._layout.machine(row.ident).exists():
            return
        say(f"{row.ident}: terminating")
        self._feed.drop(row.ident)
        self._end(row.ident, TERMINATE_GRACE_S)
        machine.remove(self._layout, row.ident)

    def _end(self, ident: str, grace_s: float) -> None:
        for found in machine.machines(self._layout):
            if found.ident == ident:
                machine.stop(found, grace_s=grace_s)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def start_moto(layout: Layout) -> subprocess.Popen[bytes]:
    """Start EC2 as a process of its own, so that a rehearsal can stop it, and wait until it answers."""
    child = subprocess.Popen([sys.executable, "-m", "nodewatch.lab.edge", str(layout.root)], stdin=subprocess.DEVNULL)
    (layout.cloud / "edge.pid").write_text(f"{child.pid}\n")
    deadline = time.monotonic() + MOTO_START_S
    while time.monotonic() < deadline and child.poll() is None:
        try:
            socket.create_connection((CLOUD_ADDRESS, CLOUD_PORT), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return child
    child.kill()
    raise SystemExit("the simulated EC2 did not start; its own words stand above")


def main(argv: Sequence[str]) -> None:
    layout = Layout(root=Path(argv[0]))
    plan = load(layout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ears.bind(str(layout.cloud_socket))
    ears.settimeout(LOOK_EVERY_S)
    cloud = Cloud(layout, plan)
    cloud.boot_head()
    moto = start_moto(layout)
    try:
        api = ec2.client()
        (layout.cloud / "subnet").write_text(ec2.found_account(api, plan.shape))
        while moto.poll() is None:
            try:
                cloud.look(api)
            except Exception as error:
                # EC2 not answering (a rehearsal may stop it) changes no machine; the next round looks again.
                say(f"EC2 could not be read: {type(error).__name__}: {error}")
            try:
                cloud.heard(ears.recv(65536))
            except TimeoutError:
                continue
        say("the simulated EC2 has ended, so the cloud does too")
    finally:
        moto.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
