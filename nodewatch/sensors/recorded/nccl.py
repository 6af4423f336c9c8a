"""Output of NVIDIA's nccl-tests: the table on standard output, or the JSON that -J writes; several runs in one file.

The table's columns are taken from its own header, since builds differ: `error` or `#wrong`, with or without root,
iteration statistics or time stamps. A run without its footer, or with a row that cannot be read, is kept and marked:
its checks refuse to call it good.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import NcclRow, NcclRun, NcclSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._text import decoded, lines, shown

_DEVICE = re.compile(r"^#\s+Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s+\d+\s+on\s+(\S+)\s+device\s+(\d+)")
_STARTS = re.compile(r"^#\s*(?:nThread\s+\d+\s|nccl-tests version|Collective test starting:\s*(?P<name>\S+))")
_COMMAND = re.compile(
    r"(?:^|[\s/])((?:all_reduce|all_gather|reduce_scatter|alltoall|broadcast|reduce|sendrecv|gather|scatter|hypercube))_perf\b"
)
_HOST = re.compile(r"^[ \t]{0,8}[\w.-]{1,64}: ?(?=\s*(?:#|\d+\s+\d+\s+[a-z]))")
_BARE = re.compile(
    r"nThread\s+\d+\s+nGpus\b|Using devices\b|Rank\s+\d+\s+(?:Group|Pid)\b|size\s+count\s+type\b|\(B\)\s+\(elements\)|"
    r"Out of bounds values\s*:|Avg bus bandwidth\s*:|Collective test (?:starting|concluded)\s*:"
)
"""Comments of the table that lost their mark: pages that read `#` as a heading swallow it."""
_HEADER = re.compile(r"^#\s+size\s+count\s+type\b")
_OUT_OF_BOUNDS = re.compile(r"^#\s*Out of bounds values\s*:\s*(\d{1,18})\b\s*(OK|FAILED)?", re.IGNORECASE)
_AVERAGE = re.compile(r"^#\s*Avg bus bandwidth\s*:\s*\S+(?:\s+(OK|FAILED))?")
_ROW = re.compile(r"^\s*\d+\s+\d+\s+[a-z]\w*\s")
_FAILED = re.compile(
    r"Test (?:NCCL|CUDA|MPI) failure|: Test failure|\bTest timeout\b|NCCL ERROR\b|Invalid number of GPUs|"
    r"Segmentation fault|segfault|core dumped|DUE TO TIME LIMIT|CANCELLED AT|Caught signal \d+|Bus error|"
    r"timeout: sending signal|\btimed out\b|oom[-_]kill|Out Of Memory|Uncorrectable ECC|fallen off the bus|GPU is lost|"
    r"unhandled (?:cuda|system) error|double free|free\(\): invalid",
    re.IGNORECASE,
)
_EXITED = re.compile(
    r"exited on signal|exited with (?:non-zero|exit code)|non-zero (?:status|exit)|exit code: [1-9]", re.IGNORECASE
)
"""What a launcher says of a program that ended badly. One that found wrong values ends so too, and its table says it
better."""
_WARNED = re.compile(r"\bNCCL WARN\b")
_SIZES = {
    "float": 4,
    "half": 2,
    "double": 8,
    "int8": 1,
    "uint8": 1,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "uint64": 8,
    "bfloat16": 2,
}
_MANY = 20
"""So many lines of one kind are kept: a failed run on a thousand ranks says the same a thousand times."""


def load(recording: Recording) -> Iterator[NcclSample]:
    """One sample of all runs in the recording. Raises SensorError when it holds neither a run nor a failure of one."""
    yield parse(recording.read(), instance_type=recording.instance_type, name=str(recording.path))


def parse(data: bytes, *, instance_type: str, name: str = "the output") -> NcclSample:
    """All runs in what a program of nccl-tests wrote. Raises SensorError when it is neither a run nor a failure of one."""
    text = decoded(data).lstrip()
    if text.startswith("{"):
        return NcclSample(runs=(_from_json(text),), warnings=_json_errors(text), instance_type=instance_type)
    parser = _Text()
    for line in lines(data):
        parser.take(line)
    sample = parser.sample(instance_type)
    if not sample.runs and not sample.failures:
        raise SensorError(f"{name} holds no table of nccl-tests: record the standard output of all_reduce_perf")
    return sample


@dataclass(slots=True, kw_only=True)
class _Run:
    collective: str = ""
    ranks: int = 0
    each: int = 0
    """GPUs of one process, by the header: its list of devices may be cut short."""
    hosts: dict[str, None] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: list[NcclRow] = field(default_factory=list)
    guesses: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)
    out_of_bounds: int | None = None
    has_average: bool = False
    is_below_asked: bool = False

    @property
    def is_begun(self) -> bool:
        return bool(self.rows or self.columns or self.out_of_bounds is not None or self.unreadable)

    def frozen(self) -> NcclRun:
        guessed = next(iter(self.guesses)) if len(self.guesses) == 1 else ""
        return NcclRun(
            collective=self.collective or guessed,
            ranks=max(self.ranks, self.each) if self.ranks else None,
            hosts=tuple(self.hosts),
            rows=tuple(self.rows),
            out_of_bounds=self.out_of_bounds,
            is_finished=self.out_of_bounds is not None and self.has_average,
            is_below_asked=self.is_below_asked,
            unreadable=tuple(self.unreadable[:_MANY]),
        )


class _Text:
    def __init__(self) -> None:
        self._runs: list[NcclRun] = []
        self._run = _Run()
        self._named = ""
        self._failures: dict[str, None] = {}
        self._exits: dict[str, None] = {}
        self._warnings: dict[str, None] = {}

    def take(self, line: str) -> None:
        """Read one more line."""
        # pdsh puts the host before each line, srun the task, right-aligned; a report indents what it quotes.
        line = _HOST.sub("", line)
        if line.lstrip().startswith("#"):
            self._take_comment(line.lstrip())
        elif _BARE.match(line.lstrip()):
            self._take_comment(f"# {line.lstrip()}")
        elif _ROW.match(line):
            self._take_row(line)
        elif re.match(r"^\s+\d{1,20}(?:\s+\d*)?\s*$", line) and self._run.columns:
            # The output ended, or was overwritten, in the middle of a row.
            self._run.unreadable.append(shown(line))
        else:
            self._take_other(line)

    def sample(self, instance_type: str) -> NcclSample:
        """Everything that was read."""
        self._end_run()
        is_whole = bool(self._runs) and all(run.is_finished for run in self._runs)
        failures = self._failures if is_whole else {**self._failures, **self._exits}
        return NcclSample(
            runs=tuple(self._runs),
            failures=tuple(failures)[:_MANY],
            warnings=tuple(self._warnings)[:_MANY],
            instance_type=instance_type,
        )

    def _end_run(self) -> None:
        run = self._run
        if run.is_begun or run.ranks:
            run.collective = run.collective or self._named
            self._runs.append(run.frozen())
        self._run = _Run()

    def _take_comment(self, line: str) -> None:
        started = _STARTS.match(line)
        if started and self._run.is_begun:
            self._end_run()
            self._named = ""
        if started and started["name"]:
            self._named = started["name"].rsplit("/", 1)[-1].removesuffix("_perf")
        asked = re.match(r"^#\s*nThread\s+(\d{1,5})\s+nGpus\s+(\d{1,5})\b", line)
        if asked:
            self._run.each = int(asked[1]) * int(asked[2])
        device = _DEVICE.match(line)
        if device:
            self._run.ranks += 1
            self._run.hosts[device[2]] = None
        elif _HEADER.match(line):
            if self._run.rows and self._run.out_of_bounds is not None:
                self._end_run()
            self._run.columns = tuple(line.lstrip("# ").split())
        bounds = _OUT_OF_BOUNDS.match(line)
        if bounds:
            failed = (bounds[2] or "").upper() == "FAILED"
            self._run.out_of_bounds = max(int(bounds[1]), 1 if failed else 0)
        average = _AVERAGE.match(line)
        if average:
            self._run.has_average = True
            self._run.is_below_asked = average[1] == "FAILED"
        if re.match(r"^#\s*error:\s*\S", line):
            # NCCL's last error, which a run that went well may have too (a network that is not there).
            self._note(self._warnings, line)

    def _take_row(self, line: str) -> None:
        if self._run.out_of_bounds is not None:
            # A table after a footer without a header of its own is another run, whatever lost its header.
            self._end_run()
        row = _row(line.split(), self._run.columns)
        if row is None:
            self._run.unreadable.append(shown(line))
            return
        self._run.rows.append(row)
        self._run.guesses.add(_guess(line.split()))

    def _take_other(self, line: str) -> None:
        if "NCCL INFO" in line:
            return
        if _FAILED.search(line):
            self._note(self._failures, line)
        elif _EXITED.search(line):
            self._note(self._exits, line)
        elif _WARNED.search(line):
            self._note(self._warnings, line)
        command = _COMMAND.search(line)
        if command:
            if self._run.is_begun and self._run.out_of_bounds is not None:
                self._end_run()
            self._named = command[1]

    @staticmethod
    def _note(kept: dict[str, None], line: str) -> None:
        if len(kept) < _MANY * 10:
            kept[shown(line)] = None


def _row(tokens: Sequence[str], columns: Sequence[str]) -> NcclRow | None:
    names = list(columns) or _usual_columns(tokens)
    if "time" not in names and "cputime" not in names:
        return None
    first = names.index("time") if "time" in names else names.index("cputime")
    described, measured = names[:first], names[first:]
    # A build prints no reduction and no root where the collective has none, and its header may still name them.
    texts = 0
    while texts < len(tokens) and texts < len(described) and (texts < 3 or _is_label(tokens[texts])):
        texts += 1
    values = list(tokens[texts:])
    half = len(measured) // 2 if measured.count("busbw") == 2 else len(measured)
    if len(values) > len(measured) and "timestamp" in columns:
        values = values[: len(measured)]
    size = _whole(tokens[0])
    if size is None or len(values) not in {len(measured), half}:
        return None
    parts = [values[:half], values[half : 2 * half]] if len(values) >= 2 * half else [[], values[:half]]
    read = [_half(part, measured[:half]) for part in parts]
    if any(item is None for item, part in zip(read, parts, strict=True) if part):
        return None
    out_of_place, in_place = read
    wrongs = [item[1] for item in read if item is not None and item[1] is not None]
    return NcclRow(
        size=size,
        out_of_place=out_of_place[0] if out_of_place else None,
        in_place=in_place[0] if in_place else None,
        wrong=sum(wrongs) if wrongs else None,
    )


def _usual_columns(tokens: Sequence[str]) -> list[str]:
    """The columns of a table that has lost its header: what nearly all builds print."""
    labels = sum(1 for token in tokens[3:5] if _is_label(token))
    body = ["time", "algbw", "busbw", "#wrong"]
    return ["size", "count", "type", "redop", "root"][: 3 + labels] + body + body


def _is_label(token: str) -> bool:
    """A reduction (sum), or a root: -1 or a small whole number. A time has a point nearly always, and never is -1."""
    return (token.isalpha() and token not in {"nan", "inf"}) or re.fullmatch(r"-?\d{1,4}", token) is not None


def _half(values: Sequence[str], names: Sequence[str]) -> tuple[float, int | None] | None:
    if len(values) < len(names) or "busbw" not in names:
        return None
    speed = _number(values[names.index("busbw")])
    numbers = [_number(values[names.index(name)]) for name in names if name in ("time", "cputime", "algbw")]
    if speed is None or speed < 0 or None in numbers:
        return None
    if "#wrong" not in names:
        # The `error` column of older builds is the largest deviation, small on a good machine: the footer judges it.
        return speed, None
    told = values[names.index("#wrong")]
    if told == "N/A":
        return speed, None
    wrong = _number(told)
    if wrong is None:
        return None
    # Without a header, 4e-07 is the deviation of an older build and no count.
    return speed, int(wrong) if wrong == int(wrong) else None


def _guess(tokens: Sequence[str]) -> str:
    """all_reduce is the one whose count times the width of its type is the size, and that reduces without a root."""
    width = _SIZES.get(tokens[2])
    if width is None or len(tokens) < 5 or tokens[3] in ("none", "N/A") or not tokens[3].isalpha():
        return ""
    # Where a build prints no root, a time follows: -1 is no root, a small whole number is one.
    is_rootless = tokens[4] == "-1" or not _is_label(tokens[4])
    size, count = _whole(tokens[0]), _whole(tokens[1])
    is_full = size is not None and count is not None and size == count * width
    return "all_reduce" if is_rootless and is_full else ""


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _document(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SensorError(
            f"the JSON of nccl-tests cannot be read ({shown(str(error))}): it is cut off or no JSON"
        ) from error
    if not isinstance(document, dict):
        raise SensorError("the JSON is none of nccl-tests: it is no object")
    return document


def _json_errors(text: str) -> tuple[str, ...]:
    errors = _document(text).get("errors")
    return tuple(shown(str(item)) for item in errors if str(item).strip())[:_MANY] if isinstance(errors, list) else ()


def _from_json(text: str) -> NcclRun:
    document = _document(text)
    results = document.get("results")
    if not isinstance(results, list) or "nccl_version" not in document:
        raise SensorError("the JSON is none of nccl-tests: it has no list of results or no nccl_version")
    rows, unreadable = [], []
    for item in results:
        row = _json_row(item)
        if row is None:
            unreadable.append(shown(str(item)))
        else:
            rows.append(row)
    if not results:
        unreadable.append("the list of results is empty")
    arguments = document.get("args")
    named = [_COMMAND.search(str(item)) for item in arguments[:1]] if isinstance(arguments, list) else []
    ranks, hosts = _json_devices(document.get("config"))
    bounds = document.get("out_of_bounds")
    count = _number(bounds.get("count")) if isinstance(bounds, dict) else None
    if isinstance(bounds, dict) and str(bounds.get("okay")).lower() == "false":
        count = max(count or 0.0, 1.0)
    average = document.get("average_bus_bandwidth")
    return NcclRun(
        is_below_asked=isinstance(average, dict) and str(average.get("okay")).lower() == "false",
        collective=named[0][1] if named and named[0] else "",
        ranks=ranks,
        hosts=hosts,
        rows=tuple(rows),
        out_of_bounds=None if count is None else int(count),
        is_finished=count is not None and bool(document.get("end_time")),
        unreadable=tuple(unreadable[:_MANY]),
    )


def _json_row(item: object) -> NcclRow | None:
    if not isinstance(item, dict):
        return None
    size = _number(item.get("size"))
    halves = [item.get("out_of_place"), item.get("in_place")]
    if size is None or size < 0 or all(half is None for half in halves):
        return None
    speeds: list[float | None] = []
    wrong: int | None = None
    for half in halves:
        if half is None:
            speeds.append(None)
            continue
        speed = _number(half.get("bus_bw")) if isinstance(half, dict) else None
        if speed is None or speed < 0:
            return None
        speeds.append(speed)
        if half.get("nwrong") is not None:
            counted = _number(half["nwrong"])
            if counted is None:
                return None
            wrong = (wrong or 0) + int(counted)
    return NcclRow(size=int(size), out_of_place=speeds[0], in_place=speeds[1], wrong=wrong)


def _json_devices(config: object) -> tuple[int | None, tuple[str, ...]]:
    """Ranks and hosts. The writer names one device a process, however many GPUs and threads the process has."""
    devices = config.get("devices") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(devices, list) or not devices:
        return None, ()
    hosts = dict.fromkeys(str(item["hostname"]) for item in devices if isinstance(item, dict) and item.get("hostname"))
    each = [_number(config.get(name, 1)) for name in ("nthreads", "ngpus")]
    if None in each or not hosts:
        return None, tuple(hosts)
    return len(devices) * int(each[0] or 1) * int(each[1] or 1), tuple(hosts)
