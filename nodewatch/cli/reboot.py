"""`nodewatch reboot`: have machines rebooted and tested before they take work again."""

from __future__ import annotations

from pathlib import Path

import click

from nodewatch.cli.wish import options, wish


@click.command(
    epilog="Examples: `nodewatch reboot n2`, `nodewatch reboot 'n[1-3]' --dry-run`, `nodewatch reboot n2 --force --yes`."
)
@options
@click.option("--force", is_flag=True, help="Wait for no job and no limit: what runs there is ended.")
def reboot(
    nodes: tuple[str, ...], reason: str, dry_run: bool, yes: bool, as_json: bool, socket: Path, force: bool
) -> None:
    """Have machines rebooted and tested before they take work again.

    Nodes are drained, jobs there may finish, and limits hold as for any repair. The same as
    `scontrol update node=X state=drain reason="Action:Reboot"`.
    """
    wish("reboot", nodes, socket=socket, reason=reason, dry_run=dry_run, yes=yes, as_json=as_json, force=force)
