"""`nodewatch explain`: the story of one node or job."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.clock import stamp
from nodewatch.cli.pause import seconds_of
from nodewatch.config.controller import ControllerConfig, load_controller_config
from nodewatch.errors import ChannelError, JournalError
from nodewatch.journal.pieces import pieces, read_all
from nodewatch.journal.story import sentences, words_about

_CONFIG = Path("/etc/nodewatch/controller.toml")
_TOLD_AFTER_S = 1.0


@click.command(
    epilog="Examples: `nodewatch explain n2`, `nodewatch explain n2 --since 30d`, `nodewatch explain 17 --json`."
)
@click.argument("subject", metavar="NODE|JOB")
@click.option(
    "--since",
    "span",
    metavar="TIME",
    help="Read the journal's older files too, back to so long ago: 12h, 30d. Needs to be allowed to read them.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    default=_CONFIG,
    show_default=True,
    help="The controller's configuration, for where its journal is.",
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Read the journal in this directory instead.")
def explain(subject: str, span: str | None, as_json: bool, socket: Path, config: Path, state_dir: Path | None) -> None:
    """What happened to a node or a job, what was done, what is held back, and why.

    The controller tells what it remembers, the last few thousand records. With --since the story is read from the journal, of
    a node that is gone or without a controller too.
    """
    question = {"ask": "explain", "subject": subject}
    if span is None:
        answer = ask(socket, question)
    else:
        past = story_since(journal_of(config, state_dir), subject, time.time() - seconds_of(span))
        try:
            answer = {**ask(socket, question), "story": past, "remembered_since": None}
        except ChannelError as error:
            # Pauses of the whole cluster are of every node's story, and of one that never was.
            if all(entry["text"].startswith("repairs were ") for entry in past):
                raise
            answer = {"kind": "past", "subject": subject, "now": None, "why": str(error), "story": past}
    click.echo(json.dumps(answer) if as_json else render(answer))


def journal_of(config: Path, state_dir: Path | None) -> Path:
    """The journal that the configuration names. Raises JournalError where there is none, or ConfigError."""
    settings = load_controller_config(config) if config.exists() or config != _CONFIG else ControllerConfig()
    journal = (state_dir or settings.state_dir) / settings.journal.name
    if not pieces(journal):
        raise JournalError(f"{journal} does not exist: name the controller's state directory with --state-dir")
    return journal


def story_since(journal: Path, subject: str, since: float) -> list[dict[str, Any]]:
    """The story of a node or job from `since` (seconds since the epoch) on, in all files of the journal.

    Raises JournalError.
    """
    began = time.monotonic()
    is_terminal = sys.stderr.isatty()

    def tell(place: int, count: int) -> None:
        # Of a search that takes no time nothing is to be said.
        if time.monotonic() - began >= _TOLD_AFTER_S:
            line = f"reading file {place} of {count} of the journal"
            click.echo(f"\r\033[K{line}" if is_terminal else line, err=True, nl=not is_terminal)

    records = read_all(journal, holding=words_about(subject), since=since, tell=tell)
    is_job = subject.isascii() and subject.isdigit() and len(subject) <= 18
    lately = (record for record in records if record.at >= since)
    told = sentences(lately, job_id=int(subject)) if is_job else sentences(lately, node=subject)
    if is_terminal and time.monotonic() - began >= _TOLD_AFTER_S:
        click.echo("\r\033[K", err=True, nl=False)
    return told


def render(answer: Mapping[str, Any]) -> str:
    """The answer as text."""
    now = answer["now"]
    lines = []
    if answer["kind"] == "past":
        return "\n".join([f"{answer['subject']}: its past alone ({answer['why']})", "", *_story(answer["story"])])
    if answer["kind"] == "node":
        spare = ", held as a warm spare" if now["is_spare"] else ""
        lines.append(
            f"node {now['node']}: {'+'.join(now['slurm'] or ['not in Slurm']).lower()}{spare}, {now['health']}"
        )
        lines += [f"  machine   {now['instance'] or 'unknown'} at {now['address'] or 'no address'}"]
        lines += [f"  reason    {now['reason']}"] if now["reason"] else []
        lines += [f"  finding   {now['finding']}"] if now["finding"] else []
        lines += [f"  unknown   {unknown}" for unknown in now["unknown"]]
        lines += [f"  bootstrap failed: {now['bootstrap']}"] if now["bootstrap"] else []
        for case in now["cases"]:
            lines.append(f"  repair    {case['rung']}, {case['step'].replace('_', ' ')}: {case['why']}")
            lines += [f"  in vain   {one['text']}" for one in case["tries"]]
            lines += [f"  but       {case['note']}"] if case["note"] else []
        lines += [f"  checking  {now['checking']}"] if now["checking"] else []
        if now["tested"]:
            lines.append(
                f"  deep      {'passed' if now['tested']['passed'] else 'failed'} at {stamp(now['tested']['at'])}"
            )
        lines += [f"  jobs      {', '.join(map(str, now['jobs']))}"] if now["jobs"] else []
    else:
        state = "+".join(now["states"]).lower() or "no longer in Slurm's memory"
        lines.append(f"job {now['job']} {now['name']}: {state} on {','.join(now['nodes']) or 'no nodes'}")
        if now["auto_resume"]:
            lines.append(f"  restarts  {now['restarts']} of {now['restarts_allowed']} used")
        else:
            lines.append("  restarts  none: it was submitted without --auto-resume")
        lines += [f"  kept off  {','.join(now['excluded'])}"] if now["excluded"] else []
        lines += [f"  judged    {now['cause']}: {now['judged']}"] if now["judged"] else []
    lines += [f"  held      {why}" for why in now["held"]]
    lines.append("")
    lines += _story(answer["story"])
    since = answer["remembered_since"]
    if since is not None:
        lines.append(f"before {stamp(since)}: nodewatch explain {answer['subject']} --since 30d")
    elif not answer["story"]:
        lines.append("nothing has happened to it since the journal began")
    return "\n".join(lines)


def _story(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{stamp(entry['at'])}  {entry['text']}" for entry in entries]
