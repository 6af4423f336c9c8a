"""EC2 in memory: idempotent launches, refusals, and a list that lags behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from nodewatch.errors import CapacityError, Ec2Error
from nodewatch.model.cluster import Instance

_WORDS = {"spot": "spot", "capacity-block": "block"}


class FakeEc2:
    """See the module. `no_capacity` refuses launches; `outage` fails every call; `lag` hides new instances from the list."""

    def __init__(self) -> None:
        self._instances: dict[str, Instance] = {}
        self._tokens: dict[str, str] = {}
        self._next = 1
        self.no_capacity = False
        self.outage = False
        self.lag = False
        self.hidden: set[str] = set()
        self.watch: Callable[[str, str], None] = lambda _verb, _node: None
        """Called with (verb, node) just before a launch or a termination takes effect."""
        self.launched: list[str] = []
        self.asked: list[str] = []
        """The sources that were asked, in order."""
        self.refuses: dict[str, str] = {}
        """Error codes with which sources refuse, by the source as `asked` has it."""
        self.asg_has_launched = True
        self.rebooted: list[str] = []
        self.quarantined: dict[str, dict[str, str]] = {}
        self.consoles: dict[str, str] = {}
        self.reported: list[tuple[str, str, str]] = []
        self.end_takes_time = False
        """Instances that are ended stay in shutting-down until `ends`."""
        self._empty_fleets: set[str] = set()
        self.terminated: list[str] = []

    def add(self, node: str) -> Instance:
        """A running instance that bears `node`, as if launched long ago."""
        number = self._next
        self._next += 1
        instance = Instance(
            instance_id=f"i-{number:04d}", state="running", private_ip=f"10.0.0.{number}", node=node, tags={}
        )
        self._instances[instance.instance_id] = instance
        return instance

    def instances(self) -> Mapping[str, Instance]:
        """See effects.perform.Ec2Client."""
        self._up()
        # EC2 is asked for those that bear a node name.
        return {key: value for key, value in self._instances.items() if key not in self.hidden and value.node}

    @property
    def everything(self) -> Mapping[str, Instance]:
        """All instances that ever were, by id, read past every outage."""
        return dict(self._instances)

    def ends(self, instance_id: str) -> None:
        """An instance leaves shutting-down."""
        self._instances[instance_id] = dataclasses.replace(self._instances[instance_id], state="terminated")

    def launch(
        self,
        *,
        template: str,
        subnet_id: str | None,
        tags: Mapping[str, str],
        token: str,
        version: str = "$Default",
        reservation: str = "",
        market: str = "",
    ) -> Instance:
        """See effects.perform.Ec2Control."""
        del template, version
        place = ":".join(
            word for word in (_WORDS.get(market, "reservation" if reservation else ""), reservation) if word
        )
        place = place or "launch_template"
        return self._launched(f"{place}@{subnet_id}" if subnet_id else place, tags, token)

    def launch_fleet(
        self,
        *,
        template: str,
        version: str,
        subnets: Sequence[str],
        types: Sequence[str],
        tags: Mapping[str, str],
        token: str,
    ) -> Instance:
        """See effects.perform.Ec2Control. As with EC2, a token that got nothing gets nothing for ever."""
        del template, version, subnets
        if token in self._empty_fleets:
            raise CapacityError("EC2 refused: the fleet is empty", code="InsufficientInstanceCapacity")
        try:
            return self._launched("fleet:" + ",".join(types), tags, token)
        except CapacityError:
            self._empty_fleets.add(token)
            raise

    def replace_in_asg(
        self, *, asg: str, old: str, since: float, taken: Sequence[str], tags: Mapping[str, str]
    ) -> Instance:
        """See effects.perform.Ec2Control. The group launches when `asg_has_launched` says so."""
        del since
        self._up()
        self.asked.append(f"asg:{asg}")
        if old in self._instances and self._instances[old].is_alive:
            self.terminate(old)
        own = [i for i in self._instances.values() if i.tags.get("nodewatch:action") == tags["nodewatch:action"]]
        if own:
            return own[0]
        if not self.asg_has_launched:
            raise CapacityError(f"the group {asg} has launched no machine yet", code="ReplacementPending")
        del taken
        return self._launched(f"asg:{asg}", tags, tags["nodewatch:action"])

    def reboot(self, instance_id: str) -> None:
        """See effects.perform.Ec2Control."""
        self._up()
        if instance_id in self._instances:
            self.watch("reboot", self._instances[instance_id].node)
        self.rebooted.append(instance_id)

    def quarantine(self, instance_id: str, *, tags: Mapping[str, str], stops: bool) -> None:
        """See effects.perform.Ec2Control."""
        self._up()
        known = self._instances.get(instance_id)
        if known is None or not known.is_alive:
            return
        if known.node:
            self.watch("terminate", known.node)
        state = "stopped" if stops else known.state
        self._instances[instance_id] = dataclasses.replace(known, node="", tags=dict(tags), state=state)
        self.quarantined[instance_id] = dict(tags)

    def console(self, instance_id: str) -> str:
        """See effects.perform.Ec2Control."""
        self._up()
        return self.consoles.get(instance_id, "")

    def report(self, instance_id: str, *, reason_code: str, text: str) -> None:
        """See effects.perform.Ec2Control."""
        self._up()
        self.reported.append((instance_id, reason_code, text))

    def terminate(self, instance_id: str) -> None:
        """See effects.perform.Ec2Control."""
        self._up()
        if instance_id in self._instances and self._instances[instance_id].is_alive:
            self.watch("terminate", self._instances[instance_id].node)
            state = "shutting-down" if self.end_takes_time else "terminated"
            self._instances[instance_id] = dataclasses.replace(self._instances[instance_id], state=state)
            self.terminated.append(instance_id)

    def alive(self, node: str) -> list[str]:
        """The live instances that bear `node`."""
        return sorted(i.instance_id for i in self._instances.values() if i.node == node and i.is_alive)

    def _launched(self, source: str, tags: Mapping[str, str], token: str) -> Instance:
        self._up()
        self.asked.append(source)
        if token in self._tokens:
            return self._instances[self._tokens[token]]
        code = "InsufficientInstanceCapacity" if self.no_capacity else self.refuses.get(source)
        if code is not None:
            kind = Ec2Error if code in ("UnauthorizedOperation", "InternalError") else CapacityError
            raise kind(f"EC2 refused: {code}", code=code)
        self.watch("launch", tags["nodewatch:node"])
        instance = dataclasses.replace(self.add(tags["nodewatch:node"]), tags=dict(tags))
        self._instances[instance.instance_id] = instance
        self._tokens[token] = instance.instance_id
        self.launched.append(instance.instance_id)
        if self.lag:
            self.hidden.add(instance.instance_id)
        return instance

    def _up(self) -> None:
        if self.outage:
            raise Ec2Error("EC2 could not be asked: connection refused")
