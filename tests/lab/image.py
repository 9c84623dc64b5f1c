# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks of Debian machines that boot through their own GRUB, made once and kept in the cache for a month; needs root.

Each is a partitioned disk: GRUB was installed by the machine itself, in a first boot with a script in place of init.
"""
import os
import pathlib
import re
import shutil
import struct
import subprocess

import yaml

from ansible_collections.fleet.microcode.tests.gate import debian
from ansible_collections.fleet.microcode.tests.gate.cache import kept
from ansible_collections.fleet.microcode.tests.lab import guest, kernel, processor, workshop

DESCRIPTION = yaml.safe_load(pathlib.Path(__file__).with_name("machines.yml").read_text())
COMMON = ["linux-image-amd64", "grub-pc", "systemd-sysv", "dbus", "udev", "openssh-server", "python3", "iproute2", "kmod", "procps", "zstd", "cpio",
          "busybox-static", "iucode-tool"]
LEFT_OUT = ["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*"] + [  # and drivers of what the machine does not have
    "%s/lib/modules/*/kernel/%s/*" % (usr, folder) for usr in ("", "/usr") for folder in (
        "sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/staging", "drivers/net/ethernet", "drivers/net/wireless")]
SIZE, START = 8 * 1024 ** 3, 1024 ** 2  # of the disk, which is sparse, and where its partition begins, in bytes
MICROCODE = ("intel-microcode", "amd64-microcode")
SECONDS = 900  # for the first boot, on a busy machine
FILES = {
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost lab\n",
    "etc/fstab": "/dev/vda1 / ext4 errors=remount-ro 0 0\n",
    "etc/systemd/network/lab.network": "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n[Link]\nRequiredForOnline=no\n",
    "etc/apt/sources.list": "deb [trusted=yes] file:/srv/microcode/offered ./\n",
    "etc/default/grub": """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=ttyS0,115200 net.ifnames=0"
GRUB_CMDLINE_LINUX_XEN_REPLACE="console=hvc0 net.ifnames=0"
GRUB_CMDLINE_XEN="com1=115200,8n1 console=com1 dom0_mem=640M,max:640M loglvl=all guest_loglvl=all"
GRUB_TERMINAL=serial
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
""",
    # the second serial port is the lab's own: what guests say is seen there even when the network is cut
    "etc/systemd/system/lab-guests.service": """\
[Unit]
After=xenconsoled.service
[Service]
ExecStart=/bin/sh -c 'exec tail -q -n +1 -F /var/log/xen/console/guest-g1.log /var/log/xen/console/guest-g2.log 2>/dev/null >/dev/ttyS1'
[Install]
WantedBy=multi-user.target
""",
    "etc/default/xen": "XENCONSOLED_ARGS=--log=guest\n",  # Debian's script of xenconsoled reads no other of Xen's settings
    "var/log/xen/console/empty": "",
    "srv/first-boot": """\
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run; mount -o remount,rw /
exec >/dev/ttyS0 2>&1
if grub-install /dev/vda && update-grub; then echo first boot: done; fi
sync
mount -o remount,ro /
echo o >/proc/sysrq-trigger
""",
}
LINKS = {
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
    "etc/systemd/system/multi-user.target.wants/lab-guests.service": "/etc/systemd/system/lab-guests.service",
    "etc/systemd/system/systemd-networkd-wait-online.service": "/dev/null",
    "etc/resolv.conf": "/dev/null",
}
LINKS.update(("etc/systemd/system/" + unit, "/dev/null") for unit in (  # what would keep the emulated processor busy
    "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "dpkg-db-backup.timer", "getty.target",
    "systemd-random-seed.service"))


def key():
    """Path of the lab's own SSH key; its public half lies beside it."""
    def make(folder):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / "id")], check=True)
    return kept("lab/key", [], make) / "id"


def image(name):
    """Folder of an image: its `disk` (raw) and `host_key.pub`. Raises debian.Unavailable, RuntimeError."""
    spec = DESCRIPTION["images"][name]
    lines = dict((suite, debian.sources(suite)) for suite in (spec["suite"], spec["microcode"], spec["offered"]))
    files = [pathlib.Path(__file__)] + sorted(path for path in guest.HERE.iterdir() if path.is_file())
    made_of = [str(sorted(spec.items())), str(sorted(lines.items())), key().read_text()] + [path.read_text() for path in files]
    kernels = [kernel.late(version) for version in spec.get("kernels", ())]

    def make(folder):
        root = folder / "root"
        _install(root, spec, lines)
        _settle(root, kernels)
        shutil.copy(str(root / "etc/ssh/ssh_host_ed25519_key.pub"), str(folder / "host_key.pub"))
        _partition(folder, root)
        shutil.copy(str(newest(root, "vmlinuz-*-amd64")), str(folder / "vmlinuz"))
        shutil.copy(str(newest(root, "initrd.img-*-amd64")), str(folder / "initrd"))
        shutil.rmtree(str(root))
        _first_boot(folder)
    return kept("lab/image/" + name, made_of + list(map(str, kernels)), make, days=30)


def newest(root, pattern):
    """The last of the files in /boot that fit."""
    return sorted((root / "boot").glob(pattern))[-1]


def _install(root, spec, lines):
    """The system, with one release of the microcode packages installed and one at hand."""
    root.mkdir()
    packages = root.with_name("microcode")
    for place in ("installed", "offered"):
        (packages / place).mkdir(parents=True)
        debian.fetch(packages / place, lines[spec["microcode" if place == "installed" else "offered"]], *MICROCODE)
    _archive(packages / "offered")
    hooks = ["--customize-hook=copy-in %s /srv" % packages, "--customize-hook=chroot \"$1\" sh -c 'dpkg --install /srv/microcode/installed/*.deb'"]
    names = COMMON + [spec["initrd"]] + spec["packages"]
    debian.bootstrap(root, lines[spec["suite"]], names, ["--dpkgopt=path-exclude=" + path for path in LEFT_OUT] + hooks)


def _archive(folder):
    """Make a folder of packages one that apt takes packages from."""
    text = ""
    for package in sorted(folder.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "--field", str(package)], stdout=subprocess.PIPE, text=True, check=True).stdout
        digest = subprocess.run(["sha256sum", str(package)], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0]
        text += "%sFilename: ./%s\nSize: %d\nSHA256: %s\n\n" % (fields, package.name, package.stat().st_size, digest)
    (folder / "Packages").write_text(text)


def _settle(root, kernels):
    """What makes a machine of the lab out of a system."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    (root / "srv/first-boot").chmod(0o755)
    for name, target in LINKS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(str(key().with_suffix(".pub")), str(root / "root/.ssh/authorized_keys"))
    for made in kernels:
        release = (made / "release").read_text().strip()
        shutil.copy(str(made / "bzImage"), str(root / "boot" / ("vmlinuz-" + release)))
        shutil.copy(str(made / "config"), str(root / "boot" / ("config-" + release)))
        (root / "lib/modules" / release).mkdir()
    guests = root / "srv/guests"
    guests.mkdir()
    (guests / "initramfs").write_bytes(guest.initramfs(root / "bin/busybox"))
    for name in ("g1", "g2"):
        (guests / (name + ".cfg")).write_text(guest.xl(name, "/boot/" + newest(root, "vmlinuz-*-amd64").name, "/srv/guests/initramfs"))


def _partition(folder, root):
    """A disk with one partition, which holds a file system with all of root."""
    disk = folder / "disk"
    with open(str(disk), "wb") as stream:
        stream.truncate(SIZE)
        stream.seek(440)
        stream.write(b"lab!\0\0" + struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", START // 512, (SIZE - START) // 512))
        stream.seek(510)
        stream.write(b"\x55\xaa")
    # GRUB of bullseye reads none of these features
    workshop.run(["mke2fs", "-q", "-t", "ext4", "-O", "^orphan_file,^metadata_csum_seed", "-d", root.name, "-E", "offset=%d" % START, disk.name,
                  "%dk" % ((SIZE - START) // 1024)], folder)


def _first_boot(folder):
    """Let the machine install its own GRUB."""
    argv = [str(processor.qemu()), "-machine", "pc,accel=tcg", "-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-drive", "if=virtio,format=raw,cache=unsafe,file=" + str(folder / "disk"), "-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd"),
            "-append", "console=ttyS0 root=/dev/vda1 ro init=/srv/first-boot panic=-1"]
    said = subprocess.run(["nice"] + argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=SECONDS, check=False).stdout
    if not re.search("^first boot: done", said, re.M):
        raise RuntimeError("the first boot of an image did not end with GRUB installed; it said:\n" + said[-6000:])
    for name in ("vmlinuz", "initrd"):
        os.unlink(str(folder / name))
