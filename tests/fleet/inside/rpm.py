# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rpm, and the command lines of dnf and zypper, as far as microcode packages need them; site/dnf is what ansible.builtin.dnf imports.

Its database is binary on real machines and the state's here. Packages of microcode build initrds anew: SUSE's all of them, others those of the two newest
kernels and of the one that runs (RH8).
"""
import os
import re
import sys
from xml.sax.saxutils import quoteattr

import packages
import versions
from packages import say

PROGRAMS = {"rpm": "/usr/bin/rpm", "dnf": "/usr/bin/dnf", "zypper": "/usr/bin/zypper"}
ARCH = "x86_64"
NONE = 104  # zypper's exit status where nothing has that name


def main(machine, name, argv):
    return {"rpm": rpm, "dnf": dnf, "zypper": zypper}[name](machine, argv)


def parts(version):
    """(epoch or None, version, release)."""
    epoch, colon, rest = version.rpartition(":")
    upstream, _dash, release = rest.rpartition("-")
    return epoch if colon else None, upstream or release, release if upstream else ""


def full(name, version):
    """name-version-release.arch."""
    return "%s-%s-%s.%s" % ((name,) + parts(version)[1:] + (ARCH,))


def rpm(machine, argv):
    """rpm -q [-a|-f|-l] [--queryformat FORMAT] WORD..."""
    form, flags, words, rest = None, "", [], list(argv)
    while rest:
        word = rest.pop(0)
        if word in ("--queryformat", "--qf"):
            form = rest.pop(0)
        elif word.startswith("--"):
            flags += {"--query": "q", "--all": "a", "--file": "f", "--list": "l", "--whatprovides": "w", "--quiet": "Q"}.get(word, "")
        elif word.startswith("-"):
            flags += word[1:]
        else:
            words.append(word)
    if "q" not in flags:
        say("rpm: only queries are simulated")
        return 1
    state, status = machine.state(), 0
    for word in sorted(state["packages"]) if "a" in flags and not words else words:
        name = packages.owner(machine, state, word) if "f" in flags else word if word in state["packages"] else None
        name = name or next((each for each in state["packages"] if "f" not in flags and word in (full(each, state["packages"][each]), full(
            each, state["packages"][each])[:-len(ARCH) - 1])), None)
        if name is None:
            print("package %s is not installed" % word if "f" not in flags and "w" not in flags else "no package provides " + word if "w" in flags else
                  "file %s is not owned by any package" % word if os.path.exists(machine.at(word)) else
                  "error: file %s: No such file or directory" % word)
            status = 1
        elif "l" in flags:
            print("\n".join(packages.files(machine, state).get(name, ())))
        elif form is None:
            print(full(name, state["packages"][name]))
        else:
            sys.stdout.write(_formed(form, name, state["packages"][name]))
    return status


def _formed(form, name, version):
    epoch, upstream, release = parts(version)
    fields = {"NAME": name, "VERSION": upstream, "RELEASE": release, "EPOCH": epoch or "(none)", "ARCH": ARCH, "EVR": version, "NEVRA": "%s-%s.%s" % (
        name, version, ARCH), "NVRA": full(name, version)}
    text = re.sub(r"%-?\d*\{(\w+)(?::\w+)?\}", lambda match: fields.get(match.group(1).upper(), "(none)"), form)
    return text.replace("\\n", "\n").replace("\\t", "\t")


def change(machine, chosen, gone=()):
    """Install and remove packages, and build initrds anew where that concerns them; the exit status. OSError."""
    for name in gone:
        packages.remove(machine, name)
    for name in chosen:
        packages.install(machine, name)
    dracut = next((path for path in ("/usr/bin/dracut", "/usr/sbin/dracut") if os.path.lexists(machine.at(path))), None)
    if dracut is None or not packages.concerns_firmware(list(chosen) + list(gone)):
        return 0
    if "suse" in (machine.text("/etc/os-release") or ""):
        return packages.run(machine, dracut, "--force", "--quiet", "--regenerate-all")
    running = machine.state()["boot"]["kernel"]
    kernels = sorted(os.listdir(machine.at("/lib/modules")), key=versions.key, reverse=True)
    return max([packages.run(machine, dracut, "--force", "--quiet", "--kver", each)
                for place, each in enumerate(kernels) if (place < 2 or each == running) and os.path.exists(machine.at(_initrd(machine, each)))] or [0])


def _initrd(machine, version):
    return next((path for path in ("/boot/initramfs-%s.img" % version, "/boot/initrd-%s.img" % version) if os.path.exists(machine.at(path))), "/nowhere")


def plan(state, command, names):
    """([name to install or upgrade], [name to remove]); LookupError of a name that nobody knows."""
    chosen, gone = [], []
    for name in names or (sorted(state["packages"]) if command in ("upgrade", "update", "up") else ()):
        if name not in state["packages"] and name not in state["offered"]:
            raise LookupError(name)
        if command in ("remove", "erase", "rm"):
            gone += [name] * (name in state["packages"])
        elif packages.newer(state, name) and (command in ("install", "in") or name in state["packages"]):
            chosen.append(name)
    return chosen, gone


def dnf(machine, argv):
    """dnf install|upgrade|remove NAME..."""
    words = [word for word in argv if not word.startswith("-")]
    command, names = (words[0], words[1:]) if words else ("help", [])
    if command in ("makecache", "clean", "check-update"):
        print("Metadata cache created." if command == "makecache" else "", end="\n" * (command == "makecache"))
        return 0
    if command not in ("install", "upgrade", "update", "remove", "erase"):
        say("No such command: %s. Please use /usr/bin/dnf --help" % command)
        return 1
    state = machine.state()
    try:
        chosen, gone = plan(state, command, names)
    except LookupError as exc:
        say("No match for argument: %s\nError: Unable to find a match: %s" % (exc, exc))
        return 1
    if not chosen and not gone:
        print("Dependencies resolved.\nNothing to do.\nComplete!")
        return 0
    try:
        status = change(machine, chosen, gone)
    except OSError as exc:
        say("Error: Transaction test error:\n  installing package needs more space on %s: %s" % (exc.filename, exc.strerror))
        return 1
    upgraded = [each for each in chosen if each in state["packages"]]
    for words, some in (("Upgraded", upgraded), ("Installed", [each for each in chosen if each not in upgraded])):
        if some:
            print("%s:\n%s\n" % (words, "\n".join("  " + full(each, state["offered"][each]["version"]) for each in some)))
    if gone:
        print("Removed:\n%s\n" % "\n".join("  " + full(each, state["packages"][each]) for each in gone))
    print("Complete!")
    if status:
        say("warning: %posttrans scriptlet failed, exit status " + str(status))  # as rpm has it, this fails nothing
    return 0


def zypper(machine, argv):
    """zypper [--xmlout] search|install|update|remove NAME..."""
    words = [word.lstrip("+") for word in argv if not word.startswith("-") and word not in ("package",)]
    xml, state = "--xmlout" in argv or "-x" in argv, machine.state()
    command, names = (words[0], words[1:]) if words else ("help", [])
    if command in ("refresh", "ref"):
        return 0
    if command in ("search", "se"):
        known = [name for name in names if name in state["packages"] or name in state["offered"]]
        rows = "".join('<solvable status="%s" name=%s kind="package" edition=%s arch="%s" repository="(System Packages)"/>\n' % (
            "installed" if name in state["packages"] else "not-installed", quoteattr(name),
            quoteattr(state["packages"].get(name) or state["offered"][name]["version"]), ARCH) for name in known)
        print("<?xml version='1.0'?>\n<stream>\n<search-result version=\"0.0\">\n<solvable-list>\n%s</solvable-list>\n</search-result>\n</stream>" % rows
              if xml else "\n".join(known))
        return 0 if known else NONE
    if command not in ("install", "in", "update", "up", "remove", "rm"):
        say("Unknown command '%s'" % command)
        return 2
    try:
        chosen, gone = plan(state, command, names)
    except LookupError as exc:
        say("Package '%s' not found." % exc)
        return NONE
    try:
        status = change(machine, chosen, gone)
    except OSError as exc:
        say("Installation of %s failed:\nError: Subprocess failed. Error: RPM failed: %s: %s" % (", ".join(chosen), exc.filename, exc.strerror))
        return 8
    upgraded = [each for each in chosen if each in state["packages"]]
    groups = (("to-upgrade", upgraded), ("to-install", [each for each in chosen if each not in upgraded]), ("to-remove", gone))
    if xml:
        text = ""
        for kind, some in groups:
            new, old = [dict((each, quoteattr(known.get(each, ""))) for each in some)
                        for known in (dict((each, offer["version"]) for each, offer in state["offered"].items()), state["packages"])]
            rows = "".join('<solvable type="package" name=%s edition=%s edition-old=%s arch="%s"/>\n' % (quoteattr(each), new[each], old[each], ARCH)
                           for each in some)
            text += "<%s>\n%s</%s>\n" % (kind, rows, kind) if some else ""
        print("<?xml version='1.0'?>\n<stream>\n<install-summary>\n%s</install-summary>\n</stream>" % text)
    elif not chosen and not gone:
        print("Nothing to do.")
    return 107 if status else 0  # ZYPPER_EXIT_INF_RPM_SCRIPT_FAILED
