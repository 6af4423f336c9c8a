"""What an agent tells of a job's end is bounded, and what it does not know stays unknown."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.plain import from_plain, to_plain
from nodewatch.model.witness import MOST_FAILURES, MOST_LINES, Interruption, Witness

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("restart_count", "lines", "failures", "first_step", "last_step", "checkpoint_step", "unread", "is_cut")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_is_told_can_be_kept(data: dict[str, Any]) -> None:
    witness = Witness.from_json(data, 17.0)
    assert from_plain(Witness, to_plain(witness)) == witness
    for step in (witness.first_step, witness.last_step, witness.checkpoint_step):
        assert step is None or step >= 0


def test_what_is_too_much_is_left_out_but_not_the_cause() -> None:
    peers = [{"t": float(i), "rank": i, "kind": "peer_lost", "error": "e" * 9999} for i in range(1000)]
    cause = {"t": 5000.0, "rank": 7, "kind": "program", "error": "ValueError: x", "host": "n2"}
    witness = Witness.from_json({"lines": ["x" * 9999] * 99, "failures": [*peers, cause]}, 0.0)
    assert witness.lines is not None
    assert witness.failures is not None
    assert (len(witness.lines), len(witness.failures)) == (MOST_LINES, MOST_FAILURES)
    assert max(map(len, witness.lines)) < 300
    assert witness.first_failure is not None
    assert (witness.first_failure.rank, witness.first_failure.host) == (7, "n2")


def test_nothing_known_is_no_failure() -> None:
    assert Witness.from_json({}, 0.0).first_failure is None
    assert Witness.from_json({"failures": []}, 0.0).first_failure is None


def test_what_an_interruption_cost() -> None:
    run = Interruption(restart_count=0, cause="hardware", text="t", ended_at=100.0, back_at=109.0, last_step=130)
    assert (run.lost_s, run.lost_steps) == (9.0, None)
    saved = Interruption(restart_count=0, cause="hardware", text="t", last_step=130, saved_step=100)
    assert (saved.lost_s, saved.lost_steps) == (None, 30)
    other = Interruption(restart_count=0, cause="hardware", text="t", last_step=130, saved_step=100, resumed_step=90)
    assert other.lost_steps == 40, "where it really went on from counts"
