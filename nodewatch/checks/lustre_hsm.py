"""Files of a linked data repository (HSM) whose content is not in the file system, or nowhere any more.

The client knows this of single files alone, so those that matter are named in agent.toml (`hsm_files`), such as the newest
checkpoint. A released file is fetched at its first read, which waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.storage_samples import HsmFile, LustreSample


@check(reads=LustreSample, phases=Phase.PERIODIC, every_s=300.0)
def lustre_hsm(sample: LustreSample) -> Iterator[Finding]:
    """`filesystem.hsm_lost`, a warning for a human: the archive has lost the file. `filesystem.hsm_released`, information. No
    machine is at fault for either."""
    for file in sample.hsm:
        if "lost_from_hsm" in file.flags:
            yield _finding(file, "filesystem.hsm_lost", Severity.WARN, Remedy.HUMAN)
        elif "released" in file.flags:
            yield _finding(file, "filesystem.hsm_released", Severity.INFO, Remedy.NONE)


def _finding(file: HsmFile, fault: str, severity: Severity, remedy: Remedy) -> Finding:
    return Finding(
        fault=fault,
        subject=file.path,
        severity=severity,
        remedy=remedy,
        evidence={"flags": sorted(file.flags), "source": "lfs hsm_state"},
    )
