# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests that count aloud: each needs Debian's own kernel and an initramfs of busybox alone, no disk and no network."""
import gzip
import pathlib

from ansible_collections.fleet.microcode.tests.fleet.made_cpio import member

HERE = pathlib.Path(__file__).resolve().parent
XL, INIT, POWEROFF = ((HERE / name).read_text() for name in ("guest.xl", "init", "poweroff"))


def initramfs(busybox):
    """Bytes of an initramfs (gzipped newc cpio) around a static busybox (pathlib.Path); the kernel brings /dev/console itself."""
    archive = b"".join(member(folder, mode=0o40755) for folder in ("bin", "proc", "sbin"))
    for name, data in (("init", INIT.encode()), ("bin/busybox", busybox.read_bytes()), ("sbin/poweroff", POWEROFF.encode())):
        archive += member(name, data, mode=0o100755)
    archive += member("bin/sh", b"busybox", mode=0o120777)
    return gzip.compress(archive + member("TRAILER!!!", mode=0), mtime=0)


def xl(name, kernel, ramdisk):
    """Text of xl's configuration for a guest of this name; kernel and ramdisk are paths on the Xen machine."""
    return XL.format(name=name, kernel=kernel, ramdisk=ramdisk)
