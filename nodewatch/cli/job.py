"""`nodewatch job`: what happened to a job, for the one who submitted it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.clock import stamp

_WHO = {
    "hardware": "the machine, not your program",
    "infrastructure": "the cluster, not your program",
    "program": "your program",
    "limit": "a limit of the job",
    "preemption": "a job of higher rank",
    "unknown": "not known",
}
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@click.command(epilog="Examples: `nodewatch job 17`, `nodewatch job 15_3`, `nodewatch job 17 --json`.")
@click.argument("job", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
def job(job: str, as_json: bool, socket: Path) -> None:
    """Was it me or the machine? Each interruption of a job, its cause, what it cost, and what happens next."""
    answer = ask(socket, {"ask": "job", "job": job})
    click.echo(json.dumps(answer) if as_json else render(answer))


def render(answer: Mapping[str, Any]) -> str:
    """The answer as text."""
    state = "+".join(answer["states"]).lower().replace("_", " ") or "no longer in Slurm's memory"
    who = ", ".join(filter(None, [answer["name"], answer["user"]]))
    where = f" on {','.join(answer['nodes'])}" if answer["nodes"] else ""
    lines = [f"job {answer['shown_as']}{f' ({who})' if who else ''}: {state}{where}"]
    if answer["auto_resume"] is None:
        return "\n".join([*lines, f"  {answer['next']}"])
    restarts, runs = answer["restarts"], answer["interruptions"]
    lines.append(f"  asked for    --auto-resume={answer['auto_resume']}")
    lines.append(f"  restarts     {restarts['used']} of {restarts['allowed']} used")
    if runs:
        count = f"{len(runs)} interruption{'s' * (len(runs) != 1)}"
        lines.append(f"  time lost    {_duration(answer['lost_s'])} in {count}")
        lines.append(f"  steps lost   {_steps(answer['lost_steps'])}")
    lines += [f"  kept off     {','.join(answer['excluded'])}"] if answer["excluded"] else []
    lines.append(f"  next         {answer['next']}")
    for run in runs:
        lines += ["", *_interruption(run)]
    if not runs:
        lines += ["", "it was not interrupted"]
    return "\n".join(lines)


def _interruption(run: Mapping[str, Any]) -> list[str]:
    at = run["ended_at"] or run["started_at"]
    after = f" after {_duration(run['ended_at'] - run['started_at'])}" if run["ended_at"] else ""
    lines = [
        f"{stamp(at)}  run {run['run']} ended{after}: {_WHO.get(run['cause'], run['cause'])}",
        f"  why          {run['text']}",
    ]
    # The first sentence of evidence may be the why itself.
    told = [line for line in run["evidence"] if line not in run["text"]]
    lines += [
        f"  {'evidence' if first else '':<12} {line}" for first, line in zip([True, *[False] * 99], told, strict=False)
    ]
    if run["last_step"] is not None:
        lines.append(f"  got to       step {run['last_step']}")
    if run["resumed_step"] is not None:
        lines.append(f"  went on from step {run['resumed_step']}, {_steps(run['lost_steps'])} lost")
    elif run["saved_step"] is not None:
        verb = "goes on from" if run["restarts"] else "last saved"
        lines.append(f"  {verb:<12} step {run['saved_step']}")
    if run["back_at"] is not None:
        lines.append(f"  back after   {_duration(run['lost_s'])}")
    return lines


def _steps(count: float | None) -> str:
    if count is None:
        return "not known"
    return f"{count:.0f} step{'s' * (count != 1)}"


def _duration(seconds: float | None) -> str:
    """Two units at most."""
    if seconds is None:
        return "not known"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"
