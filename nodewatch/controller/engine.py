"""The controller's one loop body, without sockets or a clock of its own.

`receive` takes what agents and hooks report; `tick` reads the world, plans, and carries the plan out. Each action is written
down as intended and synced before it is begun, and its outcome is written down after: that record, not the effect, is what
the ledger learns from. The same engine runs in the daemon and, on fakes, in `nodewatch.testing`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from nodewatch.controller.heartbeats import Heartbeats
from nodewatch.controller.job_side import JobSide
from nodewatch.effects.evidence import EvidenceStore
from nodewatch.effects.perform import Ec2Client, SlurmClient, perform
from nodewatch.errors import CapacityError, Ec2Error, JournalError, NodewatchError
from nodewatch.model import actions as act
from nodewatch.model.auto_resume import SiteDefault
from nodewatch.model.cluster import AgentView, Instance, SlurmJob, SlurmNode, Snapshot
from nodewatch.model.health import StandingFinding, Verdict
from nodewatch.model.heartbeats import dumps_of
from nodewatch.model.hostlist import expand
from nodewatch.model.ledger import Ledger
from nodewatch.model.plan import Held, Plan
from nodewatch.model.records import Record
from nodewatch.policy import inside
from nodewatch.policy.fold import case_to_json, fold
from nodewatch.policy.lost import is_silent
from nodewatch.policy.picture import Picture, change, is_nothing, picture_of, rules_to_json
from nodewatch.policy.plan import plan, reset_requests, validation_requests
from nodewatch.policy.progress import HangRules
from nodewatch.policy.requeue import unrecorded
from nodewatch.policy.rules import Rules

_log = logging.getLogger(__name__)
_MOST_ROUNDS = 12
"""Plans carried out in one tick; a repair takes two or three steps at once, more would be a planner that never rests."""
_MOST_PROBES = 128
_STORY_KEPT = 5000
_EVENT_IDS_KEPT = 20000
_SEEN_EVERY_S = 60.0
"""A picture that changed without a decision is written down so often at most: another set of rules may decide by it."""
_SEEN_WHOLE_S = 86400.0
"""The whole picture is written at the start and so often, that a journal can be replayed from its middle."""
_AGENT_KINDS = frozenset(
    {
        "hello",
        "hardware",
        "verdict",
        "validated",
        "hook_denied",
        "drained_self",
        "gpu_reset",
        "job_witness",
        "stack_dump",
    }
)


class JournalStore(Protocol):
    """Where records are kept before anything is done."""

    def append(self, at: float, kind: str, data: Mapping[str, Any]) -> Record:
        """Keep one record durably, or raise JournalError."""

    def keep(self, ledger: Ledger) -> None:
        """All records so far amount to `ledger`: a good moment to begin a new file from it. Never raises."""


class Engine:
    """State: the ledger (a fold of the journal), the agents' last words, and EC2's last picture."""

    def __init__(
        self,
        *,
        journal: JournalStore,
        past: list[Record],
        slurm: SlurmClient,
        ec2: Ec2Client | None,
        rules: Rules,
        clock: Callable[[], float],
        reach: Callable[[str, str], bool] = lambda _node, _address: True,
        ec2_period_s: float = 10.0,
        alive: Callable[[], None] = lambda: None,
        ledger: Ledger | None = None,
        may_act: Callable[[], None] = lambda: None,
        store: EvidenceStore | None = None,
        cloud: Callable[[], Mapping[str, tuple[StandingFinding, ...]]] = dict,
        hang: HangRules | None = None,
        site_defaults: Iterable[SiteDefault] = (),
    ) -> None:
        """`past` is the journal so far, or its last records where `ledger` is given: what all of it amounts to.

        `reach(node, address)` tells whether any of the node's ports answers now; it is called for many nodes at once, on
        threads. `may_act` is called at the last moment before an action, and raises JournalError where it must not be done.
        `cloud` gives, by instance id, what EC2's status checks and events say. `alive` is called after each step of a tick:
        a tick that waits for a slow EC2 several times is long, not hung.
        `ec2_period_s` is how long a picture of EC2 serves: its API is throttled, Slurm's is not.
        """
        # Agents' messages arrive on threads of their own; a record and what is learnt from it belong together. The lock is
        # never held while Slurm or EC2 are asked, so that a slow slurmctld does not keep agents waiting.
        self._lock = threading.RLock()
        self._journal = journal
        self._slurm = slurm
        self._ec2 = ec2
        self._store = store
        self._clock = clock
        self._reach = reach
        self._cloud = cloud
        self._ec2_period_s = ec2_period_s
        self._alive = alive
        self.rules = rules
        self.heartbeats = Heartbeats(hang or HangRules())
        self._may_act = may_act
        self.ledger: Ledger = _replayed(past) if ledger is None else ledger
        self.story: deque[Record] = deque((r for r in past if r.kind != "seen"), maxlen=_STORY_KEPT)
        self._number = past[-1].number if past else 0
        self._picture: Picture | None = None
        self._picture_at = self._whole_at = float("-inf")
        self.held: tuple[Held, ...] = ()
        self.snapshot: Snapshot = Snapshot(taken_at=0.0, slurm_error="not read yet")
        self.counts: dict[str, int] = {}
        self._held_shape: frozenset[tuple[str, str]] = frozenset()
        self._seen: dict[str, None] = {
            str(r.data["event_id"]): None for r in past[-_EVENT_IDS_KEPT:] if "event_id" in r.data
        }
        self._instances: Mapping[str, Instance] = {}
        self._ec2_read_at = float("-inf")
        self._ec2_error: str | None = "not read yet" if ec2 is not None else None
        started = clock()
        known_at = [*(record.at for record in past[:1]), *(case.opened_at for case in self.ledger.cases.values())]
        self.jobs = JobSide(site_defaults, since=min(known_at, default=started))
        # After a restart every known agent gets the full time to be heard again before its silence counts.
        self._agents: dict[str, AgentView] = {
            node: AgentView(
                node=node, heard_at=started, boot_id=known.boot_id, instance_id=known.instance_id, verdict=None
            )
            for node, known in self.ledger.agents.items()
        }
        groups = [group.name for group in rules.groups]
        self.note("started", {"mode": rules.mode, "groups": groups, "rules": rules_to_json(rules)})

    # -- what comes in ------------------------------------------------------------------------------------------------

    def receive_agent(self, message: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]], bool]:
        """One message of an agent (docs/interfaces.md section 4): (accepted event ids, requests to it, anything new).

        Raises KeyError, ValueError or TypeError for a message of another shape; nothing of it is taken then.
        """
        node = str(message["node"])
        verdict = Verdict.from_json(message["verdict"]) if message.get("verdict") else None
        events = [_agent_event(event) for event in message.get("events", ())]
        identity = {
            "node": node,
            "boot_id": str(message.get("boot_id") or ""),
            "instance_id": str(message.get("instance_id") or ""),
        }
        with self._lock:
            return self._take(node, identity, verdict, events, message)

    def _take(
        self,
        node: str,
        identity: Mapping[str, str],
        verdict: Verdict | None,
        events: list[tuple[str, str, dict[str, Any]]],
        message: Mapping[str, Any],
    ) -> tuple[list[str], list[dict[str, Any]], bool]:
        now = self._clock()
        before = self._agents.get(node)
        if before is not None and self._is_stale(node, identity["instance_id"]):
            # The machine that was replaced may still be alive for a while: it must not speak for its successor.
            leave: list[dict[str, Any]] = []
            if identity["instance_id"] in self.ledger.quarantined:
                # It runs on, and its slurmd would register under the name that its successor bears.
                leave = [{"kind": "retire", "key": f"retire:{identity['instance_id']}"}]
            return [event_id for event_id, _, _ in events], leave, False
        self.heartbeats.take(node, message, now)
        validating = _validating(message.get("validation"))
        self._agents[node] = AgentView(
            node=node,
            heard_at=now,
            boot_id=identity["boot_id"],
            instance_id=identity["instance_id"],
            verdict=verdict if verdict is not None or before is None else before.verdict,
            validating=validating[0],
            progress=validating[1],
        )
        fresh = (
            before is None
            or before.verdict is None
            or (before.boot_id, before.instance_id) != (identity["boot_id"], identity["instance_id"])
            or (verdict is not None and before.verdict.shape != verdict.shape)
        )
        accepted = []
        for event_id, kind, data in events:
            if event_id not in self._seen:
                self.note(kind, {**data, **identity, "event_id": event_id})
                if kind == "stack_dump":
                    self.heartbeats.dumped(node, data)
                self._remember(event_id)
                fresh = True
            accepted.append(event_id)
        requests: list[dict[str, Any]] = [
            {"kind": "validate", "key": key, "suite": suite}
            for key, suite in validation_requests(node, self.ledger, self.rules, now)
        ]
        requests += [{"kind": "reset_gpu", "key": key} for key in reset_requests(node, self.ledger)]
        requests += self.heartbeats.requests(node)
        requests += self.jobs.requests(node)
        return accepted, requests, fresh

    def receive_hook(self, message: Mapping[str, Any]) -> None:
        """One file of a slurmctld hook (docs/interfaces.md section 3). Raises KeyError, ValueError or TypeError."""
        kind = str(message["kind"])
        if kind not in ("job_started", "job_ended"):
            raise ValueError(f"unknown kind {kind!r}")
        data = {key: value for key, value in message.items() if key not in ("v", "n", "kind")}
        _check_time(data)
        data["job_id"] = int(data["job_id"])
        data["restart_count"] = int(data.get("restart_count") or 0)
        data["node_names"] = expand(str(data.get("nodes") or ""))
        if kind == "job_started":
            data["auto_resume"] = self.jobs.mark(data)
        self.note(kind, data)

    def ask_checks(self, nodes: Iterable[str], *, suite: str, by: str) -> Record:
        """An operator's wish to have `nodes` validated; the planner fulfils it when each is empty."""
        return self.note("check_asked", {"nodes": sorted(nodes), "suite": suite, "by": by})

    def withdraw_checks(self, nodes: Iterable[str]) -> Record:
        """The wish is taken back; what an agent runs already it ends by itself."""
        return self.note("check_withdrawn", {"nodes": sorted(nodes)})

    # -- the tick -----------------------------------------------------------------------------------------------------

    def tick(self) -> Plan:
        """Read, plan, carry out, and again while something changed. Returns the last plan."""
        decided = Plan()
        for _ in range(_MOST_ROUNDS):
            self.snapshot = self._read()
            self._alive()
            for data in unrecorded(self.snapshot, self.ledger):
                self.note("job_started", {**data, "auto_resume": self.jobs.mark(data)})
            self.heartbeats.look(self.snapshot, self.ledger, self.rules, self.note, self._clock())
            told = tuple(inside.all_told(self.snapshot, self.ledger, self.rules))
            for each in told:
                went_on = self.heartbeats.went_on(each)
                if went_on is not None:
                    self.note("went_on", went_on)
            self.jobs.look(self.snapshot, self.ledger, self.rules, told, self._clock())
            with self._lock:
                ledger, number, now = self.ledger, self._number, self._clock()
            decided = plan(self.snapshot, ledger, self.rules, now)
            self._write_seen(decided, ledger, number, now)
            self._write_decisions(decided)
            for action in decided.actions:
                self._carry_out(action)
                self._alive()
            if not (decided.actions or decided.cases or decided.judgements):
                return decided
        _log.error("the planner did not come to rest within %d rounds", _MOST_ROUNDS)
        self.counts["restless_ticks"] = self.counts.get("restless_ticks", 0) + 1
        return decided

    @property
    def is_hurried(self) -> bool:
        """Whether a job is between its requeue and its start: the next look should come at once."""
        jobs = self.snapshot.jobs
        return any(
            job_id in jobs and (jobs[job_id].is_pending or "COMPLETING" in jobs[job_id].states)
            for job_id, marked in self.ledger.jobs.items()
            if marked.judged_restart == marked.restart_count and marked.restarts
        )

    def note(self, kind: str, data: Mapping[str, Any]) -> Record:
        """Write one record and learn from it. Raises JournalError; nothing is learnt then.

        An `at` in `data` is when it happened and becomes the record's own time, as it is when the journal is read again.
        """
        with self._lock:
            at = float(data.get("at", self._clock()))
            record = self._journal.append(at, kind, {key: value for key, value in data.items() if key != "at"})
            self.ledger = fold(self.ledger, (record,))
            self._number = record.number
            if kind != "seen":
                self.story.append(record)
            self._journal.keep(self.ledger)
            return record

    # -- below --------------------------------------------------------------------------------------------------------

    def _is_stale(self, node: str, instance_id: str) -> bool:
        return instance_id in self.ledger.quarantined or any(
            case.new_instance and instance_id and instance_id != case.new_instance
            for case in self.ledger.open_cases_of(node)
        )

    def _remember(self, event_id: str) -> None:
        self._seen[event_id] = None
        while len(self._seen) > _EVENT_IDS_KEPT:
            del self._seen[next(iter(self._seen))]

    def _read(self) -> Snapshot:
        now = self._clock()
        slurm_error: str | None = None
        nodes: Mapping[str, SlurmNode] = {}
        jobs: Mapping[int, SlurmJob] = {}
        try:
            nodes, jobs = self._slurm.nodes(), self._slurm.jobs()
        except NodewatchError as error:
            nodes, jobs, slurm_error = {}, {}, str(error)
        self._read_ec2(now)
        with self._lock:
            agents = dict(self._agents)
        silent = [view for _, view in sorted(agents.items()) if is_silent(view, self.rules, now)]
        unreachable = self._unreachable([nodes[view.node] for view in silent if view.node in nodes])
        return Snapshot(
            taken_at=now,
            nodes=nodes,
            jobs=jobs,
            instances=self._instances,
            agents=agents,
            unreachable=unreachable,
            cloud=self._cloud(),
            slurm_error=slurm_error,
            ec2_error=self._ec2_error,
        )

    def _unreachable(self, silent: list[SlurmNode]) -> frozenset[str]:
        if not silent:
            return frozenset()
        # All at once: a dead machine takes the whole time-out, and a dead switch has a hundred machines behind it.
        with ThreadPoolExecutor(min(len(silent), _MOST_PROBES)) as pool:
            answers = pool.map(lambda node: self._reach(node.name, node.address), silent)
            return frozenset(node.name for node, answered in zip(silent, answers, strict=True) if not answered)

    def _read_ec2(self, now: float) -> None:
        if self._ec2 is None or now - self._ec2_read_at < self._ec2_period_s:
            return
        self._ec2_read_at = now
        try:
            self._instances = self._ec2.instances()
            self._ec2_error = None
        except NodewatchError as error:
            # The old picture stays for reading; with the error set no machine is touched.
            self._ec2_error = str(error)

    def _write_seen(self, decided: Plan, ledger: Ledger, number: int, now: float) -> None:
        """What the planner decided by, so that `nodewatch replay-journal` can decide by it again."""
        decides = bool(decided.cases or decided.judgements or decided.actions)
        if not decides and (now - self._picture_at < _SEEN_EVERY_S or self.snapshot.slurm_error is not None):
            return
        picture = picture_of(self.snapshot, ledger, self.rules, now)
        is_whole = self._picture is None or now - self._whole_at >= _SEEN_WHOLE_S
        delta = change(None if is_whole else self._picture, picture)
        if decides or not is_nothing(delta):
            self.note("seen", {"at": now, "after": number, **delta})
        self._picture, self._picture_at = picture, now
        if is_whole:
            self._whole_at = now

    def _write_decisions(self, decided: Plan) -> None:
        for case in decided.cases:
            self.note("case", {"case": case_to_json(case)})
        for judgement in decided.judgements:
            self.note("judged", {**dataclasses.asdict(judgement), "cause": judgement.cause.value})
        self.held = (*decided.held, *self.heartbeats.said)
        # Reasons carry countdowns: a second less to wait is no news for the journal.
        shape = frozenset((item.subject, re.sub(r"[0-9.]+", "#", item.why)) for item in self.held)
        if shape != self._held_shape:
            self._held_shape = shape
            self.note("held", {"held": [dataclasses.asdict(item) for item in self.held]})

    def _carry_out(self, action: act.Action) -> None:
        self.note("intended", {"action": act.to_json(action)})
        word = act.word_of(action)
        # A controller that was stopped for a minute after its record was written must not go on to act.
        self._may_act()
        try:
            result = perform(action, self._slurm, self._ec2, self._store)
        except NodewatchError as error:
            _log.warning("%s failed: %s", act.describe(action), error)
            self._count(f"{word}_failed")
            code = error.code if isinstance(error, Ec2Error) else ""
            is_capacity = isinstance(error, CapacityError)
            self.note("failed", {"key": action.key, "error": str(error), "is_capacity": is_capacity, "code": code})
            return
        _log.info("%s", act.describe(action))
        self._count(word)
        self.note("done", {"key": action.key, "action": act.to_json(action), "result": result})
        if isinstance(action, (act.Launch, act.Terminate, act.Quarantine)):
            # Our own change makes the picture of EC2 old at once.
            self._ec2_read_at = float("-inf")

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def _replayed(past: list[Record]) -> Ledger:
    ledger = Ledger()
    for record in past:
        try:
            ledger = fold(ledger, (record,))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise JournalError(
                f"journal record {record.number} ({record.kind}) cannot be understood ({error!r}): "
                "move the journal away to start anew, or restore it"
            ) from error
    return ledger


def _agent_event(event: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    kind = str(event["kind"])
    data = {key: value for key, value in event.items() if key not in ("id", "kind", "v", "n", "node", "boot_id")}
    _check_time(data)
    if kind not in _AGENT_KINDS:
        # A newer agent's word is kept, but never under the name of a record of our own: `case` or `done` would be believed.
        return str(event["id"]), "reported", {**data, "what": kind}
    if kind == "verdict":
        Verdict.from_json(event["verdict"])
    if kind in ("validated", "gpu_reset", "stack_dump"):
        data["key"] = str(event["key"])
    if kind == "stack_dump":
        data["dumps"] = [dump.to_json() for dump in dumps_of(event)]
    return str(event["id"]), kind, data


def _validating(told: object) -> tuple[str, str]:
    """(key, progress) of the validation that an agent runs; both empty for none, and for what is of another shape."""
    if not isinstance(told, Mapping) or not isinstance(told.get("key"), str):
        return "", ""
    tool, done, of, seconds = (told.get(name) for name in ("tool", "done", "of", "seconds"))
    if not isinstance(tool, str) or not tool or not isinstance(done, int) or not isinstance(of, int):
        return told["key"][:300], "reading everything anew"
    since = f" for {seconds:.0f} s" if isinstance(seconds, int | float) else ""
    return told["key"][:300], f"{tool[:80]} runs{since} ({done + 1} of {of})"


def _check_time(data: Mapping[str, Any]) -> None:
    """Raises ValueError for an `at` that is no time: written down, it would make the journal unreadable."""
    at = data.get("at", 0.0)
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e12:
        raise ValueError(f"at is {at!r}: not a time in seconds since the epoch")
