"""`nodewatch resume`: end a pause."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.pause import pause_line, scopes_of


@click.command(
    epilog="Examples: `nodewatch resume`, `nodewatch resume 'n[1-4]'`, `nodewatch resume --partition train`."
)
@click.argument("nodes", nargs=-1, metavar="[HOSTLIST...]")
@click.option("--partition", "partitions", multiple=True, metavar="NAME", help="The pause of this partition.")
@click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
def resume(nodes: tuple[str, ...], partitions: tuple[str, ...], as_json: bool, socket: Path) -> None:
    """End a pause, named as it was made; `nodewatch return` is what puts a node back into service."""
    answer = ask(socket, {"ask": "resume", "scopes": scopes_of(nodes, partitions)})
    lines = [f"resumed: {', '.join(scope.replace(':', ' ') for scope in answer['resumed'])}"]
    lines += [f"still paused: {pause_line(item)}" for item in answer["paused"]]
    click.echo(json.dumps(answer) if as_json else "\n".join(lines))
