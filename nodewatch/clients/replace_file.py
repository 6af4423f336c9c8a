"""Put a text in the place of a file in one step: whoever reads it sees the old one whole or the new one whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from nodewatch.errors import ConfigError


def replace_file(path: Path, text: str) -> None:
    """Put `text` into `path`, with the owner and mode that it had, else readable for all. Raises ConfigError."""
    try:
        before = path.stat() if path.exists() else None
        # Beside it: a rename is one step only within a file system.
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), before.st_mode & 0o7777 if before else 0o644)
            if before and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                with contextlib.suppress(PermissionError):
                    os.fchown(stream.fileno(), before.st_uid, before.st_gid)
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
