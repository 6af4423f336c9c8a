"""Debian's own promtool and amtool, in a layer over the rehearsal's base image."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from nodewatch.lab import image
from nodewatch.lab.layout import STATE_DIR_DEFAULT, STATE_DIR_VARIABLE, Layout
from tests.packaging.trees import base_tree, held

# The daemons themselves and their web pages are 180 MB that no check needs.
FETCH = """set -e
mkdir -p /tmp/prometheus && cd /tmp/prometheus
apt='apt-get -q -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any'
$apt update
$apt download promtool prometheus-alertmanager
for file in *.deb; do dpkg-deb -x "$file" all; done
mv all/usr/bin/promtool all/usr/bin/amtool /usr/bin
"""


def tools() -> str:
    """The lower directories of a tree with promtool and amtool, made where nothing has made them yet."""
    layout = Layout(root=Path(os.environ.get(STATE_DIR_VARIABLE) or STATE_DIR_DEFAULT))
    base = base_tree()
    wanted = layout.images / f"prometheus-{hashlib.sha256(f'{base.name} {FETCH}'.encode()).hexdigest()[:12]}"
    with held(layout):
        if not wanted.is_dir():
            image.with_temporary(wanted, lambda tree: _fetch(layout, base, tree))
            image.prune(wanted, "prometheus-*")
    return f"{wanted}:{base}"


def _fetch(layout: Layout, base: Path, tree: Path) -> None:
    image.in_layer(layout, [base], tree, ["sh", "-c", FETCH], deadline_s=300, log=layout.images / "build.log")
    for leftover in ("tmp/prometheus", "var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(tree / leftover, ignore_errors=True)
