"""The tables of NVLink words: whole, and the rows that peers test too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.knowledge.nvlink import BITS, UNITS, Action, kinds_of, parse, unit_of


def test_the_four_registers_that_are_judged() -> None:
    assert sorted(BITS) == [1, 3, 4, 5]
    assert sum(len(bits) for bits in BITS.values()) == 18 + 9 + 3 + 12


def test_every_number_has_a_unit() -> None:
    assert {xid for xid, _ in UNITS} == set(range(144, 151))


@pytest.mark.parametrize(
    ("xid", "name", "interrupt", "status", "is_fatal", "action"),
    [
        (144, "SAW_MVB", 0, 0x02, True, Action.RESET_GPU),
        (144, "SAW_MVB", 0, 0x04, False, Action.IGNORE),
        (144, "SAW_MVB", 0, 0x400, False, None),
        (144, "SAW_MVB", 0, 0, False, None),
        (145, "RLW_SRC_TRACK", 0, 0x04, False, Action.FOLLOW_154),
        (145, "RLW_RXPIPE", 0, 0x01, True, Action.RESET_GPU),
        (145, "RLW_RXPIPE", 0, 0x01, False, Action.IGNORE),
        (146, "TLW_RX_PIPE1", 0, 0x04, True, Action.RESET_GPU),
        (149, "NETIR_LINK_EVT", 0x025525C6, 0, True, Action.RESET_GPU),
        (149, "NETIR_LINK_EVT", 0x02800000, 0, True, Action.IGNORE),
        (149, "NETIR_LINK_EVT", 0x03F00000, 0, True, None),
    ],
)
def test_rows(xid: int, name: str, interrupt: int, status: int, is_fatal: bool, action: Action | None) -> None:
    unit = unit_of(xid, name)
    assert unit is not None
    assert unit.action(interrupt, status, is_fatal=is_fatal) is action


def test_bits() -> None:
    assert kinds_of([0x10, 0xFFFFFFFF, 0, 0, 1 << 20, 0xFF, 0]) == {"ecc", "threshold"}
    assert kinds_of([1 << 31]) == {"unknown"}
    assert kinds_of([]) == frozenset()


@given(st.lists(st.integers(0, 2**32 - 1), max_size=9))
def test_no_words_raise(registers: list[int]) -> None:
    kinds_of(registers)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[xid74]]\nregister = 1\nbad = [1]\n", "no kind"),
        ("[[xid74]]\nregister = 1\necc = [1]\nsignal = [1]\n", "twice"),
    ],
)
def test_a_row_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text + "[[unit]]\nxid = 144\nnames = []\n")
