# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A simulated host as its own programs see it: files, and a state that outlives them.

The state is one JSON object, read and replaced under a lock:

  spec       the host's YAML (../trees.py), with its name
  power      on, hung (a CPU stopped for good), off, or boots (the next one who connects waits for the boot)
  kexec      what a reboot would start without the firmware, or null: {kernel, initrd, command_line}
  boot       what runs: {id, count, xen: version or null, kernel, entry, options, xen_options}
  cpu        {revisions: {"0": signed int}, firmware: the revision that a reset brings back, vendor, signature, pf_mask, threads: of a core};
             logical CPUs of the machine, not of dom0
  xen        null, or {log: [line], domains: [{id, name, memory, vcpus, pauses, shutdown, config, …}], next_id}
  libvirt    {domains: [{name, uuid, id: null where off, paused, persistent, saved}]}
  log        [line] of the kernel's log, without the time in front
  packages   {name: version} that are installed;  offered: {name: {version, files: {path: [update of parts.yml or of the spec]}}}
  units      {name: {…}} of systemd-run
  faults     see FAULTS
"""
import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import tempfile
import time

FOLDER = "/.simulated/state"
FAULTS = {  # the name of each, and what its value means; all are settings of a host and may be changed while it runs
    "hang": "revision (text such as 0x02007006) that stops the CPU which takes it",
    "refuse": "revision that CPUs do not take, and do not say so",
    "cpus": "[CPU] that take updates; the others refuse silently",
    "unreachable": "true, or {after: n}: nobody answers any more once n SSH operations were served",
    "cut": "n: the n-th SSH operation is begun, and then the connection is lost",
    "slow": "seconds that each SSH operation takes longer",
    "full": "{folder: bytes that are free in it}",
    "commands": "{program: {status, stderr, times: how often, or always}} that fails instead of running",
    "boots": "false: the host does not come back from a boot, whatever it boots",
}


class Hung(Exception):
    """A CPU of this machine stopped for good."""


class Machine:
    """See the module; root is where its files lie, folder where its state does."""

    def __init__(self, folder=FOLDER, root="/"):
        self.folder, self.root = folder, root.rstrip("/")

    def at(self, path):
        """Where a file of the machine lies."""
        return self.root + path

    def text(self, path):
        """The text of a file; None where it is not there."""
        try:
            with open(self.at(path), encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, path, content):
        """Replace a file by text or bytes, whole, keeping its rights; the folder above is made."""
        place = self.at(path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        mode = os.stat(place).st_mode & 0o7777 if os.path.exists(place) else 0o644
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(place))
        with open(handle, "wb") as stream:
            stream.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
            os.fchmod(handle, mode)
        os.replace(temporary, place)

    # --- the state ---

    def state(self):
        """The state, to look at."""
        with open(self.folder + "/state.json", encoding="utf-8") as stream:
            return json.load(stream)

    @contextlib.contextmanager
    def change(self):
        """The state, to be changed; written back at the end, also of what raises Hung or SystemExit, but of no other exception. Not to be nested."""
        with open(self.folder + "/lock", "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.state()
            try:
                yield state
            except (Hung, SystemExit):
                self._write(state)
                raise
            self._write(state)

    def _write(self, state):
        temporary = "%s/.state.%d" % (self.folder, os.getpid())
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(state, stream)
        os.replace(temporary, self.folder + "/state.json")

    def event(self, **words):
        """A line of the processor's own log, in the lab's form (tests/lab/processor/README.md)."""
        self._append("processor.log", json.dumps(dict({"time": time.time()}, **words)))

    def say(self, text):
        """A line on the console."""
        self._append("console.log", text)

    def _append(self, name, line):
        with open(self.folder + "/" + name, "ab") as stream:
            stream.write(line.encode("utf-8", "replace") + b"\n")

    # --- faults that programs meet ---

    def check_space(self, path, size, state=None):
        """Raise OSError (ENOSPC) where a fault says that so many bytes do not fit there."""
        for folder, free in (state or self.state())["faults"].get("full", {}).items():
            if (path + "/").startswith(folder.rstrip("/") + "/") and size > free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def stop(self):
        """End everything that runs on the machine, this program too. Only ever inside it, where process 1 waits for that."""
        if self.root or not os.path.exists(FOLDER):
            raise RuntimeError("not inside a simulated host")
        sys.stdout.flush()
        os.kill(1, signal.SIGTERM)
        signal.pause()
