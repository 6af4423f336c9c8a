"""Memory of a Neuron device that could not correct an error.

The counters count since the driver was loaded, and any uncorrected error means that data was lost: AWS's node problem
detector for Neuron takes the node out for one in SRAM or HBM and has it replaced. An error that the device can repair
is gone after the reset that a reboot brings. Corrected errors are what the memory is for.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.model.cloud_samples import NeuronSample
from nodewatch.model.health import Finding, Remedy, Severity

_REPAIRABLE = "mem_ecc_repairable_uncorrected"
_COUNTERS = {
    "sram_ecc_uncorrected": ("neuron.ecc_uncorrected", Severity.FATAL, Remedy.REPLACE),
    "mem_ecc_uncorrected": ("neuron.ecc_uncorrected", Severity.FATAL, Remedy.REPLACE),
    _REPAIRABLE: ("neuron.ecc_repairable", Severity.DEGRADED, Remedy.REBOOT),
}


@check(reads=NeuronSample, phases=Phase.PROLOG | Phase.EPILOG | Phase.PERIODIC | Phase.DEEP, every_s=30.0)
def neuron_ecc(sample: NeuronSample) -> Iterator[Finding]:
    """`neuron.ecc_uncorrected` and `neuron.ecc_repairable`, per device and counter.

    Raises SensorError when a device's counters cannot be read, or are missing in a tree that should have them, and no
    other has a finding. neuron-ls shows no counters: it is not judged here.
    """
    clean = True
    unknown: str | None = None
    for device in sample.devices:
        for name, (fault, severity, remedy) in _COUNTERS.items():
            value = device.ecc.get(name, 0)
            if value > 0:
                clean = False
                yield Finding(
                    fault=fault,
                    subject=f"neuron{device.index} {name}",
                    severity=severity,
                    remedy=remedy,
                    evidence={"counter": name, "value": value, "device": device.index, "source": sample.source},
                )
            if name in device.unreadable or (name not in device.ecc and name != _REPAIRABLE):
                unknown = unknown or f"{name} of neuron{device.index}"
    if clean and unknown is not None and sample.source != "neuron-ls":
        raise SensorError(f"{unknown} cannot be read: look at /sys/devices/virtual/neuron_device")
