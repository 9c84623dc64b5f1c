# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines made up for the bench: a large bare-metal host as an operator would have it, and hosts whose files are hostile."""
import itertools
import json
import os
import shutil

from ansible_collections.fleet.microcode.plugins.module_utils import facts, host
from ansible_collections.fleet.microcode.tests.fleet import made_cpio, made_intel, trees

CPU = "platinum-8358"
SIGNATURE, PF_MASK, NAME = 0x606a6, 0x80, "06-6a-06"
RUNS = 0xd000404
KERNELS = ("6.1.0-41-amd64", "6.1.0-40-amd64", "6.1.0-38-amd64")
LARGE = {
    "name": "large", "distro": "debian-12", "cpu": {"kind": CPU, "sockets": 2, "revision": RUNS},
    "kernels": [{"version": version, "running": version == KERNELS[0]} for version in KERNELS], "boot": {"system": "grub", "uefi": True},
    "mounts": {"/": ["ext4", "/dev/sda3"], "/boot": ["ext4", "/dev/sda2"], "/boot/efi": ["vfat", "/dev/sda1"]},
    "firmware": {"sys_vendor": "Dell Inc.", "product_name": "PowerEdge R750", "bios_version": "1.17.2", "bios_date": "05/12/2025"},
    "vulnerabilities": dict(dict.fromkeys((  # as Linux shows them on such a processor
        "ghostwrite", "itlb_multihit", "l1tf", "mds", "meltdown", "reg_file_data_sampling", "retbleed", "spec_rstack_overflow", "srbds", "tsa",
        "tsx_async_abort"), "Not affected"),
        gather_data_sampling="Mitigation: Microcode", indirect_target_selection="Mitigation: Aligned branch/return thunks",
        mmio_stale_data="Mitigation: Clear CPU buffers; SMT vulnerable", spec_store_bypass="Mitigation: Speculative Store Bypass disabled via prctl",
        spectre_v1="Mitigation: usercopy/swapgs barriers and __user pointer sanitization",
        spectre_v2="Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: SW sequence; BHI: SW loop, KVM: SW loop",
        vmscape="Mitigation: IBPB before exit to userspace"),
}
trees.PARTS["cpus"][CPU] = {"name": "Intel(R) Xeon(R) Platinum 8358 CPU @ 2.60GHz", "signature": SIGNATURE, "pf_mask": PF_MASK, "cores": 32, "threads": 2,
                            "l3": 49152, "mhz": 2600, "flags": "rdseed adx smap clflushopt clwb avx512f sha_ni xsavec xgetbv1 xsaves pku ospke"}
PACKAGES, BOOT_SIZE, HUGE = 1500, 100 << 20, 1 << 30  # of a well-filled host; bytes of its initrds; bytes of a hostile file
STANZA = """\
Package: %s
Status: install ok installed
Priority: optional
Section: libs
Installed-Size: 1234
Maintainer: Nobody In Particular <nobody@example.com>
Architecture: amd64
Multi-Arch: same
Version: 1.2.3-4+deb12u%d
Depends: libc6 (>= 2.34), libgcc-s1 (>= 3.4), libstdc++6 (>= 11), libsystemd0, libssl3 (>= 3.0.0), zlib1g (>= 1:1.1.4)
Breaks: something-old (<< 1.2)
Conffiles:
 /etc/%s/main.conf 0123456789abcdef0123456789abcdef
Description: package that a well-filled host has
 Every package tells at some length what it is for, so that the record of
 all of them has a megabyte and more, all of which has to be read to find
 one version.
Homepage: https://www.example.com/
"""


def tail(path, size=BOOT_SIZE):
    """Give a file this size without writing it."""
    with open(str(path), "ab") as stream:
        stream.truncate(size)


def large(folder, debian=None):
    """The tree of a host of 128 CPUs, three kernels whose initrds carry all of Intel's microcode, and 1,500 packages.

    debian: folder of Debian's unpacked microcode packages; without it two small files that were made up take its place.
    """
    root = trees.build(LARGE, folder)
    firmware = root / "lib/firmware/intel-ucode"
    if debian:
        shutil.copytree(str(debian / "lib/firmware/intel-ucode"), str(firmware))
    else:
        firmware.mkdir(parents=True)
        for name, signature in ((NAME, SIGNATURE), ("06-55-04", 0x50654)):
            (firmware / name).write_bytes(made_intel.update(signature, 0x87, 0xd000410, "2025-03-11", 0xd000311, data_size=50 * 1024 - 48))
    names = sorted(os.listdir(str(firmware)))
    head = made_cpio.early({made_cpio.INTEL: b"".join((firmware / name).read_bytes() for name in names)}, align=True)
    for version in KERNELS:
        path = root / "boot" / ("initrd.img-" + version)
        path.write_bytes(head + b"\x28\xb5\x2f\xfd")  # a zstd archive follows
        tail(path)
    packages = sorted(["lib-number-%d" % number for number in range(PACKAGES)] + ["intel-microcode"])
    (root / "var/lib/dpkg/status").write_text("\n".join(STANZA % (name, number % 9, name) for number, name in enumerate(packages)))
    paths = ["/.", "/lib", "/lib/firmware", "/lib/firmware/intel-ucode"] + ["/lib/firmware/intel-ucode/" + name for name in names]
    listing = root / "var/lib/dpkg/info/intel-microcode.list"
    listing.parent.mkdir(exist_ok=True)
    listing.write_text("".join(path + "\n" for path in paths))
    # where another machine stands in for this one, needrestart cannot ask the processor; the variables of its helper, with this one's answer
    (root / "needrestart.sh").write_text('sig=0x%08x\nfilter="-s $sig,0x%02x"\n' % (SIGNATURE, PF_MASK))
    return root


def hostile(folder, kind):
    """The tree of a host with 1 GiB files: "files", microcode, initrds and text files; "cpuinfo", /proc/cpuinfo; or 8192 CPUs: "cpus"."""
    root = trees.build(dict(LARGE, packages=[{"name": "intel-microcode", "version": "3.20251111.1", "files": {}}],
                            cpu={"kind": CPU, "vcpus": 4, "revision": RUNS}), folder)
    processors = root / "proc/cpuinfo"
    if kind == "cpus":
        blocks = processors.read_text().split("\n\n")
        processors.write_text("\n\n".join(blocks[0].replace(": 0\n", ": %d\n" % number, 1) for number in range(8192)) + "\n\n")
        (root / "sys/devices/system/cpu/online").write_text("0-8191\n")
        (root / "sys/devices/system/cpu/present").write_text("0-8191\n")
        return root
    if kind == "cpuinfo":
        tail(processors, HUGE)
        return root
    firmware = root / "lib/firmware/intel-ucode"
    firmware.mkdir(parents=True)
    sizes = {"datasize": HUGE - 4096 - 48, "totalsize": HUGE - 4096}
    whole = made_intel.update(SIGNATURE, 0x87, header=sizes)
    (firmware / NAME).write_bytes(whole)
    tail(firmware / NAME, HUGE - 4096)
    table = b"\xff\xff\xff\xff" + b"\0" * 1020  # counts four billion signatures
    (firmware / (NAME + ".initramfs")).write_bytes(made_intel.update(SIGNATURE, 0x87, table=table))
    initrds = [root / "boot" / ("initrd.img-" + version) for version in KERNELS]
    for path, data in zip(initrds, (made_cpio.member(made_cpio.INTEL, whole).replace(b"%08X" % len(whole), b"%08X" % (HUGE - 4096), 1), b"",
                                    b"070701" + b"FFFFFFFF" * 13)):
        path.write_bytes(data)
        tail(path, HUGE)
    for name in ("boot/grub/grub.cfg", "boot/config-" + KERNELS[0], "var/lib/dpkg/status", "etc/default/grub", "proc/self/mountinfo"):
        tail(root / name, HUGE)
    return root


def recorded(folder):
    """The facts of every recorded host, made below folder."""
    return [facts.gather(host.Host(os.path.join(str(folder), name))) for name in sorted(trees.build_all(folder))]


def fleet(found, count, alike=True):
    """{name: facts} of that many hosts, each of which is one of these with another boot, one of four BIOS versions and one of two kernels; or, where they
    are not to be alike, with an initrd and packages that no other has.
    """
    made = {}
    for number, text in zip(range(count), itertools.cycle([json.dumps(each) for each in found])):
        one = made["node%05d.example.org" % number] = json.loads(text)
        turn = number // len(found)
        one.update(boot_id="%036d" % number, gathered="2026-11-22T13:%02d:00Z" % (number % 60))
        if one["firmware"]:
            one["firmware"]["bios_version"] = "2.%d" % (turn % 4)
        if one["kernel"]:
            one["kernel"] += ".%d" % (turn // 4 % 2)
        for each in () if alike else one["files"] or ():
            each["package"] = "microcode 20251111.%d" % number
    return made
