"""The training environment, as sites keep it: one Python tree on shared storage, seen by every node."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from nodewatch.lab.layout import Layout

TRAIN_ENV = "/opt/train-env"


def training_binds(base: Path) -> list[str]:
    """What to bind so that /opt/train-env/bin/python imports torch in a machine; nothing when this Python has none."""
    if sys.prefix == sys.base_prefix or find_spec("torch") is None:
        return []
    binds = [f"--bind-ro={sys.prefix}:{TRAIN_ENV}"]
    # A venv's python is a link to the Python it was made from: that one has to be at its own path in the machine too.
    if sys.base_prefix != "/usr":
        return [*binds, f"--bind-ro={sys.base_prefix}"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (base / "usr/bin" / version).exists():
        binds += [f"--bind-ro=/usr/bin/{version}", f"--bind-ro=/usr/lib/{version}"]
    return binds


def copy_training_code(layout: Layout, checkout: Path) -> bool:
    """Put the checkout's train/ on /fsx; False when there is none to copy."""
    source = checkout / "train"
    if not source.is_dir():
        return False
    shutil.copytree(
        source, layout.fsx / "train", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    return True
