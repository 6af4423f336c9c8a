"""`nodewatch explain`: the story of one node or job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask


@click.command(epilog="Examples: `nodewatch explain n2`, `nodewatch explain 17 --json`.")
@click.argument("subject", metavar="NODE|JOB")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
def explain(subject: str, as_json: bool, socket: Path) -> None:
    """What happened to a node or a job, what was done, what is held back, and why."""
    answer = ask(socket, {"ask": "explain", "subject": subject})
    click.echo(json.dumps(answer) if as_json else render(answer))


def render(answer: Mapping[str, Any]) -> str:
    """The answer as text."""
    now = answer["now"]
    lines = []
    if answer["kind"] == "node":
        spare = ", held as a warm spare" if now["is_spare"] else ""
        lines.append(
            f"node {now['node']}: {'+'.join(now['slurm'] or ['not in Slurm']).lower()}{spare}, {now['health']}"
        )
        lines += [f"  machine   {now['instance'] or 'unknown'} at {now['address'] or 'no address'}"]
        lines += [f"  reason    {now['reason']}"] if now["reason"] else []
        lines += [f"  finding   {now['finding']}"] if now["finding"] else []
        lines += [f"  unknown   {unknown}" for unknown in now["unknown"]]
        lines += [f"  bootstrap failed: {now['bootstrap']}"] if now["bootstrap"] else []
        for case in now["cases"]:
            lines.append(f"  repair    {case['rung']}, {case['step'].replace('_', ' ')}: {case['why']}")
            lines += [f"  in vain   {one['text']}" for one in case["tries"]]
            lines += [f"  but       {case['note']}"] if case["note"] else []
        lines += [f"  checking  {now['checking']}"] if now["checking"] else []
        if now["tested"]:
            at = datetime.fromtimestamp(now["tested"]["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            lines.append(f"  deep      {'passed' if now['tested']['passed'] else 'failed'} at {at}")
        lines += [f"  jobs      {', '.join(map(str, now['jobs']))}"] if now["jobs"] else []
    else:
        state = "+".join(now["states"]).lower() or "no longer in Slurm's memory"
        lines.append(f"job {now['job']} {now['name']}: {state} on {','.join(now['nodes']) or 'no nodes'}")
        if now["auto_resume"]:
            lines.append(f"  restarts  {now['restarts']} of {now['restarts_allowed']} used")
        else:
            lines.append("  restarts  none: it was submitted without --auto-resume")
        lines += [f"  kept off  {','.join(now['excluded'])}"] if now["excluded"] else []
        lines += [f"  judged    {now['cause']}: {now['judged']}"] if now["judged"] else []
    lines += [f"  held      {why}" for why in now["held"]]
    lines.append("")
    for entry in answer["story"]:
        # A clock time, in the operator's own time zone.
        stamp = datetime.fromtimestamp(entry["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{stamp}  {entry['text']}")
    if not answer["story"]:
        lines.append("nothing has happened to it since the journal began")
    return "\n".join(lines)
