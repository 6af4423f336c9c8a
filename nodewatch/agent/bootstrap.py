"""What the script that made this machine a node left behind when it failed: one line, told with the agent's `hello`."""

from __future__ import annotations

from pathlib import Path

NAME = "bootstrap-failed"
"""In the agent's state directory; packaging/bootstrap writes it, and removes it once the node is complete."""
_MOST_BYTES = 2000


def failure(state_dir: Path) -> str:
    """Why the lifecycle script failed, one line; empty when it did not, or when nobody can tell."""
    try:
        with (state_dir / NAME).open("rb") as stream:
            text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return " ".join(text.split())[:300] or "it does not say why"
