"""The rehearsal cluster itself: up, jobs, instances that come and go, faults, down, and nothing left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nodewatch.lab import ec2, machine
from nodewatch.lab.down import remains
from nodewatch.lab.layout import INSTANCE_DIR, LAUNCH_TEMPLATE, NODE_TAG
from nodewatch.lab.network import lab_namespaces
from tests.lab import rehearsal
from tests.lab.rehearsal import LAYOUT, UP_DEADLINE_S

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")]

DEADLINE_S = 120.0
lab = partial(rehearsal.lab, deadline_s=DEADLINE_S)
head = partial(rehearsal.on, "head", deadline_s=DEADLINE_S)
eventually = partial(rehearsal.until, why="what this waits for", deadline_s=DEADLINE_S)


def instance_of(node: str) -> ec2.Instance:
    with ec2.inside_cloud() as api:
        rows = [row for row in ec2.instances(api) if row.node == node and row.state == "running"]
    assert len(rows) == 1
    return rows[0]


def sinfo(node: str) -> str:
    return head("sinfo", "-h", "-n", node, "-o", "%T")


def back_in_service(node: str) -> bool:
    """Resume a node that Slurm took out since its uptime fell ("unexpectedly rebooted"); True when it takes jobs."""
    if sinfo(node) == "down":
        head("scontrol", "update", f"nodename={node}", "state=resume")
    return sinfo(node) == "idle"


@pytest.fixture(scope="module")
def plain_lab() -> Iterator[dict[str, Any]]:
    lab("down")
    done = lab("up", "--plain", "--json", deadline_s=UP_DEADLINE_S)
    try:
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)
    finally:
        lab("down")


def test_every_node_is_idle_and_the_machines_are_systems_of_their_own(plain_lab: dict[str, Any]) -> None:
    assert {node["name"]: node["state"] for node in plain_lab["nodes"]} == dict.fromkeys(
        ("n1", "n2", "n3", "n4"), "idle"
    )
    ids = {lab("exec", name, "--", "cat", "/etc/machine-id").stdout for name in ("head", "n1", "n2")}
    assert len(ids) == 3
    assert lab("exec", "n1", "--", "systemctl", "is-system-running").stdout.strip() == "running"
    assert lab("exec", "n1", "--", "systemctl", "is-active", "slurmctld").stdout.strip() == "inactive"


def test_exec_passes_input_and_exit_code_on(plain_lab: dict[str, Any]) -> None:
    assert lab("exec", "n1", "--", "cat", text="through\n").stdout == "through\n"
    assert lab("exec", "n1", "--", "sh", "-c", "exit 7").returncode == 7
    wrong = lab("exec", "n9", "--", "true")
    assert wrong.returncode == 1
    assert "no machine n9" in wrong.stderr


def test_a_job_spans_three_nodes_with_eight_gpus_each(plain_lab: dict[str, Any]) -> None:
    lines = head("srun", "-N3", "--gpus-per-node=8", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES")
    words = sorted(line.split() for line in lines.splitlines())
    assert [name for name, _ in words] == ["n1", "n2", "n3"]
    assert {gpus for _, gpus in words} == {"0,1,2,3,4,5,6,7"}


def test_a_requeued_job_runs_again_and_appends(plain_lab: dict[str, Any]) -> None:
    (LAYOUT.fsx / "wait.sh").write_text("#!/bin/sh\necho run ${SLURM_RESTART_COUNT:-0}\nsleep 300\n")
    output = LAYOUT.fsx / "wait.out"
    job = head("sbatch", "--parsable", "--output=/fsx/wait.out", "/fsx/wait.sh")
    eventually(lambda: output.exists() and "run 0" in output.read_text())
    head("scontrol", "requeue", job)
    # Slurm alone would wait two minutes. It forgets a start time that is set while it cleans up after the first run, and
    # a start within the second of the requeue fails ("Job credential revoked"): slurmd compares whole seconds.
    eventually(lambda: head("squeue", "-h", "-j", job, "-o", "%T") == "PENDING")
    head("scontrol", "update", f"jobid={job}", "starttime=now+2")
    eventually(lambda: "run 1" in output.read_text())
    assert "run 0" in output.read_text()
    head("scancel", job)


def test_a_terminated_instance_stops_its_machine_and_a_new_one_takes_the_name(plain_lab: dict[str, Any]) -> None:
    old = instance_of("n2")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": NODE_TAG, "Value": "n2"}]}]
    launch = {
        "LaunchTemplate": {"LaunchTemplateName": LAUNCH_TEMPLATE},
        "MinCount": 1, "MaxCount": 1, "ClientToken": "replace-n2", "TagSpecifications": tags,
    }  # fmt: skip
    with ec2.inside_cloud() as api:
        api.terminate_instances(InstanceIds=[old.ident])
        eventually(lambda: all(found.ident != old.ident for found in machine.machines(LAYOUT)))
        # Its record goes with the first of its files.
        eventually(lambda: not LAYOUT.machine(old.ident).exists())
        answers = [api.run_instances(**launch)["Instances"][0]["InstanceId"] for _ in range(2)]
    assert answers[0] == answers[1]
    new = instance_of("n2")
    assert new.ident == answers[0]
    assert new.address != old.address
    head("scontrol", "update", "nodename=n2", f"nodeaddr={new.address}")
    eventually(lambda: lab("exec", "n2", "--", "cat", f"{INSTANCE_DIR}/instance-id").stdout.strip() == new.ident)
    eventually(lambda: lab("exec", "n2", "--", "systemctl", "is-active", "slurmd").stdout.strip() == "active")
    eventually(lambda: back_in_service("n2"))
    assert head("srun", "-w", "n2", "hostname") == "n2"


def test_a_rebooted_machine_comes_back_with_its_disk(plain_lab: dict[str, Any]) -> None:
    row = instance_of("n4")
    before = lab("exec", "n4", "--", "sh", "-c", "touch /var/kept; cat /proc/sys/kernel/random/boot_id").stdout
    with ec2.inside_cloud() as api:
        api.reboot_instances(InstanceIds=[row.ident])

    def came_back() -> bool:
        done = lab("exec", "n4", "--", "sh", "-c", "ls /var/kept && cat /proc/sys/kernel/random/boot_id")
        return done.returncode == 0 and before.strip() not in done.stdout

    eventually(came_back)
    again = lab("exec", "n4", "--", "cat", "/proc/sys/kernel/random/boot_id").stdout
    lab("exec", "n4", "--", "systemctl", "reboot")
    before = again
    eventually(came_back)
    eventually(lambda: lab("exec", "n4", "--", "systemctl", "is-system-running").stdout.strip() == "running")
    eventually(lambda: back_in_service("n4"))
    assert head("srun", "-w", "n4", "hostname") == "n4"


def test_slurm_reboots_a_node_and_sees_it_return(plain_lab: dict[str, Any]) -> None:
    head("scontrol", "reboot", "nextstate=resume", "n3")
    eventually(lambda: "reboot" in sinfo("n3"))
    eventually(lambda: sinfo("n3") == "idle")


def test_capacity_is_refused_and_given_back(plain_lab: dict[str, Any]) -> None:
    assert json.loads(lab("inject", "no-capacity").stdout)["fault"] == "no-capacity"
    launch = {"LaunchTemplate": {"LaunchTemplateName": LAUNCH_TEMPLATE}, "MinCount": 1, "MaxCount": 1}
    with ec2.inside_cloud() as api:
        with pytest.raises(api.exceptions.ClientError, match="InsufficientInstanceCapacity"):
            api.run_instances(**launch)
        lab("inject", "capacity-back")
        ident = api.run_instances(**launch)["Instances"][0]["InstanceId"]
        eventually(lambda: any(found.ident == ident for found in machine.machines(LAYOUT)))
        api.terminate_instances(InstanceIds=[ident])
    eventually(lambda: all(found.ident != ident for found in machine.machines(LAYOUT)))


def test_a_lost_gpu_shows_in_the_kernel_log_and_ends_a_task(plain_lab: dict[str, Any]) -> None:
    output = LAYOUT.fsx / "gpu.out"
    wrap = "--wrap=srun --kill-on-bad-exit=1 sleep 300"
    job = head("sbatch", "--parsable", "-N2", "-w", "n1,n3", "--gpus-per-node=8", "--output=/fsx/gpu.out", wrap)
    eventually(lambda: head("squeue", "-h", "-t", "R", "-j", job, "--steps"))
    time.sleep(0.5)
    log = subprocess.Popen(
        [sys.executable, "-m", "nodewatch.lab", "exec", "n3", "--", "timeout", "5", "cat", f"{INSTANCE_DIR}/kmsg"],
        stdout=subprocess.PIPE,
    )
    told = json.loads(lab("inject", "gpu-lost", "n3", "--gpu", "5").stdout)
    assert told["node"] == "n3"
    assert "killed task process" in told["detail"]
    records = log.communicate(timeout=20)[0].decode()
    assert "NVRM: Xid (PCI:0000:a8:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus." in records
    assert records.startswith("4,")
    eventually(lambda: "Killed" in output.read_text() if output.exists() else False)
    assert "gpu 5 lost 1" in lab("exec", "n3", "--", "cat", f"{INSTANCE_DIR}/hardware").stdout


def test_a_crashed_machine_is_silent_while_its_instance_runs(plain_lab: dict[str, Any]) -> None:
    ident = instance_of("n1").ident
    lab("inject", "node-crash", "n1")
    dead = lab("exec", "n1", "--", "true")
    assert dead.returncode == 1
    assert "is not running" in dead.stderr
    assert instance_of("n1").ident == ident
    picture = json.loads(lab("status", "--json").stdout)
    assert {row["machine"]: row["running"] for row in picture["machines"]}["n1"] is False


def test_down_after_a_killed_up_leaves_nothing(plain_lab: dict[str, Any]) -> None:
    assert lab("down").returncode == 0
    mounts = Path("/proc/self/mountinfo").read_text()
    half = subprocess.Popen(
        [sys.executable, "-m", "nodewatch.lab", "up", "--plain"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    eventually(lambda: len(machine.machines(LAYOUT)) >= 2)
    half.kill()
    half.wait()
    again = lab("up", "--plain")
    assert again.returncode == 1
    assert "lab down" in again.stderr
    done = lab("down")
    assert done.returncode == 0, done.stderr
    assert remains(LAYOUT) == []
    assert lab_namespaces() == []
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "nwlab" in line] == []
    assert Path("/proc/self/mountinfo").read_text().count("\n") <= mounts.count("\n")
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert str(LAYOUT.root) not in listing
    assert lab("down").returncode == 0
