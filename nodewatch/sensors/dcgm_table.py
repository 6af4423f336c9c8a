"""The table that `dcgmi diag` prints without -j, of DCGM 3 and 4."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import DcgmDiagSample, DcgmError, DcgmResult

_HEADER = re.compile(r"^[ \t]{0,80}\|[ \t]{0,80}Diagnostic[ \t]{0,80}\|[ \t]{0,80}Result[ \t]{0,80}\|", re.MULTILINE)
_SECTION = re.compile(r"^\s*[|+]-{3,}\s+(?P<name>[A-Za-z ]+?)\s+-{3,}")
_RULE = re.compile(r"^\s*\+[-=]+\+[-=]+\+\s*$")
_ROW = re.compile(r"^\s*\|(?P<left>[^|]*)\|(?P<right>.*)\|\s*$")
MAX_ROW = 4096
"""Rows of dcgmi are 80 to 90 characters wide: a longer one is not looked at, so that no pattern works on a gigabyte."""
_WIDTH = 45
"""How many characters of a message stand in one row."""
_MESSAGE = re.compile(r"^(?P<kind>Warning|Error|Info)\b:?\s*(?:(?P<group>[A-Za-z]+?)\s*(?P<id>[0-9]+))?$")
_ENTITY = re.compile(r"^(?P<group>[A-Za-z]+?)\s?(?P<id>[0-9]+): (?P<said>[A-Za-z]+)$")
_STATUS = re.compile(r"^(?P<said>Pass|Fail|Warn|Skip)(?: - (?:(?P<all>All)|GPUs?:? (?P<ids>[0-9, ]+)))?$")
_NAMES_GPU = re.compile(r"\bGPU\s?(?P<id>[0-9]{1,3})\b")
_WORDS = {"Pass": "pass", "Fail": "fail", "Warn": "warn", "Skip": "skip"}
_ABOUT = re.compile(r"(?:DCGM|EUD Test|CPU EUD Test) Version|Driver Version Detected|\w+ Device IDs Detected|CPU Model")
"""What stands under Metadata, a heading that not every release prints."""
_TROUBLE = re.compile(r"^[ \t]{0,80}(?:Error: |Aborting the iterative runs)[^\n]{0,200}", re.MULTILINE)


@dataclass(slots=True)
class _Message:
    kind: str
    gpu: int | None
    parts: list[str]


@dataclass(slots=True)
class _Test:
    name: str
    category: str
    overall: str
    results: list[DcgmResult] = field(default_factory=list)
    messages: list[_Message] = field(default_factory=list)


def parse_tables(text: str) -> Iterator[DcgmDiagSample]:
    """The run in each table of `text`, in order; nothing when there is no table.

    Raises SensorError, after what could be read, when a table has no end or dcgmi says beside it that a run failed.
    """
    headers = list(_HEADER.finditer(text))
    between = text[: headers[0].start()] if headers else ""
    for number, header in enumerate(headers):
        # The rule above the next table's header is no end of this one.
        end = text.rfind("\n", 0, max(0, headers[number + 1].start() - 1)) if number + 1 < len(headers) else len(text)
        sample, is_whole, rest = _table(text[header.end() : end])
        between += f"\n{rest}"
        if is_whole or any(result.status == "fail" for result in sample.results):
            yield sample
        if not is_whole:
            raise SensorError("the diagnostic's table is cut off: run it again and let it end")
    # One of several iterations may fail without a table of its own.
    if headers and (trouble := _TROUBLE.search(between)) is not None:
        raise SensorError(f"dcgmi diag failed beside its table ({trouble[0].strip()}): run it again")


def _table(text: str) -> tuple[DcgmDiagSample, bool, str]:
    """The table that begins `text`, whether it has an end, and the lines that are none of it."""
    about: dict[str, str] = {}
    tests: list[_Test] = []
    section = ""
    ended = False
    rest: list[str] = []
    for line in text.splitlines():
        if len(line) > MAX_ROW:
            raise SensorError("the diagnostic's table has a row longer than any of dcgmi's: run it again with -j")
        if _RULE.match(line):
            # The rule below the header is no end.
            ended = ended or bool(tests or about)
        elif (found := _SECTION.match(line)) is not None:
            section = found["name"]
            ended = False
        elif (row := _ROW.match(line)) is not None:
            ended = False
            left, right = row["left"].strip(), row["right"]
            if section == "Metadata" or _ABOUT.fullmatch(left):
                about[left] = right.strip()
            else:
                _take(tests, section, left, right)
        else:
            rest.append(line)
    sample = DcgmDiagSample(
        results=tuple(result for test in tests for result in _results(test)),
        version=about.get("DCGM Version"),
        driver_version=about.get("Driver Version Detected"),
    )
    return sample, ended, "\n".join(rest)


def _take(tests: list[_Test], section: str, left: str, right: str) -> None:
    said = right.strip()
    message = _MESSAGE.match(left)
    if left and message is None:
        tests.append(_Test(name=left, category=section, overall=said))
        _add_status(tests[-1], said)
        return
    if not tests:
        return
    test = tests[-1]
    if message is not None:
        number = int(message["id"]) if message["id"] else None
        test.messages.append(_Message(message["kind"], number, [right[1 : 1 + _WIDTH]]))
    elif test.messages:
        test.messages[-1].parts.append(right[1 : 1 + _WIDTH])
    else:
        _add_status(test, said)


def _add_status(test: _Test, said: str) -> None:
    entity = _ENTITY.match(said)
    if entity is not None:
        status = _WORDS.get(entity["said"], "unknown")
        test.results.append(_result(test, status, said, (int(entity["id"]),), entity["group"]))
        return
    found = _STATUS.match(said)
    if found is not None and found["ids"]:
        ids = tuple(int(number) for number in re.findall(r"[0-9]{1,9}", found["ids"]))
        test.results.append(_result(test, _WORDS[found["said"]], said, ids))
    elif said != test.overall or found is None:
        test.results.append(_result(test, _WORDS[found["said"]] if found else "unknown", said, ()))


def _result(test: _Test, status: str, said: str, ids: tuple[int, ...], group: str = "GPU") -> DcgmResult:
    return DcgmResult(test=test.name, category=test.category, status=status, said=said[:40], group=group, ids=ids)


def _results(test: _Test) -> list[DcgmResult]:
    results = list(test.results)
    found = _STATUS.match(test.overall)
    if found is not None and not found["ids"]:
        overall = _result(test, _WORDS[found["said"]], test.overall, ())
        results.insert(0, replace(overall, is_summary=bool(results)))
    for message in test.messages:
        if message.kind == "Info":
            continue
        text = re.sub(r"\s+", " ", "".join(part.ljust(_WIDTH) for part in message.parts)).strip()
        named = {int(found["id"]) for found in _NAMES_GPU.finditer(text)}
        # One message may list every GPU of the machine: then it is about none of them alone.
        gpu = message.gpu if message.gpu is not None else named.pop() if len(named) == 1 else None
        _attach(results, DcgmError(text=text, gpu=gpu))
    return results


def _attach(results: list[DcgmResult], error: DcgmError) -> None:
    """Put the error where it belongs: with its GPU's result, else with the first that did not pass, else with the first."""
    bad = [n for n, result in enumerate(results) if result.status in ("fail", "warn", "unknown")]
    own = [n for n in (*bad, *range(len(results))) if error.gpu is not None and error.gpu in results[n].ids]
    at = (own or [n for n in bad if not results[n].is_summary] or bad or [*range(len(results))])[0]
    results[at] = replace(results[at], errors=(*results[at].errors, error))
