"""`nodewatch check`: have nodes validate themselves now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nodewatch.cli.ask import DEFAULT_SOCKET, ask
from nodewatch.cli.follow import follow
from nodewatch.cli.table import table


@click.command(
    epilog="Exit code: 0 all passed, 1 a check failed, 2 it could not be told or asked. "
    "Examples: `nodewatch check n2`, `nodewatch check --deep 'n[1-4]'`, `nodewatch check --deep n2 --json`."
)
@click.argument("nodes", nargs=-1, required=True, metavar="HOSTLIST...")
@click.option("--deep", is_flag=True, help="DCGM, NCCL, EFA, CPU, memory and disk tests as well: minutes to hours.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Stay until the answers are there.")
@click.option("--withdraw", is_flag=True, help="Take back what was asked for and has not begun.")
@click.option("--json", "as_json", is_flag=True, help="The answers as one JSON object.")
@click.option("--socket", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, show_default=True)
@click.pass_context
def check(
    ctx: click.Context,
    nodes: tuple[str, ...],
    deep: bool,
    wait: bool,
    withdraw: bool,
    as_json: bool,
    socket: Path,
) -> None:
    """Have nodes read everything anew, and with --deep run the long diagnostics as well.

    Deep checks wait until a node is empty and give way to a job that starts there; they are then begun again. What
    they find counts like any other finding: a node that fails them is repaired.
    """
    if withdraw:
        answer = ask(socket, {"ask": "withdraw_check", "nodes": list(nodes)})
        click.echo(
            json.dumps(answer) if as_json else f"withdrawn: {', '.join(answer['withdrawn']) or 'nothing waited'}"
        )
        return
    asked = ask(socket, {"ask": "check", "nodes": list(nodes), "suite": "deep" if deep else "quick"})
    if not wait:
        click.echo(
            json.dumps(asked) if as_json else f"asked for {asked['suite']} checks of {', '.join(asked['nodes'])}"
        )
        return
    question = {"ask": "check_status", "keys": asked["keys"]}
    checks: list[dict[str, Any]] = follow(lambda: ask(socket, question)["checks"], now=_now, shows=not as_json)
    click.echo(json.dumps({"checks": checks}) if as_json else render(checks))
    ctx.exit(exit_code(checks))


def exit_code(checks: Sequence[Mapping[str, Any]]) -> int:
    """0 when all passed, 1 when one failed, else 2."""
    answers = [each.get("passed") for each in checks]
    if any(answer is False for answer in answers):
        return 1
    return 0 if all(answer is True for answer in answers) else 2


def render(checks: Sequence[Mapping[str, Any]]) -> str:
    """The answers as text: a line a node, then what was found, what could not be told and what was not run."""
    words = {True: "passed", False: "FAILED", None: "could not be told"}
    rows = []
    for each in checks:
        results = each.get("results") or ()
        said = [result for result in results if result["status"] in ("ok", "findings")]
        state = words[each.get("passed")] if each["state"] == "ended" else each["why"]
        rows.append((each["node"], state, f"{each.get('seconds') or 0:.1f} s", f"{len(said)} of {len(results)}"))
    parts = [table(("NODE", "ANSWER", "TOOK", "CHECKS THAT SAID"), rows)]
    details = []
    for each in checks:
        for result in each.get("results") or ():
            details += [
                (
                    each["node"],
                    result["check"],
                    f["severity"],
                    f"{f['fault']} on {f['subject']}",
                    f"remedy {f['remedy']}",
                )
                for f in result["findings"]
            ]
            if result["status"] == "unknown":
                details.append((each["node"], result["check"], "unknown", str(result["error"]), ""))
        details += [(each["node"], tool, "not run", why, "") for tool, why in each.get("not_run") or ()]
    if details:
        parts += ["", table(("NODE", "CHECK", "SEVERITY", "WHAT", ""), details)]
    return "\n".join(parts)


def _now(checks: Sequence[Mapping[str, Any]]) -> str | None:
    """What is waited for; None when every check has ended."""
    lines = [f"{each['node']}: {each['why']}" for each in checks if each["state"] in ("waiting", "running")]
    if not lines:
        return None
    return f"{len(checks) - len(lines)} of {len(checks)} ended; {'; '.join(lines[:3])}" + (
        " ..." if len(lines) > 3 else ""
    )
