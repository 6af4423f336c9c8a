"""`nvidia-smi -q -x`, as it was printed: XML, error lines before or in place of it, several documents in a row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

from nodewatch.errors import SensorError
from nodewatch.knowledge.instance_types import TABLE
from nodewatch.model.gpu_samples import Gpu, GpuSample
from nodewatch.sensors.nvml_xml import read_gpu
from nodewatch.sensors.recorded._api import Recording

_MAX_BYTES = 64 << 20
_MAX_DOCUMENT = 16 << 20
"""Eight GPUs are about 1 MiB; a tree takes some ten times the room of its text."""
_MAX_PROLOG = 4096
_MAX_GPUS = 1024
_START = re.compile(r"<nvidia_smi_log\b")
_END = "</nvidia_smi_log>"
_HANDLE = re.compile(
    r"Unable to determine the device handle for gpu\s?(?:[0-9]{1,3}:\s{1,4})?"
    r"(?P<pci>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])?"
    r":?\s*(?P<why>.*)",
    re.IGNORECASE,
)
_INFOROM = re.compile(
    r"infoROM is corrupted at gpu (?P<pci>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])", re.IGNORECASE
)
_MISMATCH = re.compile(r"^.*Driver/library version mismatch.*$", re.MULTILINE | re.IGNORECASE)
_NO_GPU = re.compile(r"^[ \t]{0,80}No devices (?:were found|found)", re.MULTILINE | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PROCESSES = re.compile(r"<(?P<tag>processes|accounted_processes)>.*?</(?P=tag)>", re.DOTALL)
_TROUBLE = (
    ("couldn't communicate with the nvidia driver", "load the driver and look at dmesg"),
    ("failed to initialize nvml", "look at dmesg and at the device files in /dev"),
    ("command not found", "install nvidia-smi where the agent looks for it"),
    ("no such file or directory", "install nvidia-smi where the agent looks for it"),
    ("permission denied", "let the agent run nvidia-smi"),
)


def load(recording: Recording) -> Iterator[GpuSample]:
    """Each document in the recording. Raises SensorError when there is none, or one that is cut off or has entities."""
    before: GpuSample | None = None
    if recording.previous is not None:
        earlier = replace(recording, path=recording.previous, previous=None, interval_s=None)
        for sample in _parse(earlier):
            before = sample
    for sample in _parse(recording):
        yield sample if before is None else replace(sample, previous=before, interval_s=recording.interval_s)


def _parse(recording: Recording) -> Iterator[GpuSample]:
    text = _CONTROL.sub("?", recording.read(at_most=_MAX_BYTES).decode("utf-8", "replace"))
    kind = TABLE.get(recording.instance_type)
    links = None if kind is None or kind.nvlinks_per_gpu == 0 else kind.nvlinks_per_gpu
    expected = None if kind is None else kind.gpus
    at = 0
    count = 0
    while (start := _START.search(text, at)) is not None:
        end = text.find(_END, start.end())
        if end < 0:
            lost = tuple(_lost(text[start.end() :], 0))
            if lost:
                # It stops in the middle of its document at a GPU that it cannot reach, and says which.
                yield replace(_stopped_at(lost, expected), nvlinks_expected=links)
                return
            raise SensorError("the XML of nvidia-smi is cut off: run nvidia-smi -q -x again and let it end")
        prolog, at = text[at : start.start()], end + len(_END)
        # Only what stands right before the document could belong to it, and none of it reaches the parser.
        head = prolog[-_MAX_PROLOG:].upper()
        if "<!ENTITY" in head or re.search(r"<!DOCTYPE[^>]*\[", head):
            raise SensorError("the XML declares entities, which nvidia-smi never does: it is not read")
        if at - start.start() > _MAX_DOCUMENT:
            raise SensorError("the XML is longer than any that nvidia-smi writes: it is not read")
        following = _START.search(text, at)
        said = prolog + text[at : following.start() if following else len(text)]
        sample = _sample(_tree(text[start.start() : at]), said, expected)
        yield replace(sample, nvlinks_expected=links)
        count += 1
    if count == 0:
        yield replace(_words(text, expected), nvlinks_expected=links)
    elif re.search(r"<\?xml\b", text[at:]):
        raise SensorError("the XML of nvidia-smi is cut off: run nvidia-smi -q -x again and let it end")


def _tree(document: str) -> ElementTree.Element:
    # The names of processes are anybody's text, and not every release escapes them.
    document = _PROCESSES.sub("", document)
    if "<!" in document:
        raise SensorError("the XML has declarations inside its document, which nvidia-smi never has: it is not read")
    try:
        return ElementTree.fromstring(document)
    except (ElementTree.ParseError, RecursionError) as error:
        raise SensorError(f"the XML of nvidia-smi cannot be read ({error}): run nvidia-smi -q -x again") from error


def _sample(root: ElementTree.Element, said: str, expected: int | None) -> GpuSample:
    nodes = root.findall("gpu")
    if len(nodes) > _MAX_GPUS:
        raise SensorError(f"the XML describes {len(nodes)} GPUs, more than any machine has: it is not read")
    gpus: list[Gpu] = []
    unreadable: list[tuple[int, str]] = []
    for index, node in enumerate(nodes):
        if len(node) == 0:
            unreadable.append((index, "nvidia-smi says nothing of it"))
        else:
            gpus.append(read_gpu(node, index))
    gpus = _with_corrupt_inforom(gpus, said)
    known = {gpu.pci_bus_id.lower() for gpu in gpus}
    for lost in _lost(said, len(nodes)):
        if lost.pci_bus_id.lower() not in known:
            gpus.append(lost)
    attached = _attached(root)
    # As with `nvidia-smi -i 0`: counted, and left out of what was printed.
    left_out = range(len(gpus) + len(unreadable), min(attached or 0, _MAX_GPUS))
    unreadable.extend((index, "it is counted and not described: leave out -i") for index in left_out)
    version = root.findtext("driver_version")
    return GpuSample(
        gpus=tuple(gpus),
        driver_version=version.strip() if version else None,
        # Without an instance type the driver's own count is all that the document can be held against.
        expected=expected if expected is not None else attached,
        unreadable=tuple(unreadable),
        source="nvidia-smi",
        version_mismatch=_line(_MISMATCH, said),
    )


def _attached(root: ElementTree.Element) -> int | None:
    said = (root.findtext("attached_gpus") or "").strip()
    return int(said) if re.fullmatch(r"[0-9]{1,4}", said) else None


def _words(text: str, expected: int | None) -> GpuSample:
    mismatch = _line(_MISMATCH, text)
    if mismatch is not None:
        partial = "the driver and its library are of different releases"
        return GpuSample(gpus=(), expected=expected, source="nvidia-smi", partial=partial, version_mismatch=mismatch)
    lost = tuple(_lost(text, 0))
    if lost:
        return _stopped_at(lost, expected)
    if _NO_GPU.search(text):
        return GpuSample(gpus=(), expected=expected, source="nvidia-smi")
    lower = text.lower()
    if "nvsmi log" in lower:
        raise SensorError("this is the text of nvidia-smi -q, which changes with each driver: record it with -q -x")
    for phrase, remedy in _TROUBLE:
        if phrase in lower:
            said = next(line.strip() for line in text.splitlines() if phrase in line.lower())
            raise SensorError(f"nvidia-smi gave no answer ({said[:200]}): {remedy}")
    if "<?xml" in lower or "<gpu" in lower:
        raise SensorError("the XML of nvidia-smi is cut off: run nvidia-smi -q -x again and let it end")
    raise SensorError("this is no output of nvidia-smi -q -x: record it with both options")


def _stopped_at(lost: tuple[Gpu, ...], expected: int | None) -> GpuSample:
    partial = "nvidia-smi stopped at a GPU that it cannot reach"
    return GpuSample(gpus=lost, expected=expected, source="nvidia-smi", partial=partial)


def _lost(said: str, first: int) -> Iterator[Gpu]:
    seen: set[str] = set()
    for found in _HANDLE.finditer(said):
        address = found["pci"] or ""
        if address.lower() not in seen:
            seen.add(address.lower())
            yield Gpu(
                index=first + len(seen) - 1,
                uuid="",
                pci_bus_id=address,
                is_lost=True,
                lost_because=f"Unable to determine the device handle: {found['why'].strip()}"[:200],
            )


def _with_corrupt_inforom(gpus: list[Gpu], said: str) -> list[Gpu]:
    corrupt = {_short(found["pci"]) for found in _INFOROM.finditer(said)}
    return [replace(gpu, inforom_corrupt=True) if _short(gpu.pci_bus_id) in corrupt else gpu for gpu in gpus]


def _short(address: str) -> str:
    # The domain has four digits in messages and eight in the XML.
    domain, _, rest = address.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _line(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return None if found is None else found[0].strip()[:200]
