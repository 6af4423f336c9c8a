"""host_modules: what is missed for which hardware, and what cures it."""

from __future__ import annotations

import pytest

from nodewatch.checks.host_modules import HostModulesThresholds, host_modules
from nodewatch.errors import SensorError
from nodewatch.model.network_samples import ModulesSample


def judge(hardware: str, loaded: str, installed: str = "", **thresholds: object) -> list[tuple[str, str, str]]:
    sample = ModulesSample(
        hardware=frozenset(hardware.split()),
        loaded=frozenset(loaded.split()),
        installed=frozenset(installed.split()),
        kernel="6.8.0-aws",
        uptime_s=5000.0,
    )
    found = list(host_modules(sample, HostModulesThresholds(**thresholds)))  # type: ignore[arg-type]
    assert {finding.fault for finding in found} <= {"host.module_missing"}
    return [(finding.subject, finding.severity.word, finding.remedy.word) for finding in found]


@pytest.mark.parametrize(
    ("hardware", "loaded", "installed", "expected"),
    [
        ("", "", "nvidia efa lustre gdrdrv", []),
        ("nvidia efa lustre", "nvidia nvidia_uvm efa ib_uverbs lustre lnet", "", []),
        ("nvidia", "nvidia_uvm", "nvidia", [("nvidia", "degraded", "restart_service")]),
        # Not built for this kernel: no reboot cures it.
        ("nvidia", "nvidia_uvm", "", [("nvidia", "degraded", "human")]),
        ("nvidia", "nvidia", "nvidia_uvm", [("nvidia_uvm", "warn", "restart_service")]),
        ("efa", "ib_uverbs", "efa", [("efa", "degraded", "restart_service")]),
        ("efa", "efa", "", [("ib_uverbs", "degraded", "human")]),
        ("infiniband", "mlx5_core ib_uverbs", "mlx5_ib", [("mlx5_ib", "degraded", "restart_service")]),
        ("lustre", "", "lnet lustre", [("lustre", "warn", "restart_service"), ("lnet", "warn", "restart_service")]),
        # What makes a GPU's data faster is missed only where it is installed, and where there is a fabric for it.
        ("nvidia efa", "nvidia nvidia_uvm efa ib_uverbs", "gdrdrv", [("gdrdrv", "info", "restart_service")]),
        ("nvidia efa", "nvidia nvidia_uvm efa ib_uverbs", "nvidia_peermem", []),
        ("nvidia", "nvidia nvidia_uvm", "gdrdrv nvidia_peermem", []),
        (
            "nvidia infiniband",
            "nvidia nvidia_uvm mlx5_core mlx5_ib ib_uverbs",
            "nvidia_peermem",
            [("nvidia_peermem", "info", "restart_service")],
        ),
    ],
)
def test_what_is_missed(hardware: str, loaded: str, installed: str, expected: list[tuple[str, str, str]]) -> None:
    assert judge(hardware, loaded, installed) == expected


def test_what_the_site_does_without() -> None:
    assert judge("nvidia", "nvidia", ignored=("nvidia_uvm",)) == []


def test_after_a_boot_it_may_still_be_loaded() -> None:
    sample = ModulesSample(hardware=frozenset({"efa"}), loaded=frozenset(), installed=frozenset(), uptime_s=30.0)
    with pytest.raises(SensorError, match="efa"):
        list(host_modules(sample, HostModulesThresholds()))
