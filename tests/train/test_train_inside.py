"""Which nodes a step runs on next, and when it is over."""

import pytest
from nodewatch_train import inside
from nodewatch_train.inside import Choice, Ended, Terms, after, begin

ALL = ("n1", "n2", "n3", "n4")
ONE_SPARE = Terms(wanted=3, least=3)
ELASTIC = Terms(wanted=4, least=2)


def ended(code: int = 1, *, bad: tuple[str, ...] = (), step: int | None = None) -> Ended:
    return Ended(nodes=ALL[:3], code=code, bad=bad, step=step)


def test_the_first_try_leaves_the_spare_alone() -> None:
    assert begin(ALL, (), ONE_SPARE) == Choice(why="starting on n1,n2,n3", nodes=("n1", "n2", "n3"))
    assert begin(ALL, {"n1"}, ONE_SPARE).nodes == ("n2", "n3", "n4")


def test_a_bad_node_is_left_out_and_the_spare_comes_in() -> None:
    choice = after(ALL, {"n2"}, [ended(bad=("n2",))], ONE_SPARE)

    assert choice == Choice(why="n2 is bad; going on on n1,n3,n4", nodes=("n1", "n3", "n4"))


def test_without_enough_nodes_the_steps_own_code_ends_the_job() -> None:
    choice = after(ALL, {"n2", "n3"}, [ended(bad=("n2",)), ended(137, bad=("n3",))], ONE_SPARE)

    assert choice == Choice(why="n3 is bad; 2 healthy nodes are left and 3 are needed", code=137)


@pytest.mark.parametrize(
    ("bad", "nodes"), [({"n2"}, ("n1", "n3", "n4")), ({"n2", "n4"}, ("n1", "n3")), ({"n1", "n2", "n3"}, ())]
)
def test_an_elastic_step_goes_on_with_fewer(bad: set[str], nodes: tuple[str, ...]) -> None:
    assert after(ALL, bad, [ended(bad=("n2",))], ELASTIC).nodes == nodes


@pytest.mark.parametrize(("code", "words"), [(0, "ended well"), (93, "cannot help"), (94, "saved and ended")])
def test_some_codes_are_the_end(code: int, words: str) -> None:
    choice = after(ALL, {"n2"}, [ended(code, bad=("n2",))], ONE_SPARE)

    assert (choice.nodes, choice.code) == ((), code)
    assert words in choice.why


@pytest.mark.parametrize(
    ("steps", "goes_on"),
    [
        ([10], True),
        ([None], True),
        ([10, 20], True),
        ([10, 10], False),
        ([None, None], False),
        ([None, 10], False),
        ([10, 20, 30], True),
        ([10, 20, 30, 40], False),
    ],
)
def test_a_program_that_fails_by_itself_must_get_further_each_time(steps: list[int | None], goes_on: bool) -> None:
    choice = after(ALL, (), [ended(step=step) for step in steps], ONE_SPARE)

    assert bool(choice.nodes) is goes_on
    assert choice.code == (0 if goes_on else 1)


def test_failures_of_nodes_do_not_use_up_the_programs_tries() -> None:
    tries = [ended(bad=("n2",), step=10), ended(bad=("n3",), step=10), ended(step=10)]

    assert after(ALL, {"n2", "n3"}, tries, ELASTIC).nodes == ("n1", "n4")


def test_ranks_are_numbered_as_slurm_sorts_nodes() -> None:
    nodes = ("n2", "n9", "n10")

    assert begin(nodes, (), Terms(wanted=3, least=3)).nodes == nodes
    assert after(nodes, {"n2"}, [Ended(nodes=("n2", "n10"), code=1, bad=("n2",))], Terms(wanted=2, least=2)).nodes == (
        "n9",
        "n10",
    )


@pytest.mark.parametrize(
    ("spares", "least", "words"),
    [
        (4, None, "4 of 4 nodes cannot be spare"),
        (-1, None, "-1 of 4"),
        (1, 4, "--min-nodes 4 must be from 1 to the 3"),
        (1, 0, "--min-nodes 0"),
    ],
)
def test_terms_that_cannot_be_kept(spares: int, least: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        inside.terms(4, spares=spares, least=least)


def test_the_tasks_are_those_of_fewer_nodes_and_the_port_is_another() -> None:
    told = {
        "SLURM_JOB_ID": "17",
        "SLURM_NTASKS": "8",
        "SLURM_NNODES": "4",
        "SLURM_TASKS_PER_NODE": "2(x4)",
        "MASTER_PORT": "29500",
        "MASTER_ADDR": "n2",
    }
    environment, options = inside.step_environment(told, ("n1", "n3"), allocated=4, number=2)

    assert environment == {
        "SLURM_JOB_ID": "17",
        "MASTER_ADDR": "n1",
        "MASTER_PORT": "29502",
        "NODEWATCH_TRY": "2",
    }
    assert options == ["--nodes=2", "--nodelist=n1,n3", "--kill-on-bad-exit=1", "--ntasks=4", "--overlap"]


def test_without_a_port_it_is_that_of_the_job() -> None:
    told = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1", "SLURM_NTASKS_PER_NODE": "8"}
    environment, options = inside.step_environment(told, ("n1",), allocated=2, number=0)

    assert environment["MASTER_PORT"] == str(20_000 + 17 * 64 + 1)
    assert options == ["--nodes=1", "--nodelist=n1", "--kill-on-bad-exit=1", "--ntasks=8"]


@pytest.mark.parametrize(
    ("text", "spares", "directory"),
    [
        ("3,dir=/fsx/run1,spares=1", 1, "/fsx/run1"),
        ("spares=02", 2, ""),
        ("3", 0, ""),
        ("", 0, ""),
        ("dir=/fsx/spares=7", 0, "/fsx/spares=7"),
    ],
)
def test_what_the_flag_says(text: str, spares: int, directory: str) -> None:
    assert (inside.spares_of(text), inside.directory_of(text)) == (spares, directory)


@pytest.mark.parametrize(
    ("hostlist", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-3,7],head", ["n1", "n2", "n3", "n7", "head"]),
        ("rack[1-2]-n[09-10]", ["rack1-n09", "rack1-n10", "rack2-n09", "rack2-n10"]),
    ],
)
def test_host_lists(hostlist: str, names: list[str]) -> None:
    assert inside.expand(hostlist) == names


@pytest.mark.parametrize("hostlist", ["", "n[1-", "n[3-1]", "n[a]", "n1,,n2", "n[1-999999]", "n]1["])
def test_what_is_no_host_list(hostlist: str) -> None:
    with pytest.raises(ValueError, match="host list"):
        inside.expand(hostlist)
