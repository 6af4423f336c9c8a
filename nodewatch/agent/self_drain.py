"""An agent that cannot reach its controller drains its own node for a fault that is fatal and its own.

The one change of Slurm that an agent makes (DESIGN, rule 1). A node that is out of service already is left alone: its reason
belongs to whoever wrote it. scontrol runs as a child with a deadline, since it hangs where slurmctld does not answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nodewatch.model.health import StandingFinding, Verdict
from nodewatch.policy.verdicts import is_local_and_fatal
from nodewatch.sensors.child import Child, Ended

_LOG = logging.getLogger(__name__)
_DEADLINE_S = 10.0
_AGAIN_S = 30.0
_STATE = re.compile(r"\bState=([A-Z+*~#!%$@^-]+)")
_OUT = frozenset({"DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "DOWN"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The node was drained by its own agent, with the reason that Slurm shows."""

    reason: str
    fault: str
    subject: str


def is_out(shown: str) -> bool | None:
    """Whether `scontrol show node -o` shows a node that takes no jobs; None when it shows no state."""
    match = _STATE.search(shown)
    if match is None:
        return None
    flags = {flag.rstrip("*~#!%$@^-") for flag in match[1].split("+")}
    return bool(flags & _OUT)


def reason_of(standing: StandingFinding, silent_s: float) -> str:
    """The drain reason: ours by its first word, then what is wrong and why the agent acted itself."""
    finding = standing.finding
    return f"nodewatch: {finding.fault} on {finding.subject} (drained by its agent: no controller for {silent_s:.0f} s)"


class SelfDrain:
    """Drains the node once for as long as a local fatal fault stands."""

    def __init__(self, *, node: str, scontrol: str, silence_s: float) -> None:
        self._node = node
        self._scontrol = scontrol
        self._silence_s = silence_s
        self._child: Child | None = None
        self._is_update = False
        self._standing: StandingFinding | None = None
        self._reason = ""
        self._settled = False
        self._again_at = 0.0

    def filenos(self) -> tuple[int, ...]:
        """The output of the command that runs."""
        return () if self._child is None else (self._child.fileno(),)

    def due_at(self, verdict: Verdict, last_contact: float) -> float | None:
        """When `step` has something to do (monotonic seconds)."""
        if self._child is not None:
            return self._child.started_at + _DEADLINE_S
        if self._settled or self._fault(verdict) is None:
            return None
        return max(self._again_at, last_contact + self._silence_s)

    def step(self, verdict: Verdict, last_contact: float, now: float) -> Drained | None:
        """Go on; the value is given once, when Slurm took the drain."""
        if self._child is not None:
            return self._follow(self._child, now)
        standing = self._fault(verdict)
        if standing is None:
            self._settled = False
        elif not self._settled and now >= max(self._again_at, last_contact + self._silence_s):
            self._standing = standing
            self._reason = reason_of(standing, now - last_contact)
            self._run(["show", "node", "-o", self._node], now, is_update=False)
        return None

    def close(self) -> None:
        """End the command that runs."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    @staticmethod
    def _fault(verdict: Verdict) -> StandingFinding | None:
        return next((standing for standing in verdict.findings if is_local_and_fatal(standing)), None)

    def _run(self, arguments: Sequence[str], now: float, *, is_update: bool) -> None:
        try:
            self._child = Child([self._scontrol, *arguments], now=now)
            self._is_update = is_update
        except OSError as error:
            self._failed(f"{self._scontrol} cannot be started ({error}): set scontrol in agent.toml", now)

    def _follow(self, child: Child, now: float) -> Drained | None:
        ended = child.poll()
        if ended is None:
            if now >= child.started_at + _DEADLINE_S:
                child.kill()
                self._failed(f"scontrol did not answer within {_DEADLINE_S:g} s", now)
            return None
        self._child = None
        if ended.returncode != 0:
            self._failed(f"scontrol failed ({_last(ended)})", now)
            return None
        if self._is_update:
            return self._drained()
        out = is_out(ended.stdout)
        if out is None:
            self._failed(f"scontrol shows no state of the node {self._node}", now)
        elif out:
            _LOG.warning("the node is out of service already and is left as it is (%s)", self._reason)
            self._settled = True
        else:
            arguments = ["update", f"nodename={self._node}", "state=drain", f"reason={self._reason}"]
            self._run(arguments, now, is_update=True)
        return None

    def _drained(self) -> Drained:
        assert self._standing is not None
        self._settled = True
        finding = self._standing.finding
        _LOG.warning("this node was drained by its own agent: %s", self._reason)
        return Drained(reason=self._reason, fault=finding.fault, subject=finding.subject)

    def _failed(self, why: str, now: float) -> None:
        self._child = None
        self._again_at = now + _AGAIN_S
        _LOG.error("the node should be drained and is not: %s; the next try is in %.0f s", why, _AGAIN_S)


def _last(ended: Ended) -> str:
    lines = ended.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"status {ended.returncode}"
