"""The directory of each job on this node: what its processes are told, and where their heartbeats go.

`<runtime directory>/jobs/<job id>/` is made at prolog, before it is answered, and removed at epilog. Everything in it is
root's, but for `heartbeats/`, which is the user's: root writes nothing there, and what the user may have put there is
removed by another process, that stays on this file system. docs/interfaces.md says what the files hold.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from nodewatch.model.auto_resume import EXTRA_MARK, SiteDefault, mark_of, site_defaults_from_json
from nodewatch.model.hostlist import expand
from nodewatch.policy.mtbf import PRIOR_NODE_MTBF_S
from nodewatch.sensors.child import Child

_LOG = logging.getLogger(__name__)
_JOB = re.compile(r"[1-9][0-9]{0,9}")
_GONE = ".gone-"
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f]")
_COMMENT_MARK = "nodewatch: "
_LEFT_OVER_S = 120.0
"""A directory so old whose job the controller does not see on this node is left over. It sees a job within seconds."""
_REMOVAL_S = 60.0
_MOST_REMOVALS = 8
_MOST_NODES = 100_000


class JobFiles:
    """Makes and removes the directories, from the main loop. Nothing here raises: a job does not fail for want of these."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        """`root` is the directory that holds the jobs'; `clock` the wall clock, by which files are dated."""
        self._root = root
        self._clock = clock
        self._numbers = itertools.count()
        self._removals: list[Child] = []
        self._asked: dict[str, str] = {}
        """The last reason, by job, for which a checkpoint was asked for."""
        self.node_mtbf_s = PRIOR_NODE_MTBF_S
        self.defaults: tuple[SiteDefault, ...] = ()

    def directory(self, job_id: str) -> Path:
        """Where the files of that job are, whether or not there are any."""
        return self._root / job_id

    def opened(self, job: Mapping[str, str], now: float) -> None:
        """The job may start: make its directory, in the place of one that an earlier run of it left. `now` is monotonic."""
        job_id = job.get("id", "")
        if not _JOB.fullmatch(job_id):
            return
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o755)
            self.closed(job_id, now)
            self._make(job_id, job)
        except (OSError, ValueError) as error:
            _LOG.warning("job %s gets no files (%s): its program runs without them", job_id, error)

    def closed(self, job_id: str, now: float) -> None:
        """The job has ended here: its directory goes. `now` is monotonic."""
        if not _JOB.fullmatch(job_id):
            return
        self._asked.pop(job_id, None)
        gone = self._root / f"{_GONE}{os.getpid()}-{next(self._numbers)}"
        try:
            # At once, whatever a user has put there: the next run of the job must not find it.
            self.directory(job_id).rename(gone)
        except FileNotFoundError:
            return
        except OSError as error:
            _LOG.warning("the files of job %s could not be removed: %s", job_id, error)
            return
        self._unlink_others(job_id)
        self._remove(gone, now)

    def asked(self, request: Mapping[str, Any], now: float) -> bool:
        """Do what the controller asks for a job's sake; False for a request of another kind. `now` is monotonic."""
        kind = request.get("kind")
        if kind not in ("save_now", "bad_nodes", "cluster"):
            return False
        try:
            if kind == "cluster":
                self._told(request, now)
            elif kind == "save_now":
                self._save_now(str(int(request["job"])), str(request.get("key") or "asked"), bool(request.get("stop")))
            else:
                self._bad_nodes(str(int(request["job"])), [str(name) for name in request["nodes"]])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
            _LOG.warning("the request %.200r was not understood or not carried out (%r)", request, error)
        return True

    def keep_house(self, now: float) -> None:
        """See to the removals that run, and begin those that an agent before this one did not end. `now` is monotonic."""
        for child in list(self._removals):
            if child.poll() is not None:
                self._removals.remove(child)
            elif now - child.started_at > _REMOVAL_S:
                child.kill()
                self._removals.remove(child)
        if not self._removals:
            with contextlib.suppress(OSError):
                for path in itertools.islice(self._root.glob(f"{_GONE}*"), _MOST_REMOVALS):
                    self._remove(path, now)

    def close(self) -> None:
        """End what still runs."""
        for child in self._removals:
            child.kill()
        self._removals.clear()

    def mark(self, job: Mapping[str, str]) -> str | None:
        """The text of --auto-resume that counts for a job, the site's default put in; None where it is not marked."""
        text = job.get("auto_resume")
        if text is None and job.get("extra", "").startswith(EXTRA_MARK):
            text = job["extra"].removeprefix(EXTRA_MARK)
        return mark_of(
            text,
            self.defaults,
            partition=job.get("partition", ""),
            account=job.get("account", ""),
            user=job.get("user", ""),
            job_name=job.get("name", ""),
        )

    def _make(self, job_id: str, job: Mapping[str, str]) -> None:
        directory = self.directory(job_id)
        # Never with exist_ok: whatever stands there was not made by this call.
        directory.mkdir(mode=0o700)
        heartbeats = directory / "heartbeats"
        heartbeats.mkdir(mode=0o755)
        heartbeats.chmod(0o755)
        uid = job.get("uid", "")
        if uid.isdecimal() and int(uid) != os.geteuid():
            os.chown(heartbeats, int(uid), -1, follow_symlinks=False)
        lines = "".join(f"{name}={_NO_TEXT.sub(' ', value)}\n" for name, value in self._environment(job).items())
        self._write(directory, "environment", lines)
        # Last: from now on the user may look, and put things into what is his.
        directory.chmod(0o755)
        het = job.get("het", "")
        if _JOB.fullmatch(het) and het != job_id:
            # The processes of a component know the id of the whole heterogeneous job alone.
            with contextlib.suppress(FileExistsError):
                self.directory(het).symlink_to(job_id)

    def _environment(self, job: Mapping[str, str]) -> dict[str, str]:
        directory = self.directory(job["id"])
        found = {
            "NODEWATCH_SAVE_NOW": f"{directory}/save-now",
            "NODEWATCH_HEARTBEATS": f"{directory}/heartbeats",
            "NODEWATCH_BAD_NODES": f"{directory}/bad-nodes",
        }
        try:
            nodes = len(expand(job.get("nodes", "")))
        except ValueError:
            nodes = 0
        if 0 < nodes <= _MOST_NODES:
            found["NODEWATCH_MTBF_S"] = f"{self.node_mtbf_s / nodes:.0f}"
        mark = self.mark(job)
        if mark is not None and mark != "off":
            found["NODEWATCH_AUTO_RESUME"] = mark
        comment = job.get("comment", "")
        if job.get("restart", "0") not in ("", "0") and comment.startswith(_COMMENT_MARK):
            found["NODEWATCH_INTERRUPTION"] = comment.removeprefix(_COMMENT_MARK)
        return found

    def _save_now(self, job_id: str, key: str, is_stop: bool) -> None:
        """A file made or changed asks the program: once for each key, though the controller repeats it."""
        directory = self.directory(job_id)
        asked = f"{key} stop" if is_stop else key
        if self._asked.get(job_id) == asked or not _is_ours(directory):
            return
        self._write(directory, "save-now", "stop" if is_stop else "")
        self._asked[job_id] = asked
        _LOG.info("job %s is asked for a checkpoint%s (%s)", job_id, " and to stop" if is_stop else "", key)

    def _bad_nodes(self, job_id: str, names: Iterable[str]) -> None:
        directory = self.directory(job_id)
        text = "".join(f"{name}\n" for name in names if name and not _NO_TEXT.search(name))
        if _is_ours(directory) and _text_of(directory / "bad-nodes") != text:
            self._write(directory, "bad-nodes", text)

    def _told(self, told: Mapping[str, Any], now: float) -> None:
        mtbf = told.get("node_mtbf_s")
        if isinstance(mtbf, int | float) and not isinstance(mtbf, bool) and 0 < mtbf < 1e12:
            self.node_mtbf_s = float(mtbf)
        self.defaults = site_defaults_from_json(told.get("auto_resume") or ())
        jobs = told.get("jobs")
        if jobs is not None:
            self._sweep(frozenset(str(int(job)) for job in jobs), now)

    def _sweep(self, running: frozenset[str], now: float) -> None:
        """Jobs whose epilog did not reach us: this agent was away, or the machine was."""
        try:
            names = [path.name for path in self._root.iterdir() if _JOB.fullmatch(path.name) and not path.is_symlink()]
        except OSError:
            return
        for name in names:
            with contextlib.suppress(OSError):
                age = self._clock() - (self.directory(name) / "environment").lstat().st_mtime
                if name not in running and age > _LEFT_OVER_S:
                    _LOG.info("job %s runs here no more: its files are removed", name)
                    self.closed(name, now)

    def _unlink_others(self, job_id: str) -> None:
        with contextlib.suppress(OSError):
            for path in self._root.iterdir():
                if path.is_symlink() and str(path.readlink()) == job_id:
                    path.unlink()

    def _remove(self, gone: Path, now: float) -> None:
        """By a process that may take its time, or hang: a user can make a million files, or mount something that never
        answers. What is beyond `_MOST_REMOVALS` waits for `keep_house`."""
        if len(self._removals) < _MOST_REMOVALS:
            try:
                self._removals.append(Child(["rm", "-rf", "--one-file-system", "--", str(gone)], now=now))
            except OSError as error:
                _LOG.warning("%s could not be removed: %s", gone, error)

    def _write(self, directory: Path, name: str, text: str) -> None:
        """Whole or not at all, readable by everybody. The directory is root's: nobody else can put a link there."""
        draft = directory / f".{name}"
        draft.unlink(missing_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        draft.rename(directory / name)


def _is_ours(directory: Path) -> bool:
    """Whether it is a directory of this agent's own, and no link."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
