"""One case, one tick: what to do next, what it waits for, and when to go up a rung."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from nodewatch.model import actions as act
from nodewatch.model.cluster import SPARE_REASON, AgentView, Snapshot
from nodewatch.model.health import Severity
from nodewatch.model.ledger import ActionState, Case, Cause, Ledger, Rung, Step
from nodewatch.policy import bootstrap, capacity, guards, parting, scheduled, spares, wishes
from nodewatch.policy.attempts import blocked, due
from nodewatch.policy.ladder import rung_after
from nodewatch.policy.lost import is_silent
from nodewatch.policy.rules import Group, Rules
from nodewatch.policy.verbs import FAMILY

_SETTLE_S = 3.0
"""How long Slurm's picture may lag behind an action of ours before a difference is taken for somebody's wish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a step may look at."""

    snapshot: Snapshot
    ledger: Ledger
    rules: Rules
    now: float
    spares: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By group, the nodes that are held as spares."""
    spares_taken: Collection[str] = ()
    """Spares that other cases were given in this same tick."""
    storm: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    """By group, why EC2 is not asked for another machine now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """The case after the step, actions in order, and why nothing more was done."""

    case: Case
    actions: tuple[act.Action, ...] = ()
    held: tuple[str, ...] = ()


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


def key_of(case: Case, *parts: object) -> str:
    """The key of an action of this case: each rung has its own, so that a higher one can drain and return anew."""
    return ":".join([case.case_id, case.rung.word, *map(str, parts)])


def owned_reason(case: Case) -> str:
    """The drain reason on a node of this case: ours, with the case id and the cause."""
    return f"nodewatch: {case.case_id} {case.fault} on {case.subject}"


def _moved(case: Case, step: Step, scene: Scene, why: str, **changes: object) -> StepOutcome:
    moved = dataclasses.replace(case, step=step, step_at=scene.now, why=why, **changes)  # type: ignore[arg-type]
    return StepOutcome(case=moved)


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
        return _moved(case, Step.VALIDATING, scene, "the fault is no longer seen: checking before it returns")
    if case.rung is Rung.DRAIN:
        return StepOutcome(case=case, held=(*held, f"{case.fault} has no repair of its own: drained until it clears"))
    if case.rung is Rung.HUMAN:
        return _moved(case, Step.WAITING_FOR_HUMAN, scene, f"{case.fault} on {case.subject} needs a human")
    if busy and case.family != "node":
        return _still_busy(case, held, scene)
    if not (node.is_out or node.is_down):
        return StepOutcome(case=case, held=(*held, f"{case.node} is not out of service yet"))
    if scene.storm is not None:
        return StepOutcome(case=case, held=(*held, scene.storm))
    if case.rung is Rung.REPLACE:
        why = _no_machine(case, scene)
        if why is not None:
            return StepOutcome(case=case, held=(*held, why))
        return _moved(case, Step.LAUNCHING, scene, f"{case.fault}: the machine is replaced")
    if case.rung is Rung.RESET_GPU:
        return _moved(case, Step.RESETTING, scene, f"{case.fault}: the GPUs are reset")
    return _moved(case, Step.REBOOTING, scene, f"{case.fault}: the machine is rebooted")


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
    view = _view(case, scene)
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
        return _begin(case, action, scene)
    outcome = scene.ledger.resets.get(action.key)
    if outcome is None and scene.now - case.step_at > scene.rules.reset_timeout_s:
        return _next_rung(case, scene, f"no answer to the GPU reset within {scene.rules.reset_timeout_s:.0f} s")
    if outcome is None:
        return StepOutcome(case=case, held=("waiting for the agent to reset the GPUs",))
    is_done, said = outcome
    if not is_done:
        return _next_rung(case, scene, f"the GPU reset failed: {said}")
    return _moved(case, Step.VALIDATING, scene, "the GPUs were reset: the deep checks run")


def _rebooting(case: Case, scene: Scene) -> StepOutcome:
    action = act.Reboot(key=key_of(case, "reboot", case.attempt), node=case.node, reason=owned_reason(case))
    view = _view(case, scene)
    if scene.ledger.is_done(action.key):
        if view is not None and view.boot_id and view.boot_id != case.old_boot:
            return _moved(case, Step.VALIDATING, scene, "it rebooted: the deep checks run")
        if scene.now - case.step_at > scene.rules.reboot_timeout_s:
            return _rebooting_by_ec2(case, scene)
        return StepOutcome(case=case, held=("waiting for the machine to come back from its reboot",))
    return _begin(case, action, scene)


def _rebooting_by_ec2(case: Case, scene: Scene) -> StepOutcome:
    """Slurm's reboot did not bring the machine back: EC2 pulls the plug where it can, before another one is launched.

    EC2's own picture lags and says "running" all the while; the new boot id is what counts.
    """
    limit_s = scene.rules.reboot_timeout_s
    group = scene.rules.group_of(case.node)
    why = f"not back within {limit_s:.0f} s of the reboot"
    instance = scene.snapshot.instances.get(case.old_instance)
    if group is None or not group.has_ec2 or instance is None or not instance.is_alive:
        return _next_rung(case, scene, why)
    action = act.RebootInstance(
        key=key_of(case, "ec2reboot", case.attempt), node=case.node, instance_id=case.old_instance
    )
    record = scene.ledger.actions.get(action.key)
    if record is None or record.state is ActionState.INTENDED:
        return _begin(case, action, scene)
    if record.state is ActionState.FAILED:
        return _next_rung(case, scene, f"{why}, and EC2 did not reboot it ({record.error})")
    if scene.now - record.at > limit_s:
        return _next_rung(case, scene, f"{why}, nor of EC2's")
    return StepOutcome(case=case, held=("waiting for the machine to come back from EC2's reboot",))


def _no_machine(case: Case, scene: Scene) -> str | None:
    """What keeps a new machine from being asked for."""
    group = scene.rules.group_of(case.node)
    why = guards.replacing(case, scene.ledger, scene.snapshot, scene.rules, scene.now)
    return why or (scene.refused.get(group.name) if group is not None else None)


def _launching(case: Case, scene: Scene) -> StepOutcome:
    group = scene.rules.group_of(case.node)
    if group is None:
        return StepOutcome(case=case, held=(f"{case.node} is in no group of controller.toml any more",))
    choice = capacity.choose(
        key_of(case, "launch", case.attempt),
        act.Launch(
            key="",
            node=case.node,
            launch_template=group.launch_template,
            replaces=case.old_instance,
            since=case.step_at,
            taken=tuple(sorted(c.new_instance for c in scene.ledger.open_cases if c.new_instance)),
            lifecycle_script=group.lifecycle_script,
        ),
        group,
        scene.ledger,
        scene.rules,
        scene.now,
    )
    if choice.done is not None:
        instance = str(choice.done.result.get("instance_id", ""))
        address = str(choice.done.result.get("private_ip", ""))
        why = f"{instance} is booting at {address}"
        return _moved(case, Step.BOOTING, scene, why, new_instance=instance, new_address=address)
    if choice.action is None:
        return StepOutcome(case=case, held=(choice.held,))
    why_not = _no_machine(case, scene)
    if why_not is not None and not choice.is_begun:
        return StepOutcome(case=case, held=(why_not,))
    first = _before_launch(case, choice.source, group, scene) if choice.action.key not in scene.ledger.actions else None
    return first if first is not None else _begin(case, choice.action, scene)


def _before_launch(case: Case, source: capacity.Source | None, group: Group, scene: Scene) -> StepOutcome | None:
    """What has to happen to the old machine before a source that ends it, or needs its slot, is asked; None: nothing."""
    is_reserved = source is not None and source.kind is capacity.Kind.RESERVATION
    ends_first = source is not None and (source.ends_old_first or (is_reserved and group.terminate_first))
    if source is None or not case.old_instance or not (ends_first or source.kind is capacity.Kind.ASG):
        return None
    if scene.snapshot.is_busy(case.node) and case.family != "node":
        return StepOutcome(case=case, held=(f"{case.node} is busy: its machine is not ended for {source.word}",))
    before = parting.before_the_end(case, scene.snapshot, scene.ledger, scene.rules, scene.now)
    if before.actions or before.held:
        return StepOutcome(case=case, actions=before.actions, held=(before.held,) if before.held else ())
    if not ends_first:
        return None
    taken = parting.why_slot_is_taken(case, scene.snapshot, scene.ledger, scene.rules, scene.now)
    if taken is None:
        return None
    other = parting.other_between(case, group, scene.ledger)
    if other is not None:
        why = f"one machine of {source.word} is exchanged at a time, {other.node} ({other.case_id}) comes first"
        return StepOutcome(case=case, held=(why,))
    end = parting.end_of(case, scene.snapshot, scene.ledger, group)
    if end is None:
        return StepOutcome(case=case, held=(f"{taken} to {source.word}",))
    return _begin(parting.noted(case, before.said), end, scene)


def _booting(case: Case, scene: Scene) -> StepOutcome:
    wanted: list[act.Action] = []
    held: list[str] = []
    terminate = parting.end_of(case, scene.snapshot, scene.ledger, scene.rules.group_of(case.node))
    if terminate is not None and scene.snapshot.is_busy(case.node) and case.family != "node":
        return StepOutcome(case=case, held=(f"{case.node} is busy: its old machine is not terminated",))
    if terminate is not None:
        before = parting.before_the_end(case, scene.snapshot, scene.ledger, scene.rules, scene.now)
        if before.actions:
            return StepOutcome(case=case, actions=before.actions)
        if before.held:
            held.append(before.held)
        else:
            case = parting.noted(case, before.said)
            wanted.append(terminate)
    node = scene.snapshot.nodes.get(case.node)
    launched = scene.snapshot.instances.get(case.new_instance)
    # A fleet and a group answer with an id alone.
    address = case.new_address or (launched.private_ip if launched is not None else "")
    if node is not None and address and node.address != address:
        wanted.append(act.Repoint(key=key_of(case, "repoint", case.attempt), node=case.node, address=address))
    actions = tuple(a for a in wanted if due(a, scene.ledger, scene.rules, scene.now))
    if actions:
        return StepOutcome(case=case, actions=actions)
    held += [why for a in wanted if (why := blocked(a.key, scene.ledger, scene.rules, scene.now))]
    script = bootstrap.script_failure(case, scene.ledger)
    if script is not None:
        # Waiting longer for it would be waiting for nothing.
        why = f"the lifecycle script of {case.new_instance} failed ({script})"
        return _given_up(case, scene, why, bootstrap.Cause.LIFECYCLE_SCRIPT, script)
    view = scene.snapshot.agents.get(case.node)
    if view is not None and view.instance_id == case.new_instance and not held:
        return _moved(case, Step.VALIDATING, scene, f"{case.new_instance} is up: the deep checks run")
    instance = scene.snapshot.instances.get(case.new_instance)
    if instance is not None and not instance.is_alive:
        why = f"{case.new_instance} is {instance.state} before it ever answered"
        return _given_up(case, scene, why, bootstrap.Cause.ENDED, f"EC2 has it {instance.state}")
    waited_s = scene.now - case.step_at
    if instance is None and scene.snapshot.ec2_error is None and waited_s > scene.rules.ec2_settle_s:
        # Not sooner: EC2's list is eventually consistent, and what it does not show yet is not dead.
        why = f"EC2 does not know {case.new_instance} {waited_s:.0f} s after its launch"
        return _given_up(case, scene, why, bootstrap.Cause.ENDED, "EC2 does not know it")
    if waited_s > scene.rules.launch_timeout_s:
        cause, said = bootstrap.unheard(case, scene.snapshot, scene.ledger)
        why = f"{case.new_instance} did not come up within {scene.rules.launch_timeout_s:.0f} s: {cause.words} ({said})"
        return _given_up(case, scene, why, cause, said)
    reading = bootstrap.look(case, scene.ledger, scene.rules, scene.now)
    if reading is not None and scene.snapshot.ec2_error is None:
        return StepOutcome(case=case, actions=(reading,))
    return StepOutcome(case=case, held=(*held, f"waiting for the agent on {case.new_instance}"))


def _given_up(case: Case, scene: Scene, why: str, cause: bootstrap.Cause, said: str) -> StepOutcome:
    """A machine that was launched for the case and did not become a node: its console is kept, and another is tried."""
    if not case.new_instance:
        return _new_attempt(case, scene, why)
    if scene.snapshot.ec2_error is not None:
        return StepOutcome(case=case, held=(f"{why}; EC2 could not be read: its console and another machine wait",))
    reading = bootstrap.last_look(case, scene.ledger, scene.rules, scene.now)
    if reading is not None:
        return StepOutcome(case=case, actions=(reading,), held=(f"{why}: its console is read before it is given up",))
    return _new_attempt(bootstrap.noted(case, cause, said, scene.now), scene, why)


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
        return _given_up(noted, scene, why, bootstrap.Cause.DEEP_CHECKS, failed.outline)
    view = _view(case, scene)
    is_running = view is not None and view.validating.startswith(prefix) and not is_silent(view, scene.rules, scene.now)
    waited_s = scene.now - max([case.step_at, *(answer.at for answer in answers)])
    limit_s = scene.rules.check_timeout_s if is_running else scene.rules.validate_timeout_s
    if answers and scene.now - case.step_at > scene.rules.validate_timeout_s and not is_running:
        # Nothing was found against this machine: another one would not make a missing tool appear.
        doubt = f"the deep checks could not tell, {len(answers)} times ({answers[-1].outline})"
        return _moved(case, Step.WAITING_FOR_HUMAN, scene, doubt)
    if waited_s > limit_s:
        why = f"no answer of the deep checks within {limit_s:.0f} s"
        return _given_up(case, scene, why, bootstrap.Cause.DEEP_CHECKS, why)
    doubt = f" ({len(answers)} times it could not be told: {answers[-1].outline})" if answers else ""
    progress = f": {view.progress}" if view is not None and is_running and view.progress else ""
    return StepOutcome(case=case, held=(f"waiting for the deep checks ({key}){progress}{doubt}",))


def _passed(case: Case, scene: Scene) -> StepOutcome:
    """The deep checks passed; a replacement has to be other hardware as well, where that can be told."""
    if not case.new_instance:
        return _moved(case, Step.RETURNING, scene, "the deep checks passed")
    verdict, sentence = parting.same_hardware(case, scene.ledger)
    noted = dataclasses.replace(case, evidence={**case.evidence, "hardware": verdict})
    if verdict == "same" and scene.rules.same_hardware_fails:
        return _given_up(noted, scene, sentence, bootstrap.Cause.HARDWARE, sentence)
    return _moved(noted, Step.RETURNING, scene, f"the deep checks passed; {sentence}")


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
            view = _view(case, scene)
            worst = view.verdict.worst if view is not None and view.verdict is not None else None
            said = f"its agent says {worst.finding.fault}" if worst is not None else "its agent finds nothing"
            why = f"slurmd has not registered within {limit_s:.0f} s of the deep checks ({said})"
            return _given_up(case, scene, why, bootstrap.Cause.SLURMD, said)
        return StepOutcome(case=case, held=("waiting for slurmd to register",))
    group = scene.rules.group_of(case.node)
    lacks_spare = group is not None and len(scene.spares.get(group.name, ())) < group.spares
    # It becomes the spare only where one was spent for it: a job that found no spare waits for this very node.
    becomes_spare = lacks_spare and bool(case.spare or case.was_spare)
    back = act.ReturnToService(key=key_of(case, "return"), node=case.node)
    hold = act.HoldSpare(key=key_of(case, "hold"), node=case.node, reason=SPARE_REASON, is_down=node.is_down)
    if scene.ledger.is_done(back.key) or scene.ledger.is_done(hold.key):
        as_spare = scene.ledger.is_done(hold.key)
        return _moved(case, Step.WATCHING, scene, "back as the spare" if as_spare else "back in service")
    return _begin(case, hold if becomes_spare else back, scene)


def _watching(case: Case, scene: Scene) -> StepOutcome:
    view = _view(case, scene)
    if view is not None and view.verdict is not None and not is_silent(view, scene.rules, scene.now):
        again = [
            s.finding
            for s in view.verdict.findings
            if s.finding.family == case.family and s.finding.severity >= Severity.DEGRADED
        ]
        if again:
            worst = again[0]
            return _next_rung(case, scene, f"{worst.fault} again after the repair: it did not help")
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


def _new_attempt(case: Case, scene: Scene, why: str) -> StepOutcome:
    """Once more on the same rung with another machine, or up, when the tries are used up.

    The machine that failed becomes the old one, so that it is ended once its successor exists.
    """
    if case.rung is not Rung.REPLACE or case.attempt >= scene.rules.attempts:
        return _next_rung(case, scene, why)
    moved = dataclasses.replace(
        case,
        step=Step.LAUNCHING,
        step_at=scene.now,
        why=f"{why}: try {case.attempt + 1} of {scene.rules.attempts}",
        attempt=case.attempt + 1,
        old_instance=case.new_instance or case.old_instance,
        new_instance="",
        new_address="",
    )
    return StepOutcome(case=moved)


def _next_rung(case: Case, scene: Scene, why: str) -> StepOutcome:
    rung = rung_after(case.rung)
    node = scene.snapshot.nodes.get(case.node)
    moved = dataclasses.replace(
        case,
        rung=rung,
        old_slurmd=node.slurmd_started_at if node is not None else case.old_slurmd,
        step=Step.DRAINING,
        step_at=scene.now,
        why=f"{why}: up to {rung.word}",
        attempt=1,
        tried=(*case.tried, case.rung),
        old_instance=case.new_instance or case.old_instance,
        new_instance="",
        new_address="",
    )
    return StepOutcome(case=moved)


def _begin(case: Case, action: act.Action, scene: Scene) -> StepOutcome:
    """The action, when it is due; otherwise why not. A destructive one waits until the node is empty; none is begun on a
    node that somebody took over meanwhile."""
    taken_over = guards.foreign(case, scene.snapshot)
    record = scene.ledger.actions.get(action.key)
    # One that was intended and has no outcome may have happened: it is settled whoever has the node now.
    is_unsettled = record is not None and record.state is ActionState.INTENDED
    if taken_over is not None and not is_unsettled:
        return StepOutcome(case=case, held=(taken_over,))
    if isinstance(action, act.DESTRUCTIVE) and case.family != "node" and scene.snapshot.is_busy(case.node):
        return StepOutcome(case=case, held=(f"{case.node} is busy again: {act.word_of(action)} waits",))
    if due(action, scene.ledger, scene.rules, scene.now):
        return StepOutcome(case=case, actions=(action,))
    why = blocked(action.key, scene.ledger, scene.rules, scene.now)
    return StepOutcome(case=case, held=(why,) if why else ())


def _view(case: Case, scene: Scene) -> AgentView | None:
    """The agent's word about the machine that the case is about now: the new one once it exists."""
    view = scene.snapshot.agents.get(case.node)
    expected = case.new_instance or case.old_instance
    if view is None or (expected and view.instance_id and view.instance_id != expected):
        return None
    return view


_STEPS: dict[Step, Callable[[Case, Scene], StepOutcome]] = {
    Step.DRAINING: _draining,
    Step.RESETTING: _resetting,
    Step.REBOOTING: _rebooting,
    Step.LAUNCHING: _launching,
    Step.BOOTING: _booting,
    Step.VALIDATING: _validating,
    Step.RETURNING: _returning,
    Step.WATCHING: _watching,
    Step.WAITING_FOR_HUMAN: _waiting_for_human,
}
