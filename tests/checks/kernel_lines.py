"""Kernel logs of healthy machines as the kernel and drivers print them, and how a check is asked about lines."""

from __future__ import annotations

from typing import Any

from nodewatch.checks._api import load_checks
from nodewatch.model.health import Finding, Severity
from nodewatch.model.samples import KmsgRecord, KmsgSample

BENIGN = """\
Linux version 6.1.0-28-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0) #1 SMP
Command line: BOOT_IMAGE=/boot/vmlinuz-6.1.0-28 root=PARTUUID=1 ro console=ttyS0 panic=-1 mce=ignore_ce
BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PCI0.XHC.RHUB.HS11], AE_NOT_FOUND (20220331/dswload2-162)
ACPI Error: AE_NOT_FOUND, During name lookup/catalog (20220331/psobject-220)
ACPI: \\_SB_.PCI0: _OSC: OS requested [ExtendedConfig ASPM ClockPM Segments MSI EDR HPX-Type3]
acpi PNP0A08:00: _OSC: OS now controls [PCIeHotplug PME AER PCIeCapability LTR]
acpi PNP0A08:00: _OSC: platform does not support [SHPCHotplug LTR DPC]
mce: CPU0: Thermal monitoring enabled (TM1)
mce: CPU supports 20 MCE banks
MCE: In-kernel MCE decoding enabled.
RAS: Correctable Errors collector initialized.
EDAC MC: Ver: 3.0.0
EDAC MC0: Giving out device to module i10nm_edac controller Intel_10nm Socket#0 IMC#0: DEV 0000:fe:0c.0 (INTERRUPT)
EDAC i10nm: v0.0.5
GHES: APEI firmware first mode is enabled by APEI bit and WHEA _OSC.
ERST: Error Record Serialization Table (ERST) support is initialized.
HEST: Table parsing has been initialized.
pcieport 0000:00:01.0: AER: enabled with IRQ 24
pcieport 0000:00:01.0: DPC: enabled with IRQ 24
pcieport 0000:00:01.0: DPC: error containment capabilities: Int Msg #0, RPExt+ PoisonedTLP+ SwTrigger+ RP PIO Log 4
blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0
I/O error, dev loop3, sector 0 op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 0
Buffer I/O error on dev sr0, logical block 0, async page read
nvme nvme0: pci function 0000:00:04.0
nvme nvme0: 2/0/0 default/read/poll queues
nvme nvme0: failed to set APST feature (2)
nvme nvme1: missing or invalid SUBNQN field.
nvme nvme0: Shutdown timeout set to 10 seconds
EXT4-fs (nvme0n1p1): mounted filesystem with ordered data mode. Quota mode: none.
EXT4-fs (nvme0n1p1): re-mounted. Opts: discard,errors=remount-ro. Quota mode: none.
EXT4-fs (nvme0n1p1): orphan cleanup on readonly fs
XFS (nvme1n1): Mounting V5 Filesystem
XFS (nvme1n1): Ending clean mount
XFS (nvme1n1): Unmounting Filesystem
ena 0000:00:05.0: Elastic Network Adapter (ENA) found at mem c0510000, mac addr 0a:1b:2c:3d:4e:5f
ena 0000:00:05.0 ens5: Link is up
ena 0000:00:05.0: LLQ is not supported Fallback to host mode policy.
efa: loading out-of-tree module taints kernel.
efa 0000:00:1d.0: Setup irq:53 name:efa-mgmnt@pci:0000:00:1d.0
efa 0000:00:1d.0: efa_0: IB device registered
infiniband efa_0: IB device registered
IPv6: ADDRCONF(NETDEV_CHANGE): ens5: link becomes ready
eth0: Link is Down
eth0: Link is Up - 25Gbps/Full - flow control off
nvidia: loading out-of-tree module taints kernel.
nvidia: module verification failed: signature and/or required key missing - tainting kernel
nvidia-nvlink: Nvlink Core is being initialized, major device number 240
nvidia-nvswitch: Probing device 0000:86:00.0, Vendor Id = 0x10de, Device Id = 0x22a3, Class = 0x68000
NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.127.05  Tue Oct  8 03:22:07 UTC 2024
NVRM: GPU at PCI:0000:53:00: GPU-c2f0a2c5-90bb-a3a9-9b6c-0cf1e8b6d6b8
NVRM: GPU 0000:53:00.0: persistence mode is deprecated and will be removed in a future release
nvidia-modeset: Loading NVIDIA Kernel Mode Setting Driver for UNIX platforms  550.127.05
nvidia-uvm: Loaded the UVM driver, major device number 238.
Lustre: Lustre: Build Version: 2.15.3
LNet: Added LNI 10.0.1.17@tcp [8/256/0/180]
Lustre: Mounted fsx-client
Lustre: fsx-OST0002-osc-ffff8c0e1: Connection restored to fsx-OST0002 (at 10.0.2.9@tcp)
python3[21133]: segfault at 7f2c00000000 ip 00007f2c7ac69996 sp 00007f2c12fd7c30 error 4 in libc.so.6[7f2c7ac00000+195000]
traps: python3[21140] general protection fault ip:7f1 sp:7ffd error:0 in libtorch_cuda.so[7f10+200000]
traps: a.out[911] trap invalid opcode ip:401136 sp:7ffe error:0 in a.out[401000+1000]
python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=job_77,task_memcg=/slurm/uid_1000/job_77/step_0,task=python3,pid=9,uid=1000
Memory cgroup out of memory: Killed process 21150 (python3) total-vm:8123456kB, anon-rss:7000000kB, file-rss:0kB, shmem-rss:0kB
oom_reaper: reaped process 21150 (python3), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB
NVRM: Xid (PCI:0000:53:00): 31, pid=21150, name=python3, Ch 00000010, intr 00000000. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0
NVRM: Xid (PCI:0000:53:00): 13, pid=21150, name=python3, Graphics Exception: ESR 0x404490=0x80000001
NVRM: Xid (PCI:0000:53:00): 45, pid=21150, name=python3, Ch 00000010
NVRM: Xid (PCI:0000:53:00): 43, pid=21150, name=python3, Ch 00000010
NVRM: Xid (PCI:0000:53:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)
clocksource: Switched to clocksource kvm-clock
hrtimer: interrupt took 31120 ns
perf: interrupt took too long (2511 > 2500), lowering kernel.perf_event_max_sample_rate to 79500
systemd[1]: nvidia-fabricmanager.service: Failed with result 'exit-code'.
audit: type=1400 audit(1700000000.1:45): apparmor="DENIED" operation="open" profile="/usr/sbin/chronyd" name="/proc/fatal"
WARNING: CPU: 3 PID: 99 at drivers/gpu/drm/drm_atomic_helper.c:621 drm_atomic_helper_check_modeset+0xd7/0x2b0
mce: [Hardware Error]: Machine check events logged
EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 slot:0 page:0x12345 offset:0x0 grain:32)
pcieport 0000:00:01.0: AER: Corrected error received: 0000:01:00.0
nvme 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)
nvme 0000:01:00.0:   device [144d:a808] error status/mask=00000001/0000e000
nvme 0000:01:00.0:    [ 0] RxErr
"""


def sample(*lines: str, step_s: float = 1.0, recent: int = 0) -> KmsgSample:
    """The lines as records `step_s` apart, the first `recent` of them as seen before."""
    records = tuple(
        KmsgRecord(text=line, sequence=n, since_boot_us=int(1e6 * step_s * n)) for n, line in enumerate(lines)
    )
    return KmsgSample(records=records[recent:], recent=records[:recent])


def ask(check: str, *lines: str, step_s: float = 1.0, recent: int = 0, thresholds: Any = None) -> list[Finding]:
    """The findings of the check named `check` on the lines."""
    return list(load_checks()[check].run(sample(*lines, step_s=step_s, recent=recent), thresholds))


def outline(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    """Fault, subject, severity and remedy of each, in words."""
    return [(f.fault, f.subject, f.severity.word, f.remedy.word) for f in findings]


def is_silent_on_benign(check: str) -> bool:
    """Whether the check has nothing above a warning to say of a healthy machine's log, whole and line by line."""
    lines = BENIGN.splitlines()
    found = ask(check, *lines) + [finding for line in lines for finding in ask(check, line)]
    return all(finding.severity <= Severity.WARN for finding in found)


BEGINNINGS = (
    "NVRM: Xid (PCI:0000:53:00): 74, NVLink: fatal error detected on link ",
    "nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 2",
    "Out of memory: Killed process ",
    "INFO: task ",
    "watchdog: BUG: soft lockup - CPU#",
    "EDAC MC0: 1",
    "[Hardware Error]: CPU ",
    "XFS (nvme1n1): ",
    "nvme nvme0: I/O ",
    "nvidia 0000:53:00.0: PCIe Bus Error: severity=",
    "efa 0000:a0:19.0 ",
    "LustreError: ",
    "BUG: ",
)
"""Where a fuzzed line begins, so that the fuzz gets past the first word."""
