"""What the output of one run of two nodes amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.controller.pair_results import Outcome, PairEnded, outcome_of
from nodewatch.model.pairs import PairResult
from nodewatch.testing.pairs import table

TWO = ("n1", "n2")
HEAD = table(TWO).split("#       size")[0]
GIB = 1 << 30


def outcome(
    text: str,
    *,
    returncode: int = 0,
    is_late: bool = False,
    cancelled: str = "",
    instance_type: str = "p5.48xlarge",
    gpus: int | None = 8,
    floor_gbps: float = 0.0,
) -> Outcome:
    ended = PairEnded(nodes=TWO, text=text, returncode=returncode, is_late=is_late, cancelled=cancelled)
    return outcome_of(ended, instance_type=instance_type, gpus=gpus, floor_gbps=floor_gbps)


def test_good_and_slow_say_what_was_held_against_what() -> None:
    good = outcome(f"salloc: Granted job allocation 7\n{table(TWO)}")
    assert (good.result, good.size, good.busbw_gbps, good.floor_gbps) == (PairResult.GOOD, 16 * GIB, 487.0, 389.0)
    slow = outcome(table(TWO, share=0.5))
    assert (slow.result, slow.size, slow.busbw_gbps, slow.floor_gbps) == (PairResult.SLOW, 16 * GIB, 243.5, 389.0)
    assert slow.floor_source == good.floor_source != ""


def test_a_floor_of_the_configuration_takes_the_place_of_the_table() -> None:
    assert outcome(table(TWO), floor_gbps=500.0).result is PairResult.SLOW
    assert outcome(table(TWO, share=0.5), floor_gbps=200.0).result is PairResult.GOOD
    assert outcome(table(TWO), instance_type="", gpus=None, floor_gbps=400.0).result is PairResult.GOOD


@pytest.mark.parametrize("text", ["", "\n", "srun: error: Invalid account or account/partition combination specified"])
def test_what_never_began_proves_nothing(text: str) -> None:
    assert outcome(text, returncode=1).result is PairResult.UNKNOWN


@pytest.mark.parametrize(
    "said",
    [
        "salloc: error: Unable to allocate resources: Requested nodes are busy",
        "salloc: error: Job submit/allocate failed: Requested nodes are busy",
        "srun: error: Unable to allocate resources: Immediate execution impossible, insufficient priority",
        "salloc: error: Unable to allocate resources: Connection timed out",
        "salloc: Pending job allocation 17 has been revoked.",
    ],
)
def test_nodes_that_somebody_else_got_are_no_fault(said: str) -> None:
    assert outcome(said, returncode=1).result is PairResult.GAVE_WAY


def test_what_was_cancelled_gave_way_whatever_it_printed() -> None:
    told = outcome(HEAD + "srun: error: n1: task 3: Terminated", cancelled="a job waits in a partition of n1")
    assert (told.result, told.why) == (PairResult.GAVE_WAY, "a job waits in a partition of n1")


def test_a_node_on_which_the_program_cannot_start_is_not_blamed() -> None:
    missing = "srun: error: n1: tasks 0-7: Exited with exit code 127\nall_reduce_perf: command not found"
    assert outcome(missing, returncode=127).result is PairResult.UNKNOWN
    killed = "srun: error: n1: task 0: Segmentation fault (core dumped)"
    assert outcome(killed, returncode=139).result is PairResult.UNKNOWN


def test_one_that_began_and_failed_or_hung_is_bad() -> None:
    failed = HEAD + "n2: Test NCCL failure common.cu:1005 'unhandled system error'"
    assert outcome(failed, returncode=3).result is PairResult.FAILED
    stuck = HEAD + "n2: Test timeout (60s) common.cu:415"
    assert outcome(stuck, returncode=3).result is PairResult.HUNG
    assert outcome(HEAD, returncode=-15, is_late=True).result is PairResult.HUNG
    limit = HEAD + "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***"
    assert outcome(limit, returncode=1).result is PairResult.HUNG


def test_wrong_values_are_told_as_such() -> None:
    told = outcome(table(TWO, wrong=3), returncode=1)
    assert told.result is PairResult.WRONG
    assert "wrong values" in told.why


def test_late_without_a_beginning_proves_nothing() -> None:
    told = outcome("salloc: Pending job allocation 9", returncode=-15, is_late=True)
    assert told.result is PairResult.UNKNOWN


@pytest.mark.parametrize(
    ("text", "returncode", "says"),
    [
        (table(("n1",)) + table(("n2",)), 0, "each rank ran alone: build nccl-tests with MPI=1"),
        (table(("n1",)), 0, "did not begin on both nodes"),
        (table(TWO).replace("# Avg bus", "# Avg"), 0, "no footer"),
        (table(TWO).replace("all_reduce", "all_gather"), 0, "it was all_gather"),
        (table(TWO), 9, "it ended with status 9"),
    ],
)
def test_runs_that_prove_nothing_say_why(text: str, returncode: int, says: str) -> None:
    told = outcome(text, returncode=returncode)
    assert told.result is PairResult.UNKNOWN
    assert says in told.why


def test_ranks_that_are_missing_prove_nothing() -> None:
    told = outcome(table(TWO), gpus=4)
    assert (told.result, told.why) == (PairResult.UNKNOWN, "16 ranks took part instead of 8")


def test_without_a_floor_the_speed_is_told_and_not_judged() -> None:
    told = outcome(table(TWO, share=0.01), instance_type="p5en.48xlarge")
    assert (told.result, told.busbw_gbps) == (PairResult.UNKNOWN, 4.87)
    assert "set [pairs] floor_gbps" in told.why


@given(st.integers(0, len(table(TWO))))
def test_what_is_cut_off_is_never_good(end: int) -> None:
    text = table(TWO)[:end]
    if "Avg bus bandwidth    :" not in text or not text.rstrip().splitlines()[-1].startswith(("# Avg", "# Coll")):
        assert outcome(text).result is not PairResult.GOOD


@given(st.text(max_size=200))
def test_no_output_raises(text: str) -> None:
    assert outcome(text).result is not PairResult.GOOD
