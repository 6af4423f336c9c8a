"""`nodewatch check-pairs`: NCCL between idle nodes, two at a time, until the slow one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.follow import follow
from nodewatch.cli.table import table

_WORDS = {"good": "good", "culprit": "CULPRIT", "untold": "could not be told"}


@click.command(
    "check-pairs",
    epilog="Exit code: 0 all are good, 1 a node was named, 2 it could not be told of some, or asked. "
    "Examples: `nodewatch check-pairs 'n[1-8]'`, `nodewatch check-pairs n1 n2 n3 n4 --json`.",
)
@click.argument("nodes", nargs=-1, required=True, metavar="HOSTLIST...")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Stay until the test has ended.")
@click.option("--withdraw", is_flag=True, help="End the tests that hold any of these nodes; nobody is blamed.")
@click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
@click.pass_context
def check_pairs(
    ctx: click.Context, nodes: tuple[str, ...], wait: bool, withdraw: bool, as_json: bool, socket: Path
) -> None:
    """Run NCCL between idle nodes, two at a time, and name the node that is slow with more than one good partner.

    Each run is a job that waits for idle nodes and ends as soon as anybody's job waits for them. A node that is named is
    repaired like any other with a finding; a slow way between two good nodes is told, and nobody is blamed.
    """
    if withdraw:
        answer = ask(socket, {"ask": "withdraw_pairs", "nodes": list(nodes)})
        names = ", ".join(answer["withdrawn"])
        click.echo(json.dumps(answer) if as_json else f"withdrawn: {names or 'nothing was under way'}")
        return
    asked = ask(socket, {"ask": "check_pairs", "nodes": list(nodes)})
    if not wait:
        click.echo(json.dumps(asked) if as_json else f"asked for a pair test of {', '.join(asked['nodes'])}")
        return
    question = {"ask": "pairs_status", "key": asked["key"]}
    told = follow(lambda: ask(socket, question), now=_now, shows=not as_json)
    click.echo(json.dumps(told) if as_json else render(told))
    ctx.exit(exit_code(told))


def exit_code(told: Mapping[str, Any]) -> int:
    """1 when a node was named, 0 when all are good, else 2."""
    words = set(told["nodes"].values())
    if "culprit" in words:
        return 1
    return 0 if words == {"good"} else 2


def render(told: Mapping[str, Any]) -> str:
    """The runs, the verdict of each node, and what it means."""
    runs = [
        (
            " - ".join(run["nodes"]),
            str(run["round"]),
            run["result"],
            _number(run["size"]),
            _number(run["busbw_gbps"]),
            _number(run["floor_gbps"]),
            " ".join(word for word in (run["floor_source"], run["why"]) if word),
        )
        for run in told["runs"]
    ]
    parts = []
    if runs:
        parts += [table(("PAIR", "ROUND", "RESULT", "BYTES", "GB/S", "FLOOR", "WHY"), runs), ""]
    if told["nodes"]:
        verdicts = [(node, _WORDS[word]) for node, word in told["nodes"].items()]
        parts += [table(("NODE", "VERDICT"), verdicts), ""]
    return "\n".join([*parts, told["why"]])


def _number(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:g}"


def _now(told: Mapping[str, Any]) -> str | None:
    """What is waited for; None when the test has ended."""
    return None if told["state"] in ("ended", "gone") else f"{told['state']}: {told['why']}"
