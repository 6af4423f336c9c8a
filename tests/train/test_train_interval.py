"""How often to save, against the time that a simulated run really loses."""

import random

import pytest
from nodewatch_train.interval import DEFAULT_MTBF_S, Pace, best_interval, mean_time_between_failures, propose


def lost(interval: float, *, held: float, mtbf: float, chance: random.Random) -> float:
    """The share of two thousand failures' time that saving and doing again cost."""
    useful = wasted = 0.0
    for _ in range(2000):
        left = chance.expovariate(1 / mtbf)
        while left > interval + held:
            left -= interval + held
            useful += interval
            wasted += held
        wasted += left
    return wasted / (useful + wasted)


@pytest.mark.parametrize(("held", "mtbf"), [(1.0, 3600.0), (30.0, 3600.0), (60.0, 600.0)])
def test_it_loses_less_than_other_intervals(held: float, mtbf: float) -> None:
    best = best_interval(held_s=held, mtbf_s=mtbf)

    def at(interval: float) -> float:
        return lost(interval, held=held, mtbf=mtbf, chance=random.Random(5))

    assert at(best) < at(best / 2.5)
    assert at(best) < at(best * 2.5)


def test_a_save_that_takes_longer_than_the_failures_leave_is_no_infinity() -> None:
    assert best_interval(held_s=500.0, mtbf_s=100.0) == 100.0
    assert best_interval(held_s=0.0, mtbf_s=100.0) == 0.0


def test_a_proposal_leaves_the_background_save_its_time_and_says_why() -> None:
    proposal = propose(held_s=0.02, seconds=45.0, mtbf_s=36_000.0)
    assert proposal.seconds == 90.0
    assert "holds the run up for 0.02 s and takes 45.0 s" in proposal.because
    assert "every 10.0 h" in proposal.because
    assert propose(held_s=1.0, seconds=1.0, mtbf_s=1e9).seconds == 3600.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("7200", 7200.0), ("", DEFAULT_MTBF_S), ("often", DEFAULT_MTBF_S), ("-1", DEFAULT_MTBF_S)]
)
def test_the_mean_time_between_failures_comes_from_the_environment(text: str, seconds: float) -> None:
    assert mean_time_between_failures({"NODEWATCH_MTBF_S": text}) == seconds


def test_the_pace_takes_the_proposal_once_it_has_measured() -> None:
    now = [0.0]
    pace = Pace(mtbf_s=20_000.0, clock=lambda: now[0])
    now[0] = 59.0
    assert not pace.is_due()
    now[0] = 60.0
    assert pace.is_due()
    pace.began()
    assert pace.measured(held_s=1.0, seconds=2.0).seconds == pytest.approx(199.0, abs=1.0)
    now[0] = 258.0
    assert not pace.is_due()
    now[0] = 261.0
    assert pace.is_due()
    fixed = Pace(interval_s=5.0, clock=lambda: now[0])
    fixed.measured(held_s=1.0, seconds=2.0)
    now[0] = 266.0
    assert fixed.is_due()


def test_a_restart_takes_the_cluster_s_new_word(monkeypatch: pytest.MonkeyPatch) -> None:
    paces = []
    for told in ("3600", "36000", ""):  # as each start of the job finds it
        monkeypatch.setenv("NODEWATCH_MTBF_S", told)
        paces.append(Pace().measured(held_s=1.0, seconds=2.0).seconds)
    expected = [propose(held_s=1.0, seconds=2.0, mtbf_s=mtbf).seconds for mtbf in (3600.0, 36_000.0, DEFAULT_MTBF_S)]
    assert paces == expected
    assert len(set(paces)) == 3
