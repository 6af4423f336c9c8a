"""The sensors of fabric, network and cloud as the configuration asks for them, and whose checks they serve."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nodewatch.agent.fabric_readings import fabric_sensors
from nodewatch.agent.main import readable
from nodewatch.agent.readings import sensors_of
from nodewatch.checks._api import load_checks
from nodewatch.config.agent import AgentConfig, check_settings, efa_expected
from nodewatch.config.load import load
from nodewatch.errors import ConfigError
from nodewatch.model.fabric_samples import EfaSample
from nodewatch.sensors.reading import PolledSensor, Reading

ROOT = Path(__file__).resolve().parents[2]
OURS = {
    "efa_devices",
    "efa_link",
    "efa_counters",
    "ib_ports",
    "ib_counters",
    "host_ena_allowance",
    "host_ena_link",
    "ec2_notices",
    "ec2_events",
    "ec2_impaired",
    "host_modules",
    "host_memlock",
}


def config(tmp_path: Path, text: str = "") -> AgentConfig:
    path = tmp_path / "agent.toml"
    path.write_text(f'state_dir = "{tmp_path / "state"}"\n{text}\n')
    return load(AgentConfig, path)


def read(sensor: PolledSensor) -> Reading:
    sensor.start(time.monotonic())
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        reading = sensor.result(time.monotonic())
        if reading is not None:
            sensor.close()
            return reading
        time.sleep(0.01)
    raise AssertionError(f"{sensor.name} gave no reading")


def test_the_checks_are_run_by_the_agent(tmp_path: Path) -> None:
    made = config(tmp_path, 'nvml = "off"\nimds_url = ""')
    checks = readable(check_settings(made, load_checks()), sensors_of(made, "boot"))
    assert set(checks) >= OURS


def test_every_source_answers_here_without_a_fault_of_its_own(tmp_path: Path) -> None:
    # Of the machine that runs the tests nothing is known: each has a sample, or one sentence.
    for sensor in fabric_sensors(config(tmp_path, 'imds_url = ""')):
        reading = read(sensor)
        given = [each for each in (reading.sample, reading.error, reading.not_applicable) if each is not None]
        assert len(given) == 1, sensor.name
        assert "\n" not in str(reading.error or reading.not_applicable), sensor.name


@pytest.mark.parametrize(
    ("text", "detected", "devices"),
    [
        ('instance_type = "p5.48xlarge"', "", 32),
        ('instance_type = "p5.48xlarge"', "p5en.48xlarge", 32),
        ("", "p5en.48xlarge", 16),
        ('instance_type = "p5.48xlarge"\nefa_devices = 8', "", 8),
        ('instance_type = "p5.48xlarge"\nefa_devices = 0', "", 0),
        # A type that may be launched with one and usually is not; a type that is in no table.
        ("", "g5.48xlarge", None),
        ("", "Standard PC", None),
    ],
)
def test_how_many_efa_devices(tmp_path: Path, text: str, detected: str, devices: int | None) -> None:
    assert efa_expected(config(tmp_path, text), detected) == devices


def test_what_is_configured_reaches_the_sensor(tmp_path: Path) -> None:
    made = config(tmp_path, f"efa_devices = 64\nefa_grace_s = 1e8\ninstance_type_file = '{tmp_path}/none'")
    (efa,) = [sensor for sensor in fabric_sensors(made) if sensor.name == "efa"]
    sample = read(efa).sample
    assert isinstance(sample, EfaSample)
    assert sample.expected == 64 and sample.settles_in_s > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("efa_devices = -1", "efa_devices is -1"),
        ("efa_devices = true", "efa_devices must be a number"),
        ("efa_grace_s = -1", "efa_grace_s is -1"),
        ("fabric_deadline_s = 0", "fabric_deadline_s is 0"),
        ('imds_url = "169.254.169.254"', "imds_url is '169.254.169.254'"),
        ('imds_url = "https://169.254.169.254"', 'or "" for never'),
        ('capacity_block_ends = "tomorrow"', "with its time zone"),
        ('capacity_block_ends = "2026-03-01T11:30:00"', "with its time zone"),
        ("capacity_block_ends = 2026-03-01T11:30:00Z", "capacity_block_ends must be text in quotes"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(tmp_path, text)


def test_check_config_says_that_it_is_good(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        'controller_url = "http://head:9410"\ninstance_type = "p5.48xlarge"\nefa_devices = 16\nefa_grace_s = 30\n'
        'imds_url = ""\ncapacity_block_ends = "2026-03-01T11:30:00Z"\n[checks.host_ena_allowance]\nqueued_per_s = 5\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "nodewatch.agent.main", "--config", str(path), "--check-config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "is good" in done.stdout and "host_ena_allowance" in done.stdout
