"""Libfabric that offers no EFA, or fewer EFA devices than the machine has.

MPI and NCCL reach the EFA devices through libfabric only. That it offers none is certain; why is not: no driver, a
library that was built without EFA, no rights on the device, or the devices. So the machine drains, and the mildest cure
is tried first.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiInfoSample
from nodewatch.model.health import Finding, Remedy, Severity


@check(reads=FiInfoSample, phases=Phase.DEEP, every_s=3600.0)
def efa_provider(sample: FiInfoSample) -> Iterator[Finding]:
    """`efa.no_provider`, or `efa.domain_missing` when there are fewer domains than the instance type has devices.

    Domains are counted, not blocks: efa and efa-direct, rdm and dgrm list a device more than once. Raises SensorError
    for a list that was cut off, and for one without EFA from a machine of which nobody knows whether it has any.
    """
    domains = sorted({_device(item.domain) for item in sample.endpoints if item.provider.split(";")[0] == "efa"})
    others = sorted({item.provider for item in sample.endpoints if item.provider.split(";")[0] != "efa"})
    evidence: dict[str, object] = {
        "expected": sample.expected,
        "seen": len(domains),
        "domains": domains[:64],
        "other_providers": others[:16],
        "said": sample.error,
        "source": "fi_info",
    }
    if sample.incomplete is not None:
        raise SensorError(f"the list of fi_info was cut off ({sample.incomplete}): run it again")
    is_refused = sample.error is not None and sample.expected != 0
    if is_refused or (sample.expected and not domains):
        yield _finding("efa.no_provider", Remedy.RESTART_SERVICE, evidence)
    elif len(domains) < (sample.expected or 0):
        yield _finding("efa.domain_missing", Remedy.REBOOT, evidence)
    elif not domains and sample.expected is None:
        raise SensorError("fi_info lists no efa provider, and whether the machine has EFA is not known: name its type")


def _device(domain: str) -> str:
    for suffix in ("-rdm", "-dgrm"):
        domain = domain.removesuffix(suffix)
    return domain


def _finding(fault: str, remedy: Remedy, evidence: dict[str, object]) -> Finding:
    return Finding(fault=fault, subject="efa", severity=Severity.DEGRADED, remedy=remedy, evidence=evidence)
