"""`nodewatch pause`: begin no new repair for a while."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.clock import stamp
from nodewatch.model.hostlist import expand

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@click.command(
    epilog="Examples: `nodewatch pause --for 2h --reason 'driver roll-out'`, `nodewatch pause 'n[1-4]'`, "
    "`nodewatch pause --partition train`."
)
@click.argument("nodes", nargs=-1, metavar="[HOSTLIST...]")
@click.option("--partition", "partitions", multiple=True, metavar="NAME", help="Only nodes of this partition.")
@click.option(
    "--for", "span", default=None, metavar="TIME", help="Such as 90s, 30m, 2h or 1d; left out: until resumed."
)
@click.option("--reason", default="", help="Why, for whoever finds it paused.")
@click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
def pause(
    nodes: tuple[str, ...], partitions: tuple[str, ...], span: str | None, reason: str, as_json: bool, socket: Path
) -> None:
    """Begin no new repair: of the whole cluster, of partitions, or of nodes. Repairs under way go on."""
    question = {
        "ask": "pause",
        "scopes": scopes_of(nodes, partitions),
        "seconds": None if span is None else seconds_of(span),
        "reason": reason,
    }
    answer = ask(socket, question)
    lines = [f"paused: {pause_line(item)}" for item in answer["paused"]]
    click.echo(json.dumps(answer) if as_json else "\n".join(lines))


def scopes_of(nodes: Sequence[str], partitions: Sequence[str]) -> list[str]:
    """The scopes that were named, the whole cluster for none. Raises BadParameter for a hostlist that is none."""
    try:
        names = [name for item in nodes for name in expand(item)]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return [*(f"partition:{name}" for name in partitions), *(f"node:{name}" for name in names)] or ["cluster"]


def seconds_of(span: str) -> float:
    """`90s`, `30m`, `2h`, `1d` in seconds. Raises BadParameter for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})(s|m|min|h|d)", span.strip())
    if match is None or int(match[1]) == 0:
        raise click.BadParameter(f"{span!r} is no time: write it as 90s, 30m, 2h or 1d")
    return int(match[1]) * _UNITS[match[2]]


def pause_line(item: Mapping[str, Any]) -> str:
    """One pause in words."""
    until = "until it is resumed"
    if item["until"] is not None:
        until = "until " + stamp(item["until"])
    why = f": {item['reason']}" if item["reason"] else ""
    return f"{item['scope'].replace(':', ' ')} {until}, by {item['by'] or 'an operator'}{why}"
