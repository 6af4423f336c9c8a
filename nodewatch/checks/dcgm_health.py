"""Incidents that DCGM's background watches report, graded by what their texts say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.checks._api import Phase, check
from nodewatch.errors import SensorError
from nodewatch.knowledge.dcgm import XID_ERROR, Judgement, id_of, judge, xid_in
from nodewatch.model.gpu_samples import DcgmHealthSample, DcgmIncident
from nodewatch.model.health import Finding, Remedy, Severity

_MAX_TEXT = 400


@check(reads=DcgmHealthSample, phases=Phase.PERIODIC | Phase.EPILOG, every_s=60.0)
def dcgm_health(sample: DcgmHealthSample) -> Iterator[Finding]:
    """`gpu.dcgm.<error>` or `config.<error>` for each incident; a warning of DCGM's is never more than a warning.

    A failure whose text is not known is degraded and needs a human: fail closed. Healthy means that no watch that is on found
    an incident; it proves no more. Raises SensorError when nothing is wrong and the report proves nothing: it has no overall
    health, a word that nobody described, or no watch is on.
    """
    seen: set[tuple[str, str]] = set()
    for incident in sample.incidents:
        if incident.health in ("warning", "failure"):
            finding = _finding(incident)
            if finding.identity not in seen:
                seen.add(finding.identity)
                yield finding
    if not seen and sample.overall in ("warning", "failure"):
        yield _finding(DcgmIncident(group="GPU", entity=None, system="", health=sample.overall))
    elif not seen:
        _prove(sample)


def _prove(sample: DcgmHealthSample) -> None:
    if sample.watches and not any(is_on for _, is_on in sample.watches):
        raise SensorError("DCGM watches nothing: switch the watches on with dcgmi health -s a")
    if not sample.overall:
        raise SensorError("the report says what is watched and not how it is: run dcgmi health -c -j")
    if sample.overall == "unknown" or any(incident.health == "unknown" for incident in sample.incidents):
        raise SensorError("DCGM's health report has a state that is none of Healthy, Warning and Failure: look at it")


def _finding(incident: DcgmIncident) -> Finding:
    judgement = _judge(incident)
    group = re.sub(r"[^a-z0-9]+", "", incident.group.lower()) or "gpu"
    severity = judgement.severity
    severity = max(severity, Severity.WARN) if incident.health == "failure" else min(severity, Severity.WARN)
    family = "config" if judgement.is_configuration else f"{group}.dcgm"
    return Finding(
        fault=f"{family}.{judgement.name}",
        subject=f"{group}s" if incident.entity is None else f"{group}-{incident.entity}",
        severity=severity,
        remedy=judgement.remedy,
        evidence={
            "system": incident.system,
            "health": incident.health,
            "entity_group": incident.group,
            "entity_id": incident.entity,
            "text": incident.text[:_MAX_TEXT],
            "why": judgement.why,
            "source": "dcgmi health",
        },
    )


def _judge(incident: DcgmIncident) -> Judgement:
    number = incident.error_id if incident.error_id is not None else id_of(incident.text)
    if number in (None, XID_ERROR) and (xid := xid_in(incident.text)) is not None:
        return xid
    known = judge(number, None)
    if known is not None:
        return known
    system = re.sub(r"[^a-z0-9]+", "_", incident.system.lower().removesuffix(" system")).strip("_")
    return Judgement(
        name=f"health_{system}" if system else "health",
        severity=Severity.DEGRADED,
        remedy=Remedy.HUMAN,
        why="DCGM says failure in words that nobody described: fail closed, a person reads it.",
    )
