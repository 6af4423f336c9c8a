"""One writer a checkpoint directory: a lock that two jobs cannot both hold, and that a dead job cannot keep.

`ROOT/.lock` is held in two ways at once:

    flock     the kernel drops it when its process dies. On one machine, and on file systems that carry it between machines,
              this is all.
    lease     one JSON line in the file, renewed every BEAT_S: who holds it. Lustre mounted with localflock, and NFS with
              local_lock, grant the same flock on two machines; there a lease that is renewed is believed, and one that
              is not renewed for LEASE_S is dead.

A lease of the same Slurm job from an earlier start, or of this machine before its last boot, is dead at once: Slurm
starts a job again only after its last run. Clocks of two machines are never compared: a lease is alive when it is seen
to change. A holder that was thought dead and comes back finds another's lease, and `check` lets it commit nothing more.
Standard library only.
"""

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nodewatch_train.manifest import CheckpointError, RefusedError

LOCK = ".lock"
BEAT_S = 5.0
LEASE_S = 16.0
"""Three missed beats: a file system that hangs for a while (a failover of FSx takes up to a minute) must not often cost a
live job its lock, and a job that follows a dead one of another id waits no longer than this."""
_PATIENCE_S = 40.0
"""How long to wait for this job's own last run to die: Slurm's KillWait is 30 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who holds the lock: Slurm's `job` and its `restart` count (None and 0 outside of Slurm), and the process. `attempt`
    counts the tries within one start (`supervise`)."""

    job: int | None
    restart: int
    host: str
    boot_id: str
    pid: int
    token: str
    attempt: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Owner":
        """This process."""
        job, restart = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_RESTART_COUNT", "")
        attempt = environment.get("NODEWATCH_TRY", "")
        try:
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            boot_id = ""
        return cls(
            job=int(job) if job.isdecimal() else None,
            restart=int(restart) if restart.isdecimal() else 0,
            host=environment.get("SLURMD_NODENAME") or socket.gethostname(),
            boot_id=boot_id,
            pid=os.getpid(),
            token=secrets.token_hex(8),
            attempt=int(attempt) if attempt.isdecimal() else 0,
        )

    @property
    def start(self) -> tuple[int, int]:
        """Which start of its job it is of."""
        return self.restart, self.attempt

    def __str__(self) -> str:
        job = "a process outside of Slurm" if self.job is None else f"job {self.job} (start {self.restart + 1})"
        return f"{job}, process {self.pid} on {self.host}"


class DirectoryLock:
    """Held from `acquire` to `release`, or to the end of the process."""

    def __init__(
        self,
        root: Path,
        *,
        owner: Owner,
        beat_s: float = BEAT_S,
        lease_s: float = LEASE_S,
        patience_s: float = _PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._path = root / LOCK
        self._owner = owner
        self._beat_s, self._lease_s, self._patience_s = beat_s, lease_s, patience_s
        self._sleep, self._clock = sleep, clock
        self._descriptor = -1
        self._beats = 0
        self._writing = threading.Lock()
        self._released = threading.Event()

    def acquire(self) -> None:
        """Take the lock. Raises RefusedError when a live job has it, CheckpointError when it cannot be had at all."""
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
        except OSError as error:
            raise CheckpointError(
                f"the lock {self._path} cannot be opened ({error.strerror}): make it writable, or name another directory"
            ) from error
        try:
            self._take_flock()
            self._outwait_lease()
            try:
                self._write()
            except OSError as error:
                raise CheckpointError(
                    f"the lock {self._path} cannot be written ({error.strerror}): make room there, or name another directory"
                ) from error
            # Two machines whose flock is local may have come here together; the later line is the one that both read.
            self._sleep(min(0.05, self._beat_s))
            self.check()
        except BaseException:
            os.close(self._descriptor)
            self._descriptor = -1
            raise
        threading.Thread(target=self._beat, name="checkpoint-lock", daemon=True).start()

    def check(self) -> None:
        """Raise CheckpointError unless the lock is still ours: to be called before anything is committed or deleted."""
        found = self._read()
        if found.get("token") != self._owner.token:
            by = _describe(found) if found else "somebody who left it empty"
            raise CheckpointError(
                f"the lock of {self._root} was taken by {by}, while this run was not heard of for {self._lease_s:.0f} s: "
                "this run may not write there any more"
            )

    def release(self) -> None:
        """Give it back, so that the next job on another machine need not wait for the lease to end."""
        if self._descriptor < 0:
            return
        self._released.set()
        with self._writing:
            try:
                if self._read().get("token") == self._owner.token:
                    os.ftruncate(self._descriptor, 0)
            except OSError:
                pass  # the directory is gone, or the file system is: there is nothing left to give back
            os.close(self._descriptor)
            self._descriptor = -1

    def _take_flock(self) -> None:
        began = self._clock()
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = self._read()
                ours = self._owner.job is not None and found.get("job") == self._owner.job
                if ours and _start(found) != self._owner.start and self._clock() - began < self._patience_s:
                    self._sleep(0.1)  # our own last run, which is being killed
                    continue
                raise self._refusal(found) from None
            except OSError:
                return  # a file system without flock: the lease alone has to do
            else:
                return

    def _outwait_lease(self) -> None:
        """Return once the lease in the file is known to be dead. Raises RefusedError when it is alive."""
        first = self._read()
        if not first or self._is_superseded(first):
            return
        began = self._clock()
        while self._clock() - began < self._lease_s:
            self._sleep(self._beat_s / 5)
            now = self._read()
            if not now:
                return  # given back
            if now != first:
                raise self._refusal(now)

    def _is_superseded(self, lease: Mapping[str, Any]) -> bool:
        """Whether its holder is dead without waiting."""
        mine = self._owner
        if lease.get("host") == mine.host:
            return True  # on this machine flock tells, and we hold it; or the machine was booted since
        start = _start(lease)
        return mine.job is not None and lease.get("job") == mine.job and start is not None and start < mine.start

    def _refusal(self, lease: Mapping[str, Any]) -> RefusedError:
        return RefusedError(
            f"{self._root} is being written by {_describe(lease)}: end that one, or use another checkpoint directory"
        )

    def _beat(self) -> None:
        while not self._released.wait(self._beat_s):
            with self._writing:
                if self._released.is_set():
                    return
                try:
                    if self._read().get("token") != self._owner.token:
                        return  # taken; check() says so before the next commit
                    self._write()
                except OSError:
                    continue  # a file system that is away for a while: the next beat may come through

    def _write(self) -> None:
        self._beats += 1
        line = json.dumps({**asdict(self._owner), "beat": self._beats, "at": round(time.time(), 3)}).encode() + b"\n"
        # In place, since flock belongs to the file that is open. Blanks hide the rest of a longer line before.
        os.pwrite(self._descriptor, line[:-1].ljust(400) + b"\n", 0)
        os.fsync(self._descriptor)

    def _read(self) -> dict[str, Any]:
        for _ in range(5):
            # Opened anew: on NFS that is what makes the client ask the server.
            try:
                raw = self._path.read_bytes()
            except FileNotFoundError:
                return {}
            if not raw.strip():
                return {}
            try:
                lease = json.loads(raw)
            except ValueError:
                self._sleep(0.02)  # read while it was being written
                continue
            return lease if isinstance(lease, dict) else {}
        return {}


def _start(lease: Mapping[str, Any]) -> tuple[int, int] | None:
    restart, attempt = lease.get("restart"), lease.get("attempt", 0)
    return (restart, attempt) if isinstance(restart, int) and isinstance(attempt, int) else None


def _describe(lease: Mapping[str, Any]) -> str:
    try:
        return str(Owner(**{name: lease[name] for name in ("job", "restart", "host", "boot_id", "pid", "token")}))
    except (KeyError, TypeError):
        return "another job"
