"""ENA interfaces: a tree like /sys/class/net, the real probe against real interfaces, and what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.network_samples import EnaSample
from nodewatch.sensors import ena_probe
from nodewatch.sensors.ena import EnaSensor, interfaces, parse
from nodewatch.sensors.reading import Reading

from .fabric_tree import read

PROBE = Path(ena_probe.__file__)


def interface(net: Path, name: str, *, driver: str = "ena", operstate: str = "up") -> None:
    device = net.parent / "devices" / name
    device.mkdir(parents=True, exist_ok=True)
    if not (device / "driver").is_symlink():
        (device / "driver").symlink_to(Path("../../bus/pci/drivers") / driver)
    (net / name).mkdir(parents=True, exist_ok=True)
    (net / name / "operstate").write_text(operstate + "\n")
    if not (net / name / "device").exists():
        (net / name / "device").symlink_to(device)


def says(text: str) -> tuple[str, ...]:
    return ("sh", "-c", f"printf '{text}'", "sh")


def sample(reading: Reading) -> EnaSample:
    assert isinstance(reading.sample, EnaSample), reading
    return reading.sample


def test_two_readings(tmp_path: Path) -> None:
    net = tmp_path / "net"
    interface(net, "eth0")
    interface(net, "eth1", operstate="down")
    interface(net, "veth7", driver="veth")
    (net / "lo").mkdir()
    assert interfaces(net) == ("eth0", "eth1")
    answer = "eth0 pps_allowance_exceeded 7\\neth0 bw_in_allowance_exceeded 0\\neth1 ! Input/output error\\n"
    sensor = EnaSensor(directory=net, argv=says(answer))
    first = sample(read(sensor, 0.0))
    assert [(item.name, item.operstate, dict(item.allowances), item.error) for item in first.interfaces] == [
        ("eth0", "up", {"pps_allowance_exceeded": 7, "bw_in_allowance_exceeded": 0}, None),
        ("eth1", "down", {}, "Input/output error"),
    ]
    assert (first.previous, first.were_up) == (None, {"eth0"})
    interface(net, "eth0", operstate="down")
    second = sample(read(sensor, 60.0))
    assert (second.previous, second.interval_s, second.were_up) == (first.interfaces, 60.0, {"eth0"})
    sensor.close()


def test_a_machine_without_any_runs_no_command(tmp_path: Path) -> None:
    assert read(EnaSensor(directory=tmp_path / "none", argv=("false",))).not_applicable


def test_a_device_that_does_not_answer(tmp_path: Path) -> None:
    net = tmp_path / "net"
    interface(net, "eth0")
    sensor = EnaSensor(directory=net, deadline_s=0.1, argv=("sh", "-c", "sleep 60", "sh"))
    for _ in range(2):
        assert "0.1 s" in (read(sensor).error or "")
    sensor.close()


def test_the_probe_reads_a_drivers_statistics() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import ena_probe\n"
        "found = ena_probe.statistics('v0'); print(found['rx_queue_0_xdp_packets'], found['peer_ifindex'] > 0)"
    )
    # A network namespace of its own: it is gone with the shell.
    commands = 'ip link add v0 type veth peer name v1 && exec "$@"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", commands, "sh", sys.executable, "-I", "-S", "-c", script, str(PROBE.parent)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("0 True", "")


def test_the_probe_says_what_it_could_not_read() -> None:
    argv = [sys.executable, "-I", "-S", str(PROBE), "lo", "no-such-one"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["lo ! its driver has no allowance counters", "no-such-one ! No such device"]


@given(st.text())
def test_its_output_never_raises(text: str) -> None:
    parse(text, ("eth0",))
    (item,) = parse(f"eth0 pps_allowance_exceeded {text}\n", ("eth0",))
    assert item.allowances or item.error
