# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests of KVM, through libvirt's Python bindings, else through virsh.

libvirt does not count: suspending what is suspended is no error and one resume ends it all (LAB). So only what runs is suspended.
"""
import contextlib
import copy
import re
from collections import namedtuple
from xml.etree import ElementTree

from . import saved
from .. import cpu
from .guest import Guest, GuestError
from .many import at_once

Domain = namedtuple("Domain", "uuid id name state job persistent image memory")  # job: text of one that runs, or None; image: libvirt keeps one; memory: KiB
URI = "qemu:///system"
STATES = ("building", "running", "running", "paused", "dying", "shutdown", "crashed", "paused")  # of virDomainState; the last sleeps by itself
WORDS = {"running": 1, "idle": 2, "paused": 3, "in shutdown": 4, "shut off": 5, "crashed": 6, "pmsuspended": 7}  # as virsh has them
IMAGES = "/var/lib/libvirt/qemu/save"
SLEEPS = 7
LONG = 3600  # seconds for an image to be written or read
GONE = "it is gone"


def managed_elsewhere(host):
    """Why this host's guests are not ours to pause, or None."""
    if host.exists("/etc/pve"):
        return ("/etc/pve shows that Proxmox VE manages this host: its guests are not libvirt's, and its cluster may restart what it finds paused; use "
                "qm suspend, or migrate them away")
    if _bindings() is None and host.which("virsh") is None:
        return ("guests run here, or may, but there are neither libvirt's Python bindings nor virsh: who manages them is not known, so none can be paused; "
                "install libvirt-clients where it is libvirt")
    return None


def _bindings():
    """libvirt's module, or None where it is not there for this Python."""
    try:
        import libvirt  # pylint: disable=import-outside-toplevel,import-self  # the one of the system, not this file
        return libvirt
    except ImportError:
        return None


def _bound(text):
    """Why a guest of this XML cannot leave the machine that it runs on, or its processor's keys, or None (libvirt: formatdomain)."""
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as exc:
        return "its configuration cannot be read (%s), so whether it can be saved is not known" % exc
    if tree.find("devices/hostdev") is not None or tree.find("devices/interface[@type='hostdev']") is not None:
        return "it has devices of the machine (hostdev), whose state no image holds; shut it down instead"
    if tree.find("launchSecurity") is not None:
        return "its memory is encrypted (launchSecurity %s), and no image holds the key; shut it down instead" % tree.find("launchSecurity").get("type")
    if tree.find("cpu[@migratable='off']") is not None or tree.find("cpu/feature[@name='invtsc'][@policy='require']") is not None:
        return "its processor is one that cannot be saved (migratable='off', or invtsc is required); shut it down instead"
    return None


class _Bindings(object):
    """One connection to the daemon; what goes wrong is raised as GuestError."""

    tool = "bindings"

    def __init__(self, library):
        self._library = library
        library.registerErrorHandler(lambda *_: None, None)  # it would print to standard error
        with self._told("no connection to %s" % URI):
            self._connection = library.open(URI)

    @contextlib.contextmanager
    def _told(self, what):
        try:
            yield
        except self._library.libvirtError as exc:
            raise GuestError("%s: %s" % (what, exc))

    def running(self):
        """[UUID]"""
        with self._told("libvirt does not list its guests"):
            return [one.UUIDString() for one in self._connection.listAllDomains(self._library.VIR_CONNECT_LIST_DOMAINS_ACTIVE)]

    def domain(self, uid):
        """Domain, on or off."""
        with self._told("libvirt does not tell about %s" % uid):
            one = self._connection.lookupByUUIDString(uid)
            number, active = one.state()[0], one.isActive()
            return Domain(uid, one.ID() if active else None, one.name(), number, "job" if active and one.jobInfo()[0] else None, bool(one.isPersistent()),
                          bool(one.isPersistent() and one.hasManagedSaveImage()), one.info()[2])

    def state(self, uid):
        """(number of the state, id)"""
        with self._told("libvirt does not tell about %s" % uid):
            one = self._connection.lookupByUUIDString(uid)
            return one.state()[0], one.ID()

    def described(self, uid):
        """A guest's XML as it runs."""
        with self._told("libvirt does not tell about %s" % uid):
            return self._connection.lookupByUUIDString(uid).XMLDesc(0)

    def order(self, word, uid):
        """Have a guest do as this subcommand of virsh says."""
        with self._told("libvirt: %s" % word):
            one = self._connection.lookupByUUIDString(uid)
            {"suspend": one.suspend, "resume": one.resume, "managedsave": one.managedSave, "start": one.create}[word]()


class _Virsh(object):
    """virsh, one process for each question and each order."""

    tool = "virsh"

    def __init__(self, host):
        self._host = host

    def _ask(self, *words, host=None):
        done = (host or self._host).run(["virsh", "--connect", URI] + list(words))
        if done is None or done.rc:
            said = [line.replace("error: ", "") for line in done.err.strip().splitlines()] if done else ["no answer"]
            raise GuestError("virsh %s: %s" % (words[0], "; ".join(said)))
        return done.out

    def running(self):
        """[UUID]"""
        return self._ask("list", "--uuid").split()

    def domain(self, uid):
        """Domain, on or off."""
        said = dict(re.findall(r"(?m)^([^:\n]+): +(.*?) *$", self._ask("dominfo", "--", uid)))
        number = WORDS.get(said.get("State"))
        if number is None or not re.match(r"\d+ KiB$", said.get("Used memory", "")):
            raise GuestError("virsh dominfo: the state of %s is not known (%s)" % (uid, said.get("State")))
        on = said["Id"].isdigit()
        job = re.search(r"(?m)^Job type: +(\S+)", self._ask("domjobinfo", "--", uid)) if on else None
        return Domain(uid, int(said["Id"]) if on else None, said["Name"], number, job.group(1) if job and job.group(1) != "None" else None,
                      said.get("Persistent") == "yes", said.get("Managed save") == "yes", int(said["Used memory"].split()[0]))

    def state(self, uid):
        """(number of the state, id)"""
        said = dict(re.findall(r"(?m)^(Id|State): +(.*?) *$", self._ask("dominfo", "--", uid)))
        return WORDS.get(said.get("State")), int(said["Id"]) if said.get("Id", "").isdigit() else None

    def described(self, uid):
        """A guest's XML as it runs."""
        return self._ask("dumpxml", "--", uid)

    def order(self, word, uid):
        """Have a guest do as this subcommand says; where virsh is stopped because it takes too long, the daemon goes on."""
        host = copy.copy(self._host)
        host.timeout = LONG if word in ("managedsave", "start") else host.timeout
        self._ask(word, "--", uid, host=host)


class Libvirt(object):
    """The guests of a host whose KVM libvirt drives."""

    name = "libvirt"

    def __init__(self, host):
        self.host = host
        library = _bindings()
        self._calls, self._room = _Bindings(library) if library else _Virsh(host), saved.Room()
        self.tool = self._calls.tool

    # --- which there are ---

    def guests(self):
        """All guests that are on. GuestError."""
        found = at_once(self._guest, [Guest(uid, None, None, None, None) for uid in self._calls.running()])
        return sorted((guest for guest in found.values() if guest), key=lambda guest: guest.id or 0)

    def _guest(self, guest):
        try:
            domain = self._calls.domain(guest.uuid)
        except GuestError as exc:
            return guest._replace(state="running", why_not=str(exc)) if guest.uuid in self._calls.running() else None
        if domain.id is None:  # it has ended since
            return None
        why = ("libvirt works on it (%s job): it is being saved, migrated or copied" % domain.job if domain.job else
               "it sleeps by itself" if domain.state == SLEEPS else None)
        return Guest(guest.uuid, domain.id, domain.name, STATES[domain.state], why)

    # --- on the critical path ---

    def pause(self, guests):
        """{uuid: None or why it failed}; returns when each is paused. One that is paused already is not ours, and has failed."""
        return at_once(self._pause, guests)

    def _pause(self, guest):
        try:
            number, now = self._calls.state(guest.uuid)
            if now != guest.id:
                return GONE
            if STATES[number] != "running":
                return "it is %s" % STATES[number]
            self._calls.order("suspend", guest.uuid)
            return None if STATES[self._calls.state(guest.uuid)[0]] == "paused" else "libvirt said nothing, and it runs on"
        except GuestError as exc:
            return str(exc)

    def resume(self, guests):
        """{uuid: None or why it failed}; only what is there under the same id and UUID and is paused."""
        try:
            there = self._calls.running()
        except GuestError as exc:
            return dict((guest.uuid, str(exc)) for guest in guests)
        return dict(dict.fromkeys(guest.uuid for guest in guests), **at_once(self._resume, [guest for guest in guests if guest.uuid in there]))

    def _resume(self, guest):
        def paused():
            number, now = self._calls.state(guest.uuid)
            return now == guest.id and STATES[number] == "paused"
        try:
            if paused():
                self._calls.order("resume", guest.uuid)
        except GuestError as exc:
            with contextlib.suppress(GuestError):
                return str(exc) if paused() else None  # somebody else was faster
            return str(exc)
        return None

    # --- on the disk ---

    def features(self):
        """The flags of the CPUs; None where they cannot be read."""
        flags = cpu.read(self.host)[2]
        return sorted(flags) if flags else None

    def saved(self, folder):
        """{uuid: record} of the guests that were saved here and of which libvirt keeps the image still."""
        return dict((uid, record) for uid, record in saved.records(self.host, folder, self.name).items() if self._image(uid))

    def _image(self, uid):
        with contextlib.suppress(GuestError):  # it was undefined
            return self._calls.domain(uid).image
        return False

    def unsavable(self, guest, _folder):
        """Why a guest cannot be saved, or None."""
        if guest.state != "running":
            return "it is %s; only a guest that runs is saved" % guest.state
        domain = self._calls.domain(guest.uuid)
        if not domain.persistent:
            return "it is transient: libvirt forgets it as soon as it does not run; define it first (virsh define)"
        return _bound(self._calls.described(guest.uuid)) or self._room.why_not(IMAGES, domain.memory)

    def save(self, guest, folder):
        """Have libvirt write a guest to the disk and end it. GuestError: it runs on, or the text says what else."""
        saved.write(self.host, self.name, guest, self.features(), folder)
        self._calls.order("managedsave", guest.uuid)
        domain = self._calls.domain(guest.uuid)
        if domain.id is not None or not domain.image:
            raise GuestError("%s: libvirt said nothing, but it is %s and there is %s image of it"
                             % (guest.name, STATES[domain.state], "an" if domain.image else "no"))

    def unrestorable(self, record, _folder):
        """Why a guest that was saved must not be restored now, or None; libvirt itself uses an image once, and refuses one that the CPUs do not fit."""
        domain = self._calls.domain(record["uuid"])
        if domain.id is not None:
            return "it is here already (%s)" % STATES[domain.state]
        if not domain.image:
            return "libvirt keeps no image of it any more: starting it now would be a start from its disks"
        gone = saved.lost(record, self.features())
        if gone:
            self.host.warn("%s: the CPUs have lost features since it was saved (%s); where the guest was given them, libvirt refuses to restore it, or it "
                           "crashes" % (record["name"], " ".join(gone)))
        return None

    def restore(self, record, folder):
        """Have a saved guest run again, once. GuestError."""
        self._calls.order("start", record["uuid"])
        domain = self._calls.domain(record["uuid"])
        if STATES[domain.state] != "running":
            raise GuestError("%s: libvirt said nothing, but it is %s" % (record["name"], STATES[domain.state]))
        saved.forget(folder, record["uuid"])
