"""The table of lines that tell why a job ended: complete, with sources, and each row finding what it is for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewatch.knowledge.job_signs import EXCEPTION, TABLE, parse, told, told_lines

LINES = {
    "cuda_ecc": "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
    "cuda_nvlink": "RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution",
    "cuda_hardware_stack": "RuntimeError: CUDA error: hardware stack error",
    "gpu_lost": "Unable to determine the device handle for GPU0000:53:00.0: GPU is lost.",
    "memory_error": "slurmstepd: error: *** STEP 17.0 ON n2 UNCORRECTABLE MEMORY ERROR AT 2026-11-24T10:00:00 ***",
    "node_failure": "srun: error: Node failure on n2",
    "time_limit": "slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-24T10:00:00 DUE TO TIME LIMIT ***",
    "preempted": "slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-24T10:00:00 DUE TO PREEMPTION ***",
    "requeued": "slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-24T10:00:00 DUE TO JOB REQUEUE ***",
    "oom_kill": "slurmstepd: error: Detected 1 oom_kill event in StepId=17.0. Some of the step tasks have been OOM Killed.",
    "oom_task": "srun: error: n2: task 9: Out Of Memory",
    "nccl_remote": "NCCL error: remote process exited or there was a network error, NCCL version 2.27.5",
    "nccl_closed": "n1:41:77 [0] misc/socket.cc:58 NCCL WARN socketProgress: Connection closed by remote peer n2<53412>",
    "nccl_watchdog": "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9) ran for 600021 milliseconds",
    "nccl_system": "NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled system error (run with NCCL_DEBUG=INFO for details)",
    "ib_completion": "n1:41:77 [0] NCCL WARN NET/IB : Got completion from peer 10.0.0.2<41> with status=12 opcode=0 len=0",
    "ofi_completion": "NET/OFI Request 0x7f completed with error. RC: 113. Error: unresponsive receiver",
    "ucx": "[1700000000.1] [n1:41:0] ib_mlx5_log.c:171 UCX  ERROR Transport retry count exceeded on mlx5_0:1/RoCE",
    "gloo": "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:41",
    "dist_backend": "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms",
    "peer_lost": "rank 3: a peer is gone: Socket Timeout",
    "connection": "ConnectionResetError: [Errno 104] Connection reset by peer",
    "child_failed": "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
    "step_aborted": "srun: error: n2: tasks 8-15: Killed",
    "cancelled": "slurmstepd: error: *** STEP 17.0 ON n1 CANCELLED AT 2026-11-24T10:00:00 ***",
    "mpi_noticed": "prterun noticed that process rank 3 with PID 41 on node n2 exited on signal 9 (Killed).",
    "mpi_lost_daemon": "PRTE has lost communication with a remote daemon.",
    "stale_handle": "OSError: [Errno 116] Stale file handle: '/fsx/a'",
    "transport_endpoint": "OSError: [Errno 108] Cannot send after transport endpoint shutdown",
    "input_output": "OSError: [Errno 5] Input/output error",
    "read_only": "OSError: [Errno 30] Read-only file system: '/scratch/a'",
    "no_space": "OSError: [Errno 28] No space left on device",
    "quota": "OSError: [Errno 122] Disk quota exceeded",
    "cuda_not_ready": "RuntimeError: CUDA error: system not yet initialized",
    "cuda_no_device": "RuntimeError: No CUDA GPUs are available",
    "cuda_oom": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "device_assert": "RuntimeError: CUDA error: device-side assert triggered",
    "cuda_illegal_access": "RuntimeError: CUDA error: an illegal memory access was encountered",
    "remote_service": "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='hub.example.org', port=443)",
    "dataloader_shm": "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error.",
    "dataloader": "RuntimeError: DataLoader worker (pid(s) 4711) exited unexpectedly",
    "refused": "rank 0: the checkpoints are another model's",
    "mpi_abort": "MPI_ABORT was invoked on rank 3 in communicator MPI_COMM_WORLD",
    "not_found": "/var/spool/slurmd/job00017/slurm_script: line 9: pyhton: command not found",
    "memory": "MemoryError",
    "segfault": "srun: error: n1: task 3: Segmentation fault (core dumped)",
    "exception": EXCEPTION + "ValueError: shapes differ",
}


def test_each_row_has_an_example_and_no_row_before_it_takes_it() -> None:
    assert set(LINES) == {sign.name for sign in TABLE}
    for name, line in LINES.items():
        found = told(line)
        assert found is not None, name
        assert found.sign.name == name, line


@pytest.mark.parametrize(
    ("line", "rank", "host"),
    [
        ("[rank3]: torch.OutOfMemoryError: CUDA out of memory.", 3, ""),
        ("[default5]:[rank5]: MemoryError", 5, ""),
        ("12: MemoryError", 12, ""),
        ("\x1b[31mMemoryError\x1b[0m", None, ""),
        ("srun: error: n2: task 9: Out Of Memory", 9, "n2"),
        ("srun: error: Node failure on gpu-7.cluster", None, "gpu-7.cluster"),
        ("prterun noticed that process rank 3 with PID 41 on node n2 exited on signal 9 (Killed).", 3, "n2"),
    ],
)
def test_whose_line_it_is(line: str, rank: int | None, host: str) -> None:
    found = told(line)
    assert found is not None
    assert (found.rank, found.host) == (rank, host)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "step 12 loss 2.31",
        "ValueError: not in a traceback",
        "saving a checkpoint to /fsx/run1",
        "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.",
        "NCCL INFO Connected all rings",
    ],
)
def test_lines_that_tell_nothing(line: str) -> None:
    assert told(line) is None


def test_only_the_last_line_of_a_traceback_is_an_exception() -> None:
    text = """
    Traceback (most recent call last):
      File "/a.py", line 1, in <module>
        raise KeyError: what stands in the code
    Traceback (most recent call last):"""
    lines = [line[4:] for line in text.splitlines()]
    assert list(told_lines(lines)) == []
    ((sign, line),) = told_lines([*lines, '  File "/b.py", line 2', "mine.CustomError: 17", "OtherError: no more"])
    assert (sign.name, line) == ("exception", EXCEPTION + "mine.CustomError: 17")


def test_tracebacks_of_two_ranks_mix() -> None:
    mixed = [
        "[rank1]: Traceback (most recent call last):",
        "[rank2]: Traceback (most recent call last):",
        '[rank1]:   File "/a.py", line 1',
        '[rank2]:   File "/a.py", line 1',
        "[rank2]: KeyError: 2",
        "[rank1]: IndexError: 1",
    ]
    assert [line for _, line in told_lines(mixed)] == [
        EXCEPTION + "[rank2]: KeyError: 2",
        EXCEPTION + "[rank1]: IndexError: 1",
    ]


@given(st.lists(st.text(), max_size=20))
def test_nothing_that_a_program_prints_raises(lines: list[str]) -> None:
    for sign, line in told_lines(lines):
        found = told(line)
        assert found is not None
        assert found.sign.name == sign.name


ROW = """
[source]
s = "x"
[signs.a]
pattern = 'a'
proves = "program"
certain = true
what = "w"
source = "s"
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"program"', '"nobody"'),
        ('source = "s"', 'source = "t"'),
        ("true", '"yes"'),
        ("pattern = 'a'", "pattern = '('"),
    ],
)
def test_rows_that_are_not_complete_are_refused(old: str, new: str) -> None:
    assert parse(ROW)[0].name == "a"
    with pytest.raises((ValueError, re.error)):
        parse(ROW.replace(old, new))
