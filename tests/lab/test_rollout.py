"""The playbooks over real SSH, on a plain Slurm cluster with a prolog of its own and jobs that run through all of it."""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from nodewatch.lab import machine, product
from nodewatch.lab.up import checkout
from tests.lab import rehearsal
from tests.lab.rehearsal import LAYOUT, UP_DEADLINE_S, lab, on
from tests.packaging.trees import with_version

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]

NODES = ("n1", "n2", "n3", "n4", "n5")
MACHINES = ("head", *NODES)
until = partial(rehearsal.until, deadline_s=90)
SITE_LINES = "Prolog=/opt/site/prolog\nHealthCheckProgram=/opt/site/health\nHealthCheckInterval=20\n"
PROLOG = '#!/bin/sh\necho "$SLURM_JOB_ID" >>/opt/site/prologs\n'
HEALTH = "#!/bin/sh\ndate +%s >/opt/site/checked\n"
LONG = """#!/bin/sh
# One task a node; each says that it lives, until the file appears.
exec srun --kill-on-bad-exit=1 sh -c '
until [ -e /fsx/enough ]; do
    echo "$(date +%s) $SLURMD_NODENAME ${SLURM_RESTART_COUNT:-0}" >>/fsx/long.$SLURMD_NODENAME
    sleep 1
done'
"""
SHORT = """#!/bin/sh
sleep 4
echo "$SLURM_ARRAY_TASK_ID ${SLURM_RESTART_COUNT:-0}" >>/fsx/short
"""
# What a running machine writes by itself, and Ansible's own leavings in its home.
LIVE = (
    "var/log", "var/lib/systemd", "var/lib/slurm", "var/lib/dpkg", "var/cache", "var/tmp", "tmp", "run", "root/.ansible",
    "opt/site/prologs", "opt/site/checked", "etc/machine-id", "etc/.pwd.lock", "var/lib/private", "var/spool", "root/.cache",
    "var/lib/dbus", "var/lib/munge",
)  # fmt: skip


def trees() -> dict[str, dict[str, str]]:
    """What each machine has written above its image: paths with kind, mode, owner and a hash of what is in them."""
    found = {}
    for each in machine.machines(LAYOUT):
        upper = LAYOUT.machine(each.ident) / "upper"
        seen = {}
        for place, directories, files in os.walk(upper):
            for name in [*directories, *files]:
                path = Path(place, name)
                inside = str(path.relative_to(upper))
                if inside.startswith(LIVE):
                    continue
                kind = path.lstat()
                what = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
                # A directory that stands above the image only because something below it was once written is no change.
                if not path.is_dir() or path.is_symlink():
                    seen[inside] = f"{kind.st_mode:o} {kind.st_uid}:{kind.st_gid} {what}"
        found[each.name] = seen
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    code: int
    output: str
    seconds: float

    @property
    def changed(self) -> dict[str, int]:
        return {name: int(n) for name, n in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.MULTILINE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    inventory: Path
    packages: Path
    conf: str
    before: dict[str, dict[str, str]]
    job: int

    def play(self, playbook: str, *words: str, version: str = "0.1.0") -> Play:
        ansible = Path(sys.executable).with_name("ansible-playbook")
        begun = time.monotonic()
        done = lab(
            "exec", "cloud", "--", "env", f"ANSIBLE_CONFIG={checkout() / 'ansible/ansible.cfg'}", "ANSIBLE_NOCOLOR=1",
            str(ansible), "-i", str(self.inventory), str(checkout() / "ansible" / playbook),
            "-e", f"nodewatch_version={version}", "-e", f"nodewatch_packages_dir={self.packages}", *words,
            deadline_s=600,
        )  # fmt: skip
        play = Play(code=done.returncode, output=done.stdout + done.stderr, seconds=time.monotonic() - begun)
        print(f"{playbook} {' '.join(words)} {version}: {play.seconds:.0f} s, exit {play.code}, changed {play.changed}")
        return play

    def versions(self, package: str = "nodewatch-agent") -> dict[str, str]:
        return {n: on(n, "dpkg-query", "-W", "-f=${Version}", package) for n in NODES}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    lab("down")
    place = tmp_path_factory.mktemp("rollout")
    done = lab("up", "--plain", "--nodes", "5", "--spares", "0", "--json", deadline_s=UP_DEADLINE_S)
    try:
        assert done.returncode == 0, done.stderr
        packages = _packages(place)
        for name in MACHINES:
            on(name, "mkdir", "-p", "/opt/site")
            for program, text in (("prolog", PROLOG), ("health", HEALTH)):
                on(name, "sh", "-c", f"cat >/opt/site/{program} && chmod 755 /opt/site/{program}", text=text)
        on("head", "sh", "-c", "cat >>/etc/slurm/slurm.conf", text=SITE_LINES)
        on("head", "scontrol", "reconfigure")
        inventory = place / "hosts.json"
        inventory.write_text(lab("inventory").stdout)
        (place / "long").write_text(LONG)
        job = on("head", "sbatch", "--parsable", "-N5", "--ntasks-per-node=1", "-o", "/fsx/long.out", text=LONG)
        on("head", "sbatch", "--parsable", "--array=1-1000%2", "-n1", "-o", "/dev/null", text=SHORT)
        until(lambda: all((LAYOUT.fsx / f"long.{name}").exists() for name in NODES), "the long job runs everywhere")
        yield Site(
            inventory=inventory,
            packages=packages,
            conf=(LAYOUT.etc_slurm / "slurm.conf").read_text(),
            before=trees(),
            job=int(job),
        )
    finally:
        gone = lab("down")
    assert gone.returncode == 0, gone.stderr


def _packages(place: Path) -> Path:
    """Three versions: what is there, one whose agent does not start, and a good one after it."""
    packages = place / "packages"
    packages.mkdir()
    lines: list[str] = []
    built = product.find_packages(product.build_packages(LAYOUT, checkout(), lines.append))
    for package in built:
        shutil.copy(package, packages)
        with_version(package, "0.3.0", packages)
        if package.name.startswith("nodewatch-agent_"):
            _broken(package, packages)
        else:
            with_version(package, "0.2.0", packages)
    return packages


def _broken(package: Path, target: Path) -> None:
    """The agent's package as version 0.2.0, with a program that ends at once."""
    tree = target / ".broken"
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
    (tree / "usr/bin/nodewatch-agent").write_text(
        "#!/bin/sh\ncase \"$*\" in *--check-config*) exit 0 ;; esac\necho 'cannot start' >&2\nexit 1\n"
    )
    broken = target / package.name.replace("0.1.0", "0")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(broken)], check=True)
    shutil.rmtree(tree)
    with_version(broken, "0.2.0", target)
    broken.unlink()


def test_a_check_says_what_would_change_and_changes_nothing(site: Site) -> None:
    run = site.play("site.yml", "--check", "--diff")

    assert run.code == 0, run.output
    assert "+nodewatch-agent 0.1.0" in run.output
    assert "+HealthCheckProgram=/etc/nodewatch/chain/healthcheck" in run.output
    assert trees() == site.before
    assert (LAYOUT.etc_slurm / "slurm.conf").read_text() == site.conf


def test_it_is_rolled_out_beside_running_jobs(site: Site) -> None:
    run = site.play("site.yml")

    assert run.code == 0, run.output
    status = json.loads(lab("exec", "head", "--", "nodewatch", "status", "--json").stdout)
    assert {node["node"]: node["health"] for node in status["nodes"]} == dict.fromkeys(NODES, "healthy")
    # What the site had is still run, and ours beside it.
    begun = len(on("n1", "cat", "/opt/site/prologs").split())
    until(lambda: len(on("n1", "cat", "/opt/site/prologs").split()) > begun, "the site's prolog runs on")
    checked = int(on("n2", "cat", "/opt/site/checked"))
    until(lambda: int(on("n2", "cat", "/opt/site/checked")) > checked, "the site's health check runs on")
    assert "Prolog[1]" in on("head", "scontrol", "show", "config")


def test_a_second_run_changes_nothing(site: Site) -> None:
    run = site.play("site.yml")

    assert run.code == 0, run.output
    assert run.changed == dict.fromkeys(MACHINES, 0), run.output


def test_an_upgrade_stops_at_a_canary_whose_agent_does_not_start(site: Site) -> None:
    run = site.play("site.yml", "-e", "nodewatch_gate_timeout_s=15", version="0.2.0")

    assert run.code != 0
    assert "The rollout has stopped at n1" in run.output
    assert "the agent does not answer" in run.output
    assert site.versions() == {"n1": "0.2.0"} | dict.fromkeys(NODES[1:], "0.1.0")
    # A node without an agent takes jobs all the same: hooks that get no answer allow.
    assert on("head", "sinfo", "-h", "-n", "n1", "-o", "%T") in ("idle", "mixed", "allocated")


def test_a_rollback_brings_the_good_version_back(site: Site) -> None:
    run = site.play("rollback.yml")

    assert run.code == 0, run.output
    assert site.versions() == dict.fromkeys(NODES, "0.1.0")
    assert on("n1", "systemctl", "is-active", "nodewatch-agent") == "active"
    assert on("head", "dpkg-query", "-W", "-f=${Version}", "nodewatch-controller") == "0.1.0"


def test_the_version_after_it_is_rolled_out_to_all(site: Site) -> None:
    run = site.play("site.yml", version="0.3.0")

    assert run.code == 0, run.output
    assert site.versions() == dict.fromkeys(NODES, "0.3.0")
    assert on("head", "dpkg-query", "-W", "-f=${Version}", "nodewatch-controller") == "0.3.0"


def test_an_uninstallation_leaves_every_machine_as_it_was(site: Site) -> None:
    run = site.play("uninstall.yml")

    assert run.code == 0, run.output
    assert (LAYOUT.etc_slurm / "slurm.conf").read_text() == site.conf
    after = trees()
    for name in MACHINES:
        assert after[name] == site.before[name], name
    for name in MACHINES:
        units = lab("exec", name, "--", "systemctl", "list-unit-files", "--no-legend", "nodewatch-[ac]*").stdout
        assert units == "", name
        assert "nodewatch" not in on(name, "getent", "passwd")
    assert "nodewatch" not in on("head", "scontrol", "show", "config")


def test_no_job_was_disturbed(site: Site) -> None:
    (LAYOUT.fsx / "enough").touch()
    until(
        lambda: "JobState=COMPLETED" in on("head", "scontrol", "show", "job", str(site.job)), "the long job ends well"
    )
    told = on("head", "scontrol", "show", "job", str(site.job))
    assert "Restarts=0" in told
    assert "ExitCode=0:0" in told
    for name in NODES:
        beats = [line.split() for line in (LAYOUT.fsx / f"long.{name}").read_text().splitlines()]
        assert {beat[2] for beat in beats} == {"0"}
        gaps = [int(b[0]) - int(a[0]) for a, b in itertools.pairwise(beats)]
        assert max(gaps) < 20, f"{name} stood still for {max(gaps)} s"
    done = [line.split() for line in (LAYOUT.fsx / "short").read_text().splitlines()]
    assert len(done) > 10
    assert {restarts for _, restarts in done} == {"0"}
    numbers = sorted(int(number) for number, _ in done)
    # In order and none twice: each short job ran once; the last ones may still be waiting.
    assert numbers == list(range(1, len(numbers) + 1)) or len(set(numbers)) == len(numbers)
    assert on("head", "squeue", "-h", "-t", "FAILED,NODE_FAIL,REQUEUED,SPECIAL_EXIT", "-o", "%i %T") == ""
