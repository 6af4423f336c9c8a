"""A Lustre client asked through tools of the test's own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nodewatch.model.storage_samples import HsmFile, LustreSample
from nodewatch.sensors.commands import CommandSensor
from nodewatch.sensors.lustre import LustreClient, lustre_sensor

from .tools import only, read, tool

MOUNTED = "36 35 98:0 / /fsx rw,noatime master:1 - lustre 10.0.0.1@tcp:/fsx rw\n"
CHECK = "fs-OST0000-osc-ffff8881 active.\nfs-MDT0000-mdc-ffff8881 active.\nMGC10.0.0.1@tcp active."
NET = """net:
    - net type: tcp
      local NI(s):
        - nid: 10.0.0.9@tcp
          status: up
          health stats:
              health value: 1000"""
DF = """UUID                   1K-blocks        Used   Available Use% Mounted on
fs-MDT0000_UUID         1000        100         900  10% /fsx[MDT:0]
fs-OST0000_UUID         1000        970          30  97% /fsx[OST:0]

filesystem_summary:     1000        970          30  97% /fsx"""
HSM = "/fsx/step-1: (0x0000000d) released exists archived, archive_id:1"


class Client:
    """Answers by the tools' arguments; each is a file that a test may rewrite."""

    def __init__(self, place: Path, patch: pytest.MonkeyPatch) -> None:
        self.place = place
        self.asked = place / "asked"
        script = f'echo "$(basename $0) $*" >> {self.asked}; . {place}/$(basename $0)-$1'
        for name in ("lfs", "lnetctl"):
            tool(place / "bin", name, script)
        only(place / "bin", patch)
        (place / "mountinfo").write_text(MOUNTED)
        (place / "sys/fs/lustre").mkdir(parents=True)
        (place / "sys/fs/lustre/health_check").write_text("healthy\n")
        self.says("lfs-check", f"cat <<'END'\n{CHECK}\nEND")
        self.says("lfs-df", f"cat <<'END'\n{DF}\nEND")
        self.says("lfs-hsm_state", f"cat <<'END'\n{HSM}\nEND")
        self.says("lnetctl-net", f"cat <<'END'\n{NET}\nEND")

    def says(self, what: str, script: str) -> None:
        (self.place / what).write_text(script + "\n")

    def sensor(self, *files: str, deadline_s: float = 20.0) -> CommandSensor:
        client = LustreClient(hsm_files=files, root=self.place, mountinfo=self.place / "mountinfo")
        return lustre_sensor(client, deadline_s=deadline_s)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(tmp_path, monkeypatch)


def sample_of(sensor: CommandSensor) -> LustreSample:
    reading = read(sensor)
    assert isinstance(reading.sample, LustreSample), reading
    return reading.sample


def test_all_is_well(client: Client) -> None:
    sensor = client.sensor("/fsx/step-1")
    first = sample_of(sensor)
    assert [target.state for target in first.targets] == ["ACTIVE"] * 3
    assert [(i.nid, i.status, i.health) for i in first.interfaces] == [("10.0.0.9@tcp", "up", 1000)]
    assert (first.health, first.incomplete) == ("healthy", None)
    assert [usage.percent for usage in first.usages if usage.is_summary] == [97, 97]
    assert first.hsm == (HsmFile(path="/fsx/step-1", flags=frozenset({"released", "exists", "archived"})),)
    # Space is asked for seldom, and what it said stands.
    assert sample_of(sensor).usages == first.usages
    assert client.asked.read_text().count("lfs df") == 2
    assert client.asked.read_text().count("lfs check") == 2


def test_a_clock_that_goes_back_asks_for_space_again(client: Client) -> None:
    client_ = LustreClient(root=client.place, mountinfo=client.place / "mountinfo")
    sensor = lustre_sensor(client_, deadline_s=20.0)
    sample_of(sensor)
    assert ("lfs", "df", "/fsx") not in client_.commands(time.monotonic())
    assert ("lfs", "df", "/fsx") in client_.commands(1.0)


def test_a_server_that_is_away_is_told_though_the_rest_hangs(client: Client) -> None:
    client.says(
        "lfs-check",
        f"cat <<'END'\n{CHECK}\nEND\necho \"check 'fs-OST0001-osc-ff': Input/output error (5)\" >&2; exit 5",
    )
    client.says("lfs-df", "exec sleep 60")
    sample = sample_of(client.sensor(deadline_s=1.0))
    assert [target.name for target in sample.targets if target.state == "ERROR"] == ["fs-OST0001-osc-ff"]
    assert "lfs df /fsx did not answer" in (sample.incomplete or "")


@pytest.mark.parametrize(
    ("what", "script", "says"),
    [
        ("lfs-check", "echo 'error: check: Permission denied' >&2; exit 1", "lfs check servers told nothing"),
        ("lfs-check", "exit 127", "status 127"),
        ("lfs-check", "trap '' TERM; sleep 60", "did not answer"),
        ("lfs-check", "true", "told nothing"),
        ("lfs-check", "printf '\\377\\376\\n'", "told nothing"),
        ("lfs-df", "echo 'lfs df: error'; exit 1", "lfs df /fsx told nothing"),
        ("lfs-df", f"echo '{DF[:120]}'", "lfs df"),
        ("lnetctl-net", "exit 126", "status 126"),
    ],
)
def test_what_tells_nothing_is_unknown(client: Client, what: str, script: str, says: str) -> None:
    client.says(what, script)
    reading = read(client.sensor(deadline_s=1.0))
    assert reading.sample is None
    assert says in (reading.error or "")


def test_a_network_that_is_down(client: Client) -> None:
    client.says("lnetctl-net", "echo 'show:'; echo '    - net:'; echo '          errno: -100'; exit 1")
    assert "errno" in (sample_of(client.sensor()).lnet_error or "")


def test_without_a_mount_nothing_is_asked(client: Client) -> None:
    (client.place / "mountinfo").write_text("36 35 98:0 / / rw - ext4 /dev/root rw\n")
    assert "no Lustre" in (read(client.sensor()).not_applicable or "")
    assert not client.asked.exists()
    (client.place / "mountinfo").unlink()
    assert read(client.sensor()).error
