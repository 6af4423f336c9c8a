"""`nodewatch cluster`: make EC2 and Slurm what cluster.toml says."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET
from nodewatch.cli.cluster_work import (
    Outcome,
    Site,
    as_data,
    group_data,
    node_data,
    sentence,
    without_machines,
    work,
)
from nodewatch.cli.table import table
from nodewatch.clients.replace_file import replace_file
from nodewatch.clients.slurm_commands import SlurmCommands
from nodewatch.config.cluster import DEFAULT, ClusterConfig, load_cluster_config
from nodewatch.config.counts import with_counts
from nodewatch.effects.cluster import Record
from nodewatch.errors import ConfigError
from nodewatch.model.hostlist import fold
from nodewatch.policy import cluster_plan as to
from nodewatch.policy.topology import topology_conf, topology_problems

_RECORD = Path("/var/lib/nodewatch-controller/cluster.jsonl")

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _options(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for each in reversed(decorators):
            function = each(function)
        return function

    return decorate


_config = click.option("--config", type=click.Path(path_type=Path), default=DEFAULT, show_default=True)
_where = _options(
    _config,
    click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True),
    click.option(
        "--record",
        type=click.Path(path_type=Path),
        default=_RECORD,
        show_default=True,
        help="What was done, kept for the next time.",
    ),
    click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object."),
)
_doing = _options(
    click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("--force", is_flag=True, help="Nodes that go: end what runs there, whoever took them out of service."),
    click.option(
        "--wait", "wait_s", default=900.0, show_default=True, help="Seconds to wait for boots and jobs; 0: none."
    ),
)


@click.group()
def cluster() -> None:
    """The cluster's machines in EC2 and their lines in Slurm, as cluster.toml says.

    \b
    nodewatch cluster apply --dry-run     what would be done
    nodewatch cluster apply               do it, after a look
    nodewatch cluster scale a=4 b=12      move machines from one group to another
    nodewatch cluster describe            what there is of each group
    """


@cluster.command(epilog="Exit code: 0 all is as cluster.toml says, 1 something is held back or not up yet, 2 an error.")
@_where
@_doing
@click.pass_context
def apply(
    ctx: click.Context,
    config: Path,
    socket: Path,
    record: Path,
    as_json: bool,
    dry_run: bool,
    yes: bool,
    force: bool,
    wait_s: float,
) -> None:
    """Make EC2 and Slurm what cluster.toml says: the plan is shown first.

    Machines are launched for names that have none, our file of node and partition lines is written and read by Slurm, and
    machines beyond a group's count are ended once their nodes are drained and empty. Run again, it finds nothing to do.
    """
    site = _site(load_cluster_config(config), record, socket)
    _apply(ctx, site, site.config.wanted, as_json=as_json, dry_run=dry_run, yes=yes, force=force, wait_s=wait_s)


@cluster.command(epilog="Examples: `nodewatch cluster scale gpu=8`, `nodewatch cluster scale a=4 b=12 --dry-run`.")
@click.argument("counts", nargs=-1, required=True, metavar="GROUP=N...")
@_where
@_doing
@click.pass_context
def scale(
    ctx: click.Context,
    counts: tuple[str, ...],
    config: Path,
    socket: Path,
    record: Path,
    as_json: bool,
    dry_run: bool,
    yes: bool,
    force: bool,
    wait_s: float,
) -> None:
    """Change the counts of groups in cluster.toml, and apply it.

    The file keeps its comments; it is changed only when the plan is agreed to.
    """
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} cannot be read: {error}") from error
    load_cluster_config(config)
    changed = with_counts(text, _counts(counts))
    site = _site(_loaded_as(changed, config), record, socket)

    def keep() -> None:
        replace_file(config, changed)

    _apply(
        ctx,
        site,
        site.config.wanted,
        as_json=as_json,
        dry_run=dry_run,
        yes=yes,
        force=force,
        wait_s=wait_s,
        before=keep,
    )


@cluster.command(epilog="Exit code: 0 nothing remains, 1 something does (it is listed), 2 an error.")
@_where
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--confirm", default="", metavar="NAME", help="The cluster's name, instead of being asked for it.")
@click.option("--force", is_flag=True, help="End what runs there, whoever took the nodes out of service.")
@click.option("--wait", "wait_s", default=900.0, show_default=True, help="Seconds to wait for jobs; 0: none.")
@click.pass_context
def delete(
    ctx: click.Context,
    config: Path,
    socket: Path,
    record: Path,
    as_json: bool,
    dry_run: bool,
    confirm: str,
    force: bool,
    wait_s: float,
) -> None:
    """End all machines of cluster.toml's groups and take their lines out of Slurm. The file itself stays.

    Nodes that the site wrote into slurm.conf itself, and their machines, are left alone. What remains is listed.
    """
    site = _site(load_cluster_config(config), record, socket)
    name = site.config.cluster
    groups = without_machines(site.config.wanted)
    seen = site.look()
    plan = site.plan(groups, seen, force=force)
    if dry_run:
        _show(plan, site.config, as_json)
        return
    if not as_json:
        _show(plan, site.config, as_json)
    typed = confirm or (
        ""
        if as_json
        else click.prompt("Type the cluster's name to delete it", default="", show_default=False, err=True)
    )
    if typed != name:
        raise ConfigError(f"nothing was done: the cluster is {name!r}, not {typed!r}")
    with site.record.held():
        outcome = work(site, groups, force=force, wait_s=wait_s, tell=_teller(as_json))
    after = site.look()
    machines = {i.instance_id: i for i in after.instances.values() if i.state not in ("shutting-down", "terminated")}
    remains: dict[str, Any] = {
        "lines": sorted(after.ours),
        "machines": [
            {"instance": key, "node": i.node, "state": i.state, "is_site": i.node in after.theirs.nodes}
            for key, i in sorted(machines.items())
        ],
        "held": _held_data(outcome.held),
    }
    is_rest = bool(after.ours) or any(not each["is_site"] for each in remains["machines"])
    if as_json:
        click.echo(json.dumps({"cluster": name, "done": outcome.done, "remains": remains}))
    else:
        click.echo(
            f"what remains of {name}:"
            if is_rest or machines
            else f"nothing remains of {name} in EC2 and in {site.config.nodes_path}"
        )
        click.echo("".join(f"  line of {node} in {site.config.nodes_path}\n" for node in remains["lines"]), nl=False)
        for each in remains["machines"]:
            whose = ", of a node that the site's own lines define" if each["is_site"] else ""
            click.echo(f"  {each['instance']} ({each['state']}) of {each['node'] or 'no node'}{whose}")
        for item in remains["held"]:
            click.echo(f"  {item['node']}: {item['why']}")
        click.echo(f"{config} is as it was: `nodewatch cluster apply` would make it all again", err=True)
    ctx.exit(1 if is_rest else 0)


@cluster.command()
@_where
def describe(config: Path, socket: Path, record: Path, as_json: bool) -> None:
    """What there is of each group: machines, nodes, and what stands in the way."""
    site = _site(load_cluster_config(config), record, socket)
    seen = site.look()
    plan = site.plan(site.config.wanted, seen, force=False)
    data: dict[str, Any] = {
        "cluster": site.config.cluster,
        "groups": [group_data(each, seen) for each in site.config.wanted],
        "nodes": [node_data(name, each, seen) for each in site.config.wanted for name in each.nodes],
        "held": _held_data(plan.held),
        "steps": len(plan.steps),
    }
    if as_json:
        click.echo(json.dumps(data))
        return
    heads = ("GROUP", "TYPE", "PARTITION", "WANTED", "MACHINES", "UP", "SPARES", "OUT")
    keys = ("group", "instance_type", "partition", "count", "machines", "up", "spares", "out")
    click.echo(f"cluster {data['cluster']}")
    click.echo(table(heads, [[str(row[key]) or "-" for key in keys] for row in data["groups"]]))
    of_node = ("node", "group", "instance", "ec2", "slurm", "address", "lines")
    click.echo(
        "\n" + table([key.upper() for key in of_node], [[row[key] or "-" for key in of_node] for row in data["nodes"]])
    )
    for item in data["held"]:
        click.echo(f"held: {item['node']}: {item['why']}")
    if data["steps"]:
        click.echo(f"{data['steps']} steps are to be done: `nodewatch cluster apply --dry-run` shows them")


@cluster.command(
    epilog="Example: `nodewatch cluster topology --write /etc/slurm/topology.conf && scontrol reconfigure`."
)
@_config
@click.option(
    "--write", type=click.Path(path_type=Path), metavar="FILE", help="Put it into FILE instead of printing it."
)
def topology(config: Path, write: Path | None) -> None:
    """Print topology.conf for Slurm's topology/tree, from where EC2 says the machines are.

    It is checked first: every switch has something below it, no node hangs below two, all nodes are Slurm's, no loops.
    """
    # boto3 takes half a second to import: `nodewatch --help` must not wait for it.
    from nodewatch.clients.ec2 import Ec2
    from nodewatch.clients.ec2_topology import network_nodes

    settings = load_cluster_config(config)
    known = sorted(SlurmCommands().nodes())
    machines = Ec2(cluster=settings.cluster).instances()
    alive = [i for _, i in sorted(machines.items()) if i.state == "running" and i.node in set(known)]
    placed = network_nodes([instance.instance_id for instance in alive])
    # slurmctld takes a tree that misses a node, and gives that node no job of more than one.
    paths: dict[str, tuple[str, ...]] = dict.fromkeys(known, ())
    paths |= {i.node: placed.get(i.instance_id, ()) for i in alive}
    if not paths:
        raise ConfigError(f"{config}: Slurm has no node, so there is nothing to place")
    try:
        text = topology_conf(paths)
    except ValueError as error:
        raise ConfigError(f"EC2's answer makes no topology: {error}") from error
    problems = topology_problems(text, known)
    if problems:
        raise ConfigError(f"EC2's answer makes no topology: {problems[0]}")
    unplaced = sorted(name for name, path in paths.items() if not path)
    if unplaced:
        click.echo(f"EC2 does not say where {fold(unplaced)} are: below the switch `unplaced`", err=True)
    if write is None:
        click.echo(text, nl=False)
        return
    replace_file(write, text)
    click.echo(f"{write} written: `scontrol reconfigure` has it read", err=True)


def _site(config: ClusterConfig, record: Path, socket: Path) -> Site:
    from nodewatch.clients.ec2 import Ec2

    return Site(
        config=config, slurm=SlurmCommands(), ec2=Ec2(cluster=config.cluster), record=Record(record), socket=socket
    )


def _apply(
    ctx: click.Context,
    site: Site,
    groups: Sequence[to.Wanted],
    *,
    as_json: bool,
    dry_run: bool,
    yes: bool,
    force: bool,
    wait_s: float,
    before: Callable[[], None] | None = None,
) -> None:
    if not dry_run:
        site.ensure_file()
    plan = site.plan(groups, site.look(), force=force)
    if dry_run:
        _show(plan, site.config, as_json)
        return
    if not as_json:
        _show(plan, site.config, as_json)
    if plan.steps and not (yes or as_json):
        click.confirm(f"carry out {len(plan.steps)} steps on {site.config.cluster}?", abort=True, err=True)
    with site.record.held():
        if before is not None:
            before()
        outcome = work(site, groups, force=force, wait_s=wait_s, tell=_teller(as_json))
    if as_json:
        click.echo(json.dumps({**_plan_data(plan), **_outcome_data(outcome)}))
    else:
        _conclude(outcome)
    ctx.exit(0 if outcome.is_complete else 1)


def _conclude(outcome: Outcome) -> None:
    if outcome.is_complete:
        click.echo("the cluster is as cluster.toml says")
    for item in outcome.held:
        click.echo(f"held: {item.node}: {item.why}")
    if outcome.waiting:
        click.echo(f"not up yet: {fold(outcome.waiting)}; `nodewatch cluster describe` tells how it goes on")


def _show(plan: to.ClusterPlan, config: ClusterConfig, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_plan_data(plan)))
        return
    for step in plan.steps:
        click.echo(sentence(step, config))
    for item in plan.held:
        click.echo(f"held: {item.node}: {item.why}")
    if not plan.steps:
        click.echo("nothing is to be done")


def _plan_data(plan: to.ClusterPlan) -> dict[str, Any]:
    return {
        "steps": [as_data(step) for step in plan.steps],
        "held": _held_data(plan.held),
    }


def _held_data(held: Sequence[to.Held]) -> list[dict[str, str]]:
    return [{"node": item.node, "why": item.why} for item in held]


def _outcome_data(outcome: Outcome) -> dict[str, Any]:
    return {
        "done": outcome.done,
        "held": _held_data(outcome.held),
        "waiting": list(outcome.waiting),
        "complete": outcome.is_complete,
    }


def _teller(as_json: bool) -> Callable[[str], None]:
    return (lambda _: None) if as_json else (lambda line: click.echo(line, err=True))


def _counts(words: Sequence[str]) -> dict[str, int]:
    counts = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        if not equals or not name or not (number.isascii() and number.isdigit()):
            raise ConfigError(f"{word!r} is no GROUP=N, such as gpu=8")
        counts[name] = int(number)
    return counts


def _loaded_as(text: str, path: Path) -> ClusterConfig:
    """`text` read as if it stood in `path` already."""
    with tempfile.TemporaryDirectory(prefix="nodewatch-") as place:
        candidate = Path(place) / path.name
        candidate.write_text(text, encoding="utf-8")
        try:
            return load_cluster_config(candidate)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(candidate), str(path))) from error
