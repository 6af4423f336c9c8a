"""Does a job make steps, and when not: since when, which ranks are behind, and what can be told of the reason.

Steps alone tell this much: ranks of synchronous training wait for each other in every step, so one that stands still stands
for all. Those at the lowest step are then the ones that the others wait for. When all stand at the same step, the one that
did not come to the collective cannot be told from those that wait in it; the stacks may tell (`odd_ones`).
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nodewatch.model.heartbeats import Dump, Hang, Phase
from nodewatch.model.ledger import Ledger, MarkedJob
from nodewatch.model.plan import Held

_CLOCKS_S = 5.0
"""Slurm's start of a run and an agent's clock may differ by so much: heartbeats older than the run are the last run's."""
_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HangRules:
    """`[hang]` of controller.toml: jobs that send heartbeats and make no step any more. Durations are seconds."""

    enabled: bool = True
    """Whether heartbeats are judged at all."""
    act: bool = True
    """Whether a marked job that hangs is ended and started again; false: it is said, and nothing more. In observe mode
    nothing is done either way."""
    factor: float = 10.0
    """No step for so many times the usual step is a standstill. Ours: evaluation and data loading make single steps several
    times as long as others; the longest one that the run has had counts as well, twice."""
    minimum_s: float = 300.0
    """But never sooner. NCCL's own watchdog in PyTorch ends a job after 600 s (pytorch PR 110947; ByteRobust waits the same
    10 min for RDMA traffic, field notes 4); half of that is before it, while there are still processes to look at."""
    least_steps: int = 5
    """A run that was seen to make fewer steps has twice the time."""
    dump_wait_s: float = 30.0
    """So long the agents have to say where the ranks are. Their own deadline is 20 s."""
    dump_nodes: int = 16
    """So many nodes are asked, those of the ranks that are behind first."""
    phase_words_s: float = 1800.0
    """A save or a start that takes so long is said; nothing is done, since how long it may take is not known."""
    gpus_idle_s: float = 1800.0
    """All GPUs of a job without heartbeats idle for so long are said. An interactive job idles as well: nothing is done."""
    slow_factor: float = 1.2
    """A node whose ranks need so many times as long for their own part of a step as the others is slow. Ours: above the
    differences between healthy GPUs of one kind, which are of some percent."""
    slow_jobs: int = 2
    """A node that was slow in so many jobs is named."""
    slow_window_s: float = 604800.0
    """Within so long."""

    def __post_init__(self) -> None:
        if self.factor < 2 or self.slow_factor <= 1:
            raise ValueError("factor must be at least 2 and slow_factor above 1")
        if not 5 <= self.minimum_s <= 86400:
            raise ValueError(f"minimum_s is {self.minimum_s!r}: use a number of seconds from 5 to 86400")
        for name in ("least_steps", "slow_jobs", "dump_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("dump_wait_s", "phase_words_s", "gpus_idle_s", "slow_window_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is a time in seconds and must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankView:
    """One rank as it is known now. Times are seconds; medians are over its last steps, None where there is none."""

    rank: int
    node: str
    step: int
    phase: Phase = Phase.STEP
    still_s: float = 0.0
    usual_s: float | None = None
    compute_s: float | None = None
    longest_s: float = 0.0
    """The longest step of this run so far."""
    steps_seen: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One run of a job as its heartbeats show it."""

    job_id: int
    restart_count: int
    nodes: tuple[str, ...]
    started_at: float
    ranks: tuple[RankView, ...]
    silent: frozenset[str] = frozenset()
    """Nodes whose agents are not heard, or tell nothing of heartbeats: of their ranks nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a job's heartbeats amount to. `words` are empty while nothing is to be said."""

    is_hung: bool = False
    words: str = ""
    still_s: float = 0.0
    """Since the last step of any rank."""
    step: int = 0
    """The lowest."""
    behind: tuple[RankView, ...] = ()
    """The ranks that the others wait for; empty where that cannot be told."""
    ranks: int = 0


def look(job: JobView, rules: HangRules, now: float) -> Standing:
    """Whether `job` hangs, and what else its user should know."""
    live = _live(job, now)
    if not live:
        return Standing()
    still = min(rank.still_s for rank in live)
    step = min(rank.step for rank in live)
    seen = Standing(still_s=still, step=step, ranks=len(live))
    busy = [rank for rank in live if rank.phase is not Phase.STEP]
    if busy:
        # However long: a save to a slow file system is no hang, and the others wait for it.
        if still < rules.phase_words_s:
            return seen
        words = f"{_ranks(busy)} {_are(busy)} {_phases(busy)} for {still:.0f} s, and no rank makes a step meanwhile"
        return _with(seen, words)
    usual = usual_s(live)
    if usual is None:
        words = f"no step for {still:.0f} s, and too few steps were seen to tell whether that is unusual"
        return _with(seen, words) if still >= rules.phase_words_s else seen
    # The first steps compile and fill caches, and a controller that was started anew has seen none of those before.
    patience = 1 if max(rank.steps_seen for rank in live) >= rules.least_steps else 2
    shortest = patience * max(rules.minimum_s, rules.factor * usual)
    limit = max(shortest, 2 * max(rank.longest_s for rank in live))
    if still < limit:
        late = [rank for rank in live if rank.still_s >= limit and rank.node not in job.silent]
        words = (
            f"{_ranks(late)} {'stands' if len(late) == 1 else 'stand'} still while the others make steps"
            if late
            else ""
        )
        return _with(seen, words)
    silent = sorted({rank.node for rank in live} & job.silent)
    if silent:
        who = f"the agent of {silent[0]} tells" if len(silent) == 1 else f"the agents of {_some(silent)} tell"
        words = f"no step is known for {still:.0f} s, but {who} nothing of it: whether it hangs is unknown"
        return _with(seen, words)
    behind = tuple(rank for rank in live if rank.step == step)
    # One rank ahead of many is no proof against the many.
    behind = behind if 2 * len(behind) <= len(live) else ()
    words = f"no rank has made a step for {still:.0f} s (usual are {_seconds(usual)}); {_where(live, behind, step)}"
    done = [rank for rank in job.ranks if rank.phase is Phase.DONE]
    if done:
        words += f"; {_ranks(done)} ended before the others"
    return Standing(is_hung=True, words=words, still_s=still, step=step, behind=behind, ranks=len(live))


def usual_s(ranks: Collection[RankView]) -> float | None:
    """The usual step of a job: the median of its ranks' medians, None while no rank has one."""
    known = [rank.usual_s for rank in ranks if rank.usual_s is not None]
    return statistics.median(known) if known else None


def asked_nodes(job: JobView, standing: Standing, rules: HangRules) -> tuple[str, ...]:
    """The nodes whose agents say where the ranks are: those that are waited for first, then others to compare with."""
    first = sorted({rank.node for rank in standing.behind})
    others = sorted({rank.node for rank in job.ranks} - set(first))
    return tuple([*first, *others][: rules.dump_nodes])


def judged(job: JobView, standing: Standing, dumps: Mapping[str, Sequence[Dump]], rules: HangRules, now: float) -> Hang:
    """The judgement on a job that hangs, with what the stacks of its ranks tell. `dumps` are by node, as far as answered."""
    words = [standing.words]
    nodes = {rank.node for rank in standing.behind}
    odd, told = odd_ones(dumps)
    if told:
        words.append(told)
    elif not any(dump.stacks for each in dumps.values() for dump in each):
        words.append(_no_stacks(dumps))
    uninterruptible = [
        (node, dump) for node, each in sorted(dumps.items()) for dump in each if dump.state == "D" and dump.waits_in
    ]
    if uninterruptible:
        node, dump = uninterruptible[0]
        more = f", as {len(uninterruptible) - 1} others" if len(uninterruptible) > 1 else ""
        words.append(f"rank {dump.rank} on {node} waits in the kernel for a device or a file ({dump.waits_in}){more}")
    nodes = nodes or odd
    return Hang(
        job_id=job.job_id,
        restart_count=job.restart_count,
        at=now,
        still_s=round(standing.still_s, 1),
        step=standing.step,
        text="; ".join(words)[:1500],
        node=next(iter(nodes)) if len(nodes) == 1 else "",
        is_acted_on=rules.act,
    )


def odd_ones(dumps: Mapping[str, Sequence[Dump]]) -> tuple[set[str], str]:
    """(their nodes, a sentence) of the ranks whose main thread is elsewhere than that of most; nothing where no two thirds
    are in the same place."""
    places: dict[tuple[str, ...], list[tuple[int, str, str]]] = {}
    for node, each in sorted(dumps.items()):
        for dump in each:
            frames = _frames(dump.stacks)
            if frames:
                key = tuple(re.sub(r":[0-9]+\)$", ")", frame) for frame in frames)
                places.setdefault(key, []).append((dump.rank, node, frames[0]))
    total = sum(len(found) for found in places.values())
    if total < 3:
        return set(), ""
    most = max(places, key=lambda key: (len(places[key]), key))
    common = places[most][0][2]
    odd = sorted(found for key, each in places.items() if key != most for found in each)
    if 3 * len(places[most]) < 2 * total:
        return set(), f"the stacks of its {total} ranks are in {len(places)} places, no one of them is the odd one"
    if not odd:
        return set(), f"the main threads of all {total} ranks are in {common}"
    rank, node, frame = odd[0]
    more = f", {len(odd) - 1} more are elsewhere as well" if len(odd) > 1 else ""
    return {
        node for _, node, _ in odd
    }, f"rank {rank} on {node} is in {frame}{more}, the other {len(places[most])} in {common}"


def hang_of(job: MarkedJob, ledger: Ledger) -> Hang | None:
    """The hang that stands of the present run of `job`; None while it makes steps, or nothing is known."""
    hang = ledger.hangs.get(job.job_id)
    if hang is None or hang.restart_count != job.restart_count or job.ended_at is not None:
        return None
    # A job id that is used again after Slurm's state was wiped is another job.
    return hang if hang.at >= job.started_at else None


def idle_words(job_id: int, nodes: Collection[str], idle_s: Mapping[str, float], rules: HangRules) -> Held | None:
    """The weaker signal, of a job without heartbeats: no GPU of any of its nodes has worked for long. A rank that waits in a
    collective keeps its GPU busy, so a hang in NCCL does not show here."""
    if not nodes or any(node not in idle_s for node in nodes):
        return None
    least = min(idle_s[node] for node in nodes)
    if least < rules.gpus_idle_s:
        return None
    count = f"its {len(nodes)} nodes" if len(nodes) > 1 else "its node"
    why = f"no GPU of {count} has worked for {least / 60:.0f} min: it may hang; nothing is done, as it sends no heartbeats"
    return Held(subject=f"job {job_id}", why=why)


def _live(job: JobView, now: float) -> list[RankView]:
    """The ranks of this run that are not through."""
    runs_for = now - job.started_at + _CLOCKS_S
    return [rank for rank in job.ranks if rank.phase is not Phase.DONE and rank.still_s <= runs_for]


def _with(standing: Standing, words: str) -> Standing:
    return Standing(words=words, still_s=standing.still_s, step=standing.step, ranks=standing.ranks)


def _where(live: Sequence[RankView], behind: Sequence[RankView], step: int) -> str:
    if behind:
        others = sorted({rank.step for rank in live if rank.step != step})
        at = f"step {others[0]}" if len(others) == 1 else f"steps {others[0]} to {others[-1]}"
        return f"{_ranks(behind)} {'stands' if len(behind) == 1 else 'stand'} at step {step}, the others at {at} wait for it"
    if len({rank.step for rank in live}) == 1:
        which = "" if len(live) == 1 else ": which of them the others wait for cannot be told from their steps"
        return f"{'its rank stands' if len(live) == 1 else f'all {len(live)} ranks stand'} at step {step}{which}"
    return f"most of its {len(live)} ranks stand at step {step} and few are ahead: which is waited for cannot be told"


def _ranks(ranks: Sequence[RankView]) -> str:
    nodes = sorted({rank.node for rank in ranks})
    numbers = sorted(rank.rank for rank in ranks)
    return f"{'rank' if len(numbers) == 1 else 'ranks'} {_some(numbers)} on {_some(nodes)}"


def _some(items: Sequence[object]) -> str:
    more = f" and {len(items) - _NAMES} more" if len(items) > _NAMES else ""
    return ", ".join(str(item) for item in items[:_NAMES]) + more


def _are(ranks: Sequence[RankView]) -> str:
    return "has been" if len(ranks) == 1 else "have been"


def _phases(ranks: Sequence[RankView]) -> str:
    return " or ".join(sorted({rank.phase.value for rank in ranks}))


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _frames(stacks: str) -> list[str]:
    """The main thread's functions in py-spy's text, innermost first, without their directories."""
    lines = stacks.splitlines()
    found: list[str] = []
    for line in lines[1:]:
        match = re.match(r"\s+(\S+) \((?:[^()]*/)?([^()/]+)\)\s*$", line)
        if match is None:
            break
        found.append(f"{match.group(1)} ({match.group(2)})")
    return found[:12]


def _no_stacks(dumps: Mapping[str, Sequence[Dump]]) -> str:
    whys = sorted({dump.said for each in dumps.values() for dump in each if dump.said})
    if whys:
        return f"its stacks could not be read: {whys[0]}"
    return "its agents gave no stacks"
