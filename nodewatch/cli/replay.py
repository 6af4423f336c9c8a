"""`nodewatch replay`: the checks on a recording of what a tool said, or of a tree of files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nodewatch.checks._api import CheckSpec, load_checks
from nodewatch.config.instance_types import DEFAULT, load_learnt
from nodewatch.errors import NodewatchError
from nodewatch.model.health import Finding, Severity
from nodewatch.sensors.recorded import _api as recorded

_MAX_FINDINGS = 10_000
"""A document may name any number of parts; what is printed has to end somewhere."""


@click.command(epilog="Exit code: 0 ok, 1 findings, 2 it could not be evaluated.")
@click.option("--sensor", required=True, metavar="SENSOR", help="Which tool or tree it is of, such as kmsg or dcgm.")
@click.option("--instance-type", default="", metavar="TYPE", help="What to expect of the machine, such as p5.48xlarge.")
@click.option(
    "--previous",
    type=click.Path(path_type=Path),
    metavar="FILE_OR_DIR",
    help="An earlier recording of the same: counters are judged by their rate then.",
)
@click.option("--interval", type=float, metavar="SECONDS", help="How long before this one --previous was taken.")
@click.argument("recording", metavar="FILE_OR_DIR|-", type=click.Path(path_type=Path))
@click.pass_context
def replay(
    ctx: click.Context,
    sensor: str,
    instance_type: str,
    previous: Path | None,
    interval: float | None,
    recording: Path,
) -> None:
    """Judge a recording as the agent would judge the machine, and print one JSON document.

    The status is `findings` when one of them is a warning or worse; information alone is listed under the status `ok`. A
    recording that cannot be understood is `unknown`, unless what was understood before is a finding of degraded or worse.
    """
    verdict = judge(sensor, instance_type, recording, previous, interval)
    click.echo(json.dumps(verdict, default=str))
    ctx.exit({"ok": 0, "findings": 1}.get(verdict["status"], 2))


def judge(
    sensor: str, instance_type: str, path: Path, previous: Path | None = None, interval_s: float | None = None
) -> dict[str, Any]:
    """The document that is printed. Never raises, whatever the recording holds."""
    merged = _Merged()
    try:
        load = recorded.loader(sensor)
        if (previous is None) != (interval_s is None):
            raise NodewatchError(
                "--previous and --interval go together: a rate takes two readings and the time between"
            )
        if interval_s is not None and not 0 < interval_s < 1e9:
            raise NodewatchError(f"--interval is {interval_s}: use a number of seconds above 0")
        specs = load_checks()
        load_learnt(DEFAULT)
        recording = recorded.Recording(path=path, instance_type=instance_type, previous=previous, interval_s=interval_s)
        is_empty = True
        for sample in load(recording):
            is_empty = False
            _run(specs, sample, merged)
        if is_empty:
            raise NodewatchError(f"{path} holds nothing that the sensor {sensor} reads")
    except NodewatchError as error:
        merged.errors.setdefault(str(error))
    # A parser's own mistake must not look like a verdict on the machine, nor end in a traceback.
    except Exception as error:
        merged.errors.setdefault(f"{path} could not be evaluated ({type(error).__name__}: {error}): please report it")
    return merged.document(sensor)


def _run(specs: Mapping[str, CheckSpec], sample: object, merged: _Merged) -> None:
    fitting = [spec for spec in specs.values() if isinstance(sample, spec.reads)]
    if not fitting:
        raise NodewatchError(f"no check reads what this sensor yields ({type(sample).__name__})")
    for spec in fitting:
        try:
            merged.add(spec.run(sample))
        except NodewatchError as error:
            merged.errors.setdefault(f"{spec.name}: {error}")
        except Exception as error:
            merged.errors.setdefault(f"{spec.name}: the check failed with {type(error).__name__}: {error}")


class _Merged:
    """Findings by identity, the worst of each kept, and how often it was found; errors in order, each once."""

    def __init__(self) -> None:
        self.errors: dict[str, None] = {}
        self._worst: dict[tuple[str, str], Finding] = {}
        self._count: dict[tuple[str, str], int] = {}

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            key = finding.identity
            before = self._worst.get(key)
            if before is None and len(self._worst) >= _MAX_FINDINGS:
                self.errors.setdefault(f"more than {_MAX_FINDINGS} different findings: the others were left out")
                continue
            count = finding.evidence.get("count", 1)
            self._count[key] = self._count.get(key, 0) + (count if isinstance(count, int) else 1)
            if before is None or (finding.severity, finding.remedy) > (before.severity, before.remedy):
                self._worst[key] = finding

    def document(self, sensor: str) -> dict[str, Any]:
        findings = sorted(self._worst.values(), key=lambda f: (-f.severity, -f.remedy, f.identity))
        worst = findings[0].severity if findings else Severity.INFO
        status = "findings" if worst >= Severity.WARN else "ok"
        if self.errors and worst < Severity.DEGRADED:
            status = "unknown"
        return {
            "sensor": sensor,
            "status": status,
            "findings": [self._counted(finding).to_json() for finding in findings],
            "error": "; ".join(self.errors) or None,
        }

    def _counted(self, finding: Finding) -> Finding:
        count = self._count[finding.identity]
        if count == 1 and "count" not in finding.evidence:
            return finding
        return replace(finding, evidence={**finding.evidence, "count": count})
