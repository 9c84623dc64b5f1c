# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A simulated host as its own programs see it: files, and a state that outlives them.

The state is one JSON object, read and replaced under a lock:

  power      on, hung (a CPU stopped for good), off, or boots (the next one who connects waits for the boot)
  kexec      what a reboot would start without the firmware, or null: {kernel, initrd, command_line}
  boot       what runs: {id, count, xen: version or null, kernel, options, xen_options}
  cpu        {revisions: {"0": signed int}, firmware: the revision that a reset brings back, vendor, signature, pf_mask, threads: of a core};
             logical CPUs of the machine, not of dom0
  xen        null, or {log: [line], domains: [{id, name, memory, vcpus, pauses, shutdown, config, …}], next_id}
  libvirt    {domains: [{name, uuid, id: null where off, paused, persistent, saved}]}
  log        [line] of the kernel's log, without the time in front
  packages   {name: version} that are installed;  offered: {name: {version, files: {path: [update of parts.yml or of the spec]}}}
  units      {name: {…}} of systemd-run
  faults     see FAULTS

and, of a file beside the folder that the host cannot write, spec: the host's YAML (../trees.py), with its name.
"""
import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
import sys
import tempfile
import time

FOLDER = "/.simulated/state"
FAULTS = {  # the name of each, and what its value means; all are settings of a host and may be changed while it runs
    "hang": "revision (text such as 0x02007006) that stops the CPU which takes it",
    "refuse": "revision that CPUs do not take, and do not say so",
    "cpus": "[CPU] that take updates; the others refuse silently",
    "load": "what xen-ucode, or the kernel's reload file, does: {hangs: seconds, or true: until this is taken away}, then loads; {lies: true}: ends well and "
            "does nothing; {fails: text}: xen-ucode says that, and ends with 1",
    "unpausable": "{name of a guest: why it cannot be paused: EPERM, EINVAL}",
    "kill": "{file: part of a path, text: part of what the file holds (or left out), signal: number (or left out: 9), before: true}: the Python program that "
            "renames such a file to such a path ends itself by that signal when it has, or before it does; once",
    "unreachable": "true, or {after: n}: nobody answers any more once n SSH operations were served",
    "cut": "n: the n-th SSH operation is begun, and then the connection is lost; {file, text, before}: it is lost at such a point, see kill, once",
    "slow": "seconds that each SSH operation takes longer",
    "full": "{folder: bytes that are free in it}, from now on and after each boot; see full.py",
    "commands": "{program: {status, stderr, times: how often, or always}} that fails instead of running",
    "boots": "false: the host does not come back from a boot, whatever it boots",
    "kill_user_processes": "true: what a session leaves running ends with it, but for units (logind's KillUserProcesses=yes)",
}


class Hung(Exception):
    """A CPU of this machine stopped for good."""


class Machine:
    """See the module; root is where its files lie, folder where its state does.

    From outside nothing is read or written through what the host has put there: links are followed within root alone, and in folder not at all.
    """

    def __init__(self, folder=FOLDER, root="/"):
        self.folder, self.root = folder, root.rstrip("/")
        self._spec = None

    def at(self, path, follow=True):
        """Where a file of the machine lies; follow=False: the link itself, where it is one. OSError where links go round."""
        if not self.root:
            return path
        from ansible_collections.fleet.microcode.plugins.module_utils.host import Host  # pylint: disable=import-outside-toplevel
        host = Host(self.root)
        return host.locate(path) if follow else os.path.join(host.locate(os.path.dirname(path)), os.path.basename(path))

    def text(self, path):
        """The text of a file; None where it is not there, or none."""
        try:
            with open(_regular(self.at(path), os.O_RDONLY), encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read()
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENXIO):
                return None
            raise

    def put(self, path, content):
        """Replace a file by text or bytes, whole, keeping its rights; the folder above is made."""
        place = self.at(path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        mode = os.stat(place).st_mode & 0o7777 if os.path.exists(place) else 0o644
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(place))
        try:
            with open(handle, "wb") as stream:
                stream.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
                os.fchmod(handle, mode)
            os.replace(temporary, place)
        except OSError:
            os.unlink(temporary)
            raise

    def append(self, path, text):
        """Write to the end of a file; the folder above is made."""
        place = self.at(path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        _append(place, text)

    # --- the state ---

    def state(self):
        """The state, to look at."""
        if self._spec is None:
            with open(os.path.dirname(self.folder) + "/spec.json", encoding="utf-8") as stream:
                self._spec = stream.read()
        with open(_regular(self.folder + "/state.json", os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as stream:
            return dict(json.load(stream), spec=json.loads(self._spec))

    @contextlib.contextmanager
    def change(self):
        """The state, to be changed; written back at the end, also of what raises Hung or SystemExit, but of no other exception. Not to be nested."""
        with open(_regular(self.folder + "/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW), "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.state()
            try:
                yield state
            except (Hung, SystemExit):
                self.write(state)
                raise
            self.write(state)

    def write(self, state):
        """Replace the state, all but the spec; by whoever holds the lock."""
        temporary = self.folder + "/state.new"
        with contextlib.suppress(FileNotFoundError):  # of one who died
            os.unlink(temporary)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as stream:
            json.dump(dict((word, value) for word, value in state.items() if word != "spec"), stream)
        os.replace(temporary, self.folder + "/state.json")

    def event(self, **words):
        """A line of the processor's own log, in the lab's form (tests/lab/processor/README.md)."""
        _append(self.folder + "/processor.log", json.dumps(dict({"time": time.time()}, **words)) + "\n")

    def say(self, text):
        """A line on the console."""
        _append(self.folder + "/console.log", text + "\n")

    def said(self, name):
        """All that is in one of the two logs."""
        try:
            with open(_regular("%s/%s.log" % (self.folder, name), os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""

    # --- faults that programs meet ---

    def check_space(self, path, size, state=None):
        """Raise OSError (ENOSPC) where so many bytes do not fit: a stand-in's files are smaller than real ones, so it asks before it writes them."""
        folder = os.path.dirname(path)
        while not os.path.isdir(self.at(folder)):
            folder = os.path.dirname(folder)
        room = os.statvfs(self.at(folder))
        free = [room.f_bavail * room.f_frsize]
        if self.root:  # nothing runs there, and no folder is full for real
            free += [free for folder, free in (state or self.state())["faults"].get("full", {}).items() if (path + "/").startswith(folder.rstrip("/") + "/")]
        if size > min(free):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def hold(self):
        """Wait for as long as the fault load says that loading hangs; the fault."""
        begun = time.monotonic()
        while True:
            fault = self.state()["faults"].get("load") or {}
            hangs = fault.get("hangs", 0)
            if not hangs or hangs is not True and time.monotonic() - begun >= hangs:
                return fault
            time.sleep(0.01)

    def stop(self):
        """End everything that runs on the machine, this program too. Only ever inside it, where process 1 waits for that."""
        if self.root or not os.path.exists(FOLDER):
            raise RuntimeError("not inside a simulated host")
        sys.stdout.flush()
        os.kill(1, signal.SIGTERM)
        signal.pause()


def _regular(path, flags):
    """A file descriptor of a regular file; OSError (EINVAL) where it is another thing, on which one might wait for ever."""
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return handle


def _append(path, text):
    with open(_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW), "ab") as stream:
        stream.write(text.encode("utf-8", "replace"))
