"""Simulated days of a small cluster: the invariants hold, and the figures are those of something that worked."""

from pathlib import Path

import pytest

from nodewatch.errors import ConfigError
from nodewatch.policy.rules import Rules
from nodewatch.testing.sim_faults import FaultKind, FaultMix, Storm, load_fault_mix
from nodewatch.testing.sim_report import Report, quantiles
from nodewatch.testing.simulation import Simulation

GPU = FaultKind(fault="gpu.lost", per_node_day=0.01, source="test")
CALM = FaultMix(kinds=(), storms=(), operator_drains_per_node_day=0.0, refusals_per_month=0.0)


def simulated(nodes: int = 200, days: float = 3.0, seed: int = 1, **changes: object) -> Report:
    mix = FaultMix(**changes)  # type: ignore[arg-type]
    return Simulation(nodes=nodes, days=days, seed=seed, mix=mix).run()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_nothing_is_touched_wrongly_with_ten_times_the_faults(seed: int) -> None:
    kinds = tuple(
        FaultKind(**{**{name: getattr(k, name) for name in k.__slots__}, "per_node_day": 10 * k.per_node_day})
        for k in FaultMix().kinds
    )
    report = simulated(seed=seed, kinds=kinds, operator_drains_per_node_day=0.01, refusals_per_month=20.0)

    assert report.broken == ()
    assert report.figures["nodes_wrongly_touched"] == 0
    assert report.figures["replacements"] > 0
    assert report.figures["operator_drains"] > 0
    assert 0.9 < report.figures["availability"] < 1


def test_jobs_and_machines_come_back() -> None:
    report = simulated(kinds=(GPU,), storms=(), refusals_per_month=0.0)

    assert report.broken == ()
    assert report.figures["jobs_requeued"] > 0
    assert report.figures["job_back_s"]["median"] < 60
    assert 600 < report.figures["machine_back_s"]["median"] < 7200


@pytest.mark.parametrize(
    "storm",
    [
        Storm(fault="switch", per_month=60.0, share=0.1, spread_s=2.0, lasts_s=3600.0, severity="fatal"),
        Storm(fault="filesystem.hung", per_month=60.0, share=1.0, spread_s=20.0, lasts_s=7200.0),
    ],
    ids=lambda storm: storm.fault,
)
def test_a_storm_that_outlasts_every_cool_down_empties_nothing(storm: Storm) -> None:
    report = simulated(kinds=(), storms=(storm,), operator_drains_per_node_day=0.0)

    assert report.broken == ()
    assert report.figures["storms"] > 1
    assert report.figures["replacements"] == 0


def test_a_driver_that_fails_everywhere_costs_no_more_than_the_first_nodes() -> None:
    driver = Storm(fault="gpu.driver", per_month=30.0, share=0.5, spread_s=300.0, lasts_s=7200.0, remedy="reboot")
    report = simulated(kinds=(), storms=(driver,), operator_drains_per_node_day=0.0)

    assert report.broken == ()
    assert report.figures["storms"] > 1
    early = report.figures["storm_nodes_touched_before_it_showed"]
    assert early <= (Rules().storm_nodes - 1) * report.figures["storms"]


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = (simulated(nodes=100, days=2.0, seed=7, kinds=(GPU,)).figures for _ in range(2))
    measured = ("plan_s", "wall_s", "cpu_s")

    assert {k: v for k, v in first.items() if k not in measured} == {
        k: v for k, v in second.items() if k not in measured
    }


def test_a_calm_cluster_is_left_alone() -> None:
    report = Simulation(nodes=50, days=1.0, seed=1, mix=CALM).run()

    assert report.figures["availability"] == 1.0
    assert set(report.figures["actions"]) == {"hold_spare"}


def test_a_policy_that_may_take_out_nothing_takes_out_nothing() -> None:
    rules = Rules(mode="act", max_out=0, sweep_every_s=0.0)
    report = Simulation(nodes=50, days=2.0, seed=1, rules=rules, mix=FaultMix(kinds=(GPU,))).run()

    assert "drain" not in report.figures["actions"]
    assert report.figures["open_cases"]["held"] > 0


def test_rates_can_be_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('boot_s = 60\n[[kinds]]\nfault = "gpu.lost"\nper_node_day = 0.5\nsource = "ours"\n')

    mix = load_fault_mix(path)

    assert (mix.boot_s, [kind.per_node_day for kind in mix.kinds]) == (60.0, [0.5])
    path.write_text('[[kinds]]\nfault = "x"\nper_node_day = -1\nsource = "ours"\n')
    with pytest.raises(ConfigError, match="must not be negative"):
        load_fault_mix(path)


def test_quantiles_of_nothing_and_of_something() -> None:
    assert quantiles([]) == {"count": 0}
    assert quantiles([float(n) for n in range(1, 101)]) == {
        "count": 100,
        "median": 50.5,
        "p90": 90,
        "p99": 99,
        "max": 100,
    }
