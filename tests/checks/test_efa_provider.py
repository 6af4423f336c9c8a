"""efa_provider: domains counted once each, and what libfabric says when it has none."""

from __future__ import annotations

import pytest

from nodewatch.checks.efa_provider import efa_provider
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiEndpoint, FiInfoSample
from nodewatch.model.health import Remedy, Severity

ONE = (
    FiEndpoint(provider="efa", fabric="efa-direct", domain="rdmap0s27-rdm"),
    FiEndpoint(provider="efa", fabric="efa", domain="rdmap0s27-rdm"),
    FiEndpoint(provider="efa", fabric="efa", domain="rdmap0s27-dgrm"),
    FiEndpoint(provider="efa;ofi_rxd", fabric="efa", domain="rdmap0s27-dgrm"),
)
NO_DATA = "fi_getinfo: -61 (No data available)"


@pytest.mark.parametrize(
    ("endpoints", "error", "expected", "found"),
    [
        (ONE, None, 1, []),
        (ONE, None, None, []),
        (ONE, None, 2, [("efa.domain_missing", Remedy.REBOOT)]),
        ((), NO_DATA, 4, [("efa.no_provider", Remedy.RESTART_SERVICE)]),
        ((), NO_DATA, None, [("efa.no_provider", Remedy.RESTART_SERVICE)]),
        ((), NO_DATA, 0, []),
        ((FiEndpoint(provider="tcp"),), None, 4, [("efa.no_provider", Remedy.RESTART_SERVICE)]),
    ],
)
def test_counts(
    endpoints: tuple[FiEndpoint, ...], error: str | None, expected: int | None, found: list[object]
) -> None:
    findings = list(efa_provider(FiInfoSample(endpoints=endpoints, error=error, expected=expected)))
    assert [(f.fault, f.remedy) for f in findings] == found
    assert all(f.severity is Severity.DEGRADED and f.evidence["expected"] == expected for f in findings)


def test_what_proves_nothing_is_unknown() -> None:
    for sample in (
        FiInfoSample(endpoints=ONE, incomplete="x", expected=1),
        FiInfoSample(endpoints=(FiEndpoint(provider="tcp"),)),
    ):
        with pytest.raises(SensorError):
            list(efa_provider(sample))
