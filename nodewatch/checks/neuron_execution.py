"""Executions on a Neuron device that ended with a hardware error.

Errors of other classes (numerical, model, runtime, bad input) are the program's own. neuron-monitor reports those of
its last period; the driver counts since it was loaded, so its count is judged by its rise, and only warned of where
there is no earlier reading.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.model.cloud_samples import NeuronDevice, NeuronSample
from nodewatch.model.health import Finding, Remedy, Severity


@check(reads=NeuronSample, phases=Phase.EPILOG | Phase.PERIODIC, every_s=30.0)
def neuron_execution(sample: NeuronSample) -> Iterator[Finding]:
    """`neuron.execution_error`, of the machine (neuron-monitor) or of a device (sysfs)."""
    count = sample.runtime_errors.get("hardware", 0)
    if count > 0:
        yield _finding("neuron", Severity.DEGRADED, {"hardware": count, "source": sample.source})
    before = {device.index: device for device in sample.previous or ()}
    for device in sample.devices:
        value = device.executions.get("hw_error", 0)
        rise = _rise(device, before.get(device.index))
        if (value if rise is None else rise) > 0:
            evidence: dict[str, object] = {"hw_error": value, "rise": rise, "source": sample.source}
            yield _finding(f"neuron{device.index}", Severity.WARN if rise is None else Severity.DEGRADED, evidence)


def _rise(now: NeuronDevice, then: NeuronDevice | None) -> int | None:
    """None without an earlier reading, and where the counter was cleared in between."""
    if then is None or "hw_error" not in then.executions:
        return None
    rise = now.executions.get("hw_error", 0) - then.executions["hw_error"]
    return rise if rise >= 0 else None


def _finding(subject: str, severity: Severity, evidence: dict[str, object]) -> Finding:
    return Finding(
        fault="neuron.execution_error", subject=subject, severity=severity, remedy=Remedy.REBOOT, evidence=evidence
    )
