"""The process that calls NVML, so that a call that hangs in the driver hangs it and not the agent.

One line `{"ask":"gpus"}` on standard input is answered by one line of JSON on standard output, `{"driver","gpus",
"unreadable"}` or `{"error","kind"}` with kind `no_library`, `no_driver` or `other`. It ends when standard input does.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

from nodewatch.sensors import nvml_processes
from nodewatch.sensors import nvml_questions as questions

_AGAIN_AFTER_S = 60.0
"""How often NVML is started anew while a GPU is in trouble, to see it come back: without persistence that takes seconds."""
_SELDOM_S = 30.0
"""How often what changes seldom is asked: a call for each NVLink of each GPU is some hundred calls."""


class Nvml:
    """NVML, started at the first reading and again when it failed."""

    def __init__(self) -> None:
        import pynvml

        self._nvml: Any = pynvml
        self._started_at: float | None = None
        self._trouble = False
        self._known: dict[int, dict[str, Any]] = {}
        self._seldom: dict[int, tuple[float, dict[str, Any], frozenset[str]]] = {}
        self._failed: set[str] = set()
        self._owners = nvml_processes.Owners()

    def read(self, now: float) -> dict[str, Any]:
        """All GPUs as plain values, or why there are none."""
        nvml = self._nvml
        if self._started_at is not None and self._trouble and now - self._started_at > _AGAIN_AFTER_S:
            self._stop()
        try:
            if self._started_at is None:
                nvml.nvmlInit()
                self._started_at = now
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            self._stop()
            return {"error": str(error), "kind": self._kind(error)}
        gpus: list[dict[str, Any]] = []
        unreadable: list[list[Any]] = []
        for index in range(count):
            try:
                gpus.append(self._gpu(index, now))
            except nvml.NVMLError_GpuIsLost:
                known = self._known.get(index, {"uuid": "", "pci_bus_id": ""})
                gpus.append({**known, "index": index, "is_lost": True})
            except nvml.NVMLError as error:
                unreadable.append([index, str(error)])
        self._trouble = bool(unreadable) or any(gpu["is_lost"] for gpu in gpus)
        return {"driver": driver, "gpus": gpus, "unreadable": unreadable}

    def _gpu(self, index: int, now: float) -> dict[str, Any]:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        self._failed = set()
        known = self._known.get(index)
        if known is None or known["uuid"] != uuid:
            known = {
                "uuid": uuid,
                "pci_bus_id": _text(nvml.nvmlDeviceGetPciInfo(handle).busId),
                "serial": self._ask("nvmlDeviceGetSerial", handle),
                "name": self._ask("nvmlDeviceGetName", handle),
                **questions.once(self._ask, handle),
            }
            self._known[index] = known
            self._seldom.pop(index, None)
        asked_at, seldom, failed = self._seldom.get(index, (now - _SELDOM_S, {}, frozenset()))
        if now - asked_at >= _SELDOM_S:
            seldom = {
                **questions.now_and_then(nvml, self._ask, handle),
                **nvml_processes.read(nvml, self._ask, handle, self._owners, now),
            }
            failed = frozenset(self._failed)
            self._seldom[index] = (now, seldom, failed)
        gpu = {**known, **seldom, "index": index, "is_lost": False, **questions.each_time(self._ask, handle)}
        return {**gpu, "failed_fields": sorted(self._failed | failed)}

    def _ask(self, name: str, *arguments: Any) -> Any:
        """What the function answers; None when it is not to be had. That the GPU is lost comes through."""
        nvml = self._nvml
        function = getattr(nvml, name, None)
        if function is None:
            return None
        try:
            value = function(*arguments)
        except nvml.NVMLError_GpuIsLost:
            raise
        except (nvml.NVMLError_Unknown, nvml.NVMLError_Timeout):
            self._failed.add(name)
            return None
        except nvml.NVMLError:
            # Not supported, not found, not permitted, another version of a structure: it does not offer it.
            return None
        return _text(value) if isinstance(value, bytes) else value

    def _kind(self, error: Exception) -> str:
        nvml = self._nvml
        if isinstance(error, nvml.NVMLError_LibraryNotFound):
            return "no_library"
        if isinstance(error, nvml.NVMLError_DriverNotLoaded):
            return "no_driver"
        return "other"

    def _stop(self) -> None:
        if self._started_at is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
        self._started_at = None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def main() -> None:
    """Answer requests until standard input ends."""
    try:
        nvml = Nvml()
    except ImportError as error:
        nvml = None
        missing = {"error": f"the Python package nvidia-ml-py is not installed ({error})", "kind": "no_library"}
    for _ in sys.stdin:
        answer = missing if nvml is None else nvml.read(time.monotonic())
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
