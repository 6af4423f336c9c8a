"""Put nodewatch's lines into a site's slurm.conf and take them out again, byte for byte.

One marked block at the end of the file. A line of the site's that Slurm would no longer heed, since it keeps one line of a key,
is kept in place behind a mark and comes back when the block goes. Several Prolog, Epilog, PrologSlurmctld and EpilogSlurmctld
lines are run one after the other from Slurm 24.11 on (24.11.5 prints them as Prolog[0], Prolog[1]): there the site's line stays
as it is. For an earlier release, and for programs of which Slurm has one only, a chain program runs the site's and then ours.

Runs under the Python of the machine, 3.8 or later: the standard library only, and ansible's only in main().
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

DOCUMENTATION = r"""
module: nodewatch_slurm_conf
short_description: Nodewatch's block in slurm.conf
description:
  - Adds or removes one marked block. What the site had is kept, and comes back byte for byte.
options:
  path: {description: The slurm.conf., type: path, required: true}
  state: {description: Whether the block is there., type: str, choices: [present, absent], default: present}
  release: {description: "The Slurm release, such as 24.11. Empty is the oldest.", type: str, default: ""}
  programs: {description: Our programs by parameter., type: dict, default: {}}
  values: {description: Values that are set where the site sets none., type: dict, default: {}}
  words: {description: Words that are added to a list of the site's., type: dict, default: {}}
  chain_dir: {description: Where the chain programs are., type: path, default: /etc/nodewatch/chain}
author: The nodewatch authors
"""

BEGIN = "# BEGIN nodewatch (written by ansible; the site's own lines stand elsewhere)"
END = "# END nodewatch"
KEPT = "#nodewatch-kept# "
#: Of these Slurm runs every line, from the release on with which that was tried.
LISTS = ("prolog", "epilog", "prologslurmctld", "epilogslurmctld")
LISTS_SINCE = (24, 11)
_RECORDS = ("nodename", "partitionname", "downnodes", "nodeset", "frontendname", "switchname")
_KEY = re.compile(r"([A-Za-z_]\w*)\s*(?:\+|-)?=")


class ConfError(Exception):
    """The file cannot be edited safely; the text says why and what to do."""


@dataclass
class Edited:
    """The new text, and the site's programs that a chain program has to run, by parameter."""

    text: str
    chained: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class _Line:
    """One logical line: with a backslash at its end it goes on in the next."""

    raw: str
    number: int
    keys: list[str]
    value: str


def without_block(text: str, path: str) -> str:
    """The site's own text. Raises ConfError for a block that has lost one of its ends."""
    lines = text.splitlines(keepends=True)
    begins = [i for i, line in enumerate(lines) if line.rstrip("\n") == BEGIN]
    ends = [i for i, line in enumerate(lines) if line.rstrip("\n") == END]
    if len(begins) != len(ends) or len(begins) > 1 or (begins and begins[0] > ends[0]):
        raise ConfError(
            f"{path}: the block between '{BEGIN}' and '{END}' is damaged: take it out by hand, or put "
            f"{path}.before-nodewatch back"
        )
    if begins:
        del lines[begins[0] : ends[0] + 1]
        # The empty line in front of the block is ours, and so is the line end that the file did not have.
        if begins[0] and lines[begins[0] - 1] == "\n":
            del lines[begins[0] - 1]
        elif begins[0] and lines[begins[0] - 1] == KEPT.rstrip() + "\n":
            del lines[begins[0] - 1]
            if len(lines) == begins[0] - 1:  # nobody has written below the block since
                lines[-1] = lines[-1].rstrip("\n")
    return "".join(line[len(KEPT) :] if line.startswith(KEPT) else line for line in lines)


def with_block(
    text: str,
    *,
    path: str,
    release: str = "",
    programs: dict[str, str],
    values: dict[str, str],
    words: dict[str, list[str]],
    chain_dir: str,
    included: str = "",
) -> Edited:
    """The site's text with our block. `included` is what its Include lines bring in, which is not edited."""
    site = without_block(text, path)
    lines = list(_logical(site))
    elsewhere = {key for line in _logical(included) for key in line.keys}
    block: list[str] = []
    kept: set[int] = set()
    chained: dict[str, list[str]] = {}

    def own(key: str) -> list[_Line]:
        found = [line for line in lines if key.lower() in line.keys]
        for line in found:
            if len(line.keys) > 1:
                raise ConfError(
                    f"{path}, line {line.number}: {key} stands on one line with other parameters: put it on a line of its own"
                )
        return found

    for key, program in sorted(programs.items()):
        found = own(key)
        theirs = [line.value for line in found if line.value and line.value != program and "(null)" not in line.value]
        is_list = key.lower() in LISTS and release_of(release) >= LISTS_SINCE
        if not is_list and key.lower() in elsewhere:
            raise ConfError(
                f"{path}: {key} is set in an included file, of which Slurm would heed one line only: move it into {path}"
            )
        if any(line.value == program for line in found):
            continue  # the site has written our line itself
        if not theirs or is_list:
            block.append(f"{key}={program}")
        elif any("nodewatch" in value for value in theirs):
            continue  # the site's own script calls ours, or its name says so
        else:
            # Slurm heeds the last line of a key.
            chained[key] = [theirs[-1]]
            block.append(f"{key}={chain_dir}/{Path(program).name}")
            kept |= {line.number for line in found}
    for key, value in sorted(values.items()):
        if not own(key) and key.lower() not in elsewhere:
            block.append(f"{key}={value}")
    for key, wanted in sorted(words.items()):
        if key.lower() in elsewhere:
            raise ConfError(
                f"{path}: {key} is set in an included file: move it into {path}, where words can be added to it"
            )
        found = own(key)
        theirs = found[-1].value.split(",") if found and found[-1].value else []
        names = {word.partition("=")[0].lower() for word in theirs}
        missing = [word for word in wanted if word.partition("=")[0].lower() not in names]
        if missing:
            block.append(f"{key}={','.join([*theirs, *missing])}")
            kept |= {line.number for line in found}
    if not block:
        return Edited(text=site, chained=chained)
    body = ""
    for line in lines:
        body += "".join(KEPT + part for part in line.raw.splitlines(keepends=True)) if line.number in kept else line.raw
    # A file without a line end at its end gets one, and a mark by which it loses it again.
    gap = "\n" if not body or body.endswith("\n") else f"\n{KEPT.rstrip()}\n"
    return Edited(text=body + gap + "\n".join([BEGIN, *block, END]) + "\n", chained=chained)


def release_of(text: str) -> tuple[int, int]:
    """Such as (24, 11); (0, 0) when it is not told."""
    match = re.search(r"(\d{2})\.(\d{2})", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _logical(text: str):
    held, first = "", 0
    for number, raw in enumerate(text.splitlines(keepends=True), start=1):
        first = first or number
        held += raw
        bare = re.sub(r"(?<!\\)#.*", "", raw).rstrip()
        if bare.endswith("\\"):
            continue
        yield _line(held, first)
        held, first = "", 0
    if held:
        yield _line(held, first)


def _line(raw: str, number: int) -> _Line:
    bare = " ".join(re.sub(r"(?<!\\)#.*", "", part).rstrip().rstrip("\\") for part in raw.splitlines()).strip()
    bare = re.sub(r", +", ",", bare)
    if bare.lower().startswith(_RECORDS) or bare.lower().startswith("include "):
        return _Line(raw=raw, number=number, keys=[], value="")
    unquoted = re.sub(r'"[^"]*"', '""', bare)
    # A value may hold "a=b,c=d" (SchedulerParameters): only what stands after a blank begins a new parameter.
    keys = [match[1].lower() for word in unquoted.split() if (match := _KEY.match(word))]
    return _Line(raw=raw, number=number, keys=keys, value=bare.partition("=")[2].strip().strip('"'))


def included_text(text: str, base: Path, depth: int = 0) -> str:
    """What the Include lines of a slurm.conf bring in, files that cannot be read left out."""
    found = ""
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(None, 1)
        if len(words) == 2 and words[0].lower() == "include" and depth < 8:
            pattern = words[1].strip()
            if not pattern.startswith("/"):
                pattern = str(base / pattern)
            for path in sorted(Path("/").glob(pattern.lstrip("/"))) if "*" in pattern else [Path(pattern)]:
                if path.is_file():
                    more = path.read_text(encoding="utf-8", errors="surrogateescape")
                    found += more + "\n" + included_text(more, base, depth + 1)
    return found


def main() -> None:
    """Run as a module of ansible."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "release": {"type": "str", "default": ""},
            "programs": {"type": "dict", "default": {}},
            "values": {"type": "dict", "default": {}},
            "words": {"type": "dict", "default": {}},
            "chain_dir": {"type": "path", "default": "/etc/nodewatch/chain"},
        },
        supports_check_mode=True,
    )
    given = module.params
    # A link is followed: sites keep slurm.conf elsewhere and link to it.
    path = Path(os.path.realpath(given["path"]))
    backup = Path(f"{path}.before-nodewatch")
    try:
        before = path.read_bytes().decode("utf-8", "surrogateescape")
        if given["state"] == "absent":
            edited = Edited(text=without_block(before, str(path)))
        else:
            edited = with_block(
                before,
                path=str(path),
                release=given["release"],
                programs=given["programs"],
                values={key: str(value) for key, value in given["values"].items()},
                words=given["words"],
                chain_dir=given["chain_dir"],
                included=included_text(before, path.parent),
            )
        is_stale_backup = given["state"] == "absent" and backup.exists()
        changed = edited.text != before or is_stale_backup
        if changed and not module.check_mode:
            if given["state"] == "present" and BEGIN not in before:
                _write(backup, before, like=path)
            if edited.text != before:
                _write(path, edited.text, like=path)
            if is_stale_backup:
                backup.unlink()
    except ConfError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}: nothing was changed in it")
    module.exit_json(
        changed=changed,
        chained=edited.chained,
        diff={"before": before, "after": edited.text, "before_header": str(path), "after_header": str(path)},
    )


def _write(path: Path, text: str, like: Path) -> None:
    """Replace a file whole, with the owner and mode of another: a slurmd that reads meanwhile sees the old or the new."""
    draft = path.with_name(f".{path.name}.nodewatch")
    stat = like.stat()
    draft.write_bytes(text.encode("utf-8", "surrogateescape"))
    os.chown(draft, stat.st_uid, stat.st_gid)
    draft.chmod(stat.st_mode & 0o7777)
    draft.replace(path)


if __name__ == "__main__":
    main()
