"""Who acts: the decision by what `scontrol ping` prints, the epochs in a directory, and real controllers on one directory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodewatch.cli.ask import ask
from nodewatch.cli.status import render
from nodewatch.controller.clock import SteadyClock
from nodewatch.controller.fencing import Fence, FencedError, Slurmctld, ask_slurm, parse_ping, stance
from nodewatch.errors import NodewatchError
from nodewatch.journal.pieces import read_all

RESTORE = "*****************************************\n** RESTORE SLURMCTLD DAEMON TO SERVICE **\n" + "*" * 41 + "\n"


def up(host: str) -> Slurmctld:
    return Slurmctld(host=host, is_up=True)


def down(host: str) -> Slurmctld:
    return Slurmctld(host=host, is_up=False)


@pytest.mark.parametrize(
    ("text", "daemons"),
    [
        ("Slurmctld(primary) at head1 is UP\n", (up("head1"),)),
        ("Slurmctld(primary) at head1 is UP\nSlurmctld(backup) at head2 is DOWN\n", (up("head1"), down("head2"))),
        (
            "Slurmctld(primary) at h1.x.org is DOWN\nSlurmctld(backup1) at h2 is UP\nSlurmctld(backup2) at h3 is UP\n"
            + RESTORE,
            (down("h1.x.org"), up("h2"), up("h3")),
        ),
        ("Slurmctld(primary/backup) at head1/head2 are DOWN/UP\n", (down("head1"), up("head2"))),
        ("Slurmctld(primary/backup) at head1/(NULL) are UP/DOWN\n", (up("head1"),)),
        ("Slurmctld(primary) at head1 is DOWN\n" + RESTORE, (down("head1"),)),
        ("", ()),
        ("scontrol: error: s_p_parse_file: unable to status file\n", ()),
        ("Slurmctld(primary/backup) at head1/head2 are UP\n", ()),
    ],
)
def test_scontrol_ping_of_the_releases(text: str, daemons: tuple[Slurmctld, ...]) -> None:
    assert parse_ping(text) == daemons


@pytest.mark.parametrize(
    ("daemons", "own", "may_act", "why"),
    [
        ([up("h1"), up("h2")], "h1", True, ""),
        ([up("h1"), up("h2")], "h2", False, "slurmctld is active on h1"),
        ([down("h1"), up("h2")], "h2", True, ""),
        ([down("h1"), up("h2")], "h1", False, "slurmctld is active on h2"),
        ([down("h1"), up("h2"), up("h3")], "h3", False, "slurmctld is active on h2"),
        ([up("h1.x.org"), up("h2")], "H1", True, ""),
        ([up("h1"), up("h2")], "h1.x.org", True, ""),
        ([up("h1"), up("h2")], "login", False, "slurmctld is active on h1"),
        ([down("h1"), down("h2")], "h1", None, "no slurmctld answers"),
        ([up("h1")], "login", True, ""),
        ([down("h1")], "login", True, ""),
        ([], "h1", None, "`scontrol ping` names no slurmctld"),
    ],
)
def test_who_may_act(daemons: list[Slurmctld], own: str, may_act: bool | None, why: str) -> None:
    told = stance(daemons, {own})
    assert (told.may_act, told.why) == (may_act, why)


def test_without_scontrol_it_cannot_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = ask_slurm({"h1"}, deadline_s=5)
    assert told.may_act is None
    assert "scontrol is not installed" in told.why


# -- epochs -----------------------------------------------------------------------------------------------------------


class Hand:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def fence(directory: Path, host: str, hand: Hand) -> Fence:
    return Fence(directory, takeover_s=30.0, host=host, monotonic=hand)


def test_the_second_is_told_who_acts_and_comes_at_once_when_that_one_is_gone(tmp_path: Path) -> None:
    hand = Hand()
    first, second = fence(tmp_path, "h1", hand), fence(tmp_path, "h2", hand)
    assert first.claim() is None
    first.check()
    why = second.claim()
    assert why is not None
    assert f"the controller on h1 (process {os.getpid()}, since " in why
    with pytest.raises(FencedError, match="stands by"):
        second.check()
    first.close()
    assert second.claim() is None
    assert (second.epoch, second.took_over) == (2, False)


def test_one_who_gives_no_sign_of_life_is_taken_over_from_and_finds_out(tmp_path: Path) -> None:
    hand = Hand()
    first, second = fence(tmp_path, "h1", hand), fence(tmp_path, "h2", hand)
    assert first.claim() is None
    assert second.claim() is not None
    for _ in range(5):
        hand.now += 20
        first.renew()
        assert second.claim() is not None, "it lives"
    hand.now += 29.9
    assert second.claim() is not None
    hand.now += 0.2
    assert second.claim() is None
    assert second.took_over
    for verb in (first.check, first.renew):
        with pytest.raises(FencedError, match=r"taken over from: the controller on h2 \(process"):
            verb()
    second.check()
    assert first.claim() is not None, "the old one has to wait like any other"


def test_many_takeovers_later_the_first_still_finds_out(tmp_path: Path) -> None:
    hand = Hand()
    first = fence(tmp_path, "h1", hand)
    assert first.claim() is None
    others = [fence(tmp_path, f"h{n}", hand) for n in range(2, 9)]
    for other in others:
        other.claim()
        hand.now += 31
        assert other.claim() is None
    with pytest.raises(FencedError):
        first.check()
    others[-1].check()
    assert len(list(tmp_path.glob("epoch-*"))) <= 3


def test_of_two_who_take_over_in_the_same_instant_one_does(tmp_path: Path) -> None:
    hand = Hand()
    first = fence(tmp_path, "h1", hand)
    assert first.claim() is None
    rivals = [fence(tmp_path, name, hand) for name in ("h2", "h3")]
    assert all(rival.claim() for rival in rivals)
    hand.now += 31
    answers = [rival.claim() for rival in rivals]
    assert answers.count(None) == 1
    assert sum(bool(rival.epoch) for rival in rivals) == 1


def test_a_garbled_epoch_file_counts_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "epoch-00000041").write_bytes(b"\0\xff")
    (tmp_path / "epoch-x").write_text("")
    own = fence(tmp_path, "h1", Hand())
    assert own.claim() is None
    assert own.epoch == 42


def test_a_removed_epoch_file_stops_its_holder(tmp_path: Path) -> None:
    own = fence(tmp_path, "h1", Hand())
    assert own.claim() is None
    (tmp_path / "epoch-00000001").unlink()
    with pytest.raises(FencedError, match="another controller is active"):
        own.check()


# -- the clock --------------------------------------------------------------------------------------------------------


def test_the_clock_never_goes_back() -> None:
    wall, steady = Hand(), Hand()
    clock = SteadyClock(wall, steady)
    assert clock() == 50.0
    wall.now, steady.now = 60.0, 60.0
    assert clock() == 60.0
    wall.now, steady.now = -3540.0, 61.0
    assert clock() == 61.0, "set back by an hour: it goes on"
    wall.now, steady.now = -3500.0, 101.0
    assert clock() == 101.0
    wall.now, steady.now = 500.0, 102.0
    assert clock() == 500.0, "the wall clock has overtaken it"
    wall.now, steady.now = 499.5, 102.5
    assert clock() == 500.0, "a small slew is waited out"


# -- processes --------------------------------------------------------------------------------------------------------

NODES = {"nodes": [{"name": "n1", "address": "127.0.0.1", "state": ["IDLE"], "partitions": ["p"]}], "errors": []}
SCONTROL = """#!/bin/sh
case "$*" in
ping) cat "$FAKE/ping" ;;
"show nodes --json") cat "$FAKE/nodes" ;;
"show config") echo "SlurmctldHost[0] = h1" ;;
*) exit 1 ;;
esac
"""
SQUEUE = """#!/bin/sh
echo '{"jobs": [], "errors": []}'
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Site:
    """Two controllers, each with sockets of its own, on one state directory and one fake Slurm."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (directory / "bin").mkdir()
        for name, text in (("scontrol", SCONTROL), ("squeue", SQUEUE)):
            path = directory / "bin" / name
            path.write_text(text)
            path.chmod(0o755)
        (directory / "nodes").write_text(json.dumps(NODES))

    def ping(self, text: str) -> None:
        temporary = self.directory / "ping.new"
        temporary.write_text(text)
        temporary.rename(self.directory / "ping")

    def socket_of(self, host: str) -> Path:
        return self.directory / f"{host}.sock"

    def start(self, host: str) -> subprocess.Popen[bytes]:
        config = self.directory / f"{host}.toml"
        config.write_text(
            f'slurmctld_host = "{host}"\nstate_dir = "{self.state}"\nsocket = "{self.socket_of(host)}"\n'
            f'listen_address = "127.0.0.1"\nlisten_port = {free_port()}\nslurm_user = "root"\n'
            "takeover_s = 2.0\ntick_s = 0.1\n"
            '[[groups]]\nname = "g"\nnodes = ["n1"]\npartition = "p"\n'
        )
        environment = {**os.environ, "FAKE": str(self.directory), "PATH": f"{self.directory}/bin:{os.environ['PATH']}"}
        with (self.directory / f"{host}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "nodewatch.controller.main", "--config", str(config)],
                stderr=log,
                env=environment,
            )
        self.processes[host] = process
        return process

    def says(self, host: str) -> str:
        """What `nodewatch status` prints there."""
        try:
            return render(ask(self.socket_of(host), {"ask": "status"}))
        except NodewatchError as error:
            return str(error)

    def starts(self) -> int:
        """How often a controller has begun to act."""
        try:
            return sum(record.kind == "started" for record in read_all(self.state / "journal.jsonl"))
        except NodewatchError:
            return -1

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


BOTH_UP = "Slurmctld(primary) at h1 is UP\nSlurmctld(backup) at h2 is UP\n"
FAILED_OVER = "Slurmctld(primary) at h1 is DOWN\nSlurmctld(backup) at h2 is UP\n"


def test_the_one_beside_the_active_slurmctld_acts_and_the_other_takes_over_with_it(site: Site) -> None:
    site.ping(BOTH_UP)
    site.start("h2")
    until(lambda: "standing by: slurmctld is active on h1" in site.says("h2"), "h2 stands by")
    assert "n1" in site.says("h2"), "it looks all the same"
    assert site.starts() == 0
    first = site.start("h1")
    until(lambda: "mode observe" in site.says("h1") and "standing by" not in site.says("h1"), "h1 acts")
    site.ping(FAILED_OVER)
    assert first.wait(60) == 3, "h1 stands down"
    until(lambda: "mode observe" in site.says("h2") and "standing by" not in site.says("h2"), "h2 acts")
    assert site.starts() == 2
    site.start("h1")
    until(lambda: "standing by: slurmctld is active on h2" in site.says("h1"), "h1 stands by")


def test_two_on_one_slurmctld_and_the_first_killed(site: Site) -> None:
    site.ping("Slurmctld(primary) at h is UP\n")
    first = site.start("h1")
    until(lambda: site.starts() == 1, "h1 acts")
    site.start("h2")
    until(lambda: f"standing by: the controller on h1 (process {first.pid}, since" in site.says("h2"), "h2 waits")
    assert site.starts() == 1
    first.kill()
    first.wait(30)
    until(lambda: site.starts() == 2, "h2 acts")
    until(lambda: "mode observe" in site.says("h2"), "h2 answers")


def test_one_that_was_stopped_and_woken_finds_that_another_took_over(site: Site) -> None:
    site.ping("Slurmctld(primary) at h is UP\n")
    first = site.start("h1")
    until(lambda: site.starts() == 1, "h1 acts")
    site.start("h2")
    until(lambda: "standing by" in site.says("h2"), "h2 waits")
    first.send_signal(signal.SIGSTOP)
    until(lambda: site.starts() == 2, "h2 takes over")
    before = list(read_all(site.state / "journal.jsonl"))
    first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 3, "it ends by itself"
    assert (
        "standing down: this controller was taken over from: the controller on h2"
        in (site.directory / "h1.log").read_text()
    )
    after = list(read_all(site.state / "journal.jsonl"))
    assert after[: len(before)] == before, "it wrote nothing more"
    assert [record.kind for record in after].count("started") == 2
    assert site.processes["h2"].poll() is None


def test_it_can_be_stopped_while_it_stands_by(site: Site) -> None:
    site.ping(BOTH_UP)
    process = site.start("h2")
    until(lambda: "standing by" in site.says("h2"), "h2 stands by")
    process.terminate()
    assert process.wait(30) == 0
