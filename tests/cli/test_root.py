"""The list of commands and the examples of the root's help."""

from __future__ import annotations

import importlib.util

import click
import pytest
from click.testing import CliRunner

from nodewatch.cli.root import root


def test_the_help_has_an_example_for_each_group_and_none_of_what_is_not_there() -> None:
    text = CliRunner().invoke(root, ["--help"]).output
    for title in ("Look:", "Act:", "Test:", "Set up:", "Try:"):
        assert title in text
    examples = [
        line.split()[1] for line in text.partition("Options:")[0].splitlines() if line.startswith("  nodewatch ")
    ]
    listed = root.list_commands(click.Context(root))
    assert set(examples) <= set(listed), "an example of no command"


def test_what_is_not_installed_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    listed = root.list_commands(click.Context(root))
    assert "simulate" not in listed
    assert "lab" not in listed
    assert "status" in listed
    text = CliRunner().invoke(root, ["--help"]).output
    assert "nodewatch simulate" not in text
