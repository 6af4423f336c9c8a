"""What the controller knows of jobs' progress: the last heartbeats and what they come to, in memory.

Heartbeats are no records of the journal: at a rank's step a second each they would be all of it. What is judged from them is:
`hang_suspected`, the agents' `stack_dump`s, `hang_judged`, `hang_over` and `slow_node`. A controller that starts anew hears
every job's heartbeats again within half a minute, with how long each has stood still; the speeds of earlier runs, which
name slow nodes, it has lost.
"""

from __future__ import annotations

import logging
import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodewatch.model.cluster import SlurmJob, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.heartbeats import Beat, Dump, JobBeats, Phase, dumps_of, from_message
from nodewatch.model.ledger import Ledger
from nodewatch.model.plain import to_plain
from nodewatch.model.plan import Held
from nodewatch.policy import inside, slow_nodes
from nodewatch.policy.inside import Told
from nodewatch.policy.lost import is_silent
from nodewatch.policy.progress import (
    HangRules,
    JobView,
    RankView,
    Standing,
    asked_nodes,
    hang_of,
    idle_words,
    judged,
    look,
)
from nodewatch.policy.rules import Rules

_log = logging.getLogger(__name__)
_STEPS_KEPT = 16
"""Of each rank; their median is its usual step."""
_LOOK_S = 2.0
_SLOW_LOOK_S = 60.0
_RUNS_KEPT = 500
_WITNESSES_KEPT = 2000
_FORGET_S = 120.0
"""A job that Slurm does not list as running is remembered for so long: agents may be faster than Slurm."""
_IDLE_TOLD_S = 60.0
"""Older word of idle GPUs does not count: agents repeat it every other second."""
_TOLD_S = 100.0
"""Agents repeat what stands still every 30 s: three of these may be lost."""

Note = Callable[[str, Mapping[str, Any]], object]


@dataclass(slots=True)
class _Rank:
    node: str
    beat: Beat
    still_since: float
    """When its step or phase changed last, by our clock."""
    steps: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS_KEPT))
    computes: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS_KEPT))
    longest_s: float = 0.0
    seen: int = 0
    stepped_at: float | None = None
    """When its step changed last with nothing but steps since, by our clock."""

    def take(self, node: str, beat: Beat, now: float) -> None:
        """The rank's next word."""
        changed = now - beat.still_s
        before, self.beat, self.node = self.beat, beat, node
        if (beat.step, beat.phase) == (before.step, before.phase):
            return
        self.still_since = changed
        if beat.step <= before.step:
            # Another phase, or a program that was started again.
            self.stepped_at = changed if beat.phase is before.phase is Phase.STEP else None
            return
        count = beat.step - before.step
        self.seen += count
        if self.stepped_at is not None:
            each = (changed - self.stepped_at) / count
            usual = beat.step_s if beat.step_s is not None else each
            # Of several steps between two words one may have been the long one.
            self.longest_s = max(self.longest_s, changed - self.stepped_at - (count - 1) * usual)
            self.steps.append(usual)
        elif beat.step_s is not None:
            self.steps.append(beat.step_s)
        if beat.compute_s is not None:
            self.computes.append(beat.compute_s)
        self.stepped_at = changed if beat.phase is Phase.STEP else None

    def view(self, now: float) -> RankView:
        """The rank as the policy judges it."""
        return RankView(
            rank=self.beat.rank,
            node=self.node,
            step=self.beat.step,
            phase=self.beat.phase,
            still_s=max(0.0, now - self.still_since),
            usual_s=statistics.median(self.steps) if self.steps else self.beat.step_s,
            compute_s=statistics.median(self.computes) if self.computes else None,
            longest_s=self.longest_s,
            steps_seen=self.seen,
        )


@dataclass(slots=True)
class _Run:
    restart_count: int | None = None
    """None until Slurm has named it."""
    ranks: dict[int, _Rank] = field(default_factory=dict)
    seen_at: float = 0.0
    garbled: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Suspicion:
    key: str
    job_id: int
    restart_count: int
    since: float
    asked: tuple[str, ...]
    dumps: dict[str, tuple[Dump, ...]] = field(default_factory=dict)


class Heartbeats:
    """See the module. Agents' words arrive on threads of their own; `look` is called from the tick."""

    def __init__(self, rules: HangRules) -> None:
        self.rules = rules
        self.said: tuple[Held, ...] = ()
        """What is to be said of jobs and nodes now."""
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}
        self._idle: dict[str, tuple[float, float]] = {}
        """By node: since when no GPU has worked, and when that was said."""
        self._unclear: set[str] = set()
        """Nodes whose last heartbeats were none."""
        self._of_node: dict[str, set[tuple[int, int]]] = {}
        """By node, the jobs and ranks of its last words."""
        self._told_at: dict[str, float] = {}
        """By node: when its agent told of heartbeats last."""
        self._suspicions: dict[int, _Suspicion] = {}
        self._speeds: dict[tuple[int, int], slow_nodes.Run] = {}
        self._witnesses: dict[tuple[str, int], slow_nodes.Witness] = {}
        self._slow: dict[str, str] = {}
        """Words about the nodes that are named."""
        self._looked_at = self._slow_at = float("-inf")

    # -- what comes in ------------------------------------------------------------------------------------------------

    def take(self, node: str, message: Mapping[str, Any], now: float) -> None:
        """What an agent's message says of progress; a part that is of another shape is unknown, and said in the log."""
        idle = message.get("gpus_idle_s")
        told: dict[int, JobBeats] | None = None
        if "jobs" in message:
            try:
                told = from_message(message["jobs"])
                self._unclear.discard(node)
            except ValueError as error:
                # Once, and not every other second from each of a thousand agents of another release.
                if node not in self._unclear:
                    _log.warning("the heartbeats from %s were not understood: %s", node, error)
                self._unclear.add(node)
        with self._lock:
            if isinstance(idle, int | float) and not isinstance(idle, bool) and 0 <= idle < 1e9:
                self._idle[node] = (now - idle, now)
            else:
                self._idle.pop(node, None)
            if told is not None:
                self._told_at[node] = now
                self._take(node, told, now)

    def dumped(self, node: str, data: Mapping[str, Any]) -> None:
        """An agent's `stack_dump`. Raises KeyError or ValueError for one of another shape."""
        dumps = dumps_of(data)
        with self._lock:
            for suspicion in self._suspicions.values():
                if suspicion.key == data["key"] and node in suspicion.asked:
                    suspicion.dumps[node] = dumps

    def requests(self, node: str) -> list[dict[str, Any]]:
        """What the agent of `node` is asked for."""
        if not self._suspicions:
            return []
        with self._lock:
            return [
                {"kind": "stack_dump", "key": each.key, "job": each.job_id}
                for each in self._suspicions.values()
                if node in each.asked and node not in each.dumps
            ]

    def steps(self, now: float) -> dict[int, tuple[int, float]]:
        """By job: its lowest step, and the seconds since any of its ranks made one."""
        with self._lock:
            live = {job_id: list(run.ranks.values()) for job_id, run in self._runs.items() if run.ranks}
            return {
                job_id: (
                    min(rank.beat.step for rank in ranks),
                    max(0.0, now - max(rank.still_since for rank in ranks)),
                )
                for job_id, ranks in live.items()
            }

    def went_on(self, told: Told) -> dict[str, Any] | None:
        """The record `went_on` for a job that is seen to start, or to make steps, without its bad nodes; None while there is
        nothing new to say."""
        with self._lock:
            run = self._runs.get(told.job.job_id)
            if run is None or run.restart_count != told.job.restart_count or told.goes_on:
                return None
            ranks = [
                inside.Seen(
                    node=r.node,
                    still_since=r.still_since,
                    stepped_at=r.stepped_at,
                    step=r.beat.step,
                    phase=r.beat.phase,
                )
                for r in run.ranks.values()
            ]
        sign = inside.sign(told, ranks)
        if sign is None or (sign.step is None and told.starts):
            return None
        return {
            "job_id": told.job.job_id,
            "restart_count": told.job.restart_count,
            "nodes": list(told.nodes),
            "step": sign.step,
        }

    # -- the look -----------------------------------------------------------------------------------------------------

    def look(self, snapshot: Snapshot, ledger: Ledger, rules: Rules, note: Note, now: float) -> None:
        """Judge every job; what is found is written down by `note`. Nothing without a picture of Slurm."""
        if snapshot.slurm_error is not None or now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        records: list[tuple[str, dict[str, Any]]] = []
        with self._lock:
            self._forget(snapshot, ledger, now)
            said = self._judge(snapshot, ledger, rules, records, now) if self.rules.enabled else []
            if self.rules.enabled and now - self._slow_at >= _SLOW_LOOK_S:
                self._slow_at = now
                self._look_for_slow(snapshot, records, now)
            said += [Held(subject=node, why=why) for node, why in sorted(self._slow.items()) if node in snapshot.nodes]
            self.said = tuple(said)
        # Not under the lock: the journal has one of its own, and agents' words wait for ours while they hold that.
        for kind, data in records:
            note(kind, data)

    # -- below --------------------------------------------------------------------------------------------------------

    def _take(self, node: str, told: Mapping[int, JobBeats], now: float) -> None:
        for job_id, beats in told.items():
            run = self._runs.setdefault(job_id, _Run(seen_at=now))
            run.garbled[node] = beats.garbled
            for number, beat in beats.ranks.items():
                known = run.ranks.get(number)
                if known is None:
                    run.ranks[number] = _Rank(node=node, beat=beat, still_since=now - beat.still_s)
                elif known.node == node or now - beat.still_s >= known.still_since:
                    # Otherwise an older word: the file that a rank left on a node which its job goes on without.
                    known.take(node, beat, now)
        named = {(job_id, number) for job_id, beats in told.items() for number in beats.ranks}
        # By node, not by all ranks of all jobs: at 2,000 nodes that would take longer than until their next words.
        for job_id, number in self._of_node.get(node, set()) - named:
            known = self._runs[job_id].ranks.get(number) if job_id in self._runs else None
            if known is not None and known.node == node:
                del self._runs[job_id].ranks[number]
        self._of_node[node] = named

    def _forget(self, snapshot: Snapshot, ledger: Ledger, now: float) -> None:
        for job_id, run in list(self._runs.items()):
            job = snapshot.jobs.get(job_id)
            if job is not None and job.is_running:
                if run.restart_count not in (None, job.restart_count):
                    # Another run of it: nothing of the last one counts.
                    self._runs[job_id] = run = _Run()
                run.restart_count, run.seen_at = job.restart_count, now
                marked = ledger.jobs.get(job_id)
                # Files of ranks on nodes that the run goes on without are left there until it ends.
                its_own = set(job.nodes).difference(marked.inside if marked is not None else ())
                for number in [n for n, rank in run.ranks.items() if rank.node not in its_own]:
                    del run.ranks[number]
            elif now - run.seen_at > _FORGET_S:
                del self._runs[job_id]
        for job_id in [j for j in self._suspicions if j not in self._runs]:
            del self._suspicions[job_id]

    def _judge(
        self, snapshot: Snapshot, ledger: Ledger, rules: Rules, records: list[tuple[str, dict[str, Any]]], now: float
    ) -> list[Held]:
        # An agent that cannot read its heartbeats says nothing of them: for its ranks that is no standstill.
        silent = {node for node, told_at in self._told_at.items() if now - told_at >= _TOLD_S}
        if self._runs:
            silent |= {name for name, view in snapshot.agents.items() if is_silent(view, rules, now)}
        idle = {node: now - since for node, (since, told_at) in self._idle.items() if now - told_at < _IDLE_TOLD_S}
        said: list[Held] = []
        for job_id, job in sorted(snapshot.jobs.items()):
            if not job.is_running:
                continue
            run = self._runs.get(job_id)
            if run is None or not run.ranks:
                words = idle_words(job_id, job.nodes, idle, self.rules) if idle else None
                said += [words] if words is not None else []
                continue
            view = _view(job, run, silent, now) if _is_worth_a_look(run, self.rules, now) else None
            standing = Standing(ranks=len(run.ranks)) if view is None else look(view, self.rules, now)
            marked = ledger.jobs.get(job_id)
            hang = hang_of(marked, ledger) if marked is not None else None
            if view is None or not standing.is_hung:
                # Not when nothing is known of the steps just now: an agent that is silent for a moment proves no step.
                if (hang is not None or job_id in self._suspicions) and _moves(standing, self.rules):
                    self._suspicions.pop(job_id, None)
                    records.append(("hang_over", {"job_id": job_id, "step": standing.step}))
                if standing.words:
                    said.append(Held(subject=f"job {job_id}", why=standing.words))
            elif marked is None:
                why = f"{standing.words}; it was not submitted with --auto-resume: nothing is done"
                said.append(Held(subject=f"job {job_id}", why=why))
            elif hang is None:
                said.append(Held(subject=f"job {job_id}", why=f"{standing.words}; its nodes are asked where it hangs"))
                self._suspect(view, standing, records, now)
            elif not hang.is_acted_on:
                said.append(Held(subject=f"job {job_id}", why=f"{hang.text}; [hang] act is false: nothing is done"))
        return said

    def _suspect(
        self, view: JobView, standing: Standing, records: list[tuple[str, dict[str, Any]]], now: float
    ) -> None:
        suspicion = self._suspicions.get(view.job_id)
        if suspicion is None or suspicion.restart_count != view.restart_count:
            suspicion = _Suspicion(
                key=f"job:{view.job_id}:{int(view.started_at)}:{view.restart_count}:hang:{int(now)}",
                job_id=view.job_id,
                restart_count=view.restart_count,
                since=now,
                asked=asked_nodes(view, standing, self.rules),
            )
            self._suspicions[view.job_id] = suspicion
            data = {
                "job_id": view.job_id,
                "restart_count": view.restart_count,
                "key": suspicion.key,
                "text": standing.words,
                "asked": list(suspicion.asked),
                "ranks": {str(rank.rank): [rank.node, rank.step, round(rank.still_s, 1)] for rank in view.ranks[:256]},
            }
            records.append(("hang_suspected", data))
        answered = all(node in suspicion.dumps or node in view.silent for node in suspicion.asked)
        if answered or now - suspicion.since >= self.rules.dump_wait_s:
            hang = judged(view, standing, suspicion.dumps, self.rules, now)
            del self._suspicions[view.job_id]
            records.append(("hang_judged", {"key": suspicion.key, "job_id": view.job_id, "hang": to_plain(hang)}))

    def _look_for_slow(self, snapshot: Snapshot, records: list[tuple[str, dict[str, Any]]], now: float) -> None:
        for job_id, run in sorted(self._runs.items()):
            job = snapshot.jobs.get(job_id)
            if job is None or not job.is_running or not run.ranks:
                continue
            view = _view(job, run, frozenset(), now)
            found, cleared = slow_nodes.by_compute(view, self.rules, now)
            if not found and not cleared:
                speed = slow_nodes.run_of(view, self.rules)
                if speed is not None:
                    found, cleared = slow_nodes.by_runs(speed, self._speeds.values(), self.rules, now)
                    self._speeds.pop((job_id, speed.restart_count), None)
                    self._speeds[job_id, speed.restart_count] = speed
            self._witnesses = {key: each for key, each in self._witnesses.items() if key[0] not in cleared}
            self._witnesses.update({(each.node, each.job_id): each for each in found})
        _trim(self._speeds, _RUNS_KEPT)
        _trim(self._witnesses, _WITNESSES_KEPT)
        named = slow_nodes.named(self._witnesses.values(), self.rules, now)
        for node in named.keys() - self._slow.keys():
            finding = slow_nodes.finding(node, named[node])
            assert finding.severity < Severity.DEGRADED
            agent = snapshot.agents.get(node)
            machine = {"instance_id": agent.instance_id, "boot_id": agent.boot_id} if agent is not None else {}
            text = slow_nodes.words(node, named[node])
            records.append(("slow_node", {"node": node, **machine, "finding": finding.to_json(), "text": text}))
        self._slow = {node: slow_nodes.words(node, each) for node, each in named.items()}


def _view(job: SlurmJob, run: _Run, silent: Iterable[str], now: float) -> JobView:
    return JobView(
        job_id=job.job_id,
        restart_count=job.restart_count,
        nodes=job.nodes,
        started_at=job.started_at or 0.0,
        ranks=tuple(rank.view(now) for _, rank in sorted(run.ranks.items())),
        silent=frozenset(silent).intersection(job.nodes),
    )


def _is_worth_a_look(run: _Run, rules: HangRules, now: float) -> bool:
    """Whether any rank has stood still for so long that something could be said: at 16,000 ranks medians cost time."""
    return now - min(rank.still_since for rank in run.ranks.values()) >= min(rules.minimum_s, rules.phase_words_s)


def _moves(standing: Standing, rules: HangRules) -> bool:
    """Whether steps are made again, as opposed to nothing being known of them."""
    return standing.ranks > 0 and standing.still_s < rules.minimum_s


def _trim(table: dict[Any, Any], most: int) -> None:
    while len(table) > most:
        del table[next(iter(table))]
