"""`nodewatch replay-journal`: what other rules would have decided over a recorded journal."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from nodewatch.cli.clock import stamp
from nodewatch.config.controller import load_controller_config
from nodewatch.errors import JournalError, NodewatchError
from nodewatch.journal.pieces import base_of, pieces, read
from nodewatch.model.ledger import Ledger
from nodewatch.model.records import Record
from nodewatch.policy.what_if import Difference, Replay


@click.command(
    name="replay-journal",
    epilog="Exit code: 0 the same decisions, 1 some differ, 2 it could not be read. "
    "Example: `nodewatch replay-journal --rules new.toml /var/lib/nodewatch-controller`.",
)
@click.option(
    "--rules",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A controller.toml with the other rules; without it, those that were in force: then nothing should differ.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.argument("journals", metavar="JOURNAL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_context
def replay_journal(ctx: click.Context, rules: Path | None, as_json: bool, journals: Sequence[Path]) -> None:
    """Plan again at each moment at which the controller looked, and print the decisions that would differ.

    JOURNAL is a journal's file, or the state directory for all of its files. Each difference is told once, when it first
    shows. The past stays as it was: what would have followed from another decision is not played on.
    """
    try:
        other = load_controller_config(rules).rules if rules is not None else None
        files = _files(journals)
        replay = Replay(ledger=base_of(files[0]) or Ledger(), rules=other)
        differences = list(_understood(replay, files))
        if not replay.looks:
            raise JournalError(
                f"{files[-1]} holds no picture of what the controller saw: it is of an older release, or too short"
            )
    except NodewatchError as error:
        click.echo(f"nodewatch: {error}", err=True)
        ctx.exit(2)
    if as_json:
        counts = {"looks": replay.looks, "decisions": replay.decisions, "skipped": replay.skipped}
        click.echo(json.dumps({**counts, "differences": [dataclasses.asdict(each) for each in differences]}))
    else:
        click.echo(render(differences, replay))
    ctx.exit(1 if differences else 0)


def render(differences: Sequence[Difference], replay: Replay) -> str:
    """The differences as text."""
    lines = []
    for each in differences:
        at = stamp(each.at)
        lines += [f"{at}  - {text}" for text in each.only_then]
        lines += [f"{at}  + {text}" for text in each.only_now]
    count = f"{replay.decisions} decisions at {replay.looks} looks"
    skipped = f", {replay.skipped} looks could not be judged" if replay.skipped else ""
    told = "the same decisions" if not differences else "- was decided and would not be, + would be and was not"
    return "\n".join([*lines, f"{count}{skipped}: {told}"])


def _understood(replay: Replay, files: Sequence[Path]) -> Iterator[Difference]:
    try:
        yield from replay.differences(_records(files))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise JournalError(f"{files[0]}: a record cannot be understood ({error!r})") from error


def _records(files: Sequence[Path]) -> Iterator[Record]:
    number = 0
    for record in itertools.chain.from_iterable(read(path) for path in files):
        # The same file may have been named twice, or hold a record that a later one has too.
        if record.number > number:
            number = record.number
            yield record


def _files(journals: Sequence[Path]) -> list[Path]:
    found: dict[Path, int] = {}
    for journal in journals:
        paths = [piece.path for piece in pieces(journal / "journal.jsonl")] if journal.is_dir() else [journal]
        for path in paths:
            if not path.exists():
                raise JournalError(f"{path} does not exist")
            first = next((record.number for record in read(path)), None)
            if first is not None:
                found[path] = first
    if not found:
        raise JournalError(f"{', '.join(map(str, journals))}: there is no record in it")
    return sorted(found, key=lambda path: found[path])
