# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Builds what the lab's machines need, each part once, and says how long each took: python build.py [image ...]; without names, all but those on demand."""
import sys
import time

from ansible_collections.fleet.microcode.tests.lab import image, processor, workshop


def main(*names):
    wanted = names or [name for name, spec in image.DESCRIPTION["images"].items() if not spec.get("on_demand")]
    parts = [("workshop", workshop.root), ("processor", processor.qemu)]
    parts += [("kernel " + version, lambda version=version: image.kernel.late(version))
              for version in sorted(set(version for name in wanted for version in image.DESCRIPTION["images"][name].get("kernels", ())))]
    for name, make in parts + [("image " + name, lambda name=name: image.image(name)) for name in wanted]:
        started = time.monotonic()
        make()
        print("%-24s %4d s" % (name, time.monotonic() - started), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
