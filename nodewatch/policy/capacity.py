"""Where the next machine comes from: the site's sources in their order, past those that refused, with waits between tries.

A source that EC2 answered with a refusal is passed over for the next one at once; when all have refused, each is tried again
after a wait that doubles. A launch of which nobody knows whether it happened is never passed over: it is asked for again
under the same ClientToken until EC2 answers, since another source would give a second machine.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from nodewatch.model.actions import Launch
from nodewatch.model.ledger import ActionRecord, ActionState, Ledger
from nodewatch.policy.attempts import wait_left
from nodewatch.policy.rules import Group, Rules

PENDING = "ReplacementPending"
"""Our own code for an Auto Scaling group that was told and has not launched yet."""

THROTTLED = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"})
"""EC2 limits how often it is asked, whatever it is asked for: another source would be turned away as well."""

UNTOLD = frozenset({"", PENDING, "InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable"})
"""EC2's words for its own failures (EC2 API reference, server error codes): the launch may have happened."""


class Kind(enum.Enum):
    """How a source is asked."""

    LAUNCH_TEMPLATE = "launch_template"
    FLEET = "fleet"
    RESERVATION = "reservation"
    BLOCK = "block"
    ASG = "asg"
    SPOT = "spot"


_FORMS = {
    Kind.LAUNCH_TEMPLATE: re.compile(r""),
    Kind.SPOT: re.compile(r""),
    # No types: the launch template's own, in any of the subnets.
    Kind.FLEET: re.compile(r"([a-z0-9-]+\.[a-z0-9-]+)?(,[a-z0-9-]+\.[a-z0-9-]+)*"),
    Kind.RESERVATION: re.compile(r"cr-[0-9a-f]{8,17}"),
    Kind.BLOCK: re.compile(r"cr-[0-9a-f]{8,17}"),
    Kind.ASG: re.compile(r"[^:/|]{1,255}"),
}
_SUBNET = re.compile(r"subnet-[0-9a-f-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source of machines, in one place: a word of `capacity` with a subnet where it matters."""

    kind: Kind
    name: str = ""
    """Instance types of a fleet, the id of a reservation or block, the name of a group."""
    subnet_id: str = ""

    @property
    def word(self) -> str:
        """As the site writes it."""
        text = self.kind.value + (f":{self.name}" if self.name else "")
        return text + (f"@{self.subnet_id}" if self.subnet_id else "")

    @property
    def ends_old_first(self) -> bool:
        """Whether the broken machine has to go before the new one can come, whatever the site says."""
        return self.kind is Kind.BLOCK


def parse(text: str) -> Source:
    """`text` of `capacity` as a source. Raises ValueError with a sentence for another text."""
    body, _, subnet = text.partition("@")
    word, colon, name = body.partition(":")
    kinds = {kind.value: kind for kind in Kind}
    kind = kinds.get(word)
    if kind is None:
        raise ValueError(f"capacity {text!r}: use {', '.join(kinds)}, such as reservation:cr-0123456789abcdef0")
    if not _FORMS[kind].fullmatch(name) or (colon and not name and kind is not Kind.FLEET):
        form = {Kind.FLEET: "fleet:p5.48xlarge,p5e.48xlarge", Kind.ASG: "asg:NAME"}.get(
            kind, f"{word}:cr-0123456789abcdef0" if kind in (Kind.RESERVATION, Kind.BLOCK) else word
        )
        raise ValueError(f"capacity {text!r} is not understood: write it like {form!r}")
    if "@" in text and not _SUBNET.fullmatch(subnet):
        raise ValueError(f"capacity {text!r}: after @ comes a subnet, such as @subnet-0123456789abcdef0")
    return Source(kind=kind, name=name, subnet_id=subnet)


def sources(group: Group) -> tuple[Source, ...]:
    """The sources of `group` in the order in which they are tried, each subnet a source of its own.

    Of a reservation, a block and an Auto Scaling group the place is given by themselves, and a fleet takes all subnets at once.
    """
    found: dict[Source, None] = {}
    for text in group.capacity:
        source = parse(text)
        if source.subnet_id or source.kind not in (Kind.LAUNCH_TEMPLATE, Kind.SPOT):
            found[source] = None
            continue
        for subnet in group.all_subnets or ("",):
            found[Source(kind=source.kind, name=source.name, subnet_id=subnet)] = None
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to do about a machine that is wanted: `done` it is there; `action` ask for it; else `held` says why not now."""

    done: ActionRecord | None = None
    action: Launch | None = None
    source: Source | None = None
    held: str = ""
    is_begun: bool = False
    """A launch of this try was begun before: limits of new replacements do not concern it."""


def choose(base: str, wanted: Launch, group: Group, ledger: Ledger, rules: Rules, now: float) -> Choice:
    """The next launch for a case, whose launches have keys that begin with `base`.

    `wanted` is the launch but for its key, source and subnet.
    """
    mine = _records(base, ledger)
    for record in mine:
        if record.state is ActionState.DONE:
            return Choice(done=record)
    for record in mine:
        if is_untold(record):
            again = record.action
            assert isinstance(again, Launch)
            left = wait_left(again.key, ledger, rules, now)
            if left > 0:
                return Choice(held=f"{_what(record)}; asking again in {left:.0f} s")
            source = parse(again.source) if again.source else None
            return Choice(action=again, source=source, is_begun=True)
    slow = [wait_left(r.action.key, ledger, rules, now) for r in mine if r.error_code in THROTTLED]
    if any(left > 0 for left in slow):
        return Choice(held=f"EC2 limits how often it may be asked (RequestLimitExceeded); again in {max(slow):.0f} s")
    options = [(source, *_next_key(base, source, mine, rules, now)) for source in sources(group)]
    # Those that were never asked come first: one that refuses every time must not keep the others from their turn.
    for source, key, left, refusal in options:
        if refusal is None:
            return Choice(action=launch_from(source, key, wanted, group), source=source, is_begun=bool(mine))
        if left <= 0 and all(other is not None for _, _, _, other in options):
            return Choice(action=launch_from(source, key, wanted, group), source=source, is_begun=True)
    if not options:
        return Choice(held=f"group {group.name} has no source of capacity")
    left, first = min((left, source.word) for source, _, left, _ in options)
    last = [(source, record) for source, _, _, record in options if record is not None]
    what = "EC2 has no capacity" if all(record.is_capacity for _, record in last) else "the last try failed"
    if len(last) == 1:
        return Choice(held=f"{what} ({last[0][1].error}); trying again in {left:.0f} s")
    refused = "; ".join(f"{source.word}: {record.error_code or record.error}" for source, record in last)
    return Choice(held=f"{what} ({refused}); trying {first} again in {left:.0f} s")


def exhausted(
    base: str, group: Group, ledger: Ledger, rules: Rules, now: float
) -> tuple[ActionRecord, str, float] | None:
    """(the newest refusal, the source that is tried next, seconds until then) of a case of which every source of its group has
    refused for want of capacity; None where one was not asked yet, gave a machine, or failed of another cause."""
    mine = _records(base, ledger)
    if any(record.state is ActionState.DONE or is_untold(record) for record in mine):
        return None
    asked = [(source, *_next_key(base, source, mine, rules, now)) for source in sources(group)]
    refusals = [record for _, _, _, record in asked if record is not None and record.is_capacity]
    if not asked or len(refusals) < len(asked):
        return None
    left, word = min((left, source.word) for source, _, left, _ in asked)
    return max(refusals, key=lambda record: record.at), word, left


def is_untold(record: ActionRecord) -> bool:
    """Whether the launch may have happened without our knowing: only the same request again can tell."""
    if record.state is ActionState.INTENDED:
        return True
    if record.state is not ActionState.FAILED or record.is_capacity:
        return record.error_code == PENDING and record.state is ActionState.FAILED
    return record.error_code in UNTOLD


def _records(base: str, ledger: Ledger) -> list[ActionRecord]:
    found = [r for key, r in ledger.actions.items() if key == base or key.startswith(f"{base}:")]
    return sorted((r for r in found if isinstance(r.action, Launch)), key=lambda r: r.action.key)


def _next_key(
    base: str, source: Source, mine: Iterable[ActionRecord], rules: Rules, now: float
) -> tuple[str, float, ActionRecord | None]:
    """(key of the next try, seconds until it may be made, the last refusal)."""
    asked = [r for r in mine if isinstance(r.action, Launch) and _source_of(r.action) == source.word]
    if not asked:
        return _key(base, source, 0), 0.0, None
    last = max(asked, key=lambda r: r.at)
    # A fleet that gave nothing is a fleet for EC2: the same token would give the same nothing for ever.
    count = len(asked) if source.kind is Kind.FLEET else last.tries
    first, most = (
        (rules.capacity_retry_s, rules.capacity_retry_max_s) if last.is_capacity else (rules.retry_s, rules.retry_max_s)
    )
    wait = min(first * 2.0 ** min(count - 1, 30), most)
    key = _key(base, source, len(asked)) if source.kind is Kind.FLEET else last.action.key
    return key, max(0.0, last.at + wait - now), last


def _key(base: str, source: Source, number: int) -> str:
    """The plain launch has the plain key, under which launches were asked for before there were other sources."""
    if source.kind is Kind.LAUNCH_TEMPLATE and not source.subnet_id:
        return base
    return f"{base}:{source.word}" + (f":{number}" if source.kind is Kind.FLEET else "")


def _source_of(action: Launch) -> str:
    return action.source or Source(kind=Kind.LAUNCH_TEMPLATE, subnet_id=action.subnet_id or "").word


def launch_from(source: Source, key: str, wanted: Launch, group: Group) -> Launch:
    """`wanted` as a launch from `source`, under `key`."""
    subnets = group.all_subnets if source.kind is Kind.FLEET and not source.subnet_id else ()
    subnet = source.subnet_id or (group.subnet_id or "" if source.kind in (Kind.RESERVATION, Kind.BLOCK) else "")
    return dataclasses.replace(
        wanted,
        key=key,
        source=source.word,
        subnet_id=subnet or None,
        subnets=subnets,
        version=group.launch_template_version,
    )


def _what(record: ActionRecord) -> str:
    if record.error_code == PENDING:
        return record.error
    return f"whether a machine was launched is not known ({record.error or 'it was cut off'})"
