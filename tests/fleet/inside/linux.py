# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The simulated kernel: late loading through sysfs, as tests/lab/recordings/reload-*.yml have it of Linux 6.1 and 6.12, and its log.

A plain file has no say in what is written to it. So Python inside a host goes through site/sitecustomize.py, and the program tee through here; a shell's own
redirection writes to the file and nothing comes of it.
"""
import errno
import io
import os
import re
import sys

import processor
from ansible_collections.fleet.microcode.plugins.module_utils import container, cpu, host
from machine import Hung

RELOAD = processor.CPU + "/microcode/reload"
FORCED = "/sys/module/microcode/parameters/force_minrev"


def main(machine, name, argv):
    """dmesg and tee."""
    if name == "dmesg":
        for number, line in enumerate(machine.state()["log"]):
            print("[%12.6f] %s" % (1 + number / 8, line))
        return 0
    return _tee(machine, argv)


def _tee(machine, argv):
    data, status = sys.stdin.buffer.read(), 0
    append, files = "-a" in argv, [word for word in argv if not word.startswith("-")]
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
    for path in files:
        try:
            if os.path.realpath(path) == RELOAD and os.path.exists(RELOAD):
                reload(machine, data)
            else:
                with open(path, "ab" if append else "wb") as stream:
                    stream.write(data)
        except OSError as exc:
            sys.stderr.write("tee: %s: %s\n" % (path, exc.strerror))
            status = 1
    return status


def reload(machine, data):
    """What the kernel does when these bytes are written to the reload file. OSError, with the number that write(2) would give; Hung ends the machine."""
    number = 0
    if machine.hold().get("lies"):
        return
    try:
        with machine.change() as state:
            number = _reload(machine, state, data)
            processor.show(machine, state)
    except Hung:
        machine.stop()
    if number:
        raise OSError(number, os.strerror(number), RELOAD)


def _reload(machine, state, data):
    """0 or the number of an error."""
    modern = [int(part) for part in re.findall(r"\d+", state["boot"]["kernel"])[:2]] >= [6, 6]
    log, word = state["log"].append, data.decode(errors="replace").strip()
    if not re.match(r"[+-]?(0[xX][0-9a-fA-F]+|\d+)$", word):
        return errno.EINVAL
    if int(word, 0) != 1:
        return errno.EINVAL if modern else 0
    for cpu in state["cpu"]["revisions"]:
        if (machine.text("%s/cpu%s/online" % (processor.CPU, cpu)) or "1").strip() == "0":
            log("microcode: CPU %s not online, loading aborted" % cpu if modern else "microcode: Not all CPUs online, aborting microcode update.")
            return errno.EBUSY if modern else errno.EINVAL
    update, number = _file(machine, state, modern)
    if update is None:
        return number
    runs = state["cpu"]["revisions"]
    old = runs["0"]
    if update.revision <= old:
        return (errno.ENOENT if not _amd(machine) else 0) if modern else 0
    if modern and not _new_enough(machine, log, old, update):
        return errno.ENOENT
    if not modern:
        log("microcode: Attempting late microcode loading - it is dangerous and taints the kernel.")
        log("microcode: You should switch to early loading, if possible.")
    if not (modern and update.min_revision and old >= update.min_revision):  # what is declared safe from here on taints nothing
        taint = int((machine.text("/proc/sys/kernel/tainted") or "0").strip()) | 4
        machine.put("/proc/sys/kernel/tainted", "%d\n" % taint)
    primary = _primary(machine, runs)
    took = [cpu for cpu in sorted(map(int, runs)) if primary.get(cpu, cpu) == cpu and processor.offer(machine, state, cpu, update.revision)]
    for cpu in sorted(map(int, runs)):  # siblings share what their core took
        if primary.get(cpu, cpu) != cpu and primary[cpu] in took:
            runs[str(cpu)] = update.revision
            machine.event(cpu=cpu, event="sibling", revision=processor.hex8(update.revision))
    shown = "0x%x -> 0x%x" % (old & 0xffffffff, runs["0"] & 0xffffffff)
    if modern:
        siblings = sum(1 for cpu in map(int, runs) if primary.get(cpu, cpu) != cpu)
        cores = len(runs) - siblings
        if len(took) < cores:
            log("microcode: load: %s on %d CPUs failed" % ("Partially updated" if took else "error", cores - len(took)))
            return errno.EIO
        log("microcode: load: updated on %d primary CPUs with %d siblings" % (cores, siblings))
        log("microcode: revision: " + shown)
        return 0
    log("microcode: updated to revision 0x%x, date = %s" % (update.revision & 0xffffffff, update.date))
    log("microcode: Reload succeeded, microcode revision: " + shown if len(took) == len(set(primary.values()) or runs) else
        "microcode: Reload failed, current microcode revision: 0x%x" % (runs["0"] & 0xffffffff))
    return 0


def _amd(machine):
    return "AuthenticAMD" in machine.text("/proc/cpuinfo")


def _primary(machine, runs):
    """{CPU: the first of its core}."""
    found = {}
    for cpu in runs:
        text = machine.text("%s/cpu%s/topology/thread_siblings_list" % (processor.CPU, cpu))
        first = re.match(r"\d+", text or "")
        found[int(cpu)] = int(first.group()) if first else int(cpu)
    return found


def _new_enough(machine, log, old, update):
    """Whether the minimum revision lets the update be taken; kernels from 6.6 on look at it."""
    forced = (machine.text(FORCED) or "N").strip() in ("1", "Y", "y")
    if not update.min_revision:
        log("microcode: Unsafe microcode update: Microcode header does not specify a required min version")
    elif old < update.min_revision:
        log("microcode: Unsafe microcode update: Current revision 0x%x too old" % (old & 0xffffffff))
        log("microcode: Current should be at 0x%x or higher. Use early loading instead" % (update.min_revision & 0xffffffff))
    else:
        return True
    if forced:
        return False
    log("microcode: Late microcode loading without minimal revision check.")
    log("microcode: You should switch to early loading, if possible.")
    return True


def _file(machine, state, modern):
    """(Update, 0) of this processor's file, or (None, what an error's number is)."""
    log = state["log"].append
    facts, one, _flags = cpu.read(host.Host(machine.root or "/"))
    name = "amd-ucode/microcode_amd%s.bin" % ("_fam%02xh" % facts["family"] if facts["family"] > 0x14 else "") if _amd(machine) else (
        "intel-ucode/" + "-".join("%02x" % int(facts[word]) for word in ("family", "model", "stepping")))
    path = next((base + name for base in ("/lib/firmware/", "/usr/lib/firmware/") if os.path.exists(machine.at(base + name))), None)
    if path is None:
        log("platform microcode: firmware: failed to load %s (-2)" % name)
        return None, errno.ENOENT if modern else 0
    if not modern:
        log("platform microcode: firmware: direct-loading firmware " + name)
    with open(machine.at(path), "rb") as stream:
        data = io.BytesIO(stream.read())
    found = list(container.read(data))
    updates = container.verify(found[0].vendor, data, found[0].updates) if found and found[0].vendor else []
    if not found or found[0].problem or any(update.problems for update in updates):
        whole = found and found[0].updates and not found[0].problem
        log("microcode: Bad microcode data checksum, aborting." if whole else "microcode: error! Bad data in microcode data file (truncated file?)")
        return None, errno.EBADFD if modern else 0
    update = container.pick(found[0].vendor, updates, one)[0]
    return (update, 0) if update else (None, errno.ENOENT if modern else 0)
