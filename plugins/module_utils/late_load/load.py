# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A late load as one run on the host: checks, the journal, guests paused if asked, the load, guests resumed, and every CPU read back."""
import contextlib
import signal

from . import sysfs, xen_ucode
from .. import cpu, facts, files, hypervisor, journal
from ..guests import guest, lease
from ..update import Processor, hex8

WAYS = {"sysfs": sysfs, "xen-ucode": xen_ucode}
LINES = 40  # of a log, the most that are returned


class Refused(Exception):
    """Nothing was done; the text says what was found, why it matters and what would change it."""


class Stopped(BaseException):
    """A signal asked this run to end; no error, so that no reader of facts takes it for one of its own."""


class _Signals(object):
    """SIGTERM and SIGHUP end a run in order, but never in the middle of a load: held tells when they wait."""

    def __init__(self):
        self.held, self.waiting, self.former = False, None, {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                self.former[number] = signal.signal(number, self._come)
        return self

    def _come(self, number, _frame):
        if self.held:
            self.waiting = number
        else:
            raise Stopped("signal %d asked for the end" % number)

    @contextlib.contextmanager
    def wait(self):
        """Signals wait until the block has ended."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        self.heed()

    def heed(self):
        """Stopped where a signal waits."""
        if self.waiting:
            raise Stopped("signal %d asked for the end" % self.waiting)

    def __exit__(self, *_exc):
        for number, former in self.former.items():
            signal.signal(number, former)


# --- what is there ---

class _State(object):
    """This host's facts, and what they say of a late load."""

    def __init__(self, host, subset):
        self.host = host
        self.facts = facts.gather(host, subset)
        self.cpu, self.hypervisor, self.late = self.facts["cpu"] or {}, self.facts["hypervisor"] or {}, self.facts["late"] or {}
        self.xen, self.intel = bool(self.hypervisor.get("xen")), self.cpu.get("vendor") == cpu.VENDORS[0]
        self.flags = None if self.xen else cpu.read(host)[2]

    def number(self, text):
        """A revision as the processor's vendor compares it: Intel's are signed."""
        value = cpu.number(text)
        return value - (1 << 32) if value is not None and self.intel and value >> 31 else value

    @property
    def runs(self):
        """Revisions that CPUs were seen to run, lowest first."""
        return sorted(self.number(each) for each in self.cpu.get("revisions") or ())

    @property
    def unread(self):
        """CPUs that may run anything; None where even that is not known.

        A core's threads share its microcode: with Intel Xen loads it on the first one, and its log tells of no other; with AMD on each (XEN).
        """
        unread, told = self.cpu.get("unread"), sum(map(len, (self.cpu.get("revisions") or {}).values()))
        threads = self.xen and self.intel and self.hypervisor["xen"]["threads_per_core"]
        return 0 if threads and told and unread is not None and told * threads == told + unread else unread

    @property
    def processor(self):
        return Processor(self.cpu["vendor"], cpu.number(self.cpu["signature"]), cpu.number(self.cpu["pf_mask"]), self.runs[0] if self.runs else None)

    def proved(self, wanted):
        """True where every CPU runs the wanted revision, False where one does not; None where that is not known of all."""
        if self.runs != [wanted]:
            return False if self.runs else None
        return True if self.unread == 0 else None

    def next_boot(self):
        """{"revision": what the next boot loads early, or None, "loads": update, none, or None where that is not known}"""
        early = self.facts["early"] or {}
        default = [each["revision"] for each in early.get("kernels") or () if each["default"]]
        loads = early.get("loads")
        return {"loads": loads, "revision": default[0] if default and loads == "update" else None}


def _kernels_own(host, processor, release):
    """The file that Linux reads for this processor when it loads late, or None (LNX-core; _request_firmware takes a packed one where no plain one is)."""
    name = files.names(processor)[0]
    folders = [folder for folder in files.folders(host, release) if not folder.startswith(files.CAVEATS)]
    return next((folder + "/" + name + suffix for suffix in ("", ".zst", ".xz") for folder in folders if host.exists(folder + "/" + name + suffix)), None)


def _same(host, one, other):
    first, second = host.stat(one), host.stat(other)
    return bool(first and second) and (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


# --- the checks ---

def _file(state, path, digest, wanted):
    """What the file holds (see files.file), once it is the one that shall be loaded. Refused."""
    host, processor, version = state.host, state.processor, state.hypervisor["version"]
    own = _kernels_own(host, processor, state.facts["kernel"])
    path = path or own
    if path is None:
        raise Refused("no file for this CPU (%s) lies where the kernel looks; install the distribution's package, or put one there with microcode_file"
                      % files.names(processor)[0])
    if not state.xen and not (own and _same(host, path, own)):
        raise Refused("Linux looks for the file itself and reads %s, not %s; name that one, or put this one in its place with microcode_file"
                      % (own or "none for this CPU", path))
    if state.xen and path.endswith((".zst", ".xz", ".gz")):
        raise Refused("%s is packed, and xen-ucode hands Xen the file as it lies; unpack it to a file of its own and name that, or load early" % path)
    found = files.file(host, path, processor, state.xen and (hypervisor.numbers(version) or True))
    if found["problem"]:
        raise Refused("%s: %s; only a file that is whole is loaded (%s)" % (path, found["problem"], "; ".join(host.warnings[-1:]) or "no more is known"))
    if found["revision"] is None:
        raise Refused("%s holds nothing for this CPU (signature %s, platform mask %s); another file is meant" % (
            path, state.cpu["signature"], state.cpu["pf_mask"]))
    if digest and found["sha256"] != digest.lower():
        raise Refused("%s has the SHA-256 %s, not %s: it is not the file that was decided on; put that one there, or plan again" % (
            path, found["sha256"], digest.lower()))
    if state.number(found["revision"]) != wanted:
        raise Refused("%s holds revision %s for this CPU, not %s; plan again, or put the file there that does" % (path, found["revision"], hex8(wanted)))
    if found["early_only"]:
        raise Refused("%s is for early loading alone: its distribution keeps it from being loaded late; load it early" % path)
    if found["caveat"]:
        raise Refused("%s is kept apart by microcode_ctl (caveat %s); its readme says why, and how to override it" % (path, found["caveat"]))
    return found


def _check(state, found, wanted):
    """Refused where this revision must not be loaded from the one that runs."""
    runs = state.runs
    if not runs:
        raise Refused("which revision runs is not known (%s), so neither is whether %s may be loaded late; a boot tells" % (
            "; ".join(state.facts["warnings"][-1:]) or "no CPU shows it", hex8(wanted)))
    if runs[-1] > wanted:
        raise Refused("%s runs, which is newer than %s; loading never goes back, an older one takes a boot without the newer" % (hex8(runs[-1]), hex8(wanted)))
    minimum = state.number(found["min_revision"])
    if state.intel and minimum is None:
        raise Refused("Intel declares no revision from which on %s may be loaded late, so what it takes away from programs that run is not known; load it early"
                      % hex8(wanted))
    if minimum is not None and runs[0] < minimum:
        raise Refused("%s may be loaded late from %s on, and %s runs; %s" % (
            hex8(wanted), hex8(minimum), hex8(runs[0]), "load it early" if state.intel else "update the firmware first, which brings that"))
    if not state.xen and not state.intel and state.late["min_revision_forced"] is not False:
        raise Refused("the kernel %s a minimum revision in the file, and reads none from AMD's: it would load nothing (microcode.force_minrev); load it early"
                      % ("insists on" if state.late["min_revision_forced"] else "may insist on"))
    if not state.xen and state.cpu["offline"] != []:
        raise Refused("CPUs %s are offline: Linux aborts, or they would come up with the old revision; bring them online, or load early"
                      % (", ".join(map(str, state.cpu["offline"] or ())) or "of unknown number"))


def _guests(state, wanted):
    """(driver, guests to pause, [(guest, why not)]) where guests are to be paused. GuestError."""
    driver = guest.driver(state.host, state.hypervisor) if wanted == "pause" else None
    there = driver.guests() if driver else []
    ready = [guest for guest in there if guest.state == "running" and guest.why_not is None]
    return driver, ready, [(guest, guest.why_not or "it is %s" % guest.state) for guest in there if guest not in ready]


# --- the run ---

def run(host, revision, path=None, digest=None, pause="none", hold=5, timeout=60, check=False):
    """Load it, see the module microcode_late_load for what is returned; "failed" is True where not every CPU is known to run the revision.

    Refused, Busy, JournalError, GuestError: nothing was loaded, and no guest is paused.
    """
    with _Signals() as signals:
        before = _State(host, ("late",))
        if before.late.get("available") is not True:
            raise Refused("microcode cannot be loaded late here: %s; load it early" % (before.late.get("why_not") or "what this host is, is not known"))
        if before.cpu.get("signature") is None:
            raise Refused("which processor this is, is not known: %s" % ("; ".join(before.facts["warnings"][:1]) or "nothing shows it"))
        wanted = before.number(revision)
        if wanted is None:
            raise Refused("revision: %s is no number such as 0x02007006" % revision)
        last = journal.last(host)
        interrupted = bool(last and last["interrupted"] and last["action"] == "late_load")
        if before.proved(wanted):
            resumed = {}
            if interrupted and not check:
                with journal.run(host, "late_load", to=hex8(wanted)):
                    resumed = _resume(host, before)
            return dict(_result(before, before), changed=bool(resumed), resumed=resumed, msg="every CPU runs %s already; nothing was loaded" % hex8(wanted))
        found = _file(before, path, digest, wanted)
        _check(before, found, wanted)
        driver, ready, left = _guests(before, pause)
        if check:
            return dict(_result(before, before, left=left), changed=True, file=found["path"], msg="would load %s from %s through %s%s" % (
                hex8(wanted), found["path"], before.late["interface"], ", with %d guests paused for at most %s s" % (len(ready), hold) if ready else ""))
        with journal.run(host, "late_load", **{"from": [hex8(each) for each in before.runs], "to": hex8(wanted), "file": found["path"],
                                               "sha256": found["sha256"], "guests": [guest.uuid for guest in ready]}) as noted:
            resumed = _resume(host, before) if interrupted else {}
            return _load(signals, noted, before, found, wanted, (driver, ready, left), (hold, timeout), resumed)


def _resume(host, state):
    """{UUID: None or why not} of guests that an earlier run left paused when it was interrupted."""
    lease.sweep()
    return lease.release(host, guest.driver(host, state.hypervisor)) if lease.open_leases(host) else {}


def _load(signals, noted, before, found, wanted, paused, limits, resumed):
    """The part that changes something."""
    host, way = before.host, WAYS[before.late["interface"]]
    driver, ready, left = paused
    tail = _tail(way.log(host))
    noted.note("loading")  # written before guests are held, since disks are slow
    with signals.wait():
        with lease.hold(host, driver, ready, limits[0]) as held:
            signals.heed()  # the last moment to turn back
            said = way.load(host, found["path"], limits[1])
        _note(host, noted.note, "loaded", said=said, held=held.seconds)
    after = _State(host, ("late", "early"))
    new = _since(tail, way.log(host))
    proved = after.proved(wanted)
    _note(host, noted.note, "read back", revisions=after.cpu["revisions"], unread=after.unread)
    result = dict(_result(before, after, left=left), changed=after.runs != before.runs or bool(resumed), failed=not proved, file=found["path"],
                  resumed=resumed, log=new, said=said, expired=held.expired,
                  held=[{"uuid": guest.uuid, "name": guest.name, "seconds": round(held.seconds[guest.uuid], 4)} for guest in ready])
    if held.problems:
        names = dict((guest.uuid, guest.name or guest.uuid) for guest in ready)
        host.warn("guests that could not be resumed, which the watcher goes on trying: %s" % ", ".join(
            "%s (%s)" % (names[uid], why) for uid, why in sorted(held.problems.items())))
        result["failed"] = True
    result["msg"] = _verdict(after, wanted, proved, said, held)
    _note(host, noted.close, "done" if proved else result["msg"])
    return result


def _note(host, call, *what, **more):
    """What came of the load is told also where it can no longer be written down."""
    try:
        call(*what, **more)
    except journal.JournalError as exc:
        host.warn(str(exc))


def _verdict(after, wanted, proved, said, held):
    answer = " (%s)" % said if said else ""
    if proved:
        text = "every CPU runs %s" % hex8(wanted)
        if after.hypervisor["role"] == "host":
            after.host.warn("guests see what %s brings only after they were shut down and started again" % hex8(wanted))
        boot = after.next_boot()
        if boot["revision"] != hex8(wanted):
            words = {None: "loads what is not known", "none": "loads no microcode"}.get(boot["loads"], "loads %s" % boot["revision"])
            after.host.warn("the next boot %s: without %s in what the boot loads, the host falls back; load it early too" % (words, hex8(wanted)))
    elif len(after.runs) > 1:
        text = "CPUs run different revisions now%s: %s; such a host is not stable, reboot it soon, into early loading" % (answer, ", ".join(
            "%s on CPUs %s" % (each, ", ".join(map(str, cpus))) for each, cpus in sorted(after.cpu["revisions"].items())))
    elif proved is None:
        text = "the load may have worked%s, but that is not proved: of %s CPUs the revision is not known; run microcode_facts again, or reboot" % (
            answer, "some" if after.unread is None else after.unread)
    else:
        text = "%s was not taken%s: %s runs; see the log for why" % (hex8(wanted), answer, hex8(after.runs[0]))
    if held.expired:
        after.host.warn("the load took longer than guests may be held: the watcher let them run again before its end")
    return text


def _result(before, after, left=()):
    """What is the same in every answer."""
    return {"changed": False, "failed": False, "interface": before.late.get("interface"), "file": None, "held": [], "expired": False, "log": [],
            "said": None, "resumed": {}, "left": [{"uuid": guest.uuid, "name": guest.name, "why": why} for guest, why in left],
            "before": before.cpu["revisions"], "after": after.cpu["revisions"], "unread": after.unread,
            "flags": None if before.flags is None or after.flags is None else {
                "gained": sorted(after.flags - before.flags), "lost": sorted(before.flags - after.flags)},
            "tainted": {"before": before.facts["tainted"], "after": after.facts["tainted"]},
            "next_boot": after.next_boot() if after is not before else None}


# --- the log ---

def _tail(text):
    """The last lines of a log, by which its end is found again."""
    return None if text is None else text.splitlines()[-8:]


def _since(tail, text):
    """The lines after these; where they are no longer there, the last ones, since a ring loses its beginning. None at all where none were read before."""
    lines = (text or "").splitlines() if tail is not None else []
    if tail:
        for place in range(len(lines) - len(tail), -1, -1):
            if lines[place:place + len(tail)] == tail:
                lines = lines[place + len(tail):]
                break
    return lines[-LINES:]
