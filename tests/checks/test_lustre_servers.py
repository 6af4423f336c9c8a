"""lustre_servers: states of targets; a server's trouble never costs a machine."""

from __future__ import annotations

import pytest

from nodewatch.checks.lustre_servers import lustre_servers
from nodewatch.errors import SensorError
from nodewatch.model.health import Remedy, Severity
from nodewatch.model.storage_samples import LustreSample, LustreTarget


@pytest.mark.parametrize(
    ("state", "severity"),
    [
        ("ACTIVE", None),
        ("FULL", None),
        ("IDLE", None),
        ("INACTIVE", Severity.WARN),
        ("RECOVER", Severity.WARN),
        ("DISCONN", Severity.DEGRADED),
        ("EVICTED", Severity.DEGRADED),
        ("ERROR", Severity.DEGRADED),
    ],
)
def test_states(state: str, severity: Severity | None) -> None:
    findings = list(lustre_servers(LustreSample(targets=(LustreTarget(name="t", state=state, said="why"),))))
    assert [(f.severity, f.remedy) for f in findings] == ([] if severity is None else [(severity, Remedy.HUMAN)])
    assert all(f.evidence["state"] == state for f in findings)


def test_the_worst_of_a_target_counts_once() -> None:
    targets = tuple(LustreTarget(name="t", state=state) for state in ("INACTIVE", "ERROR", "CONNECTING"))
    (finding,) = lustre_servers(LustreSample(targets=targets))
    assert finding.severity is Severity.DEGRADED


def test_what_was_cut_off_is_unknown_unless_something_is_wrong() -> None:
    good, bad = LustreTarget(name="a", state="FULL"), LustreTarget(name="b", state="EVICTED")
    for sample in (
        LustreSample(targets=(good,), incomplete="x"),
        LustreSample(targets=(LustreTarget(name="a", state="FU"),)),
    ):
        with pytest.raises(SensorError):
            list(lustre_servers(sample))
    assert len(list(lustre_servers(LustreSample(targets=(good, bad), incomplete="x")))) == 1
