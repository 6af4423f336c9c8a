"""Which of several controllers acts: the one beside the active slurmctld, and of those at most one.

Who has acted since when stands in the state directory as numbered files, `epoch-00000007`. The file of the highest number is
the present holder's: it names host and process, is locked for as long as that process lives, and is touched as a sign of
life. Another controller takes over by linking the next number into place, which only one can: at once when the lock is free,
else when the sign of life has not changed for `takeover_s` by the newcomer's own clock, so that no two machines' clocks are
compared. The old holder looks for its own file and for the next number before each record and each action; one that was
stopped for a minute and woken finds that it lost, and ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nodewatch.clients.command import run
from nodewatch.errors import JournalError

_EPOCH = re.compile(r"epoch-(\d{8})")
_KEPT = 2
"""Old epoch files that stay, so that one who lost can say to whom."""


class FencedError(JournalError):
    """Another controller has taken over: this one may neither write nor act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slurmctld:
    """One slurmctld as `scontrol ping` tells of it, in the order in which they take control."""

    host: str
    is_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stance:
    """Whether a controller may act by where slurmctld runs. `may_act` is None when that cannot be told."""

    may_act: bool | None
    why: str = ""


def parse_ping(text: str) -> tuple[Slurmctld, ...]:
    """The daemons in the output of `scontrol ping`, first to last; empty when it has none.

    Since 18.08 it is a line each, `Slurmctld(backup1) at h2 is UP`; before that one for both, with slashes, and `(NULL)` for
    a backup that is not configured.
    """
    found: list[Slurmctld] = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*Slurmctld\([^)]*\) at (\S+) (?:is|are) (\S+)\s*", line)
        if match is None:
            continue
        hosts, states = match[1].split("/"), match[2].split("/")
        if len(hosts) == len(states):
            found += [
                Slurmctld(host=host, is_up=state.upper() == "UP")
                for host, state in zip(hosts, states, strict=True)
                if host.strip("()").upper() != "NULL"
            ]
    return tuple(found)


def stance(daemons: Sequence[Slurmctld], own: Collection[str]) -> Stance:
    """What follows for the controller on the host that is called `own`.

    The first that is up is in control: a primary that comes back takes control from its backup. Where there is but one
    slurmctld there is nothing to choose, wherever the controller runs.
    """
    if not daemons:
        return Stance(may_act=None, why="`scontrol ping` names no slurmctld")
    if len(daemons) == 1:
        return Stance(may_act=True)
    active = next((daemon for daemon in daemons if daemon.is_up), None)
    if active is None:
        return Stance(may_act=None, why="no slurmctld answers")
    ours = {_short(name) for name in own}
    if _short(active.host) in ours:
        return Stance(may_act=True)
    return Stance(may_act=False, why=f"slurmctld is active on {active.host}")


def ask_slurm(own: Collection[str], *, deadline_s: float) -> Stance:
    """The stance by what `scontrol ping` says now. It ends with 1 when no slurmctld answers, and says so all the same."""
    result = run(["scontrol", "ping"], deadline_s=deadline_s)
    daemons = parse_ping(result.stdout)
    if not daemons and not result.ok:
        return Stance(may_act=None, why=f"`scontrol ping` failed: {result.complaint}")
    return stance(daemons, own)


def own_names(configured: str) -> frozenset[str]:
    """What slurm.conf may call this host."""
    if configured:
        return frozenset({configured})
    return frozenset({socket.gethostname(), os.uname().nodename})


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds an epoch. `life` changes whenever the holder gave a sign of life."""

    epoch: int
    host: str
    pid: int
    started_at: float
    life: int
    is_running: bool
    """Its file is locked: its process is there, be it stopped. Not so where the file system has no locks."""

    @property
    def text(self) -> str:
        """As an operator reads it."""
        since = datetime.fromtimestamp(self.started_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"the controller on {self.host or 'an unknown host'} (process {self.pid}, since {since}) is active"


class Fence:
    """One process's share in the epochs of `directory`. `monotonic` is this machine's own clock, seconds."""

    def __init__(
        self,
        directory: Path,
        *,
        takeover_s: float = 30.0,
        host: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._takeover_s = takeover_s
        self._host = host or socket.gethostname()
        self._monotonic = monotonic
        self._started_at = time.time()
        self._watched: tuple[int, int] | None = None
        self._watched_since = 0.0
        self._fd = -1
        self._inode = 0
        self.epoch = 0
        """The epoch that is held, 0 for none."""
        self.took_over = False
        """Whether its holder before may still be there, stopped or cut off."""

    def claim(self) -> str | None:
        """Try to become the one that acts. None: it is; else who is, as an operator reads it. Raises JournalError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            holder = self._holder()
            if holder is not None and not self._is_lost(holder):
                return holder.text
            return self._take(holder)
        except OSError as error:
            raise JournalError(f"{self._directory} cannot be used to tell who acts: {error}") from error

    def renew(self) -> None:
        """Give a sign of life. Raises FencedError when another has taken over."""
        self.check()
        try:
            os.utime(self._fd)
        except OSError as error:
            raise JournalError(f"{self._path(self.epoch)} cannot be touched: {error}") from error

    def check(self) -> None:
        """Raises FencedError when this process does not hold the newest epoch."""
        if not self.epoch:
            raise FencedError("this controller stands by: it does not act")
        try:
            is_own = self._path(self.epoch).stat().st_ino == self._inode
            next_one = self._path(self.epoch + 1)
            if is_own and not next_one.exists():
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            raise JournalError(f"{self._directory} cannot be read to tell who acts: {error}") from error
        holder = None
        with contextlib.suppress(OSError):
            holder = self._holder()
        who = holder.text if holder is not None and holder.epoch != self.epoch else "another controller is active"
        raise FencedError(f"this controller was taken over from: {who}")

    def close(self) -> None:
        """Let go of the epoch: another may take over at once."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.epoch = -1, 0

    def _path(self, epoch: int) -> Path:
        return self._directory / f"epoch-{epoch:08d}"

    def _epochs(self) -> list[int]:
        return sorted(int(m[1]) for path in self._directory.iterdir() if (m := _EPOCH.fullmatch(path.name)))

    def _holder(self) -> Holder | None:
        epochs = self._epochs()
        if not epochs:
            return None
        path = self._path(epochs[-1])
        with path.open("rb") as stream:
            life = os.fstat(stream.fileno()).st_mtime_ns
            told = _told(stream.read(4096))
            is_running = False
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                is_running = True
            except OSError:
                # No locks on this file system: only the sign of life can tell.
                is_running = True
        return Holder(
            epoch=epochs[-1],
            host=str(told.get("host", "")),
            pid=int(told.get("pid", 0)),
            started_at=float(told.get("started_at", 0.0)),
            life=life,
            is_running=is_running,
        )

    def _is_lost(self, holder: Holder) -> bool:
        if not holder.is_running:
            return True
        if self._watched != (holder.epoch, holder.life):
            self._watched, self._watched_since = (holder.epoch, holder.life), self._monotonic()
        return self._monotonic() - self._watched_since >= self._takeover_s

    def _take(self, holder: Holder | None) -> str | None:
        epoch = 1 if holder is None else holder.epoch + 1
        draft = self._directory / f"claim-{self._host}-{os.getpid()}"
        draft.unlink(missing_ok=True)
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            told = {"epoch": epoch, "host": self._host, "pid": os.getpid(), "started_at": self._started_at}
            os.write(fd, json.dumps(told).encode() + b"\n")
            os.fsync(fd)
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked and written before it has its name; a link is refused where the name is taken, on NFS too.
            try:
                os.link(draft, self._path(epoch))
            except FileExistsError:
                os.close(fd)
                return "another controller has just taken over"
        finally:
            draft.unlink(missing_ok=True)
        self._fd, self._inode, self.epoch = fd, os.fstat(fd).st_ino, epoch
        self.took_over = holder is not None and holder.is_running
        for old in self._epochs():
            if old < epoch - _KEPT:
                self._path(old).unlink(missing_ok=True)
        return None


def _told(content: bytes) -> dict[str, Any]:
    try:
        told = json.loads(content)
        return {"host": str(told["host"]), "pid": int(told["pid"]), "started_at": float(told["started_at"])}
    except (ValueError, KeyError, TypeError):
        # Whatever is in it, its number and its lock are what counts.
        return {}
