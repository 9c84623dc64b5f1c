# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The simulated hypervisor: its log, its guests, and what it does with microcode. xl, xen-ucode and the Python bindings ask it.

It does what tests/lab/recordings has of Xen 4.14, 4.17 and 4.20; what none of them shows is from Xen's source (XEN; xen/arch/x86/cpu/microcode and
xen/drivers/char/console.c where nothing else is said). Of the state it uses

  xen  null on plain Linux, or {version, options, log: [line], cached: the revision that Xen keeps for CPUs that come up later, or null, next_id, domains:
       [{id, name, uuid, memory (MiB), vcpus, pauses, shutdown: null or the reason's number, watched: whether xl still waits for its end, config, words: what
       that file says, console, and what guest_clock.py needs}]}, which dom0 is none of
  cpu  besides what machine.py says: vendor, signature and pf_mask, and threads: how many logical CPUs, side by side, share a core and its microcode
"""
import ast
import contextlib
import errno
import io
import os
import re
import time
import uuid

import guest_clock
import processor

# as Debian built them; a version that is not here is taken for the next lower one: (packaged, compiler, when, what it was booted by)
BUILDS = (
    ((4, 14), "4.14.6-1", "x86_64-linux-gnu-gcc (Debian 10.2.1-6) 10.2.1 20210110", "Thu Sep 21 14:55:59 UTC 2023", "GRUB 2.06-3~deb11u7"),
    ((4, 17), "4.17.7+13-g2445b30a44-0+deb12u1", "x86_64-linux-gnu-gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "Wed Nov  4 16:52:28 UTC 2026",
     "GRUB 2.06-13+deb12u2"),
    ((4, 20), "4.20.4+63-g7abfd2bce2-0+deb13u1", "x86_64-linux-gnu-gcc (Debian 14.2.0-19) 14.2.0", "Tue Nov  3 20:11:50 UTC 2026", "GRUB 2.12-9+deb13u1"),
)
NOT_XEN = "ERROR:  Can't find hypervisor information in sysfs!\n"  # Debian's wrapper around the tools
BUILD_ID = "151b373fd64b321593bf987fd923cd10dabadac4"
INFO = "<2>"  # in front of a line that is for information alone
LEVELS = {"none": 0, "error": 1, "warning": 2, "info": 3, "debug": 4, "all": 4}
EXISTS = {(4, 17): 5, (4, 18): 3}  # the first point releases where being up to date has a number of its own, as it has from 4.19 on
MOST_PAUSES = 255
SIZES = {0x14: 1824, 0x15: 4096, 0x16: 3458, 0x17: 3200, 0x19: 5568}  # of AMD's patches, by family; all others 2048
PROBLEMS = (("wrong checksum of header", "Bad checksum"), ("wrong checksum", "Bad sigtable checksum"), ("extended table", "Bad sigtable size"),
            ("loader version", "Bad data in container"), ("", "Bad size"))  # how a problem that the collection's reader names begins, and Xen's words for it


def version(state):
    """(4, 17, 7) of 4.17.7."""
    return tuple(int(number) for number in re.findall(r"\d+", state["xen"]["version"])[:3])


def build(state):
    """What is known of this Xen as a program, see BUILDS."""
    return ([BUILDS[0]] + [row for row in BUILDS if row[0] <= version(state)[:2]])[-1]


class Taken(Exception):
    """A guest of this name is there already; the id that the new one had is gone."""


# --- the log ---

def _level(state):
    """How much Xen logs: XENLOG_LOWER_THRESHOLD, or option loglvl."""
    said = re.search(r"(?:^|\s)loglvl=([a-z]+)", state["xen"]["options"])
    return LEVELS.get(said.group(1), 2) if said else 2


def ring(state):
    """Bytes that the log's ring holds."""
    wanted = max(16384, len(state["cpu"]["revisions"]) << 9 + _level(state))
    return 1 << (wanted - 1).bit_length()


def say(state, text):
    """A line of the log, which as INFO is kept only where an option says so."""
    info, log = text.startswith(INFO), state["xen"]["log"]
    if info and _level(state) < LEVELS["info"]:
        return
    log.append("(XEN) " + text[len(INFO) * info:])
    size = sum(map(len, log)) + len(log)
    while size - len(log[0]) - 1 > ring(state):
        size -= len(log.pop(0)) + 1


def log_text(state):
    """All that the ring holds; once it is full it begins within a line."""
    return "".join(line + "\n" for line in state["xen"]["log"])[-ring(state):]


def boot(machine, state, number, options, update):
    """Xen of this version (text) comes up with these options, once the CPUs have run what it loaded; guests that /etc/xen/auto names are started.

    update: the Update that it found for them, or None.
    """
    state["xen"] = {"version": number, "options": options, "log": [], "cached": update.revision if update else None, "next_id": 1, "domains": []}
    one, runs = state["cpu"], state["cpu"]["revisions"]
    first, packaged, compiler, when, loader = build(state)
    packaged = state["packages"].get("xen-hypervisor-%d.%d-amd64" % version(state)[:2], packaged)
    head = ["Xen version %s (Debian %s) (pkg-xen-devel@lists.alioth.debian.org) (%s) debug=n%s%s"
            % (number, packaged, compiler, " " if first > (4, 14) else "  ", when), "build-id: " + BUILD_ID]
    reads = ["Bootloader: " + loader, "Command line: " + options, "Xen image load base address: 0x5f600000", "Video information:", " No VGA detected",
             "Disc information:", " Found 1 MBR signatures", " Found 1 EDD information structures"]
    family, model = family_model(one["signature"])
    vendor = [INFO + "CPU Vendor: %s, Family %d (%#x), Model %d (%#x), Stepping %d (raw %08x)" % (
        "Intel" if one["vendor"] == "GenuineIntel" else "AMD", family, family, model, model, one["signature"] & 15, one["signature"])]
    old = one["firmware"]
    took = [[_updated(cpu, old, runs[str(cpu)], update)] if update and old < update.revision else [] for cpu in primaries(state)]
    loads = [INFO + "BSP microcode revision: " + processor.hex8(old)] * (first > (4, 14)) + took[0]
    memory = ["Xen-e820 RAM map:", " [0000000000100000, 000000005ffdcfff] (usable)", "Domain heap initialised"]
    rest = ["Using scheduler: SMP Credit Scheduler rev2 (credit2)", "Allocated console ring of %d KiB." % (ring(state) >> 10)] + sum(took[1:], [])
    rest += ["Brought up %d CPUs" % len(runs), "*** Building a %s Dom0 ***" % state["spec"]["hypervisor"]["mode"].upper(),
             "Dom0 has maximum %d VCPUs" % dom0(state)["vcpus"], "*** Serial input to DOM0 (type 'CTRL-a' three times to switch input)"]
    early = first >= (4, 20)
    for text in head + (vendor + loads + reads + memory if early else reads + vendor + memory + loads) + rest:
        say(state, text)
    folder = "/etc/xen/auto/"
    for name in sorted(os.listdir(machine.at(folder))) if os.path.isdir(machine.at(folder)) else ():
        place = machine.at(folder + name, follow=False)
        path = os.path.normpath(os.path.join(folder, os.readlink(place))) if os.path.islink(place) else folder + name  # not where the link leads from here
        with contextlib.suppress(KeyError, Taken, ValueError):  # a guest that does not start keeps no host from coming up
            create(machine, state, words(machine.text(path) or ""), path)


# --- microcode ---

def family_model(signature):
    """The two as CPUID's leaf 1 has them."""
    family = signature >> 8 & 15
    return family + (signature >> 20 if family == 15 else 0), signature >> 4 & 15 | signature >> 12 & 0xf0


def primaries(state):
    """The CPUs that load microcode: with Intel's the first of each core, whose others share what it took; else all."""
    step = state["cpu"]["threads"] if state["cpu"]["vendor"] == "GenuineIntel" else 1
    return sorted(map(int, state["cpu"]["revisions"]))[::step]


def _updated(cpu, old, new, update):
    shown = tuple(value & 0xffffffff for value in (old, new, update.revision))
    if new != update.revision:
        return "microcode: CPU%d update rev %#x to %#x failed, result %#x" % (cpu, shown[0], shown[2], shown[1])
    return "microcode: CPU%d updated from revision %#x to %#x, date = %s" % (cpu, shown[0], shown[2], update.date)


def load(machine, state, data, force=False):
    """The call that loads microcode (bytes): 0, or the number of an error. Hung where a CPU stops."""
    xen = state["xen"]
    update, problem = _choose(state, data)
    if update is None:
        say(state, "Parsing microcode blob error -%d" % errno.EINVAL if problem else "microcode: couldn't find any matching ucode in the provided blob!")
        return errno.EINVAL if problem else errno.ENOENT
    exists = errno.EEXIST if version(state) >= (4, 19) or version(state)[2] >= EXISTS.get(version(state)[:2], 99) else None
    if xen["cached"] is not None and update.revision <= xen["cached"] and not force:
        say(state, "microcode: couldn't find any newer revision in the provided blob!")
        return exists or errno.ENOENT
    cpus = primaries(state)
    say(state, INFO + "%d cores are to update their microcode" % len(cpus))
    numbers = []
    for cpu in cpus:
        numbers.append(_apply(machine, state, cpu, update, force, exists or errno.EINVAL))
        if numbers == [errno.EIO]:
            say(state, "Late loading aborted: CPU%d failed to update ucode" % cpu)
            return errno.EIO if exists else errno.EBUSY  # the others gave up waiting, and their number was the last
    good = numbers.count(0)
    if good:
        xen["cached"] = update.revision
    if good and good < len(cpus):
        for text in ("ERROR: Updating microcode succeeded on %d cores and failed" % good,
                     "on other %d cores. A system with differing microcode" % (len(cpus) - good),
                     "revisions is considered unstable. Please reboot and do not", "load the microcode that triggers this warning!"):
            say(state, text)
    return next((number for number in reversed(numbers) if number), 0)


def _apply(machine, state, cpu, update, force, exists):
    """Have one CPU, and those that share its core, take an update: 0 or the number of an error."""
    one, runs = state["cpu"], state["cpu"]["revisions"]
    old, amd = runs[str(cpu)], one["vendor"] != "GenuineIntel"
    again = force or amd and version(state) < (4, 20)
    if update.revision < old and not force or update.revision == old and not again:
        return exists
    if amd and _unready(update, old):  # only an old Xen comes so far, and the processor refuses
        say(state, _updated(cpu, old, old, update))
        return errno.EIO
    took = processor.offer(machine, state, cpu, update.revision)
    if not amd:
        for sibling in range(cpu + 1, min(cpu + one["threads"], len(runs))):
            runs[str(sibling)] = runs[str(cpu)]
    say(state, _updated(cpu, old, runs[str(cpu)], update))
    return 0 if took else errno.EIO


def _unready(update, runs):
    """Whether a patch of AMD's takes newer firmware than what this revision came with."""
    return update.min_revision is not None and runs < update.min_revision


def _choose(state, data):
    """(the newest Update of a file that is for the processor, or None; whether something was wrong, which the log tells)."""
    from ansible_collections.fleet.microcode.plugins.module_utils import amd, intel  # pylint: disable=import-outside-toplevel
    one, stream, fits, problem = state["cpu"], io.BytesIO(data), [], None
    if one["vendor"] == "AuthenticAMD":
        updates, cut = amd.read(stream)
        if cut:
            problem = "Wrong microcode patch file magic" if data[:4] != amd.MAGIC else "Bad microcode data" if updates else "Bad equivalent cpu table"
        family = family_model(one["signature"])[0]
        limit = SIZES.get(family, 15296 if family == 0x1a and version(state) >= (4, 20) else 2048)
        for update in updates:
            if update.signature == one["signature"] and update.matching != "patch_id" and update.size <= limit:
                if version(state) >= (4, 17) and _unready(update, one["revisions"]["0"]):  # which firmware would have to vouch for
                    say(state, "No digest found for patch_id %08x" % update.revision)
                else:
                    fits.append(update)
    else:
        updates, cut = intel.read(stream)
        problem = "Bad data in container" if cut else None
        for update in intel.verify(stream, updates):
            if update.problems:
                problem = next(text for begin, text in PROBLEMS if update.problems[0].startswith(begin))
                break
            if update.signature == one["signature"] and update.pf_mask & one["pf_mask"]:
                fits.append(update)
    if problem:
        say(state, "microcode: " + problem)
    return max(fits, key=lambda update: update.revision, default=None), bool(problem)


# --- domains ---

def dom0(state):
    """What domain 0 is like; nobody can pause it."""
    said = re.search(r"(?:^|\s)dom0_mem=(?:\S*,)?(\d+)([MG])", state["xen"]["options"])
    memory = int(said.group(1)) << (10 if said.group(2) == "G" else 0) if said else 4096
    return {"id": 0, "name": "Domain-0", "uuid": str(uuid.UUID(int=0)), "memory": memory, "pauses": 0, "shutdown": None, "words": {},
            "vcpus": state["spec"]["cpu"].get("vcpus", len(state["cpu"]["revisions"]))}


def domains(state):
    """All of them, in the order of their ids."""
    return [dom0(state)] + state["xen"]["domains"]


def _guest(state, number):
    """A guest by its id. OSError."""
    for domain in state["xen"]["domains"]:
        if domain["id"] == number:
            return domain
    raise _error(errno.EINVAL if number == 0 else errno.ESRCH)


def _error(number):
    return OSError(number, os.strerror(number))


def words(text):
    """What a guest's configuration says, which has the form of Python's assignments. ValueError where it does not."""
    try:
        return dict((node.targets[0].id, ast.literal_eval(node.value)) for node in ast.parse(text).body)
    except (AttributeError, SyntaxError) as exc:
        raise ValueError(str(exc))


def create(machine, state, said, config, ran=0.0):
    """A guest of this configuration (words) begins to run: the guest. Taken where one of its name is there."""
    number = state["xen"]["next_id"]
    state["xen"]["next_id"] += 1
    if said["name"] in [domain["name"] for domain in domains(state)]:
        raise Taken(number)
    domain = {"id": number, "name": said["name"], "uuid": said.get("uuid") or str(uuid.uuid4()), "memory": said.get("memory", 128),
              "vcpus": said.get("vcpus", 1), "pauses": 0, "shutdown": None, "watched": True, "config": config, "words": said,
              "console": "/var/log/xen/console/guest-%s.log" % said["name"]}
    guest_clock.begin(domain, ran)
    state["xen"]["domains"].append(domain)
    _speak(machine, domain)
    return domain


def _speak(machine, domain):
    """A line of the guest's console, which xenconsoled keeps."""
    machine.append(domain["console"], guest_clock.speaks(domain) + "\n")


def pause(machine, state, number, program):
    """Count one more pause of a guest. OSError."""
    domain = _guest(state, number)
    if domain["name"] in state["faults"].get("unpausable", {}):
        raise _error(getattr(errno, state["faults"]["unpausable"][domain["name"]]))
    if domain["pauses"] == MOST_PAUSES:
        raise _error(errno.EOVERFLOW)
    guest_clock.hold(domain, program, again=domain["pauses"] > 0)
    domain["pauses"] += 1
    _speak(machine, domain)


def unpause(machine, state, number, program):
    """Count one pause less; at none the guest goes on. OSError."""
    domain = _guest(state, number)
    if not domain["pauses"]:
        raise _error(errno.EINVAL)
    domain["pauses"] -= 1
    guest_clock.release(domain, program, still=domain["pauses"] > 0)
    _speak(machine, domain)


def destroy(state, number):
    """A guest is gone. OSError."""
    state["xen"]["domains"].remove(_guest(state, number))


def shutdown(state, number):
    """A guest ends by itself; xl, where it still waits for that, then does what on_poweroff says. OSError (ETIMEDOUT) where the guest does not answer."""
    domain = _guest(state, number)
    if domain["pauses"] or domain["shutdown"] is not None:
        raise _error(errno.ETIMEDOUT)
    if domain["watched"] and domain["words"].get("on_poweroff", "destroy") == "destroy":
        destroy(state, number)
    else:
        domain["shutdown"] = 0


def seconds(state, domain):
    """For how long a domain has run."""
    return guest_clock.ran(domain) if domain["id"] else time.time() - state["boot"]["since"]


# --- the machine ---

def info(machine, state):
    """[(word, text)] of the machine and the hypervisor, as xl shows them; what hw_caps and virt_caps say is the lab's processor."""
    runs, xen = state["cpu"]["revisions"], state["xen"]
    threads, number = state["cpu"]["threads"], version(state)
    sockets = state["spec"]["cpu"].get("sockets", 1)
    kernel = (machine.text("/proc/version") or "").strip()
    total = 65536
    return [
        ("host", (machine.text("/proc/sys/kernel/hostname") or "").strip()), ("release", (machine.text("/proc/sys/kernel/osrelease") or "").strip()),
        ("version", kernel[kernel.find("#"):]), ("machine", "x86_64"), ("nr_cpus", len(runs)), ("max_cpu_id", len(runs) - 1), ("nr_nodes", sockets),
        ("cores_per_socket", len(runs) // threads // sockets), ("threads_per_core", threads), ("cpu_mhz", "2599.996"),
        ("hw_caps", "178bfbfd:46d82203:28100800:00000021:00000001:00000389:00000000:00000000"), ("virt_caps", "pv gnttab-v1 gnttab-v2"),
        ("total_memory", total), ("free_memory", total - sum(domain["memory"] for domain in domains(state))), ("sharing_freed_memory", 0),
        ("sharing_used_memory", 0), ("outstanding_claims", 0), ("free_cpus", 0), ("xen_major", number[0]), ("xen_minor", number[1]),
        ("xen_extra", xen["version"][len("%d.%d" % number[:2]):]), ("xen_version", xen["version"]), ("xen_caps", "xen-3.0-x86_64 "),
        ("xen_scheduler", "credit2"), ("xen_pagesize", 4096), ("platform_params", "virt_start=0xffff800000000000"), ("xen_changeset", ""),
        ("xen_commandline", xen["options"]), ("cc_compiler", build(state)[2]), ("cc_compile_by", "pkg-xen-devel"),
        ("cc_compile_domain", "lists.alioth.debian.org"), ("cc_compile_date", build(state)[3]), ("build_id", BUILD_ID), ("xend_config_format", 4)]
