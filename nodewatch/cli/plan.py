"""`nodewatch plan`: what the controller would do now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.table import table


@click.command(epilog="Examples: `nodewatch plan`, `nodewatch plan --as-if-acting` before the mode is changed to act.")
@click.option("--as-if-acting", is_flag=True, help='In observe mode: what mode = "act" would do.')
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
def plan(as_if_acting: bool, as_json: bool, socket: Path) -> None:
    """What the planner would do at this moment, and what it holds back and why. Nothing is done."""
    answer = ask(socket, {"ask": "plan", "as_if_acting": as_if_acting})
    click.echo(json.dumps(answer) if as_json else render(answer))


def render(answer: Mapping[str, Any]) -> str:
    """The plan as text."""
    as_if = ", as if it were act" if answer["as_if_acting"] else ""
    parts = [f"mode {answer['mode']}{as_if}"]
    parts += [f"would {item['text']}" for item in answer["actions"]] or ["nothing is to be done now"]
    for case in answer["cases"]:
        parts.append(f"case  {case['case']}: {case['rung']}, {case['step'].replace('_', ' ')}: {case['why']}")
        parts += [f"      but {case['note']}"] if case["note"] else []
    if answer["held"]:
        parts += ["", table(("HELD BACK", "WHY"), [(item["subject"], item["why"]) for item in answer["held"]])]
    return "\n".join(parts)
