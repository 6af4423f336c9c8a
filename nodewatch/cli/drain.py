"""`nodewatch drain`: take nodes out of service, for as long as you like."""

from __future__ import annotations

from pathlib import Path

import click

from nodewatch.cli.wish import options, wish


@click.command(epilog="Example: `nodewatch drain 'n[1-3]' --reason 'new fans'`. `nodewatch return` brings them back.")
@options
def drain(nodes: tuple[str, ...], reason: str, dry_run: bool, yes: bool, as_json: bool, socket: Path) -> None:
    """Take nodes out of service; jobs there go on. They are yours then: nodewatch leaves them alone."""
    wish("drain", nodes, socket=socket, reason=reason, dry_run=dry_run, yes=yes, as_json=as_json)
