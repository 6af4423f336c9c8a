"""A GPU dies under a job: the story from fault to cure, as sentences."""

from nodewatch.testing import World

WHOLE_REPAIR = [
    "hold_spare",
    "drain",
    "release_spare",
    "requeue",
    "launch",
    "terminate",
    "repoint",
    # Not before the second after the one in which its last run was ended.
    "expedite",
    "hold_spare",
]


def test_a_marked_job_goes_on_with_the_spare_and_the_machine_is_replaced() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    assert world.slurm_node("n4").is_spare
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=30)
    assert world.job(job).nodes == ("n1", "n2", "n3")

    world.node("n2").loses_gpu()
    world.run(seconds=3)

    assert world.slurm_node("n2").is_out
    assert world.job(job).is_running
    assert world.job(job).restart_count == 1
    assert world.job(job).nodes == ("n1", "n3", "n4")

    world.run(minutes=5)

    assert world.story() == WHOLE_REPAIR
    assert world.slurm_node("n2").is_spare
    assert len(world.ec2.launched) == 1
    assert len(world.ec2.terminated) == 1
    assert [case.step.value for case in world.cases("n2")] == ["closed"]


def test_the_job_that_dies_of_the_fault_before_it_is_noticed_is_started_again() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="default")
    world.run(seconds=30)

    world.fails(job, exit_code=137)
    world.run(seconds=2)
    assert world.job(job).has_failed, "nothing is judged before the nodes had time to report"
    world.node("n3").loses_gpu()
    world.run(seconds=3)

    assert world.job(job).is_running
    assert "n3" not in world.job(job).nodes


def test_a_program_that_fails_on_healthy_nodes_is_not_started_again_and_its_user_is_told() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=30)

    world.fails(job)
    world.run(minutes=1)

    assert world.story("requeue", "drain") == []
    assert world.job(job).has_failed
    assert "the program failed (exit code 1:0)" in world.judged(job)
    assert all(not world.slurm_node(name).is_out for name in ("n1", "n2", "n3"))


def test_a_failure_on_a_silent_node_is_retried_once_and_not_twice() -> None:
    world = World(nodes=4, spares=0)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="5")
    world.run(seconds=30)
    world.node("n2").unknown = (("gpu_count", "NVML did not answer"),)

    world.fails(job)
    world.run(minutes=1)
    assert world.story("requeue") == ["requeue"]
    assert world.job(job).is_running

    for name in world.job(job).nodes:
        world.node(name).unknown = (("gpu_count", "NVML did not answer"),)
    world.fails(job)
    world.run(minutes=1)
    assert world.story("requeue") == ["requeue"]
    assert "not started again" in world.judged(job)


def test_an_unmarked_job_is_left_alone_and_keeps_its_node_until_it_ends() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume=None)
    world.run(seconds=30)

    world.node("n1").loses_gpu()
    world.run(minutes=10)

    assert world.job(job).is_running
    assert world.ec2.launched == []
    assert any("was not submitted with --auto-resume" in why for why in world.reasons(f"job {job}"))
    assert any("still busy" in why for why in world.reasons("n1"))

    world.fails(job)
    world.run(minutes=5)
    assert len(world.ec2.launched) == 1


def test_the_budget_of_a_job_is_respected() -> None:
    world = World(nodes=6, spares=2)
    world.run(seconds=5)
    job = world.submit(nodes=2, auto_resume="1")
    world.run(seconds=30)

    world.node(world.job(job).nodes[0]).loses_gpu()
    world.run(minutes=5)
    assert world.job(job).restart_count == 1
    world.node(world.job(job).nodes[0]).loses_gpu()
    world.run(seconds=5)
    world.fails(job, exit_code=137)
    world.run(minutes=5)

    assert world.job(job).restart_count == 1
    assert "all 1 restarts are used up" in world.judged(job)


def test_a_machine_that_stops_dead_is_noticed_without_slurms_timeout() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=30)

    world.node("n2").crashes()
    world.run(seconds=25)

    assert world.job(job).is_running
    assert world.job(job).nodes == ("n1", "n3", "n4")
    world.run(minutes=5)
    assert len(world.ec2.launched) == 1
    assert world.slurm_node("n2").is_spare


def test_a_finding_that_reboot_cures_ends_without_a_new_machine() -> None:
    from nodewatch.model.health import Remedy, Severity

    world = World(nodes=3, spares=0)
    world.run(seconds=5)
    world.node("n1").reports("gpu.remap_pending", Severity.DEGRADED, Remedy.REBOOT)
    world.run(minutes=5)

    assert world.story() == ["drain", "reboot", "return_to_service"]
    assert world.slurm_node("n1").is_idle


def test_a_finding_that_survives_the_reboot_gets_a_new_machine() -> None:
    from nodewatch.model.health import Remedy, Severity

    world = World(nodes=3, spares=0)
    world.survives_reboot = True
    world.run(seconds=5)
    world.node("n1").reports("gpu.remap_pending", Severity.DEGRADED, Remedy.REBOOT)
    world.run(minutes=8)

    assert world.story() == ["drain", "reboot", "launch", "terminate", "repoint", "return_to_service"]
    assert world.slurm_node("n1").is_idle


def test_waiting_jobs_do_not_take_the_nodes_of_the_one_that_starts_again() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="3")
    world.run(seconds=30)
    rivals = [world.submit(nodes=1, auto_resume=None) for _ in range(3)]
    world.run(seconds=5)

    world.node("n2").loses_gpu()
    world.run(seconds=5)

    assert world.job(job).is_running
    assert world.job(job).restart_count == 1
    assert all(world.job(rival).is_pending for rival in rivals)
    assert world.slurm.reservations == {}


def test_a_step_marked_inside_an_unmarked_job_marks_the_job() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume=None)
    world.slurm.set_extra(job, "nodewatch:auto-resume=1")
    world.run(seconds=30)

    world.node("n2").loses_gpu()
    world.run(seconds=5)

    assert world.job(job).restart_count == 1
    assert world.job(job).is_running


def test_two_broken_nodes_get_two_spares() -> None:
    world = World(nodes=6, spares=2)
    world.run(seconds=5)
    job = world.submit(nodes=4, auto_resume="3")
    world.run(seconds=30)

    world.node("n1").loses_gpu()
    world.node("n2").loses_gpu()
    world.run(seconds=5)

    assert world.job(job).nodes == ("n3", "n4", "n5", "n6")
    assert world.job(job).is_running


def test_one_element_of_an_array_is_started_again_and_the_others_go_on() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    elements = world.submit_array(tasks=3, auto_resume="3")
    world.run(seconds=30)
    broken = world.job(elements[0]).nodes[0]

    world.node(broken).loses_gpu()
    world.run(seconds=5)

    assert [world.job(element).restart_count for element in elements] == [1, 0, 0]
    assert all(world.job(element).is_running for element in elements)


def test_a_job_that_asked_for_the_broken_node_by_name_does_not_wait_for_it_for_ever() -> None:
    world = World(nodes=4, spares=1)
    world.run(seconds=5)
    job = world.submit(nodes=3, auto_resume="3")
    world.slurm.set_required(job, ("n1", "n2", "n3"))
    world.run(seconds=30)

    world.node("n2").loses_gpu()
    world.run(seconds=5)

    assert world.job(job).required_nodes == ("n1", "n3")
    assert world.job(job).is_running
