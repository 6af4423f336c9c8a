"""The whole product on the rehearsal cluster: real Slurm, systemd, munge, EC2 calls, PyTorch; only the hardware is played."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from nodewatch.lab import demo, hardware, machine
from nodewatch.lab.timeline import is_complete
from tests.lab.rehearsal import (
    LAYOUT,
    done_since,
    eventually,
    explain,
    head,
    in_service,
    job_state,
    lab,
    restarted,
    running_past,
    since,
    status,
    submit,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]

SCRIPT = demo.Script(steps=150, checkpoint_every=20, step_seconds=0.1, fault_after_step=50)


def test_a_job_outlives_a_dead_gpu_and_ends_with_the_same_loss(calm: float, tmp_path: Path) -> None:
    told: list[str] = []
    document = demo.play(LAYOUT, SCRIPT, tmp_path, told.append)
    assert is_complete(document), "\n".join(told)
    assert document == json.loads((tmp_path / "timeline.json").read_text())
    assert "returned to service" in (tmp_path / "timeline.html").read_text()
    names = [event["name"] for event in document["events"]]
    assert names.index("fault_injected") < names.index("finding") < names.index("drained") < names.index("requeued")
    assert names.index("requeued") < names.index("job_running") < names.index("resumed_step")


def test_slurm_is_set_up_as_the_doctor_wants_it(calm: float) -> None:
    assert head("nodewatch", "doctor") == "nothing to change"
    assert status()["problems"] == []


def test_a_users_bug_is_not_taken_for_hardware_and_the_user_is_told(calm: float) -> None:
    injected = json.loads(lab("inject", "user-bug").stdout)
    job_id = int(injected["detail"].split()[-1])
    eventually(lambda: job_state(job_id) == "FAILED", "the job fails", 90)
    eventually(lambda: "judged    program" in explain(str(job_id)), "it is judged")
    told = explain(str(job_id))
    assert "not started again; look at the job's own output" in told
    assert done_since(calm, "drain", "requeue", "launch") == []
    assert job_state(job_id) == "FAILED"


def test_a_users_xid_drains_nothing_and_a_garbled_log_neither(calm: float) -> None:
    assert lab("inject", "benign", "n1").returncode == 0
    assert lab("inject", "garbage", "n2").returncode == 0
    seen = lambda: [f for r in since(calm) if r.kind == "verdict" for f in r.data["verdict"]["findings"]]  # noqa: E731
    eventually(lambda: {"gpu.xid.13", "gpu.xid.31"} <= {f["fault"] for f in seen()}, "the agent reports the two Xids")
    time.sleep(3)
    assert {f["severity"] for f in seen()} <= {"info", "warn"}
    assert done_since(calm) == []
    metrics = head(
        "python3", "-c", "import urllib.request as u; print(u.urlopen('http://n2:9411/metrics').read().decode())"
    )
    garbled = [line for line in metrics.splitlines() if "garbled" in line and not line.startswith("#")]
    assert any(float(line.split()[-1]) > 0 for line in garbled), garbled


def test_a_machine_that_stops_dead_loses_its_job_to_the_spare(calm: float) -> None:
    job_id = submit("crash", steps=200)
    nodes = running_past("crash", job_id, 30)
    lab("inject", "node-crash", nodes[1])
    again = eventually(lambda: restarted(job_id, calm), "the job runs again", 90).data["node_names"]
    assert nodes[1] not in again or len(done_since(calm, "launch")) == 1
    eventually(lambda: job_state(job_id) == "COMPLETED", "the job completes", 120)
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the node is back", 120)
    assert len(done_since(calm, "launch")) == 1
    assert "node.lost" in explain(nodes[1])


def test_a_controller_killed_between_intended_and_done_launches_one_machine(calm: float) -> None:
    before = json.loads(lab("status", "--json").stdout)["instances"]
    # Only the launch waits: an EC2 that answers nothing at all would rightly keep the controller from launching.
    LAYOUT.launches_held.touch()
    try:
        lab("inject", "gpu-lost", "n2")
        eventually(
            lambda: any(r.kind == "intended" and r.data["action"]["action"] == "launch" for r in since(calm)),
            "the launch is intended",
        )
        assert done_since(calm, "launch") == []
        head("systemctl", "kill", "--signal=KILL", "nodewatch-controller")
    finally:
        LAYOUT.launches_held.unlink()
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the repair ends", 120)
    after = json.loads(lab("status", "--json").stdout)["instances"]
    new = {row["instance"] for row in after} - {row["instance"] for row in before}
    assert len(new) == 1, after
    assert len([r for r in since(calm) if r.kind == "started"]) == 1


def test_refused_capacity_is_said_and_waited_for_with_nothing_half_done(calm: float) -> None:
    lab("inject", "no-capacity")
    try:
        lab("inject", "gpu-lost", "n3")
        eventually(lambda: "InsufficientInstanceCapacity" in explain("n3"), "the refusal is told")
        held = [why for node in status()["nodes"] for why in node["held"]]
        assert any("EC2 has no capacity" in why and "trying again in" in why for why in held), held
        assert done_since(calm, "launch", "terminate") == []
    finally:
        lab("inject", "capacity-back")
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the repair ends", 120)
    assert len(done_since(calm, "launch")) == len(done_since(calm, "terminate")) == 1


def test_a_waiting_job_does_not_get_the_nodes_of_the_one_that_starts_again(calm: float) -> None:
    job_id = submit("first", steps=150)
    nodes = running_past("first", job_id, 20)
    rivals = [
        int(head("sbatch", "--parsable", "-N1", "--exclusive", "--chdir=/fsx", "--wrap=sleep 1")) for _ in range(3)
    ]
    assert {job_state(rival) for rival in rivals} == {"PENDING"}
    # The GPU is gone and the program has not noticed yet: the job still runs when it is requeued. A job that is dead
    # already has given its nodes away before anybody can know why.
    broken = machine.find(LAYOUT, nodes[1])
    bus = hardware.bus_id(2)
    hardware.append(
        LAYOUT.machine(broken.ident) / "instance" / hardware.FILE_NAME,
        [
            "gpu 2 lost 1",
            f"kmsg 4 NVRM: Xid (PCI:{bus}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        ],
    )
    eventually(lambda: restarted(job_id, calm), "the job runs again", 60)
    assert {job_state(rival) for rival in rivals} == {"PENDING"}
    eventually(lambda: job_state(job_id) == "COMPLETED", "the job completes", 120)
    eventually(lambda: all(job_state(rival) == "COMPLETED" for rival in rivals), "the others run after it", 60)
    assert head("scontrol", "show", "reservation") == "No reservations in the system"


def check(*words: str, deadline_s: float = 120) -> tuple[int, dict[str, Any]]:
    """The exit code and the answers of `nodewatch check` by node."""
    done = lab("exec", "head", "--", "nodewatch", "check", "--json", *words, deadline_s=deadline_s)
    answer = json.loads(done.stdout)
    return done.returncode, {each["node"]: each for each in answer["checks"]}


def test_deep_checks_on_demand_say_what_ran_and_what_did_not(calm: float) -> None:
    code, answers = check("--deep", "n[1-2]")
    assert code == 0, answers
    ran = {result["check"] for result in answers["n1"]["results"] if result["status"] == "ok"}
    assert {"dcgm_diag", "nccl_bandwidth", "efa_provider", "efa_pingpong", "disk_write"} <= ran
    assert [tool for tool, _ in answers["n1"]["not_run"]] == ["cpu", "memory"]
    assert "the deep checks passed" in explain("n1")
    assert done_since(calm) == done_since(calm, "deep_check")


def test_a_fault_that_only_deep_checks_find_is_repaired_and_checked_again(calm: float) -> None:
    # Held back until the machine is well again for its validation: the repair would be there before a slow host has typed that.
    head("nodewatch", "pause", "n2")
    lab("inject", "nccl-slow", "n2")
    code, answers = check("--deep", "n2")
    assert (code, answers["n2"]["passed"]) == (1, False)
    eventually(lambda: "repairs of node n2 were paused" in explain("n2"), "the fault stands")
    lab("inject", "tools-well", "n2")
    head("nodewatch", "resume", "n2")
    eventually(lambda: done_since(calm, "drain"), "it leaves service")
    eventually(lambda: done_since(calm, "reboot"), "the machine is rebooted: the smallest cure")
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "it is back", 120)
    assert done_since(calm, "launch") == []
    assert "nccl.slow" in explain("n2")


def test_a_row_that_waits_for_a_reset_costs_a_reset_and_no_reboot(calm: float) -> None:
    lab("inject", "remap-pending", "n2")
    eventually(lambda: done_since(calm, "reset_gpu"), "the GPUs are reset", 90)
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "it is back", 120)
    assert done_since(calm, "reboot", "launch") == []
    assert "the agent's GPU reset worked" in explain("n2")


def test_deep_checks_give_way_to_a_job_at_once_and_are_begun_again(calm: float) -> None:
    node = in_service()[0]
    lab("inject", "tools-slow", node)
    head("nodewatch", "check", "--deep", "--no-wait", node)
    checking = lambda: next(each["checking"] for each in status()["nodes"] if each["node"] == node)  # noqa: E731
    eventually(lambda: "dcgm runs" in checking(), "DCGM runs")
    job = int(head("sbatch", "--parsable", f"--nodelist={node}", "--exclusive", "--chdir=/tmp", "--wrap=sleep 3"))
    eventually(lambda: job_state(job) == "COMPLETED", "the job ran", 30)
    answers = lambda: [  # noqa: E731
        r.data for r in since(calm) if r.kind == "validated" and str(r.data["key"]).startswith(f"deep:{node}:")
    ]
    assert answers()[0]["gave_way_to"] == str(job)
    lab("inject", "tools-well", node)
    eventually(lambda: any(each["passed"] for each in answers()), "it passed", 120)


def test_the_slow_one_of_two_is_named_by_a_second_pair(calm: float) -> None:
    nodes = in_service()
    slow = nodes[1]
    lab("inject", "nccl-slow", slow)
    done = lab("exec", "head", "--", "nodewatch", "check-pairs", "--json", *nodes, deadline_s=180)
    answer = json.loads(done.stdout)
    lab("inject", "tools-well", slow)
    assert done.returncode == 1, answer
    found = [r.data for r in since(calm) if r.kind == "pairs_judged"]
    assert [each["node"] for each in found[-1]["culprits"]] == [slow]
    eventually(lambda: done_since(calm, "reboot"), "the culprit is rebooted")
    assert {each["node"] for each in done_since(calm, "drain")} == {slow}
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "it is back", 120)


def test_an_operators_reboot_waits_for_the_job_and_the_plan_is_shown_first(calm: float) -> None:
    node = in_service()[0]
    job = int(head("sbatch", "--parsable", f"--nodelist={node}", "--chdir=/tmp", "--wrap=sleep 8"))
    eventually(lambda: job_state(job) == "RUNNING", "the job runs", 30)
    shown = json.loads(head("nodewatch", "reboot", node, "--dry-run", "--json"))
    assert [each["job"] for each in shown["jobs"]] == [job]
    assert done_since(calm) == []

    head("nodewatch", "reboot", node, "--yes", "--reason", "new firmware")
    eventually(lambda: done_since(calm, "drain"), "it leaves service")
    assert job_state(job) == "RUNNING"
    eventually(lambda: done_since(calm, "reboot"), "it is rebooted", 60)
    assert job_state(job) == "COMPLETED"
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "it is back", 120)
    assert "asked to reboot it: new firmware" in explain(node)


def test_force_ends_what_runs(calm: float) -> None:
    node = in_service()[0]
    job = int(head("sbatch", "--parsable", f"--nodelist={node}", "--no-requeue", "--chdir=/tmp", "--wrap=sleep 600"))
    eventually(lambda: job_state(job) == "RUNNING", "the job runs", 30)
    head("nodewatch", "reboot", node, "--force", "--yes")
    eventually(lambda: job_state(job) == "NODE_FAIL", "the job is ended", 30)
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "it is back", 120)


def test_a_pause_holds_repairs_back_and_a_user_may_only_look(calm: float) -> None:
    node = in_service()[1]
    head("nodewatch", "pause", node, "--reason", "driver roll-out")
    lab("inject", "gpu-lost", node)
    eventually(lambda: f"repairs of node {node} were paused by" in explain(node), "it is held back")
    assert done_since(calm, "drain") == []
    refused = lab("exec", "head", "--", "runuser", "-u", "ada", "--", "nodewatch", "resume", node)
    assert refused.returncode == 2
    assert "ada may look and not act" in refused.stderr
    assert "mode act" in head("runuser", "-u", "ada", "--", "nodewatch", "plan")

    head("nodewatch", "resume", node)
    eventually(lambda: done_since(calm, "hold_spare", "return_to_service"), "the repair ends", 120)


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(calm: float) -> None:
    name = "torn"
    job_id = submit(name, steps=150)
    nodes = running_past(name, job_id, 65)
    newest = sorted((LAYOUT.fsx / "checkpoints" / name).glob("step-????????"))[-1]
    data = max(
        (path for path in newest.iterdir() if path.name != "manifest.json"), key=lambda path: path.stat().st_size
    )
    os.truncate(data, data.stat().st_size // 2)
    lab("inject", "gpu-lost", nodes[1])
    eventually(lambda: job_state(job_id) == "COMPLETED", "the job completes", 120)
    resumed = [line for line in demo.progress(LAYOUT, name) if line["event"] == "start" and line["restart"] == 1]
    assert resumed[0]["resumed_from"] < newest.name
    assert newest.name in (LAYOUT.fsx / f"{name}-{job_id}.out").read_text()


def test_output_is_appended_and_the_flag_is_checked(calm: float) -> None:
    refused = lab("exec", "head", "--", "sbatch", "--auto-resume=often", "--wrap=true")
    assert refused.returncode != 0
    assert "--auto-resume" in refused.stderr
    assert "auto-resume" in head("sbatch", "--help")


def test_a_wrong_key_in_the_configuration_is_one_sentence(calm: float) -> None:
    done = lab(
        "exec",
        "head",
        "--",
        "sh",
        "-c",
        "echo 'mood = 1' > /tmp/bad.toml; nodewatch-controller --check-config --config /tmp/bad.toml",
    )
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "unknown key 'mood'; did you mean 'mode'?" in done.stderr or "unknown key 'mood'" in done.stderr


def test_down_is_the_end_of_every_machine(cluster: None) -> None:
    machines = machine.machines(LAYOUT)
    assert len(machines) >= 5
