"""Writes, syncs and reads back a small file in the directory that is its argument: run as a program by a validation.

It is a program of its own so that a file system that hangs hangs it alone. The standard library only, no package: it starts
with `-I -S`. Status 0: all well; 1: standard error says what is wrong.
"""

from __future__ import annotations

import contextlib
import os
import sys


def probe(directory: str) -> str | None:
    """What is wrong with writing into `directory`; None when nothing is."""
    path = os.path.join(directory, f".nodewatch-probe-{os.uname().nodename}-{os.getpid()}")  # noqa: PTH118
    content = os.urandom(4096)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, content)
            os.fsync(fd)
            read = os.pread(fd, len(content) + 1, 0)
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
    except OSError as error:
        return (
            f"{directory} cannot be written ({error.strerror}): let root write there, or set deep_write_probe = false"
        )
    return None if read == content else f"{directory} gave back other bytes than were written"


if __name__ == "__main__":
    wrong = probe(sys.argv[1])
    if wrong is not None:
        print(wrong, file=sys.stderr)
        sys.exit(1)
