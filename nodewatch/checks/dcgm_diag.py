"""Tests of DCGM's active diagnostic that failed, graded by DCGM's own severities and error ids."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nodewatch.checks._api import Phase, check
from nodewatch.knowledge.dcgm import SHARED_CATEGORIES, XID_ERROR, Judgement, id_of, judge, xid_in
from nodewatch.model.gpu_samples import DcgmDiagSample, DcgmError, DcgmResult
from nodewatch.model.health import Finding, Remedy, Severity

_NAMES_GPU = re.compile(r"\bGPU\s?(?P<id>[0-9]{1,3})\b")
_MAX_TEXTS = 5
_MAX_TEXT = 400


@check(reads=DcgmDiagSample, phases=Phase.EPILOG | Phase.DEEP, every_s=3600.0)
def dcgm_diag(sample: DcgmDiagSample) -> Iterator[Finding]:
    """`gpu.dcgm.<error>` for each GPU and error of a failed test, `config.<error>` where DCGM says that it is configuration.

    A failed test without severity and known id or text is degraded and needs a human: fail closed. A warning, and an error
    beside a pass (DCGM issue 284), warn. An error of a software category that every GPU has alike is the driver or library
    that they share, never eight broken GPUs, and warns. Whether a run without findings is a pass, dcgm_coverage says.
    """
    yield from _merge(_findings(sample))


def _findings(sample: DcgmDiagSample) -> Iterator[Finding]:
    told = {result.test for result in sample.results if not result.is_summary and result.status in ("fail", "warn")}
    for result in sample.results:
        # A summary repeats what stands with the entities; it counts where none of them says so.
        if result.is_summary and result.test in told and not result.errors:
            continue
        if result.status == "fail" and not result.errors:
            yield _finding(sample, result, DcgmError(text=""))
        if result.status in ("fail", "warn", "pass", "unknown"):
            for error in result.errors:
                if not (result.is_summary and _stands_with_an_entity(sample, result, error)):
                    yield _finding(sample, result, error)
        if result.status == "warn" and not result.errors:
            yield _finding(sample, result, DcgmError(text=""))


def _stands_with_an_entity(sample: DcgmDiagSample, summary: DcgmResult, error: DcgmError) -> bool:
    """Whether a result of the same test names the entity of the error that its summary repeats."""
    return any(
        (other.error_id, other.text) == (error.error_id, error.text)
        for result in sample.results
        if result.test == summary.test and not result.is_summary
        for other in result.errors
    )


def _finding(sample: DcgmDiagSample, result: DcgmResult, error: DcgmError) -> Finding:
    judgement = _judge(result, error)
    severity, remedy = judgement.severity, judgement.remedy
    # A failed test is worth a warning whatever its error amounts to; anything but a failed test is worth no more.
    severity = max(severity, Severity.WARN) if result.status == "fail" else min(severity, Severity.WARN)
    if severity > Severity.WARN and judgement.category in SHARED_CATEGORIES and _all_alike(sample, result, error):
        severity, remedy = Severity.WARN, Remedy.RESTART_SERVICE
    subject, ids = _subject(sample, result, error)
    family = "config" if judgement.is_configuration else f"{_group(result)}.dcgm"
    return Finding(
        fault=f"{family}.{judgement.name}",
        subject=subject,
        severity=severity,
        remedy=remedy,
        evidence={
            "test": result.test,
            "category": result.category,
            "status": result.said,
            "entity_group": result.group,
            "entity_ids": list(ids),
            "serial": sample.serial_of(result.group, ids[0]) if len(ids) == 1 else None,
            "error_id": error.error_id,
            "error_severity": error.severity,
            "error_category": error.category,
            "warnings": [error.text[:_MAX_TEXT]] if error.text else [],
            "why": judgement.why,
            "dcgm_version": sample.version,
            "driver_version": sample.driver_version,
            "source": "dcgmi diag",
        },
    )


def _judge(result: DcgmResult, error: DcgmError) -> Judgement:
    error_id = error.error_id
    # 0 and 1 are DCGM's words for "not said": the sentence may still say it.
    if error_id in (None, 0, 1, 2):
        error_id = id_of(error.text, result.test) or error_id
    if error_id == XID_ERROR and (xid := xid_in(error.text)) is not None:
        return xid
    judgement = judge(error_id, error.severity, error.category)
    if judgement is not None and (error.severity is not None or error_id not in (0, 1, 2)):
        return judgement
    return Judgement(
        name=re.sub(r"[^a-z0-9]+", "_", result.test.lower()).strip("_") or "test",
        severity=Severity.DEGRADED,
        remedy=Remedy.HUMAN,
        why="A test failed, and DCGM gives neither a severity nor an error that is known: fail closed, a person reads it.",
        category=error.category,
    )


def _all_alike(sample: DcgmDiagSample, result: DcgmResult, error: DcgmError) -> bool:
    """Whether every entity that the test ran on, two or more, has the same error."""
    of_test = [each for each in sample.results if each.test == result.test and not each.is_summary and each.ids]
    ran = {number for each in of_test if each.status != "skip" for number in each.ids}
    same = {
        number
        for each in of_test
        if each.status == "fail"
        for number in each.ids
        if any((it.error_id, it.severity) == (error.error_id, error.severity) for it in each.errors)
    }
    return len(ran) > 1 and same == ran


def _subject(sample: DcgmDiagSample, result: DcgmResult, error: DcgmError) -> tuple[str, Sequence[int]]:
    ids: Sequence[int] = result.ids
    if len(ids) != 1:
        named = {int(found["id"]) for found in _NAMES_GPU.finditer(error.text)}
        if error.gpu is not None:
            named = {error.gpu}
        if len(named) == 1 and (not ids or named <= set(ids)):
            ids = sorted(named)
    if len(ids) == 1:
        return sample.serial_of(result.group, ids[0]) or f"{_group(result)}-{ids[0]}", ids
    return f"{_group(result)}s", ids


def _group(result: DcgmResult) -> str:
    return re.sub(r"[^a-z0-9]+", "", result.group.lower()) or "gpu"


def _merge(findings: Iterator[Finding]) -> Iterator[Finding]:
    """One finding for each fault and part, with the texts of all of them: the same error comes back in test after test."""
    kept: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        before = kept.get(finding.identity)
        if before is None:
            kept[finding.identity] = finding
            continue
        texts = list(dict.fromkeys([*before.evidence["warnings"], *finding.evidence["warnings"]]))[:_MAX_TEXTS]
        worst = max(before, finding, key=lambda each: (each.severity, each.remedy))
        kept[finding.identity] = replace(worst, evidence={**worst.evidence, "warnings": texts})
    yield from kept.values()
