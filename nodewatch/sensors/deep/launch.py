"""Becomes the diagnostic that its arguments name, after it has seen to it that the diagnostic does not outlive the agent.

Run as a program by a deep diagnostic; the standard library only, no package: it starts with `-I -S`. It is a program of its
own, so that an executable on a file system that hangs hangs nobody else. Status 127: there is no such program; 126: it cannot
be executed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Replace this process by `argv[1:]`; `argv[0]` is the process id of the agent. Returns only when that failed."""
    parent, command = int(argv[0]), argv[1:]
    # A tool outside the agent's control group is not ended with it: without this it would run on under a user's job.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    # systemd gives a service 8 MiB of locked memory: EFA and NCCL register gigabytes.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    # The agent has signals blocked or ignored for itself; a tool that inherited that could not be stopped.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
