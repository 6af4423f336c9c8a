"""Which pairs to run next, and whom the runs name.

A slow pair says that one of the two is slow, or the way between them, and not which. So a node of a bad pair is run again
with nodes that are known to be good, and it is named only when it was bad with two different ones of them and never good
with anybody. One unreliable way between two nodes therefore names nobody, and neither does a partner that only seemed good.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from nodewatch.model.cluster import Snapshot
from nodewatch.model.health import Finding, Remedy, Severity, StandingFinding
from nodewatch.model.ledger import Ledger
from nodewatch.model.pairs import JOB_NAME, PairJudgement, PairResult, PairRun, PairTest, machine_id

TRIES = 2
"""A pair whose run proved nothing is run once more; twice unknown is told so."""
_PROBES = 4
"""So often the odd one out is tried with one of a bad pair while no node is known to be good."""
FABRIC_SHARE = 0.5
"""When so large a share of the nodes would be named, it is the fabric, the test or the floor: nobody is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPair:
    """A pair to run now. `round` as in PairRun."""

    nodes: tuple[str, str]
    round: int


class _Picture:
    """What the runs so far say of each node of one kind."""

    def __init__(self, nodes: Collection[str], runs: Collection[PairRun]) -> None:
        self.nodes = sorted(nodes)
        counted = [run for run in runs if run.result is not PairResult.GAVE_WAY and set(run.nodes) <= set(nodes)]
        self.good = {node for run in counted if run.result is PairResult.GOOD for node in run.nodes}
        self.bad: dict[str, list[PairRun]] = {node: [] for node in self.nodes}
        self._unknown: dict[frozenset[str], int] = {}
        self._probes = [run for run in counted if run.result.is_bad and run.round == 2]
        for run in counted:
            if run.result.is_bad:
                for node in run.nodes:
                    self.bad[node].append(run)
            elif run.result is PairResult.UNKNOWN:
                pair = frozenset(run.nodes)
                self._unknown[pair] = self._unknown.get(pair, 0) + 1

    @property
    def probes(self) -> list[PairRun]:
        """Bad runs of a second round: while no node is good, those of the odd one out, which stands first in each."""
        return self._probes

    @property
    def suspects(self) -> list[str]:
        """Nodes that were bad with somebody and good with nobody."""
        return [node for node in self.nodes if self.bad[node] and node not in self.good]

    @property
    def untried(self) -> list[str]:
        return [node for node in self.nodes if not self.bad[node] and node not in self.good]

    def against(self, node: str) -> list[PairRun]:
        """The bad runs of `node` with partners that were good with somebody else, one for each partner."""
        told = {run.other(node): run for run in self.bad[node] if run.other(node) in self.good}
        return [told[partner] for partner in sorted(told)]

    def is_named(self, node: str) -> bool:
        return node not in self.good and len(self.against(node)) >= 2

    def may_run(self, first: str, second: str) -> bool:
        """Whether a run of these two could tell something new."""
        if any(run.other(first) == second for run in self.bad[first]):
            return False
        return self._unknown.get(frozenset((first, second)), 0) < TRIES

    def partners(self, node: str) -> list[str]:
        """Known-good nodes with which a run of `node` would tell something new."""
        return [other for other in self.nodes if other in self.good and other != node and self.may_run(node, other)]

    def waits_for_its_partner(self, node: str) -> bool:
        """Whether the node that it was bad with first may yet turn out to be good, which names this one without a further
        run. Not once that one was bad with a good node itself: then each would wait for the other."""
        if not self.against(node):
            return False
        partners = {run.other(node) for run in self.bad[node]} - self.good
        return any(not self.against(other) and self.partners(other) for other in partners)


def wanted(
    test: PairTest, *, kinds: Mapping[str, str], machines: Mapping[str, str], free: Collection[str]
) -> list[WantedPair]:
    """The pairs to run now, none with a node that is not in `free`; no node twice.

    `kinds` tells by node what stands for its instance type: only nodes of one kind are compared. Runs of a machine or boot
    other than the one in `machines` do not count: it is another one now.
    """
    pairs: list[WantedPair] = []
    for picture in _pictures(test, kinds, machines):
        pairs += _wanted(picture, set(free))
    return pairs


def judge(
    test: PairTest, *, kinds: Mapping[str, str], machines: Mapping[str, str], is_last: bool
) -> PairJudgement | None:
    """What the test comes to, None while there is a pair left to run. `is_last`: judge by what there is."""
    if not is_last and wanted(test, kinds=kinds, machines=machines, free=test.nodes):
        return None
    culprits: dict[str, Finding] = {}
    good: list[str] = []
    untold: list[str] = [node for node in test.nodes if node not in kinds]
    reasons: list[str] = []
    for picture in _pictures(test, kinds, machines):
        named = [node for node in picture.nodes if picture.is_named(node)]
        why = _nobody(picture, named)
        if why is None:
            culprits |= {node: _finding(node, picture) for node in named}
            reasons += [_sentence(node, picture) for node in named]
        else:
            named = []
            reasons.append(why)
        good += sorted(picture.good)
        untold += [node for node in picture.nodes if node not in picture.good and node not in named]
        reasons += _ways(picture, named)
    if is_last and untold:
        reasons.append(f"time ran out before all pairs were run: {_names(untold)} could not be told")
    if not reasons:
        reasons.append(
            f"all {len(good)} nodes are good" if not untold else f"nothing was proved of {_names(untold)}{_doubt(test)}"
        )
    return PairJudgement(
        culprits=culprits, good=tuple(sorted(good)), untold=tuple(sorted(untold)), why="; ".join(reasons)
    )


def standing(snapshot: Snapshot, ledger: Ledger) -> Iterator[tuple[str, StandingFinding]]:
    """(node, finding) for each culprit that is still the machine, in the boot, that was named."""
    machines = machines_of(snapshot)
    for node, culprit in sorted(ledger.pair_culprits.items()):
        if machines.get(node) == culprit.machine:
            yield node, StandingFinding(finding=culprit.finding, first_at=culprit.at, last_at=culprit.at)


def machines_of(snapshot: Snapshot) -> dict[str, str]:
    """By node, the machine and boot that its agent announced last."""
    return {name: machine_id(view.instance_id, view.boot_id) for name, view in snapshot.agents.items()}


def must_yield(nodes: Collection[str], snapshot: Snapshot, ledger: Ledger) -> str | None:
    """Why a running pair test of `nodes` ends now; None while it may go on."""
    waiting = snapshot.partitions_waited_for(but=JOB_NAME)
    repaired = {case.node for case in ledger.open_cases if case.is_out}
    for name in sorted(nodes):
        node = snapshot.nodes.get(name)
        if node is not None and waiting.intersection(node.partitions):
            return f"a job waits in a partition of {name}"
        if name in repaired:
            return f"{name} is under repair"
    return None


def free_nodes(nodes: Collection[str], snapshot: Snapshot, ledger: Ledger) -> dict[str, str | None]:
    """By node of `nodes`: None where a pair test may use it now, else why not."""
    waiting = snapshot.partitions_waited_for(but=JOB_NAME)
    cases = {case.node: case.case_id for case in ledger.open_cases}
    return {name: _not_free(name, snapshot, cases, waiting) for name in sorted(nodes)}


def _not_free(name: str, snapshot: Snapshot, cases: Mapping[str, str], waiting: frozenset[str]) -> str | None:
    node, view = snapshot.nodes.get(name), snapshot.agents.get(name)
    if node is None:
        return f"Slurm does not know {name}"
    if name in cases:
        return f"{name} has an open case ({cases[name]})"
    if snapshot.jobs_on(name) or node.is_busy:
        jobs = ",".join(str(job.job_id) for job in snapshot.jobs_on(name)) or "a clean-up"
        return f"{name} is busy with {jobs}"
    if not node.is_idle:
        return f"{name} is not idle ({'+'.join(sorted(node.states))})"
    if waiting.intersection(node.partitions):
        return f"a job waits in a partition of {name}"
    if view is not None and view.validating:
        return f"{name} is validating itself"
    return None


def _pictures(test: PairTest, kinds: Mapping[str, str], machines: Mapping[str, str]) -> list[_Picture]:
    runs = [run for run in test.runs if all(machines.get(node, "") == run.machines.get(node, "") for node in run.nodes)]
    known = sorted({kinds[node] for node in test.nodes if node in kinds})
    return [_Picture([node for node in test.nodes if kinds.get(node) == kind], runs) for kind in known]


def _wanted(picture: _Picture, free: set[str]) -> list[WantedPair]:
    pairs: list[WantedPair] = []

    def take(first: str, second: str, round_: int) -> None:
        pairs.append(WantedPair(nodes=(first, second), round=round_))
        free.difference_update((first, second))

    # Suspects first: the node that nobody knows anything of can wait, one that may be broken should be out.
    for node in picture.suspects:
        if node in free and not picture.is_named(node) and not picture.waits_for_its_partner(node):
            partner = next((other for other in picture.partners(node) if other in free), None)
            if partner is not None:
                take(node, partner, 2)
    for node in picture.untried:
        if node not in free:
            continue
        mate = next(
            (other for other in picture.untried if other in free and other != node and picture.may_run(node, other)),
            None,
        )
        if mate is not None:
            take(node, mate, 1)
            continue
        if any(other != node and picture.may_run(node, other) for other in picture.untried):
            # Another untried node is busy now: the two are a pair of the first round later.
            continue
        partner = next((other for other in picture.partners(node) if other in free), None)
        if partner is not None:
            take(node, partner, 2)
        elif not picture.good:
            _probe(picture, node, free, take)
    if not pairs and not picture.untried and not picture.good and picture.probes:
        _probe(picture, picture.probes[0].nodes[0], free, take)
    return pairs


def _probe(picture: _Picture, odd: str, free: set[str], take: Callable[[str, str, int], None]) -> None:
    """Run the odd one out with one of a bad pair after the other, while no node at all is known to be good.

    Of three nodes with one that is slow it is all that can tell the slow one; it ends after a few runs.
    """
    if odd not in free or len(picture.probes) >= _PROBES:
        return
    other = next(
        (node for node in picture.suspects if node != odd and node in free and picture.may_run(odd, node)), None
    )
    if other is not None:
        take(odd, other, 2)


def _nobody(picture: _Picture, named: Collection[str]) -> str | None:
    """Why nobody of this kind may be blamed, whatever the runs of single nodes look like."""
    bad = [node for node in picture.nodes if picture.bad[node]]
    if bad and not picture.good:
        return (
            f"every pair of {_names(picture.nodes)} was bad: the fabric, the test or the floor, and nobody is blamed; "
            "name more nodes, or look at how the test is run"
        )
    if named and len(named) >= FABRIC_SHARE * len(picture.nodes):
        return (
            f"{len(named)} of {len(picture.nodes)} nodes were bad with good ones ({_names(named)}): that looks like the "
            "fabric between two parts of the cluster, and nobody is blamed"
        )
    return None


def _ways(picture: _Picture, named: Collection[str]) -> list[str]:
    """Pairs that were bad although both are good with others: the way between them."""
    ways = {
        run.nodes: run
        for runs in picture.bad.values()
        for run in runs
        if all(node in picture.good for node in run.nodes)
    }
    told = [
        f"{nodes[0]} and {nodes[1]} were {run.result.value} with each other and good with others: "
        "the path between the two, nobody is blamed"
        for nodes, run in sorted(ways.items())
    ]
    left = [node for node in picture.suspects if node not in named] if picture.good else []
    if left and not named:
        told.append(f"{_names(left)} could not be run with enough good nodes to be named")
    return told


def _finding(node: str, picture: _Picture) -> Finding:
    runs = picture.against(node)
    results = {run.result for run in runs}
    fault, severity, remedy = "nccl.failing_node", Severity.DEGRADED, Remedy.REBOOT
    if results == {PairResult.SLOW}:
        fault = "nccl.slow_node"
    elif results == {PairResult.WRONG}:
        # As of one machine alone (checks/nccl_wrong.py): nothing that could be done to it would prove a cure.
        fault, severity, remedy = "nccl.wrong_node", Severity.FATAL, Remedy.REPLACE
    return Finding(
        fault=fault,
        subject=node,
        severity=severity,
        remedy=remedy,
        evidence={
            "pairs": [
                {
                    "with": run.other(node),
                    "round": run.round,
                    "result": run.result.value,
                    "bytes": run.size,
                    "busbw_gbps": run.busbw_gbps,
                    "floor_gbps": run.floor_gbps,
                    "floor_source": run.floor_source,
                    "why": run.why,
                }
                for run in runs
            ],
            "source": "nccl-tests",
        },
    )


def _sentence(node: str, picture: _Picture) -> str:
    told = [f"{run.result.value} with {run.other(node)}{_speed(run)}" for run in picture.against(node)]
    return f"{node} was {' and '.join(told)}, which are good with others: {node} is the one"


def _speed(run: PairRun) -> str:
    if run.result is not PairResult.SLOW or run.busbw_gbps is None or run.floor_gbps is None:
        return ""
    return f" ({run.busbw_gbps:g} of at least {run.floor_gbps:g} GB/s)"


def _doubt(test: PairTest) -> str:
    whys = [run.why for run in test.runs if run.result is PairResult.UNKNOWN and run.why]
    return f": {whys[-1]}" if whys else ": a node needs another of its kind to be tested with"


def _names(nodes: Collection[str]) -> str:
    shown = sorted(nodes)
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
