"""What operators ask on the controller's socket: anyone may look, only root and SlurmUser may ask for something to be done."""

from __future__ import annotations

import pwd
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from nodewatch.controller import verbs, views
from nodewatch.controller.engine import Engine
from nodewatch.controller.job_view import job_story
from nodewatch.controller.pair_views import pair_status
from nodewatch.errors import JournalError
from nodewatch.model.hostlist import expand


class Questions:
    """The answers of one controller. `wake` lets it look at once after a wish."""

    def __init__(
        self,
        engine: Engine,
        *,
        may_act: Collection[int],
        problems: Callable[[], Sequence[str]],
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._may_act = frozenset(may_act)
        self._problems = problems
        self._clock = clock
        self._wake = wake

    def answer(self, question: Mapping[str, Any], uid: int) -> Mapping[str, Any]:
        """The answer to `question` of the user `uid`. Raises KeyError or TypeError for a question of another shape."""
        engine, now = self._engine, self._clock()
        match question.get("ask"):
            case "status":
                return views.status(engine.snapshot, engine.ledger, engine.held, engine.rules, self._problems(), now)
            case "explain":
                subject = str(question["subject"])
                records = list(engine.story)
                return views.explain(subject, engine.snapshot, engine.ledger, engine.held, engine.rules, records, now)
            case "job":
                return self._job(str(question["job"]), uid, now)
            case "check":
                return self._acting(uid, lambda: self._check(question, uid))
            case "withdraw_check":
                return self._acting(uid, lambda: self._withdraw(question))
            case "check_status":
                keys = [str(key) for key in question["keys"]]
                return {
                    "checks": [
                        views.check_status(
                            key, engine.snapshot, engine.ledger, engine.held, engine.rules, list(engine.story), now
                        )
                        for key in keys
                    ]
                }
            case "check_pairs":
                return self._acting(uid, lambda: self._check_pairs(question, uid))
            case "withdraw_pairs":
                return self._acting(uid, lambda: self._withdraw_pairs(question))
            case "pairs_status":
                return pair_status(str(question["key"]), engine.snapshot, engine.ledger)
            case "plan":
                return verbs.show_plan(engine, as_if_acting=bool(question.get("as_if_acting")), now=now)
            case "verb":
                return self._verb(question, uid, now)
            case "pause" | "resume":
                return self._acting(uid, lambda: verbs.pause(engine, question, by=_name_of(uid), now=now))
            case other:
                return {"error": f"not a question that this release knows: {other!r}"}

    def _job(self, job: str, uid: int, now: float) -> Mapping[str, Any]:
        engine = self._engine
        story = job_story(job, engine.snapshot, engine.ledger, engine.held, engine.rules, now)
        if uid not in self._may_act and _name_of(uid) != story.get("user"):
            # Lines of its output are its user's.
            for run in story.get("interruptions", ()):
                run["evidence"] = []
        return story

    def _acting(self, uid: int, act: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        if uid not in self._may_act:
            return {"error": f"{_name_of(uid)} may look and not act: run this as root or as SlurmUser"}
        try:
            answer = act()
        except JournalError as error:
            return {"error": f"{error}: nothing was done"}
        self._wake()
        return answer

    def _verb(self, question: Mapping[str, Any], uid: int, now: float) -> Mapping[str, Any]:
        try:
            names = self._nodes(question)
        except ValueError as error:
            return {"error": str(error)}

        def act() -> Mapping[str, Any]:
            verb = str(question["verb"])
            return verbs.repair_or_service(self._engine, verb, names, question, by=_name_of(uid), now=now)

        # What it would do may be looked at by anyone.
        return act() if question.get("dry_run") else self._acting(uid, act)

    def _nodes(self, question: Mapping[str, Any]) -> list[str]:
        """The node names that the question means. Raises ValueError with one sentence."""
        known = {*self._engine.snapshot.nodes, *self._engine.snapshot.agents}
        names: list[str] = []
        for item in question["nodes"]:
            names += expand(str(item))
        unknown = sorted(set(names) - known)
        if unknown:
            raise ValueError(
                f"no node {', '.join(unknown[:5])} is known to Slurm or by its agent: `sinfo` lists the names"
            )
        if not names:
            raise ValueError("no node was named: give a hostlist such as n[1-4]")
        return sorted(set(names))

    def _check(self, question: Mapping[str, Any], uid: int) -> Mapping[str, Any]:
        suite = question.get("suite", "deep")
        if suite not in ("quick", "deep"):
            return {"error": f"the suite {suite!r} is not known: ask for quick or deep"}
        try:
            names = self._nodes(question)
        except ValueError as error:
            return {"error": str(error)}
        record = self._engine.ask_checks(names, suite=suite, by=_name_of(uid))
        return {"keys": [f"deep:{name}:{int(record.at)}" for name in names], "nodes": names, "suite": suite}

    def _withdraw(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            names = self._nodes(question)
        except ValueError as error:
            return {"error": str(error)}
        asked = {wish.node for wish in self._engine.ledger.check_wishes.values()}
        self._engine.withdraw_checks(names)
        return {"withdrawn": sorted(asked.intersection(names))}

    def _check_pairs(self, question: Mapping[str, Any], uid: int) -> Mapping[str, Any]:
        try:
            names = self._nodes(question)
        except ValueError as error:
            return {"error": str(error)}
        ungrouped = [name for name in names if self._engine.rules.group_of(name) is None]
        if ungrouped:
            return {
                "error": f"{', '.join(ungrouped[:5])} is in no group of controller.toml: "
                "what it may be compared with is not known"
            }
        if len(names) < 2:
            return {"error": f"{names[0]} alone is no pair: name at least two nodes, four to name a culprit"}
        record = self._engine.note("pairs_asked", {"nodes": names, "by": _name_of(uid)})
        return {"key": f"pairs:{record.number}", "nodes": names}

    def _withdraw_pairs(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            names = set(self._nodes(question))
        except ValueError as error:
            return {"error": str(error)}
        tests = [test for test in self._engine.ledger.pair_tests.values() if test.is_open and names & set(test.nodes)]
        if tests:
            self._engine.note("pairs_withdrawn", {"keys": [test.key for test in tests]})
        return {"withdrawn": sorted({node for test in tests for node in test.nodes})}


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
