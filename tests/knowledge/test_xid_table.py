"""The Xid table: complete, and the same as the catalogue's action column."""

from __future__ import annotations

import pytest

from nodewatch.knowledge.xid import TABLE, lookup, parse
from nodewatch.model.health import Remedy, Severity

CATALOGUE = {
    "RESTART_APP": "8 11 13 25 31 32 39-41 60 68-72 75-77 80 82-86 88 89 94 96-105 126-135 139",
    "IGNORE": "14 37 38 43 44 63 66 67 92 93 106-108 121 137 141 152 153 157 160 161",
    "RESET_GPU": "46 62 64 95 109 110 119 120 136 140 143 155 156 158",
    "WORKFLOW_XID_48": "48",
    "WORKFLOW_XID_45": "45",
    "WORKFLOW_NVLINK_ERR": "74",
    "WORKFLOW_NVLINK5_ERR": "144-150",
    "RESTART_BM": "79",
    "XID_154": "154",
    "CHECK_MECHANICALS": "54",
    "UPDATE_SWFW": "78",
    "RESTART_VM": "151",
    "CHECK_UVM": "159",
    "CONTACT_SUPPORT": "142",
    "NONE_GIVEN": "162-172",
}


def numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize("action", CATALOGUE)
def test_action_class(action: str) -> None:
    assert {number for number, xid in TABLE.items() if xid.nvidia == action} == numbers(CATALOGUE[action])


def test_all_172_numbers_stand_in_it_and_the_61_others_are_unused() -> None:
    assert sorted(TABLE) == list(range(1, 173))
    assert sum(xid.nvidia == "UNUSED" for xid in TABLE.values()) == 61


def test_what_the_classes_amount_to() -> None:
    for xid in TABLE.values():
        assert xid.why and xid.source
        if xid.nvidia in ("RESTART_APP", "IGNORE", "WORKFLOW_XID_45"):
            assert xid.severity is Severity.INFO
        if xid.nvidia == "RESET_GPU":
            assert (xid.severity, xid.remedy) == (Severity.FATAL, Remedy.RESET_GPU)
        if xid.nvidia in ("UNUSED", "NONE_GIVEN"):
            assert (xid.severity, xid.remedy) == (Severity.WARN, Remedy.HUMAN)


@pytest.mark.parametrize("number", [31, 38, 48, 63, 68, 94, 109, 154])
def test_rows_on_which_peers_disagree_say_so(number: int) -> None:
    assert TABLE[number].disagrees


def test_a_number_nobody_knows_is_a_warning() -> None:
    assert (lookup(4711).severity, lookup(4711).remedy) == (Severity.WARN, Remedy.HUMAN)


def test_a_number_twice_is_an_error() -> None:
    row = '[[xid]]\nnumber=1\nname=""\nnvidia="x"\nseverity="info"\nremedy="none"\nwhy="w"\nsource="s"\n'
    with pytest.raises(ValueError, match="twice"):
        parse(row + row)
