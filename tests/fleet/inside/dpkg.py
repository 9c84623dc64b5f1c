# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's package tools, as tests/lab/recordings/apt-microcode.yml has them of apt 2.6 and dpkg 1.21.

The record is dpkg's own: /var/lib/dpkg/status and info/*.list. What can be had is the state's: offered.
"""
import errno
import fnmatch
import os
import re
import subprocess
import sys
from collections import OrderedDict

import versions
from ansible_collections.fleet.microcode.tests.fleet import made_microcode

PROGRAMS = {"apt-get": "/usr/bin/apt-get", "apt-cache": "/usr/bin/apt-cache", "apt-mark": "/usr/bin/apt-mark", "dpkg": "/usr/bin/dpkg",
            "dpkg-query": "/usr/bin/dpkg-query"}
STATUS, INFO = "/var/lib/dpkg/status", "/var/lib/dpkg/info/%s.list"
RECOMMENDS = {"intel-microcode": ["initramfs-tools"], "amd64-microcode": ["initramfs-tools", "dracut", "tiny-initramfs"]}  # one of them
BUILDERS = (("initramfs-tools", "/usr/sbin/update-initramfs", "0.142+deb12u3"), ("dracut", "/usr/bin/dracut", "059-4"))  # interested in update-initramfs
WITH_VALUE = ("-o", "--option", "-t", "--target-release", "--default-release", "-c", "--config-file")
READING = "Reading package lists...\nBuilding dependency tree...\nReading state information...\n"


def say(text):
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(machine, name, argv):
    return {"apt-get": apt_get, "apt-cache": apt_cache, "apt-mark": apt_mark, "dpkg": dpkg, "dpkg-query": dpkg_query}[name](machine, argv)


# --- the record ---

def installed(machine):
    """{name: {field: value}} of what dpkg knows, in its order."""
    found = OrderedDict()
    for part in re.split(r"\n\n+", machine.text(STATUS) or ""):
        fields = OrderedDict((key, value) for key, value in re.findall(r"^(\S+):[ ]?(.*(?:\n[ \t].*)*)", part, re.M))
        if fields:
            found[fields["Package"]] = fields
    return found


def record(machine, packages):
    """Write all of it."""
    machine.put(STATUS, "\n".join("".join("%s: %s\n" % pair for pair in fields.items()) for fields in packages.values()))


def here(packages, name):
    """Whether a package is installed."""
    return name in packages and packages[name]["Status"].endswith(" ok installed")


def held(packages, name):
    return name in packages and packages[name]["Status"].startswith("hold ")


def files(machine, name):
    """Paths of a package, folders too."""
    return (machine.text(INFO % name) or "").splitlines()


def candidate(state, packages, name):
    """The version that an installation would leave there, or None."""
    offered, mine = state["offered"].get(name, {}).get("version"), packages[name]["Version"] if here(packages, name) else None
    return offered if mine is None or offered is not None and versions.compare(offered, mine) > 0 else mine


def source(machine):
    """(words of the archive that microcode comes from, as apt-cache names it, as a download does, as a simulation does, whether it lies in files)."""
    lines = []
    base = "/etc/apt/sources.list"
    parts = [base] + [base + ".d/" + each for each in sorted(os.listdir(machine.at(base + ".d")))] if os.path.isdir(machine.at(base + ".d")) else [base]
    for path in parts:
        text = machine.text(path) or ""
        if path.endswith(".sources"):
            for part in re.split(r"\n\n+", text):
                fields = dict(re.findall(r"(?m)^(\S+):\s*(.*)$", part))
                if "URIs" in fields:
                    lines.append([fields["URIs"].split()[0].rstrip("/"), fields.get("Suites", "./").split()[0]] + fields.get("Components", "").split())
        else:
            lines += [words.split() for words in re.findall(r"(?m)^deb\s+(?:\[[^]]*\]\s+)?(.*)$", text)]
    for component in ("non-free-firmware", "non-free", "restricted", None):
        for words in lines:
            if component in words[2:] or component is None and words[1:]:
                site, suite = words[0], words[1]
                flat = suite.endswith("/")
                place = suite if flat else "%s/%s" % (suite, component or words[2])
                release = dict(re.findall(r'(?m)^(\w+)="?([^"\n]*)"?$', machine.text("/etc/os-release") or ""))
                label = "localhost" if site.startswith("file:") else "%s:%s/%s" % (release["ID"].capitalize(), release.get("VERSION_ID", "unstable"), suite)
                return site, place + " Packages" if flat else place + " amd64 Packages", place + " %s" if flat else place + " amd64 %s amd64", label
    return "file:/nowhere", "./ Packages", "./ %s", "localhost"  # offered, though no source says where


# --- apt-get ---

def apt_get(machine, argv):
    flags, words, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        if word in WITH_VALUE:
            rest.pop(0)
        elif word.startswith("-") and len(word) > 1:
            flags += [word] if word.startswith("--") else ["-" + letter for letter in word[1:]]
        else:
            words.append(word)
    command, words = (words[0], words[1:]) if words else ("help", [])
    quiet = "-q" in flags and flags.count("-q") > 1
    if command == "update":
        return _update(machine, quiet)
    if command in ("clean", "autoclean", "check"):
        return 0
    if command not in ("install", "upgrade", "dist-upgrade", "full-upgrade", "remove", "purge", "autoremove", "auto-remove"):
        say("E: Invalid operation %s" % command)
        return 100
    if not quiet:
        print(READING, end="")
    state, packages = machine.state(), installed(machine)
    try:
        gone, chosen = [], OrderedDict()
        if command in ("remove", "purge"):
            gone = _gone(state, packages, words)
        elif command == "install":
            chosen = _chosen(state, packages, words, flags)
        elif "upgrade" in command:
            print("Calculating upgrade...\n" * (not quiet), end="")
            chosen = OrderedDict((name, candidate(state, packages, name)) for name in sorted(packages) if not held(packages, name)
                                 and here(packages, name) and candidate(state, packages, name) != packages[name]["Version"])
    except LookupError as exc:
        say("E: %s" % exc.args[0])
        return 100
    return _commit(machine, state, packages, chosen, gone, flags + [command], quiet)


def _update(machine, quiet):
    folder = machine.at("/var/lib/apt/lists")
    os.makedirs(folder, exist_ok=True)
    os.utime(folder)
    where = source(machine)
    if not quiet:
        print("Hit:1 %s %s" % (where[0], where[1].split("/")[0] + (" InRelease" if " amd64 " in where[1] else "/ InRelease")))
        print("Reading package lists...")
    return 0


def _chosen(state, packages, words, flags):
    """{name: version} that these words of apt-get install ask for. LookupError."""
    chosen = OrderedDict()
    for word in words:
        name, equals, version = word.partition("=")
        name = name.split("/")[0].split(":")[0]
        if name not in state["offered"] and not here(packages, name):
            raise LookupError("Unable to locate package " + name)
        mine, best = packages[name]["Version"] if here(packages, name) else None, candidate(state, packages, name)
        if equals:
            fits = [each for each in (state["offered"].get(name, {}).get("version"), mine) if each and fnmatch.fnmatch(each, version)]
            if not fits:
                print("Package %s is not available, but is referred to by another package.\nThis may mean that the package is missing, has been obsoleted, or\n"
                      "is only available from another source\n" % name)
                raise LookupError("Version '%s' for '%s' was not found" % (version, name))
            best = fits[0]
        if best == mine or mine is None and "--only-upgrade" in flags:
            if mine is None:
                print("Skipping %s, it is not installed and only upgrades are requested." % name)
            else:
                print("%s is already the newest version (%s)." % (name, mine))
        else:
            chosen[name] = best
    return OrderedDict(sorted(chosen.items()))


def _gone(state, packages, words):
    gone = []
    for name in words:
        if here(packages, name):
            gone.append(name)
        elif name in state["offered"] or name in packages:
            print("Package '%s' is not installed, so not removed" % name)
        else:
            raise LookupError("Unable to locate package " + name)
    return gone


def _commit(machine, state, packages, chosen, gone, flags, quiet):
    """Say what is going to be done, and do it."""
    new = [name for name in chosen if not here(packages, name)]
    older = [name for name in chosen if name not in new and versions.compare(chosen[name], packages[name]["Version"]) < 0]
    newer = [name for name in chosen if name not in new + older]
    waiting = [name for name in packages if here(packages, name) and name not in chosen and name not in gone
               and candidate(state, packages, name) != packages[name]["Version"]]
    wanted = [RECOMMENDS[name] for name in chosen if name in RECOMMENDS and "install" in flags]
    kept = [name for name in waiting if held(packages, name) and "install" not in flags and "remove" not in flags]
    missing = sorted(set(each[0] for each in wanted if not any(here(packages, one) or _standing(machine, one, packages) for one in each)))
    for words, names in (("The following packages will be REMOVED:", [name + "*" * ("--purge" in flags) for name in gone]), ("Recommended packages:", missing),
                         ("The following packages have been kept back:", kept),
                         ("The following held packages will be changed:", [name for name in list(chosen) + gone if held(packages, name)]),
                         ("The following NEW packages will be installed:", new), ("The following packages will be upgraded:", newer),
                         ("The following packages will be DOWNGRADED:", older)):
        if names and not quiet:
            print("%s\n  %s" % (words, " ".join(names)))
    if not quiet:
        print("%d upgraded, %d newly installed, %s%d to remove and %d not upgraded." % (
            len(newer), len(new), "%d downgraded, " % len(older) * bool(older), len(gone), len(waiting)))
    if not chosen and not gone:
        return 0
    simulated = set(flags) & {"-s", "--simulate", "--just-print", "--dry-run", "--recon", "--no-act"}
    if not simulated and any(held(packages, name) for name in list(chosen) + gone) and "--allow-change-held-packages" not in flags:
        say("E: Held packages were changed and -y was used without --allow-change-held-packages.")
        return 100
    if not simulated and older and not {"--allow-downgrades", "--force-yes"} & set(flags):
        say("E: Packages were downgraded and -y was used without --allow-downgrades.")
        return 100
    where = source(machine)
    if simulated:
        for name in gone:
            print("Remv %s [%s]" % (name, packages[name]["Version"]))
        for what in ("Inst", "Conf"):
            for name in chosen:
                old = " [%s]" % packages[name]["Version"] if what == "Inst" and name not in new else ""
                print("%s %s%s (%s %s [amd64])" % (what, name, old, chosen[name], where[3]))
        return 0
    return _change(machine, state, packages, chosen, gone, "purge" in flags or "--purge" in flags, where)


def _change(machine, state, packages, chosen, gone, purge, where):
    offered = dict((name, state["offered"][name]) for name in chosen)
    data = dict((name, dict((path, made_microcode.file(path, updates)) for path, updates in offered[name].get("files", {}).items())) for name in chosen)
    sizes = dict((name, offered[name].get("size", sum(map(len, data[name].values())))) for name in chosen)
    grow = 1024 * (sum(_kilobytes(offered[name], data[name]) for name in chosen)
                   - sum(int(packages[name].get("Installed-Size", 0)) for name in list(chosen) + gone if here(packages, name)))
    if chosen:
        total, local = _size(sum(sizes.values())), where[0].startswith("file:")
        print("Need to get %sB of archives." % ("0 B/" + total if local else total))
    print("After this operation, %sB %s." % (_size(abs(grow)), "of additional disk space will be used" if grow >= 0 else "disk space will be freed"))
    for number, name in enumerate(chosen, 1):
        print("Get:%d %s %s %s [%sB]" % (number, where[0], where[2] % name, chosen[name], _size(sizes[name])))
    if chosen and not local:
        print("Fetched %sB in 0s (0 B/s)" % total)
    if chosen:
        if not here(packages, "apt-utils"):
            say("debconf: delaying package configuration, since apt-utils is not installed")
    out = Terminal()
    for name in chosen:
        if not here(packages, name):
            out.line("Selecting previously unselected package %s." % name)
    out.reading(sum(len(files(machine, name)) for name in packages if here(packages, name)))
    status, done = 0, []
    for name in gone:
        out.line("Removing %s (%s) ..." % (name, packages[name]["Version"]))
        remove(machine, name, packages, purge)
        done.append(name)
    for name, version in chosen.items():
        archive = "%s_%s_amd64.deb" % (name, version.replace(":", "%3a"))
        old = packages[name]["Version"] if here(packages, name) else None
        out.line("Preparing to unpack .../%s ..." % archive)
        out.line("Unpacking %s (%s)%s ..." % (name, version, " over (%s)" % old if old else ""))
        try:
            unpack(machine, name, data[name])
        except OSError as exc:
            path = exc.filename if isinstance(exc.filename, str) else ""
            out.line("dpkg: error processing archive /var/cache/apt/archives/%s (--unpack):" % archive)
            out.line(" cannot copy extracted data for '.%s' to '%s.dpkg-new': failed to write (%s)" % (path, path, exc.strerror))
            out.line("Errors were encountered while processing:\n /var/cache/apt/archives/" + archive)
            status = 100
            continue
        fields = packages.setdefault(name, OrderedDict((("Package", name), ("Status", ""), ("Architecture", "amd64"), ("Version", ""), ("Description", name))))
        fields.update(Status="%s ok installed" % ("hold" if held(packages, name) else "install"), Version=version)
        if "installed_size" in offered[name]:
            fields["Installed-Size"] = str(offered[name]["installed_size"])
        done.append(name)
    record(machine, packages)
    with machine.change() as now:
        now["packages"] = dict((name, fields["Version"]) for name, fields in packages.items() if here(packages, name))
    for name in done:
        if name in chosen:
            out.line("Setting up %s (%s) ..." % (name, chosen[name]))
            if name in RECOMMENDS:
                out.line("%s: microcode will be updated at next boot" % name)
    if any(name in RECOMMENDS for name in done) and not _trigger(machine, packages, out):
        status = 100
    sys.stdout.flush()
    if status:
        say("E: Sub-process /usr/bin/dpkg returned an error code (1)")
    return status


def _kilobytes(offer, data):
    return offer.get("installed_size", -(-sum(map(len, data.values())) // 1024))


def _size(number):
    """A size as apt writes it."""
    for unit in ("", "k", "M", "G"):
        if number < 100 and unit:
            return "%.1f %s" % (number, unit)
        if number < 10000:
            return "%.0f %s" % (number, unit)
        number /= 1000
    return "%.0f T" % number


class Terminal:
    """dpkg writes to a terminal that apt makes for it, and so do the scripts of packages: lines end as terminals have them."""

    def line(self, text):
        sys.stdout.write("".join(line + "\r\n" for line in text.splitlines()))

    def reading(self, count):
        sys.stdout.write("(Reading database ... \r" + "".join("(Reading database ... %d%%\r" % part for part in range(5, 101, 5)))
        self.line("(Reading database ... %d files and directories currently installed.)" % count)

    def run(self, argv):
        """A program with its words on that terminal; its exit status."""
        sys.stdout.flush()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        self.line(done.stdout.decode("utf-8", "replace"))
        return done.returncode


def unpack(machine, name, data):
    """Put the files of a package in place of those of the version before. OSError, and then nothing has changed."""
    old, paths = files(machine, name), sorted(data)
    ready = []
    try:
        for path in paths:
            os.makedirs(machine.at(os.path.dirname(path)), exist_ok=True)
            ready.append(path)
            try:
                machine.check_space(path, len(data[path]))
                with open(machine.at(path + ".dpkg-new"), "wb") as stream:
                    stream.write(data[path])
            except OSError as exc:
                raise OSError(exc.errno or errno.EIO, exc.strerror, path)
    except OSError:
        for path in ready:
            if os.path.exists(machine.at(path + ".dpkg-new")):
                os.unlink(machine.at(path + ".dpkg-new"))
        raise
    for path in paths:
        os.replace(machine.at(path + ".dpkg-new"), machine.at(path))
    above = set("/".join(path.split("/")[:depth]) for path in paths for depth in range(2, path.count("/") + 1))
    _drop(machine, [path for path in old if path not in paths])
    machine.put(INFO % name, "".join(line + "\n" for line in ["/."] + sorted(above | set(paths))))


def remove(machine, name, packages, purge):
    """Take the files of a package away; of its settings it is still known, unless they go too."""
    settings = "/etc/default/" + name
    _drop(machine, files(machine, name) + [settings] * purge)
    packages[name]["Status"] = "deinstall ok config-files"
    machine.put(INFO % name, "/.\n/etc\n/etc/default\n%s\n" % settings)
    if purge:
        os.unlink(machine.at(INFO % name))
        del packages[name]


def _drop(machine, paths):
    """Delete files, and folders that are empty then."""
    for path in sorted(paths, reverse=True):
        place = machine.at(path)
        if os.path.isfile(place) and not path.endswith("/."):
            os.unlink(place)
        elif os.path.isdir(place) and path.count("/") > 2 and not os.listdir(place):
            os.rmdir(place)


def _standing(machine, builder, packages):
    """Whether a tool that builds initrds is there though the record does not know it."""
    return builder in dict((each[0], 1) for each in BUILDERS) and builder not in packages and _builder(machine)[:1] == (builder,)


def _builder(machine):
    """(package, program, version) of the tool that builds initrds here, or nothing."""
    return next((each for each in BUILDERS if os.path.lexists(machine.at(each[1]))), ())


def _trigger(machine, packages, out):
    """What is interested in update-initramfs is run; whether it went well."""
    builder = _builder(machine)
    if not builder:
        return True
    name, program, version = builder
    out.line("Processing triggers for %s (%s) ..." % (name, packages[name]["Version"] if here(packages, name) else version))
    status = 0
    if name == "initramfs-tools":
        status = out.run([machine.at(program), "-u"])
    else:
        for path in sorted(each for each in os.listdir(machine.at("/boot")) if re.match("vmlinu[zx]-", each)):
            image = "/boot/initrd.img-" + path[8:]
            out.line("dracut: Generating " + image)
            status = status or out.run([machine.at(program), "-q", "--force", image, path[8:]])
    if status:
        out.line("dpkg: error processing package %s (--configure):\n installed %s package post-installation script subprocess returned error exit status %d\n"
                 "Errors were encountered while processing:\n %s" % (name, name, status, name))
    return status == 0


# --- apt-cache, apt-mark ---

def apt_cache(machine, argv):
    words = [word for word in argv if not word.startswith("-")]
    command, names = (words[0], words[1:]) if words else ("help", [])
    state, packages, where = machine.state(), installed(machine), source(machine)
    for name in names:
        mine, offered = packages[name]["Version"] if here(packages, name) else None, state["offered"].get(name, {}).get("version")
        if mine is None and offered is None:
            if command == "show":
                say("E: No packages found")
                return 100
            continue
        if command == "policy":
            print("%s:\n  Installed: %s\n  Candidate: %s\n  Version table:" % (name, mine or "(none)", candidate(state, packages, name)))
            known = [(each, each == mine, each == offered) for each in sorted({mine, offered} - {None}, key=versions.key, reverse=True)]
            for version, is_mine, is_offered in known:
                print(" %s %s %d" % ("***" if is_mine else "   ", version, 500 if is_offered else 100))
                if is_offered:
                    print("        500 %s %s" % (where[0], where[1]))
                if is_mine or name in packages and packages[name]["Version"] == version:
                    print("        100 " + STATUS)
        elif command == "madison":
            if offered:
                print("%s | %s | %s %s" % (name.rjust(10), offered, where[0], where[1]))
        elif command == "show":
            for version in [each for each in (offered, mine) if each]:
                print("Package: %s\nVersion: %s\nArchitecture: amd64\n" % (name, version))
        else:
            say("E: Invalid operation " + command)
            return 100
    return 0


def apt_mark(machine, argv):
    words = [word for word in argv if not word.startswith("-")]
    command, names = (words[0], words[1:]) if words else ("help", [])
    state, packages = machine.state(), installed(machine)
    if command == "showhold":
        print("".join(name + "\n" for name in sorted(packages) if held(packages, name)), end="")
        return 0
    if command in ("showmanual", "showauto"):
        print("".join(name + "\n" for name in sorted(packages) if command == "showmanual" and here(packages, name)), end="")
        return 0
    if command not in ("hold", "unhold", "manual", "auto"):
        say("E: Invalid operation " + command)
        return 100
    for name in names:
        if name not in packages and name not in state["offered"]:
            say("E: Unable to locate package %s\nE: No packages found" % name)
            return 100
        if command in ("hold", "unhold"):
            is_held = held(packages, name)
            if is_held == (command == "hold"):
                print("%s was already %s hold." % (name, "set on" if is_held else "not on"))
            elif name in packages:
                packages[name]["Status"] = re.sub(r"^\S+", "hold" if command == "hold" else "install", packages[name]["Status"])
                print("%s set on hold." % name if command == "hold" else "Canceled hold on %s." % name)
        else:
            print("%s was already set to manually installed." % name if command == "manual" else "%s set to automatically installed." % name)
    if command in ("hold", "unhold"):
        record(machine, packages)
    return 0


# --- dpkg ---

def dpkg(machine, argv):
    command, words = (argv[0], argv[1:]) if argv else ("--help", [])
    if command == "--compare-versions" and len(words) == 3:
        found = versions.compare(words[0], words[2])
        holds = {"lt": found < 0, "le": found <= 0, "eq": found == 0, "ne": found != 0, "ge": found >= 0, "gt": found > 0}
        return int(not holds[{"<<": "lt", "<=": "le", "=": "eq", ">=": "ge", ">>": "gt"}.get(words[1], words[1])])
    if command == "--print-architecture":
        print("amd64")
        return 0
    if command == "--print-foreign-architectures" or "--configure" in argv:
        return 0
    packages = installed(machine)
    if command == "--get-selections":
        for name in sorted(packages):
            if not words or name in words:
                print("%s%s%s" % (name, "\t" * max(1, 6 - len(name) // 8), packages[name]["Status"].split()[0]))
        return 0
    if command == "--set-selections":
        for name, selection in (line.split() for line in sys.stdin if line.strip()):
            if name in packages:
                packages[name]["Status"] = re.sub(r"^\S+", selection, packages[name]["Status"])
        record(machine, packages)
        return 0
    if command in ("-l", "--list", "-s", "--status", "-L", "--listfiles", "-S", "--search"):
        return dpkg_query(machine, argv)
    say("dpkg: error: unknown option %s\n\nType dpkg --help for help about installing and deinstalling packages [*];" % command)
    return 2


def dpkg_query(machine, argv):
    form, command, words, rest = "${binary:Package}\t${Version}\n", None, [], list(argv)
    while rest:
        word = rest.pop(0)
        if word.startswith("--showformat="):
            form = word.partition("=")[2]
        elif word in ("-f", "--showformat"):
            form = rest.pop(0)
        elif word.startswith("-f") and not word.startswith("--"):
            form = word[2:].lstrip("=")
        elif word.startswith("-"):
            command = word
        else:
            words.append(word)
    packages, status = installed(machine), 0
    if command in ("-S", "--search"):
        for path in words:
            owners = OrderedDict()
            for name in sorted(packages):
                for each in files(machine, name):
                    if each == path or path[:1] != "/" and path in each:
                        owners.setdefault(each, []).append(name)
            print("".join("%s: %s\n" % (", ".join(those), each) for each, those in owners.items()), end="")
            if not owners:
                say("dpkg-query: no path found matching pattern " + path)
                status = 1
        return status
    for word in words or ["*"]:
        names = fnmatch.filter(sorted(packages), word)
        if not names:
            if command in ("-L", "--listfiles", "-s", "--status"):
                listing = command in ("-L", "--listfiles")
                say("dpkg-query: package '%s' is not installed%s" % (word, "" if listing else " and no information is available"))
                say("Use dpkg --contents (= dpkg-deb --contents) to list archive files contents." if listing else
                    "Use dpkg --info (= dpkg-deb --info) to examine archive files.")
            else:
                say("dpkg-query: no packages found matching " + word)
            status = 1
        for name in names:
            fields = packages[name]
            if command in ("-L", "--listfiles"):
                print("\n".join(files(machine, name)))
            elif command in ("-s", "--status"):
                print("".join("%s: %s\n" % pair for pair in fields.items()))
            elif command in ("-l", "--list"):
                print("%s%s  %s %s %s %s" % (fields["Status"][0], "i" if here(packages, name) else "n", name, fields["Version"], fields["Architecture"], name))
            else:
                sys.stdout.write(_formed(form, fields))
    return status


def _formed(form, fields):
    words = fields["Status"].split()
    more = {"binary:Package": fields["Package"], "db:Status-Want": words[0], "db:Status-Eflag": words[1], "db:Status-Status": words[2],
            "db:Status-Abbrev": words[0][0] + ("i" if words[2] == "installed" else words[2][0]) + " "}
    text = re.sub(r"\$\{([\w:-]+)(?:;-?\d+)?\}", lambda match: more.get(match.group(1), fields.get(match.group(1), "")), form)
    return text.replace("\\n", "\n").replace("\\t", "\t")
