"""A recorded kernel log: /dev/kmsg, dmesg in any of its forms, the journal's text or JSON, or a syslog file.

Only what the kernel said is handed on: a line of the journal that another program wrote may quote an Xid from last week.
Text without any time (`dmesg -t`) could be any text, so it is held back until the document proves to be a kernel log. The
document is read in blocks, so that neither its length nor that of a line decides how much memory it takes. Each boot in it
is a sample of its own: what two boots say at the same second is not of one event.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from nodewatch.errors import SensorError
from nodewatch.model.samples import KmsgRecord, KmsgSample
from nodewatch.sensors.kmsg import parse_record
from nodewatch.sensors.recorded._api import Recording

_BLOCK = 1 << 20
_MAX_LINE = 8192
"""The kernel's own bound on a record (CONSOLE_EXT_LOG_MAX): what is longer is judged by its beginning."""
_BATCH = 8000
_RECENT = 200
_HELD = 20000
"""Lines without a time that are held back until the document proves to be a kernel log."""
_MAX_BOOTS = 1000
"""A log of more boots is judged without regard to where one ends: each sample costs a round of all checks."""
_BACK_US = 1_000_000
"""CPUs write their records a little out of order; a step back of more is another boot."""
_KERNELISH_SHARE = 0.2
_BINARY_SHARE = 0.5

_DMESG = re.compile(
    r"(?:<(\d{1,3})>|(?:kern|user|mail|daemon|auth|syslog|authpriv|local\d) *:(\w+) *: *)?"
    r"\[ *(\d{1,12})\.(\d{1,9})(?: < *[\d.]+>)?\] ?(?:\[ *[TC]\d+\] ?)?(.*)",
    re.DOTALL | re.ASCII,
)
_PREFIXED = re.compile(r"(?:<(\d{1,3})>|(?:kern|user|daemon) *:(\w+) *: *)(?!\d+ )(.*)", re.DOTALL | re.ASCII)
_HUMAN = re.compile(
    r"(?:<\d{1,3}>|\w+ *:\w+ *: *)?\[([A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})\] ?(.*)", re.DOTALL
)
_SYSLOG = re.compile(
    r"(?:<\d{1,3}>(?:1 )?)?"
    r"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?"
    r"|(?:[A-Z][a-z]{2} )?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d| [A-Z]{3,5})?)"
    r" +(.*)",
    re.DOTALL,
)
_PROGRAM = re.compile(r"(?:(?!kernel: )\S+ )?([^\s:\[\]]+)(?:\[[^\]]*\])?: ?(.*)", re.DOTALL)
_RFC5424 = re.compile(r"\S+ kernel (?:\S+) (?:\S+) (?:-|\[[^\]]*\]) (.*)", re.DOTALL)
_MONOTONIC = re.compile(r"\[ *(\d{1,12})\.(\d{1,9})\] (.*)", re.DOTALL | re.ASCII)
_UNIX_TIME = re.compile(r"(\d{9,10}\.\d{1,6}) \S+ ([^\s:\[\]]+)(?:\[[^\]]*\])?: ?(.*)", re.DOTALL | re.ASCII)
_SHORT_HUMAN = re.compile(r"\[([A-Z][a-z]{2}) ?(\d{1,2}) (\d\d):(\d\d)\] ?(.*)", re.DOTALL | re.ASCII)
_DELTA = re.compile(r"\[ *\+(\d{1,9}\.\d{1,9})\] ?(.*)", re.DOTALL | re.ASCII)
_COLLECTED = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) (?:std(?:out|err) [FP] )?(?=\[|<\d|kern|\d+,\d+,\d)",
    re.ASCII,
)
_OUTPUT = re.compile(r"std(?:out|err) [FP] ")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_HOST_KERNEL = re.compile(r"\S+ kernel: ")
_HOST_PROGRAM = re.compile(r"\S+ [\w.@/-]+\[\d+\]: ")
_LEVELS = {w: n for n, w in enumerate(("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"))}
_FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "local")
_MARKER = re.compile(r"-- .* --$|-- (?:Logs|Journal) begin")
_BOOT = re.compile(r"-- (?:Boot|Reboot)\b")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_KERNELISH = re.compile(
    r"[A-Za-z][\w/.,+@()-]*(?: [\w/.,+@()#:-]+){0,3}: \S|BUG: |INFO: |Linux version |Call Trace|\{\d+\}\["
)
_KERNEL_WORD = re.compile(
    r"NVRM: |nvidia|Linux version |Command line: |BIOS-|ACPI: |pci |pcieport |PCI: |PM: |usb |EXT4-fs|XFS |nvme |ena |efa |"
    r"infiniband |mlx5_core |Lustre|LNet|EDAC |mce: |MCE: |Memory cgroup out|Out of memory: |oom-kill:|\S+ invoked oom-killer|"
    r"INFO: task |watchdog: |BUG: |Oops: |Kernel panic|RIP: |Call Trace|IPv6: |IPv4: |systemd\[1\]: |cgroup: |clocksource: |"
    r"rcu: |x86/|TCP: |NET: |scsi |sd |blk_update_request: |I/O error, dev |Buffer I/O error|JBD2: |md/|random: |smpboot: |"
    r"\{\d+\}\[Hardware Error\]|audit: |traps: |\S+\[\d+\]: segfault at |Memory failure: |SELinux: |CPU\d*: |AER: "
)


def load(recording: Recording) -> Iterator[KmsgSample]:
    """The kernel's records, a few thousand to a sample. Raises SensorError at the end of a document that is no kernel log."""
    reader = _Reader()
    with recording.open() as stream:
        try:
            for lines in _lines(stream):
                for line in lines:
                    if reader.begins_boot(line):
                        yield reader.sample(is_last_of_boot=True)
                    reader.take(line)
                if len(reader.records) >= _BATCH:
                    yield reader.sample()
        except OSError as error:
            raise SensorError(f"{recording.name} cannot be read: {error.strerror}") from error
    objection = reader.finish()
    # What was understood goes first: a fault in a log that is damaged beyond that is a fault all the same.
    yield reader.sample()
    if objection:
        raise SensorError(f"{recording.name} {objection}")


class _Reader:
    """Sorts lines into the kernel's records and the rest, and counts, for the word at the end on what the document is."""

    def __init__(self) -> None:
        self.records: list[KmsgRecord] = []
        self._recent: deque[KmsgRecord] = deque(maxlen=_RECENT)
        self._held: list[KmsgRecord] = []
        self._garbled = 0
        self._certain = 0
        self._plain = 0
        self._kernelish = 0
        self._words = 0
        self._programs = 0
        self._markers = 0
        self._binary = 0
        self._lines = 0
        self._is_empty = True
        self._boots = 0
        self._is_kernel = False
        """Whether the line before was the kernel's: its continuations are, and those of a program's message are not."""
        self._clock = 0.0
        """Of `dmesg -H`, which tells most lines' times as seconds after the line before."""

    def begins_boot(self, line: str) -> bool:
        """Whether `line` is the first of another boot than the records so far."""
        if not ("Linux version " in line[:120] or line.startswith("-- ")) or not (self.records or self._recent):
            return False
        if not _BOOT.match(line):
            record = _certain(line, line[:1])
            last = (self.records or self._recent)[-1].since_boot_us
            if record is None or record.since_boot_us is None or last is None or last - record.since_boot_us < _BACK_US:
                return False
        self._boots += 1
        return self._boots < _MAX_BOOTS

    def sample(self, *, is_last_of_boot: bool = False) -> KmsgSample:
        """What was read since the last one. The first of the next boot has nothing before it."""
        sample = KmsgSample(records=tuple(self.records), garbled=self._garbled, recent=tuple(self._recent))
        if is_last_of_boot:
            self._recent.clear()
        else:
            self._recent.extend(self.records)
        self.records = []
        self._garbled = 0
        return sample

    def take(self, line: str) -> None:
        self._is_empty = False
        # A syslog file after a power cut has a run of NULs where the next line begins.
        if "\0" in line:
            line = line.replace("\0", "")
        if "\x1b" in line:
            line = _ESCAPE.sub("", line)
        line = line.rstrip("\r\n")
        first = line[:1]
        if first in ("", " ", "\t"):
            self._take_continuation(line.strip())
            return
        self._lines += 1
        record = _certain(line, first) or self._relative(line, first)
        self._is_kernel = record is not None
        if record is not None:
            self._certain += 1
            if self._held:
                self._release()
            self.records.append(record)
        elif _of_a_program(line):
            self._programs += 1
        elif _is_binary(line):
            self._binary += 1
            self._garbled += 1
        elif _MARKER.match(line):
            self._markers += 1
        else:
            self._take_plain(line)

    def _take_continuation(self, line: str) -> None:
        """A blank line, a record's device, or the rest of a message of several lines."""
        self._lines += bool(line)
        # The driver tells of a GPU that it lost at start-up in one message of three lines, the last of which says so.
        if self._is_kernel and self.records and line.startswith("NVRM: "):
            self.records.append(replace(self.records[-1], text=line))

    def _relative(self, line: str, first: str) -> KmsgRecord | None:
        """The record in a line of `dmesg -H`: a minute of the day, then seconds after the line before."""
        if first != "[":
            return None
        delta = _DELTA.match(line)
        if delta is not None:
            self._clock += float(delta[1])
            return KmsgRecord(text=delta[2], stamp=f"{self._clock:.6f}")
        begun = _SHORT_HUMAN.match(line)
        if begun is None or begun[1] not in _MONTHS:
            return None
        days = _MONTHS.index(begun[1]) * 31 + int(begun[2])
        self._clock = (days * 24 + int(begun[3])) * 3600.0 + int(begun[4]) * 60.0
        return KmsgRecord(text=begun[5], stamp=f"{self._clock:.6f}")

    def _take_plain(self, line: str) -> None:
        self._plain += 1
        self._kernelish += _KERNELISH.match(line) is not None
        self._words += _KERNEL_WORD.match(line) is not None
        record = KmsgRecord(text=line)
        if self._certain:
            self.records.append(record)
        else:
            self._held.append(record)
            if len(self._held) >= _HELD:
                self._settle()

    def _settle(self) -> None:
        if self._looks_like_dmesg():
            self._release()
        else:
            self._garbled += len(self._held)
            self._held = []

    def _release(self) -> None:
        self.records.extend(self._held)
        self._held = []

    def _looks_like_dmesg(self) -> bool:
        return self._words > 0 and self._kernelish >= _KERNELISH_SHARE * (self._plain + self._programs + self._binary)

    def finish(self) -> str:
        """Decide on what was held back, and say what is wrong with the document; empty when it is a kernel log."""
        if self._held:
            self._settle()
        if self._is_empty or (self._markers and not (self._plain or self._binary or self._programs)):
            return ""
        if self._binary > _BINARY_SHARE * self._lines:
            return "is no text: most of it cannot be read as lines of a log"
        if self._certain or self._looks_like_dmesg():
            return ""
        if self._programs:
            return "holds no line of the kernel: record it with dmesg or journalctl -k"
        return "is no kernel log: give the output of dmesg, of journalctl -k, or of cat /dev/kmsg"


def _certain(line: str, first: str) -> KmsgRecord | None:
    """The record in a line that says of itself that the kernel wrote it; None for any other line."""
    if first.isdigit():
        return parse_record(line) or _stamped(line) or _collected(line)
    if first == "[":
        return _dmesg(line)
    if first == "<":
        return _dmesg(line) or _stamped(line)
    if first.isupper():
        return _stamped(line)
    if line.startswith(_FACILITIES):
        return _dmesg(line)
    return _json_line(line) if first == "{" else None


def _dmesg(line: str) -> KmsgRecord | None:
    match = _DMESG.match(line)
    if match is None:
        match = _HUMAN.match(line)
        if match is not None:
            return KmsgRecord(text=match[2], stamp=match[1])
        match = _PREFIXED.match(line)
        if match is None or _SYSLOG.match(line):
            return None
        return KmsgRecord(text=match[3], priority=_priority(match[1], match[2]))
    text = match[5]
    if " kernel: " in text[:120] and (host := _HOST_KERNEL.match(text)):
        # The journal's short-monotonic form.
        text = text[host.end() :]
    elif _HOST_PROGRAM.match(text):
        return None
    return KmsgRecord(
        text=text,
        since_boot_us=int(match[3]) * 1_000_000 + int(match[4].ljust(6, "0")[:6]),
        priority=_priority(match[1], match[2]),
    )


def _collected(line: str) -> KmsgRecord | None:
    """A line of the journal's short-unix form, or of a container's log that is the kernel's own."""
    unix = _UNIX_TIME.match(line)
    if unix is not None:
        return KmsgRecord(text=unix[3], stamp=unix[1]) if unix[2] == "kernel" else None
    match = _COLLECTED.match(line)
    if match is None:
        return None
    rest = line[match.end() :]
    return parse_record(rest) if rest[0].isdigit() else _dmesg(rest)


def _priority(number: str | None, word: str | None) -> int | None:
    return int(number) & 7 if number else _LEVELS.get(word or "")


def _stamped(line: str) -> KmsgRecord | None:
    match = _SYSLOG.match(line)
    if match is None:
        return None
    stamp, rest = match[1], match[2]
    if "T" in stamp and "," in stamp:
        # dmesg --time-format iso: nobody else writes a T and a comma, and no program's name follows.
        return KmsgRecord(text=rest, stamp=stamp)
    program = _PROGRAM.match(rest)
    if program is None or program[1] != "kernel":
        other = _RFC5424.match(rest)
        return None if other is None else _untimed(other[1], stamp)
    return _untimed(program[2], stamp)


def _untimed(text: str, stamp: str) -> KmsgRecord:
    match = _MONOTONIC.match(text) if text.startswith("[") else None
    if match is None:
        return KmsgRecord(text=text, stamp=stamp)
    return KmsgRecord(text=match[3], since_boot_us=int(match[1]) * 1_000_000 + int(match[2].ljust(6, "0")[:6]))


def _of_a_program(line: str) -> bool:
    if line.startswith(("[", "<", *_FACILITIES)) and _DMESG.match(line):
        return True
    if line.startswith("{") and ('"MESSAGE"' in line or '"log"' in line):
        return True
    if _UNIX_TIME.match(line):
        return True
    match = _SYSLOG.match(line) if not line[0].islower() else None
    return match is not None and (_PROGRAM.match(match[2]) or _OUTPUT.match(match[2])) is not None


def _json_line(line: str) -> KmsgRecord | None:
    """The record in a line of `journalctl -o json`, or of Docker's json-file log."""
    if '"MESSAGE"' not in line and '"log"' not in line:
        return None
    try:
        entry = json.loads(line)
        if "MESSAGE" not in entry:
            text = str(entry["log"]).rstrip("\r\n")
            return parse_record(text) if text[:1].isdigit() else _dmesg(text)
        # Without its transport the identifier must do: a program that calls itself kernel has the transport syslog.
        if entry.get("_TRANSPORT", entry.get("SYSLOG_IDENTIFIER")) != "kernel":
            return None
        message = entry["MESSAGE"]
        if isinstance(message, list):
            # A message that is no UTF-8 is a list of its bytes.
            message = bytes(message).decode("utf-8", "replace")
        since = entry.get("_SOURCE_MONOTONIC_TIMESTAMP") or entry.get("__MONOTONIC_TIMESTAMP")
        return KmsgRecord(text=str(message), since_boot_us=None if since is None else int(since))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_binary(line: str) -> bool:
    head = line[:400]
    if head.isprintable() and "\ufffd" not in head:
        return False
    bad = sum(char == "\ufffd" or (char < " " and char not in "\t\x1b") for char in head)
    return bad * 5 > len(head)


def _lines(stream: BinaryIO) -> Iterator[list[str]]:
    """The lines of the document block by block; of a line beyond the bound only the beginning."""
    rest = b""
    skipping = False
    while block := stream.read(_BLOCK):
        end = block.rfind(b"\n")
        if end < 0:
            if not skipping:
                rest += block[: _MAX_LINE + 1]
                if len(rest) > _MAX_LINE:
                    yield [rest[:_MAX_LINE].decode("utf-8", "replace")]
                    rest, skipping = b"", True
            continue
        text = block[:end]
        if skipping:
            text = text.partition(b"\n")[2]
            skipping = False
        else:
            text = rest + text
        rest = block[end + 1 :]
        lines = text.decode("utf-8", "replace").split("\n")
        yield [line if len(line) <= _MAX_LINE else line[:_MAX_LINE] for line in lines]
        if len(rest) > _MAX_LINE:
            yield [rest[:_MAX_LINE].decode("utf-8", "replace")]
            rest, skipping = b"", True
    if rest:
        yield [rest.decode("utf-8", "replace")]
