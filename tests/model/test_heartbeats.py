"""Heartbeats are users' words: what is one is read exactly, anything else is refused by one kind of error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.heartbeats import (
    MOST_JOBS,
    MOST_RANKS,
    Beat,
    Dump,
    JobBeats,
    Phase,
    dumps_of,
    from_message,
    parse_beat,
    rank_of,
    to_message,
)

GOOD = {"v": 1, "rank": 3, "step": 120, "t": 1764000000.1, "step_s": 0.41, "phase": "step", "pid": 4711}
WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


def raw(**changes: Any) -> bytes:
    data = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    return json.dumps(data).encode()


def test_a_heartbeat_padded_with_blanks_is_read() -> None:
    beat = parse_beat(raw().ljust(256), rank=3)
    assert beat == Beat(rank=3, step=120, phase=Phase.STEP, at=1764000000.1, step_s=0.41, pid=4711)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"compute_s": 0.3}, "compute_s", 0.3),
        ({"step_s": ...}, "step_s", None),
        ({"step_s": None}, "step_s", None),
        ({"phase": ...}, "phase", Phase.STEP),
        ({"phase": "saving"}, "phase", Phase.SAVING),
        ({"pid": 1}, "pid", None),
        ({"pid": 0}, "pid", None),
        ({"new": "field"}, "step", 120),
    ],
)
def test_what_may_be_left_out_or_added(changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(parse_beat(raw(**changes), rank=3), field) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 256,
        b"\xff\xfe{}",
        b"[]",
        b"17",
        b"{",
        raw().ljust(257),
        raw(v=2),
        raw(v=...),
        raw(rank=4),
        raw(rank="3"),
        raw(rank=...),
        raw(step=...),
        raw(step=-1),
        raw(step=1.5),
        raw(step=True),
        raw(step=1 << 60),
        raw(phase="eating"),
        raw(phase=["step"]),
        raw(step_s=-0.1),
        raw(step_s=float("nan")),
        raw(step_s=float("inf")),
        raw(step_s=1e300),
        raw(t="noon"),
        raw(pid=1 << 30),
        raw().replace(b"0.41", b"1e999"),
    ],
)
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_beat(text, rank=3)


@given(st.binary(max_size=300))
def test_no_bytes_raise_another_error(text: bytes) -> None:
    try:
        beat = parse_beat(text, rank=3)
    except ValueError:
        return
    assert beat.rank == 3


@given(WORDS)
def test_no_message_raises_another_error(data: object) -> None:
    for told in (data, {"17": data}, {"17": {"ranks": data}}, {"17": {"ranks": {"0": data}}}):
        try:
            jobs = from_message(told)
        except ValueError:
            continue
        assert len(jobs) <= MOST_JOBS


BEATS = st.builds(
    Beat,
    rank=st.just(0),
    step=st.integers(0, 1 << 53),
    phase=st.sampled_from(Phase),
    at=st.floats(0, 1e12),
    step_s=st.none() | st.floats(0, 1e8),
    compute_s=st.none() | st.floats(0, 1e8),
    pid=st.none() | st.integers(2, 1 << 22),
)


@given(st.dictionaries(st.integers(1, 1 << 40), BEATS, max_size=5))
def test_a_message_is_read_as_it_was_meant(beats: dict[int, Beat]) -> None:
    jobs = {job_id: JobBeats(ranks={0: beat}, garbled=job_id % 3) for job_id, beat in beats.items()}
    assert from_message(json.loads(json.dumps(to_message(jobs)))) == jobs


def test_a_message_is_bounded() -> None:
    rank = {"step": 1}
    with pytest.raises(ValueError, match="jobs"):
        from_message({str(n): {"ranks": {}} for n in range(1, MOST_JOBS + 2)})
    with pytest.raises(ValueError, match="ranks"):
        from_message({"1": {"ranks": {str(n): rank for n in range(MOST_RANKS + 1)}}})


@pytest.mark.parametrize("name", ["01", "+1", "²", "1 ", "", "-1", "1e3", "99999999999999999", "x"])
def test_each_rank_has_one_name(name: str) -> None:
    assert rank_of(name) is None
    with pytest.raises(ValueError, match=r"."):
        from_message({name: {"ranks": {}}})


def test_dumps_are_cut_to_what_may_be_kept() -> None:
    told = {"dumps": [{"rank": 1, "stacks": "x" * 9999, "said": "y" * 999, "state": "D ", "other": 1}]}
    (dump,) = dumps_of(told)
    assert dump == Dump(rank=1, stacks="x" * 2000, said="y" * 300, state="D")
    assert dumps_of({"dumps": [dump.to_json()]}) == (dump,)


@pytest.mark.parametrize(
    "dumps", [None, {}, [1], [{}], [{"rank": "1"}], [{"rank": 1, "stacks": 5}], [{"rank": 1}] * 65]
)
def test_dumps_of_another_shape_are_refused(dumps: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        dumps_of({"dumps": dumps})
