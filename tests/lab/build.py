# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Builds what the lab's machines need, each part once, and says how long each took: python build.py [image ...]; without names, all but those on demand."""
import concurrent.futures
import os
import sys
import time

from ansible_collections.fleet.microcode.tests.lab import image, processor, workshop


def part(name, make, *arguments):
    """Make one, and say how long it took."""
    started = time.monotonic()
    make(*arguments)
    print("%-24s %4d s" % (name, time.monotonic() - started), flush=True)


def main(*names):
    wanted = names or [name for name, spec in image.DESCRIPTION["images"].items() if not spec.get("on_demand")]
    kernels = sorted(set(version for name in wanted for version in image.DESCRIPTION["images"][name].get("kernels", ())))
    part("workshop", workshop.root)
    part("processor", processor.qemu)
    for version in kernels:
        part("kernel " + version, image.kernel.late, version)
    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count(), 4)) as pool:  # of these, each keeps one CPU busy
        list(pool.map(lambda name: part("image " + name, image.image, name), wanted))


if __name__ == "__main__":
    main(*sys.argv[1:])
