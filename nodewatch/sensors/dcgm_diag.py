"""What `dcgmi diag` printed, of DCGM 3 and 4: JSON among other lines, or the table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.knowledge.dcgm import exit_meaning
from nodewatch.model.gpu_samples import DcgmDiagSample, DcgmError, DcgmResult
from nodewatch.sensors.dcgm_table import parse_tables

_ROOTS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")
"""The key of DCGM 4 and of DCGM 3."""
_ERRORS = ("runtime_error", "Runtime Error", "Error", "error")
"""Keys under which a run that did not run to its end says why."""
_OVERALL = "Overall Result"
_MAX_DEPTH = 6
_MAX_TRIES = 2000
"""Braces at which no document begins: a file full of them is none of ours, and each costs a look ahead."""
_MAX_TEXT = 2000
ESCAPE = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
"""Colours that a terminal or a log collector left between the words."""
_CUT_OFF = "the diagnostic's JSON is cut off: run it again and let it end"

_STATUS = {
    "pass": "pass",
    "passed": "pass",
    "fail": "fail",
    "failed": "fail",
    "warn": "warn",
    "warning": "warn",
    "skip": "skip",
    "skipped": "skip",
    # A test that did not run proves as much as one that was skipped.
    "not run": "skip",
    "not_run": "skip",
    "notrun": "skip",
}
_SEVERITY_NAMES = {"none": 0, "monitor": 1, "isolate": 2, "unknown": 3, "triage": 4, "config": 5, "reset": 6}

_TROUBLE = (
    (
        ("unable to establish a connection", "unable to connect to host engine", "connection invalid"),
        "restart nv-hostengine",
    ),
    (("already running", "dcgm_st_diag_already_running"), "wait for the other diagnostic: two at once are refused"),
    (("command not found", "no such file or directory", "not found"), "install DCGM where the agent looks for it"),
    (("permission denied", "cannot execute"), "let the agent run dcgmi as root"),
    (("timeout", "timed out"), "run it again with a longer deadline"),
)


def parse(text: str) -> Iterator[DcgmDiagSample]:
    """Each run in `text`, in order. Raises SensorError when there is none, or when the last of them is cut off."""
    text = ESCAPE.sub("", text)
    count = 0
    for document in _documents(text):
        for sample in _samples(document, 0):
            count += 1
            yield sample
    if count == 0:
        for sample in parse_tables(text):
            count += 1
            yield sample
    if count == 0:
        raise SensorError(_no_document(text))


def of_command(returncode: int, stdout: str, stderr: str = "") -> DcgmDiagSample:
    """The run that `dcgmi diag` printed and ended with `returncode` (negative: a signal).

    Raises SensorError when it proves nothing: dcgmi could not be started, another diagnostic runs, no document was printed. A
    run that ended badly after printing results keeps them, so that a failure is not lost, and can no longer pass.
    """
    meaning = exit_meaning(returncode)
    ended = f"dcgmi diag ended with {returncode}{f' ({meaning.name})' if meaning.name else ''}"
    try:
        samples = list(parse(f"{stdout}\n{stderr}"))
    except SensorError as error:
        if meaning.means == "pass":
            raise
        raise SensorError(f"{ended}: {meaning.why}") from error
    sample = samples[-1]
    if meaning.means == "pass" or sample.runtime_error:
        return sample
    if meaning.means == "found" and any(result.status == "fail" for result in sample.results):
        return sample
    return replace(sample, runtime_error=f"{ended}: {meaning.why}")


def status_of(word: str) -> str:
    """pass, fail, warn or skip for any spelling of them (`Pass - All`, `FAIL`); unknown for every other word."""
    return _STATUS.get(word.split(" - ")[0].strip().lower(), "unknown")


def _no_document(text: str) -> str:
    lower = text.lower()
    for phrases, remedy in _TROUBLE:
        if any(phrase in lower for phrase in phrases):
            return f"dcgmi diag gave no result ({_line_of(text)}): {remedy}"
    if "error" in lower or "dcgm_st_" in lower:
        return f"dcgmi diag gave no result ({_line_of(text)}): look at the log of nv-hostengine"
    return "this is no output of dcgmi diag: run it with -j"


def _line_of(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [
        line for line in lines if re.search(r"error|dcgm_st_|not found|denied|running|timeout", line, re.IGNORECASE)
    ]
    return (said or lines or ["it said nothing"])[0][:200]


def _documents(text: str) -> Iterator[Any]:
    """JSON objects in `text` with a diagnostic in them. Raises SensorError when one begins and does not end."""
    decoder = json.JSONDecoder()
    at = 0
    tries = 0
    undecoded: list[str] = []
    while (start := text.find("{", at)) >= 0:
        undecoded.append(text[at:start])
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            if is_cut_off(text, error):
                raise SensorError(_CUT_OFF) from None
            tries += 1
            if tries > _MAX_TRIES:
                raise SensorError("the diagnostic's output is no JSON that can be read: run it again with -j") from None
            undecoded.append("{")
            at = start + 1
            continue
        if _holds_diagnostic(value, 0):
            yield value
    undecoded.append(text[at:])
    left_over = "".join(undecoded)
    # Without the wrapper around several runs nobody knows whether the last of them is there.
    if any(f'"{key}"' in left_over for key in (*_ROOTS, "iterations")):
        raise SensorError(_CUT_OFF)


def is_cut_off(text: str, error: Exception) -> bool:
    """Whether a JSON document failed to be read because `text` ended before it, and not because of what is in it."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or len(text.rstrip()) - error.pos <= 16


def _holds_diagnostic(value: Any, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, Mapping):
        if any(root in value for root in _ROOTS) or _is_body(value):
            return True
        return any(_holds_diagnostic(item, depth + 1) for item in value.values())
    return isinstance(value, list) and any(_holds_diagnostic(item, depth + 1) for item in value)


def _is_body(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("test_categories"), list) or (
        isinstance(value.get("tests"), list) and "category" not in value
    )


def _samples(value: Any, depth: int) -> Iterator[DcgmDiagSample]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            yield from _samples(item, depth + 1)
        return
    if not isinstance(value, Mapping):
        return
    for root in _ROOTS:
        if root in value:
            yield _sample(value[root], value)
            return
    if _is_body(value):
        yield _sample(value, value)
        return
    has_failed = False
    for item in value.values():
        for sample in _samples(item, depth + 1):
            has_failed = has_failed or any(result.status == "fail" for result in sample.results)
            yield sample
    # Around several iterations: one that was aborted leaves a null in their list and its trace here alone.
    ended = _text(value.get("result")) if "iterations" in value else None
    if ended is not None and status_of(ended) != "pass" and not has_failed:
        said = _text(value.get("warning")) or ended
        raise SensorError(f"the iterations of the diagnostic did not run to their end ({said[:200]}): run it again")


def _sample(body: Any, whole: Mapping[str, Any]) -> DcgmDiagSample:
    if not isinstance(body, Mapping):
        raise SensorError("the diagnostic's JSON holds no diagnostic under its key: run it again with -j")
    metadata = whole.get("metadata")
    about = metadata if isinstance(metadata, Mapping) else body
    said = [part.get(key) for key in _ERRORS for part in (body, whole) if part.get(key)]
    error = said[0] if said else None
    results = tuple(_results(body))
    overall = _text(whole.get(_OVERALL, body.get(_OVERALL))) or ""
    if not error and status_of(overall) == "fail" and all(result.status != "fail" for result in results):
        error = f"its overall result is {overall} and none of its tests says why"
    return DcgmDiagSample(
        results=results,
        version=_text(about.get("version", body.get("version"))),
        driver_version=_text(about.get("Driver Version Detected", body.get("Driver Version Detected"))),
        runtime_error=_text(error) if not isinstance(error, Mapping | list) else json.dumps(error)[:_MAX_TEXT],
        serials=tuple(_serials(body, whole)),
    )


def _results(body: Mapping[str, Any]) -> Iterator[DcgmResult]:
    categories = body.get("test_categories")
    if categories is None:
        categories = [{"category": "", "tests": body.get("tests", [])}]
    for category in _objects(categories, "test_categories"):
        name = _text(category.get("category")) or ""
        for test in _objects(category.get("tests"), "tests"):
            yield from _test(test, name)


def _test(test: Mapping[str, Any], category: str) -> Iterator[DcgmResult]:
    name = _text(test.get("name")) or "unnamed"
    found = False
    for result in _objects(test.get("results"), "results"):
        found = True
        yield _result(result, name, category)
    summary = test.get("test_summary")
    if isinstance(summary, Mapping):
        yield _result(summary, name, category, is_summary=True)
    elif not found and "status" in test:
        yield _result(test, name, category)


def _result(result: Mapping[str, Any], name: str, category: str, *, is_summary: bool = False) -> DcgmResult:
    said = _text(result.get("status")) or ""
    group = _text(result.get("entity_group")) or ("CPU" if "cpu_id" in result else "GPU")
    raw = next((result[key] for key in ("entity_id", "gpu_ids", "gpu_id", "cpu_id") if key in result), None)
    return DcgmResult(
        test=name,
        category=category,
        status=status_of(said),
        said=said[:40],
        group=group,
        ids=_ids(raw),
        errors=tuple(_errors(result.get("warnings"))) + tuple(_errors(result.get("errors"))),
        is_summary=is_summary,
    )


def _errors(value: Any) -> Iterator[DcgmError]:
    """DCGM 3 and its releases in between give a text, a list of texts, or objects with the text under one of several names."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and item.strip():
            yield DcgmError(text=item.strip()[:_MAX_TEXT])
        elif isinstance(item, Mapping):
            text = next((item[key] for key in ("warning", "warnings", "message", "text", "error") if key in item), "")
            number = item.get("error_id", item.get("error_code"))
            yield DcgmError(
                text=(_text(text) or "").strip()[:_MAX_TEXT],
                error_id=_number(number.get("code") if isinstance(number, Mapping) else number),
                category=_number(item.get("error_category")),
                severity=_severity(item.get("error_severity")),
                gpu=_number(item.get("gpu_id")),
            )


def _severity(value: Any) -> int | None:
    if isinstance(value, str) and not value.strip().isdecimal():
        return _SEVERITY_NAMES.get(value.strip().lower().removeprefix("dcgm_error_"))
    return _number(value)


def _serials(body: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    for group in _objects(whole.get("entity_groups", body.get("entity_groups")), "entity_groups"):
        name = _text(group.get("entity_group")) or "GPU"
        for entity in _objects(group.get("entities"), "entities"):
            number = _number(entity.get("entity_id"))
            serial = _text(entity.get("serial_num"))
            if number is not None and _is_serial(serial):
                yield name, number, str(serial)
    # DCGM 3: one list for all GPUs, in their order, or one serial under each number.
    serials = body.get("gpu_device_serials", body.get("GPU Device Serials"))
    if isinstance(serials, Mapping):
        for key, serial in serials.items():
            if str(key).isdecimal() and _is_serial(serial):
                yield "GPU", int(key), serial
    elif isinstance(serials, list):
        for number, serial in enumerate(serials):
            if _is_serial(serial):
                yield "GPU", number, serial


def _is_serial(value: Any) -> bool:
    # DCGM writes its blanks as <<<NOT_SUPPORTED>>> and the like: all GPUs would be one and the same.
    return (
        isinstance(value, str)
        and bool(value)
        and value.lower() not in ("n/a", "[n/a]", "unknown")
        and "<<<" not in value
    )


def _objects(value: Any, name: str) -> Iterator[Mapping[str, Any]]:
    if value is None:
        return
    if not isinstance(value, list):
        raise SensorError(f"the diagnostic's JSON has something else than a list under {name}: run it again with -j")
    for item in value:
        # Some releases leave a null where a test was taken out.
        if isinstance(item, Mapping):
            yield item
        elif item is not None:
            raise SensorError(f"the diagnostic's JSON has something else than objects in {name}: run it again with -j")


def _ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        parts: list[Any] = value.split(",")
    elif isinstance(value, list):
        parts = value
    else:
        parts = [value]
    numbers = (_number(part) for part in parts)
    return tuple(number for number in numbers if number is not None)


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return int(value)
    return None


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, Mapping | list) else str(value)
