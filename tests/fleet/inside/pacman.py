# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pacman, as far as microcode packages need it; what lies in the firmware folder has mkinitcpio build all presets anew, as its hook does."""
import os
import re
import shutil

import packages
from ansible_collections.fleet.microcode.tests.fleet import made_records
from packages import say

PROGRAMS = {"pacman": "/usr/bin/pacman"}


def main(machine, name, argv):
    flags = "".join(word[1:] for word in argv if re.match("-[A-Za-z]+$", word))
    words, state = [word for word in argv if not word.startswith("-")], machine.state()
    if "Q" in flags:
        return _query(machine, state, flags, words)
    if "R" in flags:
        missing = [word for word in words if word not in state["packages"]]
        return _missing(missing) if missing else _change(machine, state, [], words)
    if "S" not in flags:
        say("error: no operation specified (use -h for help)")
        return 1
    if "u" in flags:
        words += sorted(name for name in state["packages"] if packages.newer(state, name) and name not in words)
    missing = [word for word in words if word not in state["offered"] and word not in state["packages"]]
    if missing:
        return _missing(missing)
    chosen = [word for word in words if packages.newer(state, word)]
    for word in words:
        if word not in chosen and "--needed" in argv:
            say("warning: %s-%s is up to date -- skipping" % (word, state["packages"][word]))
    if not chosen:
        if words or "u" in flags:
            print(" there is nothing to do")
        return 0
    return _change(machine, state, chosen, [])


def _missing(names):
    for name in names:
        say("error: target not found: " + name)
    return 1


def _query(machine, state, flags, words):
    status = 0
    for word in words or ([] if "o" in flags else sorted(state["packages"])):
        name = packages.owner(machine, state, word) if "o" in flags else word if word in state["packages"] else None
        if name is None:
            say("error: No package owns %s" % word if "o" in flags else "error: package '%s' was not found" % word)
            status = 1
        elif "o" in flags:
            print("%s is owned by %s %s" % (word, name, state["packages"][name]))
        elif "l" in flags:
            print("\n".join("%s %s" % (name, path) for path in packages.files(machine, state).get(name, ())))
        elif "u" not in flags or packages.newer(state, name):
            print("%s %s%s" % (name, state["packages"][name], " -> " + packages.newer(state, name) if "u" in flags else ""))
    return status


def _change(machine, state, chosen, gone):
    print("resolving dependencies...\nlooking for conflicting packages...\n\nPackages (%d) %s\n" % (len(chosen + gone), "  ".join(
        ["%s-%s" % (name, state["offered"][name]["version"]) for name in chosen] + ["%s-%s" % (name, state["packages"][name]) for name in gone])))
    for name in chosen + gone:
        shutil.rmtree(machine.at("/var/lib/pacman/local/%s-%s" % (name, state["packages"].get(name))), ignore_errors=True)
        try:
            if name in chosen:
                packages.install(machine, name)
                now = machine.state()
                made_records.record(machine, "pacman", {"name": name, "version": now["packages"][name]}, packages.files(machine, now)[name], [])
            else:
                packages.remove(machine, name)
        except OSError as exc:
            say("error: Partition %s: %s\nerror: not enough free disk space\nError occurred, no packages were upgraded." % (exc.filename, exc.strerror))
            return 1
        print("(1/1) %s %s" % ("removing" if name in gone else "upgrading" if name in state["packages"] else "installing", name))
    if packages.concerns_firmware(chosen + gone) and os.path.lexists(machine.at("/usr/bin/mkinitcpio")):
        print(":: Running post-transaction hooks...\n(1/1) Updating linux initcpios...")
        if packages.run(machine, "/usr/bin/mkinitcpio", "-P"):
            say("error: command failed to execute correctly")  # which fails nothing
    return 0
