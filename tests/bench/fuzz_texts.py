# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hostile texts for the readers of the processor, the hypervisor, the boot loader and the rest: whole facts of machines that lie."""
import gzip
import json
import random

from ansible_collections.fleet.microcode.plugins.module_utils import boot, cpu, distro, facts, hypervisor, late
from ansible_collections.fleet.microcode.plugins.module_utils.update import FormatError
from ansible_collections.fleet.microcode.tests.fleet.machine import Memory, cpuinfo

GRUB = b"""set default="${saved_entry}"
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
fi
menuentry 'Linux' --class gnu $menuentry_id_option 'linux-1' {
\tlinux /boot/vmlinuz-6.1 root=/dev/sda1 ro quiet
\tinitrd /boot/initrd.img-6.1
}
submenu 'More' {
\tmenuentry "Xen" {
\t\tmultiboot2 /boot/xen-4.17-amd64.gz placeholder ucode=scan ${xen_rm_opts}
\t\tmodule2 /boot/vmlinuz-6.1 placeholder root=/dev/sda1
\t\tmodule2 --nounzip /boot/initrd.img-6.1
\t}
}
"""
LOG = b"""(XEN) Xen version 4.17.7 (Debian 4.17.7-1) debug=n
(XEN) Command line: placeholder ucode=scan
(XEN) BSP microcode revision: 0x02000050
(XEN) microcode: CPU0 updated from revision 0x2000050 to 0x2007006, date = 2023-03-06
"""
INFO = b"nr_cpus                : 2\nxen_version            : 4.17.7\nxen_commandline        : placeholder ucode=scan\n"
USAGE = b"xen-ucode: Xen microcode updating tool\nUsage: xen-ucode [<microcode file> | show-cpu-info]\n" \
    b"CPU signature 06-55-04 (raw 0x00050654) pf 0x1 revision 0x02007006\n"
SYS = "/sys/devices/system/cpu/"
FILES = {
    "/proc/cpuinfo": cpuinfo(2).encode(), SYS + "online": b"0-1\n", SYS + "present": b"0-3\n", SYS + "cpu0/microcode/version": b"0x2000050\n",
    SYS + "cpu1/microcode/version": b"0x2000050\n", SYS + "cpu0/microcode/processor_flags": b"0x80\n", SYS + "microcode/reload": b"",
    SYS + "smt/active": b"1\n",
    "/proc/sys/kernel/osrelease": b"6.1\n", "/proc/cmdline": b"root=/dev/sda1 ro\n", "/etc/os-release": b'ID=debian\nVERSION_ID="12"\n',
    "/etc/debian_version": b"12.1\n", "/etc/apt/sources.list": b"deb http://archive.example.org/debian sid main\n", "/boot/grub/grub.cfg": GRUB,
    "/boot/grub/grubenv": b"# GRUB Environment Block\nsaved_entry=linux-1\n".ljust(1024, b"#"), "/boot/vmlinuz-6.1": b"x",
    "/boot/initrd.img-6.1": b"\x1f\x8b",
    "/boot/xen-4.17-amd64.gz": b"x", "/boot/config-6.1": b"CONFIG_MICROCODE=y\n", "/etc/fstab": b"/dev/sda1 / ext4 rw 0 1\n",
    "/proc/self/mountinfo": b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n", "/proc/config.gz": gzip.compress(b"CONFIG_MICROCODE=y\n"),
    "/sys/class/dmi/id/sys_vendor": b"Dell Inc.\n", "/sys/class/dmi/id/bios_date": b"06/04/2023\n",
    "/var/lib/dpkg/status": b"Package: intel-microcode\nVersion: 3\n",
    "/usr/sbin/xen-ucode": b"", hypervisor.LOG_FILES[0]: LOG,
}
XEN = {"/sys/hypervisor/type": b"xen\n", "/sys/hypervisor/version/major": b"4\n", "/sys/hypervisor/version/minor": b"17\n",
       "/proc/xen/capabilities": b"control_d\n"}
SAID = {"xl info": INFO, "xl dmesg": LOG, "xl list": b"Name ID Mem VCPUs State Time(s)\nDomain-0 0 1024 2 r----- 2.0\nweb 1 128 1 --p--- 3.0\n",
        "/usr/sbin/xen-ucode": USAGE, "xen-livepatch list": b"xsa-1 | APPLIED |\n"}
WORDS = (b"", b"\0", b"\n", b"\n\n", b"=", b":", b"-", b"0x", b"9" * 30, b"${", b"'", b'"', b"{", b"}", b"\\", b"(", b"[", b"<", b">", b"\xff\xfe",
         b"if", b"fi", b"set default=", b"menuentry", b"submenu", b"0-99999", b"\x1b[2J", b"\xe2\x80\xae", b"ucode=", b"processor\t: ", b"%s", b"../../..")


def damaged(rng, data):
    """The bytes with one to three things changed."""
    data = bytearray(data)
    for _time in range(rng.randrange(1, 4)):
        kind, place = rng.randrange(5), rng.randrange(len(data) + 1)
        if kind == 0 and data:
            data[place % len(data)] = rng.randrange(256)
        elif kind == 1:
            data[place:place + rng.randrange(8)] = rng.choice(WORDS)
        elif kind == 2:
            del data[place:place + rng.randrange(60)]
        elif kind == 3:
            data[place:place] = data[:rng.randrange(200)]
        else:
            del data[place:]
    return bytes(data)


def fuzz(count, seed):
    """Read count machines of which every file and answer is damaged; returns how many still told a revision.

    Any exception but FormatError gets out.
    """
    rng, told = random.Random(seed), 0
    for number in range(count):
        xen = number % 2 == 0
        files = dict((path, damaged(rng, data)) for path, data in (dict(FILES, **XEN) if xen else FILES).items())
        said = dict((line, (rng.choice((0, 0, 0, 1)), damaged(rng, text).decode("utf-8", "replace"), "")) for line, text in SAID.items())
        host = Memory(files, said)
        try:
            found, processor, flags = cpu.read(host)
            below = hypervisor.facts(host, flags, "Dell Inc. PowerEdge")
            if below["xen"]:
                hypervisor.xen_revisions(host, found, below["xen"])
            late.facts(host, below, late.kernel_config(host, "6.1"), "")
            distro.facts(host)
            entry = boot.default_entry(host)
            boot.facts(host, "")
            boot.xen_ucode(entry["xen_args"] if entry else None)
        except FormatError:
            continue
        if number % 10 == 0:
            whole = facts.gather(Memory(files, said))
            assert not [text for text in whole["warnings"] if "internal error" in text], whole["warnings"]
            json.dumps(whole)
        told += found["revision"] is not None and processor.vendor is not None
    return told
