"""Output of a Lustre client's tools, each alone and all in one file."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.checks.lustre_health import lustre_health
from nodewatch.checks.lustre_lnet import Thresholds as Health
from nodewatch.checks.lustre_lnet import lustre_lnet
from nodewatch.checks.lustre_servers import lustre_servers
from nodewatch.checks.lustre_space import Thresholds, lustre_space
from nodewatch.errors import SensorError
from nodewatch.model.health import Severity
from nodewatch.model.storage_samples import LnetInterface, LustreSample, LustreUsage
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.lustre import load

SERVERS = (
    "fsx1-OST0000-osc-ffff9a3c41d2e800 active.\nfsx1-OST0001-osc-ffff9a3c41d2e800 active.\n"
    "fsx1-MDT0000-mdc-ffff9a3c41d2e800 active.\nMGC10.1.2.3@tcp active.\n"
)
DF = (
    "UUID                       bytes        Used   Available Use% Mounted on\n"
    "fsx1-MDT0000_UUID          34.5G        6.9M       34.4G   1% /fsx[MDT:0]\n"
    "fsx1-OST0000_UUID           1.1T      202.4G      938.1G  18% /fsx[OST:0]\n"
    "fsx1-OST000a_UUID           1.1T      200.1G      940.4G  18% /fsx[OST:10]\n\n"
    "filesystem_summary:         2.2T      402.5G        1.8T  18% /fsx\n\n"
)
INODES = (
    "UUID                      Inodes       IUsed       IFree IUse% Mounted on\n"
    "fsx1-MDT0000_UUID       13.1M       13.0M       100.0K  99% /fsx[MDT:0]\n"
    "\nfilesystem_summary:     13.1M       13.0M       100.0K  99% /fsx\n"
)
NET = (
    "net:\n    - net type: lo\n      local NI(s):\n        - nid: 0@lo\n          status: up\n"
    "    - net type: tcp\n      local NI(s):\n        - nid: 10.1.2.9@tcp\n          status: up\n"
    "          interfaces:\n              0: ens5\n          statistics:\n              send_count: 812\n"
    "          health stats:\n              fatal_error: 0\n              health value: 1000\n"
)
PEER = (
    "peer:\n    - primary nid: 10.1.2.3@tcp\n      Multi-Rail: True\n      peer ni:\n        - nid: 10.1.2.3@tcp\n"
    "          state: NA\n          health stats:\n              health value: 1000\n"
)
IMPORT = (
    "osc.fsx1-OST0000-osc-ffff9a3c41d2e800.import=\nimport:\n    name: fsx1-OST0000-osc-ffff9a3c41d2e800\n"
    "    target: fsx1-OST0000_UUID\n    state: FULL\n    connect_flags: [ write_grant, server_lock ]\n"
    "    connection:\n       failover_nids: [ 10.1.2.4@tcp ]\n       current_connection: 10.1.2.4@tcp\n"
)
STATE = "mdc.fsx1-MDT0000-mdc-ffff9a3c41d2e800.state=\ncurrent_state: IDLE\nstate_history:\n - [ 1767225600, FULL ]\n"
OSC = "fsx1-OST0000-osc-ffff9a3c41d2e800"
ALL = SERVERS + DF + NET + PEER + IMPORT + STATE + "health_check=healthy\n"


def read(tmp_path: Path, data: str | bytes) -> LustreSample:
    path = tmp_path / "out.txt"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    (sample,) = load(Recording(path=path))
    return sample


def judge(sample: LustreSample) -> list[tuple[str, str, Severity]]:
    findings = [
        *lustre_servers(sample),
        *lustre_space(sample, Thresholds()),
        *lustre_lnet(sample, Health()),
        *lustre_health(sample),
    ]
    assert all(f.family == "filesystem" and f.severity <= Severity.DEGRADED for f in findings)
    return [(f.fault, f.subject, f.severity) for f in findings]


@pytest.mark.parametrize("text", [SERVERS, DF, NET, PEER, IMPORT, STATE, "healthy\n", ALL, ALL.replace("\n", "\r\n")])
def test_what_is_well(tmp_path: Path, text: str) -> None:
    assert judge(read(tmp_path, text)) == []


SERVER = "osc.fsx1-OST0000-osc-ffff9a3c41d2e800.ost_server_uuid=fsx1-OST0000_UUID\t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SERVER + "FULL\n", []),
        ("fsx1-OST0000_UUID\tFULL\nfsx1-MDT0000_UUID\tIDLE\n", []),
        (SERVER + "DISCONN\n", [("filesystem.server_unreachable", Severity.DEGRADED)]),
        (SERVER + "DISCONN\tDEACTIVATED\n", [("filesystem.server_not_ready", Severity.WARN)]),
        (
            "  1 UP lov fsx1-clilov-ffff9a3c 2bce2de2 3\n  4 IN osc fsx1-OST0000-osc-ffff9a3c 2bce2de2 4\n",
            [("filesystem.server_not_ready", Severity.WARN)],
        ),
    ],
)
def test_what_lctl_says_of_servers(tmp_path: Path, text: str, expected: object) -> None:
    path = tmp_path / "out.txt"
    path.write_text(text)
    (sample,) = load(Recording(path=path))
    assert [(finding.fault, finding.severity) for finding in lustre_servers(sample)] == expected


@pytest.mark.parametrize(
    "text", ["  4 UP osc fsx1-OST0000-osc-ffff9a3c 2bce2de2 4\n", NET[: NET.index("    - net type: tcp")]]
)
def test_what_proves_nothing_of_a_server(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.txt"
    path.write_text(text)
    with pytest.raises(SensorError):
        for sample in load(Recording(path=path)):
            list(lustre_servers(sample))


def test_all_in_one_file(tmp_path: Path) -> None:
    sample = read(tmp_path, ALL)
    assert [(item.name.split("-")[1] if "-" in item.name else item.name, item.state) for item in sample.targets] == [
        ("OST0000", "ACTIVE"),
        ("OST0001", "ACTIVE"),
        ("MDT0000", "ACTIVE"),
        ("MGC10.1.2.3@tcp", "ACTIVE"),
        ("OST0000", "FULL"),
        ("MDT0000", "IDLE"),
    ]
    assert sample.usages[-1] == LustreUsage(name="filesystem_summary", mount="/fsx", percent=18, is_summary=True)
    assert sample.interfaces == (
        LnetInterface(nid="0@lo", status="up"),
        LnetInterface(nid="10.1.2.9@tcp", status="up", health=1000),
        LnetInterface(nid="10.1.2.3@tcp", status="na", health=1000, is_peer=True),
    )
    assert (sample.health, sample.lnet_error, sample.incomplete) == ("healthy", None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SERVERS + "lfs check: error: check 'fsx1-OST0002-osc-ffff9a3c41d2e800': Input/output error (5)\n",
            ("filesystem.server_unreachable", "fsx1-OST0002-osc-ffff9a3c41d2e800", Severity.DEGRADED),
        ),
        (
            DF.replace("\n\nfile", "\nfsx1-OST0002_UUID     : Resource temporarily unavailable\n\nfile"),
            ("filesystem.server_unreachable", "fsx1-OST0002_UUID", Severity.DEGRADED),
        ),
        (
            DF.replace("\n\nfile", "\nOST0003             : inactive device\n\nfile"),
            ("filesystem.server_not_ready", "OST0003", Severity.WARN),
        ),
        (IMPORT.replace("FULL", "EVICTED"), ("filesystem.server_unreachable", OSC, Severity.DEGRADED)),
        (IMPORT.replace("FULL", "REPLAY_WAIT"), ("filesystem.server_not_ready", OSC, Severity.WARN)),
        (
            NET.replace("up\n          inter", "down\n          inter"),
            ("filesystem.lnet_down", "10.1.2.9@tcp", Severity.DEGRADED),
        ),
        (NET.replace("1000", "640"), ("filesystem.lnet_unhealthy", "10.1.2.9@tcp", Severity.WARN)),
        (
            "---\nshow:\n-     net:\n      errno: -100\n      descr: ! x\n...\n",
            ("filesystem.lnet_down", "lnet", Severity.DEGRADED),
        ),
        ("opening /dev/lnet failed: No such device\n", ("filesystem.lnet_down", "lnet", Severity.DEGRADED)),
        ("LBUG\n", ("filesystem.client_unhealthy", "lustre", Severity.DEGRADED)),
        (DF.replace("18% /fsx\n\n", "99% /fsx\n\n"), ("filesystem.space", "/fsx", Severity.DEGRADED)),
        (DF.replace("18% /fsx\n\n", "91% /fsx\n\n"), ("filesystem.space", "/fsx", Severity.WARN)),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, expected: object) -> None:
    assert judge(read(tmp_path, text)) == [expected]


def test_inodes(tmp_path: Path) -> None:
    assert judge(read(tmp_path, INODES)) == [
        ("filesystem.inodes", "fsx1-MDT0000_UUID", Severity.WARN),
        ("filesystem.inodes", "/fsx", Severity.DEGRADED),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        "lfs: command not found\n",
        DF[:260],
        DF.split("filesystem_summary")[0],
        SERVERS[:-4],
        IMPORT[:100],
        IMPORT.replace("FULL", "FU"),
    ],
)
def test_what_is_cut_off_or_something_else_is_never_good(tmp_path: Path, text: str) -> None:
    with pytest.raises(SensorError):
        judge(read(tmp_path, text))


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "osc" / "fsx1-OST0000-osc-ffff").mkdir(parents=True)
    (tmp_path / "osc" / "fsx1-OST0000-osc-ffff" / "import").write_text(IMPORT.split("import=\n")[1])
    (tmp_path / "health_check").write_text("healthy\n")
    (sample,) = load(Recording(path=tmp_path))
    assert (sample.health, [item.state for item in sample.targets]) == ("healthy", ["FULL"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.one_of(st.sampled_from(ALL.splitlines(keepends=True)), st.text(max_size=20)), max_size=30),
    st.binary(max_size=30),
)
def test_only_sensor_errors_are_raised(tmp_path: Path, parts: list[str], tail: bytes) -> None:
    with contextlib.suppress(SensorError):
        judge(read(tmp_path, "".join(parts).encode(errors="replace") + tail))
