"""Releases of DCGM, its host engine and the driver that do not fit together: configuration, never hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.model.gpu_samples import DcgmEngineSample
from nodewatch.model.health import Finding, Remedy, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmVersionThresholds:
    """From which driver on an older DCGM does not work."""

    driver: int = 580
    """The first driver of CUDA 13."""
    dcgm: int = 4
    """Driver 580 with DCGM 3.3.9 made every epilog of a fleet fail (GoogleCloudPlatform/cluster-toolkit #5821)."""


@check(reads=DcgmEngineSample, phases=Phase.PERIODIC, every_s=300.0, thresholds=DcgmVersionThresholds)
def dcgm_version(sample: DcgmEngineSample, thresholds: DcgmVersionThresholds) -> Iterator[Finding]:
    """`config.dcgm_mismatch`, a warning: the engine runs another release than is installed (restart_service), or DCGM is too
    old for the driver (human). An upgrade makes every node alike, so none is drained."""
    said: dict[str, object] = {
        "version": sample.version,
        "engine_version": sample.engine_version,
        "driver_version": sample.driver_version,
        "source": "dcgmi -v",
    }
    if sample.version and sample.engine_version and sample.version != sample.engine_version:
        yield _finding("nv-hostengine", Remedy.RESTART_SERVICE, said)
    release = _major(sample.engine_version or sample.version)
    driver = _major(sample.driver_version)
    if release is not None and driver is not None and driver >= thresholds.driver and release < thresholds.dcgm:
        yield _finding("driver", Remedy.HUMAN, {**said, "needs": f"DCGM {thresholds.dcgm} or later"})


def _major(version: str | None) -> int | None:
    first = (version or "").partition(".")[0]
    return int(first) if first.isascii() and first.isdecimal() and len(first) <= 6 else None


def _finding(subject: str, remedy: Remedy, evidence: dict[str, object]) -> Finding:
    return Finding(
        fault="config.dcgm_mismatch", subject=subject, severity=Severity.WARN, remedy=remedy, evidence=evidence
    )
