"""`nodewatch return`: put nodes back into service."""

from __future__ import annotations

from pathlib import Path

import click

from nodewatch.cli.wish import options, wish


@click.command("return", epilog="Examples: `nodewatch return n2`, `nodewatch return n2 --force`.")
@options
@click.option("--force", is_flag=True, help="Even when a fault stands against a node, or its agent is silent.")
def return_(
    nodes: tuple[str, ...], reason: str, dry_run: bool, yes: bool, as_json: bool, socket: Path, force: bool
) -> None:
    """Put nodes back into service. Your word ends a repair that waits, and holds until a new fault is found."""
    wish("return", nodes, socket=socket, reason=reason, dry_run=dry_run, yes=yes, as_json=as_json, force=force)
