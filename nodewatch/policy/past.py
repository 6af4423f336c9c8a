"""The cases of the ledger, to be asked by node and by hardware: a storm asks for ten thousand nodes in one tick."""

from __future__ import annotations

from collections.abc import Iterable

from nodewatch.model.ledger import Case
from nodewatch.policy.history import identities


class Past:
    """An index over cases, which it keeps in their order."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self._cases = tuple(cases)
        self._by_node: dict[str, list[int]] = {}
        self._by_hardware: dict[str, list[int]] = {}
        for place, case in enumerate(self._cases):
            self._by_node.setdefault(case.node, []).append(place)
            for identity in identities(case.old_instance, case.subject, case.evidence):
                self._by_hardware.setdefault(identity, []).append(place)

    def about(self, node: str, hardware: Iterable[str]) -> tuple[Case, ...]:
        """The cases of the name `node` and those of any of the hardware."""
        places = set(self._by_node.get(node, ()))
        for identity in hardware:
            places.update(self._by_hardware.get(identity, ()))
        return tuple(self._cases[place] for place in sorted(places))
