"""all_reduce_perf through its stand-in: the floors of a p5, what falls below them, and runs that prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nodewatch.checks.nccl_bandwidth import Thresholds, nccl_bandwidth
from nodewatch.checks.nccl_run import nccl_run
from nodewatch.checks.nccl_wrong import nccl_wrong
from nodewatch.errors import SensorError
from nodewatch.knowledge import instance_types
from nodewatch.model.fabric_samples import NcclSample
from nodewatch.sensors.deep import nccl
from nodewatch.sensors.deep.tool import Command, Outcome, Procedure, Step, ToolSensor
from nodewatch.sensors.reading import Reading

Told = Callable[..., Path]
Run = Callable[..., Reading]
TYPE = "p5.48xlarge"


def sensor(deadline_s: float = 30.0) -> ToolSensor:
    command = nccl.argv("all_reduce_perf", instance_type=TYPE, gpus=8, stuck_after_s=60)
    return ToolSensor(
        "nccl", nccl.READS, lambda: nccl.procedure(command, instance_type=TYPE, env={}), deadline_s=deadline_s
    )


def faults(sample: object) -> list[str]:
    assert isinstance(sample, NcclSample), sample
    found = [*nccl_bandwidth(sample, Thresholds()), *nccl_wrong(sample), *nccl_run(sample)]
    return [finding.fault for finding in found]


def test_a_good_node(told: Told, run: Run) -> None:
    reading = run(sensor())
    assert faults(reading.sample) == []
    assert isinstance(reading.sample, NcclSample) and reading.sample.instance_type == TYPE


@pytest.mark.parametrize(
    ("fault", "expected"),
    [({"busbw_gbps": 210.0}, "nccl.slow"), ({"wrong": 12}, "nccl.wrong"), ({"gpus": 7}, "nccl.failed")],
)
def test_faults(told: Told, run: Run, fault: dict[str, object], expected: str) -> None:
    told(nccl=fault)
    sample = run(sensor()).sample
    assert isinstance(sample, NcclSample)
    found = [*nccl_wrong(sample)] if expected == "nccl.wrong" else []
    if expected == "nccl.slow":
        found = [*nccl_bandwidth(sample, Thresholds())]
    if expected == "nccl.failed":
        found = [*nccl_run(sample)]
    assert [finding.fault.startswith(expected) for finding in found] == [True]


def test_a_collective_that_hangs_is_said_by_the_tool(told: Told, run: Run) -> None:
    told(nccl={"timeout": True})
    sample = run(sensor()).sample
    assert isinstance(sample, NcclSample)
    assert [finding.fault for finding in nccl_run(sample)] == ["nccl.hung"]


def test_a_program_that_hangs_is_unknown(told: Told, run: Run) -> None:
    told(nccl={"hang": True})
    error = run(sensor(deadline_s=1.0)).error
    assert error is not None and "nccl has not ended within 1 s" in error


def test_a_program_that_ends_without_a_table_is_unknown(told: Told, run: Run) -> None:
    told(nccl={"exit": 3})
    error = run(sensor()).error
    assert error is not None and "status 3" in error


@pytest.mark.parametrize("name", sorted(instance_types.TABLE))
def test_every_floor_has_its_size_measured(name: str) -> None:
    row = instance_types.TABLE[name]
    argv = nccl.argv("all_reduce_perf", instance_type=name, gpus=8, stuck_after_s=60)
    at, most = int(argv[argv.index("-b") + 1]), int(argv[argv.index("-e") + 1])
    sizes = [at << step for step in range(40) if at << step <= most]
    assert argv[argv.index("-f") + 1] == "2"
    assert {size for size, _ in row.nccl_floor} <= set(sizes)


def test_a_crash_is_a_failure_and_a_kill_is_not() -> None:
    crashed = nccl.of_outcome(Outcome(returncode=-11, stdout="", stderr=""), TYPE)
    assert [finding.fault for finding in nccl_run(crashed)] == ["nccl.failed"]
    with pytest.raises(SensorError, match="status -9"):
        nccl.of_outcome(Outcome(returncode=-9, stdout="", stderr=""), TYPE)


def test_a_whole_table_and_a_bad_status_is_unknown(told: Told, run: Run) -> None:
    whole = run(ToolSensor("x", str, _table, deadline_s=30.0)).sample
    assert (
        isinstance(whole, str) and faults(nccl.of_outcome(Outcome(returncode=0, stdout=whole, stderr=""), TYPE)) == []
    )
    with pytest.raises(SensorError, match="status 2"):
        nccl.of_outcome(Outcome(returncode=2, stdout=whole, stderr=""), TYPE)


def _table() -> Procedure:
    command = nccl.argv("all_reduce_perf", instance_type=TYPE, gpus=8, stuck_after_s=60)
    (ended,) = yield Step(commands=(Command(argv=command),))
    return Reading(sample=ended.stdout)
