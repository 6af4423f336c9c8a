"""Hostlists: `fold` and `expand` are each other's inverse, and no text makes `expand` hang."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewatch.model.hostlist import expand, fold

names = st.one_of(
    st.from_regex(r"[a-z][a-z0-9.-]{0,6}", fullmatch=True),
    st.builds(
        lambda prefix, n, width: f"{prefix}{n:0{width}d}",
        st.sampled_from("nab"),
        st.integers(0, 120),
        st.integers(1, 4),
    ),
    st.from_regex(r"[0-9]{1,4}", fullmatch=True),
    st.from_regex(r"n[0-9]{17,25}", fullmatch=True),
    st.sampled_from(["n٣", "n²", "knoten-ü1"]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(names, max_size=40))
def test_expand_gives_back_what_was_folded(given_names: list[str]) -> None:
    assert sorted(expand(fold(given_names))) == sorted(set(given_names))


@settings(max_examples=300, deadline=1000)
@given(st.text(alphabet="n[]1209-, .²٣\0", max_size=40))
def test_any_text_is_names_or_one_sentence(text: str) -> None:
    try:
        expanded = expand(text)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert all(expanded), text
        assert not any(set("[],") & set(name) for name in expanded)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" , ", []),
        ("n1", ["n1"]),
        ("n[1-3,7],login", ["n1", "n2", "n3", "n7", "login"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[9-10]", ["n9", "n10"]),
        ("r[1-2]n[1-2]-eth", ["r1n1-eth", "r1n2-eth", "r2n1-eth", "r2n2-eth"]),
        ("a,b[1,2],c", ["a", "b1", "b2", "c"]),
        ("gpu-dy-p5-[1-2] , x", ["gpu-dy-p5-1", "gpu-dy-p5-2", "x"]),
    ],
)
def test_expressions_as_slurm_prints_them(text: str, expected: list[str]) -> None:
    assert expand(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "n[1-3",
        "n1-3]",
        "n]1[",
        "n[]",
        "n[a-b]",
        "n[1-]",
        "n[-3]",
        "n[3-1]",
        "n[[1-2]]",
        "n[1-2]]",
        "n[1,,2]",
        "n[²]",
        "n[1.5]",
    ],
)
def test_what_is_no_hostlist_is_said_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is no hostlist") as caught:
        expand(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "n[1-999999999999]",
        "n[1-99999][1-99999][1-99999]",
        ",".join(f"a{n}b[1-99999]" for n in range(1000)),
        "n" + "[1-2]" * 5000,
        "n" + "[1]" * 5000,
        "n[" + "9" * 10_000 + "]",
        "n[0-" + "9" * 10_000 + "]",
        "n[" + "1," * 200_000,
        "n" + "[" * 200_000,
        ",".join(f"n{n}x" for n in range(150_000)),
    ],
    ids=lambda text: text[:20],
)
def test_a_huge_expression_is_refused_at_once(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"hostlist|more than") as caught:
        expand(text)
    assert time.monotonic() - began < 2.0
    assert len(str(caught.value)) < 400


def test_a_long_list_of_single_names_is_quick() -> None:
    many = [f"node{n}x" for n in range(50_000)]
    began = time.monotonic()
    assert expand(",".join(many)) == many
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    ("given_names", "text"),
    [
        ([], ""),
        (["n1"], "n1"),
        (["n3", "n1", "n2", "n2"], "n[1-3]"),
        (["n1", "n2", "n10"], "n10,n[1-2]"),
        (["n08", "n09", "n10", "n12"], "n[08-10,12]"),
        (["login", "a1", "a3"], "a[1,3],login"),
    ],
)
def test_folded_text(given_names: list[str], text: str) -> None:
    assert fold(given_names) == text
