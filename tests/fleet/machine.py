# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine of a few files and canned command output, for tests of single readers; whole machines are made by trees.py."""
import io
import os

from ansible_collections.fleet.microcode.plugins.module_utils.host import Host, Result


class Machine(Host):
    """A captured tree whose commands answer from a table {command line: (rc, stdout, stderr) or stdout}, and are noted in ran."""

    def __init__(self, root, commands):
        Host.__init__(self, root)
        self.commands, self.ran, self.live = commands, [], bool(commands)

    def locate(self, path):
        live, self.live = self.live, False  # files stay under the root whatever the machine says of itself
        try:
            return Host.locate(self, path)
        finally:
            self.live = live

    def run(self, argv, limit=0):
        line = " ".join(argv)
        self.ran.append(line)
        said = self.commands.get(line)
        return said if said is None else Result(0, said, "") if isinstance(said, str) else Result(*said)


def cpuinfo(count=2, vendor="GenuineIntel", family=6, model=85, stepping=4, revision="0x2000050", name="Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz",
            cache=28160, cores=20, flags="fpu vme de rtm", sockets=1):
    """/proc/cpuinfo of count CPUs; revision may be a list, one for each CPU."""
    revisions = revision if isinstance(revision, list) else [revision] * count
    block = ("processor\t: %d\nvendor_id\t: %s\ncpu family\t: %d\nmodel\t\t: %d\nmodel name\t: %s\nstepping\t: %d\n%scpu MHz\t\t: 2400.000\n"
             "cache size\t: %d KB\nphysical id\t: %d\nsiblings\t: %d\ncore id\t\t: %d\ncpu cores\t: %d\nflags\t\t: %s\n\n")
    return "".join(block % (index, vendor, family, model, name, stepping, "microcode\t: %s\n" % revisions[index] if revisions[index] else "", cache,
                            index * sockets // count, count // sockets, index, cores, flags) for index in range(count))


class Memory(Host):
    """A machine of {path: bytes} that touches no disk, for fuzzing; folders are what paths lie in, commands answer as Machine's."""

    def __init__(self, files, commands=None):
        Host.__init__(self, "/nowhere")
        self.files, self.commands = files, commands or {}

    def stat(self, path):
        if path.rstrip("/") not in self.files and not self.is_dir(path):
            return None
        return os.stat_result((0o100644, hash(path), 1, 1, 0, 0, len(self.files.get(path, b"")), 0, 0, 0))

    def is_dir(self, path):
        return any(each.startswith(path.rstrip("/") + "/") for each in self.files)

    def names(self, path):
        base = path.rstrip("/") + "/"
        return sorted({each[len(base):].split("/")[0] for each in self.files if each.startswith(base)})

    def link(self, path):
        return None

    def open(self, path):
        return io.BytesIO(self.files[path]) if path in self.files else None

    def read(self, path, limit=1 << 20):
        return self.files.get(path)

    def run(self, argv, limit=0):
        said = self.commands.get(" ".join(argv))
        return said if said is None else Result(*said)
