"""Which nodes of an allocation the next try of a step runs on, or why there is none. Pure; standard library only.

A node that the agents named bad is left out for the rest of the job. A try that ended without any such word counts: the
program itself may have failed, and is not started for ever.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

REFUSED = 93
"""nodewatch_train's own exit code: starting again cannot help."""
STOPPED = 94
"""Its code after a checkpoint that it was asked for: whoever asked wants the job to end."""
RETRIES = 3
_SPARES = re.compile(r"(?:^|,)spares=0*([0-9]{1,3})(?:,|$)")
_DIRECTORY = re.compile(r"(?:^|,)dir=([^,]+)")
_MOST_NODES = 100_000
_BRACKET = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the user asked for. `wanted` nodes run the step, fewer down to `least` where there are no more, and a program
    that fails by itself is started again `retries` times, each of which must have got further than the one before."""

    wanted: int
    least: int
    retries: int = RETRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One try: the nodes it ran on, its exit code, which of its nodes are known to be bad, and the step that it got to
    (None where nobody tells)."""

    nodes: tuple[str, ...]
    code: int
    bad: tuple[str, ...] = ()
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The nodes of the next try, or none of them and the code to end with. `why` is for the job's output."""

    why: str
    nodes: tuple[str, ...] = ()
    code: int = 0


def terms(nodes: int, *, spares: int, least: int | None, retries: int = RETRIES) -> Terms:
    """The terms in an allocation of `nodes`. Raises ValueError with one sentence where they cannot be kept."""
    wanted = nodes - spares
    if spares < 0 or wanted < 1:
        raise ValueError(
            f"{spares} of {nodes} nodes cannot be spare: ask for more nodes (#SBATCH --nodes) or fewer spares"
        )
    least = wanted if least is None else least
    if not 1 <= least <= wanted:
        raise ValueError(f"--min-nodes {least} must be from 1 to the {wanted} nodes that the step runs on")
    if retries < 0:
        raise ValueError(f"--retries {retries} must not be negative")
    return Terms(wanted=wanted, least=least, retries=retries)


def begin(allocation: Sequence[str], bad: Collection[str], asked: Terms) -> Choice:
    """The first try."""
    return _on(_healthy(allocation, bad), asked, code=1, because="")


def after(allocation: Sequence[str], bad: Collection[str], tries: Sequence[Ended], asked: Terms) -> Choice:
    """What follows the last of `tries`. `bad` are all nodes known to be bad."""
    last = tries[-1]
    if last.code == 0:
        return Choice(why="the step ended well")
    if last.code == REFUSED:
        return Choice(why=f"code {REFUSED}: starting again cannot help", code=REFUSED)
    if last.code == STOPPED:
        return Choice(why=f"code {STOPPED}: it saved and ended, as it was asked to", code=STOPPED)
    healthy = _healthy(allocation, bad)
    if last.bad:
        names = " and ".join(last.bad)
        return _on(
            _near(healthy, last), asked, code=last.code, because=f"{names} {'is' if len(last.bad) == 1 else 'are'} bad"
        )
    said = f"the step ended with code {last.code} and no node is known to be bad"
    own = [each for each in tries if not each.bad]
    if len(own) > asked.retries:
        return Choice(why=f"{said}; {_times(asked.retries)} started again for that already", code=last.code)
    before = [each.step for each in own[:-1]]
    if before and (last.step is None or any(step is None or step >= last.step for step in before)):
        got = "nobody tells its steps" if last.step is None else f"it got no further than step {last.step}"
        return Choice(why=f"{said}, again, and {got}: look at the program", code=last.code)
    return _on(_near(healthy, last), asked, code=last.code, because=said)


def step_environment(
    environment: Mapping[str, str], nodes: Sequence[str], *, allocated: int, number: int
) -> tuple[dict[str, str], list[str]]:
    """(variables, srun's options) of try `number` (0 is the first) on `nodes`.

    What Slurm told the batch script of the whole allocation would have srun ask for all of its tasks on fewer nodes. Rank 0
    listens on the first node of the try, and on another port each time: the last one's sockets may be in TIME_WAIT.
    """
    left = {"SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_TASKS_PER_NODE"}
    told = {name: value for name, value in environment.items() if name not in left}
    options = [f"--nodes={len(nodes)}", f"--nodelist={','.join(nodes)}", "--kill-on-bad-exit=1"]
    tasks = environment.get("SLURM_NTASKS") or environment.get("SLURM_NPROCS") or ""
    each = environment.get("SLURM_NTASKS_PER_NODE") or ""
    if each.isdecimal():
        options.append(f"--ntasks={int(each) * len(nodes)}")
    elif tasks.isdecimal() and allocated and int(tasks) % allocated == 0:
        options.append(f"--ntasks={int(tasks) // allocated * len(nodes)}")
    if number:
        # The last try's ranks are being killed, and one on a dead node is never heard of again: Slurm need not wait for it.
        options.append("--overlap")
    job, restart = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_RESTART_COUNT", "")
    port = environment.get("MASTER_PORT", "")
    base = int(port) if port.isdecimal() else 20_000 + (_number(job) * 64 + _number(restart)) % 12_000
    chosen = base + number if base + number < 1 << 16 else base - number
    told |= {"MASTER_ADDR": nodes[0], "MASTER_PORT": str(chosen), "NODEWATCH_TRY": str(number)}
    return told, options


def spares_of(text: str) -> int:
    """K of `spares=K` in the text of --auto-resume; 0 where there is none."""
    found = _SPARES.search(text)
    return int(found[1]) if found else 0


def directory_of(text: str) -> str:
    """The path of `dir=PATH` in the text of --auto-resume; empty where there is none."""
    found = _DIRECTORY.search(text)
    return found[1] if found else ""


def expand(hostlist: str) -> list[str]:
    """The names of a Slurm host list, `n[1-3,7],head` say. Raises ValueError with one sentence for anything else."""
    names: list[str] = []
    for part in _split(hostlist):
        names += _expanded(part)
        if len(names) > _MOST_NODES:
            raise ValueError(f"the host list {hostlist[:80]!r} names more than {_MOST_NODES} nodes")
    return names


def _split(hostlist: str) -> list[str]:
    """At the commas that stand outside of brackets."""
    parts, depth = [""], 0
    for char in hostlist:
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    if depth or not all(parts):
        raise ValueError(f"{hostlist[:80]!r} is no Slurm host list")
    return parts


def _expanded(part: str) -> list[str]:
    bracket = _BRACKET.search(part)
    if bracket is None:
        if set(part) & set("[]"):
            raise ValueError(f"{part[:80]!r} is no Slurm host list")
        return [part]
    found: list[str] = []
    for item in bracket[1].split(","):
        first, _, last = item.partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal()) or not 0 <= int(last) - int(first) < _MOST_NODES:
            raise ValueError(f"{part[:80]!r} is no Slurm host list")
        numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
        found += [
            name for number in numbers for name in _expanded(part[: bracket.start()] + number + part[bracket.end() :])
        ]
    return found


def _healthy(allocation: Sequence[str], bad: Collection[str]) -> list[str]:
    return [node for node in allocation if node not in bad]


def _near(healthy: Sequence[str], last: Ended) -> list[str]:
    """Those that ran it first, in their order: their caches are warm."""
    return sorted(healthy, key=lambda node: node not in last.nodes)


def _on(healthy: Sequence[str], asked: Terms, *, code: int, because: str) -> Choice:
    lead = f"{because}; " if because else ""
    if len(healthy) < asked.least:
        return Choice(why=f"{lead}{len(healthy)} healthy nodes are left and {asked.least} are needed", code=code)
    # Sorted as Slurm sorts a node list: it numbers the ranks in that order whatever the order of --nodelist is.
    nodes = tuple(sorted(healthy[: asked.wanted], key=_natural))
    return Choice(why=f"{lead}{'going on' if because else 'starting'} on {','.join(nodes)}", nodes=nodes)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"([0-9]+)", name)]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
