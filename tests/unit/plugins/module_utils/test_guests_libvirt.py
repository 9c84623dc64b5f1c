# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""libvirt's guests through a stand-in of its Python bindings and canned words of virsh: what is done to whom, and what is not."""
import os
import uuid

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils.guests import libvirt
from ansible_collections.fleet.microcode.plugins.module_utils.guests.guest import Guest, GuestError
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo

RUNNING, PAUSED, ENDS, OFF, CRASHED, SLEEPS = 1, 3, 4, 5, 6, 7


def uid(number):
    return str(uuid.UUID(int=number))


class Domain(object):
    """One guest as the bindings show it."""

    def __init__(self, library, number):
        self.library, self.number, self.name_, self.state_, self.job, self.image, self.persistent = library, number, "g%d" % number, RUNNING, 0, False, True
        self.uuid = uid(number)
        self.orders, self.refuses, self.xml = [], (), "<domain/>"

    def XMLDesc(self, _flags):
        return self.xml

    def UUIDString(self):
        return self.uuid

    def ID(self):
        return self.number if self.state_ != OFF else -1

    def name(self):
        return self.name_

    def state(self):
        return [self.state_, 0]

    def info(self):
        return [self.state_, 1 << 20, 1 << 20, 1, 0]

    def isActive(self):
        return int(self.state_ != OFF)

    def isPersistent(self):
        return int(self.persistent)

    def hasManagedSaveImage(self):
        return int(self.image)

    def jobInfo(self):
        return [self.job, 0]

    def _order(self, word, state):
        self.orders.append(word)
        if word in self.refuses:
            raise self.library.libvirtError("internal error: no " + word)
        self.state_ = state

    def suspend(self):
        self._order("suspend", PAUSED)

    def resume(self):
        self._order("resume", RUNNING)

    def managedSave(self):
        self._order("managedSave", OFF)
        self.image = True

    def create(self):
        self._order("create", RUNNING)
        self.image = False


class Library(object):
    """libvirt's module, its connection, and its guests."""

    VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1

    class libvirtError(Exception):
        """An error of libvirt."""

    def __init__(self):
        self.domains, self.down = [Domain(self, 1), Domain(self, 2)], False

    def registerErrorHandler(self, _handler, _context):
        pass

    def open(self, uri):
        assert uri == "qemu:///system"
        if self.down:
            raise self.libvirtError("Failed to connect socket")
        return self

    def listAllDomains(self, _flags):
        if self.down:
            raise self.libvirtError("Connection reset")
        return [one for one in self.domains if one.state_ != OFF]

    def lookupByUUIDString(self, wanted):
        for one in self.domains:
            if one.uuid == wanted:
                return one
        raise self.libvirtError("Domain not found")

    @property
    def orders(self):
        return dict((one.name_, one.orders) for one in self.domains)


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setattr(libvirt, "_bindings", lambda: found)
    return found


@pytest.fixture
def driver(machine, library, tmp_path, monkeypatch):
    host = machine({"/proc/cpuinfo": cpuinfo(flags="fpu rtm")}, {"nothing": ""})
    inside = host.locate
    monkeypatch.setattr(host, "locate", lambda path: path if path.startswith(str(tmp_path)) else inside(path))
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, 1 << 30, 0, 0, 0, 0, 255)))
    return libvirt.Libvirt(host)


@pytest.mark.parametrize("state, job, expected, why", [
    (RUNNING, 0, "running", None), (2, 0, "running", None), (PAUSED, 0, "paused", None), (ENDS, 0, "dying", None), (CRASHED, 0, "crashed", None),
    (SLEEPS, 0, "paused", "sleeps by itself"), (RUNNING, 1, "running", "saved, migrated or copied"),
])
def test_guests_are_told_by_their_states(driver, library, state, job, expected, why):
    library.domains[1].state_, library.domains[1].job = state, job
    first, second = driver.guests()
    assert tuple(first) == (uid(1), 1, "g1", "running", None)
    assert second[:4] == (uid(2), 2, "g2", expected)
    assert second.why_not is None if why is None else why in second.why_not


def test_guests_that_are_off_are_none(driver, library):
    library.domains[0].state_ = OFF
    assert [guest.name for guest in driver.guests()] == ["g2"]


def test_a_guest_that_libvirt_does_not_tell_about_is_left_alone(driver, library, monkeypatch):
    def fails():
        raise library.libvirtError("cannot acquire state change lock")
    monkeypatch.setattr(library.domains[0], "jobInfo", fails)
    first = driver.guests()[0]
    assert (first.uuid, first.state) == (uid(1), "running") and "state change lock" in first.why_not


def test_guests_are_paused_and_resumed(driver, library):
    found = driver.guests()
    assert driver.pause(found) == {uid(1): None, uid(2): None}
    assert [guest.state for guest in driver.guests()] == ["paused", "paused"]
    assert driver.resume(found) == {uid(1): None, uid(2): None}
    assert driver.resume(found) == {uid(1): None, uid(2): None}
    assert library.orders == {"g1": ["suspend", "resume"], "g2": ["suspend", "resume"]}


def test_what_is_paused_already_or_has_ended_is_not_suspended(driver, library):
    found = driver.guests()
    library.domains[0].state_, library.domains[1].state_ = PAUSED, OFF
    assert driver.pause(found) == {uid(1): "it is paused", uid(2): "it is gone"}
    assert library.orders == {"g1": [], "g2": []}


def test_a_guest_that_was_started_anew_is_not_ours_any_more(driver, library):
    found = driver.guests()
    library.domains[0].number, library.domains[0].state_ = 5, PAUSED
    assert driver.pause(found)[uid(1)] == "it is gone"
    assert driver.resume(found) == {uid(1): None, uid(2): None}
    assert library.orders == {"g1": [], "g2": ["suspend", "resume"]}


def test_what_fails_is_told_and_the_others_are_paused(driver, library):
    library.domains[0].refuses = ("suspend",)
    found = driver.guests()
    assert driver.pause(found) == {uid(1): "libvirt: suspend: internal error: no suspend", uid(2): None}
    library.domains[1].refuses = ("resume",)
    assert driver.resume(found) == {uid(1): None, uid(2): "libvirt: resume: internal error: no resume"}
    library.down = True
    assert "Connection reset" in driver.resume(found)[uid(1)]


def test_suspending_that_does_nothing_is_a_failure(driver, library, monkeypatch):
    monkeypatch.setattr(library.domains[0], "suspend", lambda: None)
    assert "it runs on" in driver.pause(driver.guests())[uid(1)]


def test_a_guest_that_is_gone_needs_no_resume(driver, library):
    found = driver.guests()
    driver.pause(found)
    del library.domains[0]
    assert driver.resume(found) == {uid(1): None, uid(2): None}


def test_a_daemon_that_does_not_answer_is_an_error_in_its_own_words(machine, library):
    library.down = True
    with pytest.raises(GuestError, match="Failed to connect socket"):
        libvirt.Libvirt(machine({}))


# --- saved and restored ---

def test_a_guest_is_saved_and_restored_and_its_record_goes(driver, library, tmp_path):
    folder, guest = str(tmp_path / "saved"), driver.guests()[0]
    assert driver.unsavable(guest, folder) is None
    driver.save(guest, folder)
    record = driver.saved(folder)[uid(1)]
    assert library.domains[0].state_ == OFF and record["features"] == ["fpu", "rtm"]
    assert driver.unrestorable(record, folder) is None and driver.host.warnings == []
    driver.restore(record, folder)
    assert library.domains[0].state_ == RUNNING and os.listdir(folder) == []


def test_flags_that_are_gone_are_a_warning_since_libvirt_decides(driver, tmp_path):
    folder = str(tmp_path / "saved")
    driver.save(driver.guests()[0], folder)
    record = driver.saved(folder)[uid(1)]
    assert driver.unrestorable(dict(record, features=["fpu", "hle", "rtm"]), folder) is None
    assert "(hle)" in driver.host.warnings[0]


@pytest.mark.parametrize("xml, why", [
    ("<devices><hostdev mode='subsystem' type='pci'/></devices>", "devices of the machine"),
    ("<devices><interface type='hostdev'/></devices>", "devices of the machine"),
    ("<launchSecurity type='sev-snp'/>", "its memory is encrypted (launchSecurity sev-snp)"),
    ("<cpu mode='host-passthrough' migratable='off'/>", "cannot be saved"),
    ("<cpu><feature policy='require' name='invtsc'/></cpu>", "cannot be saved"),
    ("<cpu", "cannot be read"),
    ("<devices><interface type='network'/></devices><cpu mode='host-model'><feature policy='disable' name='invtsc'/></cpu>", None),
])
def test_what_is_bound_to_its_machine_is_not_saved(driver, library, tmp_path, xml, why):
    library.domains[0].xml = "<domain>%s</domain>" % xml
    said = driver.unsavable(driver.guests()[0], str(tmp_path / "saved"))
    assert said is None if why is None else why in said


def test_what_cannot_be_saved_or_restored_is_told(driver, library, tmp_path):
    folder = str(tmp_path / "saved")
    library.domains[0].persistent = False
    assert "transient" in driver.unsavable(driver.guests()[0], folder)
    library.domains[1].state_ = PAUSED
    assert "it is paused" in driver.unsavable(driver.guests()[1], folder)
    driver.save(Guest(uid(2), 2, "g2", "running", None), folder)
    record = driver.saved(folder)[uid(2)]
    library.domains[1].state_ = RUNNING
    assert "here already" in driver.unrestorable(record, folder)
    library.domains[1].state_, library.domains[1].image = OFF, False
    assert "from its disks" in driver.unrestorable(record, folder)
    assert driver.saved(folder) == {}  # somebody else has restored or thrown it away
    del library.domains[1]
    assert driver.saved(folder) == {}


@pytest.mark.parametrize("status, image, why", [(OFF, False, "there is no image"), (RUNNING, True, "it is running")])
def test_a_save_that_says_nothing_and_did_nothing_is_a_failure(driver, library, tmp_path, monkeypatch, status, image, why):
    def does():
        library.domains[0].state_, library.domains[0].image = status, image
    monkeypatch.setattr(library.domains[0], "managedSave", does)
    with pytest.raises(GuestError, match=why):
        driver.save(driver.guests()[0], str(tmp_path / "saved"))


# --- virsh ---

VIRSH = "virsh --connect qemu:///system "
ABOUT = ("Id:             {0}\nName:           g{0}\nUUID:           {1}\nState:          {2}\nUsed memory:    65536 KiB\nPersistent:     yes\n"
         "Managed save:   no\n\n")


@pytest.fixture
def virsh(machine, monkeypatch):
    monkeypatch.setattr(libvirt, "_bindings", lambda: None)
    host = machine({}, {VIRSH + "list --uuid": uid(1) + "\n" + uid(2) + "\n\n"})
    for number in (1, 2):
        host.commands[VIRSH + "dominfo -- " + uid(number)] = ABOUT.format(number, uid(number), "running")
        host.commands[VIRSH + "domjobinfo -- " + uid(number)] = "Job type:         None        \n\n"
    return libvirt.Libvirt(host)


def test_virsh_is_asked_by_uuid(virsh):
    assert virsh.tool == "virsh"
    virsh.host.commands[VIRSH + "domjobinfo -- " + uid(2)] = "Job type:         Unbounded\nOperation:        Outgoing migration\n"
    assert [tuple(guest)[:4] for guest in virsh.guests()] == [(uid(1), 1, "g1", "running"), (uid(2), 2, "g2", "running")]
    assert [bool(guest.why_not) for guest in virsh.guests()] == [False, True]


@pytest.mark.parametrize("word, state", [("idle", "running"), ("paused", "paused"), ("in shutdown", "dying"), ("crashed", "crashed")])
def test_virshs_words_for_states(virsh, word, state):
    virsh.host.commands[VIRSH + "dominfo -- " + uid(1)] = ABOUT.format(1, uid(1), word)
    assert virsh.guests()[0].state == state


def test_words_of_virsh_that_are_not_known_are_not_guessed(virsh):
    virsh.host.commands[VIRSH + "dominfo -- " + uid(1)] = ABOUT.format(1, uid(1), "dreaming")
    assert "dreaming" in {guest.uuid: guest for guest in virsh.guests()}[uid(1)].why_not
    virsh.host.commands[VIRSH + "domjobinfo -- " + uid(2)] = (1, "\n", "error: unknown command: 'domjobinfo'\n")
    assert "unknown command" in {guest.uuid: guest for guest in virsh.guests()}[uid(2)].why_not
    virsh.host.commands[VIRSH + "list --uuid"] = (1, "\n", "error: failed to connect to the hypervisor\nerror: no socket\n")
    with pytest.raises(GuestError, match="failed to connect to the hypervisor; no socket"):
        virsh.guests()


def test_virsh_that_fails_is_told(virsh):
    found = virsh.guests()
    virsh.host.commands[VIRSH + "suspend -- " + uid(1)] = (1, "\n", "error: Failed to suspend domain 'g1'\nerror: Timed out\n")
    assert virsh.pause(found[:1]) == {uid(1): "virsh suspend: Failed to suspend domain 'g1'; Timed out"}
    assert virsh.pause(found[1:]) == {uid(2): "virsh suspend: no answer"}
    virsh.host.commands[VIRSH + "suspend -- " + uid(2)] = "Domain 'g2' suspended\n\n"
    assert "it runs on" in virsh.pause(found[1:])[uid(2)]


# --- who manages them ---

@pytest.mark.parametrize("files, why", [
    ({"/etc/pve/storage.cfg": "", "/usr/bin/virsh": ""}, "Proxmox"), ({"/usr/sbin/libvirtd": ""}, "libvirt-clients"), ({"/usr/bin/virsh": ""}, None)])
def test_guests_of_proxmox_and_of_nobody_known_are_not_ours(machine, monkeypatch, files, why):
    monkeypatch.setattr(libvirt, "_bindings", lambda: None)
    said = libvirt.managed_elsewhere(machine(files))
    assert said is None if why is None else why in said
