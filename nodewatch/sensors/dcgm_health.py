"""What `dcgmi health -c` printed, with or without -j, of DCGM 1 to 4."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from nodewatch.errors import SensorError
from nodewatch.model.gpu_samples import DcgmHealthSample, DcgmIncident
from nodewatch.sensors.dcgm_diag import ESCAPE, is_cut_off
from nodewatch.sensors.dcgm_table import MAX_ROW

_MAX_TRIES = 2000
_MAX_TEXT = 1000
_CUT_OFF = "the report's JSON is cut off: run dcgmi health -c -j again"
_HEALTH = {"healthy": "healthy", "pass": "healthy", "warning": "warning", "warn": "warning", "failure": "failure"}
_HEALTH |= {"fail": "failure", "failed": "failure"}
_OVERALL = re.compile(
    r"^[ \t|]{0,40}Overall Health:?[ \t]{0,80}\|?[ \t]{0,80}(?P<said>[A-Za-z][A-Za-z ]{0,40}?)[ \t]{0,200}\|?[ \t]{0,40}$",
    re.MULTILINE,
)
_ROW = re.compile(r"^\s*\|(?P<left>[^|]*)\|(?P<right>.*)\|\s*$")
_OLD_ENTITY = re.compile(r"^(?P<group>GPU|CPU|NvSwitch)s? ID: (?P<id>[0-9]+)$")
_OLD_SYSTEM = re.compile(r"^(?P<system>[A-Za-z0-9 ]+?): (?P<said>Healthy|Warning|Failure) - (?P<text>.*)$")
_WATCHES = {"pcie", "nvlink", "pmu", "mcu", "memory", "sm", "inforom", "thermal", "power", "driver", "connectx"}
_WATCHES |= {"nvswitch nf", "nvswitch f"}


def parse(text: str) -> Iterator[DcgmHealthSample]:
    """Each report in `text`. Raises SensorError when there is none, or when one is cut off."""
    text = ESCAPE.sub("", text)
    count = 0
    for body in _bodies(text):
        count += 1
        yield _of_json(body)
    if count == 0:
        if (sample := _of_table(text)) is None:
            raise SensorError(_no_report(text))
        yield sample


def health_of(word: object) -> str:
    """healthy, warning or failure; unknown for every other word, such as DCGM's own `Internal error`."""
    return _HEALTH.get(str(word).strip().lower(), "unknown")


def _no_report(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if "error" in line.lower() or "not found" in line.lower()), "")
    if "watches not enabled" in text.lower():
        return f"DCGM watches nothing ({said[:200]}): switch the watches on with dcgmi health -s a"
    if "unable to establish a connection" in text.lower() or "connection" in said.lower():
        return f"dcgmi health gave no report ({said[:200]}): restart nv-hostengine"
    if said:
        return f"dcgmi health gave no report ({said[:200]}): look at the log of nv-hostengine"
    return "this is no report of dcgmi health: run dcgmi health -c -j"


def _bodies(text: str) -> Iterator[Mapping[str, Any]]:
    decoder = json.JSONDecoder()
    at = tries = 0
    left_over: list[str] = []
    while (start := text.find("{", at)) >= 0:
        left_over.append(text[at:start])
        try:
            value, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            if is_cut_off(text, error):
                raise SensorError(_CUT_OFF) from None
            tries += 1
            if tries > _MAX_TRIES:
                raise SensorError("the report is no JSON that can be read: run dcgmi health -c -j again") from None
            at = start + 1
            continue
        body = value.get("body") if isinstance(value, Mapping) else None
        if isinstance(body, Mapping) and body:
            yield body
    left_over.append(text[at:])
    if re.search(r'"(body|Overall Health)"', "".join(left_over)):
        raise SensorError(_CUT_OFF)


def _of_json(body: Mapping[str, Any]) -> DcgmHealthSample:
    overall = ""
    incidents: list[DcgmIncident] = []
    watches: list[tuple[str, bool]] = []
    for name, node in body.items():
        if not isinstance(node, Mapping):
            raise SensorError("the report's JSON has something else than sections: run dcgmi health -c -j again")
        if name == "Overall Health":
            overall = health_of(node.get("value"))
        elif name.lower() in _WATCHES:
            watches.append((name, str(node.get("value", "")).strip().lower() == "on"))
        else:
            incidents.extend(_entities(name, node))
    return DcgmHealthSample(overall=overall, incidents=tuple(incidents), watches=tuple(watches))


def _entities(group: str, node: Mapping[str, Any]) -> Iterator[DcgmIncident]:
    for number, entity in _children(node):
        found = re.search(r"[0-9]{1,9}", number)
        identifier = int(found[0]) if found else None
        systems = [
            incident
            for name, part in _children(entity)
            for incident in (_children(part) if name.lower() == "errors" else [(name, part)])
        ]
        for system, part in systems:
            yield DcgmIncident(
                group=group,
                entity=identifier,
                system=system,
                health=health_of(part.get("value")),
                text=" ".join(_texts(part, 0))[:_MAX_TEXT],
            )
        if not systems:
            yield DcgmIncident(group=group, entity=identifier, system="", health=health_of(entity.get("value")))


def _children(node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    children = node.get("children", {})
    if not isinstance(children, Mapping):
        raise SensorError(
            "the report's JSON has something else than parts under children: run dcgmi health -c -j again"
        )
    for name, child in children.items():
        if isinstance(child, Mapping):
            yield str(name), child


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Every text below an incident but its own state, whatever the release calls the key."""
    if depth > 4:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key != "value" or depth > 0:
                yield from _texts(item, depth + 1)


def _of_table(text: str) -> DcgmHealthSample | None:
    overall = _OVERALL.search(text)
    if overall is None:
        return None
    lines = text[overall.start() :].rstrip().splitlines()
    if lines and any(line.lstrip().startswith("|") for line in lines) and not lines[-1].lstrip().startswith("+"):
        raise SensorError("the report's table is cut off: run dcgmi health -c again")
    incidents: list[DcgmIncident] = []
    group, entity, state = "GPU", None, "unknown"
    if any(len(line) > MAX_ROW for line in lines):
        raise SensorError("the report has a row longer than any of dcgmi's: run dcgmi health -c -j")
    for line in lines[1:]:
        row = _ROW.match(line)
        if row is None:
            continue
        left, said = row["left"].strip(), row["right"].strip()
        old = _OLD_ENTITY.match(left)
        part = re.match(r"^-> (?P<name>.+)$", left)
        if old is not None:
            group, entity, state = old["group"], int(old["id"]), health_of(said)
        elif part is not None and part["name"].strip().isdecimal():
            entity, state = int(part["name"]), health_of(said)
        elif part is not None and part["name"] == "Errors":
            continue
        elif part is not None:
            incidents.append(
                DcgmIncident(group=group, entity=entity, system=part["name"].strip(), health=health_of(said))
            )
        elif left:
            group, entity, state = left, None, "unknown"
        elif (found := _OLD_SYSTEM.match(said)) is not None:
            incidents.append(
                DcgmIncident(
                    group=group,
                    entity=entity,
                    system=found["system"],
                    health=health_of(found["said"]),
                    text=found["text"],
                )
            )
        elif incidents and said:
            last = incidents[-1]
            incidents[-1] = DcgmIncident(
                group=last.group,
                entity=last.entity,
                system=last.system,
                health=last.health,
                text=f"{last.text} {said}".strip()[:_MAX_TEXT],
            )
        elif said and state == "unknown":
            raise SensorError("the report's table has rows that are not understood: run dcgmi health -c -j")
    return DcgmHealthSample(overall=health_of(overall["said"]), incidents=tuple(incidents))
