"""The messages written down in docs/interfaces.md are those that the code takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nodewatch.controller.inbox import take_all
from nodewatch.model.health import NodeState
from nodewatch.testing import World

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "interfaces.md").read_text(encoding="utf-8")


def examples(section: str) -> list[dict[str, Any]]:
    """The JSON objects of one section; `...` stands for a value of the reader's choice."""
    text = PAGE.split(f"\n## {section}", 1)[1].split("\n## ", 1)[0]
    block = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    # One object may stretch over lines; the next begins at a name or an arrow.
    found = []
    for part in re.split(r"\n    (?=\S)", "\n" + block):
        start = part.find("{")
        if start < 0:
            continue
        filled = part[start:].replace('"<', '"x').replace("{...}", '{"state":"healthy","since":1.0}')
        filled = re.sub(r"(?<=[:\s\[]),? ?\.\.\.(?=[,\]}])", "1.0", filled).replace(", 1.0]", "]")
        try:
            value, _ = json.JSONDecoder().raw_decode(filled)
        except ValueError as error:
            raise AssertionError(f"the example cannot be read: {filled}") from error
        found.append(value)
    return found


def test_hook_files(tmp_path: Path) -> None:
    started, ended = examples("3.")
    world = World()
    for name, message in (("job_started-17-0.json", started), ("job_ended-17-0.json", ended)):
        (tmp_path / name).write_text(json.dumps(message))
    take_all(tmp_path, world.engine.receive_hook)
    assert not (tmp_path / "rejected").exists()
    job = world.engine.ledger.jobs[17]
    assert (job.nodes, job.user, job.partition, job.budget) == (("n1", "n2", "n3"), "ada", "train", "3")
    assert (job.exit_code, job.ended_at) == ("1:0", 1.0)


def test_agents_message_and_its_answer() -> None:
    message = examples("4.")[0]
    world = World()
    accepted, requests, _ = world.engine.receive_agent(message)
    assert accepted == [event["id"] for event in message["events"]]
    assert requests == []
    assert world.engine.ledger.agents["n2"].instance_id == "i-..."


@pytest.mark.parametrize("kind", ["hello", "verdict", "validated", "hook_denied", "drained_self"])
def test_every_kind_of_event_is_taken_under_its_name(kind: str) -> None:
    assert f"`{kind}`" in PAGE
    event = {
        "id": "b:1",
        "at": 1.0,
        "kind": kind,
        "key": "k",
        "passed": None,
        "verdict": {"state": "healthy", "since": 1},
    }
    world = World()
    world.engine.receive_agent({"node": "n2", "events": [event]})
    assert world.journal.records[-1].kind == kind


def test_the_words_of_a_verdict() -> None:
    assert f'"state":"{"|".join(state.value for state in NodeState)}"' in PAGE
