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
    "job": ("nodewatch.cli.job", "job"),
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


_OPTIONAL = frozenset({"lab", "simulate"})

_EXAMPLES = {
    "Look": (
        ("status", "the cluster, its cases and its marked jobs"),
        ("explain n2", "what happened to a node, and why"),
        ("explain 17 --since 2d", "what happened to a job, and why"),
        ("job 17", "was it me or the machine? what it cost, and what happens next"),
        ("plan", "what it would do now, and what it holds back"),
        ("history", "which hardware fails again and again"),
    ),
    "Act": (
        ("replace n2", "have a machine replaced, when its jobs are done"),
        ("reboot 'n[1-4]' --dry-run", "what a reboot would do, and to which jobs"),
        ("drain n2", "take a node out of service"),
        ("return n2", "put it back"),
        ("pause --for 2h", "no new repair for a while"),
        ("resume", "repairs go on"),
    ),
    "Test": (
        ("check --deep n2", "test a node as deeply as after a repair"),
        ("check-pairs 'n[1-8]'", "find the node that slows NCCL down"),
        ("replay --sensor kmsg FILE", "what a recording of a machine amounts to"),
        ("checkpoint verify DIR", "are its checkpoints whole"),
    ),
    "Set up": (
        ("doctor", "what to change in slurm.conf, and why"),
        ("learn", "what this machine's instance type has"),
        ("cluster apply", "make EC2 and Slurm what cluster.toml says"),
    ),
    "Try": (
        ("replay-journal --rules new.toml DIR", "what other rules would have decided"),
        ("simulate --nodes 1000 --days 30", "how a policy does over weeks"),
        ("lab up", "a rehearsal cluster on this machine"),
    ),
}
"""What the root's help shows, by what one wants to do."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        # The rehearsal cluster and the simulator are not part of the packages that go to nodes.
        return [name for name, (module, _) in _COMMANDS.items() if name not in _OPTIONAL or _is_there(module)]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        there = set(self.list_commands(ctx))
        for title, examples in _EXAMPLES.items():
            rows = [(f"nodewatch {line}", text) for line, text in examples if line.split()[0] in there]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=34)

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
    """A Slurm training cluster that heals itself: what it sees, what it does, and why."""


def main() -> None:
    """Run the command; our own errors are one sentence and exit code 2."""
    try:
        root.main(prog_name="nodewatch", standalone_mode=True)
    except NodewatchError as error:
        click.echo(f"nodewatch: {error}", err=True)
        sys.exit(2)
