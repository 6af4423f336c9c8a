"""Which pairs are run, and whom they name: exactly the bad nodes, and never a good one, in whatever order runs end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.health import Remedy, Severity
from nodewatch.model.pairs import PairJudgement, PairResult, PairRun, PairTest
from nodewatch.policy.pairs import WantedPair, judge, wanted

Pair = tuple[str, str]
Truth = Callable[[Pair], PairResult]


def names(count: int) -> tuple[str, ...]:
    return tuple(f"n{number:02d}" for number in range(1, count + 1))


def truly(bad: Collection[str], paths: Collection[frozenset[str]] = ()) -> Truth:
    def result(pair: Pair) -> PairResult:
        is_bad = set(pair) & set(bad) or frozenset(pair) in paths
        return PairResult.SLOW if is_bad else PairResult.GOOD

    return result


class Bench:
    """Runs what is wanted, a few at a time; `choose(n)` says which of n running ones ends next."""

    def __init__(self, nodes: tuple[str, ...], truth: Truth, kinds: dict[str, str] | None = None) -> None:
        self.test = PairTest(key="pairs:1", nodes=nodes, at=0.0, by="ada")
        self.kinds = kinds if kinds is not None else dict.fromkeys(nodes, "p5")
        self.truth = truth
        self.running: list[WantedPair] = []

    def wanted(self, free: Collection[str]) -> list[WantedPair]:
        return wanted(self.test, kinds=self.kinds, machines={}, free=free)

    def until_judged(self, choose: Callable[[int], int] = lambda _: 0, at_once: int = 100) -> PairJudgement:
        for _ in range(200):
            busy = {node for pair in self.running for node in pair.nodes}
            free = [node for node in self.test.nodes if node not in busy]
            self.running += self.wanted(free)[: max(0, at_once - len(self.running))]
            nodes = [node for pair in self.running for node in pair.nodes]
            assert len(nodes) == len(set(nodes)), "a node runs in one pair at a time"
            if not self.running:
                judgement = judge(self.test, kinds=self.kinds, machines={}, is_last=False)
                assert judgement is not None, "nothing left to run, and no judgement"
                return judgement
            self.ends(self.running.pop(choose(len(self.running))))
        raise AssertionError("the test does not come to an end")

    def ends(self, pair: WantedPair) -> None:
        run = PairRun(nodes=pair.nodes, result=self.truth(pair.nodes), at=1.0, round=pair.round)
        self.test = replace(self.test, runs=(*self.test.runs, run))


def run_of(first: str, second: str, result: PairResult, machines: dict[str, str] | None = None) -> PairRun:
    return PairRun(nodes=(first, second), result=result, at=1.0, machines=machines or {})


@given(st.data())
def test_exactly_the_bad_ones_are_named_in_whatever_order_runs_end(data: st.DataObject) -> None:
    nodes = names(data.draw(st.integers(2, 16), label="nodes"))
    bad = data.draw(st.sets(st.sampled_from(nodes), max_size=(len(nodes) - 1) // 2), label="bad")
    bench = Bench(nodes, truly(bad))
    judgement = bench.until_judged(
        lambda count: data.draw(st.integers(0, count - 1)), at_once=data.draw(st.integers(1, 9), label="at once")
    )
    assert set(judgement.culprits) <= bad, "a good node is never named"
    if any(run.result is PairResult.GOOD for run in bench.test.runs):
        assert set(judgement.culprits) == bad
        assert set(judgement.good) == set(nodes) - bad
    else:
        assert judgement.culprits == {}
    for run in bench.test.runs:
        if run.round == 2:
            before = bench.test.runs[: bench.test.runs.index(run)]
            good = {node for each in before if each.result is PairResult.GOOD for node in each.nodes}
            is_probe = not good and len(nodes) % 2 == 1
            assert good & set(run.nodes) or is_probe, "two suspects are never run together where a good node is known"


def test_of_three_nodes_the_slow_one_is_named_whichever_it_is() -> None:
    for slow in names(3):
        judgement = Bench(names(3), truly({slow})).until_judged()
        assert set(judgement.culprits) == {slow}


@given(st.data())
def test_one_unreliable_way_names_nobody(data: st.DataObject) -> None:
    nodes = names(data.draw(st.integers(3, 12)))
    path = frozenset(data.draw(st.permutations(nodes))[:2])
    bench = Bench(nodes, truly((), [path]))
    judgement = bench.until_judged(lambda count: data.draw(st.integers(0, count - 1)))
    assert judgement.culprits == {}


@given(st.data())
def test_a_good_node_is_never_named_however_many_are_bad(data: st.DataObject) -> None:
    nodes = names(data.draw(st.integers(2, 12)))
    bad = data.draw(st.sets(st.sampled_from(nodes)))
    judgement = Bench(nodes, truly(bad)).until_judged(lambda count: data.draw(st.integers(0, count - 1)))
    assert set(judgement.culprits) <= bad


@given(st.data())
def test_runs_that_prove_nothing_come_to_an_end_and_name_no_good_node(data: st.DataObject) -> None:
    nodes = names(data.draw(st.integers(2, 9)))
    bad = data.draw(st.sets(st.sampled_from(nodes), max_size=2))

    def truth(pair: Pair) -> PairResult:
        return PairResult.UNKNOWN if data.draw(st.booleans()) else truly(bad)(pair)

    judgement = Bench(nodes, truth).until_judged()
    assert set(judgement.culprits) <= bad


def test_the_order_of_a_plain_case_and_its_evidence() -> None:
    bench = Bench(names(6), truly({"n02"}))
    assert [pair.nodes for pair in bench.wanted(names(6))] == [("n01", "n02"), ("n03", "n04"), ("n05", "n06")]
    judgement = bench.until_judged()
    finding = judgement.culprits["n02"]
    assert (finding.fault, finding.subject, finding.family) == ("nccl.slow_node", "n02", "nccl")
    assert (finding.severity, finding.remedy) == (Severity.DEGRADED, Remedy.REBOOT)
    assert {pair["with"] for pair in finding.evidence["pairs"]} == {"n01", "n04"}
    assert "n02 was slow with n01 and slow with n04, which are good with others: n02 is the one" in judgement.why
    assert len(bench.test.runs) == 5, "three pairs, and each of the two suspects once"


def test_both_of_a_pair_may_be_bad() -> None:
    bench = Bench(names(8), truly({"n01", "n02"}))
    judgement = bench.until_judged()
    assert set(judgement.culprits) == {"n01", "n02"}
    partners = {pair["with"] for finding in judgement.culprits.values() for pair in finding.evidence["pairs"]}
    assert not partners & {"n01", "n02"}, "the evidence is of good partners alone"


def test_a_way_between_two_good_nodes_is_told() -> None:
    judgement = Bench(names(4), truly((), [frozenset(("n01", "n02"))])).until_judged()
    assert judgement.culprits == {}
    assert judgement.good == names(4)
    assert "n01 and n02 were slow with each other and good with others: the path" in judgement.why


def test_without_a_good_pair_nobody_is_blamed() -> None:
    judgement = Bench(names(4), truly({"n01", "n03"})).until_judged()
    assert judgement.culprits == {}
    assert judgement.untold == names(4)
    assert "the fabric, the test or the floor" in judgement.why


def test_half_of_the_nodes_bad_is_the_fabric() -> None:
    judgement = Bench(names(4), truly({"n01", "n02"})).until_judged()
    assert judgement.culprits == {}
    assert "looks like the fabric between two parts of the cluster" in judgement.why
    assert judgement.untold == ("n01", "n02")


def test_the_odd_one_out_runs_with_a_node_of_a_good_pair() -> None:
    bench = Bench(names(3), truly(()))
    assert [pair.nodes for pair in bench.wanted(names(3))] == [("n01", "n02")]
    bench.ends(WantedPair(nodes=("n01", "n02"), round=1))
    assert [(pair.nodes, pair.round) for pair in bench.wanted(names(3))] == [(("n03", "n01"), 2)]

    judgement = Bench(names(3), truly({"n03"})).until_judged()
    assert set(judgement.culprits) == {"n03"}, "bad with both others, which are good with each other"


def test_only_nodes_of_one_kind_are_compared() -> None:
    bench = Bench(names(4), truly(()), kinds={"n01": "p5", "n02": "p4d", "n03": "p5", "n04": "p4d"})
    assert {pair.nodes for pair in bench.wanted(names(4))} == {("n01", "n03"), ("n02", "n04")}

    alone = Bench(names(3), truly(()), kinds={"n01": "p5", "n02": "p5", "n03": "p4d"}).until_judged()
    assert alone.good == ("n01", "n02")
    assert alone.untold == ("n03",)


def test_a_busy_partner_is_waited_for_and_a_free_one_taken() -> None:
    bench = Bench(names(4), truly(()))
    assert [pair.nodes for pair in bench.wanted(("n01", "n03"))] == [("n01", "n03")]
    assert bench.wanted(("n01",)) == []
    assert judge(bench.test, kinds=bench.kinds, machines={}, is_last=False) is None
    last = judge(bench.test, kinds=bench.kinds, machines={}, is_last=True)
    assert last is not None
    assert last.untold == names(4)
    assert "time ran out" in last.why


def test_a_pair_that_proves_nothing_is_run_twice_and_its_reason_told() -> None:
    def truth(_: Pair) -> PairResult:
        return PairResult.UNKNOWN

    bench = Bench(names(2), truth)
    judgement = bench.until_judged()
    assert len(bench.test.runs) == 2
    assert judgement.untold == names(2)
    assert "nothing was proved of n01, n02" in judgement.why


def test_runs_of_another_boot_do_not_count() -> None:
    runs = (
        run_of("n01", "n02", PairResult.SLOW, {"n01": "i-1/b0", "n02": "i-2/b0"}),
        run_of("n03", "n04", PairResult.GOOD),
    )
    test = PairTest(key="pairs:1", nodes=names(4), at=0.0, by="ada", runs=runs)
    kinds = dict.fromkeys(names(4), "p5")
    again = wanted(test, kinds=kinds, machines={"n01": "i-1/b1", "n02": "i-2/b0"}, free=names(4))
    assert [pair.nodes for pair in again] == [("n01", "n02")]
    same = wanted(test, kinds=kinds, machines={"n01": "i-1/b0", "n02": "i-2/b0"}, free=names(4))
    assert [pair.nodes for pair in same] == [("n01", "n03"), ("n02", "n04")]


def test_what_a_culprit_is_called_follows_from_its_runs() -> None:
    def named(result: PairResult, other: PairResult) -> tuple[str, Severity, Remedy]:
        runs = (
            run_of("n01", "n02", PairResult.GOOD),
            run_of("n03", "n04", PairResult.GOOD),
            run_of("n05", "n01", result),
            run_of("n05", "n03", other),
        )
        test = PairTest(key="pairs:1", nodes=names(5), at=0.0, by="ada", runs=runs)
        judgement = judge(test, kinds=dict.fromkeys(names(5), "p5"), machines={}, is_last=False)
        assert judgement is not None
        finding = judgement.culprits["n05"]
        return finding.fault, finding.severity, finding.remedy

    assert named(PairResult.SLOW, PairResult.SLOW) == ("nccl.slow_node", Severity.DEGRADED, Remedy.REBOOT)
    assert named(PairResult.SLOW, PairResult.HUNG) == ("nccl.failing_node", Severity.DEGRADED, Remedy.REBOOT)
    assert named(PairResult.WRONG, PairResult.WRONG) == ("nccl.wrong_node", Severity.FATAL, Remedy.REPLACE)


def test_a_run_survives_the_journal() -> None:
    run = replace(run_of("n1", "n2", PairResult.SLOW, {"n1": "i/b"}), size=1 << 30, busbw_gbps=1.5, floor_gbps=2.0)
    assert PairRun.from_json(run.to_json(), run.at) == run
