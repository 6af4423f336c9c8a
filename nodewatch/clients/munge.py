"""MUNGE credentials by libmunge (through ctypes): who sent a message, on this cluster, and that nobody changed it.

libmunge has no Python package that is kept up; four functions of its C interface (munge(3)) are all that is needed.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from nodewatch.errors import ChannelError

_OPT_SOCKET = 8
"""MUNGE_OPT_SOCKET of munge.h."""
_SUCCESS = 0
_ADVICE = {
    2: "the message is malformed",
    3: "the message is longer than munged takes: send less at once",
    6: "munged cannot be reached: start munge.service on this machine",
    7: "munged did not answer in time: restart munge.service on this machine",
    8: "it is no MUNGE credential",
    11: "its checksum is wrong: use the same munge.key on all machines",
    14: "it was sealed with another key: use the same munge.key on all machines",
    15: "it is too old: compare the clocks of the two machines",
    16: "it is from the future: compare the clocks of the two machines",
    17: "it was used before: somebody sends a copy",
    18: "it is not meant for this user",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The content of a credential and who sealed it, as munged on the sender's machine vouches."""

    payload: bytes
    uid: int
    gid: int


class Munge:
    """Seals and opens messages through the munged of this machine. Every failure is a ChannelError of one sentence."""

    def __init__(self, *, socket: Path | None = None, library: str = "libmunge.so.2") -> None:
        """`socket` is munged's, None for libmunge's own default. Raises ChannelError without libmunge."""
        try:
            lib = ctypes.CDLL(library)
        except OSError as error:
            raise ChannelError(f"{library} cannot be loaded: install the package munge (libmunge2)") from error
        self._libc = ctypes.CDLL(None)
        self._libc.free.argtypes = [ctypes.c_void_p]
        self._libc.free.restype = None
        lib.munge_ctx_create.restype = ctypes.c_void_p
        lib.munge_ctx_destroy.argtypes = [ctypes.c_void_p]
        lib.munge_ctx_set.restype = ctypes.c_int
        lib.munge_strerror.argtypes = [ctypes.c_int]
        lib.munge_strerror.restype = ctypes.c_char_p
        lib.munge_encode.argtypes = [
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_int,
        ]
        lib.munge_decode.argtypes = [
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.POINTER(ctypes.c_int),
            ctypes.POINTER(ctypes.c_uint32),
            ctypes.POINTER(ctypes.c_uint32),
        ]
        self._lib = lib
        self._socket = socket

    def encode(self, payload: bytes) -> str:
        """A credential that carries `payload`, sealed as this process's user. Raises ChannelError."""
        credential = ctypes.c_void_p()
        context = self._context()
        try:
            code = self._lib.munge_encode(ctypes.byref(credential), context, payload, len(payload))
            if code != _SUCCESS:
                raise ChannelError(f"the message cannot be sealed with MUNGE: {self._why(code)}")
            return ctypes.string_at(credential.value or 0).decode("ascii")
        finally:
            self._libc.free(credential)
            self._lib.munge_ctx_destroy(context)

    def decode(self, credential: str) -> tuple[bytes, int, int]:
        """(payload, uid, gid) of `credential`. Raises ChannelError when it is not valid here and now, or was seen before."""
        opened = self.open(credential)
        return opened.payload, opened.uid, opened.gid

    def open(self, credential: str) -> Opened:
        """What `credential` holds. Raises ChannelError like `decode`."""
        try:
            text = credential.encode("ascii")
        except UnicodeEncodeError as error:
            raise ChannelError("a MUNGE credential was refused: it is not even ASCII text") from error
        # libmunge reads up to the first zero byte: what follows would be ignored in silence.
        if b"\0" in text:
            raise ChannelError("a MUNGE credential was refused: it holds a zero byte")
        buffer, length = ctypes.c_void_p(), ctypes.c_int(0)
        uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
        context = self._context()
        try:
            code = self._lib.munge_decode(
                text, context, ctypes.byref(buffer), ctypes.byref(length), ctypes.byref(uid), ctypes.byref(gid)
            )
            # An expired or replayed credential is decoded all the same: its content must not be used.
            if code != _SUCCESS:
                raise ChannelError(f"a MUNGE credential was refused: {self._why(code)}")
            payload = ctypes.string_at(buffer.value, length.value) if buffer.value else b""
            return Opened(payload=payload, uid=uid.value, gid=gid.value)
        finally:
            self._libc.free(buffer)
            self._lib.munge_ctx_destroy(context)

    def _context(self) -> ctypes.c_void_p:
        # One context a call: libmunge writes the last error into it, and two threads may call at once.
        context = ctypes.c_void_p(self._lib.munge_ctx_create())
        if not context:
            raise ChannelError("libmunge has no memory for a context: look at this machine's memory")
        if self._socket is not None:
            code = self._lib.munge_ctx_set(context, _OPT_SOCKET, ctypes.c_char_p(str(self._socket).encode()))
            if code != _SUCCESS:
                self._lib.munge_ctx_destroy(context)
                raise ChannelError(f"munged's socket {self._socket} cannot be used: {self._why(code)}")
        return context

    def _why(self, code: int) -> str:
        text = self._lib.munge_strerror(code)
        said = text.decode("utf-8", "replace") if text else f"error {code}"
        advice = _ADVICE.get(code)
        return f"{advice} ({said})" if advice else said
