"""`nodewatch learn`: the row of this machine's instance type, for a table that does not know it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import click

from nodewatch.config.instance_types import DEFAULT, read_learnt
from nodewatch.errors import ConfigError, SensorError
from nodewatch.knowledge.instance_types import TABLE, InstanceType
from nodewatch.knowledge.learnt import contradiction, to_toml
from nodewatch.model.fabric_samples import NcclRun, NcclSample
from nodewatch.sensors import machine
from nodewatch.sensors.inventory import Inventory, read_inventory
from nodewatch.sensors.recorded import nccl as nccl_recordings
from nodewatch.sensors.recorded._api import Recording

FLOOR_SHARE = 0.9
"""Of what this machine reached: runs of one sound machine differ by a few per cent (the built-in floors are made so too)."""
SMALLEST = 128 << 20
"""Below this the bandwidth is latency, which tells nothing of a link."""


@click.command(
    epilog="Exit code: 0 a row or nothing new, 1 the machine is not what the table says of its type, 2 it cannot be told."
)
@click.option("--instance-type", default="", metavar="TYPE", help="Where the firmware does not say the type.")
@click.option(
    "--nccl",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Output of all_reduce_perf on all GPUs of this machine: the floor becomes 90 % of it, size by size.",
)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Append the row to this file, which agents read as instance_types_file (their default: {DEFAULT}).",
)
@click.option("--root", type=click.Path(path_type=Path), default=Path("/"), hidden=True)
@click.pass_context
def learn(ctx: click.Context, instance_type: str, nccl: Path | None, write: Path | None, root: Path) -> None:
    """Count the GPUs, NVLinks, EFA and Neuron devices, processors and memory of this machine.

    Prints a row for review: what is missing here today would not be missed anywhere tomorrow. A type that the built-in
    table knows is compared with it instead.
    """
    row = row_of(read_inventory(instance_type=instance_type, root=root), host=machine.node_name(), now=time.time())
    if nccl is not None:
        row = with_floor(row, nccl)
    known = TABLE.get(row.name)
    if known is not None:
        said = contradiction(row, known)
        if said is not None:
            raise_contradiction(ctx, row.name, said)
        click.echo(f"nodewatch: {row.name} is in the built-in table, and this machine is what it says", err=True)
        return
    if write is not None:
        _append(write, row)
        click.echo(
            f"nodewatch: {row.name} was appended to {write}: copy that file to the machines of this type", err=True
        )
    click.echo(to_toml(row), nl=False)


def row_of(seen: Inventory, *, host: str, now: float) -> InstanceType:
    """The row that says of its type what was `seen` on `host`."""
    return InstanceType(
        name=seen.instance_type,
        gpus=seen.gpus,
        gpu=seen.gpu,
        source=f"learnt on {host} {time.strftime('%Y-%m-%d', time.gmtime(now))}",
        nvlinks_per_gpu=seen.nvlinks_per_gpu,
        gpu_memory_mib=seen.gpu_memory_mib,
        neuron_devices=seen.neuron_devices,
        # None seen may be none asked for at launch.
        efa_devices=seen.efa_devices or None,
        vcpus=seen.vcpus,
        memory_gib=seen.memory_gib,
    )


def with_floor(row: InstanceType, recording: Path) -> InstanceType:
    """`row` with the NCCL floor of one good run on all its GPUs. Raises SensorError when `recording` holds no such run."""
    sample = next(nccl_recordings.load(Recording(path=recording, instance_type=row.name)))
    run = _good_run(sample, row, str(recording))
    by_size: dict[int, list[float]] = {}
    for each in run.rows:
        if each.slower is not None and each.size >= SMALLEST:
            by_size.setdefault(each.size, []).append(each.slower)
    if not by_size:
        raise SensorError(f"{recording} measures nothing from {SMALLEST >> 20} MiB on: run all_reduce_perf with -e 16G")
    floor = tuple((size, round(FLOOR_SHARE * median(speeds), 1)) for size, speeds in sorted(by_size.items()))
    why = f"{FLOOR_SHARE * 100:g} % of what was measured, by size."
    return replace(row, nccl_floor=floor, nccl_why=why)


def _good_run(sample: NcclSample, row: InstanceType, where: str) -> NcclRun:
    if sample.failures or len(sample.runs) != 1:
        raise SensorError(
            f"{where} holds {len(sample.runs)} runs and {len(sample.failures)} failures: record one good run"
        )
    (run,) = sample.runs
    if not run.is_finished or run.unreadable:
        raise SensorError(f"{where} was cut off: record the whole run")
    if run.collective != "all_reduce" or len(run.hosts) != 1 or run.ranks != row.gpus:
        raise SensorError(
            f"{where} is {run.collective or 'an unknown collective'} with {run.ranks} ranks on {len(run.hosts)} machines: "
            f"record all_reduce_perf on the {row.gpus} GPUs of this one"
        )
    if run.out_of_bounds or any(each.wrong for each in run.rows):
        raise SensorError(f"{where} has wrong values: repair the machine before learning from it")
    return run


def raise_contradiction(ctx: click.Context, name: str, said: str) -> None:
    """Tell it in one sentence and end."""
    click.echo(f"nodewatch: this machine is not what the table says of {name}: {said}", err=True)
    ctx.exit(1)


def _append(path: Path, row: InstanceType) -> None:
    if row.name in read_learnt(path):
        raise ConfigError(f"{path} has a row {json.dumps(row.name)} already: take it out first")
    try:
        is_new = not path.exists() or path.stat().st_size == 0
        with path.open("a", encoding="utf-8") as stream:
            stream.write(("" if is_new else "\n") + to_toml(row))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
