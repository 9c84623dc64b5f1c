# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one door to a machine: read a file, list a folder, run a command, all under one root folder.

With a root other than / (a mounted image, a captured tree) links are followed inside that root only, and no command is run.
What cannot be had is None; why it cannot, unless it is just not there, goes to warnings.
"""
import errno
import os
import selectors
import signal
import stat
import subprocess
import time
from collections import namedtuple

Result = namedtuple("Result", "rc out err")  # int, str, str
PROGRAMS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
ABSENT = (errno.ENOENT, errno.ENOTDIR)


def refusal(root):
    """Why nothing can be read under this root folder, for the user, or None."""
    try:
        os.stat(os.path.join(root, "") + ".")
        problem = None if root else "empty; / is the live machine"
    except (OSError, ValueError) as exc:  # ValueError: a NUL byte
        problem = getattr(exc, "strerror", None) or str(exc)
    return problem and 'sysroot "%s" cannot be read: %s; name a folder of this host under which an image is mounted or a copy lies' % (root, problem)


class Host(object):
    """A machine whose files lie under root; commands run only where root is /."""

    def __init__(self, root="/", timeout=10):
        self.root = os.path.realpath(root)
        self.live = self.root == "/"
        self.timeout = timeout  # seconds that one command may take
        self.warnings = []

    def warn(self, text):
        """Note once why something is not known."""
        if text not in self.warnings:
            self.warnings.append(text)

    def locate(self, path):
        """Where path lies in the file system of this process; links are resolved as the machine itself would."""
        if self.live:
            return path
        real, todo, hops = "", path.split("/")[::-1], 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                real = os.path.dirname(real)
                continue
            real = real.rstrip("/") + "/" + part
            try:
                target = os.readlink(self.root + real)
            except OSError:  # no link, or nothing there: the caller's own call will tell
                continue
            hops += 1
            if hops > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            real = "" if target.startswith("/") else os.path.dirname(real)
            todo.extend(target.split("/")[::-1])
        return self.root + real

    def _ask(self, call, path):
        """call(located path), or None with a warning where the answer is other than "not there"."""
        try:
            return call(self.locate(path))
        except (OSError, ValueError) as exc:  # ValueError: a NUL byte in a path read from somewhere
            if getattr(exc, "errno", None) not in ABSENT:
                self.warn("%s: %s" % (path, getattr(exc, "strerror", None) or exc))
            return None

    def stat(self, path):
        """os.stat_result, or None."""
        return self._ask(os.stat, path)

    def exists(self, path):
        """True where something is there that can be reached."""
        return self.stat(path) is not None

    def is_dir(self, path):
        """True where a folder is there."""
        info = self.stat(path)
        return info is not None and stat.S_ISDIR(info.st_mode)

    def names(self, path):
        """Sorted names in a folder; none where there is no such folder."""
        return sorted(self._ask(os.listdir, path) or ())

    def link(self, path):
        """The text of a symbolic link, or None."""
        try:
            return os.readlink(os.path.join(self.locate(os.path.dirname(path)), os.path.basename(path)))
        except OSError:
            return None

    def open(self, path):
        """A seekable binary file, or None; only regular files are opened, so that no pipe or device blocks."""
        def opener(real):
            if not stat.S_ISREG(os.stat(real).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise OSError(errno.EINVAL, "not a regular file")
            return os.fdopen(fd, "rb")
        return self._ask(opener, path)

    def read(self, path, limit=1 << 20):
        """All bytes of a small file, or None; one of more than limit bytes is refused rather than cut."""
        stream = self.open(path)
        if stream is None:
            return None
        with stream:
            try:
                data = stream.read(limit + 1) or b""  # its size says nothing: in sysfs it is a page, whatever the file holds
                if len(data) <= limit:
                    return data
                self.warn("%s: more than %d bytes, far beyond what belongs there; not read" % (path, limit))
            except OSError as exc:
                self.warn("%s: %s" % (path, exc.strerror))
        return None

    def text(self, path, limit=1 << 20):
        """The text of a small file, without white space around it, or None."""
        data = self.read(path, limit)
        return None if data is None else data.decode("utf-8", "replace").strip(" \t\r\n\0")

    def lines(self, path, limit=64 << 20):
        """The lines of a large file one by one, each cut at 4096 bytes; none where it cannot be read."""
        stream = self.open(path)
        if stream is not None:
            with stream:
                try:
                    while limit > 0:
                        line = stream.readline(4096)
                        if not line:
                            return
                        limit -= len(line)
                        yield line.decode("utf-8", "replace").rstrip("\n")
                    self.warn("%s: far longer than what belongs there; the rest was not read" % path)
                except OSError as exc:
                    self.warn("%s: %s" % (path, exc.strerror))

    def which(self, name):
        """Where a program lies, or None; the caller's PATH is not asked."""
        if name.startswith("/"):
            return name if self.exists(name) else None
        for folder in PROGRAMS:
            if self.exists(folder + "/" + name):
                return folder + "/" + name
        return None

    def run(self, argv, limit=1 << 20):
        """Result of a command that only looks, or None: not there, no live machine, hung, or too much to say."""
        program = self.which(argv[0]) if self.live else None
        if program is None:
            return None
        env = {"PATH": ":".join(PROGRAMS), "LC_ALL": "C", "LANG": "C"}
        try:
            process = subprocess.Popen([program] + list(argv[1:]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,  # pylint: disable=ansible-bad-function
                                       stderr=subprocess.PIPE, env=env, cwd="/", start_new_session=True)
        except (OSError, ValueError) as exc:
            self.warn("%s: %s" % (" ".join(argv), getattr(exc, "strerror", None) or exc))
            return None
        try:
            outputs, problem = self._collect(process, limit)
            if problem is None:
                return Result(process.returncode, *[bytes(output).decode("utf-8", "replace") for output in outputs])
            self.warn("%s: %s" % (" ".join(argv), problem))
            return None
        finally:
            process.stdout.close()
            process.stderr.close()

    def _collect(self, process, limit):
        """([stdout, stderr], None), or the reason why the command and its children were stopped."""
        deadline = time.monotonic() + self.timeout
        outputs, problem = (bytearray(), bytearray()), None
        with selectors.DefaultSelector() as selector:
            for stream, output in zip((process.stdout, process.stderr), outputs):
                selector.register(stream, selectors.EVENT_READ, output)
            while selector.get_map() and problem is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    problem = "no end after %d s; stopped" % self.timeout
                for key, _mask in selector.select(max(0, left)):
                    data = os.read(key.fd, 65536)
                    key.data.extend(data)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif len(key.data) > limit:
                        problem = "more than %d bytes of output; stopped" % limit
        try:
            if problem is None:
                process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            problem = "no end after %d s; stopped" % self.timeout
        if problem is not None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(2)
            except (OSError, subprocess.TimeoutExpired):
                problem += ", but it did not die"
        return outputs, problem
