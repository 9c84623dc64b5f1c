# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""For how long guests are held by a late load on a real Xen (tests/lab): the module, against a script of xl, three tasks, and the bare load.

    python hold.py [--runs N] [--guests N ...] [--busy MILLISECONDS ...] [--memory MIB]

One machine for each time that the emulated processor is busy with an update. All ways take turns in each run, each with an update that is newer than the
last one. What a way is charged with is the time from before its first guest is paused until after its last one is resumed; the bare load is xen-ucode alone,
with nobody paused. That guests were held for so long at most, and not longer, is held against their own counting (tests/lab/guest/init).
"""
import argparse
import base64
import io
import json
import re
import statistics
import sys
import tarfile

from ansible_collections.fleet.microcode.tests.fleet import made_intel
from ansible_collections.fleet.microcode.tests.lab.machine import Machine

OLD = 0x02000050
FOLDER = "/srv/hold/"
GOAL = 0.020  # seconds more than the bare load
BARE = """\
import subprocess, sys, time
since = time.monotonic()
subprocess.run(["xen-ucode", sys.argv[1]], check=True, stdout=subprocess.DEVNULL)
print(time.monotonic() - since)
"""
XL = """\
now() { read -r up _ </proc/uptime; date +%s.%N; }
file=$1; shift
since=$(date +%s.%N)
for guest; do xl pause "$guest"; done
xen-ucode "$file" >/dev/null
for guest; do xl unpause "$guest"; done
echo "$since $(date +%s.%N)"
"""
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.shell: "date +%s.%N; for guest in {{ names }}; do xl pause $guest; done"
      register: first
    - ansible.builtin.command: xen-ucode {{ file }}
    - ansible.builtin.shell: "for guest in {{ names }}; do xl unpause $guest; done; date +%s.%N"
      register: last
    - ansible.builtin.debug:
        msg: "HELD {{ (last.stdout_lines[-1] | float) - (first.stdout_lines[0] | float) }}"
"""


class Host:
    """A machine with guests, and a supply of updates of which each is newer than the last."""

    def __init__(self, busy, memory, most):
        self.machine = Machine("bookworm-xen", memory=memory, faults=["ucode-time=%d" % (busy * 1000)])
        self.revision, self.names, self.most = OLD, [], most

    def __enter__(self):
        self.machine.boot()
        self.machine.sh("mkdir -p " + FOLDER)
        self.machine.write(FOLDER + "bare.py", BARE)
        self.machine.write(FOLDER + "xl.sh", XL)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for number in range(1, self.most + 1):
                data = made_intel.update(0x50654, 0x80, OLD + number, "2026-01-01", OLD)
                member = tarfile.TarInfo("%08x" % (OLD + number))
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        self.machine.write(FOLDER + "updates", base64.b64encode(packed.getvalue()).decode())
        self.machine.sh("cd %s; base64 -d updates | tar xz" % FOLDER)
        return self

    def __exit__(self, *_exc):
        self.machine.kill()

    def grow(self, count):
        """Have this many guests, as far as the memory goes: how many there are."""
        while count is None or len(self.names) < count:
            name = "g%d" % (len(self.names) + 1)
            self.machine.sh("sed 's/g1/%s/' /srv/guests/g1.cfg >%s%s.cfg" % (name, FOLDER, name))
            if self.machine.ssh("xl", "create", "--quiet", FOLDER + name + ".cfg", check=False).returncode:
                break
            self.machine.wait(lambda: name + " count=" in self.counts(name), name + " does not count")
            self.names.append(name)
        return len(self.names)

    def counts(self, name):
        """All that a guest has counted."""
        return self.machine.ssh("cat", "/var/log/xen/console/guest-%s.log" % name, check=False).stdout

    def file(self):
        """The next update."""
        self.revision += 1
        return FOLDER + "%08x" % self.revision

    def bare(self):
        return float(self.machine.ssh("python3", FOLDER + "bare.py", self.file()).stdout)

    def script(self):
        first, last = self.machine.ssh("sh", FOLDER + "xl.sh", self.file(), *self.names).stdout.split()
        return float(last) - float(first)

    def tasks(self):
        said = self.machine.play(PLAYBOOK, {"names": " ".join(self.names), "file": self.file()})
        return float(re.search(r"HELD ([\d.]+)", said).group(1))

    def module(self):
        path = self.file()
        done = self.machine.ansible("fleet.microcode.microcode_late_load", {"path": path, "revision": "0x%08x" % self.revision, "guests": "pause"})
        assert done["changed"] and len(done["held"]) == len(self.names), done
        return max(guest["seconds"] for guest in done["held"])

    def jumps(self):
        """{guest: the longest that it was held, by its own counting}."""
        found = {}
        for name in self.names:
            times = [float(text) for text in re.findall(r" count=\d+ uptime=([\d.]+)", self.counts(name))]
            found[name] = max((late - early for early, late in zip(times, times[1:])), default=0.0)
        return found


def show(count, busy, found):
    """Rows of the table; whether the module reached its goal."""
    bare = statistics.median(found["bare"])
    for way, text in (("bare", "the bare load"), ("module", "microcode_late_load"), ("script", "a script of xl"), ("tasks", "three tasks")):
        if found[way]:
            middle = statistics.median(found[way])
            print("  %3d guests, %3d ms  %-22s %8.1f %8.1f %9.1f  %s" % (
                count, busy, text, 1000 * middle, 1000 * max(found[way]), 1000 * (middle - bare), "(%d runs)" % len(found[way])), flush=True)
    reached = statistics.median(found["module"]) - bare <= GOAL
    print("  %41s %s" % ("", "reached" if reached else "NOT REACHED"), flush=True)
    return reached


def main():
    parser = argparse.ArgumentParser(description="For how long guests are held by a late load.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=5, help="how many of the runs also go by three tasks, which take long")
    parser.add_argument("--guests", type=int, nargs="*", default=[1, 2, 8, 0], help="0: as many as fit")
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 50, 500], help="milliseconds that a CPU is busy with an update")
    parser.add_argument("--memory", type=int, default=4096, help="MiB of the machine")
    said = parser.parse_args()
    print("MILLISECONDS THAT GUESTS ARE HELD %23s %8s %9s" % ("median", "worst", "over bare"))
    missed, answers = 0, []
    for busy in said.busy:
        with Host(busy, said.memory, len(said.guests) * (3 * said.runs + said.tasks)) as host:
            for wanted in said.guests:
                count, found = host.grow(wanted or None), {"bare": [], "module": [], "script": [], "tasks": []}
                for number in range(said.runs):
                    for way in ("bare", "module", "script") + ("tasks",) * (number < said.tasks):
                        found[way].append(getattr(host, way)())
                missed += not show(count, busy, found)
                answers.append({"guests": count, "busy": busy, "seconds": found, "jumps": host.jumps()})
    print(json.dumps(answers), file=sys.stderr)
    print("\n%d of %d rows did not reach at most %d ms more than the bare load" % (missed, len(answers), 1000 * GOAL))


if __name__ == "__main__":
    main()
