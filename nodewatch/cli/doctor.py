"""`nodewatch doctor`: is Slurm set up so that nodewatch works?"""

from __future__ import annotations

import json

import click

from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.controller.main import read_plugstack
from nodewatch.policy.doctor import slurm_problems


@click.command(epilog="Exit code: 0 nothing to change, 1 something is missing, 2 Slurm could not be asked.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check slurm.conf and plugstack.conf, and say what to change."""
    config = SlurmCommands().config()
    problems = slurm_problems(config, read_plugstack(config))
    if as_json:
        click.echo(json.dumps({"slurm_version": config.get("SLURM_VERSION", ""), "problems": problems}))
    else:
        click.echo("\n".join(problems) or "nothing to change")
    ctx.exit(1 if problems else 0)
