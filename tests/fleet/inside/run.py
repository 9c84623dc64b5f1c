# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs the stand-in for a program, run.py PROGRAM ARGV...: the name it was called by says which one it is."""
import importlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(1, "/.simulated/collections")

from machine import Hung, Machine  # noqa: E402
from programs import PROGRAMS  # noqa: E402


def fail(machine, name):
    """Whether a fault makes this program fail; it is counted."""
    fault = machine.state()["faults"].get("commands", {}).get(name)
    if not fault or fault.get("times", 1) == 0:
        return None
    with machine.change() as state:
        fault = state["faults"]["commands"][name]
        if "times" in fault:
            fault["times"] -= 1
    sys.stderr.write(fault.get("stderr", ""))
    return fault.get("status", 1)


def main():
    machine, name = Machine(), os.path.basename(sys.argv[1])
    status = fail(machine, name)
    if status is None:
        try:
            status = importlib.import_module(PROGRAMS[name]).main(machine, name, sys.argv[2:])
        except Hung:
            machine.stop()
        except BrokenPipeError:  # as SIGPIPE would
            sys.stderr.close()
            status = 141
    sys.exit(status)


main()
