"""When a job hangs, who is waited for, and what cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from nodewatch.model.heartbeats import Dump, Hang, Phase
from nodewatch.model.ledger import Ledger, MarkedJob
from nodewatch.policy.progress import (
    HangRules,
    JobView,
    RankView,
    asked_nodes,
    hang_of,
    idle_words,
    judged,
    look,
    odd_ones,
)

NOW = 10_000.0
RULES = HangRules()


def rank(number: int, step: int = 100, **changes: object) -> RankView:
    """A rank that has stood still for 400 s; two ranks a node."""
    view = RankView(rank=number, node=f"n{number // 2 + 1}", step=step, still_s=400.0, usual_s=0.4, steps_seen=100)
    return replace(view, **changes)  # type: ignore[arg-type]


def job(*ranks: RankView, silent: Sequence[str] = (), started_at: float = 0.0) -> JobView:
    nodes = tuple(sorted({each.node for each in ranks}))
    return JobView(
        job_id=17, restart_count=0, nodes=nodes, started_at=started_at, ranks=ranks, silent=frozenset(silent)
    )


def stacks(*frames: str, header: str = 'Thread 0x7F01 (idle): "MainThread"') -> str:
    return "\n".join([header, *(f"    {frame}" for frame in frames)])


WAITS = stacks("all_reduce (torch/distributed/distributed_c10d.py:2501)", "train (run.py:40)")
READS = stacks("read (data.py:12)", "train (run.py:31)")


@pytest.mark.parametrize(
    ("ranks", "is_hung", "words"),
    [
        pytest.param([rank(n) for n in range(4)], True, "all 4 ranks stand at step 100: which of them", id="all-level"),
        pytest.param(
            [rank(0, 101), rank(1, 101), rank(2), rank(3, 101)],
            True,
            "rank 2 on n2 stands at step 100, the others at step 101 wait for it",
            id="one-behind",
        ),
        pytest.param(
            [rank(0), rank(1), rank(2), rank(3, 101)], True, "which is waited for cannot be told", id="one-ahead"
        ),
        pytest.param([rank(0)], True, "its rank stands at step 100", id="alone"),
        pytest.param([rank(n, still_s=299.0) for n in range(4)], False, "", id="shorter-than-the-minimum"),
        pytest.param(
            [rank(n, usual_s=50.0) for n in range(4)], False, "", id="a-slow-program-has-ten-times-its-usual-step"
        ),
        pytest.param([rank(n, usual_s=50.0, still_s=501.0) for n in range(4)], True, "usual are 50 s", id="not-more"),
        pytest.param(
            [rank(n, longest_s=250.0) for n in range(4)], False, "", id="as-long-as-an-evaluation-before-it-twice"
        ),
        pytest.param([rank(0, still_s=1.0), rank(1)], False, "rank 1 on n1 stands still while", id="others-go-on"),
        pytest.param([rank(0), rank(1, phase=Phase.SAVING)], False, "", id="a-save"),
        pytest.param(
            [rank(0, still_s=2000.0), rank(1, phase=Phase.SAVING, still_s=2000.0)],
            False,
            "rank 1 on n1 has been saving for 2000 s",
            id="a-long-save-is-said",
        ),
        pytest.param([rank(0, phase=Phase.STARTING), rank(1)], False, "", id="a-start"),
        pytest.param([rank(0, steps_seen=2), rank(1, steps_seen=2)], False, "", id="few-steps-have-twice-the-time"),
        pytest.param(
            [rank(0, steps_seen=2, still_s=601.0)], True, "no rank has made a step for 601 s", id="and-no-more"
        ),
        pytest.param([rank(0, usual_s=None)], False, "", id="no-usual-step-yet"),
        pytest.param(
            [rank(0, usual_s=None, still_s=2000.0, steps_seen=0)],
            False,
            "too few steps were seen",
            id="said-after-long",
        ),
        pytest.param([rank(n, phase=Phase.DONE) for n in range(4)], False, "", id="done"),
        pytest.param(
            [rank(0, phase=Phase.DONE), rank(1), rank(2)],
            True,
            "rank 0 on n1 ended before the others",
            id="one-is-done",
        ),
        pytest.param([rank(n, still_s=10_050.0) for n in range(4)], False, "", id="heartbeats-of-the-run-before"),
        pytest.param([], False, "", id="nothing-known"),
    ],
)
def test_what_hangs_and_what_is_said(ranks: list[RankView], is_hung: bool, words: str) -> None:
    standing = look(job(*ranks), RULES, NOW)
    assert standing.is_hung is is_hung
    assert words in standing.words
    assert bool(words) == bool(standing.words)


def test_a_node_that_is_silent_leaves_it_unknown() -> None:
    standing = look(job(rank(0), rank(2), silent=["n2"]), RULES, NOW)
    assert not standing.is_hung
    assert "the agent of n2 tells nothing of it" in standing.words
    assert look(job(rank(0, still_s=1.0), rank(2), silent=["n2"]), RULES, NOW).words == ""


def test_the_ranks_that_are_waited_for_are_asked_first() -> None:
    view = job(rank(0, 101), rank(2, 101), rank(4), rank(6, 101))
    rules = HangRules(dump_nodes=2)
    standing = look(view, rules, NOW)
    assert [each.rank for each in standing.behind] == [4]
    assert asked_nodes(view, standing, rules) == ("n3", "n1")


def judgement(ranks: Sequence[RankView], dumps: dict[str, list[Dump]]) -> Hang:
    view = job(*ranks)
    return judged(view, look(view, RULES, NOW), dumps, RULES, NOW)


def test_the_node_of_the_one_that_is_behind_is_named() -> None:
    hang = judgement([rank(0, 101), rank(1, 101), rank(2), rank(3)], {"n2": []})
    assert (hang.node, hang.step, hang.still_s) == ("n2", 100, 400.0)
    assert "its agents gave no stacks" in hang.text


def test_two_nodes_that_are_behind_are_no_one() -> None:
    ranks = [rank(0, 101), rank(1), rank(2), rank(3, 101), rank(4, 101), rank(5, 101)]
    assert judgement(ranks, {}).node == ""


def test_stacks_tell_the_odd_one_of_ranks_at_the_same_step() -> None:
    dumps = {
        "n1": [Dump(rank=0, stacks=WAITS), Dump(rank=1, stacks=WAITS.replace("2501", "2502"))],
        "n2": [Dump(rank=2, stacks=READS), Dump(rank=3, stacks=WAITS)],
    }
    hang = judgement([rank(n) for n in range(4)], dumps)
    assert hang.node == "n2"
    assert "rank 2 on n2 is in read (data.py:12), the other 3 in all_reduce (distributed_c10d.py:2501)" in hang.text


@pytest.mark.parametrize(
    ("dumps", "text"),
    [
        ({"n1": [Dump(rank=0, stacks=WAITS), Dump(rank=1, stacks=READS)]}, ""),
        ({"n1": [Dump(rank=n, stacks=WAITS) for n in range(4)]}, "the main threads of all 4 ranks are in all_reduce"),
        (
            {"n1": [Dump(rank=n, stacks=WAITS if n < 2 else READS) for n in range(4)]},
            "the stacks of its 4 ranks are in 2 places",
        ),
        ({"n1": [Dump(rank=n, stacks="Error: no such process") for n in range(4)]}, ""),
        ({}, ""),
    ],
)
def test_nobody_is_odd_without_two_thirds_in_one_place(dumps: dict[str, list[Dump]], text: str) -> None:
    nodes, told = odd_ones(dumps)
    assert nodes == set()
    assert text in told
    assert bool(text) == bool(told)


def test_why_there_are_no_stacks_is_said() -> None:
    said = "py-spy cannot be run (No such file or directory): no stacks were read"
    hang = judgement([rank(n) for n in range(4)], {"n1": [Dump(rank=0, said=said)]})
    assert hang.text.endswith(f"its stacks could not be read: {said}")
    assert hang.node == ""


def test_a_wait_in_the_kernel_is_said() -> None:
    dumps = {"n1": [Dump(rank=0, state="D", waits_in="cl_sync_io_wait"), Dump(rank=1, state="S", waits_in="futex")]}
    hang = judgement([rank(n) for n in range(2)], dumps)
    assert "rank 0 on n1 waits in the kernel for a device or a file (cl_sync_io_wait)" in hang.text


def test_a_hang_is_of_one_run() -> None:
    hang = Hang(job_id=17, restart_count=1, at=500.0, still_s=400.0, step=100, text="stands")
    ledger = Ledger(hangs={17: hang})
    marked = MarkedJob(job_id=17, budget="3", restart_count=1, nodes=("n1",), started_at=100.0)
    assert hang_of(marked, ledger) == hang
    assert hang_of(replace(marked, restart_count=2), ledger) is None
    assert hang_of(replace(marked, ended_at=600.0), ledger) is None
    assert hang_of(replace(marked, started_at=501.0), ledger) is None, "another job under the same id"
    assert hang_of(replace(marked, job_id=18), ledger) is None


@pytest.mark.parametrize(
    ("nodes", "idle", "is_said"),
    [
        (["n1", "n2"], {"n1": 1860.0, "n2": 4000.0}, True),
        (["n1", "n2"], {"n1": 1700.0, "n2": 4000.0}, False),
        (["n1", "n2"], {"n1": 1900.0}, False),
        ([], {"n1": 1900.0}, False),
    ],
)
def test_idle_gpus_of_all_nodes_are_said(nodes: list[str], idle: dict[str, float], is_said: bool) -> None:
    held = idle_words(17, nodes, idle, RULES)
    assert (held is not None) is is_said
    assert held is None or (held.subject == "job 17" and "no GPU of its 2 nodes has worked for 31 min" in held.why)


@pytest.mark.parametrize(
    "bad",
    [{"factor": 1.0}, {"slow_factor": 1.0}, {"minimum_s": 0.0}, {"least_steps": 0}, {"dump_wait_s": -1.0}],
)
def test_rules_that_would_end_healthy_jobs_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        HangRules(**bad)  # type: ignore[arg-type]
