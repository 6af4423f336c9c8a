"""What holds a repair back, as sentences."""

import dataclasses

import pytest

from nodewatch.errors import JournalError
from nodewatch.model.health import Remedy, Severity
from nodewatch.policy.cluster_plan import LEAVING
from nodewatch.policy.rules import Rules
from nodewatch.testing import World

ACT = Rules(mode="act", max_out_share=1.0)


def healthy_world(**rules: object) -> World:
    world = World(nodes=6, spares=1, rules=dataclasses.replace(ACT, **rules))  # type: ignore[arg-type]
    world.run(seconds=5)
    return world


def test_the_first_install_only_watches() -> None:
    world = healthy_world(mode="observe")
    world.node("n2").loses_gpu()
    world.run(minutes=10)

    assert world.slurm.calls == []
    assert any("observe mode" in why and "replace" in why for why in world.reasons("n2"))


def test_a_node_drained_by_somebody_else_is_left_alone_and_it_is_said() -> None:
    world = healthy_world()
    world.slurm.operator("n2", "drain", "bad fan, Ada")
    world.node("n2").loses_gpu()
    world.run(minutes=10)

    assert world.slurm_node("n2").reason == "bad fan, Ada"
    assert world.ec2.launched == []
    assert any("by somebody else (bad fan, Ada)" in why for why in world.reasons("n2"))


def test_a_node_that_cluster_toml_takes_out_is_left_alone_and_it_is_said() -> None:
    world = healthy_world()
    world.slurm.operator("n2", "drain", LEAVING)
    world.node("n2").loses_gpu()
    world.run(minutes=5)
    world.node("n2").crashes()
    world.run(minutes=10)

    assert world.slurm_node("n2").reason == LEAVING
    assert world.story("drain", "mark_down", "reboot", "launch", "terminate", "return_to_service") == []
    assert any("is being taken out by `nodewatch cluster`" in why for why in world.reasons("n2"))


def test_an_operator_who_returns_a_node_has_the_last_word() -> None:
    world = healthy_world(replacements_per_hour=0)
    world.node("n2").loses_gpu()
    world.run(seconds=10)
    assert world.slurm_node("n2").is_out

    world.slurm.operator("n2", "resume")
    world.run(minutes=5)

    assert not world.slurm_node("n2").is_out
    assert any("their word holds" in why for why in world.reasons("n2"))


def test_a_fault_on_many_nodes_at_once_repairs_nothing() -> None:
    world = healthy_world(max_out=6)
    for name in ("n1", "n2", "n3"):
        world.node(name).loses_gpu()
    world.run(minutes=5)

    assert world.ec2.launched == []
    assert any("storm" in why for why in world.reasons("n1"))


def test_a_shared_file_system_that_hangs_everywhere_drains_nothing() -> None:
    world = healthy_world()
    for name in ("n1", "n2", "n3", "n4", "n5", "n6"):
        world.node(name).reports("filesystem.hung", Severity.DEGRADED, Remedy.HUMAN, "/fsx")
        world.run(seconds=2)
    world.run(minutes=5)

    assert world.story("drain", "requeue", "launch", "reboot") == []


@pytest.mark.parametrize(
    ("fault", "apart_s"),
    [
        # A hanging file system as each node shows it: by its mounts, by evictions, by a unit that waits for it.
        ("filesystem.hung", 10),
        ("filesystem.lustre_evicted", 25),
        ("host.unit_failed", 10),
    ],
)
def test_what_hangs_everywhere_drains_nothing_however_late_the_others_show_it(fault: str, apart_s: int) -> None:
    world = healthy_world(max_out=6)
    for name in ("n1", "n2", "n3", "n4", "n5", "n6"):
        world.node(name).reports(fault, Severity.DEGRADED, Remedy.REBOOT, "/fsx")
        world.run(seconds=apart_s)
    world.run(minutes=30)
    assert world.story("drain", "requeue", "launch", "reboot") == []
    assert any("storm: " in why for why in world.reasons("n6"))


def test_operators_may_ask_for_many_repairs_at_once() -> None:
    world = healthy_world(max_out=6)
    for name in ("n1", "n2", "n3", "n4"):
        world.slurm.operator(name, "drain", "Action:Reboot")
    world.run(minutes=10)
    assert len(world.story("reboot")) == 4


def test_no_more_nodes_go_out_than_the_limit() -> None:
    world = healthy_world(max_out=1, storm_nodes=99)
    world.node("n1").loses_gpu()
    world.node("n2").loses_gpu()
    world.run(seconds=20)

    assert world.slurm_node("n1").is_out
    assert not world.slurm_node("n2").is_out
    assert any("the limit is 1" in why for why in world.reasons("n2"))
    world.run(minutes=10)
    assert len(world.ec2.launched) == 2, "the second is repaired after the first"


def test_the_share_of_a_group_limits_as_well() -> None:
    world = healthy_world(max_out=5, max_out_share=0.2, storm_nodes=99)
    world.node("n1").loses_gpu()
    world.node("n2").loses_gpu()
    world.run(seconds=20)

    assert sum(world.slurm_node(name).is_out and not world.slurm_node(name).is_spare for name in ("n1", "n2")) == 1


def test_a_pause_admits_nothing_new() -> None:
    world = healthy_world(paused=True)
    world.node("n2").loses_gpu()
    world.run(minutes=2)

    assert world.story("drain") == []
    assert any("paused" in why for why in world.reasons("n2"))


def test_without_slurm_nothing_is_done_and_afterwards_everything() -> None:
    world = healthy_world()
    world.slurm.outage = True
    world.node("n2").loses_gpu()
    world.run(minutes=5)
    assert world.ec2.launched == []
    assert any("half a picture" in why for why in world.reasons("cluster"))

    world.slurm.outage = False
    world.run(minutes=5)
    assert len(world.ec2.launched) == 1


def test_without_ec2_the_job_goes_on_and_the_machine_waits() -> None:
    world = healthy_world()
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=10)
    world.ec2.outage = True
    world.run(seconds=2)
    world.node("n2").loses_gpu()
    world.run(minutes=2)

    assert world.job(job).is_running
    assert world.job(job).restart_count == 1
    assert any("EC2 could not be read" in why for why in world.reasons("n2"))

    world.ec2.outage = False
    world.run(minutes=5)
    assert len(world.ec2.launched) == 1


def test_no_capacity_is_waited_for_and_the_old_machine_is_kept_until_then() -> None:
    world = healthy_world()
    world.ec2.no_capacity = True
    world.node("n2").loses_gpu()
    world.run(minutes=5)

    assert world.ec2.terminated == []
    assert any("EC2 has no capacity (EC2 refused: InsufficientInstanceCapacity)" in why for why in world.reasons("n2"))

    world.ec2.no_capacity = False
    world.run(minutes=15)
    assert len(world.ec2.launched) == 1
    assert len(world.ec2.terminated) == 1
    assert [case.step.value for case in world.cases("n2")] == ["closed"]


def test_replacements_that_fail_their_deep_checks_end_at_a_human_and_stop_others() -> None:
    world = healthy_world(failed_replacements_limit=2, attempts=3)
    world.next_deep_checks = False
    world.node("n2").loses_gpu()
    world.run(minutes=20)

    (case,) = world.cases("n2")
    assert case.attempt == 3
    assert any("protected mode" in why for why in world.reasons("n2"))
    assert len(world.ec2.launched) == 2


def test_deep_checks_that_cannot_tell_do_not_open_the_gate() -> None:
    world = healthy_world(validate_timeout_s=3600.0)
    world.next_deep_checks = None
    world.node("n2").loses_gpu()
    world.run(minutes=10)

    assert world.slurm_node("n2").is_out
    assert any("could not be told" in why for why in world.reasons("n2"))


def test_information_about_a_users_program_drains_nothing() -> None:
    world = healthy_world()
    world.node("n2").reports("gpu.xid.31", Severity.INFO, Remedy.RESTART_APP)
    world.node("n3").reports("gpu.xid.13", Severity.WARN, Remedy.RESTART_APP)
    world.run(minutes=5)

    assert world.story("drain", "requeue", "launch") == []


def test_a_missing_spare_is_said_and_the_job_waits_for_the_new_machine() -> None:
    world = World(nodes=4, spares=1, rules=ACT)
    job = world.submit(nodes=4, auto_resume="3")
    world.run(seconds=10)
    assert world.job(job).is_running, "the job took every node before one could be held"
    world.node("n2").loses_gpu()
    world.run(seconds=10)
    assert any("no healthy spare in group compute" in why for why in world.reasons("n2"))

    world.run(minutes=5)
    assert len(world.ec2.launched) == 1
    assert world.job(job).is_running, "the machine that came back was not held as the spare that the group lacks"


def test_a_broken_spare_is_repaired_without_taking_another_spare() -> None:
    world = World(nodes=5, spares=2, rules=ACT)
    world.run(seconds=5)
    world.node("n5").loses_gpu()
    world.run(minutes=5)

    assert world.story("release_spare") == []
    assert world.slurm_node("n5").is_spare
    assert len(world.ec2.launched) == 1


def test_a_full_disk_under_the_journal_does_nothing_at_all() -> None:
    world = healthy_world()
    world.node("n2").loses_gpu()
    world.journal.full = True
    calls = list(world.slurm.calls)
    with pytest.raises(JournalError):
        world.run(seconds=5)
    assert world.slurm.calls == calls


def test_a_launch_not_listed_yet_is_not_repeated() -> None:
    world = healthy_world()
    world.ec2.lag = True
    world.node("n2").loses_gpu()
    world.run(seconds=60)
    assert len(world.ec2.launched) == 1
    world.ec2.hidden.clear()
    world.run(minutes=5)
    assert len(world.ec2.launched) == 1


def test_an_action_that_slurm_refuses_is_tried_again() -> None:
    world = healthy_world()
    world.slurm.refuse = ["drain n2"]
    world.node("n2").loses_gpu()
    world.run(seconds=1)
    assert not world.slurm_node("n2").is_out
    assert any("the last try failed" in why for why in world.reasons("n2"))
    world.run(seconds=5)
    assert world.slurm_node("n2").is_out


def test_a_node_of_no_group_is_not_repaired() -> None:
    world = healthy_world()
    world.slurm.add_node("login", "10.0.0.99")
    world.engine.receive_agent(
        {
            "node": "login",
            "boot_id": "b",
            "instance_id": "",
            "events": [],
            "verdict": {
                "state": "failed",
                "since": 0,
                "findings": [
                    {
                        "fault": "gpu.lost",
                        "subject": "g",
                        "severity": "fatal",
                        "remedy": "reboot",
                        "evidence": {},
                        "first_at": world.clock(),
                        "last_at": world.clock(),
                    }
                ],
            },
        }
    )
    world.run(seconds=5)
    assert any("in no group" in why for why in world.reasons("login"))
    assert not world.slurm_node("login").is_out


def test_a_node_that_slurm_drained_for_our_own_veto_is_still_ours_to_repair() -> None:
    world = healthy_world()
    world.slurm.operator("n2", "drain", "Prolog error")
    world.node("n2").loses_gpu()
    world.run(minutes=5)

    assert len(world.ec2.launched) == 1
    assert world.story("drain") == ["drain"], "the reason is made ours"


def test_a_mark_that_is_no_number_counts_as_the_sites_default() -> None:
    for mark in ("\u00b2", "9" * 5000, "often"):
        world = World(nodes=4, spares=1, rules=ACT)
        world.run(seconds=5)
        job = world.submit(nodes=1, auto_resume=None)
        world.slurm.set_extra(job, f"nodewatch:auto-resume={mark}")
        world.run(seconds=5)
        world.node(world.job(job).nodes[0]).loses_gpu()
        world.run(seconds=10)
        assert world.job(job).restart_count == 1


def test_a_job_that_is_switched_off_in_its_extra_field_is_not_written_down_at_each_look() -> None:
    world = World(nodes=4, spares=1, rules=ACT)
    world.run(seconds=5)
    job = world.submit(nodes=1, auto_resume=None)
    world.slurm.set_extra(job, "nodewatch:auto-resume=off")

    world.run(seconds=20)

    starts = [r for r in world.journal.records if r.kind == "job_started" and r.data["job_id"] == job]
    assert [r.data["auto_resume"] for r in starts] == [None], "the hook's own, and no other"
    world.node(world.job(job).nodes[0]).loses_gpu()
    world.run(seconds=10)
    assert world.job(job).restart_count == 0


def test_a_rack_that_goes_silent_node_by_node_is_not_replaced() -> None:
    world = healthy_world(max_out=6)
    for name in ("n1", "n2", "n3"):
        world.node(name).crashes()
        world.run(seconds=1)
    world.run(minutes=5)

    assert world.story("launch", "terminate", "mark_down", "drain") == []
    assert any("storm" in why for why in world.reasons("n1"))
