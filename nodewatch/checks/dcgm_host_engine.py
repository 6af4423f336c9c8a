"""DCGM's host engine does not answer: its watches, and diagnostics before a node's return, are blind.

Killed diagnostics are known to leave it hanging. It is a service: starting it again is the cure, and no job is in danger.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.gpu_samples import DcgmEngineSample
from nodewatch.model.health import Finding, Remedy, Severity


@check(reads=DcgmEngineSample, phases=Phase.PERIODIC, every_s=60.0)
def dcgm_host_engine(sample: DcgmEngineSample) -> Iterator[Finding]:
    """`host.dcgm_engine_down`, a warning, where a host engine is meant to run."""
    if not sample.is_answering:
        yield Finding(
            fault="host.dcgm_engine_down",
            subject="nv-hostengine",
            severity=Severity.WARN,
            remedy=Remedy.RESTART_SERVICE,
            evidence={"said": sample.said, "version": sample.version, "source": "dcgmi -v"},
        )
