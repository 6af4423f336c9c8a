"""Which machine this is and which boot of it: names that events carry."""

from __future__ import annotations

import socket
from pathlib import Path

from nodewatch.errors import SensorError


def boot_id(boot_id_file: Path, *, init_stat: Path = Path("/proc/1/stat")) -> str:
    """A name for this boot of this machine, different at the next boot. Raises SensorError when it cannot be read.

    The kernel's boot id alone is not enough: containers and systemd-nspawn machines share it with their host and with each
    other, and keep it over their own restart. So the start of PID 1 as this machine sees it (field 22 of /proc/1/stat, in
    clock ticks since the kernel's boot) is added.
    """
    try:
        kernel = boot_id_file.read_text(encoding="ascii").strip()
        stat = init_stat.read_text(encoding="utf-8", errors="replace")
        # The command's name, in parentheses, may hold spaces and parentheses: fields are counted from its last one.
        started = stat.rpartition(")")[2].split()[19]
        return f"{kernel}-{int(started)}"
    except (OSError, ValueError, IndexError) as error:
        raise SensorError(f"the boot of this machine has no name ({error}): set boot_id_file in agent.toml") from error


def first_line(path: Path) -> str:
    """The first line of a small file such as the DMI ones, empty when it cannot be read or is a kernel's placeholder."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[0].strip() if lines else ""


def node_name() -> str:
    """The hostname's first label, which is how Slurm names a node by default."""
    return socket.gethostname().partition(".")[0]
