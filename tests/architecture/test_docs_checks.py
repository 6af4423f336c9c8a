"""The reference page of the checks is the one that the checks make."""

from __future__ import annotations

from pathlib import Path

from nodewatch.checks._api import built_in_checks
from nodewatch.checks._docs import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checks.md"


def test_the_page_is_fresh() -> None:
    stale = "docs/checks.md is stale: python -m nodewatch.checks._docs > docs/checks.md"
    assert PAGE.read_text(encoding="utf-8") == page(built_in_checks()), stale


def test_every_check_says_what_it_yields() -> None:
    silent = [spec.name for spec in built_in_checks().values() if not spec.function.__doc__]
    assert silent == []


def test_the_page_has_every_check_and_every_threshold() -> None:
    text = page(built_in_checks())
    for spec in built_in_checks().values():
        assert f"\n## {spec.name}\n" in text
        for name in getattr(spec.thresholds, "__dataclass_fields__", {}):
            assert f"| `{name}` |" in text
