"""The command group. Subcommands are imported when they are called, so that `status` does not wait for what `lab` needs."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import click

from nodewatch import __version__
from nodewatch.errors import NodewatchError

_COMMANDS = {
    "status": ("nodewatch.cli.status", "status"),
    "explain": ("nodewatch.cli.explain", "explain"),
    "doctor": ("nodewatch.cli.doctor", "doctor"),
    "plan": ("nodewatch.cli.plan", "plan"),
    "replace": ("nodewatch.cli.replace", "replace"),
    "reboot": ("nodewatch.cli.reboot", "reboot"),
    "drain": ("nodewatch.cli.drain", "drain"),
    "return": ("nodewatch.cli.return_", "return_"),
    "pause": ("nodewatch.cli.pause", "pause"),
    "resume": ("nodewatch.cli.resume", "resume"),
    "check": ("nodewatch.cli.check", "check"),
    "check-pairs": ("nodewatch.cli.pairs", "check_pairs"),
    "history": ("nodewatch.cli.history", "history"),
    "simulate": ("nodewatch.testing.sim_command", "simulate"),
    "replay": ("nodewatch.cli.replay", "replay"),
    "replay-journal": ("nodewatch.cli.replay_journal", "replay_journal"),
    "checkpoint": ("nodewatch.cli.checkpoint", "checkpoint"),
    "learn": ("nodewatch.cli.learn", "learn"),
    "cluster": ("nodewatch.cli.cluster", "cluster"),
    "lab": ("nodewatch.lab.command", "lab"),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        # The rehearsal cluster is not part of the packages that go to nodes.
        return [name for name, (module, _) in _COMMANDS.items() if name != "lab" or _is_there(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nodewatch")
def root() -> None:
    """A Slurm training cluster that heals itself: what it sees, what it does, and why.

    \b
    nodewatch status              the cluster, its cases and its marked jobs
    nodewatch explain n2          what happened to a node, and why
    nodewatch explain 17          what happened to a job, and why
    nodewatch history             which hardware fails again and again
    nodewatch plan                what it would do now, and what it holds back
    nodewatch replace n2          have a machine replaced, when its jobs are done
    nodewatch pause --for 2h      no new repair for a while
    nodewatch check --deep n2     test a node as deeply as after a repair
    nodewatch check-pairs 'n[1-8]' which node is slow with the others
    nodewatch check-pairs 'n[1-8]'
                                  find the node that slows NCCL down
    nodewatch checkpoint verify DIR
                                  are its checkpoints whole
    nodewatch doctor              what to change in slurm.conf, and why
    nodewatch learn               what this machine's instance type has
    nodewatch replay --sensor kmsg FILE
                                  what a recording of a machine amounts to
    nodewatch replay-journal --rules new.toml DIR
                                  what other rules would have decided
    nodewatch cluster apply       make EC2 and Slurm what cluster.toml says
    nodewatch lab up              a rehearsal cluster on this machine
    """


def main() -> None:
    """Run the command; our own errors are one sentence and exit code 2."""
    try:
        root.main(prog_name="nodewatch", standalone_mode=True)
    except NodewatchError as error:
        click.echo(f"nodewatch: {error}", err=True)
        sys.exit(2)
