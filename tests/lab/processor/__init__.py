# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The emulated processor: Debian bookworm's QEMU that takes microcode; see README.md."""
import functools
import pathlib
import shutil

from ansible_collections.fleet.microcode.tests.gate import debian
from ansible_collections.fleet.microcode.tests.gate.cache import kept
from ansible_collections.fleet.microcode.tests.lab import workshop

FOLDER = pathlib.Path(__file__).resolve().parent
FILES = ["build.sh", "devices.mak", "hooks.patch", "microcode.c", "microcode.h", "tsx.c.inc"]


@functools.lru_cache(maxsize=None)
def qemu():
    """Program (pathlib.Path) that is used like qemu-system-x86_64; built at first. Raises debian.Unavailable."""
    lines = debian.sources(workshop.SUITE)

    def make(folder):
        debian.fetch(folder, lines, "qemu", source=True)
        (folder / "ours").mkdir()
        for name in FILES:
            shutil.copy(str(FOLDER / name), str(folder / "ours"))
        workshop.run(["sh", "ours/build.sh"], folder)
    return kept("lab/qemu", lines + [(FOLDER / name).read_text() for name in FILES], make) / "qemu-system-x86_64"
