"""`nodewatch history`: which hardware failed how often over the last weeks, the worst first."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.table import table
from nodewatch.config.controller import ControllerConfig, load_controller_config
from nodewatch.errors import JournalError
from nodewatch.journal.pieces import pieces, read_all
from nodewatch.policy.history import KINDS, hardware_history

_DAY_S = 86400.0
_CONFIG = Path("/etc/nodewatch/controller.toml")
_MOST_JOBS = 4


@click.command(epilog="Examples: `nodewatch history`, `nodewatch history n2 --days 90`.")
@click.argument("node", required=False)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_CONFIG,
    show_default=True,
    help="The controller's configuration, for where its journal is and what it calls a lemon.",
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Read the journal in this directory instead.")
def history(node: str | None, days: float, as_json: bool, config: Path, state_dir: Path | None) -> None:
    """Cases by hardware (instance id, GPU UUID, serial number), not by node name: the machine behind a name changes.

    It reads the journal's files, those of the past too, and needs no controller that runs.
    """
    settings = load_controller_config(config) if config.exists() or config != _CONFIG else ControllerConfig()
    journal = (state_dir or settings.state_dir) / settings.journal.name
    if not pieces(journal):
        raise JournalError(f"{journal} does not exist: name the controller's state directory with --state-dir")
    now = time.time()
    since = now - days * _DAY_S
    records = read_all(journal, kinds=KINDS, since=since)
    rows = [row.to_json() for row in hardware_history(records, settings.rules, since=since, now=now, node=node)]
    click.echo(json.dumps({"days": days, "node": node, "hardware": rows}) if as_json else render(rows, days))


def render(rows: Sequence[Mapping[str, Any]], days: float) -> str:
    """The rows as text."""
    if not rows:
        return f"no hardware had a case in the last {days:g} days"
    cells = [
        (
            row["identity"] + (" (lemon)" if row["lemon"] else ""),
            ",".join(row["nodes"]),
            str(row["cases"]),
            datetime.fromtimestamp(row["last_at"]).astimezone().strftime("%Y-%m-%d %H:%M"),
            f"{row['last_fault']}, {row['last_step'].replace('_', ' ')}",
            ", ".join(f"{rung} {count}x" for rung, count in row["tried"].items()) or "-",
            _jobs(row["jobs"]),
        )
        for row in rows
    ]
    return table(("HARDWARE", "NODE", "CASES", "LAST", "LAST FAULT", "TRIED", "JOBS"), cells)


def _jobs(jobs: Sequence[int]) -> str:
    more = f" and {len(jobs) - _MOST_JOBS} more" if len(jobs) > _MOST_JOBS else ""
    return ",".join(map(str, jobs[-_MOST_JOBS:])) + more or "-"
