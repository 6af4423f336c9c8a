"""Prints the allowance counters of the interfaces that are its arguments, as `ethtool -S` reads them: run as a program.

It is a program of its own because the question waits for the kernel's lock on all interfaces and then for the device: one
that is being reset, or a sick one, answers after seconds or not at all. Starts with `-I -S`: the standard library only.
A line is `interface counter value`; `interface ! reason` for one that gives no counters.
"""

from __future__ import annotations

import _socket  # socket itself takes as long to load as everything else here
import array
import fcntl
import struct
import sys

_SIOCETHTOOL = 0x8946
_GSTRINGS = 0x1B
_GSTATS = 0x1D
_GSSET_INFO = 0x37
_STATISTICS = 1
"""ETH_SS_STATS. All from linux/sockios.h and linux/ethtool.h."""
_NAME = 32
"""ETH_GSTRING_LEN."""
_SPARE = 512
"""Room for counters that appear between two questions (a queue that was added): the kernel writes as many as there are."""


def statistics(name: str) -> dict[str, int]:
    """All statistics of the interface's driver. Raises OSError when it has none or is gone."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM, 0)
    try:
        info = array.array("B", struct.pack("@IIQI", _GSSET_INFO, 0, 1 << _STATISTICS, 0))
        _ask(sock, name, info)
        _, _, mask, count = struct.unpack_from("@IIQI", info)
        if not mask or not 0 < count < 65536:
            return {}
        strings = array.array("B", struct.pack("@III", _GSTRINGS, _STATISTICS, count))
        strings.frombytes(bytes(_NAME * (count + _SPARE)))
        _ask(sock, name, strings)
        values = array.array("B", struct.pack("@II", _GSTATS, count))
        values.frombytes(bytes(8 * (count + _SPARE)))
        _ask(sock, name, values)
    finally:
        sock.close()
    # Fewer of either are told by their own length: the names of one question belong to the values of the other only then.
    if struct.unpack_from("@I", strings, 8) != struct.unpack_from("@I", values, 4):
        raise OSError("its counters changed while they were read")
    count = min(struct.unpack_from("@I", values, 4)[0], count)
    text = strings.tobytes()
    numbers = struct.unpack_from(f"@{count}Q", values, 8)
    labels = [
        text[12 + _NAME * n : 12 + _NAME * (n + 1)].split(b"\0")[0].decode("ascii", "replace") for n in range(count)
    ]
    return dict(zip(labels, numbers, strict=True))


def _ask(sock: _socket.socket, name: str, buffer: array.array[int]) -> None:
    address = buffer.buffer_info()[0]
    fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, struct.pack("@16sP16x", name.encode()[:15], address))


def main() -> None:
    """One line a counter for each interface."""
    for name in sys.argv[1:]:
        try:
            found = {key: value for key, value in statistics(name).items() if key.endswith("_allowance_exceeded")}
        except OSError as error:
            print(name, "!", error.strerror or error)
            continue
        for key, value in found.items():
            print(name, key, value)
        if not found:
            print(name, "!", "its driver has no allowance counters")


if __name__ == "__main__":
    main()
