# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Xen's guests through stand-ins of the bindings and of xl: what is done to whom, and what is not."""
import errno
import json
import os
import uuid

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils.guests import saved, xen
from ansible_collections.fleet.microcode.plugins.module_utils.guests.guest import GuestError

INFO = "nr_cpus                : 2\nhw_caps                : 00000001:00000000:00000000:00000000:00000000:00000811:00000000:00000000\n"
CONFIG = {"c_info": {"name": "g1"}, "b_info": {"max_memkb": 131072, "disable_migrate": "False"}}
SHUTDOWN, CRASHED, DYING = {"shutdown": 1, "shutdown_reason": 0}, {"shutdown": 1, "crashed": 1, "shutdown_reason": 3}, {"dying": 1}


def uid(number):
    return str(uuid.UUID(int=number))


class Calls(object):
    """Xen's own calls; domains: {id: {"pauses", "uuid", and words of domain_getinfo() that are not as in one that runs}}."""

    class Error(Exception):
        """A call failed."""

    def __init__(self, count=3):
        self.domains = dict((number, {"pauses": 0, "uuid": uid(number)}) for number in range(count))
        self.refused = {}  # {id: errno}
        self.before = {}  # {id: what happens right before it is paused or resumed}

    def domain_getinfo(self, first_dom=0, max_doms=1024):
        numbers = sorted(number for number in self.domains if number >= first_dom)[:max_doms]
        if not numbers:
            raise self.Error(errno.ESRCH, "No such process")
        found = []
        for number in numbers:
            words = dict(self.domains[number])
            found.append(dict({"dying": 0, "crashed": 0, "shutdown": 0, "shutdown_reason": 255, "mem_kb": 131072, "domid": number,
                               "paused": int(words.pop("pauses") > 0), "handle": list(uuid.UUID(words.pop("uuid")).bytes)}, **words))
        return found

    def _count(self, number, by):
        self.before.pop(number, lambda: None)()
        problem = self.refused.get(number) or (errno.ESRCH if number not in self.domains else
                                               errno.EINVAL if self.domains[number]["pauses"] + by < 0 or number == 0 else None)
        if problem:
            raise self.Error(problem, os.strerror(problem))
        self.domains[number]["pauses"] += by

    def domain_pause(self, number):
        self._count(number, 1)

    def domain_unpause(self, number):
        self._count(number, -1)

    @property
    def pauses(self):
        return dict((number, one["pauses"]) for number, one in self.domains.items() if number)


def store(more="", names=("g1", "g2")):
    return "".join('/local/domain/%d/name = "%s"\n' % item for item in enumerate(("Domain-0",) + tuple(names))) + more


@pytest.fixture
def calls(monkeypatch):
    found = Calls()
    monkeypatch.setattr(xen, "_bindings", lambda host: xen._Bindings(found, found.Error))
    return found


@pytest.fixture
def driver(machine, calls):
    return xen.Xen(machine({"/proc/1/cmdline": "/sbin/init\0"}, {"xenstore-ls -f": store(), "xl info": INFO}))


def guests(one):
    return dict((guest.id, guest) for guest in one.guests())


# --- which there are ---

def test_guests_are_told_by_number_uuid_name_and_state(driver, calls):
    calls.domains[2]["pauses"] = 1
    assert [tuple(guest) for guest in driver.guests()] == [(uid(1), 1, "g1", "running", None), (uid(2), 2, "g2", "paused", None)]


@pytest.mark.parametrize("words, expected", [(SHUTDOWN, "shutdown"), (CRASHED, "crashed"), (DYING, "dying"), (dict(SHUTDOWN, dying=1), "dying")])
def test_guests_that_have_ended_are_told_so_and_not_paused(driver, calls, words, expected):
    before = driver.guests()
    calls.domains[1].update(words)
    assert guests(driver)[1].state == expected
    assert driver.pause(before) == {uid(1): "it is " + expected, uid(2): None}
    assert calls.pauses == {1: 0, 2: 1}


def test_a_guest_that_its_own_watchdog_ended_is_told_so(driver, calls):
    calls.domains[1].update(shutdown=1, shutdown_reason=4)
    assert "watchdog" in guests(driver)[1].why_not and guests(driver)[1].state == "shutdown"


def test_a_guest_that_waits_for_its_image_is_left_alone(driver, calls):
    calls.domains[1].update(shutdown=1, shutdown_reason=2)
    assert "saved or migrated" in guests(driver)[1].why_not


def test_there_may_be_more_domains_than_one_call_tells(driver, calls):
    calls.domains = Calls(2500).domains
    assert len(driver.guests()) == 2499
    assert len(driver.pause(driver.guests())) == 2499 and set(calls.pauses.values()) == {1}


def test_a_domain_without_a_name_is_being_built(driver, calls):
    driver.host.commands["xenstore-ls -f"] = store(names=["g1"])
    calls.domains[2]["pauses"] = 1
    found = guests(driver)[2]
    assert (found.name, found.state) == (None, "building") and "built" in found.why_not
    calls.domains[2]["pauses"] = 0
    assert (guests(driver)[2].state, "built" in guests(driver)[2].why_not) == ("running", True)


@pytest.mark.parametrize("entry, why", [
    ('/tool/xenstored/domid = "2"', "XenStore's domain"),
    ('/local/domain/2/target = "1"', "device model of domain 1"),
    ('/local/domain/1/image/device-model-domid = "2"', "device model of domain 1"),
    ('/local/domain/2/backend/vbd/1 = ""\n/local/domain/2/backend/vbd/1/51712 = ""\n/local/domain/2/backend/vif/4 = ""', "serves vbd of 1, vif of 4"),
    ('/local/domain/2/name = "g2--incoming"', "on its way here"),
    ('/local/domain/2/name = "g2--migratedaway"', "saved or migrated"),
    ('/local/domain/2/control/shutdown = "suspend"', "saved or migrated"),
])
def test_domains_that_are_no_guests_are_told_by_what_xenstore_has(driver, entry, why):
    driver.host.commands["xenstore-ls -f"] = store(entry + "\n")
    first, second = driver.guests()
    assert first.why_not is None and why in second.why_not


def test_a_guest_that_names_itself_as_something_else_does_not_fool_us(driver):
    driver.host.commands["xenstore-ls -f"] = store('/local/domain/2/data/x = "\\n/local/domain/1/target = \\"2\\""\n'
                                                   '/local/domain/2/device/vbd/1/backend = "/local/domain/1/backend/vbd/2/1"\n')
    assert [guest.why_not for guest in driver.guests()] == [None, None]


@pytest.mark.parametrize("words, busy", [
    (["/usr/lib/xen-4.17/bin/libxl-save-helper", "--save-domain", "11", "12", "2", "0"], [2]),
    (["/usr/lib/xen-4.17/bin/libxl-save-helper", "--restore-domain", "11", "12", "2", "0"], []),
    (["/usr/lib/xen-4.17/bin/xl", "migrate", "g2", "host2"], [2]),
    (["xl", "save", "-c", "1", "/srv/1"], [1]),
    (["xl", "create", "g2.cfg"], []),
    (["vi", "save", "g2"], []),
    ([""], []),
])
def test_guests_that_are_being_written_are_left_alone(machine, calls, words, busy, monkeypatch):
    one = xen.Xen(machine({"/proc/77/cmdline": "\0".join(words) + "\0"}, {"xenstore-ls -f": store()}))
    assert [guest.id for guest in one.guests() if guest.why_not] == busy
    monkeypatch.setattr(os, "geteuid", lambda: 4711)  # somebody else's process
    assert [guest.id for guest in one.guests() if guest.why_not] == []


def test_xenstore_that_is_silent_makes_every_domain_untouchable(machine, calls):
    one = xen.Xen(machine({}, {"xenstore-ls -f": (1, "", "xs_open: Permission denied\n")}))
    assert ["XenStore cannot be read" in guest.why_not for guest in one.guests()] == [True, True]
    assert "Permission denied" in one.host.warnings[0]


# --- pause and resume ---

def test_pausing_and_resuming_call_the_hypervisor_and_nothing_else(driver, calls, monkeypatch):
    found = driver.guests()
    driver.host.ran.clear()
    monkeypatch.setattr(driver.host, "open", None)
    assert driver.pause(found) == {uid(1): None, uid(2): None} and calls.pauses == {1: 1, 2: 1}
    assert driver.resume(found) == {uid(1): None, uid(2): None} and calls.pauses == {1: 0, 2: 0}
    assert driver.host.ran == []


def test_pauses_of_others_outlive_ours(driver, calls):
    found = driver.guests()
    calls.before[1] = lambda: calls.domain_pause(1)  # right before ours
    assert driver.pause(found) == {uid(1): None, uid(2): None}
    calls.domain_pause(2)  # and after it
    driver.resume(found)
    assert calls.pauses == {1: 1, 2: 1}


def test_a_guest_that_cannot_be_paused_is_told_and_the_others_are_paused(driver, calls):
    calls.refused[1] = errno.EPERM
    assert driver.pause(driver.guests()) == {uid(1): "Operation not permitted", uid(2): None}
    assert calls.pauses == {1: 0, 2: 1}


def test_a_number_that_was_given_again_is_no_guest_of_ours(driver, calls):
    found = driver.guests()
    calls.domains[1]["uuid"] = uid(9)
    assert driver.pause(found) == {uid(1): "it is gone", uid(2): None}
    calls.domains[1]["pauses"] = 1
    assert driver.resume(found) == {uid(1): None, uid(2): None}
    assert calls.pauses == {1: 1, 2: 0}


def test_a_uuid_under_another_number_is_no_guest_of_ours(driver, calls):
    found = driver.guests()
    calls.domains[5] = dict(calls.domains.pop(1), pauses=1)  # it was restored, and somebody left it paused
    assert driver.resume(found) == {uid(1): None, uid(2): None}
    assert calls.pauses == {2: 0, 5: 1}


def test_what_runs_or_is_gone_needs_no_resume(driver, calls):
    found = driver.guests()
    driver.pause(found)
    calls.before[1] = lambda: calls.domain_unpause(1)
    calls.before[2] = lambda: calls.domains.pop(2)
    assert driver.resume(found) == {uid(1): None, uid(2): None}


def test_a_guest_that_ended_while_it_was_paused_has_its_pause_taken_back(driver, calls):
    found = driver.guests()
    driver.pause(found)
    calls.domains[1].update(SHUTDOWN)
    driver.resume(found)
    assert calls.pauses == {1: 0, 2: 0}


def test_what_cannot_be_resumed_is_told(driver, calls, monkeypatch):
    found = driver.guests()
    driver.pause(found)
    calls.refused[2] = errno.EPERM
    assert driver.resume(found) == {uid(1): None, uid(2): "Operation not permitted"}

    def fails(*_):
        raise calls.Error(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(calls, "domain_getinfo", fails)
    assert "Operation not permitted" in driver.resume(found)[uid(1)]
    with pytest.raises(GuestError, match="Operation not permitted"):
        driver.guests()


# --- xl ---

HEAD = "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label\n"


def row(number, flags="r-----", reason="-", name="g", one=None):
    return "%-40s %5d %5d %5d     %s  %8.1f %s %8s %16s\n" % (name, number, 128, 1, flags, 15.9, one or uid(number), reason, "-")


class Xl(object):
    """A machine whose xl answers from rows of `xl list -v` and {(command, id): (rc, stderr)}, and does what `does` does."""

    def __init__(self, host, rows, says=None, does=None):
        self.rows, self.says, self.does = rows, says or {}, does or (lambda *_: None)
        self.plain, self.orders = host.run, []
        host.run = self.run

    def run(self, argv, limit=0):
        if argv[:3] == ["xl", "list", "-v"]:
            return xen_result(0, HEAD + "".join(self.rows), "")
        if argv[:2] in (["xl", "pause"], ["xl", "unpause"]):
            self.orders.append((argv[1], int(argv[2])))
            self.does(self, *argv[1:])
            answer = self.says.get((argv[1], int(argv[2])), (0, ""))
            return answer and xen_result(answer[0], "", answer[1])
        return self.plain(argv)


def xen_result(*words):
    from ansible_collections.fleet.microcode.plugins.module_utils.host import Result
    return Result(*words)


@pytest.fixture
def xl(machine, monkeypatch):
    monkeypatch.setattr(xen, "_bindings", lambda host: None)

    def make(rows, says=None, does=None):
        host = machine({}, {"xenstore-ls -f": store()})
        tool = Xl(host, [row(0, name="Domain-0")] + rows, says, does)
        return xen.Xen(host), tool
    return make


def test_xls_list_is_read_whatever_names_are(xl):
    names = ["g1", "g 1  7 128 1 r-----  9.0", "%s 3 4" % uid(9), "(null)", "g5", "g6", "g7"]
    flags = ["r-----", "-b----", "--p---", "---ss-", "---sc-", "--p--d", "------"]
    reasons = ["-", "-", "-", "2", "3", "-", "-"]
    one, _tool = xl([row(number, *words) for number, words in enumerate(zip(flags, reasons, names), 1)])
    assert one.tool == "xl"
    assert [(guest.id, guest.uuid, guest.state) for guest in one.guests()] == [
        (number, uid(number), state) for number, state in enumerate(["running", "running", "building", "shutdown", "crashed", "dying", "running"], 1)]


def paused(tool, *numbers):
    tool.rows = [tool.rows[0]] + [row(number, "--p---") for number in numbers]


def test_xl_is_asked_once_for_each_guest_and_its_own_word_is_not_enough(xl):
    one, tool = xl([row(1), row(2)])
    found = one.guests()
    done = one.pause(found)
    assert sorted(tool.orders) == [("pause", 1), ("pause", 2)]
    assert done == dict.fromkeys([uid(1), uid(2)], "xl pause said nothing, and it runs on")
    tool.does = lambda xl, *_: paused(xl, 1, 2)
    assert one.pause(found) == {uid(1): None, uid(2): None}


def test_xl_that_ends_well_and_complains_has_failed(xl):
    denied = "libxl: error: libxl_domain.c:587:libxl_domain_pause: Domain 1:Pausing domain: Operation not permitted\n"
    gone = "libxl: error: libxl_domain.c:688:domain_unpause_done: Domain 1:Unpausing domain: %s\n"
    one, tool = xl([row(1), row(2)], {("pause", 1): (0, denied), ("pause", 2): None})
    found = one.guests()
    assert one.pause(found) == {uid(1): "Operation not permitted", uid(2): "xl pause: no answer"}
    paused(tool, 1, 2)
    denied = "Operation not permitted"
    for says, why in (((0, gone % "Invalid argument"), None), ((0, gone % "No such process"), None), ((0, gone % denied), denied),
                      ((1, "xl: no memory\n"), "xl: no memory"), ((0, "libxl: info: something\n"), None)):
        tool.says = {("unpause", 1): says}
        assert one.resume(found) == {uid(1): why, uid(2): None}


def test_xl_touches_no_stranger_and_none_that_runs(xl):
    one, tool = xl([row(1), row(2)])
    found = one.guests()
    tool.rows[1] = row(1, "--p---", one=uid(9))
    one.resume(found)
    assert tool.orders == []
    assert one.pause(found[:1]) == {uid(1): "it is gone"} and tool.orders == []


def test_without_bindings_and_xl_it_is_said_what_would_help(xl, machine):
    one, tool = xl([])
    tool.rows = []
    with pytest.raises(GuestError, match="xen-utils"):
        one.guests()


# --- saved and restored ---

@pytest.fixture
def folder(driver, tmp_path, monkeypatch):
    """Where images lie; the machine's own files lie in the same folder of the test."""
    inside = driver.host.locate
    monkeypatch.setattr(driver.host, "locate", lambda path: path if path.startswith(str(tmp_path)) else inside(path))
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, 1 << 30, 0, 0, 0, 0, 255)))
    return str(tmp_path / "saved")


@pytest.mark.parametrize("config, why", [
    (CONFIG, None),
    (dict(CONFIG, pcidevs=[{"dev": 1}]), "devices of the machine"),
    (dict(CONFIG, usbdevs=[{"ctrl": 0}]), "devices of the machine"),
    (dict(CONFIG, b_info={"disable_migrate": "True"}), "not migratable"),
    (None, "cannot be read"),
])
def test_what_cannot_be_saved_is_told_before(driver, folder, config, why):
    if config:
        driver.host.commands["xl list -l 1"] = json.dumps([{"domid": 1, "config": config}])
    said = driver.unsavable(guests(driver)[1], folder)
    assert said is None if why is None else why in said


def test_images_need_room_beside_each_other(driver, folder, monkeypatch):
    driver.host.commands.update(dict(("xl list -l %d" % number, json.dumps([{"domid": number, "config": CONFIG}])) for number in (1, 2)))
    found = guests(driver)
    kib = driver._calls.domains()[1].memory
    free = (kib * 1024 * 3 // 2 + xen.saved.RESERVE) // 4096
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, free, free, free, 0, 0, 0, 0, 255)))
    assert driver.unsavable(found[1], folder) is None
    assert "beside the other guests' %d MiB" % (kib >> 10) in driver.unsavable(found[2], folder)


@pytest.mark.parametrize("path, settings", [("/etc/xen/auto/10-g1", ""), ("/srv/auto/g1.cfg", 'XENDOMAINS_AUTO="/srv/auto"\n')])
def test_a_guest_that_xendomains_starts_is_not_saved(machine, calls, driver, folder, path, settings):
    commands = dict(driver.host.commands, **{"xl list -l 1": json.dumps([{"domid": 1, "config": CONFIG}])})
    for name, begins in (("g1", True), ("g10", False)):
        one = xen.Xen(machine({"/proc/1/cmdline": "/sbin/init\0", "/etc/default/xendomains": settings, path: "# g1\n name = '%s'\n" % name}, commands))
        said = one.unsavable(guests(one)[1], folder)
        assert said and said.startswith(path + " has xendomains start it") if begins else said is None


def test_a_guest_is_not_saved_where_its_features_could_not_be_noted(driver, folder):
    driver.host.commands.update({"xl list -l 1": json.dumps([{"domid": 1, "config": CONFIG}]), "xl info": (1, "", "")})
    assert "features" in driver.unsavable(guests(driver)[1], folder)


def test_the_features_are_those_of_hw_caps(driver):
    assert driver.features() == ["1d.0", "7b0.0", "7b0.4", "7b0.11"]


@pytest.fixture
def image(driver, calls, folder):
    """A guest that was saved."""
    guest = guests(driver)[1]
    saved.write(driver.host, "xen", guest, driver.features(), folder)
    with open(saved.place(folder, uid(1), ".image"), "wb") as stream:
        stream.write(xen.MAGIC)
    del calls.domains[1]
    return driver.saved(folder)[uid(1)]


def endings(folder):
    return sorted(name[36:] for name in os.listdir(folder))


@pytest.mark.parametrize("status, there, left, why", [
    (0, {}, [], None),
    (1, None, [".image", ".json"], "its image is kept"),
    (0, None, [".json", ".restoring"], "must not be restored again"),
    (0, CRASHED, [".json", ".restoring"], "it is crashed"),
    (1, {}, [], None),
])
def test_an_image_is_used_once_whatever_xl_ends_with(driver, calls, folder, image, monkeypatch, status, there, left, why):
    def work(argv, log):
        assert argv == ["xl", "restore", saved.place(folder, uid(1), ".restoring")] and os.path.exists(argv[2])
        if there is not None:
            calls.domains[7] = dict(there, pauses=0, uuid=uid(1))
        return status
    monkeypatch.setattr(driver, "_work", work)
    if why:
        with pytest.raises(GuestError, match=why):
            driver.restore(image, folder)
    else:
        driver.restore(image, folder)
    assert endings(folder) == left
    assert (driver.unrestorable(image, folder) is None) == (left == [".image", ".json"])


def test_a_save_whose_guest_is_there_still_leaves_no_image(driver, calls, folder, monkeypatch):
    monkeypatch.setattr(driver, "_work", lambda argv, log: 0)
    with pytest.raises(GuestError, match="it is running"):
        driver.save(guests(driver)[1], folder)
    assert endings(folder) == []


def test_a_save_whose_image_is_none_is_not_forgotten(driver, calls, folder, monkeypatch):
    monkeypatch.setattr(driver, "_work", lambda argv, log: calls.domains.pop(1) and 0)
    with pytest.raises(GuestError, match="not known"):
        driver.save(guests(driver)[1], folder)
    assert endings(folder) == [".json", ".partial"]
    assert "how that ended is not known" in driver.unrestorable(driver.saved(folder)[uid(1)], folder)


def test_an_image_is_stranded_where_the_cpus_have_lost_a_feature(driver, folder, image):
    assert driver.unrestorable(image, folder) is None
    driver.host.commands["xl info"] = INFO.replace("00000811", "00000001")
    assert "7b0.11, 7b0.4" in driver.unrestorable(image, folder)
    driver.host.commands["xl info"] = (1, "", "")
    assert "not known" in driver.unrestorable(image, folder)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"schema": 1}', "\0"])
def test_a_damaged_record_is_left_alone(driver, folder, image, damage):
    with open(saved.place(folder, uid(1), ".json"), "w") as stream:
        stream.write(damage)
    assert driver.saved(folder) == {} and "left alone" in driver.host.warnings[-1]


# --- who manages them ---

@pytest.mark.parametrize("path", ["/etc/xensource-inventory", "/var/xapi/xapi", "/var/lib/xcp/xapi"])
def test_xapis_guests_are_not_ours(machine, path):
    assert path in xen.managed_elsewhere(machine({path: ""}))


def test_xls_guests_are(machine):
    assert xen.managed_elsewhere(machine({})) is None
