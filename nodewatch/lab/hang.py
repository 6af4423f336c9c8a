"""A file system that hangs: `python -m nodewatch.lab.hang INIT_PID PATH`, which lasts as long as this process does.

A FUSE file system whose server never answers is laid over PATH in the mount namespace of the machine whose init is given. Who
asks it waits, as the clients of Lustre do while its server is away. With this process the kernel gives the waiting ones an
error, and the mount is taken away again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from nodewatch.lab.errors import LabError

FUSE = "/dev/fuse"
_MNT_DETACH = 2
_CLONE_NEWNS = 0x00020000


def lay_over(path: str, init_pid: int) -> int:
    """Mount it; the descriptor is its server's. This process is in the machine's mount namespace from then on.

    Raises LabError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open(FUSE, os.O_RDWR | os.O_CLOEXEC)
        space = os.open(f"/proc/{init_pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"no file system can be made to hang: {error}") from error
    # os.setns came with Python 3.12.
    if libc.setns(space, _CLONE_NEWNS) != 0:
        raise LabError(f"the machine's mounts cannot be reached: {os.strerror(ctypes.get_errno())}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"hanging", path.encode(), b"fuse.hanging", 0, options.encode()) != 0:
        raise LabError(f"nothing can be mounted over {path}: {os.strerror(ctypes.get_errno())}")
    return server


def take_away(path: str, server: int) -> None:
    """End it: the name first, so that those who get an error and ask again find what lies below."""
    ctypes.CDLL(None, use_errno=True).umount2(path.encode(), _MNT_DETACH)
    os.close(server)


def main() -> None:
    """Hang until a signal asks for the end; the word "hangs" on standard output says that it has begun."""
    init_pid, path = int(sys.argv[1]), sys.argv[2]
    wanted = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        server = lay_over(path, init_pid)
    except LabError as error:
        sys.exit(str(error))
    print("hangs", flush=True)
    signal.sigwait(wanted)
    take_away(path, server)


if __name__ == "__main__":
    main()
