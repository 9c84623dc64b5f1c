# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine of what tree.sh wrote on it: the readers of module_utils see its files and commands; none of it comes to lie on a disk here."""
import errno
import gzip
import io
import os
import re
from pathlib import Path

from ansible_collections.fleet.microcode.plugins.module_utils import facts
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host, Result

SCRIPT = Path(__file__).with_name("tree.sh").read_bytes()
START, END = b"\nfleet.microcode tree 1\n", b"\nend 0 -\n\n"
LIMIT = 8 << 20  # bytes of an answer; 256 CPUs make some 60,000, Xen's log some 100,000
NOISE = 64 << 10  # bytes that a login shell may print before it
ENTRIES = 40000  # files and the like; two for each of the 8192 CPUs that a kernel can be built for, and some more
FRAME = re.compile(rb"(file|packed|link|there|folder|unread|run) (\d{1,8}) ([^\n\0]{1,4096})\n")
NAME = re.compile(r"/(?=[^/])(?!%s(?![a-z][a-z0-9_]{0,60}\Z))" % facts.VULNERABILITIES[1:])  # theirs become keys, of which Ansible takes some for its own
SUBSET = ("guests", "late", "firmware", "vulnerabilities")  # early and files take far more than one look


class TreeError(Exception):
    """What a machine sent is no answer; the text says why."""


class Tree(Host):
    """A machine of {path: (kind, bytes)} and {command line: Result}; what was not sent is not there."""

    def __init__(self, entries, commands):  # pylint: disable=super-init-not-called
        self.root, self.live, self.timeout, self.warnings = "/", True, 10, []  # live: what its commands said is known
        self.entries, self.commands, self.folders = entries, commands, {"/": set()}
        for path, (kind, _text) in entries.items():
            if kind == "folder":
                self.folders.setdefault(path, set())
            while path != "/":
                folder, _slash, name = path.rpartition("/")
                known = self.folders.setdefault(folder or "/", set())
                if name in known:
                    break
                known.add(name)
                path = folder or "/"

    def stat(self, path):
        path = path.rstrip("/") or "/"
        if path in self.folders:
            return os.stat_result((0o40555, 0, 0, 1, 0, 0, 0, 0, 0, 0))
        if path in self.entries:
            return os.stat_result((0o100444, 0, 0, 1, 0, 0, len(self.entries[path][1]), 0, 0, 0))
        return None

    def names(self, path):
        path = path.rstrip("/") or "/"
        kind, why = self.entries.get(path, (None, b""))
        if kind == "folder" and why:
            self.warn("%s: %s" % (path, why.decode("utf-8", "replace")))
        return sorted(self.folders.get(path, ()))

    def link(self, path):
        kind, text = self.entries.get(path, (None, b""))
        return text.decode("utf-8", "replace") if kind == "link" else None

    def open(self, path):
        kind, text = self.entries.get(path, (None, b""))
        if kind in ("file", "packed"):
            return io.BytesIO(gzip.compress(text, 1) if kind == "packed" else text)
        if kind is not None:
            self.warn("%s: %s" % (path, text.decode("utf-8", "replace") if kind == "unread" else os.strerror(errno.EINVAL)))
        return None

    def run(self, argv, limit=1 << 20):
        line = " ".join([argv[0].rsplit("/", 1)[-1]] + list(argv[1:]))
        result = self.commands.get(line)
        if result and result.rc == 124:  # timeout's
            self.warn("%s: no end after %d s; stopped" % (line, self.timeout))
            return None
        if result and len(result.out) > limit:
            self.warn("%s: more than %d bytes of output" % (line, limit))
            return None
        return result


def parse(data):
    """Tree of the bytes that tree.sh wrote. Raises TreeError."""
    start = data.find(START, 0, NOISE)
    if start < 0:
        said = data[:200].decode("utf-8", "replace").strip()
        raise TreeError("it answered %s; is its login shell one that runs commands?" % ("nothing" if not said else "something else: " + said))
    if not data.endswith(END):
        raise TreeError("its answer breaks off after %d bytes" % len(data))
    entries, commands, at, end = {}, {}, start + len(START), len(data) - len(END) + 1
    while at < end:
        frame = FRAME.match(data, at)
        stop = frame.end() + int(frame.group(2)) if frame else 0
        if not frame or stop >= end or data[stop:stop + 1] != b"\n" or len(entries) > ENTRIES:
            raise TreeError("its answer is damaged at byte %d" % at)
        kind, name, text = frame.group(1).decode(), frame.group(3).decode("utf-8", "replace"), data[frame.end():stop]
        at = stop + 1
        if kind == "run":
            status, _space, line = name.partition(" ")
            if not re.fullmatch(r"\d{1,3}", status, re.A):
                raise TreeError("its answer is damaged at byte %d" % at)
            commands[line] = Result(int(status), text.decode("utf-8", "replace"), "")
        elif name != os.path.normpath(name) or not NAME.match(name):
            raise TreeError("it sent a file of no possible name: " + repr(name[:200]))
        else:
            entries[name] = kind, text
    return Tree(entries, commands)


def gather(tree):
    """The facts of module microcode_facts; early, boot, files and pending are null, as nothing for them was sent."""
    return facts.gather(tree, SUBSET)
