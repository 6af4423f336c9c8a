"""The reference page of all checks, made from their declarations: `python -m nodewatch.checks._docs > docs/checks.md`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from nodewatch.checks._api import CheckSpec, Phase, built_in_checks

_WIDTH = 125
_HEAD = """\
# Checks

Made from the checks themselves by `python -m nodewatch.checks._docs > docs/checks.md`; a test fails when it is stale.

A check is a pure function of one reading that yields findings: fault, the part that has it, severity and the smallest remedy
that could cure it ([interfaces](interfaces.md) has the words). `info` and `warn` leave the node in service, `degraded` drains
it when its jobs are done, `fatal` lets no job run. Every check can be switched off and timed in `agent.toml`, and its
thresholds changed:

```toml
[checks.kernel_xid]
enabled = true
every_s = 10.0
severity = { "63" = "degraded" }
```

A *lasting* finding is seen once, in the kernel log, and holds until a repair or the next boot. Others hold for as long as
they are seen. A check that cannot tell says so, and nothing follows from it. Every check runs on a recording as well:
`nodewatch replay --sensor SENSOR FILE`.
"""
_PHASES = (
    (Phase.PROLOG, "before a job"),
    (Phase.EPILOG, "after a job"),
    (Phase.PERIODIC, "in the background"),
    (Phase.DEEP, "in deep validation"),
)


def page(specs: Mapping[str, CheckSpec]) -> str:
    """The page in Markdown."""
    parts = [_HEAD, "| Check | What it looks for |\n|---|---|\n" + "".join(_row(spec) for spec in specs.values())]
    parts += ["\n".join(_section(spec)) for spec in specs.values()]
    return "\n".join(parts)


def _row(spec: CheckSpec) -> str:
    return f"| [{spec.name}](#{spec.name}) | {_cell(spec.summary)} |\n"


def _section(spec: CheckSpec) -> Iterator[str]:
    yield f"## {spec.name}\n"
    yield _filled(spec.summary) + "\n"
    yield _filled(inspect.getdoc(spec.function) or "") + "\n"
    phases = [words for phase, words in _PHASES if phase in spec.phases]
    stream = spec.reads.__name__ == "KmsgSample"
    cadence = "as lines are written" if stream else f"every {spec.every_s:g} s"
    lasting = ", lasting" if spec.lasting else ""
    yield f"Reads `{spec.reads.__name__}`, {cadence}; {' and '.join(phases)}{lasting}.\n"
    if spec.thresholds is not None:
        yield f"| `[checks.{spec.name}]` | Default | |\n|---|---|---|"
        notes = _notes(spec.thresholds)
        for field in dataclasses.fields(spec.thresholds):
            yield f"| `{field.name}` | `{_default(field)}` | {_cell(notes.get(field.name, ''))} |"
        general = inspect.getdoc(spec.thresholds) or ""
        if not all(field.name in notes for field in dataclasses.fields(spec.thresholds)) and general:
            yield "\n" + _filled(general)
        yield ""


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default is not dataclasses.MISSING else None
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list | frozenset | set):
        return "[" + ", ".join(f'"{item}"' if isinstance(item, str) else f"{item}" for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{key}" = {item!r}' for key, item in value.items()) + " }" if value else "{}"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def _notes(kind: type[Any]) -> dict[str, str]:
    """The text below each field of a dataclass, by the field's name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    notes: dict[str, str] = {}
    name = ""
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            notes[name] = inspect.cleandoc(str(node.value.value))
            name = ""
        else:
            name = ""
    return notes


def _filled(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return "\n\n".join(
        textwrap.fill(part, _WIDTH, break_long_words=False, break_on_hyphens=False) for part in paragraphs if part
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page(built_in_checks()))
