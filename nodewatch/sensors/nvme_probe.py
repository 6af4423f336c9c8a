"""Ask NVMe controllers for their health log; run as a program by a child process, since a controller may wait for ever.

For each device named on the command line one line of JSON: `{"name","log"}` with the 512 bytes of the log in hexadecimal, or
`{"name","why"}`. It reads only, by the kernel's own call for administrators (NVME_IOCTL_ADMIN_CMD of linux/nvme_ioctl.h).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
import sys

_ADMIN_COMMAND = 0xC0484E41
"""_IOWR('N', 0x41, struct nvme_admin_cmd), which is 72 bytes long."""
_GET_LOG_PAGE = 0x02
_HEALTH = 0x02
_ALL_NAMESPACES = 0xFFFFFFFF
_BYTES = 512
_TIMEOUT_MS = 5000


def command_for(address: int) -> bytearray:
    """`struct nvme_admin_cmd` that asks for the health log into `address`."""
    # The log's length is given in words of four bytes, less one.
    which = _HEALTH | ((_BYTES // 4 - 1) << 16)
    return bytearray(
        struct.pack(
            "=BBHIIIQQIIIIIIIIII",
            *(_GET_LOG_PAGE, 0, 0, _ALL_NAMESPACES, 0, 0, 0, address, 0, _BYTES),
            *(which, 0, 0, 0, 0, 0, _TIMEOUT_MS, 0),
        )
    )


def ask(path: str) -> dict[str, str]:
    """The health log of the controller at `path`, or why there is none."""
    name = os.path.basename(path)  # noqa: PTH119
    buffer = ctypes.create_string_buffer(_BYTES)
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = fcntl.ioctl(device, _ADMIN_COMMAND, command_for(ctypes.addressof(buffer)))
        finally:
            os.close(device)
    except OSError as error:
        return {"name": name, "why": error.strerror or str(error)}
    if status != 0:
        return {"name": name, "why": f"NVMe status {status:#x}"}
    return {"name": name, "log": buffer.raw.hex()}


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(json.dumps(ask(each)), flush=True)
