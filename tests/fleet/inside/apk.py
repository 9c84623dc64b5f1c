# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""apk, as far as microcode packages need it: they bring a ready image, and no initrd is built anew."""
import packages
from ansible_collections.fleet.microcode.tests.fleet import made_records
from packages import say

PROGRAMS = {"apk": "/sbin/apk"}


def main(machine, name, argv):
    words, state = [word for word in argv if not word.startswith("-")], machine.state()
    command, names = (words[0], words[1:]) if words else ("help", [])
    if command == "update":
        print("OK: %d distinct packages available" % len(state["offered"]))
        return 0
    if command in ("info", "list"):
        return _info(machine, state, argv, names)
    if command == "version":
        for each in names or sorted(state["packages"]):
            newer = packages.newer(state, each)
            print("%s-%s %s %s" % (each, state["packages"][each], "<" if newer else "=", newer or state["packages"][each]))
        return 0
    if command not in ("add", "upgrade", "del"):
        say("apk: '%s' is not an apk command." % command)
        return 1
    missing = [each for each in names if each not in state["offered"] and each not in state["packages"]]
    if missing:
        say("ERROR: unable to select packages:\n" + "\n".join("  %s (no such package):\n    required by: world[%s]" % (each, each) for each in missing))
        return len(missing)
    upgrade = command == "upgrade" or "-u" in argv or "--upgrade" in argv
    chosen = [each for each in names or (sorted(state["packages"]) if command == "upgrade" else ())
              if command != "del" and packages.newer(state, each) and (upgrade or each not in state["packages"])]
    gone = [each for each in names if command == "del" and each in state["packages"]]
    if "-s" not in argv and "--simulate" not in argv:
        try:
            for each in chosen:
                packages.install(machine, each)
        except OSError as exc:
            say("ERROR: %s: %s" % (exc.filename, exc.strerror))
            return 1
        for each in gone:
            packages.remove(machine, each)
        _record(machine)
    done = ["Upgrading %s (%s -> %s)" % (each, state["packages"][each], state["offered"][each]["version"]) if each in state["packages"] else
            "Installing %s (%s)" % (each, state["offered"][each]["version"]) for each in chosen]
    done += ["Purging %s (%s)" % (each, state["packages"][each]) for each in gone]
    for number, line in enumerate(done, 1):
        print("(%d/%d) %s" % (number, len(done), line))
    print("OK: %d MiB in %d packages" % (8, len(machine.state()["packages"])))
    return 0


def _record(machine):
    state, status = machine.state(), []
    for each, version in state["packages"].items():
        made_records.record(machine, "apk", {"name": each, "version": version}, packages.files(machine, state).get(each, []), status)
    machine.put(made_records.APK, "\n".join([made_records.MUSL] + status))


def _info(machine, state, argv, names):
    """apk info [-e] [-v] [NAME], apk info --who-owns PATH."""
    if "-W" in argv or "--who-owns" in argv:
        for path in names:
            owner = packages.owner(machine, state, path)
            if owner is None:
                say("ERROR: %s: Could not find owner package" % path)
                return 1
            print("%s is owned by %s-%s" % (path, owner, state["packages"][owner]))
        return 0
    status = 0
    for each in names or sorted(state["packages"]):
        if each in state["packages"]:
            print("%s-%s" % (each, state["packages"][each]) if "-v" in argv else each)
        else:
            status = 1
    return status
