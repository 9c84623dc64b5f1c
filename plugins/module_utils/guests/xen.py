# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests of Xen, through the Python bindings that Xen's tools ship, else through xl.

Xen counts pauses: a domain runs again when as many were ended as begun (LAB; XEN xen/common/domain.c). So each guest is paused once more, whatever
others do meanwhile, and unpaused once; that undoes ours and nobody else's.
"""
import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import uuid
from collections import namedtuple

from . import saved
from .. import atomic
from ..host import PROGRAMS
from .guest import Guest, GuestError
from .many import at_once

Domain = namedtuple("Domain", "id uuid state paused reason memory")  # reason: why it ended (XEN public/sched.h), or None; memory: KiB
XAPI = ("/etc/xensource-inventory", "/var/xapi/xapi", "/var/lib/xcp/xapi")
ENDED = {2: "it is being saved or migrated", 4: "its own watchdog has ended it"}  # SHUTDOWN_suspend, SHUTDOWN_watchdog
LINE = r"(?m)^.*?\s(\d+)\s+(\d+)\s+\d+\s+[-r][-b]([-p])([-s])(.)([-d])\s+[\d.]+\s+([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\s+(\S+)"  # xl list -v
STORE = r'(?m)^/(local/domain/\d+/(?:name|target|image/device-model-domid|control/shutdown|backend/\w+/\d+)|tool/xenstored/domid) = "(.*)"$'
WORDS = ("1d", "1c", "e1d", "e1c", "Da1", "7b0", "7c0", "e7d")  # of hw_caps (XEN public/arch-x86/cpufeatureset.h)
MAGIC = b"Xen saved domain, xl format\n"
GONE = "it is gone"


def managed_elsewhere(host):
    """Why this host's guests are not ours to pause, or None."""
    mark = next((path for path in XAPI if host.exists(path)), None)
    return mark and ("%s shows that XAPI manages this host: guests that are paused or saved behind its back confuse it and the pool, and its own high "
                     "availability may restart them elsewhere; use xe (host-disable and host-evacuate before a reboot, vm-pause for a moment)" % mark)


class _Bindings(object):
    """The hypervisor's own calls: each takes a few hundredths of a millisecond."""

    tool = "bindings"

    def __init__(self, calls, error):
        self._calls, self._error = calls, error

    def domains(self):
        """{id: Domain}. GuestError."""
        found, first = {}, 0
        while True:
            try:
                some = self._calls.domain_getinfo(first, 1024)
            except self._error as exc:
                if exc.args[0] != errno.ESRCH:  # none from this id on
                    raise GuestError("Xen does not list its domains (%s); without that no guest can be told from another" % exc.args[-1])
                some = []
            for info in some:
                state = next((state for word, state in (("dying", "dying"), ("crashed", "crashed"), ("shutdown", "shutdown"), ("paused", "paused"))
                              if info[word]), "running")
                found[info["domid"]] = Domain(info["domid"], str(uuid.UUID(bytes=bytes(bytearray(info["handle"])))), state, bool(info["paused"]),
                                              info["shutdown_reason"] if info["shutdown"] else None, info["mem_kb"])
            if len(some) < 1024:
                return found
            first = some[-1]["domid"] + 1

    def _each(self, call, guests):
        done = {}
        for guest in guests:
            try:
                call(guest.id)
                done[guest.uuid] = None
            except self._error as exc:
                done[guest.uuid] = exc.args[0]
        return done

    def pause(self, guests):
        """{uuid: None or why not}"""
        return dict((uid, number and _text(number)) for uid, number in self._each(self._calls.domain_pause, guests).items())

    def unpause(self, guests):
        """{uuid: None or why not}; one that has gone or runs already needs none."""
        return dict((uid, None if number in (None, errno.EINVAL, errno.ESRCH) else _text(number))
                    for uid, number in self._each(self._calls.domain_unpause, guests).items())


class _Xl(object):
    """xl, one process for each guest, which takes a quarter of a second and more."""

    tool = "xl"

    def __init__(self, host):
        self._host = host

    def domains(self):
        """{id: Domain}. GuestError."""
        said = self._host.run(["xl", "list", "-v"])
        found = re.findall(LINE, said.out) if said and said.rc == 0 else []
        if not found:
            raise GuestError("neither Xen's Python bindings nor xl list its domains (%s); without that no guest can be told from another; are the xen-utils "
                             "installed that match the running Xen?" % (said and _last(said.err or said.out) or "xl list -v: no answer"))
        return dict((int(number), Domain(
            int(number), uid, "dying" if dying == "d" else "crashed" if letter == "c" else "shutdown" if shutdown == "s" else
            "paused" if paused == "p" else "running", paused == "p", int(reason, 16) if reason != "-" else None, int(memory) << 10))
            for number, memory, paused, shutdown, letter, dying, uid, reason in found)

    def _each(self, command, guests, fine):
        """What xl ends with says nothing: it is 0 for domains that there are not, too (LAB)."""
        def call(guest):
            done = self._host.run(["xl", command, str(guest.id)])
            if done is None:
                return "xl %s: no answer" % command
            problem = re.search(r"(?i)pausing domain: (.*)", done.err)
            return problem.group(1) if problem and problem.group(1) not in fine else _last(done.err) if done.rc else None
        return at_once(call, guests)

    def pause(self, guests):
        """{uuid: None or why not}"""
        done = self._each("pause", guests, ())
        there = self.domains() if guests else {}
        for guest in guests:
            if done[guest.uuid] is None and not _is(guest, there):
                done[guest.uuid] = GONE
            elif done[guest.uuid] is None and not there[guest.id].paused:
                done[guest.uuid] = "xl pause said nothing, and it runs on"
        return done

    def unpause(self, guests):
        """{uuid: None or why not}; one that has gone or runs already needs none."""
        return self._each("unpause", guests, (_text(errno.EINVAL), _text(errno.ESRCH)))


def _text(number):
    """What an error is called in English, as xl and the C library say it."""
    return {errno.EINVAL: "Invalid argument", errno.ESRCH: "No such process"}.get(number) or os.strerror(number)


def _kind(domain, name, store):
    """(why a domain is never to be paused, or None; whether it is being built); store: its entries, see STORE."""
    base = "local/domain/%d/" % domain.id
    model_of = [path.split("/")[2] for path, value in sorted(store.items()) if path.endswith("/device-model-domid") and value == str(domain.id)]
    model_of += [store[base + "target"]] if base + "target" in store else []
    serves = sorted(set("%s of %s" % tuple(path.split("/")[4:6]) for path in store if path.startswith(base + "backend/")))
    if store.get("tool/xenstored/domid") == str(domain.id):
        return "it is XenStore's domain: without it no toolstack works, xl neither", False
    if model_of:
        return "it is the device model of domain %s" % model_of[0], False
    if serves:
        return "it is a driver domain: it serves %s" % ", ".join(serves), False
    if name is None:
        return "it has no name in XenStore: it is still being built, or no toolstack's", True
    if name.endswith("--incoming"):
        return "it is on its way here from another host", True
    if name.endswith("--migratedaway") or store.get(base + "control/shutdown") == "suspend":
        return "it is being saved or migrated", False
    return ENDED.get(domain.reason), False


def _last(text):
    """The last line of what a tool said."""
    return (text.strip().splitlines() or ["no word"])[-1]


def _is(guest, there):
    """Whether a domain that is there is this guest: numbers are given again in time."""
    return guest.id in there and there[guest.id].uuid == guest.uuid


def _started_by_itself(host, name):
    """The file of a guest that xendomains starts at each boot, or None."""
    said = "\n".join(host.text(path) or "" for path in ("/etc/default/xendomains", "/etc/sysconfig/xendomains"))
    folder = (re.findall(r"(?m)^\s*XENDOMAINS_AUTO=[\"']?(/[^\s\"']+)", said) or ["/etc/xen/auto"])[-1]
    for path in (folder.rstrip("/") + "/" + each for each in host.names(folder)):
        if name in re.findall(r"(?m)^\s*name\s*=\s*[\"']([^\"']*)[\"']", host.text(path) or ""):
            return path
    return None


def _bindings(host):
    """The bindings of the Xen that runs, or None: they are built for one version of Xen and one of Python."""
    folder = "/usr/lib/xen-%s.%s/lib/python" % tuple(host.text("/sys/hypervisor/version/" + part, 64) for part in ("major", "minor"))  # Debian's
    sys.path.insert(0, folder)
    try:
        from xen.lowlevel import xc  # pylint: disable=import-outside-toplevel  # only now is it known where they lie
        with contextlib.suppress(xc.Error):  # not allowed, or no Xen: xl says it in words
            return _Bindings(xc.xc(), xc.Error)
    except ImportError:
        pass
    finally:
        sys.path.remove(folder)
    return None


class Xen(object):
    """The guests of a Xen dom0."""

    name = "xen"

    def __init__(self, host):
        self.host = host
        self._calls, self._room = _bindings(host) or _Xl(host), saved.Room()
        self.tool = self._calls.tool

    # --- which there are ---

    def guests(self):
        """All domains but dom0. GuestError."""
        there = self._calls.domains()
        said = self.host.run(["xenstore-ls", "-f"], 64 << 20)
        store = dict(re.findall(STORE, said.out)) if said and said.rc == 0 else None
        if store is None:
            self.host.warn("xenstore-ls: %s; driver domains and those being built cannot be told from guests, so none is touched"
                           % (said and _last(said.err) or "no answer"))
        found = []
        for number in sorted(set(there) - {0}):
            domain, name = there[number], (store or {}).get("local/domain/%d/name" % number)
            why, built = _kind(domain, name, store) if store is not None else ("XenStore cannot be read, so what it is cannot be told", False)
            state = "building" if built and domain.state == "paused" else domain.state
            found.append(Guest(domain.uuid, number, name, state, why))
        written = self._written(found)
        return [guest._replace(why_not=guest.why_not or written.get(guest.id)) for guest in found]

    def _written(self, guests):
        """{id: why} of those that a program is saving or migrating: paused, they would not answer it, and it would give up."""
        found = {}
        for number in filter(str.isdigit, self.host.names("/proc")):
            place = self.host.locate("/proc/%s/cmdline" % number)
            try:
                if os.stat(place).st_uid != os.geteuid():  # no toolstack: anybody may call a program so
                    continue
                with open(place, "rb") as stream:
                    words = stream.read(65536).decode("utf-8", "replace").split("\0")
            except OSError:  # it has ended
                continue
            program = os.path.basename(words[0])
            if program == "libxl-save-helper" and words[1:2] == ["--save-domain"]:  # then its two files, and the id (XEN libxl_save_callout.c)
                found.update((guest.id, "it is being saved or migrated (process %s)" % number) for guest in guests if words[4:5] == [str(guest.id)])
            elif program == "xl" and {"save", "migrate"} & set(words):
                found.update((guest.id, "xl is saving or migrating it (process %s)" % number) for guest in guests
                             if {guest.name, str(guest.id)} & set(words))
        return found

    # --- on the critical path ---

    def pause(self, guests):
        """{uuid: None or why it failed}; returns when each is paused. GuestError where nothing can be told."""
        there = self._calls.domains()
        ended = dict((guest.uuid, "it is %s" % there[guest.id].state if _is(guest, there) else GONE) for guest in guests
                     if not _is(guest, there) or there[guest.id].state not in ("running", "paused"))
        return dict(self._calls.pause([guest for guest in guests if guest.uuid not in ended]), **ended)

    def resume(self, guests):
        """{uuid: None or why it failed}; only what is there under the same number and UUID and is paused."""
        try:
            there = self._calls.domains()
        except GuestError as exc:
            return dict((guest.uuid, str(exc)) for guest in guests)
        mine = [guest for guest in guests if _is(guest, there) and there[guest.id].paused]
        return dict(dict.fromkeys(guest.uuid for guest in guests), **self._calls.unpause(mine))

    # --- on the disk ---

    def features(self):
        """What the CPUs have that Xen offers to guests since its boot, as ["7b0.4"]; None where that cannot be read."""
        said = self.host.run(["xl", "info"])
        words = re.findall(r"(?m)^hw_caps\s*: ([0-9a-f:]+)$", said.out) if said else []
        return ["%s.%d" % (word, bit) for word, value in zip(WORDS, words[0].split(":")) for bit in range(32) if int(value, 16) >> bit & 1] if words else None

    def saved(self, folder):
        """{uuid: record} of the guests that were saved there."""
        return saved.records(self.host, folder, self.name)

    def unsavable(self, guest, folder):
        """Why a guest cannot be saved into this folder, or None."""
        if guest.state != "running":
            return "it is %s; a guest has to run to get itself ready for being saved" % guest.state
        said = self.host.run(["xl", "list", "-l", str(guest.id)])
        try:
            config = json.loads(said.out)[0]["config"]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return "its configuration cannot be read (xl list -l: %s); xl saves only what it has started" % (said and _last(said.err) or "no answer")
        devices = [word for word in ("pcidevs", "dtdevs", "usbdevs") if config.get(word)]
        if devices:
            return "it has devices of the machine (%s), whose state no image holds; shut it down instead" % ", ".join(devices)
        if config.get("b_info", {}).get("disable_migrate") in (True, "True"):
            return "it is marked as not migratable (nomigrate); shut it down instead"
        if self.features() is None:
            return "xl info does not tell which features the CPUs have, without which it could not be restored safely"
        begins = _started_by_itself(self.host, guest.name)
        if begins:
            return ("%s has xendomains start it from its disks when the host comes up; its image must not be restored after that, which would corrupt them; "
                    "take it out of that folder first" % begins)
        domain = self._calls.domains().get(guest.id)
        return self._room.why_not(folder, domain.memory) if domain else GONE

    def save(self, guest, folder):
        """Write a guest to the disk and end it. GuestError: it runs on, or the text says what else."""
        image, log = saved.place(folder, guest.uuid, ".partial"), saved.place(folder, guest.uuid, ".log")
        saved.write(self.host, self.name, guest, self.features(), folder)
        try:
            os.close(os.open(image, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))  # xl would make it readable for all
            status = self._work(["xl", "save", str(guest.id), image], log)
            there, said = self._calls.domains(), _last(self.host.text(log) or "")
            if _is(guest, there):
                saved.forget(folder, guest.uuid)
                raise GuestError("%s: could not be saved; it is %s (xl save ended with %d: %s)" % (guest.name, there[guest.id].state, status, said))
            with open(image, "rb") as stream:
                whole = stream.read(len(MAGIC)) == MAGIC
                os.fsync(stream.fileno())
            if status or not whole:
                raise GuestError("%s: is gone, and whether %s holds all of it is not known (xl save ended with %d: %s)" % (guest.name, image, status, said))
            os.rename(image, saved.place(folder, guest.uuid, ".image"))
            atomic.sync_folder(folder)
        except OSError as exc:
            raise GuestError("%s: could not be saved into %s: %s" % (guest.name, folder, exc.strerror or exc))

    def unrestorable(self, record, folder):
        """Why a guest that was saved must not be restored now, or None."""
        uid, name = record["uuid"], record["name"]
        twin = next((guest for guest in self.guests() if uid == guest.uuid or name == guest.name), None)
        if twin:
            return "a guest of that name or UUID is here already (%s, number %d): a second one would corrupt its disks" % (twin.state, twin.id)
        if not self.host.exists(saved.place(folder, uid, ".image")):
            ending = next((ending for ending in (".restoring", ".partial") if self.host.exists(saved.place(folder, uid, ending))), None)
            log = saved.place(folder, uid, ".log")
            return {None: "its image is not there any more",
                    ".restoring": "restoring it was begun once, and how that ended is not known; only where it has not run since (see %s) may %s be renamed "
                                  "to .image and tried again: a second time would corrupt its disks" % (log, saved.place(folder, uid, ".restoring")),
                    ".partial": "saving it was begun, and how that ended is not known; only where xl has ended and %s shows no error may %s be renamed "
                                "to .image and restored" % (log, saved.place(folder, uid, ".partial"))}[ending]
        gone = saved.lost(record, self.features())
        if gone is None:
            return "which features the CPUs have, or had when it was saved, is not known: without one of them the guest would crash"
        return gone and ("the CPUs have lost features since it was saved (%s, as word and bit of xl info's hw_caps): the guest would be given them still and "
                         "crash; restore it on a host that has them, or start it anew" % ", ".join(gone)) or None

    def restore(self, record, folder):
        """Have a saved guest run again, once. GuestError."""
        uid, name = record["uuid"], record["name"]
        image, begun, log = [saved.place(folder, uid, ending) for ending in (".image", ".restoring", ".log")]
        try:
            os.rename(image, begun)
            atomic.sync_folder(folder)
            status = self._work(["xl", "restore", begun], log)
            there = [domain for domain in self._calls.domains().values() if domain.uuid == uid]
            if [domain.state for domain in there] == ["running"]:
                saved.forget(folder, uid)
                return
            problem = "%s: could not be restored: xl restore ended with %d (%s)" % (name, status, _last(self.host.text(log) or ""))
            if there or not status:
                raise GuestError("%s, and it is %s; its image is %s, which must not be restored again where the guest has run"
                                 % (problem, there[0].state if there else "gone", begun))
            os.rename(begun, image)
            raise GuestError("%s; its image is kept" % problem)
        except OSError as exc:
            raise GuestError("%s: could not be restored from %s: %s" % (name, folder, exc.strerror or exc))

    def _work(self, argv, log):
        """Exit status of a program that writes or reads an image; it goes on where this process ends, and what it says is in log."""
        program = self.host.which(argv[0])
        if program is None:
            raise GuestError("xl is not installed; the xen-utils that match the running Xen bring it")
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen([program] + argv[1:], stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, cwd="/",  # pylint: disable=ansible-bad-function
                                       env={"PATH": ":".join(PROGRAMS), "LC_ALL": "C"}, start_new_session=True)
        finally:
            os.close(fd)
        return process.wait()
