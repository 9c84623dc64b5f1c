# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The simulated processor: what its CPUs take, as tests/lab/processor does it, and what the kernel shows of them."""
import os
import re

from machine import Hung

CPU = "/sys/devices/system/cpu"


def signed(value):
    """A revision as Intel compares it, of text or a number."""
    value = int(value, 16) if isinstance(value, str) else value
    return value - (1 << 32) if value >> 31 == 1 else value


def hex8(value):
    return "0x%08x" % (value & 0xffffffff)


def offer(machine, state, cpu, revision):
    """Have a CPU (number) offered an update that is meant for it; whether it took it. Hung where that stops it for good; the state says so."""
    faults, runs = state["faults"], state["cpu"]["revisions"]
    number, old = str(cpu), runs[str(cpu)]
    result = "taken"
    if signed(faults.get("refuse", "0x0")) == revision != 0 or cpu not in faults.get("cpus", [cpu]):
        result = "refused"
    elif "hang" in faults and signed(faults["hang"]) == revision:
        result = "hang"
    if result != "refused":
        runs[number] = revision
    machine.event(cpu=cpu, event="update", result=result, to=hex8(revision), revision=hex8(runs[number]), **{"from": hex8(old)})
    if result == "hang":
        state["power"] = "hung"
        raise Hung()
    return result == "taken"


def reset(machine, state):
    """A hard reset: every CPU runs again what its firmware brings."""
    for number in state["cpu"]["revisions"]:
        state["cpu"]["revisions"][number] = state["cpu"]["firmware"]
        machine.event(cpu=int(number), event="reset", revision=hex8(state["cpu"]["firmware"]))


def show(machine, state):
    """Let /proc/cpuinfo and sysfs show what the CPUs run now: Linux without Xen does, dom0 does not after a late load."""
    runs = state["cpu"]["revisions"]
    number = [None]

    def line(match):
        if match.group(1):
            number[0] = match.group(1)
            return match.group(0)
        return "microcode\t: 0x%x" % (runs[number[0]] & 0xffffffff)
    text = machine.text("/proc/cpuinfo")
    machine.put("/proc/cpuinfo", re.sub(r"(?m)^processor\t: (\d+)$|^microcode\t: 0x[0-9a-f]+$", line, text))
    for cpu, revision in runs.items():
        path = "%s/cpu%s/microcode/version" % (CPU, cpu)
        if os.path.exists(machine.at(path)):
            machine.put(path, "0x%x\n" % (revision & 0xffffffff))
