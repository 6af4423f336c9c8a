"""What must never happen in a `World`, and at which instant it is looked for. A broken rule raises AssertionError."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nodewatch.model.cluster import SlurmNode
from nodewatch.model.ledger import Case, Step
from nodewatch.model.records import Record
from nodewatch.policy.case_steps import key_of
from nodewatch.policy.job_scene import limit_of
from nodewatch.policy.plan import plan
from nodewatch.policy.verbs import FAMILY, asked
from nodewatch.policy.wishes import is_forced, is_wished

if TYPE_CHECKING:
    from nodewatch.testing.world import World


class Safety:
    """The rules of docs/flow.md and of the design, against what the world knows and the controller does not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looked_at = 0
        self._announced: set[str] = set()

    # -- at each touch --------------------------------------------------------------------------------------------------

    def at_touch(self, verb: str, node: str) -> None:
        """The controller is about to change a node or its machine."""
        world = self._world
        known = world.slurm.node_table[node]
        cases = [case for case in world.cases(node) if case.is_open]
        if verb == "reason":
            self._only_an_answer(known)
            return
        self._only_what_is_ours(verb, known, cases)
        assert not (world.slurm.outage and verb in ("launch", "terminate")), f"{verb} {node} on half a picture"
        is_lost = any(case.family == "node" or is_forced(case) for case in cases)
        if verb in ("terminate", "reboot") and not is_lost:
            busy = self._jobs_on(node)
            assert not busy, f"{verb} {node} under the jobs {busy}"
        action = self._announced_last()
        whose = str(action["key"]).partition(":")[0] if action.get("action") == "return_to_service" else "operator"
        if whose == "turned-away":
            self._only_what_slurm_drained_for_something_shared(node, cases)
        elif whose != "operator":
            self._only_what_passed_its_checks(node, cases)
        if verb in ("drain", "down") and action.get("action") in ("drain", "mark_down"):
            self._nothing_in_a_storm(node, cases)

    def _only_what_is_ours(self, verb: str, known: SlurmNode, cases: list[Case]) -> None:
        launched = any(case.new_instance for case in cases)
        wished = known.name in self._world.engine.ledger.wishes or any(is_wished(case) for case in cases)
        assert (
            not known.is_foreign
            or wished
            or asked(known) is not None
            or (launched and verb in ("terminate", "address"))
        ), f"{verb} {known.name}, which somebody else took out of service ({known.reason})"

    def _only_an_answer(self, known: SlurmNode) -> None:
        """Somebody else's words are written over with themselves and an answer, once."""
        action = self._announced_last()
        assert known.is_foreign, f"{known.name} has the reason {known.reason}, to which nobody waits for an answer"
        assert action["action"] == "answer_reason"
        assert "[nodewatch:" not in known.reason, f"{known.name} is answered twice: {action['reason']}"
        assert asked(known) is None, f"{known.name} is answered although its words are plain: {known.reason}"
        assert known.reason.strip().lower().startswith("action"), f"nobody asked us: {known.reason}"

    def _only_what_passed_its_checks(self, node: str, cases: list[Case]) -> None:
        """Unknown is never good: only a plain pass of the deep checks lets a machine back."""
        returning = [case for case in cases if case.step is Step.RETURNING]
        assert returning, f"{node} goes back into service without a case"
        prefix = key_of(returning[0], "validate", returning[0].attempt) + "."
        answers = [a for key, a in self._world.engine.ledger.validations.items() if key.startswith(prefix)]
        assert any(answer.passed is True for answer in answers), f"{node} goes back unchecked ({prefix}: {answers})"

    def _only_what_slurm_drained_for_something_shared(self, node: str, cases: list[Case]) -> None:
        """Without deep checks, only a node that was never suspected itself, and that shows nothing."""
        world = self._world
        known = world.slurm.node_table[node]
        assert known.reason.startswith(("Prolog error", "Epilog error"))
        times = [at for at in world.engine.ledger.turned_away[node].times if abs(at - known.reason_at) <= 60]
        assert times, f"{node} goes back after another failure than ours at {known.reason_at}"
        at = times[0]
        assert not cases, f"{node} goes back into service under {cases}"
        assert not world.machines[node].findings, f"{node} goes back with {world.machines[node].findings}"
        families = {case.family for case in world.cases(node) if case.step_at >= at}
        shared = set(world.rules.shared_families)
        assert families <= shared, f"{node} goes back unchecked after {sorted(families)}"
        alike = {other.node for other in world.engine.ledger.cases.values() if other.family in shared}
        assert len(alike) >= world.rules.storm_nodes, f"{node} goes back unchecked, only {sorted(alike)} had its fault"

    def _nothing_in_a_storm(self, node: str, cases: list[Case]) -> None:
        """A fault that was on many nodes when the case went on is not the node's."""
        rules = self._world.rules
        for case in cases:
            if case.step is not Step.DRAINING or case.tried or case.family == FAMILY:
                continue
            alike = {
                other.node
                for other in self._world.engine.ledger.cases.values()
                if other.family == case.family and 0 <= case.step_at - other.opened_at <= rules.storm_window_s
            }
            assert len(alike) < rules.storm_nodes, f"{node} is taken out for {case.fault}, which is on {sorted(alike)}"

    # -- after each tick ------------------------------------------------------------------------------------------------

    def after_tick(self) -> None:
        """What must hold between ticks."""
        world = self._world
        for record in self._new_records():
            self._was_announced(record)
            self._deep_checks_find_an_empty_node(record)
        assert not world.engine.counts.get("restless_ticks"), "the planner did not come to rest"
        # An operator who forces a repair is told of the limit and passes it.
        out = {case.node for case in world.engine.ledger.open_cases if case.is_out and not is_forced(case)}
        assert len(out) <= world.rules.max_out, f"{sorted(out)} are out, the limit is {world.rules.max_out}"
        for name in world.machines:
            alive = world.ec2.alive(name)
            assert len(alive) <= 2, f"{name} has the machines {alive}"
        for job in world.engine.ledger.jobs.values():
            limit = limit_of(job, world.rules)
            assert job.requeues <= limit, f"job {job.job_id} was requeued {job.requeues} times, the limit is {limit}"
        if not world.slurm.outage and not world.journal.full:
            again = plan(world.engine.snapshot, world.engine.ledger, world.rules, world.clock())
            assert not again.actions, f"planning again in the same instant gave {again.actions}"
            told = {held.case_id for held in world.engine.held}
            for case in world.engine.ledger.open_cases:
                assert case.case_id in told, f"{case.case_id} is open ({case.step.value}) and nothing says why"

    def _was_announced(self, record: Record) -> None:
        if record.kind == "intended":
            self._announced.add(record.data["action"]["key"])
        elif record.kind in ("done", "failed"):
            key = record.data["key"]
            assert key in self._announced, f"{key} was done without being announced"

    def _deep_checks_find_an_empty_node(self, record: Record) -> None:
        action = record.data.get("action") if record.kind == "done" else None
        if action and action["action"] == "deep_check" and action["suite"] == "deep":
            jobs = self._jobs_on(action["node"])
            assert not jobs, f"deep checks were asked of {action['node']} under the jobs {jobs}"

    # -- below ----------------------------------------------------------------------------------------------------------

    def _new_records(self) -> list[Record]:
        records = self._world.journal.records
        new, self._looked_at = records[self._looked_at :], len(records)
        return new

    def _announced_last(self) -> dict[str, Any]:
        """The action that is being carried out: its announcement is the newest record."""
        newest = self._world.journal.records[-1:]
        return dict(newest[0].data["action"]) if newest and newest[0].kind == "intended" else {}

    def _jobs_on(self, node: str) -> list[int]:
        return [job.job_id for job in self._world.slurm.job_table.values() if job.is_running and node in job.nodes]
