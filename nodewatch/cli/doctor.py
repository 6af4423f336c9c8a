"""`nodewatch doctor`: is Slurm set up so that nodewatch works?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from nodewatch.clients.slurm_choice import choose
from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.clients.slurm_conf import read_slurm_conf
from nodewatch.config.controller import ControllerConfig, load_controller_config
from nodewatch.controller.main import read_plugstack
from nodewatch.errors import ConfigError
from nodewatch.policy.doctor import slurm_advice
from nodewatch.policy.doctor_settings import Advice

_CONFIG = Path("/etc/nodewatch/controller.toml")


@click.command(
    epilog="Exit code: 0 nothing must be changed, 1 something must, 2 Slurm could not be asked or the file not read."
)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object, with the advice.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Check this slurm.conf, with the files that it includes, instead of asking slurmctld.",
)
@click.option("--release", default="", metavar="YY.MM", help="The Slurm release that FILE is for, such as 25.11.")
@click.option("--advice", "with_advice", is_flag=True, help="Also say what need not be changed and should.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, file: Path | None, release: str, with_advice: bool) -> None:
    """Check slurm.conf and plugstack.conf, and say what to change."""
    config: Mapping[str, str]
    repeated: list[Advice] = []
    client: dict[str, str] | None = None
    if file is None:
        config = SlurmCommands().config()
        client, repeated = _client()
    else:
        conf = read_slurm_conf(file)
        # Slurm looks for it beside slurm.conf.
        config = {"PlugStackConfig": str(file.parent / "plugstack.conf"), **conf.values}
        repeated = [_given_twice(name) for name in conf.repeated]
    found = [*slurm_advice(config, read_plugstack(config), release=release), *repeated]
    problems = [advice.sentence for advice in found if advice.is_needed]
    rest = [advice.sentence for advice in found if not advice.is_needed]
    if as_json:
        version = config.get("SLURM_VERSION", release)
        click.echo(json.dumps({"slurm_version": version, "problems": problems, "advice": rest, "slurm_client": client}))
    else:
        click.echo("\n".join(problems) or "nothing to change")
        for sentence in rest if with_advice else ():
            click.echo(f"advice: {sentence}")
        if client:
            click.echo(f"nodewatch: Slurm is spoken to by {client['name']}: {client['why']}", err=True)
        if rest and not with_advice:
            click.echo(f"nodewatch: {len(rest)} more would be well: nodewatch doctor --advice", err=True)
    ctx.exit(1 if problems else 0)


def _client() -> tuple[dict[str, str] | None, list[Advice]]:
    """Which client the controller on this machine uses and why, or what keeps it from starting."""
    try:
        settings = load_controller_config(_CONFIG)
    except ConfigError:
        # Not the controller's machine, or not for this user to read; what is wrong in it the controller says itself.
        settings = ControllerConfig()
    try:
        choice = choose(settings.slurm_client, deadline_s=settings.slurm_deadline_s)
    except ConfigError as error:
        return None, [Advice(parameter="slurm_client", sentence=f"{_CONFIG}: {error}")]
    return {"name": choice.name, "why": choice.why}, []


def _given_twice(name: str) -> Advice:
    sentence = f"slurm.conf: {name} is given more than once, of which Slurm keeps only the last: merge the lines"
    return Advice(parameter=name, sentence=sentence)
