"""`nodewatch status`: the cluster at a glance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.pause import pause_line
from nodewatch.cli.table import table


@click.command(epilog="Exit code: 0 nothing is wrong, 1 something is, 2 the controller could not be asked.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
@click.pass_context
def status(ctx: click.Context, as_json: bool, socket: Path) -> None:
    """Nodes with their health and repairs, marked jobs, and what is held back and why."""
    answer = ask(socket, {"ask": "status"})
    click.echo(json.dumps(answer) if as_json else render(answer))
    is_wrong = answer["slurm_error"] or answer["ec2_error"] or any(node["cases"] for node in answer["nodes"])
    ctx.exit(1 if is_wrong else 0)


def _repair(case: Mapping[str, Any]) -> str:
    text = f"{case['rung']}: {case['step'].replace('_', ' ')}"
    return f"{text}, {len(case['tries'])} in vain: {case['tries'][-1]['words']}" if case["tries"] else text


def _pairs(told: Mapping[str, Any]) -> list[str]:
    """A line for each open pair test and for who stands named; the last result where neither is."""
    lines = [
        f"pair test {test['key']}: {test['nodes']} nodes, {test['runs']} runs ended, asked for by {test['by']}"
        for test in told["open"]
    ]
    if told["culprits"]:
        lines.append(f"pair tests name {', '.join(told['culprits'])}")
    elif not lines and told["last"]:
        at = datetime.fromtimestamp(told["last"]["at"]).astimezone().strftime("%Y-%m-%d %H:%M")
        lines.append(f"the last pair test, of {told['last']['nodes']} nodes, ended at {at}: {told['last']['why']}")
    return lines


def render(answer: Mapping[str, Any]) -> str:
    """The answer as text."""
    parts = [f"standing by: {answer['standing_by']}"] if answer.get("standing_by") else []
    parts += [f"mode {answer['mode']}" + (", paused" if answer["paused"] else "")]
    parts += [f"paused: {pause_line(pause)}" for pause in answer["pauses"]]
    parts += [f"SLURM UNREADABLE: {answer['slurm_error']}"] if answer["slurm_error"] else []
    parts += [f"EC2 UNREADABLE: {answer['ec2_error']}"] if answer["ec2_error"] else []
    parts += [f"set-up: {problem}" for problem in answer["problems"]]
    parts += _pairs(answer["pairs"])
    rows = [
        (
            node["node"],
            "+".join(node["slurm"] or ["not in Slurm"]).lower() + (" (spare)" if node["is_spare"] else ""),
            node["health"],
            node["instance"] or "-",
            ", ".join(_repair(case) for case in node["cases"]) or "-",
            node["finding"] or (f"bootstrap failed: {node['bootstrap']}" if node["bootstrap"] else "-"),
        )
        for node in answer["nodes"]
    ]
    parts += ["", table(("NODE", "SLURM", "HEALTH", "INSTANCE", "REPAIR", "FINDING"), rows)]
    if answer["jobs"]:
        rows = [
            (
                str(job["job"]),
                job["user"] or "-",
                "+".join(job["states"]).lower() or "gone",
                ",".join(job["nodes"]) or "-",
                f"{job['restarts']} of {job['restarts_allowed']}" if job["auto_resume"] else "-",
                job["judged"] or "-",
            )
            for job in answer["jobs"]
        ]
        parts += ["", table(("JOB", "USER", "STATE", "NODES", "RESTARTS", "LAST INTERRUPTION"), rows)]
    held = [(node["node"], why) for node in answer["nodes"] for why in node["held"]]
    held += [(f"job {job['job']}", why) for job in answer["jobs"] for why in job["held"]]
    if held:
        parts += ["", table(("HELD BACK", "WHY"), held)]
    return "\n".join(parts)
