"""The `lab` commands."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from nodewatch.lab import demo as lab_demo
from nodewatch.lab import down as lab_down
from nodewatch.lab import inject as lab_inject
from nodewatch.lab import machine, preflight, status
from nodewatch.lab import up as lab_up
from nodewatch.lab.errors import LabError
from nodewatch.lab.inventory import inventory
from nodewatch.lab.layout import AWS_ENVIRONMENT, CLOUD_NETNS, MARK_VARIABLE, Layout, layout_from
from nodewatch.lab.mirror import MIRROR_VARIABLE
from nodewatch.lab.network import NETNS_DIR
from nodewatch.lab.plan import load
from nodewatch.lab.process import through
from nodewatch.lab.slurm import Shape

CLOUD = "cloud"


@contextmanager
def one_sentence() -> Iterator[None]:
    """Show a LabError as click shows its own: `Error: ...`, exit code 1, no traceback."""
    try:
        yield
    except LabError as error:
        raise click.ClickException(str(error)) from error


@click.group()
@click.option("--state-dir", metavar="DIR", help="Where images and the running lab are kept.")
@click.pass_context
def lab(context: click.Context, state_dir: str | None) -> None:
    """A rehearsal cluster on this machine: real Slurm, EC2 by moto, faults on demand. Needs root."""
    with one_sentence():
        context.obj = layout_from(state_dir)


@lab.command()
@click.option("--nodes", default=3, show_default=True, help="Compute nodes.")
@click.option("--spares", default=1, show_default=True, help="Warm spares beside them.")
@click.option("--plain", is_flag=True, help="Slurm without nodewatch, to compare with.")
@click.option("--mirror", metavar="URI", envvar=MIRROR_VARIABLE, help="Debian archive; else the host's own.")
@click.option(
    "--packages",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Built packages to install; else they are built from the checkout.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what is up as JSON.")
@click.pass_obj
def up(
    layout: Layout, nodes: int, spares: int, plain: bool, mirror: str | None, packages: Path | None, as_json: bool
) -> None:
    """Bring the cluster up and wait until every node is idle."""
    with one_sentence():
        shape = Shape(nodes=nodes, spares=spares, plain=plain)
        ready = lab_up.bring_up(
            layout, shape, mirror=mirror, packages=packages, write=lambda line: click.echo(line, err=True)
        )
    if as_json:
        click.echo(json.dumps({"seconds": ready.seconds, "nodes": [asdict(node) for node in ready.nodes]}))
    else:
        click.echo(f"up in {ready.seconds} s; try: nodewatch lab exec head -- sinfo")


@lab.command(name="status")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def show_status(layout: Layout, as_json: bool) -> None:
    """Show machines, instances and Slurm's nodes side by side."""
    with one_sentence():
        preflight.require_root()
        picture = status.picture(layout)
    if as_json:
        click.echo(json.dumps(picture))
        return
    _table(picture["machines"], ("machine", "instance", "address", "running", "slurm_state", "slurm_reason"))
    if picture["instances"] is None:
        click.echo("\nEC2 does not answer.")
    else:
        click.echo()
        _table(picture["instances"], ("instance", "state", "address", "node"))


@lab.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("where", metavar="MACHINE")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
@click.pass_obj
def exec_in(layout: Layout, where: str, argv: tuple[str, ...]) -> NoReturn:
    """Run a command in a machine (or, in the host's files, on the network of `cloud`); passes on its exit code."""
    with one_sentence():
        preflight.require_root()
        load(layout)
        if where == CLOUD:
            settings = [f"{name}={value}" for name, value in AWS_ENVIRONMENT.items()]
            command = ["nsenter", f"--net={NETNS_DIR / CLOUD_NETNS}", "env", *settings, *_unframed(argv)]
        else:
            command = machine.entering(machine.find(layout, where), _unframed(argv))
        sys.exit(through(command, env=os.environ | {MARK_VARIABLE: str(layout.root)}))


@lab.command()
@click.argument("where", metavar="MACHINE")
@click.argument("unit", required=False)
@click.option("-n", "--lines", default=200, show_default=True, help="How many of the last lines.")
@click.pass_obj
def logs(layout: Layout, where: str, unit: str | None, lines: int) -> NoReturn:
    """Show a machine's journal, of one UNIT or whole; for a machine that is dead, its console; `cloud` is EC2's log."""
    with one_sentence():
        preflight.require_root()
        load(layout)
        if where == CLOUD:
            command = ["tail", "-n", str(lines), str(layout.cloud / "log")]
        else:
            found = machine.find(layout, where)
            if machine.init_pid(found) is None:
                command = ["tail", "-n", str(lines), str(layout.machine(found.ident) / "console.log")]
            else:
                asked = ["journalctl", "--no-pager", "-n", str(lines), *(["-u", unit] if unit else [])]
                command = machine.entering(found, asked)
        sys.exit(through(command, env=os.environ | {MARK_VARIABLE: str(layout.root)}))


@lab.command(name="inventory")
@click.pass_obj
def print_inventory(layout: Layout) -> None:
    """Print an Ansible inventory of the machines, for `lab exec cloud -- ansible-playbook -i FILE site.yml`."""
    with one_sentence():
        preflight.require_root()
        click.echo(json.dumps(inventory(layout), indent=1))


@lab.command()
@click.argument("fault", type=click.Choice(lab_inject.NODE_FAULTS + lab_inject.CLUSTER_FAULTS))
@click.argument("node", required=False, default="")
@click.option("--gpu", default=2, show_default=True, help="Which GPU of the node.")
@click.pass_obj
def inject(layout: Layout, fault: str, node: str, gpu: int) -> None:
    """Make something break (or, with capacity-back, work again); prints one line of JSON."""
    with one_sentence():
        preflight.require_root()
        done = lab_inject.inject(layout, fault, node, gpu)
    click.echo(json.dumps(asdict(done)))


@lab.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Where timeline.json and timeline.html go.",
)
@click.option("--fault", type=click.Choice(["gpu-lost", "node-crash"]), default="gpu-lost", show_default=True)
@click.option("--steps", default=300, show_default=True, help="How long the job is.")
@click.option("--json", "as_json", is_flag=True, help="Print timeline.json at the end, in place of the figures.")
@click.pass_obj
def demo(layout: Layout, output: Path, fault: str, steps: int, as_json: bool) -> None:
    """A training job outlives a dead GPU: live timeline, figures, a page. Uses the lab that is up, or brings one up.

    Exit code 0 when the whole story came about with the same final loss, 1 when not.
    """
    with one_sentence():
        preflight.require_root()
        if not layout.plan_file.exists():
            shape = Shape(nodes=3, spares=1, plain=False)
            lab_up.bring_up(layout, shape, mirror=None, packages=None, write=lambda line: click.echo(line, err=True))
        elif load(layout).plain:
            raise LabError("the lab that is up has no nodewatch in it (--plain): run lab down first")
        script = lab_demo.Script(steps=steps, fault=fault)
        document = lab_demo.play(layout, script, output, lambda line: click.echo(line, err=as_json))
    if as_json:
        click.echo(json.dumps(document))
    else:
        click.echo("\n" + "\n".join(lab_demo.lines(document)))
        click.echo(f"\nsee {output / 'timeline.html'}; `nodewatch lab down` ends the cluster")
    if not lab_demo.is_complete(document):
        sys.exit(1)


@lab.command()
@click.pass_obj
def down(layout: Layout) -> None:
    """End the lab and remove all of it but the cached images."""
    with one_sentence():
        left = lab_down.take_down(layout)
    if left:
        raise click.ClickException("these could not be removed: " + "; ".join(left))
    click.echo("nothing of the lab is left running")


def _unframed(argv: tuple[str, ...]) -> list[str]:
    # click leaves the `--` in when it stands after the first argument.
    return list(argv[1:] if argv[0] == "--" else argv)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    shown = [[_cell(row[column]) for column in columns] for row in rows]
    heads = [column.replace("_", " ").upper() for column in columns]
    widths = [max(len(line[index]) for line in [heads, *shown]) for index in range(len(columns))]
    write: Callable[[str], None] = click.echo
    for line in [heads, *shown]:
        write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(value)
