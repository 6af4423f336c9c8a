"""host_ena_link: interfaces that were up."""

from __future__ import annotations

import pytest

from nodewatch.checks.host_ena_link import host_ena_link
from nodewatch.model.network_samples import EnaInterface, EnaSample


@pytest.mark.parametrize(
    ("state", "were_up", "expected"),
    [
        ("up", ["eth0"], []),
        ("unknown", ["eth0"], []),
        ("", ["eth0"], []),
        ("down", [], []),
        ("down", ["eth0"], [("host.ena_down", "eth0", "degraded", "reboot")]),
        ("lowerlayerdown", ["eth0"], [("host.ena_down", "eth0", "degraded", "reboot")]),
        ("up", ["eth0", "eth7"], [("host.ena_down", "eth7", "degraded", "reboot")]),
    ],
)
def test_states(state: str, were_up: list[str], expected: list[tuple[str, ...]]) -> None:
    sample = EnaSample(interfaces=(EnaInterface(name="eth0", operstate=state),), were_up=frozenset(were_up))
    found = host_ena_link(sample)
    assert [(f.fault, f.subject, f.severity.word, f.remedy.word) for f in found] == expected
