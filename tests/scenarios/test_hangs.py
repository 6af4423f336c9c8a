"""A job that makes no step any more, from the files of its ranks to its next run: the real reader of heartbeats and the real
engine, with Slurm and the machines in process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nodewatch.agent.progress import Progress
from nodewatch.controller import views
from nodewatch.policy.progress import HangRules
from nodewatch.policy.rules import Rules
from nodewatch.sensors.heartbeats import HeartbeatFiles
from nodewatch.testing import World

WAITS = 'Thread 0x1 (idle): "MainThread"\n    all_reduce (torch/distributed_c10d.py:2501)\n    main (train.py:40)'
READS = 'Thread 0x1 (idle): "MainThread"\n    read (data.py:12)\n    main (train.py:31)'


class Program:
    """The ranks of one job, two a node, with their files and the agents that read them."""

    def __init__(self, world: World, root: Path, job: int) -> None:
        self.world = world
        self.job = job
        self.step = 0
        self.step_s = 1.0
        self.stuck: set[int] = set()
        """Ranks that do not come to the end of another step."""
        self.phase = "step"
        self.compute_s: Callable[[str], float | None] = lambda _node: None
        self._root = root
        self._agents: dict[str, Progress] = {}

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.world.job(self.job).nodes

    def ranks(self) -> dict[int, str]:
        return {2 * place + each: node for place, node in enumerate(self.nodes) for each in (0, 1)}

    def starts(self) -> None:
        """Its directories are made, and its first words said."""
        for name, progress in self._agents.items():
            self._unlink(name)
            progress.look()
        for node in self.nodes:
            (self._root / node / str(self.job) / "heartbeats").mkdir(parents=True, exist_ok=True)
            if node not in self._agents:
                files = HeartbeatFiles(self._root / node, clock=self.world.clock, mounts=self._root / "none")
                self._agents[node] = Progress(files, clock=self.world.clock)
            self.world.node(node).tells = self._teller(node)
        self._said = dict.fromkeys(self.ranks(), 0)
        self.write("starting")

    def write(self, phase: str | None = None) -> None:
        for rank, node in self.ranks().items():
            self._said[rank] = self.step if rank not in self.stuck else self._said[rank]
            told: dict[str, Any] = {
                "v": 1,
                "rank": rank,
                "step": self._said[rank],
                "t": self.world.clock(),
                "step_s": self.step_s,
                "phase": phase or self.phase,
                "pid": 4000 + rank,
            }
            own = self.compute_s(node)
            if own is not None:
                told["compute_s"] = own
            if self._is_news(node, rank, told):
                path = self._root / node / str(self.job) / "heartbeats" / str(rank)
                path.write_bytes(json.dumps(told).encode().ljust(256))
                os.utime(path, (self.world.clock(), self.world.clock()))

    def runs(self, seconds: int) -> None:
        """All ranks make steps; once one is stuck, the others wait for it in the next."""
        for _ in range(seconds):
            if not self.stuck or self.step == min(self._said.values()):
                self.step += 1
            self.write()
            self.world.run(seconds=1)

    def stands(self, seconds: int) -> None:
        self.world.run(seconds=seconds)

    def _is_news(self, node: str, rank: int, told: Mapping[str, Any]) -> bool:
        path = self._root / node / str(self.job) / "heartbeats" / str(rank)
        if not path.exists():
            return True
        before = json.loads(path.read_bytes())
        return (before["step"], before["phase"]) != (told["step"], told["phase"])

    def _teller(self, node: str) -> Callable[[], Mapping[str, object]]:
        progress = self._agents[node]

        def tell() -> Mapping[str, object]:
            progress.look()
            part = progress.part()
            progress.sent(part)
            return json.loads(json.dumps(part))  # type: ignore[no-any-return]

        return tell

    def _unlink(self, node: str) -> None:
        directory = self._root / node / str(self.job) / "heartbeats"
        for path in directory.glob("*") if directory.exists() else ():
            path.unlink()


Start = Callable[..., tuple[World, Program]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A world with one job of two nodes that has made 60 steps."""

    def started(**options: Any) -> tuple[World, Program]:
        auto_resume = options.pop("auto_resume", "3")
        nodes = options.pop("job_nodes", 2)
        world = World(nodes=4, spares=1, **options)
        world.run(seconds=5)
        program = Program(world, tmp_path, world.submit(nodes=nodes, auto_resume=auto_resume))
        world.run(seconds=2)
        program.starts()
        program.runs(60)
        return world, program

    return started


def kinds(world: World) -> list[str]:
    return [record.kind for record in world.journal.records if record.kind.startswith(("hang", "stack", "slow"))]


def stacks(world: World, program: Program, odd: int) -> None:
    """Each agent answers with what its ranks' main threads do."""

    def answer(node: str) -> Callable[[int], list[dict[str, object]]]:
        mine = [rank for rank, name in program.ranks().items() if name == node]
        return lambda _job: [{"rank": rank, "stacks": READS if rank == odd else WAITS} for rank in mine]

    for node in program.nodes:
        world.node(node).dumps = answer(node)


def test_a_hung_job_is_looked_at_ended_and_started_again(start: Start) -> None:
    world, program = start()
    stacks(world, program, odd=2)
    second = program.nodes[1]
    program.stuck = {2}
    program.runs(3)
    program.stands(330)
    assert kinds(world) == ["hang_suspected", "stack_dump", "stack_dump", "hang_judged"]
    assert world.job(program.job).restart_count == 1
    told = world.judged(program.job)
    assert f"rank 2 on {second} stands at step 60, the others at step 61 wait for it" in told
    assert f"rank 2 on {second} is in read (data.py:12), the other 3 in all_reduce" in told
    evidence = [record.data for record in world.journal.records if record.kind == "stack_dump"]
    assert {dump["stacks"] for data in evidence for dump in data["dumps"]} == {WAITS, READS}


def test_the_next_run_is_not_taken_for_the_one_that_hung(start: Start) -> None:
    world, program = start()
    program.stands(345)
    assert world.job(program.job).restart_count == 1
    world.run(seconds=10)
    program.step = 55
    program.starts()
    program.runs(20)
    assert world.job(program.job).is_running
    program.stands(200)
    assert kinds(world).count("hang_judged") == 1
    assert world.job(program.job).restart_count == 1


def test_agents_that_say_nothing_hold_it_up_only_so_long(start: Start) -> None:
    world, program = start()
    program.stands(310)
    assert kinds(world) == ["hang_suspected"]
    assert world.job(program.job).restart_count == 0
    program.stands(35)
    assert kinds(world) == ["hang_suspected", "hang_judged"]
    assert world.job(program.job).restart_count == 1
    assert "its agents gave no stacks" in world.judged(program.job)


def test_a_job_that_goes_on_in_time_is_left_alone(start: Start) -> None:
    world, program = start()
    program.stands(310)
    program.runs(40)
    assert kinds(world) == ["hang_suspected", "hang_over"]
    assert world.reasons(f"job {program.job}") == []
    # It has had a step of five minutes: the next one may take as long.
    program.stands(500)
    assert kinds(world) == ["hang_suspected", "hang_over"]
    assert world.job(program.job).restart_count == 0


def test_a_save_may_take_long(start: Start) -> None:
    world, program = start()
    program.phase = "saving"
    program.write()
    program.stands(1700)
    assert kinds(world) == []
    program.stands(200)
    assert any("have been saving for" in why for why in world.reasons(f"job {program.job}"))
    assert kinds(world) == []
    assert world.job(program.job).restart_count == 0


def test_a_site_may_have_hangs_said_only(start: Start) -> None:
    world, program = start(hang=HangRules(act=False))
    program.stands(400)
    assert kinds(world) == ["hang_suspected", "hang_judged"]
    assert world.job(program.job).restart_count == 0
    (why,) = world.reasons(f"job {program.job}")
    assert "no rank has made a step for" in why
    assert why.endswith("[hang] act is false: nothing is done")
    program.runs(5)
    assert kinds(world)[-1] == "hang_over"
    assert world.reasons(f"job {program.job}") == []


def test_heartbeats_may_be_left_unjudged(start: Start) -> None:
    world, program = start(hang=HangRules(enabled=False))
    program.stands(400)
    assert kinds(world) == []
    assert world.job(program.job).restart_count == 0


def test_in_observe_mode_nothing_is_ended(start: Start) -> None:
    world, program = start(rules=Rules(mode="observe", sweep_every_s=0.0))
    program.stands(400)
    assert "hang_judged" in kinds(world)
    assert world.job(program.job).restart_count == 0
    assert any("observe" in why for why in world.reasons(f"job {program.job}"))


def test_a_job_without_the_mark_is_only_told_of(start: Start) -> None:
    world, program = start(auto_resume=None)
    program.stands(400)
    assert kinds(world) == []
    (why,) = world.reasons(f"job {program.job}")
    assert "was not submitted with --auto-resume: nothing is done" in why
    engine = world.engine
    shown = views.status(engine.snapshot, engine.ledger, engine.held, engine.rules, (), world.clock())["jobs"]
    assert [(job["job"], job["auto_resume"], job["held"]) for job in shown] == [(program.job, False, [why])]


def test_a_controller_that_starts_anew_takes_twice_as_long(start: Start) -> None:
    world, program = start()
    program.stands(310)
    world.restart_controller()
    # Its memory of the usual steps is gone, the last step's time stands in the heartbeats.
    program.stands(270)
    assert kinds(world) == ["hang_suspected"]
    program.stands(70)
    assert kinds(world) == ["hang_suspected", "hang_suspected", "hang_judged"]
    assert world.job(program.job).restart_count == 1


def test_a_controller_that_dies_after_the_judgement_still_ends_the_job(start: Start) -> None:
    world, program = start()
    program.stands(310)
    world.slurm.outage = True
    world.run(seconds=2)
    world.slurm.outage = False
    program.stands(33)
    world.restart_controller()
    world.run(seconds=10)
    assert kinds(world).count("hang_judged") == 1
    assert world.job(program.job).restart_count == 1


def test_an_agent_that_tells_nothing_of_the_ranks_is_no_hang(start: Start) -> None:
    # Its verdicts come, its heartbeats do not: that the files cannot be read is no standstill.
    world, program = start()
    for node in program.nodes:
        world.node(node).tells = dict
    program.runs(400)
    (why,) = world.reasons(f"job {program.job}")
    assert f"the agents of {', '.join(sorted(program.nodes))} tell nothing of it: whether it hangs is unknown" in why
    assert kinds(world) == []


def test_one_rank_that_stands_still_alone_is_said(start: Start) -> None:
    world, program = start()
    alone = program.ranks()[3]
    program.stuck = {3}
    for _ in range(320):
        program.step += 1
        program.write()
        world.run(seconds=1)
    (why,) = world.reasons(f"job {program.job}")
    assert why == f"rank 3 on {alone} stands still while the others make steps"
    assert kinds(world) == []


def test_idle_gpus_of_a_job_without_heartbeats_are_said(start: Start) -> None:
    world, _ = start()
    job = world.submit(nodes=1, auto_resume="3")
    world.run(seconds=5)
    (node,) = world.job(job).nodes
    idle = [0.0]
    world.node(node).tells = lambda: {"gpus_idle_s": idle[0]}
    for idle[0] in (100.0, 1790.0, 1860.0):
        world.run(seconds=2)
        said = world.reasons(f"job {job}")
        assert bool(said) == (idle[0] > 1800)
    assert "no GPU of its node has worked for 31 min" in said[0]
    assert world.job(job).restart_count == 0


@pytest.mark.parametrize("jobs", ["x", {"17": []}, {"17": {"ranks": {"x": {}}}}, {"x": {}}, [], None])
def test_a_message_that_is_none_costs_the_heartbeats_only(start: Start, jobs: object) -> None:
    world, program = start()
    node = program.nodes[0]
    world.node(node).tells = lambda: {"jobs": jobs}
    world.node(node).loses_gpu()
    world.run(seconds=5)
    assert world.cases(node)[0].fault == "gpu.xid.79"


def test_a_node_that_is_slow_in_two_jobs_is_said(start: Start, tmp_path: Path) -> None:
    world, program = start(job_nodes=3, rules=Rules(mode="act", sweep_every_s=0.0))
    slow = program.nodes[1]
    program.compute_s = lambda node: 0.9 if node == slow else 0.5
    program.runs(150)
    assert world.reasons(slow) == []
    world.slurm.end_job(program.job, "COMPLETED", 0)
    world.run(seconds=5)
    # The next job has the node at another place.
    second = Program(world, tmp_path / "second", world.submit(nodes=3, auto_resume="3"))
    world.run(seconds=5)
    job = world.job(second.job)
    order = (slow, *(node for node in job.nodes if node != slow))
    world.slurm.job_table[second.job] = type(job)(**{**{f: getattr(job, f) for f in job.__slots__}, "nodes": order})
    second.starts()
    second.compute_s = program.compute_s
    second.runs(150)
    assert kinds(world) == ["slow_node"]
    (why,) = world.reasons(slow)
    assert why.startswith(f"training is slow on {slow}: job {program.job} (1.8 times), job {second.job} (1.8 times)")
    assert world.cases(slow) == []
