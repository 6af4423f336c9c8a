"""Who a rank is, from the variables that srun and torchrun really set."""

import pytest
from nodewatch_train.launch import Launch, first_host, master_port
from nodewatch_train.manifest import RefusedError

SRUN = {
    "SLURM_PROCID": "2",
    "SLURM_NTASKS": "3",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "17",
    "SLURM_RESTART_COUNT": "1",
    "SLURM_STEP_NODELIST": "n[2-4]",
}
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RESTART_COUNT": "3",
}


def test_under_srun() -> None:
    launch = Launch.from_environment(SRUN, gpus=0)
    assert (launch.rank, launch.world_size, launch.local_rank, launch.restart) == (2, 3, 0, 1)
    assert launch.master == ("n2", master_port(17, 1))
    assert launch.device.type == "cpu"


def test_under_torchrun_inside_a_job() -> None:
    launch = Launch.from_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"} | TORCHRUN, gpus=8)
    assert (launch.rank, launch.world_size, launch.local_rank, launch.restart) == (1, 2, 1, 3)
    assert launch.master == ("127.0.0.1", 29500)
    assert str(launch.device) == "cuda:1"


def test_alone_even_inside_a_batch_script() -> None:
    launch = Launch.from_environment({"SLURM_NTASKS": "3", "SLURM_JOB_ID": "17"}, gpus=0)
    assert (launch.rank, launch.world_size, launch.master) == (0, 1, ("localhost", 0))


def test_one_gpu_a_task_is_number_0_on_every_rank() -> None:
    assert str(Launch.from_environment(SRUN | {"SLURM_LOCALID": "5"}, gpus=1).device) == "cuda:0"


def test_export_is_what_env_rendezvous_reads() -> None:
    environment: dict[str, str] = {}
    Launch.from_environment(SRUN | {"MASTER_PORT": "31000"}, gpus=0).export(environment)
    expected = {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "MASTER_ADDR": "n2", "MASTER_PORT": "31000"}
    assert environment == expected


@pytest.mark.parametrize(
    ("nodelist", "first"),
    [
        ("n1", "n1"),
        ("n[1-3]", "n1"),
        ("n[003,7-9]", "n003"),
        ("a7,b[1-2]", "a7"),
        ("p5-st-[1-2]-x,z9", "p5-st-1-x"),
    ],
)
def test_first_host(nodelist: str, first: str) -> None:
    assert first_host(nodelist) == first


def test_the_port_differs_between_lives_and_between_neighbours() -> None:
    ports = [master_port(job, restart) for job in (17, 18, 19) for restart in range(10)]
    assert len(set(ports)) == len(ports)
    assert all(1024 < port < 32768 for port in ports)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SLURM_PROCID": "two"}, "SLURM_PROCID is 'two', and should be a whole number"),
        ({"RANK": "3", "WORLD_SIZE": "3"}, "rank 3 of 3 ranks"),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_STEP_NODELIST": "["}, "set MASTER_ADDR"),
    ],
)
def test_nonsense_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        Launch.from_environment(environment, gpus=0)
