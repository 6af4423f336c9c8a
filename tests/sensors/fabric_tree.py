"""A tree like /sys/class/infiniband for the tests of its sensors, and how a sensor is read in a test."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from nodewatch.sensors.reading import PolledSensor, Reading

EFA_FILES: Mapping[str, str] = {
    "device/vendor": "0x1d0f",
    "ports/1/state": "4: ACTIVE",
    "ports/1/phys_state": "5: LinkUp",
    "hw_counters/cmds_err": "2",
    "hw_counters/no_completion_cmds": "0",
    "hw_counters/submitted_cmds": "100",
    "hw_counters/completed_cmds": "100",
    "ports/1/hw_counters/rx_drops": "0",
    "ports/1/hw_counters/retrans_timeout_events": "0",
    "ports/1/hw_counters/unresponsive_remote_events": "0",
    "ports/1/hw_counters/impaired_remote_conn_events": "0",
    "ports/1/hw_counters/rdma_read_wr_err": "0",
    "ports/1/hw_counters/rdma_write_wr_err": "0",
}
MLX5_FILES: Mapping[str, str] = {
    "device/vendor": "0x15b3",
    "device/device": "0x1021",
    "board_id": "MT_0000000838",
    "hca_type": "MT4129",
    "ports/1/state": "4: ACTIVE",
    "ports/1/phys_state": "5: LinkUp",
    "ports/1/link_layer": "InfiniBand",
    "ports/1/rate": "400 Gb/sec (4X NDR)",
    "ports/1/counters/symbol_error": "0",
    "ports/1/counters/port_xmit_discards": "N/A (no PMA)",
    "ports/1/hw_counters/rnr_nak_retry_err": "3",
}


def device(tree: Path, name: str, files: Mapping[str, str] = EFA_FILES, **changes: str) -> None:
    """Make the device, or write its files anew. A change is named by the file's own name: `rx_drops="5"`."""
    real = tree.parent / "devices" / name
    for path, text in files.items():
        (real / path).parent.mkdir(parents=True, exist_ok=True)
        (real / path).write_text(changes.get(Path(path).name, text) + "\n")
    tree.mkdir(exist_ok=True)
    if not (tree / name).exists():
        (tree / name).symlink_to(real)


def read(sensor: PolledSensor, at: float | None = None, seconds: float = 5.0) -> Reading:
    """One reading; the sensor is told that it is `at`, and the true time without it."""
    sensor.start(time.monotonic() if at is None else at)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic() if at is None else at)
        if reading is not None:
            return reading
        time.sleep(0.01)
    raise AssertionError("no reading")
