"""A controller that does not act: it looks, answers `nodewatch status`, and waits until it is its turn; and the watch over
whether it still is."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from nodewatch.controller import views
from nodewatch.controller.fencing import Fence, FencedError, Stance
from nodewatch.controller.operators import OperatorServer
from nodewatch.errors import JournalError, NodewatchError
from nodewatch.model.cluster import SlurmJob, SlurmNode, Snapshot
from nodewatch.model.ledger import Ledger
from nodewatch.policy.rules import Rules
from nodewatch.service import Notifier

_log = logging.getLogger(__name__)
_CONNECT_S = 1.0


class Readable(Protocol):
    """Slurm, only read."""

    def nodes(self) -> Mapping[str, SlurmNode]:
        """All nodes by name, or SlurmError."""

    def jobs(self) -> Mapping[int, SlurmJob]:
        """All jobs by id, or SlurmError."""


class StandBy:
    """Waits for its turn. `ask` tells the stance by Slurm, `period_s` how often it is asked for."""

    def __init__(
        self,
        *,
        fence: Fence,
        ask: Callable[[], Stance],
        slurm: Readable,
        rules: Rules,
        operators: Path,
        period_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._fence = fence
        self._ask = ask
        self._slurm = slurm
        self._rules = rules
        self._operators = operators
        self._period_s = period_s
        self._clock = clock
        self._stop = threading.Event()
        self._server: OperatorServer | None = None
        self.why = ""
        """Why it does not act."""

    def wait(self, notifier: Notifier) -> bool:
        """True once the fence is held; False when it was stopped before."""
        try:
            while not self._stop.is_set():
                why = self._why_not()
                if why is None:
                    return True
                if why != self.why:
                    _log.info("standing by: %s", why)
                self.why = why
                self._serve()
                # It has started, though it has nothing to do: units that wait for it may go on.
                notifier.ready()
                notifier.status(f"standing by: {why}")
                notifier.watchdog()
                self._stop.wait(self._period_s)
            return False
        finally:
            if self._server is not None:
                self._server.shutdown()
                self._server.server_close()
                self._server = None

    def stop(self) -> None:
        """End the wait."""
        self._stop.set()

    def answer(self, question: Mapping[str, Any], _uid: int) -> Mapping[str, Any]:
        """What operators are told meanwhile."""
        if question.get("ask") != "status":
            return {"error": f"this controller stands by ({self.why}): ask on the host of the active one"}
        now = self._clock()
        try:
            snapshot = Snapshot(taken_at=now, nodes=self._slurm.nodes(), jobs=self._slurm.jobs())
        except NodewatchError as error:
            snapshot = Snapshot(taken_at=now, slurm_error=str(error))
        told = views.status(snapshot, Ledger(), (), self._rules, (), now)
        return {**told, "standing_by": self.why}

    def _why_not(self) -> str | None:
        stance = self._ask()
        if stance.may_act is not True:
            # Where it cannot be told, nothing is begun: unknown is never good.
            return stance.why
        return self._fence.claim()

    def _serve(self) -> None:
        if self._server is not None or _is_answered(self._operators):
            return
        try:
            self._server = OperatorServer(self._operators, self.answer)
        except OSError as error:
            _log.warning("%s cannot be served: %s", self._operators, error)
            return
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()


class Watch:
    """Gives signs of life while a controller acts, and calls `lost(why)` once when it is no longer its turn."""

    def __init__(
        self, *, fence: Fence, ask: Callable[[], Stance], lost: Callable[[str], None], period_s: float
    ) -> None:
        self._fence = fence
        self._ask = ask
        self._lost = lost
        self._period_s = period_s
        self._stop = threading.Event()
        # Of its own: `scontrol ping` waits for a dead host as long as Slurm's MessageTimeout, and a tick must not.
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._live, self._look)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; returns at once."""
        self._stop.set()

    def _live(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self._fence.renew()
            except FencedError as error:
                self._lost(str(error))
                return
            except JournalError as error:
                _log.warning("%s", error)

    def _look(self) -> None:
        while not self._stop.wait(self._period_s):
            stance = self._ask()
            # Only a plain no ends it: while no slurmctld answers the planner does nothing anyway.
            if stance.may_act is False:
                self._lost(stance.why)
                return


def _is_answered(path: Path) -> bool:
    """Whether another process on this host serves `path`: its socket must not be taken away from it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_S)
        connection.connect(str(path))
        return True
    return False
