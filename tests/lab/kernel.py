# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Linux that loads microcode late, which none of Debian's kernels does: Debian's own sources, unchanged, with few options; built once, kept in the cache.

Linux 6.1 does not know minimum revisions. 6.12 lets one refuse what declares none, or a higher one than the CPU has: microcode.force_minrev=1 on its
command line, or 1 in /sys/module/microcode/parameters/force_minrev (its help text says microcode.minrev, which does not exist).
"""
import os
import pathlib
import shutil

from ansible_collections.fleet.microcode.tests.gate import debian
from ansible_collections.fleet.microcode.tests.gate.cache import kept
from ansible_collections.fleet.microcode.tests.lab import workshop

SUITES = {"6.1": "bookworm", "6.12": "trixie"}
FOLDER = pathlib.Path(__file__).resolve().parent
SAME = ["KBUILD_BUILD_USER=lab", "KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_TIMESTAMP=@0"]


def lost(wanted, got):
    """Lines of a configuration that did not hold in another: an option that does not exist there, or needs one that is not set."""
    return sorted(set(line for line in wanted.splitlines() if line.startswith("CONFIG_")).difference(got.splitlines()))


def late(version):
    """Folder (pathlib.Path) with a kernel: `bzImage`, its `config`, and `release`, its uname -r. Raises debian.Unavailable, RuntimeError."""
    lines = debian.sources(SUITES[version])
    wanted = "".join((FOLDER / name).read_text() for name in ("kernel.config", "kernel-%s.config" % version))

    def make(folder):
        source = folder / "source"
        source.mkdir()
        debian.unpack(folder, lines, "linux-source-" + version)
        workshop.run(["tar", "-xJf", "usr/src/linux-source-%s.tar.xz" % version, "-C", source.name, "--strip-components=1"], folder)
        (folder / "wanted").write_text(wanted)
        build = ["make", "-s", "-C", source.name, "-j%d" % os.cpu_count()]
        workshop.run(build + ["KCONFIG_ALLCONFIG=/work/wanted", "allnoconfig"], folder)  # what tinyconfig does with options of its own
        missing = lost(wanted, (source / ".config").read_text())
        if missing:
            raise RuntimeError("options of the lab's kernel do not hold in Linux %s: %s; renamed there, or something that they need is not set"
                               % (version, " ".join(missing)))
        workshop.run(build + SAME + ["bzImage"], folder)
        for name, path in (("bzImage", "arch/x86/boot/bzImage"), ("config", ".config"), ("release", "include/config/kernel.release")):
            shutil.copy(str(source / path), str(folder / name))
        for name in ("source", "usr"):
            shutil.rmtree(str(folder / name))
    return kept("lab/kernel-" + version, lines + [wanted, " ".join(SAME)], make)
