"""`nodewatch checkpoint`: which checkpoints a directory holds, whether they are whole, and the old ones away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from nodewatch_train.completeness import DRIVERS, Report, find, verify_all
from nodewatch_train.manifest import CheckpointError, is_newer, set_aside, sweep

from nodewatch.cli.clock import stamp
from nodewatch.cli.table import table

_Command = Callable[..., Any]

_EXIT = "Exit code: 0 all are whole, 1 one is not or there is none, 2 the directory cannot be read."


@click.group()
def checkpoint() -> None:
    """Which checkpoints a directory holds, and whether they are whole. Needs no torch."""


def _directory(command: _Command) -> _Command:
    names = click.Choice([driver.name for driver in DRIVERS])
    command = click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")(command)
    command = click.option("--driver", type=names, help="Look for this layout alone; all are known otherwise.")(command)
    return click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")(command)


@checkpoint.command("list", epilog=_EXIT)
@_directory
@click.pass_context
def list_(ctx: click.Context, directory: Path, driver: str | None, as_json: bool) -> None:
    """The checkpoints in DIR, newest first; sizes are looked at, contents are not."""
    _tell(ctx, _reports(ctx, directory, driver, deep=False), as_json=as_json)


@checkpoint.command("verify", epilog=_EXIT)
@_directory
@click.option(
    "--sample",
    type=click.FloatRange(0, 100, min_open=True),
    default=100.0,
    metavar="PERCENT",
    help="Read this share of the content alone, at random: for checkpoints of many terabytes.",
)
@click.pass_context
def verify_(ctx: click.Context, directory: Path, driver: str | None, as_json: bool, sample: float) -> None:
    """Read the checkpoints in DIR, or the one that DIR is, and say what is wrong with each."""
    _tell(ctx, _reports(ctx, directory, driver, deep=True, sample=sample / 100), as_json=as_json)


@checkpoint.command(
    "gc", epilog="Exit code: 0 done, 1 nothing was deleted because too few are whole, 2 the directory cannot be read."
)
@_directory
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, help="How many whole ones stay.")
@click.option(
    "--unfinished", is_flag=True, help="Also what writers left unfinished; only while no job writes into DIR."
)
@click.option("--yes", is_flag=True, help="Delete. Without it, only say what would be.")
@click.pass_context
def gc_(
    ctx: click.Context, directory: Path, driver: str | None, as_json: bool, keep: int, unfinished: bool, yes: bool
) -> None:
    """Delete the checkpoints in DIR that are older than the newest --keep whole ones.

    Torn ones that are newer stay too, as evidence, and those that a newer version of nodewatch wrote. Each that is
    counted was read to its last byte, so the only good one is never deleted.
    """
    reports = _reports(ctx, directory, driver, deep=True)
    if len(reports) == 1 and reports[0].path == directory:
        raise click.UsageError(f"{directory} is a checkpoint itself: name the directory that holds it")
    whole = [report for report in reports if report.ok]
    # Two layouts in one directory are two runs, of which neither stands for the other.
    last = {name: _nth(whole, name, keep) for name in {report.driver for report in reports}}
    # What a newer version wrote may be whole: this one cannot tell, so it does not delete it.
    old = [r for r in reports if _is_older(r, reports, last[r.driver]) and not is_newer(r.path)]
    deleted = []
    try:
        for report in old:
            if yes:
                shutil.rmtree(set_aside(report.path)) if report.path.is_dir() else report.path.unlink()
            deleted.append(report.path.name)
        if unfinished and yes:
            deleted += sweep(directory)
        elif unfinished:
            deleted += sorted(path.name for path in directory.glob(".tmp-*"))
    except (CheckpointError, OSError) as error:
        _refuse(ctx, str(error))
    if as_json:
        click.echo(json.dumps({"directory": str(directory), "deleted": deleted, "done": yes, "whole": len(whole)}))
    else:
        for name in deleted:
            click.echo(f"{'deleted' if yes else 'would delete'} {name}")
        if not deleted:
            click.echo(f"nothing to delete: {len(whole)} of {len(reports)} are whole, and {keep} stay")
        elif not yes:
            click.echo("nodewatch: nothing was deleted: add --yes", err=True)
    ctx.exit(1 if not deleted and len(whole) < keep < len(reports) else 0)


def _nth(whole: Sequence[Report], driver: str, keep: int) -> Report | None:
    mine = [report for report in whole if report.driver == driver]
    return mine[keep - 1] if len(mine) >= keep else None


def _is_older(report: Report, reports: Sequence[Report], last: Report | None) -> bool:
    return last is not None and report.driver == last.driver and reports.index(report) > reports.index(last)


def _reports(
    ctx: click.Context, directory: Path, driver: str | None, *, deep: bool, sample: float = 1.0
) -> list[Report]:
    try:
        return verify_all(find(directory, driver=driver), deep=deep, sample=sample)
    except CheckpointError as error:
        _refuse(ctx, str(error))
        return []


def _refuse(ctx: click.Context, sentence: str) -> None:
    click.echo(f"nodewatch: {sentence}", err=True)
    ctx.exit(2)


def _tell(ctx: click.Context, reports: Sequence[Report], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"checkpoints": [_fields(report) for report in reports]}))
    elif reports:
        rows = [
            [
                report.path.name,
                report.driver,
                "?" if report.step is None else str(report.step),
                f"{report.size / 2**20:.1f}",
                stamp(report.changed_at),
                f"whole ({report.proved})" if report.ok else report.reason,
            ]
            for report in reports
        ]
        click.echo(table(["NAME", "LAYOUT", "STEP", "MIB", "CHANGED", "STATE"], rows))
    else:
        click.echo("no checkpoint of a layout that is known")
    ctx.exit(0 if reports and all(report.ok for report in reports) else 1)


def _fields(report: Report) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "layout": report.driver,
        "step": report.step,
        "whole": report.ok,
        "reason": report.reason,
        "proved": report.proved,
        "bytes": report.size,
        "changed_at": report.changed_at,
    }
