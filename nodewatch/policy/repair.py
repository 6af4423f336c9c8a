"""One case, one tick: what to do next, what it waits for, and when to go up a rung."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from nodewatch.model import actions as act
from nodewatch.model.cluster import SPARE_REASON
from nodewatch.model.health import Severity
from nodewatch.model.ledger import ActionState, Case, Cause, Ledger, Rung, Step
from nodewatch.policy import bootstrap, guards, parting, scheduled, spares, wishes
from nodewatch.policy.attempts import blocked, due
from nodewatch.policy.case_steps import (
    Scene,
    StepOutcome,
    begin,
    key_of,
    moved,
    next_rung,
    owned_reason,
    view_of,
)
from nodewatch.policy.exchange import booting, given_up, launching, no_machine
from nodewatch.policy.lost import is_silent
from nodewatch.policy.verbs import FAMILY

_SETTLE_S = 3.0
"""How long Slurm's picture may lag behind an action of ours before a difference is taken for somebody's wish."""


def advance(case: Case, scene: Scene) -> StepOutcome:
    """The next step of an admitted case."""
    taken_back = _taken_back(case, scene)
    if taken_back is not None:
        return StepOutcome(case=taken_back)
    case, releases, missing = _with_spare(case, scene)
    outcome = _STEPS[case.step](case, scene)
    # After the step's own actions: the broken node is out before another takes its place.
    return dataclasses.replace(
        outcome, actions=(*outcome.actions, *releases), held=(*outcome.held, *((missing,) if missing else ()))
    )


def _with_spare(case: Case, scene: Scene) -> tuple[Case, tuple[act.Action, ...], str | None]:
    """The case with a spare for its node, the release of that spare when it is due, and what is missing."""
    group = scene.rules.group_of(case.node)
    if group is None or case.was_spare or case.step in (Step.RETURNING, Step.WATCHING):
        return case, (), None
    if not case.spare:
        spare = spares.pick(
            scene.spares.get(group.name, ()), scene.snapshot, scene.spares_taken, scene.rules, scene.now
        )
        if spare is None:
            short = f"no healthy spare in group {group.name}: jobs of {case.node} wait for it to come back"
            return case, (), short if group.spares > 0 else None
        case = dataclasses.replace(case, spare=spare)
    known = scene.snapshot.nodes.get(case.spare)
    action = act.ReleaseSpare(key=f"{case.case_id}:spare:{case.spare}", node=case.spare, stands_in_for=case.node)
    is_due = known is not None and known.is_spare and due(action, scene.ledger, scene.rules, scene.now)
    return case, (action,) if is_due else (), None


def _taken_back(case: Case, scene: Scene) -> Case | None:
    """The case closed, when somebody put the node back into service, or took it over, against us; held again, when they took it
    before we had.

    An operator's word ends our repair as long as nothing was launched yet; afterwards there is a machine to look after.
    """
    node = scene.snapshot.nodes.get(case.node)
    drained_at = _drained_at(case, scene.ledger)
    if case.step is not Step.DRAINING or node is None:
        return None
    if drained_at is None:
        taken = None if case.tried or case.new_instance else guards.foreign(case, scene.snapshot)
        return None if taken is None else dataclasses.replace(case, step=Step.HELD, step_at=scene.now, why=taken)
    if scene.snapshot.taken_at < drained_at + _SETTLE_S:
        return None
    if not node.is_out and not node.is_down:
        why = "somebody returned the node to service: their word holds until a new fault is found"
    elif node.is_foreign:
        why = f"somebody took the node over ({node.reason or 'no reason given'}): left alone"
    else:
        return None
    return dataclasses.replace(case, step=Step.CLOSED, step_at=scene.now, why=why)


def _drained_at(case: Case, ledger: Ledger) -> float | None:
    """When this step of the case took the node out of service, None when it has not."""
    records = [ledger.actions.get(f"{case.case_id}:{rung.word}:drain") for rung in Rung]
    times = [r.at for r in records if r is not None and r.state is ActionState.DONE and r.at >= case.step_at]
    return max(times, default=None)


def _draining(case: Case, scene: Scene) -> StepOutcome:
    node = scene.snapshot.nodes.get(case.node)
    if node is None:
        return StepOutcome(case=case, held=(f"Slurm does not know {case.node}",))
    taken = guards.foreign(case, scene.snapshot)
    if taken is not None:
        # Our drain would put our reason over theirs.
        return StepOutcome(case=case, held=(taken,))
    wanted: list[act.Action] = []
    held: list[str] = []
    if not node.is_out or node.is_spare or not node.is_ours:
        wanted.append(act.Drain(key=key_of(case, "drain"), node=case.node, reason=owned_reason(case)))
    if (case.family == "node" or wishes.is_forced(case)) and not node.is_down:
        # Without this slurmctld waits SlurmdTimeout (300 s) for a machine that is gone, and its jobs with it.
        wanted.append(act.MarkDown(key=key_of(case, "down"), node=case.node, reason=owned_reason(case)))
    actions = tuple(a for a in wanted if due(a, scene.ledger, scene.rules, scene.now))
    held += [why for a in wanted if (why := blocked(a.key, scene.ledger, scene.rules, scene.now))]
    if actions:
        return StepOutcome(case=case, actions=actions, held=tuple(held))
    busy = scene.snapshot.is_busy(case.node)
    # Not once the ladder was climbed for it: checks that fail again would send it back here, round and round.
    was_climbed = case.rung is Rung.HUMAN and bool(case.tried)
    if not was_climbed and _has_cleared(case, scene):
        return moved(case, Step.VALIDATING, scene, "the fault is no longer seen: checking before it returns")
    if case.rung is Rung.DRAIN:
        return StepOutcome(case=case, held=(*held, f"{case.fault} has no repair of its own: drained until it clears"))
    if case.rung is Rung.HUMAN:
        return moved(case, Step.WAITING_FOR_HUMAN, scene, f"{case.fault} on {case.subject} needs a human")
    if busy and case.family != "node":
        return _still_busy(case, held, scene)
    if not (node.is_out or node.is_down):
        return StepOutcome(case=case, held=(*held, f"{case.node} is not out of service yet"))
    if scene.storm is not None:
        return StepOutcome(case=case, held=(*held, scene.storm))
    if case.rung is Rung.REPLACE:
        why = no_machine(case, scene)
        if why is not None:
            return StepOutcome(case=case, held=(*held, why))
        return moved(case, Step.LAUNCHING, scene, f"{case.fault}: the machine is replaced")
    if case.rung is Rung.RESET_GPU:
        return moved(case, Step.RESETTING, scene, f"{case.fault}: the GPUs are reset")
    return moved(case, Step.REBOOTING, scene, f"{case.fault}: the machine is rebooted")


def _still_busy(case: Case, held: list[str], scene: Scene) -> StepOutcome:
    """An impaired node waits for its jobs, up to `degraded_wait_s` and no longer than EC2 does; past it those that can be
    started again are."""
    jobs = scene.snapshot.jobs_on(case.node)
    waits = f"{case.node} is still busy with {','.join(str(job.job_id) for job in jobs) or 'its clean-up'}"
    drained_at = _drained_at(case, scene.ledger)
    limit_s = scene.rules.degraded_wait_s
    must_go_at = scheduled.jobs_must_go_at(case, scene.rules)
    if must_go_at is not None and drained_at is not None:
        own_s = max(0.0, must_go_at - drained_at)
        limit_s = max(1.0, min(limit_s or own_s, own_s))
    if not limit_s or drained_at is None or case.severity > Severity.DEGRADED or wishes.is_forced(case):
        return StepOutcome(case=case, held=(*held, waits))
    left_s = drained_at + limit_s - scene.now
    if left_s > 0:
        return StepOutcome(case=case, held=(*held, f"{waits}; they may go on for {left_s:.0f} s"))
    late = f"{case.fault} on {case.subject}: its jobs had {limit_s:.0f} s to end"
    marked = [job for job in jobs if job.job_id in scene.ledger.jobs]
    requeues = [
        act.Requeue(
            key=key_of(case, "requeue", job.job_id, job.restart_count),
            job_id=job.job_id,
            node=case.node,
            cause=Cause.HARDWARE.value,
            reason=late,
            slurm_id=job.slurm_id,
        )
        for job in jobs
        if job not in marked and job.may_requeue and job.is_running
    ]
    stuck = [str(job.job_id) for job in jobs if job not in marked and not job.may_requeue]
    if stuck:
        held.append(f"{late}, but {','.join(stuck)} cannot be put back into the queue: waiting for its end")
    if marked:
        # From here on it counts as what interrupts a job, so that the marked ones are judged, counted and started again.
        case = dataclasses.replace(case, severity=Severity.FATAL, why=late)
    actions = tuple(a for a in requeues if due(a, scene.ledger, scene.rules, scene.now))
    return StepOutcome(case=case, actions=actions, held=(*held, waits))


def _has_cleared(case: Case, scene: Scene) -> bool:
    """Whether the machine that had the fault is healthy again without our doing."""
    view = view_of(case, scene)
    if case.family == FAMILY or view is None or view.verdict is None:
        return False
    if not spares.is_fit(case.node, scene.snapshot, scene.rules, scene.now):
        return False
    return view.verdict.since > case.opened_at and scene.now - view.verdict.since >= scene.rules.healthy_delay_s


def reset_key(case: Case) -> str:
    """The key of the GPU reset of a case."""
    return key_of(case, "reset", case.attempt)


def _resetting(case: Case, scene: Scene) -> StepOutcome:
    action = act.ResetGpu(key=reset_key(case), node=case.node, reason=owned_reason(case))
    if not scene.ledger.is_done(action.key):
        return begin(case, action, scene)
    outcome = scene.ledger.resets.get(action.key)
    if outcome is None and scene.now - case.step_at > scene.rules.reset_timeout_s:
        return next_rung(case, scene, f"no answer to the GPU reset within {scene.rules.reset_timeout_s:.0f} s")
    if outcome is None:
        return StepOutcome(case=case, held=("waiting for the agent to reset the GPUs",))
    is_done, said = outcome
    if not is_done:
        return next_rung(case, scene, f"the GPU reset failed: {said}")
    return moved(case, Step.VALIDATING, scene, "the GPUs were reset: the deep checks run")


def _rebooting(case: Case, scene: Scene) -> StepOutcome:
    action = act.Reboot(key=key_of(case, "reboot", case.attempt), node=case.node, reason=owned_reason(case))
    view = view_of(case, scene)
    if scene.ledger.is_done(action.key):
        if view is not None and view.boot_id and view.boot_id != case.old_boot:
            return moved(case, Step.VALIDATING, scene, "it rebooted: the deep checks run")
        if scene.now - case.step_at > scene.rules.reboot_timeout_s:
            return _rebooting_by_ec2(case, scene)
        return StepOutcome(case=case, held=("waiting for the machine to come back from its reboot",))
    return begin(case, action, scene)


def _rebooting_by_ec2(case: Case, scene: Scene) -> StepOutcome:
    """Slurm's reboot did not bring the machine back: EC2 pulls the plug where it can, before another one is launched.

    EC2's own picture lags and says "running" all the while; the new boot id is what counts.
    """
    limit_s = scene.rules.reboot_timeout_s
    group = scene.rules.group_of(case.node)
    why = f"not back within {limit_s:.0f} s of the reboot"
    instance = scene.snapshot.instances.get(case.old_instance)
    if group is None or not group.has_ec2 or instance is None or not instance.is_alive:
        return next_rung(case, scene, why)
    action = act.RebootInstance(
        key=key_of(case, "ec2reboot", case.attempt), node=case.node, instance_id=case.old_instance
    )
    record = scene.ledger.actions.get(action.key)
    if record is None or record.state is ActionState.INTENDED:
        return begin(case, action, scene)
    if record.state is ActionState.FAILED:
        return next_rung(case, scene, f"{why}, and EC2 did not reboot it ({record.error})")
    if scene.now - record.at > limit_s:
        return next_rung(case, scene, f"{why}, nor of EC2's")
    return StepOutcome(case=case, held=("waiting for the machine to come back from EC2's reboot",))


def _validating(case: Case, scene: Scene) -> StepOutcome:
    key = validation_key(case, scene.ledger)
    prefix = _validation_prefix(case)
    answers = [answer for k, answer in sorted(scene.ledger.validations.items()) if k.startswith(prefix)]
    if any(answer.passed for answer in answers):
        return _passed(case, scene)
    failed = next((answer for answer in answers if answer.passed is False), None)
    if failed is not None:
        evidence = {**case.evidence, "deep_checks": list(failed.faults)}
        noted = dataclasses.replace(case, evidence=evidence)
        why = f"the deep checks failed ({failed.outline})"
        return given_up(noted, scene, why, bootstrap.Cause.DEEP_CHECKS, failed.outline)
    view = view_of(case, scene)
    is_running = view is not None and view.validating.startswith(prefix) and not is_silent(view, scene.rules, scene.now)
    waited_s = scene.now - max([case.step_at, *(answer.at for answer in answers)])
    limit_s = scene.rules.check_timeout_s if is_running else scene.rules.validate_timeout_s
    if answers and scene.now - case.step_at > scene.rules.validate_timeout_s and not is_running:
        # Nothing was found against this machine: another one would not make a missing tool appear.
        doubt = f"the deep checks could not tell, {len(answers)} times ({answers[-1].outline})"
        return moved(case, Step.WAITING_FOR_HUMAN, scene, doubt)
    if waited_s > limit_s:
        why = f"no answer of the deep checks within {limit_s:.0f} s"
        return given_up(case, scene, why, bootstrap.Cause.DEEP_CHECKS, why)
    doubt = f" ({len(answers)} times it could not be told: {answers[-1].outline})" if answers else ""
    progress = f": {view.progress}" if view is not None and is_running and view.progress else ""
    return StepOutcome(case=case, held=(f"waiting for the deep checks ({key}){progress}{doubt}",))


def _passed(case: Case, scene: Scene) -> StepOutcome:
    """The deep checks passed; a replacement has to be other hardware as well, where that can be told."""
    if not case.new_instance:
        return moved(case, Step.RETURNING, scene, "the deep checks passed")
    verdict, sentence = parting.same_hardware(case, scene.ledger)
    noted = dataclasses.replace(case, evidence={**case.evidence, "hardware": verdict})
    if verdict == "same" and scene.rules.same_hardware_fails:
        return given_up(noted, scene, sentence, bootstrap.Cause.HARDWARE, sentence)
    return moved(noted, Step.RETURNING, scene, f"the deep checks passed; {sentence}")


def _validation_prefix(case: Case) -> str:
    return key_of(case, "validate", case.attempt) + "."


def validation_key(case: Case, ledger: Ledger) -> str:
    """The request that the agent of a case under validation is to answer now; a doubtful answer is asked again."""
    prefix = _validation_prefix(case)
    return f"{prefix}{sum(1 for key in ledger.validations if key.startswith(prefix))}"


def _returning(case: Case, scene: Scene) -> StepOutcome:
    node = scene.snapshot.nodes.get(case.node)
    if node is None:
        return StepOutcome(case=case, held=(f"Slurm does not know {case.node}",))
    if node.is_foreign:
        return StepOutcome(case=case, held=(f"somebody took the node over ({node.reason}): not returned",))
    was_exchanged = bool(case.new_instance) or scene.ledger.is_done(key_of(case, "reboot", case.attempt))
    if not node.is_responding or (was_exchanged and node.slurmd_started_at == case.old_slurmd):
        # slurmctld takes a while to notice that the old slurmd is gone: until the new one has registered, its picture of
        # the node is the dead machine's, and what we set would be undone by the registration.
        limit_s = scene.rules.register_timeout_s
        # An old Slurm that tells no start of slurmd must not cost a machine.
        is_told = not node.is_responding or node.slurmd_started_at > 0
        if is_told and scene.now - case.step_at > limit_s and not scene.ledger.is_done(key_of(case, "return")):
            view = view_of(case, scene)
            worst = view.verdict.worst if view is not None and view.verdict is not None else None
            said = f"its agent says {worst.finding.fault}" if worst is not None else "its agent finds nothing"
            why = f"slurmd has not registered within {limit_s:.0f} s of the deep checks ({said})"
            return given_up(case, scene, why, bootstrap.Cause.SLURMD, said)
        return StepOutcome(case=case, held=("waiting for slurmd to register",))
    group = scene.rules.group_of(case.node)
    lacks_spare = group is not None and len(scene.spares.get(group.name, ())) < group.spares
    # It becomes the spare only where one was spent for it: a job that found no spare waits for this very node.
    becomes_spare = lacks_spare and bool(case.spare or case.was_spare)
    back = act.ReturnToService(key=key_of(case, "return"), node=case.node)
    hold = act.HoldSpare(key=key_of(case, "hold"), node=case.node, reason=SPARE_REASON, is_down=node.is_down)
    if scene.ledger.is_done(back.key) or scene.ledger.is_done(hold.key):
        as_spare = scene.ledger.is_done(hold.key)
        return moved(case, Step.WATCHING, scene, "back as the spare" if as_spare else "back in service")
    return begin(case, hold if becomes_spare else back, scene)


def _watching(case: Case, scene: Scene) -> StepOutcome:
    view = view_of(case, scene)
    if view is not None and view.verdict is not None and not is_silent(view, scene.rules, scene.now):
        again = [
            s.finding
            for s in view.verdict.findings
            if s.finding.family == case.family and s.finding.severity >= Severity.DEGRADED
        ]
        if again:
            worst = again[0]
            return next_rung(case, scene, f"{worst.fault} again after the repair: it did not help")
        if scene.now - case.step_at >= scene.rules.healthy_delay_s:
            swapped = f"{case.old_instance} was replaced by {case.new_instance}" if case.new_instance else case.why
            closed = dataclasses.replace(
                case,
                step=Step.CLOSED,
                step_at=scene.now,
                tried=(*case.tried, case.rung),
                why=f"cured: {swapped}, healthy for {scene.rules.healthy_delay_s:.0f} s",
            )
            return StepOutcome(case=closed)
    return StepOutcome(case=case, held=(f"closes after {scene.rules.healthy_delay_s:.0f} s without the fault",))


def _waiting_for_human(case: Case, scene: Scene) -> StepOutcome:
    node = scene.snapshot.nodes.get(case.node)
    if node is not None and not node.is_out and not node.is_down:
        closed = dataclasses.replace(case, step=Step.CLOSED, step_at=scene.now, why="a human returned it to service")
        return StepOutcome(case=closed)
    return StepOutcome(case=case, held=(f"needs a human: {case.why}",))


_STEPS: dict[Step, Callable[[Case, Scene], StepOutcome]] = {
    Step.DRAINING: _draining,
    Step.RESETTING: _resetting,
    Step.REBOOTING: _rebooting,
    Step.LAUNCHING: launching,
    Step.BOOTING: booting,
    Step.VALIDATING: _validating,
    Step.RETURNING: _returning,
    Step.WATCHING: _watching,
    Step.WAITING_FOR_HUMAN: _waiting_for_human,
}
