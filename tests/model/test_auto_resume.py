"""The text of --auto-resume: what is understood, what is refused in one sentence, how a site's default is mixed in."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.model.auto_resume import (
    AutoResume,
    SiteDefault,
    effective,
    merged,
    parse,
    resolved,
    site_defaults_from_json,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default", AutoResume()),
        ("off", AutoResume(is_off=True)),
        ("0", AutoResume(retries=0)),
        ("07", AutoResume(retries=7)),
        ("99", AutoResume(retries=99)),
        ("dir=/fsx/run1", AutoResume(directory="/fsx/run1")),
        ("spares=2", AutoResume(spares=2)),
        ("3,dir=/fsx/run1,spares=1", AutoResume(retries=3, directory="/fsx/run1", spares=1)),
        ("spares=1,dir=/fsx/run 1=b,3", AutoResume(retries=3, directory="/fsx/run 1=b", spares=1)),
        ("default,dir=/fsx/läufe", AutoResume(directory="/fsx/läufe")),
    ],
)
def test_understood(text: str, expected: AutoResume) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "'' in '' is not understood"),
        ("many", "'many' in 'many' is not understood: write N (0 to 99), default or off"),
        ("100", "is not understood"),
        ("-1", "is not understood"),
        ("²", "is not understood"),
        ("3,", "a comma with nothing beside it"),
        ("3,4", "says N twice"),
        ("3,default", "has a number beside 'default'"),
        ("off,3", "has a number beside 'off'"),
        ("off,dir=/fsx", "says more than off"),
        ("off,default", "says N twice"),
        ("dir=", "is no absolute path"),
        ("dir=run1", "'dir=run1' in 'dir=run1' is no absolute path: write dir=/PATH"),
        ("dir=/a\nb", "is no absolute path"),
        ("dir=/a,dir=/b", "says dir twice"),
        ("spares=x", "'spares=x' in 'spares=x' is no number from 0 to 999"),
        ("spares=1000", "is no number"),
        ("retries=3", "'retries' in 'retries=3' is unknown"),
        ("directory=/fsx", "known are dir=/PATH and spares=K"),
        ("dir=/" + "x" * 900, "more than 900 bytes"),
    ],
)
def test_refused_in_one_sentence(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(word)) as error:
        parse(text)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "site", "expected"),
    [
        ("default", "3,dir=/fsx/a", "3,dir=/fsx/a"),
        ("5", "3,dir=/fsx/a", "5,dir=/fsx/a"),
        ("dir=/b", "3,dir=/fsx/a,spares=1", "3,dir=/b,spares=1"),
        ("spares=0", "default,spares=1", "default,spares=0"),
        ("off", "3", "off"),
        ("2", "off", "2"),
        ("default", "default", "default"),
    ],
)
def test_the_users_own_words_win(text: str, site: str, expected: str) -> None:
    assert merged(text, site) == expected


@given(st.text(alphabet="0123456789,=dirspaefult/off ²\n", max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        known = parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert parse(merged(text, "default")) == known


TRAIN = SiteDefault(partition="train", value="3,dir=/fsx/{user}/{job_name}")
LLM = SiteDefault(account="llm", value="5", always=True)


@pytest.mark.parametrize(
    ("text", "partition", "account", "expected"),
    [
        (None, "train", "llm", None),
        (None, "debug", "llm", "5"),
        (None, "debug", "bio", None),
        ("off", "debug", "llm", "off"),
        ("default", "train", "llm", "3,dir=/fsx/{user}/{job_name}"),
        ("2", "train", "", "2,dir=/fsx/{user}/{job_name}"),
        ("2", "debug", "bio", "2"),
        ("nonsense", "train", "", "nonsense"),
    ],
)
def test_the_first_default_that_is_for_the_job_counts(
    text: str | None, partition: str, account: str, expected: str | None
) -> None:
    assert effective(text, (TRAIN, LLM), partition=partition, account=account) == expected


@pytest.mark.parametrize(
    ("value", "word"), [("off", "leave the table out"), ("x", "is not understood"), ("dir=/{home}", "{home} in value")]
)
def test_a_default_that_makes_no_sense(value: str, word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(word)):
        SiteDefault(value=value)


@pytest.mark.parametrize(
    ("user", "job_name", "expected"),
    [
        ("ada", "run1", "3,dir=/fsx/ada/run1"),
        ("ada", "../../root,off", "3,dir=/fsx/ada/.._.._root_off"),
        ("ada", "..", "3,dir=/fsx/ada/_"),
        ("ada", "", "3,dir=/fsx/ada/{job_name}"),
    ],
)
def test_names_are_one_part_of_the_path(user: str, job_name: str, expected: str) -> None:
    assert resolved(TRAIN.value, user=user, job_name=job_name) == expected


def test_defaults_reach_the_agents() -> None:
    assert site_defaults_from_json([each.to_json() for each in (TRAIN, LLM)]) == (TRAIN, LLM)
