# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Late loading by Linux itself, which reads the file that it wants when 1 is written to the reload file."""
import errno
import os
import select

from ..late import RELOAD

# what write(2) says from 6.7 on; before, nothing but success for most of these (LNX-core, LNX-5, and tests/lab/recordings/reload-*.yml)
SAYS = {
    errno.ENOENT: "the kernel found nothing to load: no file, none for this CPU, none newer than what runs, or one that it holds unsafe from this revision",
    errno.EBUSY: "a CPU is offline, and the kernel aborted", errno.EINVAL: "a CPU is offline, and the kernel aborted",
    errno.EBADFD: "the kernel holds the file to be damaged", errno.EIO: "the load was incomplete: some CPUs timed out or failed",
}
FILES = 1024  # file descriptors, far more than a module has open


def load(host, _path, seconds):
    """What the kernel answered, as text; None where it said that all is well, which proves nothing.

    A process of its own writes: one that is stuck in the kernel cannot be killed, and would keep open whatever this one has.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _child(writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        if not select.select([stream], [], [], seconds)[0]:
            return "the kernel has not come back from the load after %d s, and nothing can stop it" % seconds
        said = stream.read()
    os.waitpid(child, 0)
    if not said:
        return "what the kernel answered is not known: the process that asked it was killed"
    number = int(said)
    return "%s (%s)" % (SAYS.get(number, "the kernel refused"), os.strerror(number)) if number else None


def _child(writer):
    """Write, tell the error's number and end; neither this process's output nor its connection to the watcher of guests is kept open meanwhile."""
    try:
        os.setsid()
        os.dup2(writer, 3)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.closerange(4, FILES)
        number = 0
        try:
            os.write(os.open(RELOAD, os.O_WRONLY), b"1")
        except OSError as exc:
            number = exc.errno
        os.write(3, b"%d" % number)
    finally:
        os._exit(0)  # pylint: disable=protected-access


def log(host):
    """The kernel's log as text, or None."""
    said = host.run(["dmesg"], 8 << 20)
    return said.out if said and said.rc == 0 else None
