"""Nodes that are slow across jobs: one job accuses nobody, and neither does a place that is slow on every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from nodewatch.model.health import Severity
from nodewatch.policy.progress import HangRules, JobView, RankView
from nodewatch.policy.slow_nodes import Run, Witness, by_compute, by_runs, finding, named, run_of, words

NOW = 1_000_000.0
RULES = HangRules()


def job(times: Mapping[str, float | None], *, job_id: int = 1, seen: int = 50) -> JobView:
    """One rank a node with its own time for a step."""
    ranks = tuple(
        RankView(rank=place, node=node, step=9, usual_s=1.0, compute_s=time, steps_seen=seen)
        for place, (node, time) in enumerate(times.items())
    )
    return JobView(job_id=job_id, restart_count=0, nodes=tuple(times), started_at=0.0, ranks=ranks)


@pytest.mark.parametrize(
    ("times", "slow", "good"),
    [
        ({"n1": 1.0, "n2": 1.0, "n3": 1.3}, ["n3"], {"n1", "n2"}),
        ({"n1": 1.0, "n2": 1.05, "n3": 1.1}, [], {"n1", "n2", "n3"}),
        ({"n1": 1.0, "n2": 2.0}, [], set()),
        ({"n1": 1.0, "n2": None, "n3": None}, [], set()),
        ({"n1": 0.0, "n2": 0.0, "n3": 0.0}, [], set()),
    ],
)
def test_a_node_that_takes_longer_than_the_others(
    times: Mapping[str, float | None], slow: list[str], good: set[str]
) -> None:
    found, cleared = by_compute(job(times), RULES, NOW)
    assert [each.node for each in found] == slow
    assert cleared == good


def run(restart: int, nodes: Sequence[str], usual_s: float, *, job_id: int = 1, ranks: int = 8) -> Run:
    return Run(job_id=job_id, restart_count=restart, nodes=tuple(nodes), ranks=ranks, usual_s=usual_s)


@pytest.mark.parametrize(
    ("now", "before", "slow", "good"),
    [
        (run(1, ["n1", "n3"], 1.5), [run(0, ["n1", "n2"], 1.0)], ["n3"], set()),
        (run(1, ["n1", "n3"], 1.05), [run(0, ["n1", "n2"], 1.0)], [], {"n1", "n3"}),
        (run(1, ["n1", "n3"], 1.15), [run(0, ["n1", "n2"], 1.0)], [], set()),
        (run(1, ["n1", "n3"], 1.5), [run(0, ["n1", "n2"], 1.0, ranks=16)], [], set()),
        (run(1, ["n1", "n3"], 1.5), [run(0, ["n1", "n2"], 1.0, job_id=2)], [], set()),
        (run(0, ["n1", "n2"], 1.5), [run(0, ["n1", "n2"], 1.0)], [], set()),
    ],
)
def test_a_job_that_is_slower_than_it_was_elsewhere(
    now: Run, before: list[Run], slow: list[str], good: set[str]
) -> None:
    found, cleared = by_runs(now, before, RULES, NOW)
    assert [each.node for each in found] == slow
    assert cleared == good


def test_the_speed_of_a_run_is_known_after_some_steps() -> None:
    assert run_of(job({"n1": None}, seen=9), RULES) is None
    assert run_of(job({"n1": None}, seen=10), RULES) == run(0, ["n1"], 1.0, ranks=1)


def seen(node: str, job_id: int, place: int, *, at: float = NOW, is_direct: bool = True) -> Witness:
    return Witness(node=node, job_id=job_id, place=place, ratio=1.3, at=at, is_direct=is_direct)


@pytest.mark.parametrize(
    ("witnesses", "expected"),
    [
        pytest.param([seen("n3", 1, 2)], [], id="one-job"),
        pytest.param([seen("n3", 1, 2), seen("n3", 1, 1)], [], id="one-job-twice"),
        pytest.param([seen("n3", 1, 2), seen("n3", 2, 0)], ["n3"], id="two-jobs"),
        pytest.param([seen("n3", 1, 0), seen("n3", 2, 0)], [], id="always-the-first-place"),
        pytest.param([seen("n3", 1, 2), seen("n3", 2, 0, at=NOW - 700_000)], [], id="too-long-ago"),
        pytest.param(
            [seen(node, j, j + p, is_direct=False) for p, node in enumerate(("n3", "n4")) for j in (1, 2)],
            [],
            id="two-nodes-in-the-same-slow-jobs",
        ),
        pytest.param(
            [
                seen("n3", 1, 2, is_direct=False),
                seen("n4", 1, 3, is_direct=False),
                seen("n3", 2, 0, is_direct=False),
                seen("n5", 2, 1, is_direct=False),
            ],
            ["n3"],
            id="the-one-that-is-in-both",
        ),
    ],
)
def test_who_is_named(witnesses: list[Witness], expected: list[str]) -> None:
    assert list(named(witnesses, RULES, NOW)) == expected


def test_what_is_named_is_a_warning_and_says_how_to_prove_it() -> None:
    witnesses = [seen("n3", 2, 0), seen("n3", 1, 2)]
    assert finding("n3", witnesses).severity is Severity.WARN
    text = words("n3", witnesses)
    assert text.startswith("training is slow on n3: job 1 (1.3 times), job 2 (1.3 times); nothing is done")
    assert "nodewatch check-pairs" in text
