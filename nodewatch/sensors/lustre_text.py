"""What a Lustre client's tools print: `lfs check servers`, `lfs df` with -h and -i, `lfs hsm_state`, `lnetctl net show` and
`peer show` with -v, `lctl get_param *.*.import`, `*.*.state`, `*.*.{ost,mds}_server_uuid` and health_check, and of `lctl dl`
what is inactive: that a device is UP there says nothing of its server. Each line tells which tool it is from.
"""

from __future__ import annotations

import re

from nodewatch.model.storage_samples import HsmFile, LnetInterface, LustreSample, LustreTarget, LustreUsage
from nodewatch.sensors.recorded._text import shown

_CHECKED = re.compile(r"^\s*(\S*-(?:osc|mdc|mgc|lwp|osp)\S*|MGC\S+@\S+):? (active|inactive)\.?\s*$", re.IGNORECASE)
_REFUSED = re.compile(r"check:? '?([^'\s]+-(?:osc|mdc|mgc|osp)[^'\s:]*|MGC[^'\s]+)'?:? (.+)$")
_CHECK_CUT = re.compile(r"^\s*(?:\S+-(?:osc|mdc)-\S*|MGC\S*@\S*)(?<!=)(?:\s+[a-z]*)?$")
_NAME_CUT = re.compile(r"[\w@.-]{1,120}:?")
_DF_HEADER = re.compile(r"^UUID\s+(bytes|1K-blocks|1024-blocks|blocks|Inodes)\s", re.IGNORECASE)
_DF_ROW = re.compile(r"^(\S+_UUID)\s+\S+\s+\S+\s+\S+\s+([0-9]{1,3})%\s+(\S.*?)\[(?:MDT|OST):[0-9a-f]+\]", re.IGNORECASE)
_DF_BROKEN = re.compile(r"^(\S+_UUID|(?:OST|MDT)[0-9a-f]{4}(?:_UUID)?)\s*: (\S.*)$", re.IGNORECASE)
_DF_SUMMARY = re.compile(r"^(?:filesystem_summary|filesystem summary):\s+\S+\s+\S+\s+\S+\s+([0-9]{1,3})%\s+(\S.*)$")
_DF_CUT = re.compile(r"^(?:\S+_UUID\b|filesystem.summary:)")
_NET = re.compile(r"^(?:net|peer|show):\s*$")
# One class for space and dash: two runs of space side by side would take a long line's square of tries.
_NID = re.compile(r"^[\s-]*(?:nid|primary nid): (\S+@\S+)\s*$")
_STATUS = re.compile(r"^\s+(?:status|state): (\S+)\s*$")
_HEALTH_VALUE = re.compile(r"^\s+health value: (-?[0-9]{1,9})\s*$")
_LNET_ERROR = re.compile(
    r"/dev/lnet failed|Network is down|^\s*errno: -(?:3|19|100)\b|LNet.* (?:not configured|is down)", re.IGNORECASE
)
_HEALTH_LINE = re.compile(
    r"^(?:health_check=)?\s*(healthy|NOT HEALTHY|LBUG|device \S+ reported unhealthy.*)\s*$", re.IGNORECASE
)
_IMPORT = re.compile(r"^(?:(\S+)\.import=|import:)\s*$")
_STATE_OF = re.compile(r"^(\S+)\.state=\s*$")
_IMPORT_NAME = re.compile(r"^\s+name: (\S+)\s*$")
_IMPORT_STATE = re.compile(r"^(?:\s+state|current_state): ([A-Z_]+)\s*$")
_SERVER = re.compile(
    r"^(?:(\S+)\.(?:ost|mds|mgs)_(?:server|conn)_uuid=)?(\S+_UUID)\s+([A-Z_]{2,20})(?:\s+(DEACTIVATED))?\s*$"
)
_INACTIVE = re.compile(r"^\s*\d{1,6} (?:IN|AT|ST) (?:osc|mdc|osp|mgc) (\S+) \S+ \d+\s*$")
_HSM = re.compile(r"^(/.{1,4000}): \(0x([0-9a-fA-F]{1,16})\)(.*)$")
_HSM_WORDS = re.compile(r"\b(released|exists|dirty|archived|never_release|never_archive|lost_from_hsm)\b")
_MANY = 20_000
_MAX_LINE = 8192
"""No line of these tools is longer, paths included."""


class LustreText:
    """Takes lines and gives the sample of all that they said."""

    def __init__(self) -> None:
        self._targets: list[LustreTarget] = []
        self._usages: list[LustreUsage] = []
        self._interfaces: list[LnetInterface] = []
        self._lnet_error: str | None = None
        self._health: str | None = None
        self._incomplete: str | None = None
        self._is_inodes = False
        self._open_df: str | None = None
        self._is_peer: bool | None = None
        self._nid: str | None = None
        self._status = ""
        self._value: int | None = None
        self._import: str | None = None
        self._hsm: list[HsmFile] = []

    def end_without_newline(self, line: str) -> None:
        """Say that the document ends in `line`: a server's name without a word on it was cut off."""
        if any(target.source == "lfs check servers" for target in self._targets) and _NAME_CUT.fullmatch(line):
            self._incomplete = self._incomplete or f"the line {shown(line, at_most=80)!r} is not whole"

    def take(self, line: str) -> None:
        """Read one more line."""
        line = line[:_MAX_LINE].replace("\t", "    ")
        if len(self._targets) + len(self._usages) + len(self._interfaces) + len(self._hsm) > _MANY:
            self._incomplete = f"more than {_MANY} targets"
            return
        if not (self._take_import(line) or self._take_servers(line) or self._take_df(line) or self._take_hsm(line)):
            self._take_lnet(line)

    def sample(self) -> LustreSample:
        """Everything that was read."""
        self._end_interface()
        self._end_import()
        if self._interfaces and all(interface.nid.endswith("@lo") for interface in self._interfaces):
            self._incomplete = self._incomplete or "lnetctl lists no network but lo"
        if self._open_df is not None:
            self._incomplete = self._incomplete or f"lfs df ends before the summary of {self._open_df}"
        return LustreSample(
            targets=tuple(self._targets),
            usages=tuple(self._usages),
            interfaces=tuple(self._interfaces),
            lnet_error=self._lnet_error,
            health=self._health,
            hsm=tuple(self._hsm),
            incomplete=self._incomplete,
        )

    def _take_servers(self, line: str) -> bool:
        checked = _CHECKED.match(line)
        refused = None if checked else _REFUSED.search(line)
        if checked:
            self._targets.append(LustreTarget(name=checked[1], state=checked[2].upper(), source="lfs check servers"))
        elif refused:
            self._targets.append(
                LustreTarget(name=refused[1], state="ERROR", said=shown(refused[2]), source="lfs check servers")
            )
        elif server := _SERVER.match(line):
            state = "INACTIVE" if server[4] else server[3]
            self._targets.append(LustreTarget(name=server[1] or server[2], state=state, source="server_uuid"))
            return True
        elif inactive := _INACTIVE.match(line):
            self._targets.append(LustreTarget(name=inactive[1], state="INACTIVE", source="lctl dl"))
            return True
        elif _CHECK_CUT.match(line):
            self._incomplete = self._incomplete or f"the line {shown(line, at_most=80)!r} is not whole"
        health = _HEALTH_LINE.match(line)
        if health and (self._health is None or self._health == "healthy"):
            self._health = health[1].lower() if health[1].lower() == "healthy" else shown(health[1])
        return bool(checked or refused or health)

    def _take_df(self, line: str) -> bool:
        header, row, broken = _DF_HEADER.match(line), _DF_ROW.match(line), _DF_BROKEN.match(line)
        summary = _DF_SUMMARY.match(line)
        if header:
            if self._open_df is not None:
                self._incomplete = self._incomplete or f"lfs df has no summary of {self._open_df}"
            self._open_df, self._is_inodes = "a file system", header[1].lower() == "inodes"
        elif row:
            self._open_df = self._open_df or "a file system"
            usage = LustreUsage(name=row[1], mount=row[3], percent=int(row[2]), is_inodes=self._is_inodes)
            self._usages.append(usage)
        elif broken:
            state = "INACTIVE" if "inactive" in broken[2].lower() else "ERROR"
            self._targets.append(LustreTarget(name=broken[1], state=state, said=shown(broken[2]), source="lfs df"))
        elif summary:
            self._open_df = None
            usage = LustreUsage(
                name="filesystem_summary",
                mount=summary[2].strip(),
                percent=int(summary[1]),
                is_inodes=self._is_inodes,
                is_summary=True,
            )
            self._usages.append(usage)
        elif _DF_CUT.match(line):
            self._incomplete = self._incomplete or f"the line {shown(line, at_most=80)!r} of lfs df is not whole"
            return True
        return bool(header or row or broken or summary)

    def _take_hsm(self, line: str) -> bool:
        found = _HSM.match(line)
        if found:
            words = frozenset(_HSM_WORDS.findall(found[3]))
            self._hsm.append(HsmFile(path=found[1], flags=words))
        return bool(found)

    def _take_import(self, line: str) -> bool:
        begun = _IMPORT.match(line) or _STATE_OF.match(line)
        if begun:
            named = begun[1] if begun.re is _STATE_OF or begun[1] else None
            if named is None and self._import is not None:
                # get_param writes the parameter's name, and the file below it begins with its own heading.
                return True
            self._end_import()
            self._end_interface()
            self._import = named or "an import"
            return True
        if self._import is None:
            return False
        name, state = _IMPORT_NAME.match(line), _IMPORT_STATE.match(line)
        if name:
            self._import = name[1]
        elif state:
            self._targets.append(LustreTarget(name=self._import, state=state[1], source="import"))
            self._import = None
        return bool(name or state)

    def _end_import(self) -> None:
        if self._import is not None:
            self._incomplete = self._incomplete or f"{self._import} has no state"
        self._import = None

    def _take_lnet(self, line: str) -> None:
        if _LNET_ERROR.search(line):
            self._lnet_error = self._lnet_error or shown(line)
        elif _NET.match(line):
            self._end_interface()
            self._is_peer = line.startswith("peer")
        nid = _NID.match(line)
        if nid and self._is_peer is not None:
            self._end_interface()
            if "primary" not in line:
                self._nid = nid[1]
        elif self._nid is not None:
            status, value = _STATUS.match(line), _HEALTH_VALUE.match(line)
            if status:
                self._status = status[1].lower()
            elif value:
                self._value = int(value[1])

    def _end_interface(self) -> None:
        if self._nid is not None:
            is_peer = bool(self._is_peer)
            self._interfaces.append(
                LnetInterface(nid=self._nid, status=self._status, health=self._value, is_peer=is_peer)
            )
            if not self._status and not is_peer:
                self._incomplete = self._incomplete or f"the status of {self._nid} is missing"
        self._nid, self._status, self._value = None, "", None
