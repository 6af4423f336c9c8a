"""EC2 in memory: idempotent launches, refusals, and a list that lags behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from nodewatch.errors import CapacityError, Ec2Error
from nodewatch.model.cluster import Instance


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
        """See controller.engine.Ec2Client."""
        self._up()
        return {key: value for key, value in self._instances.items() if key not in self.hidden}

    def launch(self, *, template: str, subnet_id: str | None, tags: Mapping[str, str], token: str) -> Instance:
        """See effects.perform.Ec2Control."""
        self._up()
        if token in self._tokens:
            return self._instances[self._tokens[token]]
        if self.no_capacity:
            raise CapacityError("EC2 refused: InsufficientInstanceCapacity", code="InsufficientInstanceCapacity")
        self.watch("launch", tags["nodewatch:node"])
        instance = self.add(tags["nodewatch:node"])
        self._tokens[token] = instance.instance_id
        self.launched.append(instance.instance_id)
        if self.lag:
            self.hidden.add(instance.instance_id)
        return instance

    def terminate(self, instance_id: str) -> None:
        """See effects.perform.Ec2Control."""
        self._up()
        if instance_id in self._instances and self._instances[instance_id].is_alive:
            self.watch("terminate", self._instances[instance_id].node)
            self._instances[instance_id] = dataclasses.replace(self._instances[instance_id], state="terminated")
            self.terminated.append(instance_id)

    def alive(self, node: str) -> list[str]:
        """The live instances that bear `node`."""
        return sorted(i.instance_id for i in self._instances.values() if i.node == node and i.is_alive)

    def _up(self) -> None:
        if self.outage:
            raise Ec2Error("EC2 could not be asked: connection refused")
