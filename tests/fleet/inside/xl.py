# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""xl, as tests/lab/recordings/xl-*.yml have it; numbers of lines in libxl's errors are those of 4.17.

Of its subcommands these are here; what no recording shows they say as its source has it (tools/xl). It is as slow as simulate.xl_seconds of the host's YAML.
"""
import errno
import getopt
import json
import os
import sys
import time

import guest_clock
import xen

MAGIC = b"Xen saved domain, xl format\n \0 \r"
BESIDE = 353  # bytes that what libxl saves of a configuration has more than ours, so that the size is the one recorded
FAILED = -3  # ERROR_FAIL of libxl
TAKEN = (  # what is said where a guest of that name is there already
    'libxl: error: libxl_domain.c:81:libxl__domain_rename: Domain {0}:Domain with name "{1}" already exists.\n'
    "libxl: error: libxl_create.c:1296:initiate_domain_create: Domain {0}:cannot make domain: -6\n")
GONE = (
    "libxl: error: libxl_domain.c:1183:libxl__destroy_domid: Domain {0}:Non-existant domain\n"
    "libxl: error: libxl_domain.c:1137:domain_destroy_callback: Domain {0}:Unable to destroy guest\n"
    "libxl: error: libxl_domain.c:1064:domain_destroy_cb: Domain {0}:Destruction of domain failed\n")
UNSAVED = "libxl: error: libxl_stream_write.c:347:libxl__xc_domain_save_done: Domain {1}:saving domain: {2}\n"
NO_QEMU = ("libxl: info: libxl_create.c:121:libxl__domain_build_info_setdefault: qemu-xen is unavailable, using qemu-xen-traditional instead: "
           "No such file or directory\n")  # of 4.14, which looks for one whatever the guest's type


class Ends(SystemExit):
    """The program ends here; args: (exit status, what it said)."""


def say(text):
    """To standard error, where xl says most of it."""
    sys.stderr.write(text)


def main(machine, _name, argv):
    state = machine.state()
    if state["xen"] is None:
        say(xen.NOT_XEN)
        return 1
    time.sleep(state["spec"].get("simulate", {}).get("xl_seconds", 0))
    try:
        try:
            argv = getopt.getopt(argv, "vftTN")[1]
        except getopt.GetoptError:
            raise Ends(1, "unknown global option\n")
        if not argv:
            _help()
            return 1
        known = [row for row in COMMANDS if row[0] == argv[0] and row[1]]
        if not known:
            raise Ends(1, "command not implemented\n")
        _command, function, least, short, long, _usage, _about = known[0]
        try:
            options, rest = getopt.gnu_getopt(argv[1:], short + "h", long + ["help"])
        except getopt.GetoptError as exc:
            raise Ends(2, "option `%s' not supported.\n" % exc.opt[:1])
        options = [option.lstrip("-")[0] for option, _value in options]
        if "h" in options:
            _help(argv[0])
            return 0
        if len(rest) < least:
            say("'xl %s' requires at least %d argument%s.\n\n" % (argv[0], least, "s" * (least > 1)))
            _help(argv[0])
            return 2
        return function(machine, options, rest) or 0
    except Ends as end:
        say(end.args[1])
        return end.args[0]


def _help(command=None):
    if command is None:
        print("Usage xl [-vfNtT] <subcommand> [args]\n\nxl full list of subcommands:\n")
        for row in COMMANDS:
            print(" %-19s %s" % (row[0], row[6]))
        return
    row = next(row for row in COMMANDS if row[0] == command)
    changes = row[1] not in (_list, _vcpu_list, _info, _domid, _domname, _dmesg)
    print("Usage: xl [-vtT%s] %s %s\n\n%s.\n" % ("f" + "N" * (command == "create") if changes else "", command, row[5], row[6]))


def _find(state, word):
    """The id that a word on the command line stands for."""
    if word.isdigit():
        return int(word)
    for domain in xen.domains(state):
        if domain["name"] == word:
            return domain["id"]
    raise Ends(1, "%s is an invalid domain identifier (rc=-6)\n" % word)


def _domain(number):
    """How libxl's log names a domain."""
    return "Domain %d:" % number if number else ""


# --- guests that begin and end ---

def _create(machine, options, argv):
    paths, more = [word for word in argv if "=" not in word], [word for word in argv if "=" in word]
    if len(paths) != 1:
        _help("create")
        return 2 if paths else 1
    text = machine.text(os.path.join(os.getcwd(), paths[0]))
    if text is None:
        raise Ends(-FAILED, "Failed to read config file: %s: %s\n" % (paths[0], os.strerror(errno.ENOENT)))
    if "q" not in options:
        say("Parsing config from %s\n" % paths[0])
    try:
        said = xen.words(text + "\n" + "\n".join(more))
    except ValueError:
        raise Ends(1, "Failed to parse config: %s\n" % os.strerror(errno.EINVAL))
    if "name" not in said:
        raise Ends(1, "Domain name must be specified.\n")
    with machine.change() as state:
        if xen.version(state) < (4, 15):
            say(NO_QEMU)
        return _start(machine, state, said, paths[0], 0.0, "p" in options, -FAILED)


def _start(machine, state, said, config, ran, paused, failed):
    try:
        domain = xen.create(machine, state, said, config, ran)
    except xen.Taken as exc:
        say((TAKEN + GONE).format(exc.args[0], said["name"]))
        return failed
    if paused:
        xen.pause(machine, state, domain["id"], "xl")
    return 0


def _destroy(machine, options, argv):
    with machine.change() as state:
        number = _find(state, argv[0])
        if number == 0 and "f" not in options:
            raise Ends(1, "Not destroying domain 0; use -f to force.\nThis can only be done when using a disaggregated hardware domain and toolstack.\n\n")
        try:
            xen.destroy(state, number)
        except OSError:
            raise Ends(1, GONE.format(number) + "destroy failed (rc=%d)\n" % FAILED)


def _shutdown(machine, options, argv):
    if not argv and "a" not in options:
        raise Ends(1, "You must specify -a or a domain id.\n\n")
    with machine.change() as state:
        numbers = [domain["id"] for domain in state["xen"]["domains"]] if "a" in options else [_find(state, argv[0])]
        for number in numbers:
            say("Shutting down domain %d\n" % number)
            try:
                xen.shutdown(state, number)
            except OSError:
                raise Ends(1, "libxl: error: libxl_domain.c:854:pvcontrol_cb: guest didn't acknowledge control request: -9\nshutdown failed (rc=-9)\n")
    if "w" in options:
        say("Waiting for %d domains\n" % len(numbers))
        for number in numbers:
            say("Domain %d has been shut down, reason code 0\n" % number)


# --- guests that wait ---

def _pause(machine, _options, argv):
    return _count(machine, argv[0], xen.pause, "libxl_domain.c:587:libxl_domain_pause: %sPausing")  # what else is named is not looked at


def _unpause(machine, _options, argv):
    return _count(machine, argv[0], xen.unpause, "libxl_domain.c:688:domain_unpause_done: %sUnpausing")


def _count(machine, word, change, problem):
    """xl does not look at what came of it, and ends well whatever that was."""
    with machine.change() as state:
        number = _find(state, word)
        try:
            change(machine, state, number, "xl")
        except OSError as exc:
            say("libxl: error: %s domain: %s\n" % (problem % _domain(number), exc.strerror))


def _save(machine, options, argv):
    with machine.change() as state:
        number = _find(state, argv[0])
        domain = next((each for each in state["xen"]["domains"] if each["id"] == number), None)
        if domain is None:
            raise Ends(1, "unable to retrieve domain configuration\n")
        image = {"words": dict(domain["words"], uuid=domain["uuid"]), "config": domain["config"], "ran": guest_clock.ran(domain),
                 "length": len(_json(_config(domain))) + BESIDE}
        place = machine.at(os.path.join(os.getcwd(), argv[1]))
        try:
            with open(place, "wb"):
                pass
        except OSError:
            raise Ends(1, "Failed to open temp file %s for writing\n" % argv[1])
        kind = domain["words"].get("type", "pv").upper()
        say("Saving to %s new xl format (info 0x3/0x0/%d)\nxc: info: Saving domain %d, type x86 %s\n" % (argv[1], image["length"], number, kind))
        if domain["pauses"]:  # recorded of a guest that was restored and left paused; any paused one cannot answer
            raise Ends(1, _unanswered(number))
        try:
            machine.check_space(os.path.join(os.getcwd(), argv[1]), domain["memory"] << 20, state)  # as large as the guest's memory; ours is not
        except OSError as exc:
            domain["watched"] = False  # the guest was suspended for a moment, which ends xl's wait for its end
            why = "(%d = %s)" % (exc.errno, exc.strerror)
            raise Ends(1, ("xc: error: Failed to write page data to stream {0}: Internal error\nxc: error: Save failed {0}: Internal error\n" + UNSAVED
                           + "Failed to save domain, resuming domain\n").format(why, number, "domain responded to suspend request: " + exc.strerror))
        _progress(domain["memory"] << 8)
        with open(place, "wb") as stream:
            stream.write(MAGIC + json.dumps(image).encode())
        if not {"c", "p"} & set(options):
            xen.destroy(state, number)
            return
        domain["watched"] = False
        if "p" in options:
            xen.pause(machine, state, number, "xl")


def _unanswered(number):
    why = "(%d = %s)" % (errno.ERANGE, os.strerror(errno.ERANGE))
    return ("xc: error: Bad mfn 0 during page table walk for vaddr 0xc90000000000 at level 4 of p2m list: Internal error\n"
            "xc: error: Save failed {0}: Internal error\n" + UNSAVED + "Failed to save domain, resuming domain\nxc: error: Dom {1} not suspended: "
            "(shutdown 0, reason 255): Internal error\nlibxl: error: libxl_dom_suspend.c:666:domain_resume_done: Domain {1}:xc_domain_resume failed: "
            "{3}\n").format(why, number, "domain did not respond to suspend request: " + os.strerror(errno.ERANGE), os.strerror(errno.EINVAL))


def _progress(frames):
    """How far it is, in parts of 1024 frames; not told before it is five hundredths further."""
    told = 0
    for done in list(range(1024, frames, 1024)) + [frames]:
        if done * 100 // frames >= told + 5:
            told = done * 100 // frames
            say("xc: progress: Frames: %d/%d  %3d%%\n" % (done, frames, told))
    say("xc: progress: End of stream: 0/0    0%\n")


def _restore(machine, options, argv):
    try:
        with open(machine.at(os.path.join(os.getcwd(), argv[-1])), "rb") as stream:
            data = stream.read()
    except OSError as exc:
        raise Ends(1, "Can't open restore file: %s\n" % exc.strerror)
    if not data.startswith(MAGIC):
        raise Ends(1, "File has wrong magic number - corrupt or for a different tool?\n")
    image = json.loads(data[len(MAGIC):].decode())
    say("Loading new save file %s (new xl fmt info 0x3/0x0/%d)\n Savefile contains xl domain config in JSON format\nParsing config from <saved>\n"
        % (argv[-1], image["length"]))
    with machine.change() as state:
        status = _start(machine, state, image["words"], image["config"], image["ran"], "p" in options, 1)
        if status == 0:
            say("xc: info: Found x86 %s domain from Xen %d.%d\nxc: info: Restoring domain\nxc: info: Restore successful\n"
                "xc: info: XenStore: mfn 0x5ba9a, dom 0, evt 1\nxc: info: Console: mfn 0x5ba99, dom 0, evt 2\n"
                % ((image["words"].get("type", "pv").upper(),) + xen.version(state)[:2]))
    return status


# --- what there is ---

def _list(machine, options, argv):
    state = machine.state()
    found = xen.domains(state)
    if argv:
        number = _find(state, argv[0])
        found = [domain for domain in found if domain["id"] == number]
        if not found:
            raise Ends(1, "Error: Domain '%s' does not exist.\n" % argv[0])
    if "l" in options:
        print(_json([{"domid": domain["id"], "config": _config(domain)} for domain in found]))
        return
    long = "v" in options
    print("Name                                        ID   Mem VCPUs\tState\tTime(s)"
          + "   UUID                            Reason-Code\tSecurity Label" * long)
    for domain in found:
        runs = not domain["pauses"] and domain["shutdown"] is None
        flags = "%s-%s%s%s-" % ("-r"[runs], "-p"[domain["pauses"] > 0], "-s"[domain["shutdown"] is not None], "-rscw"[domain["shutdown"] or 0])
        reason = "-" if domain["shutdown"] is None else "%x" % domain["shutdown"]
        print("%-40s %5d %5d %5d     %s  %8.1f" % (domain["name"], domain["id"], domain["memory"], domain["vcpus"], flags, xen.seconds(state, domain))
              + " %s %8s %16s" % (domain["uuid"], reason, "-") * long)


def _vcpu_list(machine, _options, argv):
    state = machine.state()
    numbers = [_find(state, word) for word in argv]
    print("%-32s %5s %5s %5s %5s %9s %s" % ("Name", "ID", "VCPU", "CPU", "State", "Time(s)", "Affinity (Hard / Soft)"))
    for domain in xen.domains(state):
        if not numbers or domain["id"] in numbers:
            for vcpu in range(domain["vcpus"]):
                print("%-32s %5d %5d %5d %3s-- %9.1f  all / all" % (
                    domain["name"], domain["id"], vcpu, vcpu % len(state["cpu"]["revisions"]), "-r"[not domain["pauses"]], xen.seconds(state, domain)))


def _domid(machine, _options, argv):
    for domain in xen.domains(machine.state()):
        if domain["name"] == argv[0]:
            print(domain["id"])
            return
    raise Ends(1, "Can't get domid of domain name '%s', maybe this domain does not exist.\n" % argv[0])


def _domname(machine, _options, argv):
    if not argv[0].isdigit():
        raise Ends(1, "Invalid domain id.\n\n")
    for domain in xen.domains(machine.state()):
        if domain["id"] == int(argv[0]):
            print(domain["name"])
            return
    raise Ends(1, "Can't get domain name of domain id '%s', maybe this domain does not exist.\n" % argv[0])


def _config(domain):
    """A domain's configuration in libxl's words."""
    said, kib = domain["words"], domain["memory"] << 10
    build = {"max_vcpus": domain["vcpus"], "avail_vcpus": list(range(domain["vcpus"])), "max_memkb": kib, "target_memkb": kib}
    build.update((ours, said[word]) for word, ours in (("kernel", "kernel"), ("extra", "cmdline"), ("ramdisk", "ramdisk")) if word in said)
    config = {"c_info": {"type": said.get("type", "pv"), "name": domain["name"], "uuid": domain["uuid"]}, "b_info": build}
    if domain["id"]:
        config.update(on_reboot=said.get("on_reboot", "restart"), on_soft_reset=said.get("on_soft_reset", "soft_reset"))
        config.update((word, said[word]) for word in ("on_poweroff", "on_crash", "on_watchdog") if said.get(word, "destroy") != "destroy")
    return config


def _json(value):
    return json.dumps(value, indent=4)


# --- the host ---

def _info(machine, _options, argv):
    for word, value in xen.info(machine, machine.state()):
        if not argv:
            print("%-22s : %s" % (word, value))
        elif word.startswith(argv[0]):
            print(value)


def _dmesg(machine, options, _argv):
    if "c" not in options:
        sys.stdout.write(xen.log_text(machine.state()))
        return
    with machine.change() as state:
        sys.stdout.write(xen.log_text(state))
        state["xen"]["log"] = []


COMMANDS = (  # name, function, how many words it needs, its options, usage, description; without a function only named
    ("create", _create, 0, "pq", ["quiet"], "<ConfigFile> [options] [vars]", "Create a domain from config file <filename>"),
    ("config-update", None, 0, "", [], "<Domain> <ConfigFile> [options] [vars]",
     "Update a running domain's saved configuration, used when rebuilding the domain after reboot.\n"
     "WARNING: xl now has better capability to manage domain configuration, avoid using this command when possible"),
    ("list", _list, 0, "lv", ["long", "verbose"], "[options] [Domain]\n", "List information about all/some domains"),
    ("destroy", _destroy, 1, "f", [], "[options] <Domain>\n", "Terminate a domain immediately"),
    ("shutdown", _shutdown, 0, "aw", ["all", "wait"], "[options] <-a|Domain>", "Issue a shutdown signal to a domain"),
    ("pause", _pause, 1, "", [], "<Domain>", "Pause execution of a domain"),
    ("unpause", _unpause, 1, "", [], "<Domain>", "Unpause a paused domain"),
    ("save", _save, 2, "cp", [], "[options] <Domain> <CheckpointFile> [<ConfigFile>]", "Save a domain state to restore later"),
    ("restore", _restore, 1, "p", [], "[options] [<ConfigFile>] <CheckpointFile>", "Restore a domain from a saved state"),
    ("vcpu-list", _vcpu_list, 0, "", [], "[Domain, ...]", "List the VCPUs for all/some domains"),
    ("info", _info, 0, "", [], "-n, --numa         List host NUMA topology information", "Get information about Xen host"),
    ("domid", _domid, 1, "", [], "<DomainName>", "Convert a domain name to domain id"),
    ("domname", _domname, 1, "", [], "<DomainId>", "Convert a domain id to domain name"),
    ("dmesg", _dmesg, 0, "c", ["clear"], "[-c]", "Read and/or clear dmesg buffer"),
)
