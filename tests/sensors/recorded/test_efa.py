"""Recorded trees of EFA devices: found below a directory, torn, and without anything to say what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.checks.efa_counters import Thresholds as Rates
from nodewatch.checks.efa_counters import efa_counters
from nodewatch.checks.efa_devices import efa_devices
from nodewatch.checks.efa_link import efa_link
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import EfaSample, NetLink
from nodewatch.model.health import Finding
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.efa import load

PORT = {"tx_bytes": 812, "rx_bytes": 911, "rx_drops": 3, "retrans_timeout_events": 7, "lifespan": 12}
OWN = {"submitted_cmds": 120, "completed_cmds": 119, "cmds_err": 2, "no_completion_cmds": 0, "keep_alive_rcvd": 40}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def device(
    tree: Path,
    name: str,
    *,
    vendor: str = "0x1d0f",
    port: dict[str, int] | None = None,
    own: dict[str, int] | None = None,
) -> Path:
    place = tree / name
    write(place / "node_type", "5: <unknown>\n")
    write(place / "node_guid", "0000:0000:0000:0000\n")
    if vendor:
        write(place / "device" / "vendor", vendor + "\n")
    for file, text in (
        ("state", "4: ACTIVE"),
        ("phys_state", "5: LinkUp"),
        ("link_layer", "Unspecified"),
        ("rate", "100 Gb/sec (4X EDR)"),
    ):
        write(place / "ports" / "1" / file, text + "\n")
    for counter, value in (PORT | (port or {})).items():
        write(place / "ports" / "1" / "hw_counters" / counter, f"{value}\n")
    for counter, value in (OWN | (own or {})).items():
        write(place / "hw_counters" / counter, f"{value}\n")
    return place


def read(path: Path, instance_type: str = "", previous: Path | None = None) -> EfaSample:
    (sample,) = load(
        Recording(path=path, instance_type=instance_type, previous=previous, interval_s=60.0 if previous else None)
    )
    return sample


def judged(sample: EfaSample) -> list[Finding]:
    return [*efa_devices(sample), *efa_link(sample), *efa_counters(sample, Rates())]


@pytest.mark.parametrize(
    "below", ["", "infiniband", "class/infiniband", "sys/class/infiniband", "root/sys/class/infiniband"]
)
def test_the_tree_is_found_below_what_is_named(tmp_path: Path, below: str) -> None:
    for number in range(4):
        device(tmp_path / below, f"rdmap{number}s27")
    sample = read(tmp_path, "p4d.24xlarge")
    assert [item.name for item in sample.devices] == [f"rdmap{number}s27" for number in range(4)]
    assert sample.expected == 4
    (port,) = sample.devices[0].ports
    assert (port.number, port.state, port.phys_state, port.rate_gbps) == (1, "ACTIVE", "LinkUp", 100.0)
    assert port.counters["rx_drops"] == 3 and "lifespan" not in port.counters
    assert sample.devices[0].counters["cmds_err"] == 2
    assert judged(sample) == []


def test_one_device_may_be_named_itself(tmp_path: Path) -> None:
    assert [item.name for item in read(device(tmp_path, "efa_0")).devices] == ["efa_0"]


def test_other_vendors_are_not_counted(tmp_path: Path) -> None:
    tree = tmp_path / "infiniband"
    device(tree, "rdmap0s27", vendor="")
    device(tree, "mlx5_0", vendor="0x15b3")
    assert [item.name for item in read(tmp_path).devices] == ["rdmap0s27"]


def test_the_driver_and_the_interface_of_the_same_function(tmp_path: Path) -> None:
    tree = tmp_path / "class" / "infiniband"
    one = device(tree, "rdmap0s27", vendor="")
    write(one / "device" / "uevent", "DRIVER=efa\nPCI_CLASS=20000\n")
    write(one / "device" / "net" / "eth1" / "operstate", "down\n")
    sample = read(tmp_path)
    assert (sample.devices[0].driver, sample.devices[0].links) == ("efa", (NetLink(name="eth1", operstate="down"),))


def test_an_empty_directory_is_judged_only_by_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "infiniband").mkdir()
    with pytest.raises(SensorError):
        read(tmp_path)
    assert [f.fault for f in efa_devices(read(tmp_path, "p5.48xlarge"))] == ["efa.device_missing"]


def test_what_is_no_tree(tmp_path: Path) -> None:
    write(tmp_path / "etc" / "hosts", "127.0.0.1 localhost\n")
    for path in (tmp_path, tmp_path / "etc" / "hosts", tmp_path / "none"):
        with pytest.raises(SensorError):
            read(path, "p5.48xlarge")


def test_a_counter_that_vanished_is_unknown_and_no_fault(tmp_path: Path) -> None:
    device(tmp_path / "then", "rdmap0s27")
    now = device(tmp_path / "now", "rdmap0s27")
    assert judged(read(tmp_path / "now", previous=tmp_path / "then")) == []
    (now / "ports" / "1" / "hw_counters" / "rx_drops").unlink()
    with pytest.raises(SensorError, match="rx_drops"):
        judged(read(tmp_path / "now", previous=tmp_path / "then"))


def test_links_that_lead_nowhere_and_files_that_are_none(tmp_path: Path) -> None:
    one = device(tmp_path, "rdmap0s27")
    (one / "subsystem").symlink_to("../../nowhere")
    (tmp_path / "rdmap1s27").symlink_to("../../devices/nowhere")
    (one / "ports" / "1" / "hw_counters" / "rx_drops").unlink()
    (one / "ports" / "1" / "hw_counters" / "rx_drops").mkdir()
    write(one / "hw_counters" / "cmds_err", "\ufffd\n")
    sample = read(tmp_path)
    assert (len(sample.devices), sample.devices[0].unreadable) == (1, ("cmds_err",))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from(["state", "phys_state", "rate", "hw_counters/rx_drops"]), unique=True),
    data=st.binary(max_size=80),
)
def test_only_sensor_errors_are_raised(tmp_path: Path, names: list[str], data: bytes) -> None:
    one = device(tmp_path / "now", "rdmap0s27")
    device(tmp_path / "then", "rdmap0s27")
    for name in names:
        (one / "ports" / "1" / name).write_bytes(data)
    try:
        judged(read(tmp_path / "now", previous=tmp_path / "then"))
    except SensorError:
        return
    assert "state" not in names or data.strip()
