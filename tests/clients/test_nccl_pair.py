"""The command line of a pair test."""

from __future__ import annotations

from nodewatch.clients.nccl_pair import DEFAULT_COMMAND, PLACEHOLDERS, argv, cancel_argv, unknown_placeholders

VALUES = {
    "name": "nodewatch-pair",
    "nodes": "n1,n2",
    "tasks": "8",
    "gpus": "8",
    "immediate": "10",
    "minutes": "11",
    "partition": "train",
    "mpi": "pmix",
    "program": "all_reduce_perf",
    "begin": "134217728",
    "end": "17179869184",
    "stuck": "60",
}


def test_the_default_takes_both_nodes_whole_and_starts_one_rank_a_gpu() -> None:
    words = argv(DEFAULT_COMMAND, VALUES, ("--account=ops", "--qos=health"))
    allocation, step = words[: words.index("srun")], words[words.index("srun") :]
    assert allocation[0] == "salloc"
    assert {"--nodelist=n1,n2", "--exclusive", "--job-name=nodewatch-pair", "--account=ops"} <= set(allocation)
    assert "--exclusive" not in step, "on srun it would leave each rank a single core"
    assert step[step.index("-b") : step.index("-b") + 2] == ("-b", "134217728")
    assert step[step.index("-g") : step.index("-g") + 2] == ("-g", "1")


def test_a_word_without_a_value_is_left_out() -> None:
    words = argv(DEFAULT_COMMAND, {**VALUES, "gpus": "", "mpi": "", "partition": ""})
    assert not any(word.startswith(("--gpus-per-node", "--mpi", "--partition")) or "{" in word for word in words)
    assert "--ntasks-per-node=8" in words


def test_placeholders_are_known() -> None:
    assert unknown_placeholders(DEFAULT_COMMAND) == []
    assert unknown_placeholders(("x", "--n={nodes}", "{hosts}")) == ["hosts"]
    assert {*VALUES, "extra"} == PLACEHOLDERS


def test_only_our_own_jobs_of_that_name_are_cancelled() -> None:
    everywhere = cancel_argv()
    assert everywhere[:2] == ("scancel", "--name=nodewatch-pair")
    assert everywhere[2].startswith("--user=")
    assert len(everywhere[2]) > len("--user=")
    assert cancel_argv(("n1", "n2")) == (*everywhere, "--nodelist=n1,n2")
