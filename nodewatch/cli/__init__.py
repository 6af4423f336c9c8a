"""The command `nodewatch`: one file a subcommand."""

from nodewatch.cli.root import main

__all__ = ["main"]
