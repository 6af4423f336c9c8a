"""Machines are replaced from other sources, evidence is kept before, and new hardware has to be new."""

from __future__ import annotations

import dataclasses
from typing import Any

from nodewatch.cli import explain
from nodewatch.controller import views
from nodewatch.errors import Ec2Error
from nodewatch.model.health import Remedy, Severity
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

BLOCK = "block:cr-0123456789abcdef0"
MACHINE = (
    "launch",
    "terminate",
    "quarantine",
    "keep_evidence",
    "report_instance",
    "reboot_instance",
    "reboot",
    "repoint",
)


def world(*, group: dict[str, Any] | None = None, nodes: int = 4, **rules: Any) -> World:
    made = World(nodes=nodes, spares=1, rules=Rules(mode="act", max_out_share=1.0, sweep_every_s=0.0, **rules))
    made.rules = dataclasses.replace(made.rules, groups=(dataclasses.replace(made.rules.groups[0], **(group or {})),))
    made.restart_controller()
    made.run(seconds=5)
    return made


def test_without_capacity_in_one_place_the_next_is_asked_at_once() -> None:
    here = world(group={"capacity": ("launch_template", "fleet:p5.48xlarge,p5e.48xlarge", "spot")})
    here.ec2.refuses = {
        "launch_template": "InsufficientInstanceCapacity",
        "fleet:p5.48xlarge,p5e.48xlarge": "UnfulfillableCapacity",
    }
    here.node("n2").loses_gpu()
    here.run(minutes=5)
    assert here.ec2.asked == ["launch_template", "fleet:p5.48xlarge,p5e.48xlarge", "spot"]
    assert [case.step.value for case in here.cases("n2")] == ["closed"]
    assert len(here.ec2.launched) == len(here.ec2.terminated) == 1


def test_a_controller_killed_after_a_launch_elsewhere_launches_no_second_machine() -> None:
    here = world(group={"capacity": ("launch_template", "spot")})
    here.ec2.refuses = {"launch_template": "InsufficientInstanceCapacity"}
    here.ec2.lag = True
    here.node("n2").loses_gpu()
    for _ in range(20):
        here.run(seconds=1)
        here.restart_controller()
    here.ec2.hidden.clear()
    here.run(minutes=5)
    assert len(here.ec2.launched) == 1
    assert here.cases("n2")[0].step.value == "closed"


def test_a_machine_that_ec2_does_not_show_is_given_time_and_then_tried_anew() -> None:
    here = world(ec2_settle_s=120.0)
    here.boot_s = 10_000.0
    here.ec2.lag = True
    here.node("n2").loses_gpu()
    here.run(seconds=100)
    assert len(here.ec2.launched) == 1
    here.run(seconds=60)
    assert len(here.ec2.launched) == 2
    assert "EC2 does not know" in here.cases("n2")[0].why or here.cases("n2")[0].attempt == 2


def test_a_capacity_block_gets_its_slot_back_before_it_is_launched_into() -> None:
    here = world(group={"capacity": (BLOCK,)})
    here.ec2.end_takes_time = True
    old = here.node("n2").instance_id
    here.node("n2").loses_gpu()
    here.run(minutes=3)
    assert here.ec2.terminated == [old]
    assert here.ec2.launched == []
    assert any(f"{old} is shutting-down: its slot returns when it is terminated" in why for why in here.reasons("n2"))
    here.ec2.ends(old)
    here.run(minutes=3)
    assert here.story("terminate", "launch", "repoint") == ["terminate", "launch", "repoint"]
    assert here.ec2.asked == ["block:cr-0123456789abcdef0"]
    assert here.cases("n2")[0].step.value == "closed"


def test_one_machine_of_a_block_is_exchanged_at_a_time() -> None:
    here = world(group={"capacity": (BLOCK,)}, nodes=6)
    here.ec2.end_takes_time = True
    first, second = here.node("n2").instance_id, here.node("n3").instance_id
    here.node("n2").loses_gpu()
    here.node("n3").loses_gpu()
    here.run(minutes=2)
    assert here.ec2.terminated == [first]
    assert any("one machine of" in why and "n2" in why for why in here.reasons("n3"))
    here.ec2.refuses = {"block:cr-0123456789abcdef0": "ReservationCapacityExceeded"}
    here.ec2.ends(first)
    here.run(minutes=2)
    assert here.ec2.terminated == [first], "the second waits while the first has no machine"
    here.ec2.refuses = {}
    here.run(minutes=5)
    assert here.ec2.terminated == [first, second]


def test_a_busy_machine_of_a_block_is_not_ended() -> None:
    here = world(group={"capacity": (BLOCK,)})
    here.submit(nodes=3, auto_resume=None)
    here.run(seconds=5)
    here.node("n2").reports("gpu.lost", Severity.DEGRADED, Remedy.REPLACE)
    here.run(minutes=3)
    assert here.ec2.terminated == []


def test_a_full_reservation_may_be_told_to_end_first() -> None:
    here = world(group={"capacity": ("reservation:cr-0123456789abcdef0",), "terminate_first": True})
    here.node("n2").loses_gpu()
    here.run(minutes=5)
    assert here.story("terminate", "launch") == ["terminate", "launch"]


def test_an_auto_scaling_group_replaces_and_its_machine_is_adopted() -> None:
    here = world(group={"capacity": ("asg:trainers", "spot")})
    here.ec2.asg_has_launched = False
    here.node("n2").loses_gpu()
    here.run(seconds=30)
    assert set(here.ec2.asked) == {"asg:trainers"}
    assert any("has launched no machine yet" in why for why in here.reasons("n2"))
    here.ec2.asg_has_launched = True
    here.run(minutes=5)
    assert len(here.ec2.launched) == 1
    assert here.cases("n2")[0].step.value == "closed"


class Bucket:
    """S3 in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.is_out = False
        self.tries = 0

    def put(self, bucket: str, name: str, body: bytes) -> str:
        self.tries += 1
        if self.is_out:
            raise Ec2Error("S3 could not be asked", code="")
        self.kept[name] = body
        return f"s3://{bucket}/{name}"


def test_what_was_known_is_in_s3_and_in_the_journal_before_the_machine_is_ended() -> None:
    here = world(evidence_bucket="site-evidence")
    bucket = Bucket()
    here.store = bucket
    here.restart_controller()
    old = here.node("n2").instance_id
    here.node("n2").loses_gpu()
    here.run(minutes=5)
    assert here.story("keep_evidence", "terminate") == ["keep_evidence", "terminate"]
    (name,) = bucket.kept
    assert name.startswith("nodewatch/evidence/n2/n2.gpu.")
    assert name.endswith(f"/{old}.json")
    assert b"gpu.xid.79" in bucket.kept[name]
    intended = [r for r in here.journal.records if r.kind == "intended" and r.data["action"]["action"] == "terminate"]
    assert intended[0].data["action"]["evidence"]["case"]["fault"].startswith("gpu.")


def test_an_s3_that_fails_holds_a_repair_up_for_its_time_only() -> None:
    here = world(evidence_bucket="gone", evidence_wait_s=120.0)
    bucket = Bucket()
    bucket.is_out = True
    here.store = bucket
    here.restart_controller()
    here.node("n2").loses_gpu()
    here.run(seconds=90)
    assert bucket.tries > 1
    assert here.ec2.terminated == []
    assert any("S3 could not be asked" in why for why in here.reasons("n2"))
    here.run(minutes=5)
    assert len(here.ec2.terminated) == 1
    assert here.cases("n2")[0].step.value == "closed"


def test_evidence_that_stands_in_the_journal_alone_is_said() -> None:
    here = world(evidence_bucket="gone", evidence_wait_s=60.0)
    bucket = Bucket()
    bucket.is_out = True
    here.store = bucket
    here.restart_controller()
    old = here.node("n2").instance_id
    here.boot_s = 600.0
    here.node("n2").loses_gpu()
    here.run(minutes=4)
    engine = here.engine
    shown = views.explain("n2", engine.snapshot, engine.ledger, engine.held, here.rules, [], here.clock())
    (case,) = shown["now"]["cases"]
    assert case["note"].startswith(f"the evidence of {old} stands in the journal alone: ")
    assert f"  but       {case['note']}" in explain.render(shown).splitlines()


def test_the_console_of_a_machine_that_never_spoke_is_kept() -> None:
    here = world(launch_timeout_s=120.0)
    here.boot_s = 10_000.0
    here.node("n2").loses_gpu()
    here.run(seconds=30)
    (first,) = here.ec2.launched
    here.ec2.consoles[first] = "cloud-init: lifecycle script failed"
    here.boot_s = 60.0
    here.run(minutes=6)
    kept = [r for r in here.journal.records if r.kind == "done" and r.data["action"]["action"] == "keep_evidence"]
    assert [r.data["result"]["console"] for r in kept] == ["cloud-init: lifecycle script failed"]
    assert first in here.ec2.terminated


def test_quarantine_keeps_the_machine_and_takes_its_name() -> None:
    here = world(group={"on_replace": "quarantine"})
    old = here.node("n2").instance_id
    here.node("n2").loses_gpu()
    here.run(minutes=5)
    assert here.ec2.terminated == []
    assert here.ec2.quarantined[old]["nodewatch:quarantined"].startswith("n2.gpu.")
    assert here.cases("n2")[0].step.value == "closed"
    spoke = {"node": "n2", "boot_id": "b", "instance_id": old, "events": [], "verdict": None}
    _, asked, _ = here.engine.receive_agent(spoke)
    assert [request["kind"] for request in asked] == ["retire"], "its slurmd must not register under the name"
    here.run(seconds=2)
    assert here.engine.snapshot.agents["n2"].instance_id == here.cases("n2")[0].new_instance


def test_ec2_is_told_of_hardware_only_when_the_site_wants_it() -> None:
    quiet = world()
    quiet.node("n2").loses_gpu()
    quiet.run(minutes=5)
    assert quiet.ec2.reported == []
    telling = world(report_to_aws=True)
    old = telling.node("n2").instance_id
    telling.node("n2").loses_gpu()
    telling.run(minutes=5)
    assert [(instance, code) for instance, code, _ in telling.ec2.reported] == [(old, "other")]
    assert telling.story("report_instance", "terminate") == ["report_instance", "terminate"]


OLD, NEW = "GPU-11111111-1111-1111-1111-111111111111", "GPU-22222222-2222-2222-2222-222222222222"


def test_a_replacement_with_other_gpus_is_said_to_have_them() -> None:
    here = world()
    here.node("n2").has_gpus(OLD)
    here.run(seconds=2)
    here.next_hardware = (NEW,)
    here.node("n2").loses_gpu()
    here.run(minutes=5)
    assert here.cases("n2")[0].old_hardware == (OLD,)
    assert here.cases("n2")[0].evidence["hardware"] == "different"


def test_the_same_hardware_again_is_said_and_by_rule_a_failed_try() -> None:
    told = world()
    told.node("n2").has_gpus(OLD)
    told.run(seconds=2)
    told.next_hardware = (OLD,)
    told.node("n2").loses_gpu()
    told.run(minutes=5)
    assert told.cases("n2")[0].evidence["hardware"] == "same"
    assert len(told.ec2.launched) == 1

    strict = world(same_hardware_fails=True)
    strict.node("n2").has_gpus(OLD)
    strict.run(seconds=2)
    strict.next_hardware = (OLD,)
    strict.node("n2").loses_gpu()
    strict.run(seconds=10)
    assert len(strict.ec2.launched) == 1
    strict.next_hardware = (NEW,)
    strict.run(minutes=5)
    assert len(strict.ec2.launched) == 2
    assert strict.cases("n2")[0].evidence["hardware"] == "different"


def test_hardware_of_which_nothing_is_known_is_called_neither() -> None:
    here = world(same_hardware_fails=True)
    here.node("n2").loses_gpu()
    here.run(minutes=5)
    assert here.cases("n2")[0].evidence["hardware"] == "unknown"
    assert len(here.ec2.launched) == 1


def test_a_machine_that_slurm_cannot_reboot_is_rebooted_by_ec2_before_it_is_replaced() -> None:
    here = world(reboot_timeout_s=60.0)
    here.slurm_reboots = False
    old = here.node("n2").instance_id
    here.node("n2").reports("driver.hung", Severity.FATAL, Remedy.REBOOT)
    here.run(seconds=100)
    assert here.ec2.rebooted == [old]
    assert here.ec2.launched == []
    here.run(minutes=3)
    assert here.story("reboot", "reboot_instance", "launch") == ["reboot", "reboot_instance"]
    assert here.cases("n2")[0].step.value == "closed"


def test_when_ec2s_reboot_does_not_help_either_it_is_replaced() -> None:
    here = world(reboot_timeout_s=60.0)
    here.slurm_reboots = here.ec2_reboots = False
    here.node("n2").reports("driver.hung", Severity.FATAL, Remedy.REBOOT)
    here.run(minutes=5)
    assert here.story("reboot", "reboot_instance", "launch") == ["reboot", "reboot_instance", "launch"]


def test_a_retirement_is_planned_around_a_job_that_ends_in_time_or_not() -> None:
    here = world(event_lead_s=3600.0, event_save_s=600.0)
    job = here.submit(nodes=3, auto_resume="3")
    here.run(seconds=10)
    old = here.node("n2").instance_id
    here.node("n2").reports(
        "ec2.event",
        Severity.DEGRADED,
        Remedy.REPLACE,
        subject=f"{old} instance-event-1",
        evidence={"code": "instance-retirement", "starts_at": here.clock() + 7200.0},
    )
    here.run(minutes=30, step_s=5.0)
    assert not here.slurm_node("n2").is_out
    assert any("instance-retirement of n2" in why for why in here.reasons("n2"))
    here.run(minutes=35, step_s=5.0)
    assert here.slurm_node("n2").is_out
    assert here.job(job).restart_count == 0
    assert "n2" in here.job(job).nodes
    here.run(minutes=46, step_s=5.0)
    assert here.job(job).restart_count == 1, "ten minutes before EC2 ends the machine the job goes elsewhere"
    assert "n2" not in here.job(job).nodes
    here.run(minutes=8, step_s=5.0)
    assert here.ec2.terminated == [old]


def test_a_replacement_is_told_of_the_script_that_makes_it_a_node() -> None:
    here = world(group={"lifecycle_script": "s3://site/on-create.sh"})
    here.node("n2").loses_gpu()
    here.run(minutes=5)
    (new,) = here.ec2.launched
    assert here.ec2.instances()[new].tags["nodewatch:lifecycle-script"] == "s3://site/on-create.sh"
