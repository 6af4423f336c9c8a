"""What the lab reads and writes: apt sources, hosts file, hardware state, slurm.conf."""

from pathlib import Path

import pytest

from nodewatch.lab import hardware
from nodewatch.lab.ec2 import Instance
from nodewatch.lab.edge import in_subnet
from nodewatch.lab.errors import LabError
from nodewatch.lab.hosts import render_hosts, write_hosts
from nodewatch.lab.layout import Layout, layout_from
from nodewatch.lab.mirror import debian_archive, find_mirror, parse_deb822, parse_one_line
from nodewatch.lab.network import mac_of, port_of
from nodewatch.lab.preflight import cgroup2_mount
from nodewatch.lab.product import PACKAGES, find_packages
from nodewatch.lab.slurm import Shape, write_nodewatch_config, write_slurm_config

DEBIAN = "ID=debian\nVERSION_CODENAME=bookworm\n"
DEB822 = """\
Types: deb deb-src
# a comment within a stanza
URIs: http://mirror.example/debian
Suites: bookworm
  bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://mirror.example/debian/ bookworm main non-free
deb-src https://sources.example/debian bookworm main
deb https://third.example/apt stable nightly
"""


def row(ident: str, state: str, address: str, node: str) -> Instance:
    return Instance(ident=ident, state=state, address=address, node=node)


def test_deb822_sources_are_read_and_disabled_ones_left_out() -> None:
    sources = list(parse_deb822(DEB822))
    assert [source.uri for source in sources] == [
        "http://mirror.example/debian",
        "http://security.example/debian-security",
    ]
    assert sources[0].suites == ("bookworm", "bookworm-updates")
    assert sources[0].components == ("main", "contrib")


def test_one_line_sources_are_read_with_their_options() -> None:
    sources = list(parse_one_line(ONE_LINE))
    assert [source.uri for source in sources] == ["https://mirror.example/debian/", "https://third.example/apt"]
    assert sources[0].components == ("main", "non-free")


def test_the_archive_proper_is_told_from_security_and_third_parties() -> None:
    reversed_stanzas = list(reversed(list(parse_deb822(DEB822))))
    assert debian_archive(reversed_stanzas, DEBIAN) == "http://mirror.example/debian"
    assert debian_archive(parse_one_line(ONE_LINE), DEBIAN) == "https://mirror.example/debian"


def test_a_host_that_is_not_debian_has_no_archive_for_us() -> None:
    assert debian_archive(parse_deb822(DEB822), "ID=ubuntu\nVERSION_CODENAME=bookworm\n") is None


def test_without_a_mirror_the_error_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="--mirror"):
        find_mirror(None, etc=tmp_path)
    with pytest.raises(LabError, match="not a URI"):
        find_mirror("mirror.example", etc=tmp_path)
    assert find_mirror("http://given.example/debian/", etc=tmp_path) == "http://given.example/debian"


def test_the_mirror_comes_from_the_hosts_own_sources(tmp_path: Path) -> None:
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "apt/sources.list.d/debian.sources").write_text(DEB822)
    (tmp_path / "apt/sources.list.d/old.list.disabled").write_text("deb http://no.example/debian bookworm main\n")
    (tmp_path / "os-release").write_text(DEBIAN)
    assert find_mirror(None, etc=tmp_path) == "http://mirror.example/debian"


def test_a_name_points_at_the_running_instance_that_bears_it() -> None:
    text = render_hosts(
        [
            row("i-1", "terminated", "10.77.0.11", "n1"),
            row("i-2", "running", "10.77.0.12", "n2"),
            row("i-3", "running", "10.77.0.4", "n1"),
            row("i-4", "running", "10.77.0.5", ""),
        ]
    )
    lines = text.splitlines()
    assert "10.77.0.4 n1" in lines
    assert "10.77.0.12 n2" in lines
    assert "10.77.0.5 ip-10-77-0-5" in lines
    assert not any("10.77.0.11" in line for line in lines)
    assert lines[0] == "127.0.0.1 localhost"


def test_the_newest_of_two_bearers_of_a_name_gets_it() -> None:
    text = render_hosts([row("i-1", "running", "10.77.0.11", "n1"), row("i-2", "pending", "10.77.0.4", "n1")])
    assert text.splitlines().count("10.77.0.4 n1") == 1
    assert "10.77.0.11 n1" not in text.splitlines()


def test_the_hosts_file_keeps_its_inode_and_loses_its_old_lines(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    write_hosts(path, [row("i-1", "running", "10.77.0.11", "n1"), row("i-2", "running", "10.77.0.12", "n2")])
    inode = path.stat().st_ino
    write_hosts(path, [row("i-1", "running", "10.77.0.11", "n1")])
    assert path.stat().st_ino == inode
    assert path.read_text() == render_hosts([row("i-1", "running", "10.77.0.11", "n1")])


def test_a_new_instance_has_healthy_gpus_of_its_own() -> None:
    one, other = hardware.parse(hardware.healthy("i-1")), hardware.parse(hardware.healthy("i-2"))
    assert len(one.gpus) == 8
    assert one.gpus[2]["bus"] == "00000000:75:00.0"
    assert not one.log
    uuids = {gpu["uuid"] for state in (one, other) for gpu in state.gpus.values()}
    serials = {gpu["serial"] for state in (one, other) for gpu in state.gpus.values()}
    assert len(uuids) == len(serials) == 16
    assert hardware.healthy("i-1") == hardware.healthy("i-1")


def test_what_is_appended_to_the_hardware_holds(tmp_path: Path) -> None:
    path = tmp_path / "hardware"
    path.write_text(hardware.healthy("i-1"))
    hardware.append(path, ["gpu 2 lost 1", "kmsg 4 NVRM: Xid (PCI:0000:75:00): 79, text"])
    state = hardware.parse(path.read_text())
    assert state.gpus[2]["lost"] == "1"
    assert "lost" not in state.gpus[3]
    record = hardware.record(state.log[0], 17)
    head, _, text = record.partition(b";")
    level, sequence, since_boot_us, flags = head.split(b",")
    assert (level, sequence, flags) == (b"4", b"17", b"-")
    assert int(since_boot_us) > 0
    assert text == b"NVRM: Xid (PCI:0000:75:00): 79, text\n"


def test_raw_kernel_log_lines_pass_byte_for_byte() -> None:
    assert hardware.record("kmsg-raw fffe0a", 1) == b"\xff\xfe\n"


def test_a_hardware_line_that_is_not_understood_is_named() -> None:
    with pytest.raises(LabError, match="line 2"):
        hardware.parse("driver 570\ngpu two lost 1\n")


def test_a_gpu_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LabError, match="no GPU 8"):
        hardware.bus_id(8)


def test_a_plain_cluster_has_no_trace_of_nodewatch_in_slurm_conf(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path)
    write_slurm_config(layout, Shape(nodes=3, spares=1, plain=True), None)
    text = (layout.etc_slurm / "slurm.conf").read_text()
    assert "NodeName=n[1-4] " in text
    assert "Gres=gpu:8" in text
    assert "nodewatch" not in text
    assert "$" not in text
    assert (layout.etc_slurm / "plugstack.conf").read_text() == ""


def test_the_machines_configuration_names_group_spares_and_template(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path)
    write_nodewatch_config(layout, Shape(nodes=2, spares=1, plain=False))
    text = (layout.etc_nodewatch / "controller.toml").read_text()
    assert 'nodes = ["n[1-3]"]' in text
    assert "spares = 1" in text
    assert 'launch_template = "nodewatch-compute"' in text
    assert "AWS_ENDPOINT_URL=http://10.77.0.1:5000\n" in (layout.etc_nodewatch / "controller.env").read_text()


def test_one_node_alone_is_no_range() -> None:
    assert Shape(nodes=1, spares=0, plain=True).node_list == "n1"
    assert Shape(nodes=3, spares=1, plain=True).node_list == "n[1-4]"


def test_launches_that_name_no_subnet_get_the_labs() -> None:
    assert in_subnet("RunInstances", {"MinCount": "1"}, "subnet-1")["SubnetId"] == "subnet-1"
    own = {"NetworkInterface.1.SubnetId": "subnet-9"}
    assert in_subnet("RunInstances", own, "subnet-1") == own
    template = "LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName"
    fleet = in_subnet("CreateFleet", {template: "t"}, "subnet-1")
    assert fleet["LaunchTemplateConfigs.1.Overrides.1.SubnetId"] == "subnet-1"
    chosen = {template: "t", "LaunchTemplateConfigs.1.Overrides.2.SubnetId": "subnet-9"}
    assert in_subnet("CreateFleet", chosen, "subnet-1") == chosen


def test_missing_packages_are_named(tmp_path: Path) -> None:
    for name in PACKAGES[:-1]:
        (tmp_path / f"{name}_0.1.0_all.deb").touch()
    with pytest.raises(LabError, match=PACKAGES[-1]):
        find_packages(tmp_path)
    (tmp_path / f"{PACKAGES[-1]}_0.1.0_amd64.deb").touch()
    assert len(find_packages(tmp_path)) == len(PACKAGES)


def test_the_unified_hierarchy_is_found_on_both_kinds_of_host() -> None:
    hybrid = (
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n"
    )
    unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    assert cgroup2_mount(hybrid) == Path("/sys/fs/cgroup/unified")
    assert cgroup2_mount(unified) == Path("/sys/fs/cgroup")
    assert cgroup2_mount("22 27 0:21 / /proc rw - proc proc rw\n") is None


def test_interface_names_fit_and_addresses_keep_their_hardware_address() -> None:
    assert len(port_of("i-0123456789abcdef0")) <= 15
    assert mac_of("10.77.0.11") == "02:4e:0a:4d:00:0b"


def test_a_state_directory_that_mount_options_would_split_is_refused() -> None:
    with pytest.raises(LabError, match="choose one without"):
        layout_from("/var/lib/a:b")
    assert layout_from("/var/lib/lab").run == Path("/var/lib/lab/run")
