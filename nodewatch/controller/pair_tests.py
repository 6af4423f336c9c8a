"""Pair tests carried out: what policy/pairs.py wants is started in child processes, looked at each tick, and written down.

Nothing here waits. A run ends by itself, at its deadline, or because a job waits; what ended is a record, and a controller
that was killed goes on from the records: what ran is not run again, what was running is.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from nodewatch.clients import nccl_pair
from nodewatch.config.pairs import PairsConfig
from nodewatch.controller.engine import Engine
from nodewatch.controller.pair_results import PairEnded, outcome_of
from nodewatch.knowledge import efa, instance_types
from nodewatch.model.pairs import JOB_NAME, PairResult, PairRun, PairTest
from nodewatch.policy import pairs
from nodewatch.policy.rules import Group
from nodewatch.sensors.child import Child

_GRACE_S = 10.0
"""From SIGTERM to SIGKILL: salloc needs a moment to give its nodes back."""
_REST_S = 30.0
"""A pair that gave way is not tried again before, the next time twice that: it must not chase every gap between jobs."""
_MOST_REST_S = 600.0
_MAX_OUTPUT = 4 << 20
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "SLURM_CONF")
_UNKNOWN_SIZES = (8 << 20, 1 << 30)


class PairRunner(Protocol):
    """Who runs two nodes. No method waits."""

    def begin(self, nodes: tuple[str, str], group: Group) -> None:
        """Start a run of `nodes`."""

    def ended(self) -> list[PairEnded]:
        """The runs that have ended since it was asked last."""

    def cancel(self, nodes: tuple[str, str], why: str) -> None:
        """End the run of `nodes`; it is still told as ended."""

    def clear(self) -> None:
        """End what an earlier controller left."""


class PairTests:
    """The pair tests of one controller."""

    def __init__(self, engine: Engine, runner: PairRunner, config: PairsConfig, clock: Callable[[], float]) -> None:
        """Ends at once what an earlier controller left running: its answer would reach nobody."""
        self._engine = engine
        self._runner = runner
        self._config = config
        self._clock = clock
        self._running: dict[tuple[str, str], _Running] = {}
        self._resting: dict[str, tuple[float, float]] = {}
        if engine.ledger.pair_tests:
            runner.clear()

    def look(self) -> None:
        """Once a tick, after the engine's. Raises JournalError when nothing can be written down."""
        for ended in self._runner.ended():
            self._take(ended)
        snapshot = self._engine.snapshot
        if snapshot.slurm_error is not None:
            return
        self._yield()
        for test in sorted(self._engine.ledger.pair_tests.values(), key=lambda test: (test.at, test.key)):
            if test.is_open:
                self._go_on(test)
        self._sweep()

    def close(self) -> None:
        """The controller stops: its runs end with it."""
        for nodes in list(self._running):
            self._runner.cancel(nodes, "the controller stopped")

    def _take(self, ended: PairEnded) -> None:
        running = self._running.pop(ended.nodes)
        outcome = outcome_of(
            ended,
            instance_type=running.group.instance_type,
            gpus=gpus_of(running.group, self._config),
            floor_gbps=self._config.floor_gbps,
        )
        run = PairRun(
            nodes=ended.nodes,
            result=outcome.result,
            at=self._clock(),
            round=running.round,
            why=outcome.why,
            size=outcome.size,
            busbw_gbps=outcome.busbw_gbps,
            floor_gbps=outcome.floor_gbps,
            floor_source=outcome.floor_source,
            machines=running.machines,
        )
        for node in ended.nodes:
            if outcome.result is PairResult.GAVE_WAY:
                rest_s = min(_MOST_REST_S, 2 * self._resting[node][1] if node in self._resting else _REST_S)
                self._resting[node] = (self._clock() + rest_s, rest_s)
            else:
                self._resting.pop(node, None)
        self._engine.note("pair_ran", {"key": running.key, **run.to_json()})

    def _yield(self) -> None:
        for nodes, running in list(self._running.items()):
            test = self._engine.ledger.pair_tests.get(running.key)
            why = pairs.must_yield(nodes, self._engine.snapshot, self._engine.ledger)
            if test is None or not test.is_open:
                why = "the test was withdrawn"
            if why is not None:
                self._runner.cancel(nodes, why)

    def _go_on(self, test: PairTest) -> None:
        now, snapshot, ledger = self._clock(), self._engine.snapshot, self._engine.ledger
        groups = self._groups(test.nodes)
        kinds = {node: group.name for node, group in groups.items()}
        machines = pairs.machines_of(snapshot)
        busy = {node for nodes in self._running for node in nodes}
        if not any(running.key == test.key for running in self._running.values()):
            judgement = pairs.judge(
                test, kinds=kinds, machines=machines, is_last=now - test.at >= self._config.expires_s
            )
            if judgement is not None:
                culprits = [
                    {"node": node, "machine": machines.get(node, ""), "finding": finding.to_json()}
                    for node, finding in sorted(judgement.culprits.items())
                ]
                self._engine.note(
                    "pairs_judged",
                    {
                        "key": test.key,
                        "nodes": list(test.nodes),
                        "culprits": culprits,
                        "good": list(judgement.good),
                        "untold": list(judgement.untold),
                        "why": judgement.why,
                    },
                )
                return
        free = [
            node
            for node, why in pairs.free_nodes(test.nodes, snapshot, ledger).items()
            if why is None and node not in busy and self._resting.get(node, (0.0, 0.0))[0] <= now
        ]
        room = self._config.at_once - len(self._running)
        for pair in pairs.wanted(test, kinds=kinds, machines=machines, free=free)[: max(0, room)]:
            self._runner.begin(pair.nodes, groups[pair.nodes[0]])
            self._running[pair.nodes] = _Running(
                key=test.key,
                round=pair.round,
                group=groups[pair.nodes[0]],
                machines={node: machines.get(node, "") for node in pair.nodes},
            )

    def _sweep(self) -> None:
        every_s, ledger, now = self._config.sweep_every_s, self._engine.ledger, self._clock()
        if every_s <= 0 or self._engine.rules.mode != "act":
            return
        tests = ledger.pair_tests.values()
        if any(test.is_open or (test.by == "sweep" and now - test.at < every_s) for test in tests):
            return
        grouped = self._groups(self._engine.snapshot.nodes)
        free = [node for node, why in pairs.free_nodes(grouped, self._engine.snapshot, ledger).items() if why is None]
        names = [grouped[node].name for node in free]
        if any(names.count(name) >= 2 for name in set(names)):
            self._engine.note("pairs_asked", {"nodes": free, "by": "sweep"})

    def _groups(self, nodes: Iterable[str]) -> dict[str, Group]:
        found = {node: self._engine.rules.group_of(node) for node in nodes}
        return {node: group for node, group in found.items() if group is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    key: str
    round: int
    group: Group
    machines: Mapping[str, str]


def gpus_of(group: Group, config: PairsConfig) -> int | None:
    """GPUs of one node of `group`, None when nobody told."""
    return config.gpus_per_node or instance_types.expected_gpus(group.instance_type) or None


class SlurmPairs:
    """Runs as jobs of Slurm, each under the command line of the configuration."""

    def __init__(self, config: PairsConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._children: dict[tuple[str, str], _Started] = {}
        self._failed: list[PairEnded] = []
        self._chores: list[Child] = []

    def begin(self, nodes: tuple[str, str], group: Group) -> None:
        """See PairRunner."""
        words = nccl_pair.argv(self._config.command, self._values(nodes, group), self._config.extra)
        try:
            child = Child(words, now=self._clock(), env=self._environment(), at_most=_MAX_OUTPUT)
        except OSError as error:
            self._failed.append(PairEnded(nodes=nodes, text=f"{words[0]}: {error.strerror}", returncode=127))
            return
        self._children[nodes] = _Started(child)

    def ended(self) -> list[PairEnded]:
        """See PairRunner."""
        told, self._failed = self._failed, []
        now = self._clock()
        self._chores = [child for child in self._chores if not _is_over(child, now)]
        for nodes, started in list(self._children.items()):
            result = started.child.poll()
            if result is None and not self._is_given_up(nodes, started, now):
                continue
            if result is None:
                started.child.kill()
            del self._children[nodes]
            if started.ending_at is not None:
                # salloc may have died before slurmctld heard that the nodes are free.
                self._scancel(nodes)
            told.append(
                PairEnded(
                    nodes=nodes,
                    text="" if result is None else f"{result.stderr}\n{result.stdout}",
                    returncode=-signal.SIGKILL if result is None else result.returncode,
                    is_late=started.is_late,
                    cancelled=started.cancelled,
                )
            )
        return told

    def cancel(self, nodes: tuple[str, str], why: str) -> None:
        """See PairRunner."""
        started = self._children.get(nodes)
        if started is not None and not started.cancelled and not started.is_late:
            started.cancelled = why
            self._end(started, self._clock())

    def clear(self) -> None:
        """See PairRunner."""
        self._scancel(())

    def _is_given_up(self, nodes: tuple[str, str], started: _Started, now: float) -> bool:
        """Move the end of a late or cancelled child on; whether it is not waited for any longer."""
        if started.ending_at is None:
            if now - started.child.started_at >= self._config.deadline_s:
                started.is_late = True
                self._end(started, now)
            return False
        if now - started.ending_at >= _GRACE_S and not started.is_killed:
            started.is_killed = True
            started.child.signal(signal.SIGKILL)
            self._scancel(nodes)
        return now - started.ending_at >= 2 * _GRACE_S

    @staticmethod
    def _end(started: _Started, now: float) -> None:
        started.ending_at = now
        started.child.signal(signal.SIGTERM)

    def _scancel(self, nodes: tuple[str, ...]) -> None:
        try:
            self._chores.append(Child(nccl_pair.cancel_argv(nodes), now=self._clock()))
        except OSError:
            # No scancel on this machine: Slurm ends the job at its time limit.
            return

    def _environment(self) -> dict[str, str]:
        # srun hands its environment to the ranks: the controller's may hold keys of the cloud account, and NOTIFY_SOCKET.
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {**passed, **self._config.environment}

    def _values(self, nodes: tuple[str, str], group: Group) -> dict[str, str]:
        config, gpus = self._config, gpus_of(group, self._config)
        row = efa.TABLE.across.get(group.instance_type)
        sizes = [size for size, _ in row.floor] if row is not None else list(_UNKNOWN_SIZES)
        return {
            "nodes": ",".join(nodes),
            "name": JOB_NAME,
            "tasks": str(gpus or 1),
            "gpus": str(gpus or ""),
            "immediate": str(config.immediate_s),
            "minutes": str(math.ceil(config.deadline_s / 60) + 1),
            "partition": config.partition or group.partition,
            "mpi": config.mpi,
            "program": config.program,
            "begin": str(config.begin_bytes or min(sizes)),
            "end": str(config.end_bytes or max(max(sizes), config.begin_bytes)),
            "stuck": str(config.stuck_after_s),
        }


@dataclass(slots=True)
class _Started:
    child: Child
    ending_at: float | None = None
    cancelled: str = ""
    is_late: bool = False
    is_killed: bool = False


def _is_over(chore: Child, now: float) -> bool:
    if chore.poll() is not None:
        return True
    if now - chore.started_at >= _GRACE_S:
        chore.kill()
        return True
    return False
