# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Late loading by Linux itself, which reads the file that it wants when 1 is written to the reload file."""
import errno
import os
import threading

from ..late import RELOAD

# what write(2) says from 6.7 on; before, nothing but success for most of these (LNX-core, LNX-5, and tests/lab/recordings/reload-*.yml)
SAYS = {
    errno.ENOENT: "the kernel found nothing to load: no file, none for this CPU, none newer than what runs, or one that it holds unsafe from this revision",
    errno.EBUSY: "a CPU is offline, and the kernel aborted", errno.EINVAL: "a CPU is offline, and the kernel aborted",
    errno.EBADFD: "the kernel holds the file to be damaged", errno.EIO: "the load was incomplete: some CPUs timed out or failed",
}


def load(host, _path, seconds):
    """What the kernel answered, as text; None where it said that all is well, which proves nothing."""
    said = []

    def write():
        try:
            fd = os.open(RELOAD, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"1")
            finally:
                os.close(fd)
            said.append(None)
        except OSError as exc:
            said.append("%s (%s)" % (SAYS.get(exc.errno, "the kernel refused"), os.strerror(exc.errno)))
    one = threading.Thread(target=write)
    one.daemon = True  # a write that does not come back keeps nobody here
    one.start()
    one.join(seconds)
    return said[0] if said else "the kernel has not come back from the load after %d s" % seconds


def log(host):
    """The kernel's log as text, or None."""
    said = host.run(["dmesg"], 8 << 20)
    return said.out if said and said.rc == 0 else None
