"""The machine is exchanged: another is asked for, the old one ended, and the new one takes its name."""

from __future__ import annotations

from nodewatch.model import actions as act
from nodewatch.model.ledger import Case, Step
from nodewatch.policy import bootstrap, capacity, guards, parting
from nodewatch.policy.attempts import blocked, due
from nodewatch.policy.case_steps import (
    Scene,
    StepOutcome,
    begin,
    key_of,
    moved,
    new_attempt,
)
from nodewatch.policy.rules import Group


def no_machine(case: Case, scene: Scene) -> str | None:
    """What keeps a new machine from being asked for."""
    group = scene.rules.group_of(case.node)
    why = guards.replacing(case, scene.ledger, scene.snapshot, scene.rules, scene.now)
    return why or (scene.refused.get(group.name) if group is not None else None)


def launching(case: Case, scene: Scene) -> StepOutcome:
    """A machine is asked for, from one source after the other."""
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
        return moved(case, Step.BOOTING, scene, why, new_instance=instance, new_address=address)
    if choice.action is None:
        return StepOutcome(case=case, held=(choice.held,))
    why_not = no_machine(case, scene)
    if why_not is not None and not choice.is_begun:
        return StepOutcome(case=case, held=(why_not,))
    first = _before_launch(case, choice.source, group, scene) if choice.action.key not in scene.ledger.actions else None
    return first if first is not None else begin(case, choice.action, scene)


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
    return begin(parting.noted(case, before.said), end, scene)


def booting(case: Case, scene: Scene) -> StepOutcome:
    """It exists, and becomes the node."""
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
        return given_up(case, scene, why, bootstrap.Cause.LIFECYCLE_SCRIPT, script)
    view = scene.snapshot.agents.get(case.node)
    if view is not None and view.instance_id == case.new_instance and not held:
        return moved(case, Step.VALIDATING, scene, f"{case.new_instance} is up: the deep checks run")
    instance = scene.snapshot.instances.get(case.new_instance)
    if instance is not None and not instance.is_alive:
        why = f"{case.new_instance} is {instance.state} before it ever answered"
        return given_up(case, scene, why, bootstrap.Cause.ENDED, f"EC2 has it {instance.state}")
    waited_s = scene.now - case.step_at
    if instance is None and scene.snapshot.ec2_error is None and waited_s > scene.rules.ec2_settle_s:
        # Not sooner: EC2's list is eventually consistent, and what it does not show yet is not dead.
        why = f"EC2 does not know {case.new_instance} {waited_s:.0f} s after its launch"
        return given_up(case, scene, why, bootstrap.Cause.ENDED, "EC2 does not know it")
    if waited_s > scene.rules.launch_timeout_s:
        cause, said = bootstrap.unheard(case, scene.snapshot, scene.ledger)
        why = f"{case.new_instance} did not come up within {scene.rules.launch_timeout_s:.0f} s: {cause.words} ({said})"
        return given_up(case, scene, why, cause, said)
    reading = bootstrap.look(case, scene.ledger, scene.rules, scene.now)
    if reading is not None and scene.snapshot.ec2_error is None:
        return StepOutcome(case=case, actions=(reading,))
    return StepOutcome(case=case, held=(*held, f"waiting for the agent on {case.new_instance}"))


def given_up(case: Case, scene: Scene, why: str, cause: bootstrap.Cause, said: str) -> StepOutcome:
    """A machine that was launched for the case and did not become a node: its console is kept, and another is tried."""
    if not case.new_instance:
        return new_attempt(case, scene, why)
    if scene.snapshot.ec2_error is not None:
        return StepOutcome(case=case, held=(f"{why}; EC2 could not be read: its console and another machine wait",))
    reading = bootstrap.last_look(case, scene.ledger, scene.rules, scene.now)
    if reading is not None:
        return StepOutcome(case=case, actions=(reading,), held=(f"{why}: its console is read before it is given up",))
    return new_attempt(bootstrap.noted(case, cause, said, scene.now), scene, why)
