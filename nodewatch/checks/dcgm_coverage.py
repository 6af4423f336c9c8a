"""Whether a run of DCGM's diagnostic proves anything: it ended well, and tested the hardware."""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import DcgmDiagSample, DcgmResult
from nodewatch.model.health import Finding


@check(reads=DcgmDiagSample, phases=Phase.EPILOG | Phase.DEEP, every_s=3600.0)
def dcgm_coverage(sample: DcgmDiagSample) -> Iterator[Finding]:
    """No findings: raises SensorError when the run cannot count as a pass, whatever dcgm_diag found in it.

    It did not run or end, ran no test, has a status that nobody described, or skipped every test beyond the deployment's:
    skipped is not passed. Apart from dcgm_diag, since a check that cannot tell has no findings.
    """
    if sample.runtime_error:
        raise SensorError(
            f"DCGM's diagnostic did not run to its end ({sample.runtime_error.strip()[:200]}): run it again"
        )
    if not sample.results:
        raise SensorError("DCGM's diagnostic ran no test: run it again with a level, such as -r 2")
    unknown = sorted({result.said for result in sample.results if result.status == "unknown"})
    if unknown:
        said = ", ".join(unknown)[:200]
        raise SensorError(f"DCGM's diagnostic has results that are neither pass nor fail ({said}): read its output")
    tested = [result for result in sample.results if not _is_deployment(result)] or list(sample.results)
    if all(result.status == "skip" for result in tested):
        raise SensorError("DCGM's diagnostic skipped every test of the hardware, which is no pass: look why it did")
    return iter(())


def _is_deployment(result: DcgmResult) -> bool:
    return result.category.lower() == "deployment" or result.test.lower() == "software"
