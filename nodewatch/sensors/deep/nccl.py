"""NCCL within the node: `all_reduce_perf` on all its GPUs, from the smallest to the largest size that a floor is known for."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace

from nodewatch.errors import SensorError
from nodewatch.knowledge import instance_types
from nodewatch.model.fabric_samples import NcclSample
from nodewatch.sensors.deep.tool import Command, Outcome, Procedure, Step
from nodewatch.sensors.reading import Reading
from nodewatch.sensors.recorded.nccl import parse

READS = NcclSample
_UNKNOWN_SIZES = (8 << 20, 1 << 30)
"""For a type without a floor: a gibibyte and its copies fit into every GPU that EC2 has."""
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


def argv(command: str, *, instance_type: str, gpus: int, stuck_after_s: int) -> tuple[str, ...]:
    """The command line. `-T` has the tool itself say that a collective hangs; it shortens a size that does not fit."""
    row = instance_types.TABLE.get(instance_type)
    sizes = [size for size, _ in row.nccl_floor] if row is not None and row.nccl_floor else list(_UNKNOWN_SIZES)
    least, most = str(min(sizes)), str(max(sizes))
    return (command, "-b", least, "-e", most, "-f", "2", "-g", str(gpus), "-T", str(stuck_after_s))


def procedure(command: tuple[str, ...], *, instance_type: str, env: Mapping[str, str]) -> Procedure:
    """Run it and read its table."""
    (ended,) = yield Step(commands=(Command(argv=command, env=env),))
    return Reading(sample=of_outcome(ended, instance_type))


def of_outcome(ended: Outcome, instance_type: str) -> NcclSample:
    """What it measured, or how it failed. Raises SensorError for a run that proves nothing, however whole its table looks."""
    status = ended.returncode
    crashed = [number.name for number in _CRASHES if -number == status]
    try:
        sample = parse(ended.text.encode(), instance_type=instance_type)
    except SensorError as error:
        if crashed:
            return NcclSample(runs=(), failures=(_crash(crashed[0]),), instance_type=instance_type)
        raise SensorError(
            f"all_reduce_perf ended with status {status} and no table ({ended.last_line}): run it by hand"
        ) from error
    if crashed:
        return replace(sample, failures=(*sample.failures, _crash(crashed[0])))
    is_explained = sample.failures or any(run.out_of_bounds or run.is_below_asked for run in sample.runs)
    if status != 0 and not is_explained:
        raise SensorError(f"all_reduce_perf ended with status {status} ({ended.last_line}): run it by hand")
    return sample


def _crash(signal_name: str) -> str:
    return f"all_reduce_perf was ended by {signal_name}"
