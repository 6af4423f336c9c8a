"""The agent and the jobs of its node: files before the answer, gone after, and what the controller asks for them."""

from __future__ import annotations

import os

from .world import XID_79, FakeController, Node, until

JOB = {"id": "17", "uid": str(os.geteuid()), "user": "ada", "nodes": "n[1-2]", "auto_resume": "3", "restart": "0"}


def test_a_jobs_files_are_there_when_the_prolog_is_answered_and_gone_after_its_epilog(node: Node) -> None:
    node.start()

    assert node.ask("prolog", **JOB)["allow"]
    home = node.home / "jobs" / "17"
    assert "NODEWATCH_AUTO_RESUME=3\n" in (home / "environment").read_text()

    assert node.ask("epilog", **JOB)["allow"]
    assert not home.exists()


def test_a_job_that_is_turned_away_gets_none(node: Node) -> None:
    node.start()
    node.kernel_says(XID_79)
    until(lambda: node.ask("prolog")["allow"] is False, what="the denial")

    node.ask("prolog", **JOB)

    assert not (node.home / "jobs" / "17").exists()


def test_the_controller_asks_a_job_to_save_and_tells_of_the_cluster(node: Node, controller: FakeController) -> None:
    controller.cluster = {"node_mtbf_s": 5000.0, "auto_resume": [], "jobs": [17]}
    node.settings["controller_url"] = controller.url
    node.settings["heartbeat_s"] = 0.1
    node.start()
    home = node.home / "jobs" / "17"

    def is_told() -> bool:
        node.ask("prolog", **JOB)
        return "NODEWATCH_MTBF_S=2500\n" in (home / "environment").read_text()

    until(is_told, what="the failure rate")
    controller.requests = [{"kind": "save_now", "job": 17, "key": "n1.efa.1", "stop": False}]

    until((home / "save-now").exists, what="the request to save")
    assert "was ignored" not in node.log()


def test_a_controller_of_an_earlier_release_tells_nothing(node: Node, controller: FakeController) -> None:
    controller.take = lambda _message: {"v": 1, "accepted": [], "requests": []}  # type: ignore[method-assign]
    node.settings["controller_url"] = controller.url
    node.start()

    assert node.ask("prolog", **JOB)["allow"]
    assert "NODEWATCH_MTBF_S=" in (node.home / "jobs" / "17" / "environment").read_text()
