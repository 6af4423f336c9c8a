"""kernel_lustre: lines as the kernel and the drivers print them, and what each amounts to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .kernel_lines import BEGINNINGS, ask, is_silent_on_benign, outline

EVICTED = (
    "LustreError: 167-0: fsx-OST0002-osc-ffff8c0e1: This client was evicted by fsx-OST0002;"
    " in progress operations using this service will fail."
)
LOST = (
    "Lustre: fsx-OST0002-osc-ffff8c0e1: Connection to fsx-OST0002 (at 10.0.2.9@tcp) was lost;"
    " in progress operations using this service will wait for recovery to complete"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (EVICTED, ("filesystem.lustre_evicted", "fsx-OST0002", "warn", "restart_app")),
        (LOST, ("filesystem.lustre_connection_lost", "fsx-OST0002", "info", "none")),
        (
            "LustreError: 11-0: fsx-MDT0000-mdc-ffff8c0e1: operation mds_reint to node 10.0.2.9@tcp failed: rc = -107",
            ("filesystem.lustre_operation_failed", "lustre", "info", "none"),
        ),
        (
            "LustreError: 4711:0:(osc_cache.c:1143:osc_extent_make_ready()) LBUG",
            ("host.lustre_bug", "lustre", "degraded", "reboot"),
        ),
        (
            "LustreError: 4711:0:(osc_cache.c:1143:osc_extent_make_ready()) ASSERTION( last_oap_count > 0 ) failed: ",
            ("host.lustre_bug", "lustre", "degraded", "reboot"),
        ),
    ],
)
def test_what_a_line_amounts_to(line: str, expected: tuple[str, str, str, str]) -> None:
    assert outline(ask("kernel_lustre", line)) == [expected]


@pytest.mark.parametrize(
    "back",
    [
        "Lustre: fsx-OST0002-osc-ffff8c0e1: Connection restored to fsx-OST0002 (at 10.0.2.9@tcp)",
        "Lustre: fsx-OST0002-osc-ffff8c0e1: Connection restored to 10.0.2.9@tcp (at 10.0.2.9@tcp)",
    ],
)
def test_a_connection_that_came_back(back: str) -> None:
    found = ask("kernel_lustre", LOST, EVICTED, back)
    assert [f.evidence["is_restored"] for f in found] == [True, True]
    assert ask("kernel_lustre", LOST)[0].evidence["is_restored"] is False
    assert ask("kernel_lustre", back) == []


def test_no_number_of_evictions_makes_the_node_bad() -> None:
    assert {f.severity.word for f in ask("kernel_lustre", *[EVICTED] * 500)} == {"warn"}


def test_nothing_above_a_warning_on_a_healthy_machine() -> None:
    assert is_silent_on_benign("kernel_lustre")


@given(st.lists(st.text(max_size=120), max_size=8), st.sampled_from(BEGINNINGS))
def test_no_text_raises(lines: list[str], beginning: str) -> None:
    ask("kernel_lustre", *lines, *[beginning + line for line in lines])
