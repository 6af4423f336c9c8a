"""Wait for an answer of the controller, and show meanwhile what is going on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import click

_PERIOD_S = 0.5
_T = TypeVar("_T")


def follow(look: Callable[[], _T], *, now: Callable[[_T], str | None], shows: bool) -> _T:
    """What `look` gives once `now` says nothing more of it.

    `now` tells in a line what is waited for; each change of it goes to standard error, where `shows` is set.
    """
    shown = ""
    while True:
        told = look()
        line = now(told)
        if line is None:
            if shows and shown and sys.stderr.isatty():
                click.echo("", err=True)
            return told
        if shows and line != shown:
            # On a terminal one line that is written over; in a log a line for each change.
            click.echo(f"\r\033[K{line}" if sys.stderr.isatty() else line, err=True, nl=not sys.stderr.isatty())
            shown = line
        time.sleep(_PERIOD_S)
