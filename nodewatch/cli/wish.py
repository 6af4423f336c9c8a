"""What the verbs on nodes have in common: show what would be done and to which jobs, ask, do, tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.table import table


def options(function: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options of a verb on nodes."""
    for decorate in (
        click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True),
        click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object; implies --yes."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
        click.option("--reason", default="", help="Why, for whoever reads the story later."),
        click.argument("nodes", nargs=-1, required=True, metavar="HOSTLIST..."),
    ):
        function = decorate(function)
    return function


def wish(
    verb: str,
    nodes: Sequence[str],
    *,
    socket: Path,
    reason: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    force: bool = False,
) -> None:
    """Ask the controller for `verb` on `nodes`, after the operator has seen what it means."""
    question = {"ask": "verb", "verb": verb, "nodes": list(nodes), "reason": reason, "force": force}
    would = ask(socket, {**question, "dry_run": True})
    if dry_run:
        click.echo(json.dumps(would) if as_json else render(would))
        return
    if not (yes or as_json):
        click.echo(render(would))
        click.confirm(f"{verb} {', '.join(would['nodes'])}?", abort=True, err=True)
    done = ask(socket, question)
    click.echo(
        json.dumps(done) if as_json else f"asked for: `nodewatch explain {done['nodes'][0]}` tells how it goes on"
    )


def render(would: Mapping[str, Any]) -> str:
    """What a verb would do: the jobs that it meets, the first actions, and what holds it back."""
    parts = []
    if would["jobs"]:
        fate = _fate(would)
        rows = [
            (
                str(job["job"]),
                job["user"] or "-",
                ",".join(job["nodes"]),
                "yes" if job["auto_resume"] else "no",
            )
            for job in would["jobs"]
        ]
        parts += [f"jobs there ({fate}):", table(("JOB", "USER", "ON", "AUTO-RESUME"), rows)]
    else:
        parts.append("no job is there")
    parts += [f"would {item['text']}" for item in would["would"]["actions"]]
    parts += [
        f"then   {case['rung']}, {case['step'].replace('_', ' ')}: {case['why']}" for case in would["would"]["cases"]
    ]
    parts += [f"held   {item['subject']}: {item['why']}" for item in would["would"]["held"]]
    return "\n".join(parts)


def _fate(would: Mapping[str, Any]) -> str:
    if would["verb"] in ("drain", "return"):
        return "they go on"
    return "ENDED AT ONCE" if would["force"] else "waited for"
