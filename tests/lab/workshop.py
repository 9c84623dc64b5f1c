# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Debian bookworm with compilers, in the cache: what the lab compiles is compiled there, the same on every Debian, and nothing is installed on this one."""
import subprocess

from ansible_collections.fleet.microcode.tests.gate import debian
from ansible_collections.fleet.microcode.tests.gate.cache import kept

SUITE = "bookworm"
PACKAGES = ["gcc", "libc6-dev", "make", "patch", "perl", "python3", "xz-utils", "file"] + [  # file: QEMU's configure asks it
    "meson", "ninja-build", "pkg-config", "libglib2.0-dev", "libpixman-1-dev", "libslirp-dev", "libfdt-dev", "zlib1g-dev",  # QEMU
    "seabios", "qemu-system-data", "qemu-utils",  # what the emulated machines have in ROM; qemu-img
    "flex", "bison", "bc", "libelf-dev", "libssl-dev", "kmod", "cpio", "rsync"]  # Linux
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]
INSIDE = 'mount --bind "$1" "$2/work" && mount -t proc proc "$2/proc" && root=$2 && shift 2 && exec chroot "$root" env -i -C /work "$@"'
ENVIRONMENT = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/work", "SOURCE_DATE_EPOCH=0"]


def root():
    """Folder (pathlib.Path) of the workshop. Raises debian.Unavailable."""
    lines = debian.sources(SUITE)

    def make(folder):
        debian.bootstrap(folder, lines, PACKAGES, ["--dpkgopt=path-exclude=" + path for path in LEFT_OUT])
        (folder / "work").mkdir()
    return kept("lab/workshop", lines + PACKAGES, make)


def run(argv, folder, seconds=3600):
    """Run a command in the workshop, where this folder is /work and the current one; its output. RuntimeError with what it said where it fails."""
    # the mounts live in a namespace of their own, so that they end with the command
    argv = ["unshare", "--mount", "sh", "-ec", INSIDE, "sh", str(folder), str(root())] + ENVIRONMENT + [str(word) for word in argv]
    done = subprocess.run(["nice"] + argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=seconds, check=False)
    if done.returncode:
        raise RuntimeError("exit status %d of %s in the workshop; it said:\n%s" % (done.returncode, " ".join(argv[-6:]), done.stdout[-6000:]))
    return done.stdout
