"""Clock times, in the reader's own time zone."""

from __future__ import annotations

from datetime import datetime


def stamp(at: float) -> str:
    """`at`, seconds since the epoch, to the second."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
