# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real Debian systems, made with mmdebstrap from the machine's own archives and kept in the cache for a month; needs root.

Each boots with GRUB from /dev/sda1, as GRUB's own generator is told. /proc and /sys are empty: a test puts a machine there.
FLEET_MICROCODE_SUITE names another release than the machine's own, such as trixie or sid.
"""
import contextlib
import inspect
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from ansible_collections.fleet.microcode.tests.gate.cache import discard, kept
from ansible_collections.fleet.microcode.tests.gate.debian import bootstrap, sources

COMMON = ["linux-image-amd64", "intel-microcode", "amd64-microcode", "grub2-common", "grub-pc-bin", "zstd", "cpio"]
# cpio: without it amd64-microcode's hook leaves its microcode out and says nothing; initramfs-tools of sid does not bring it
ROOTS = {  # packages beyond those; the first one makes the initrd. A cloud kernel is built without CONFIG_MICROCODE
    "initramfs-tools": ["initramfs-tools"],
    "dracut": ["dracut"],
    "xen": ["initramfs-tools", "xen-system-amd64", "linux-image-cloud-amd64", "grub-emu"],
}
LEFT_OUT = ["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"] + [  # and the drivers that fill an initrd, none of which is started
    "%s/lib/modules/*/kernel/%s/*" % (usr, folder) for usr in ("", "/usr") for folder in ("drivers/gpu", "drivers/media", "drivers/net", "sound")]
KEPT = "/usr/share/doc/amd64-microcode/*"
GRUB_PROBE = """\
#!/bin/sh
# Answers of grub-probe on a machine whose root file system lies on the first partition of its disk.
while [ $# -gt 0 ]; do
    case $1 in
        --target=*) target=${1#--target=} ;;
        -t | --target) target=$2; shift ;;
    esac
    shift
done
case $target in
    device) echo /dev/sda1 ;;
    disk) echo /dev/sda ;;
    drive) echo "(hd0,msdos1)" ;;
    fs) echo ext2 ;;
    fs_uuid) echo 5a5c1f6e-3f0d-4a2e-9d64-0c1e2b7a9f31 ;;
    partuuid) echo 8d2f61b4-01 ;;
    partmap) echo msdos ;;
    compatibility_hint) echo hd0,msdos1 ;;
    hints_string) echo "--hint-bios=hd0,msdos1 --hint-efi=hd0,msdos1 --hint-baremetal=ahci0,msdos1 " ;;
    abstraction) ;;
    *) exit 1 ;;
esac
"""


def run(root, *argv):
    """Output of a command inside a root; AssertionError with what it said where it fails."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}
    done = subprocess.run(["chroot", str(root)] + [str(word) for word in argv], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=300, check=False)
    assert done.returncode == 0, "exit status %d of %s: %s" % (done.returncode, " ".join(map(str, argv)), done.stderr)
    return done.stdout


def replace(path, text, mode=0o644):
    """Write a file anew, so that another name of the same file keeps what it had."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def update_grub(root):
    """Have Debian's GRUB write grub.cfg for what is installed and configured in a root."""
    probe = root / "usr" / "sbin" / "grub-probe"
    real = probe.with_name("grub-probe.real")
    probe.rename(real)
    try:
        replace(probe, GRUB_PROBE, 0o755)
        with contextlib.suppress(FileNotFoundError):
            (root / "boot" / "grub" / "grub.cfg").unlink()
        run(root, "update-grub")
    finally:
        real.replace(probe)


def _make(packages, lines, target):
    """Install a system, then do what Debian's installer does for GRUB."""
    bootstrap(target, lines, packages, ["--dpkgopt=path-exclude=" + path for path in LEFT_OUT] + ["--dpkgopt=path-include=" + KEPT])
    shutil.copy(str(target / "usr/share/grub/default/grub"), str(target / "etc/default/grub"))
    (target / "etc" / "fstab").write_text("/dev/sda1 / ext4 errors=remount-ro 0 1\n")
    (target / "boot" / "grub").mkdir(exist_ok=True)
    run(target, "grub-editenv", "/boot/grub/grubenv", "create")
    update_grub(target)


def root(kind):
    """Folder (pathlib.Path) of a root of this kind, not to be changed: see view(). Raises Unavailable."""
    lines, packages = sources(os.environ.get("FLEET_MICROCODE_SUITE")), COMMON + ROOTS[kind]
    made_of = lines + packages + LEFT_OUT + [KEPT, GRUB_PROBE, inspect.getsource(_make)]
    return kept("roots/" + kind, made_of, lambda folder: _make(packages, lines, folder), days=30)


@contextlib.contextmanager
def view(kind):
    """A root of this kind that a test may change by replacing files: etc and boot/grub are copies, the rest are links to the same files."""
    source = root(kind)
    work = pathlib.Path(tempfile.mkdtemp(prefix="view-", dir=str(source.parent)))
    for old in source.parent.glob("view-*"):
        if time.time() - old.stat().st_mtime > 24 * 3600:  # of a run that was killed
            discard(old)
    own = tuple(str(source / name) + os.sep for name in ("etc", "boot/grub"))

    def put(path, target):
        (shutil.copy2 if path.startswith(own) else os.link)(path, target)
    try:
        shutil.copytree(str(source), str(work / "root"), symlinks=True, copy_function=put)
        yield work / "root"
    finally:
        discard(work)


def forget(folder):
    """Take away what a machine shows in /proc and /sys."""
    for name in ("proc", "sys"):
        shutil.rmtree(str(folder / name), ignore_errors=True)
        (folder / name).mkdir()


def kernels(folder):
    """Versions of the kernels in a root, the generic one last."""
    return sorted((path.name for path in (folder / "lib" / "modules").iterdir()), key=lambda name: "-cloud-" not in name)
