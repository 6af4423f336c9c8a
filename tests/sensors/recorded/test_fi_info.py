"""Output of fi_info: what one device is listed as, both forms, errors, and lists that end early."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodewatch.checks.efa_provider import efa_provider
from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiInfoSample
from nodewatch.sensors.recorded._api import Recording
from nodewatch.sensors.recorded.fi_info import load


def block(domain: str, *, provider: str = "efa", fabric: str = "efa", kind: str = "FI_EP_RDM") -> str:
    protocol = "FI_PROTO_EFA" if provider == "efa" else "FI_PROTO_RXM"
    return (
        f"provider: {provider}\n    fabric: {fabric}\n    domain: {domain}\n    version: 121.0\n"
        f"    type: {kind}\n    protocol: {protocol}\n"
    )


def listing(count: int) -> str:
    text = ""
    for number in range(count):
        name = f"rdmap{number}s27"
        text += (
            block(f"{name}-rdm", fabric="efa-direct") + block(f"{name}-rdm") + block(f"{name}-dgrm", kind="FI_EP_DGRAM")
        )
    return text


def read(tmp_path: Path, data: str | bytes, instance_type: str = "") -> FiInfoSample:
    path = tmp_path / "out.txt"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    (sample,) = load(Recording(path=path, instance_type=instance_type))
    return sample


def faults(tmp_path: Path, data: str | bytes, instance_type: str = "") -> list[str]:
    return [finding.fault for finding in efa_provider(read(tmp_path, data, instance_type))]


@pytest.mark.parametrize(
    ("text", "instance_type", "expected"),
    [
        (listing(32), "p5.48xlarge", []),
        (listing(1), "", []),
        (listing(31), "p5.48xlarge", ["efa.domain_missing"]),
        (block("lo", provider="tcp;ofi_rxm"), "p5.48xlarge", ["efa.no_provider"]),
        ("fi_getinfo: -61 (No data available)\n", "", ["efa.no_provider"]),
        ("fi_getinfo: -61\n", "p5.48xlarge", ["efa.no_provider"]),
        ("fi_getinfo: -61 (No data available)\n", "g6.xlarge", []),
        (block("lo", provider="tcp"), "g6.xlarge", []),
    ],
)
def test_lists(tmp_path: Path, text: str, instance_type: str, expected: list[str]) -> None:
    assert faults(tmp_path, text, instance_type) == expected


def test_marks_of_a_launcher_and_indents_of_a_report(tmp_path: Path) -> None:
    marked = "".join(f"[1,0]<stdout>:{line}\n" for line in listing(2).splitlines())
    assert len(read(tmp_path, marked).endpoints) == 6
    assert len(read(tmp_path, "".join(f"     {line.strip()}\n" for line in listing(2).splitlines())).endpoints) == 6


def test_the_long_form(tmp_path: Path) -> None:
    text = (
        "---\nfi_info:\n    caps: [ FI_MSG ]\n    fi_ep_attr:\n        type: FI_EP_RDM\n        protocol: FI_PROTO_EFA\n"
        "    fi_domain_attr:\n        domain: 0x0\n        name: rdmap70s0-rdm\n    fi_fabric_attr:\n        name: efa\n"
        "        prov_name: efa\n        prov_version: 121.0\n"
    )
    (only,) = read(tmp_path, text).endpoints
    assert (only.provider, only.domain, only.fabric, only.type) == ("efa", "rdmap70s0-rdm", "efa", "FI_EP_RDM")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "efa:\n    version: 121.0\n",
        "fi_getinfo: -38 (Function not implemented)\n",
        "bash: fi_info: command not found\n",
    ],
)
def test_what_is_no_list(tmp_path: Path, text: str) -> None:
    with pytest.raises(SensorError):
        faults(tmp_path, text, "p5.48xlarge")


def test_cut_anywhere_it_is_never_good(tmp_path: Path) -> None:
    text = listing(32)
    for end in range(0, len(text) - 20, 41):
        try:
            assert faults(tmp_path, text[:end], "p5.48xlarge") != [] or end > text.index("rdmap31s27-rdm")
        except SensorError:
            continue


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([b"provider: efa\n", b"    domain: x\n", b"fi_info:\n", b"fi_getinfo: -61\n"]),
        )
    )
)
def test_only_sensor_errors_are_raised(tmp_path: Path, parts: list[bytes]) -> None:
    try:
        found = faults(tmp_path, b"".join(parts), "p5.48xlarge")
    except SensorError:
        return
    assert found
