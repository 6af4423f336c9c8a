"""Output of libfabric's fi_info: blocks of short lines, or the long form of `fi_info -v`.

One device is listed several times (fabrics efa and efa-direct; rdm and dgrm), so blocks are kept as they are and
whoever counts devices counts domains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodewatch.errors import SensorError
from nodewatch.knowledge import instance_types
from nodewatch.model.fabric_samples import FiEndpoint, FiInfoSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded._text import lines, shown

_FIELD = re.compile(r"^\s*(fabric|domain|version|type|protocol|name|prov_name): ?(.*)$")
_SECTION = re.compile(r"^\s+(fi_[a-z]+_attr|nic):")
_ERROR = re.compile(
    r"fi_getinfo(?:\(\))?:|fi_info: (?!version)\S|command not found|cannot open shared object|symbol lookup error"
)
_LIST = re.compile(r"^[a-z][\w;]*:$")
_NONE_FOUND = re.compile(r"fi_getinfo(?:\(\))?:.*-61\b|No data available")
_MANY = 4096


def load(recording: Recording) -> Iterator[FiInfoSample]:
    """One sample of the whole list. Raises SensorError for anything that is no output of fi_info."""
    row = instance_types.TABLE.get(recording.instance_type)
    # A type that is usually launched without EFA owes none.
    expected = None if row is None else row.efa_devices or 0
    yield parse(recording.read(), expected=expected, name=str(recording.path))


def parse(data: bytes, *, expected: int | None, name: str = "this") -> FiInfoSample:
    """The whole list that fi_info wrote. Raises SensorError for anything that is no output of fi_info."""
    parser = _Parser()
    for line in lines(data):
        parser.take(line)
    parser.end()
    if parser.error is None and not parser.endpoints and parser.open is None:
        if parser.is_list:
            raise SensorError(
                "this is the list of providers that fi_info -l prints: record fi_info -p efa -t FI_EP_RDM"
            )
        raise SensorError(f"{name} is no output of fi_info: record fi_info -p efa -t FI_EP_RDM")
    if parser.error is not None and not _NONE_FOUND.search(parser.error):
        raise SensorError(f"fi_info itself did not work ({parser.error}): install libfabric or put it right")
    return FiInfoSample(
        endpoints=tuple(parser.endpoints),
        error=parser.error,
        incomplete=parser.open,
        expected=expected,
    )


class _Parser:
    def __init__(self) -> None:
        self.endpoints: list[FiEndpoint] = []
        self.error: str | None = None
        self.open: str | None = None
        """What the last block lacks."""
        self.is_list = False
        self._block: dict[str, str] | None = None
        self._is_long = False
        self._section = ""

    def take(self, line: str) -> None:
        """Read one more line."""
        begun = re.match(r"\s*(?:provider: *(\S.*)|fi_info:)\s*$", line)
        if begun:
            self.end()
            self._is_long = begun[1] is None
            self._block = {} if self._is_long else {"provider": begun[1].strip()}
            self._section = ""
        elif _ERROR.search(line):
            self.end()
            self.error = self.error or shown(line)
        elif self._block is not None:
            self._take_field(line)
        elif _LIST.match(line):
            self.is_list = True

    def end(self) -> None:
        """The block that is open has no more lines."""
        block, self._block = self._block, None
        if block is None:
            return
        missing = [name for name in ("provider", "domain", "type") if not block.get(name)]
        if not missing and not self._is_long and not block.get("protocol"):
            missing = ["protocol"]
        if missing:
            self.open = (
                f"the block of {block.get('domain') or block.get('provider') or 'a provider'} has no {missing[0]}"
            )
            return
        if len(self.endpoints) < _MANY:
            fields = {name: block.get(name, "") for name in ("provider", "fabric", "domain", "type")}
            self.endpoints.append(FiEndpoint(**fields))

    def _take_field(self, line: str) -> None:
        section = _SECTION.match(line)
        if section:
            self._section = section[1]
        field = _FIELD.match(line)
        block = self._block
        if field is None or block is None:
            return
        name, value = field[1], field[2].strip()
        if not self._is_long:
            block.setdefault(name, value)
        elif name == "prov_name":
            block["provider"] = value
        elif name == "name" and self._section in ("fi_domain_attr", "fi_fabric_attr"):
            block[self._section.split("_")[1]] = value
        elif name == "type" and self._section == "fi_ep_attr":
            block["type"] = value
