"""Failure domains in controller.toml."""

from pathlib import Path

import pytest

from nodewatch.config.controller import load_controller_config
from nodewatch.errors import ConfigError

GROUP = '[[groups]]\nname = "g"\npartition = "train"\nnodes = ["n[1-4]"]\nprice_per_hour = 98.3\n'


def test_domains_and_limits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "controller.toml"
    limits = "[policy]\nmax_out_per_domain = 1\ndegraded_wait_s = 14400\nmin_healthy = { train = 0.9, other = 4 }\n"
    path.write_text(limits + GROUP + 'domains = { spine1 = ["n[1-2]"], spine2 = ["n3", "n4"] }\n')

    rules = load_controller_config(path).rules

    assert [rules.groups[0].domain_of(name) for name in ("n1", "n4", "n9")] == ["spine1", "spine2", None]
    assert rules.min_healthy == {"train": 0.9, "other": 4.0}
    assert (rules.max_out_per_domain, rules.degraded_wait_s, rules.groups[0].price_per_hour) == (1, 14400.0, 98.3)


@pytest.mark.parametrize(
    ("domains", "words"),
    [
        ('{ a = ["n[1-2]"], b = ["n2"] }', "n2 is in the domain 'a' as well"),
        ('{ a = ["n7"] }', "n7 is no node of the group"),
        ('{ a = ["n[1-"] }', "domain 'a' of 'g'"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(tmp_path: Path, domains: str, words: str) -> None:
    path = tmp_path / "controller.toml"
    path.write_text(f"{GROUP}domains = {domains}\n")
    with pytest.raises(ConfigError) as caught:
        load_controller_config(path)
    assert words in str(caught.value)
