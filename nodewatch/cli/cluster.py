"""nodewatch cluster: the cluster's machines in EC2."""

from __future__ import annotations

from pathlib import Path

import click

from nodewatch.config.controller import load_controller_config
from nodewatch.errors import ConfigError


@click.group()
def cluster() -> None:
    """The cluster's machines in EC2."""


@cluster.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=Path("/etc/nodewatch/controller.toml"),
    show_default=True,
    help="Whose groups and cluster name are meant.",
)
def topology(config: Path) -> None:
    """Print topology.conf for Slurm's topology/tree, from where EC2 says the machines are.

    Nothing is written: compare it with the file in use, put it in its place, and run `scontrol reconfigure`.
    """
    # boto3 takes half a second to import: `nodewatch --help` must not wait for it.
    from nodewatch.clients.ec2 import Ec2
    from nodewatch.clients.ec2_topology import network_nodes
    from nodewatch.policy.topology import topology_conf

    settings = load_controller_config(config)
    alive = [i for _, i in sorted(Ec2(cluster=settings.cluster).instances().items()) if i.state == "running"]
    placed = network_nodes([instance.instance_id for instance in alive])
    paths: dict[str, tuple[str, ...]] = {
        name: () for group in settings.groups for name in group.nodes if not set(name) & set("*?[")
    }
    paths |= {i.node: placed.get(i.instance_id, ()) for i in alive}
    if not paths:
        raise ConfigError(f"{config}: no group names a node, and EC2 has no machine of this cluster")
    try:
        text = topology_conf(paths)
    except ValueError as error:
        raise ConfigError(f"EC2's answer makes no topology: {error}") from error
    unplaced = sorted(name for name, path in paths.items() if not path)
    if unplaced:
        click.echo(f"EC2 does not say where {','.join(unplaced)} are: below the switch `unplaced`", err=True)
    click.echo(text, nl=False)
