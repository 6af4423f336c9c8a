"""`nodewatch simulate`: weeks of a cluster in minutes, to see what a policy does before it does it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from nodewatch.config.controller import load_controller_config
from nodewatch.testing.sim_faults import FaultMix, load_fault_mix
from nodewatch.testing.sim_report import Report, Tally
from nodewatch.testing.simulation import Simulation


@click.command(
    epilog="Exit code: 0 all invariants held, 1 one was broken. Example: `nodewatch simulate --nodes 2000 --days 7`."
)
@click.option("--nodes", type=click.IntRange(10, 200_000), default=1000, show_default=True)
@click.option("--days", type=click.FloatRange(0.01, 3650), default=7.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same history.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A controller.toml: its [policy], and its [[groups]] in place of --nodes where it has any.",
)
@click.option(
    "--faults", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file with other rates of faults."
)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def simulate(
    ctx: click.Context, nodes: int, days: float, seed: int, config: Path | None, faults: Path | None, as_json: bool
) -> None:
    """Run the planner over simulated weeks with a realistic mix of faults, and say what came of it. Nothing real is touched."""
    rules = load_controller_config(config).rules if config is not None else None
    mix = load_fault_mix(faults) if faults is not None else FaultMix()
    report = Simulation(nodes=nodes, days=days, seed=seed, rules=rules, mix=mix, progress=_progress).run()
    if _is_terminal():
        click.echo("", err=True)
    click.echo(json.dumps(report.to_json()) if as_json else render(report))
    ctx.exit(1 if report.broken else 0)


def render(report: Report) -> str:
    """The report as text."""
    figures = report.figures
    lines = [
        f"{figures['nodes']} nodes, {figures['days']:g} days: {figures['wall_s']:g} s, {figures['cpu_s']:g} s of them at work",
        f"availability            {100 * figures['availability']:.3f} % of node hours in service (or a warm spare)",
        f"faults                  {_counts(figures['faults'])}",
        f"storms                  {figures['storms']}, with {figures['storm_reports']} reports",
        f"judged                  {_counts(figures['judgements'])}",
        f"jobs requeued           {figures['jobs_requeued']}, by Slurm at a node's end {figures['jobs_requeued_by_slurm']}",
        f"job runs again after    {_spread(figures['job_back_s'])}",
        f"machine is back after   {_spread(figures['machine_back_s'])}",
        f"replacements            {figures['replacements']}, repaired by hand {figures['repaired_by_hand']}",
        f"still open              {_counts(figures['open_cases'])}",
        f"one look of the planner {_spread(figures['plan_s'], 1000, 'ms')}, {figures['ticks']} ticks",
        f"nodes wrongly touched   {figures['nodes_wrongly_touched']}",
        f"of storms, too early    {figures['storm_nodes_touched_before_it_showed']} nodes, before the storm showed",
    ]
    lines += [f"BROKEN  {sentence}" for sentence in report.broken] or ["all invariants held"]
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _spread(values: dict[str, Any], factor: float = 1.0, unit: str = "s") -> str:
    if not values["count"]:
        return "never"
    median, most, last = (values[name] * factor for name in ("median", "p90", "p99"))
    return f"{median:.0f} {unit} in the median, 90 of 100 within {most:.0f} {unit}, 99 within {last:.0f} {unit}"


def _progress(share: float, tally: Tally) -> None:
    if _is_terminal():
        click.echo(
            f"\r{100 * share:3.0f} %  {tally.ticks} ticks, {sum(tally.faults.values())} faults", err=True, nl=False
        )


def _is_terminal() -> bool:
    return sys.stderr.isatty()
