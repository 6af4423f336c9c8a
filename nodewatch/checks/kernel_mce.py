"""Hardware errors of memory and processor: EDAC, machine checks, firmware (GHES) and poisoned pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nodewatch.checks._api import Phase, check
from nodewatch.checks._kernel import Hit, Line, hits, mentioning, most_within
from nodewatch.model.health import Finding, Remedy, Severity
from nodewatch.model.samples import KmsgRecord, KmsgSample

_LINES = (
    Line(
        fault="host.memory_corrected",
        pattern=re.compile(r"EDAC (?P<subject>MC\d{1,4}): (?P<errors>\d{1,9}) CE "),
        severity=Severity.INFO,
    ),
    Line(
        fault="host.memory_uncorrected",
        pattern=re.compile(r"EDAC (?P<subject>MC\d{1,4}): (?P<errors>\d{1,9}) UE "),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
    ),
    Line(
        fault="host.memory_poisoned",
        pattern=re.compile(
            r"Memory failure: 0x[0-9a-f]+: (?P<outcome>recovery action .{0,80}|unhandlable page.{0,40})"
            r"|MCE: Killing .{1,40} due to hardware memory corruption|Uncorrected hardware memory error in user-access"
        ),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="memory",
    ),
    Line(
        fault="host.machine_check_fatal",
        pattern=re.compile(
            r"Fatal (?:local )?[Mm]achine check|Machine check: Processor context corrupt|PANIC: Fatal error"
        ),
        severity=Severity.FATAL,
        remedy=Remedy.REBOOT,
        subject="cpu",
    ),
    Line(
        fault="host.machine_check",
        pattern=re.compile(
            r"\[Hardware Error\]: CPU (?P<cpu>\d{1,5}): Machine Check(?: Exception)?: \S{1,10} Bank (?P<bank>\d{1,3}): "
            r"(?P<status>[0-9a-f]{16})"
        ),
        severity=Severity.INFO,
        subject="cpu",
    ),
    Line(
        fault="host.machine_check_uncorrected",
        pattern=re.compile(r"\[Hardware Error\]: (?:Uncorrected, |Machine Check Exception: Uncorrected)"),
        severity=Severity.DEGRADED,
        remedy=Remedy.REBOOT,
        subject="cpu",
    ),
    Line(
        fault="host.firmware_error",
        pattern=re.compile(r"\[Hardware Error\]: event severity: (?P<event>recoverable|fatal|corrected|info)"),
        severity=Severity.INFO,
        subject="firmware",
    ),
)
_STARTING_S = 60
"""Banks are read within the first seconds; a live error that firmware left to be polled comes after a job could have run."""
_UNCORRECTED = 1 << 61
"""MCi_STATUS.UC (Intel SDM volume 3B, 17.3.2.2; AMD64 APM volume 2, 9.3.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelMceThresholds:
    """When corrected errors are more than the noise that every large machine has."""

    corrected_per_minute: int = 10
    """So many corrected memory errors in one minute are a warning. mcelog's default page threshold is 10 in 24 h and only
    takes the page out of use; ten in a minute is a storm."""
    corrected_total: int = 100
    """So many in what is judged at once are a warning too: AWS tells operators of GPU machines 100 a day (field notes 6.3)."""


@check(reads=KmsgSample, phases=Phase.PERIODIC | Phase.DEEP, lasting=True, thresholds=KernelMceThresholds)
def kernel_mce(sample: KmsgSample, thresholds: KernelMceThresholds) -> Iterator[Finding]:
    """Corrected errors are information, at a high rate a warning; uncorrected ones are degraded and ask for a reboot.

    `host.memory_corrected`, `host.memory_uncorrected` and `host.memory_poisoned` on the memory, `host.machine_check...` on
    the processor, `host.firmware_error` for what firmware reported. A reboot takes bad pages out; the second time the
    ladder replaces the machine.
    """
    words = ("EDAC MC", "[Hardware Error]", "Memory failure: ", "MCE: Killing", "achine check", "hardware memory error")
    for hit in hits(sample, words, _LINES):
        if hit.line.fault == "host.memory_corrected":
            yield _corrected(hit, thresholds)
        elif hit.line.fault == "host.machine_check":
            yield _machine_check(hit)
        elif hit.line.fault == "host.firmware_error":
            yield _firmware(hit, is_old=bool(mentioning([*sample.recent, *sample.records], "BERT: Error records")))
        else:
            yield hit.finding()


def _corrected(hit: Hit, thresholds: KernelMceThresholds) -> Finding:
    errors = sum(int(found[1]) for record in hit.all if (found := re.search(r": (\d{1,9}) CE ", record.text)))
    lines = most_within(hit.all, 60.0)
    per_line = errors / max(1, len(hit.all))
    per_minute = None if lines is None else round(lines * per_line)
    many = errors >= thresholds.corrected_total or (per_minute or 0) >= thresholds.corrected_per_minute
    return hit.finding(Severity.WARN if many else Severity.INFO, errors=errors, errors_per_minute=per_minute)


def _machine_check(hit: Hit) -> Finding:
    uncorrected = [
        record
        for record in hit.records
        if (match := re.search(r"Bank \d{1,3}: ([0-9a-f]{16})", record.text)) and int(match[1], 16) & _UNCORRECTED
    ]
    if uncorrected and all(_is_of_previous_boot(record) for record in uncorrected):
        return hit.finding(Severity.WARN, is_uncorrected=True, is_of_previous_boot=True)
    if uncorrected:
        return hit.finding(Severity.DEGRADED, Remedy.REBOOT, is_uncorrected=True)
    return hit.finding(is_uncorrected=False)


def _is_of_previous_boot(record: KmsgRecord) -> bool:
    """Whether the kernel found the error in the banks as it started: the reset that was its remedy has been."""
    return (
        "Machine Check: 0 " in record.text
        and record.since_boot_us is not None
        and record.since_boot_us < _STARTING_S * 1_000_000
    )


def _firmware(hit: Hit, *, is_old: bool) -> Finding:
    text = " ".join(record.text for record in hit.records)
    if is_old:
        # Records of the boot before (BERT): the machine has been reset since, so they are no veto.
        return hit.finding(Severity.WARN, is_of_previous_boot=True)
    if "severity: fatal" in text:
        return hit.finding(Severity.DEGRADED, Remedy.REBOOT, event="fatal")
    if "severity: recoverable" in text:
        return hit.finding(Severity.WARN, event="recoverable")
    return hit.finding()
