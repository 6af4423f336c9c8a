"""What comes over a simulated cluster from outside: faults, storms, refusals of EC2, and operators who drain nodes."""

from __future__ import annotations

from nodewatch.testing.sim_faults import FaultKind, Storm
from nodewatch.testing.sim_machines import Machines
from nodewatch.testing.sim_stage import Happening, Stage

_DAY_S = 86400.0
_CABLE = "replacing a cable, Ada"


class Weather:
    """See the module. It goes on by itself once it has begun."""

    def __init__(self, stage: Stage, machines: Machines) -> None:
        self._stage = stage
        self._machines = machines

    def begin(self) -> None:
        """From now on things happen, at the rates of the mix."""
        stage, mix = self._stage, self._stage.mix
        for kind in mix.kinds:
            self._come(kind.per_node_day * len(stage.names), lambda kind=kind: self._strike_one(kind))  # type: ignore[misc]
        self._come(
            mix.operator_drains_per_node_day * len(stage.names),
            lambda: self._operator_drains(stage.chance.choice(stage.names)),
        )
        self._come(mix.refusals_per_month / 30, self._refusal)
        for storm in mix.storms:
            self._come(
                storm.per_month / 30,
                lambda storm=storm: self._storm(storm, stage.tally.storms),  # type: ignore[misc]
            )

    def _operator_drains(self, node: str) -> bool:
        known = self._stage.slurm.node_table[node]
        if not known.is_out and not known.is_down:
            self._stage.slurm.operator(node, _CABLE)
            self._stage.tally.operator_drains += 1
            self._stage.agenda.later(self._stage.chance.uniform(3600.0, _DAY_S), lambda: self._operator_returns(node))
        return False

    def _operator_returns(self, node: str) -> bool:
        if self._stage.slurm.node_table[node].reason == _CABLE:
            self._stage.slurm.operator(node, "")
        return True

    def _capacity(self, is_there: bool) -> bool:
        self._stage.ec2.no_capacity = not is_there
        return is_there

    def _storm(self, storm: Storm, number: int) -> bool:
        count = max(self._stage.rules.storm_nodes + 1, round(storm.share * len(self._stage.names)))
        first = self._stage.chance.randrange(max(1, len(self._stage.names) - count + 1))
        kind = FaultKind(
            fault=storm.fault,
            per_node_day=0.0,
            source=storm.source,
            severity=storm.severity,
            remedy=storm.remedy,
            lasts_s=storm.lasts_s,
            fails_job=0.0,
        )
        self._stage.tally.storms += 1
        for node in self._stage.names[first : first + count]:
            # Reports of one second are one tick.
            after = float(round(self._stage.chance.uniform(0.0, storm.spread_s)))
            self._stage.agenda.later(after, lambda node=node: self._machines.strike(node, kind, number))  # type: ignore[misc]
        return False

    def _come(self, per_day: float, happen: Happening) -> None:
        """Let something happen again and again at random."""
        if per_day <= 0:
            return

        def next_one() -> bool:
            self._come(per_day, happen)
            return happen()

        self._stage.agenda.later(self._stage.chance.expovariate(per_day / _DAY_S), next_one)

    def _strike_one(self, kind: FaultKind) -> bool:
        """One node is struck; lemons so much more often than the others that the rate over all stays."""
        factor = self._stage.mix.lemon_factor
        while True:
            node = self._stage.chance.choice(self._stage.names)
            if self._machines.of(node).is_lemon or self._stage.chance.random() < 1 / factor:
                return self._machines.strike(node, kind)

    def _refusal(self) -> bool:
        self._capacity(False)
        self._stage.agenda.later(self._stage.around(self._stage.mix.refusal_s), lambda: self._capacity(True))
        return False
