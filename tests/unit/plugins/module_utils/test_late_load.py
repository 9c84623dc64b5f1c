# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a late load refuses, what it holds for proof, and when it stops. The load itself is a stand-in's; tests/lab and tests/contract have real ones."""
import contextlib
import json
import os
import signal
import types

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import facts, journal, late
from ansible_collections.fleet.microcode.plugins.module_utils.guests.guest import Guest, GuestError
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.module_utils.late_load import load
from ansible_collections.fleet.microcode.plugins.module_utils.update import hex8
from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_intel
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo

OLD, FROM, NEW = 0x02000050, 0x02006b06, 0x02007006  # the second is the minimum that the file declares
WANTED = hex8(NEW)
FILE = "/lib/firmware/intel-ucode/06-55-04"
CPU = "/sys/devices/system/cpu/"
UPDATE = made_intel.update(revision=NEW, min_revision=FROM)
AMD = made_amd.container([(0x00830f10, 0x8310)], [made_amd.patch(0x0830107c, 0x8310)])
AMD_FILE = "/lib/firmware/amd-ucode/microcode_amd_fam17h.bin"
GUESTS = [Guest("a", 1, "g1", "running", None), Guest("b", 2, "g2", "running", None), Guest("c", 3, "g3", "paused", None),
          Guest("d", 4, "net", "running", "driver domain")]


class Way(object):
    """What loads here: does is called for it, says is its answer, text is the log that it keeps."""

    def __init__(self, done):
        self.done, self.does, self.says, self.text = done, None, None, "one\ntwo\n"

    def load(self, _host, path, seconds):
        self.done.append(("load", path, seconds))
        if self.does:
            self.does()
        return self.says

    def log(self, _host):
        return self.text


class Lab(object):
    """A host of a few files whose CPUs run what runs() says, and everything that was done to it, in order."""

    def __init__(self, machine, monkeypatch, tmp_path):
        self.make, self.monkeypatch, self.done, self.host = machine, monkeypatch, [], None
        self.way, self.held, self.leases, self.expired = Way(self.done), {}, [], False
        folder = str(tmp_path / "journal")
        read = journal._read  # pylint: disable=protected-access
        monkeypatch.setattr(journal, "_read", lambda _host: read(Host()))  # what is written is not below the root of a host of a few files
        for name, value in (("FOLDER", folder), ("RECORD", folder + "/run.json"), ("LOCK", folder + "/lock")):
            monkeypatch.setattr(journal, name, value)
        monkeypatch.setattr(load, "WAYS", {"sysfs": self.way, "xen-ucode": self.way})
        monkeypatch.setattr(load.guest, "driver", lambda _host, below: self if below["role"] == "host" else None)
        monkeypatch.setattr(load.lease, "hold", self._hold)
        monkeypatch.setattr(load.lease, "open_leases", lambda _host: self.leases)
        monkeypatch.setattr(load.lease, "release", lambda _host, _driver: self.done.append("released") or dict((each, None) for each in self.leases))
        monkeypatch.setattr(load.lease, "sweep", lambda: None)

    def guests(self):
        return GUESTS

    @contextlib.contextmanager
    def _hold(self, _host, _driver, guests, seconds):
        self.done.append(("pause", [each.name for each in guests], seconds))
        if self.held.get("error"):
            raise GuestError(self.held["error"])
        held = types.SimpleNamespace(seconds={}, expired=self.expired, problems=self.held.get("problems", {}))
        try:
            self.held.get("does", len)(())
            yield held
        finally:
            held.seconds.update((each.uuid, 0.25) for each in guests)
            self.done.append("resume")

    def linux(self, *runs, **more):
        """A host without a hypervisor, with its late loading; more: files besides."""
        files = {late.RELOAD: "", "/proc/sys/kernel/osrelease": "6.12.1\n", "/proc/sys/kernel/random/boot_id": "b\n", "/proc/sys/kernel/tainted": "0\n",
                 FILE: UPDATE, CPU + "online": "0-%d\n" % (len(runs) - 1), CPU + "present": "0-%d\n" % (len(runs) - 1)}
        files.update(more.get("files", {}))
        self.host = self.make(files, more.get("commands"))
        self.runs(*runs, **more.get("cpu", {}))
        return self

    def amd(self, *runs, **more):
        return self.linux(*runs, files=dict({AMD_FILE: AMD}, **more.get("files", {})), commands=more.get("commands"), cpu={
            "vendor": "AuthenticAMD", "family": 23, "model": 49, "stepping": 0, "flags": "fpu"})

    def xen(self, *runs, **more):
        """dom0 on so many physical CPUs with so many threads a core; the hypervisor's log names what its CPUs run, see says()."""
        base = "/sys/hypervisor/"
        files = {base + "type": "xen", base + "version/major": "4", base + "version/minor": "17", base + "version/extra": ".7",
                 "/proc/xen/capabilities": "control_d\n", "/usr/sbin/xen-ucode": ""}
        info = "nr_cpus : %d\nthreads_per_core : %d\nxen_version : 4.17.7\nxen_commandline : ucode=scan\n" % (more["physical"], more["threads"])
        commands = {"xl info": info, "xen-livepatch list": "", "/usr/sbin/xen-ucode": (2, "", "Usage: xen-ucode <microcode blob>\n"), "xl list": (1, "", "")}
        (self.amd if more.get("amd") else self.linux)(*runs, files=files, commands=commands)
        self.says()
        return self

    def says(self, **updated):
        """Have Xen's log say what CPUs took, such as cpu2=0x2007006."""
        self.host.commands["xl dmesg"] = "(XEN) Xen version 4.17.7\n" + "".join(
            "(XEN) microcode: CPU%s updated from revision 0x1 to 0x%x, date = 2023-03-06\n" % (name[3:], to) for name, to in sorted(updated.items()))

    def write(self, path, text):
        with open(self.host.locate(path), "w", encoding="utf-8") as stream:
            stream.write(text)

    def runs(self, *revisions, **cpu):
        self.write("/proc/cpuinfo", cpuinfo(count=len(revisions), revision=[hex(each) for each in revisions], **cpu))

    def takes(self, *revisions, **cpu):
        """A load after which the CPUs run these."""
        self.way.does = lambda: self.runs(*revisions, **cpu)
        return self

    def __call__(self, revision=WANTED, **options):
        return load.run(self.host, revision, **options)

    def refused(self, revision=WANTED, **options):
        """The words in which nothing was done."""
        with pytest.raises(load.Refused) as caught:
            self(revision, **options)
        assert self.done == [] and not os.path.exists(journal.FOLDER)
        return str(caught.value)

    def record(self):
        with open(journal.RECORD, encoding="utf-8") as stream:
            found = json.load(stream)
        return [each["event"] for each in found["events"]], found["outcome"]


@pytest.fixture
def lab(machine, monkeypatch, tmp_path):
    return Lab(machine, monkeypatch, tmp_path)


# --- what is refused ---

@pytest.mark.parametrize("files, words", [
    ({"/sys/hypervisor/type": "xen", "/proc/xen/capabilities": ""}, "this is a guest (xen)"),
    ({FILE: made_intel.update(revision=NEW)}, "declares no revision from which on 0x02007006 may be loaded late"),
    ({FILE: made_intel.update(revision=NEW, min_revision=FROM + 1)}, "may be loaded late from 0x02006b07 on, and 0x02006b06 runs; load it early"),
    ({FILE: made_intel.update(revision=NEW + 1, min_revision=FROM)}, "holds revision 0x02007007 for this CPU, not 0x02007006"),
    ({FILE: made_intel.update(signature=0x806f8, revision=NEW, min_revision=FROM)}, "holds nothing for this CPU"),
    ({FILE: UPDATE[:100]}, "only a file that is whole is loaded"),
    ({FILE: UPDATE[:-4] + b"\1\1\1\1"}, "only a file that is whole is loaded"),
    ({FILE: ""}, "empty"),
    ({CPU + "present": "0-3\n"}, "CPUs 2, 3 are offline"),
    ({CPU + "present": "?"}, "CPUs of unknown number are offline"),
    ({"/usr/sbin/xen-ucode": "", "/proc/xen/capabilities": "control_d", "/sys/hypervisor/version/major": "4", "/sys/hypervisor/version/minor": "4"},
     "came with 4.13"),
])
def test_on_linux_what_the_host_or_the_file_rules_out(lab, files, words):
    assert words in lab.linux(FROM, FROM, files=files).refused()


def test_a_kernel_without_the_reload_file(lab):
    lab.linux(FROM, FROM)
    os.unlink(lab.host.locate(late.RELOAD))
    assert "has no reload file" in lab.refused() or "no microcode folder" in lab.refused()


def test_no_file_for_this_cpu(lab):
    lab.linux(FROM, FROM)
    os.unlink(lab.host.locate(FILE))
    assert "no file for this CPU (intel-ucode/06-55-04)" in lab.refused()
    lab.write("/lib/firmware/intel-ucode/other", "x")
    assert "reads none for this CPU, not /lib/firmware/intel-ucode/other" in lab.refused(path="/lib/firmware/intel-ucode/other")


def test_debians_files_for_early_loading_alone(lab):
    lab.xen(FROM, FROM, physical=2, threads=1)
    os.rename(lab.host.locate(FILE), lab.host.locate(FILE) + ".initramfs")
    assert "is for early loading alone" in lab.refused(path=FILE + ".initramfs")


def test_xen_unpacks_nothing(lab):
    lab.xen(FROM, FROM, physical=2, threads=1)
    assert "is packed, and xen-ucode hands Xen the file as it lies" in lab.refused(path=FILE + ".zst")


@pytest.mark.parametrize("runs, words", [
    ((NEW + 1, NEW + 1), "0x02007007 runs, which is newer than 0x02007006"), ((FROM, NEW + 1), "0x02007007 runs, which is newer"),
    ((OLD, FROM), "may be loaded late from 0x02006b06 on, and 0x02000050 runs"),
])
def test_what_runs_rules_it_out(lab, runs, words):
    assert words in lab.linux(*runs).refused()


def test_a_revision_that_no_cpu_shows(lab):
    lab.linux(FROM, FROM)
    lab.write("/proc/cpuinfo", cpuinfo(count=2, revision=["", ""]))
    assert "which revision runs is not known" in lab.refused()


@pytest.mark.parametrize("revision", ["new", "", "0x", "0200-7006"])
def test_a_revision_that_is_no_number(lab, revision):
    assert "is no number" in lab.linux(FROM, FROM).refused(revision)


def test_a_file_with_another_digest(lab):
    assert "not the file that was decided on" in lab.linux(FROM, FROM).refused(digest="0" * 64)


def test_linux_is_not_given_a_file_that_it_would_not_read(lab):
    lab.linux(FROM, FROM, files={"/srv/06-55-04": UPDATE})
    assert "reads /lib/firmware/intel-ucode/06-55-04, not /srv/06-55-04" in lab.refused(path="/srv/06-55-04")
    os.unlink(lab.host.locate("/srv/06-55-04"))
    os.link(lab.host.locate(FILE), lab.host.locate("/srv/06-55-04"))  # the same file by another name
    assert lab.takes(NEW, NEW)(path="/srv/06-55-04")["failed"] is False


def test_the_kernel_takes_a_plain_file_before_a_packed_one_and_updates_before_all(lab):
    lzma = pytest.importorskip("lzma")
    packed = lzma.compress(made_intel.update(revision=NEW + 1, min_revision=FROM))
    lab.linux(FROM, FROM, files={"/lib/firmware/updates/intel-ucode/06-55-04.xz": packed}).takes(NEW, NEW)
    assert lab(check=True)["file"] == FILE
    lab.linux(FROM, FROM, files={"/lib/firmware/updates/intel-ucode/06-55-04": made_intel.update(revision=NEW + 1, min_revision=FROM)})
    assert "holds revision 0x02007007" in lab.refused()


@pytest.mark.parametrize("said, words", [("Y", "insists on a minimum revision"), (None, "may insist on a minimum revision")])
def test_amd_on_a_kernel_that_asks_for_a_minimum(lab, said, words):
    files = {"/sys/module/microcode/parameters/force_minrev": said} if said else {}
    assert words in lab.amd(0x08301025, 0x08301025, files=files).refused("0x0830107c")


# --- what is proof ---

def test_every_cpu_runs_it(lab):
    lab.linux(FROM, FROM, cpu={"flags": "fpu rtm"})

    def does():
        lab.runs(NEW, NEW, flags="fpu md_clear")
        lab.write("/proc/sys/kernel/tainted", "4\n")
        lab.way.text += "three\n"
    lab.way.does = does
    done = lab(timeout=7)
    assert lab.done == [("pause", [], 5), ("load", FILE, 7), "resume"]
    assert (done["changed"], done["failed"], done["interface"], done["file"], done["unread"]) == (True, False, "sysfs", FILE, 0)
    assert (done["before"], done["after"]) == ({hex8(FROM): [0, 1]}, {WANTED: [0, 1]}) and done["msg"] == "every CPU runs 0x02007006"
    assert (done["flags"], done["tainted"], done["log"]) == ({"gained": ["md_clear"], "lost": ["rtm"]}, {"before": 0, "after": 4}, ["three"])
    assert lab.record() == (["begun", "loading", "loaded", "read back"], "done")


def test_it_runs_already_and_nothing_is_done(lab):
    lab.linux(NEW, NEW)
    os.unlink(lab.host.locate(FILE))  # which is not even asked for
    done = lab(pause="pause")
    assert (done["changed"], done["failed"], lab.done) == (False, False, []) and "runs 0x02007006 already" in done["msg"]
    assert not os.path.exists(journal.FOLDER)


@pytest.mark.parametrize("says", ["No such file or directory", None])
def test_what_the_way_says_is_no_proof(lab, says):
    lab.linux(FROM, FROM)
    lab.way.says = says
    done = lab()
    assert (done["changed"], done["failed"], done["said"]) == (False, True, says) and "0x02007006 was not taken" in done["msg"]
    assert (says or "") in done["msg"] and lab.record()[1] == done["msg"]
    done = lab.takes(NEW, NEW)()
    assert (done["changed"], done["failed"]) == (True, False)


def test_one_cpu_alone_took_it(lab):
    done = lab.linux(FROM, FROM).takes(NEW, FROM)()
    assert (done["changed"], done["failed"], done["after"]) == (True, True, {WANTED: [0], hex8(FROM): [1]})
    assert "CPUs run different revisions now: 0x02006b06 on CPUs 1, 0x02007006 on CPUs 0" in done["msg"]


def test_cpus_that_differ_are_mended(lab):
    done = lab.linux(NEW, FROM).takes(NEW, NEW)()
    assert (done["changed"], done["failed"]) == (True, False)


def test_a_cpu_that_shows_nothing_any_more_is_no_success(lab):
    lab.linux(FROM, FROM)
    lab.way.does = lambda: lab.write("/proc/cpuinfo", cpuinfo(count=2, revision=[hex(NEW), ""]))
    done = lab()
    assert (done["failed"], done["unread"]) == (True, 1) and "may have worked, but that is not proved: of 1 CPUs" in done["msg"]


def test_pre_production_revisions_are_negative_and_older(lab):
    before = 0xff006b06
    lab.linux(before, before, files={FILE: made_intel.update(revision=NEW, min_revision=1)})
    assert "may be loaded late from 0x00000001 on, and 0xff006b06 runs" in lab.refused()
    assert "0x02006b06 runs, which is newer than 0xff006b06" in lab.linux(FROM, FROM, files={
        FILE: made_intel.update(revision=before - (1 << 32), min_revision=1)}).refused(hex8(before))


XEN = [  # threads a core, AMD, CPUs of which Xen's log says that they took it -> what is known of the machine's four
    (1, False, (0, 1, 2, 3), True), (1, False, (0, 1), None), (2, False, (0, 2), True), (2, False, (0,), None),
    (2, True, (0, 1, 2, 3), True), (2, True, (0, 1), None),  # AMD's threads are each told of, so that silence is no word on them
]


@pytest.mark.parametrize("threads, amd, told, proved", XEN)
def test_on_xen_threads_share_what_their_core_took_where_the_log_tells_of_the_first_alone(lab, threads, amd, told, proved):
    start, to = (0x08301025, 0x0830107c) if amd else (FROM, NEW)
    lab.xen(start, start, amd=amd, physical=4, threads=threads)
    lab.way.does = lambda: lab.says(**dict(("cpu%d" % each, to) for each in told))
    done = lab(hex8(to))
    assert done["failed"] is (proved is None) and done["after"] == {hex8(to): list(told)} and done["flags"] is None
    assert ("not proved" in done["msg"]) is (proved is None)


def test_on_xen_a_log_that_cannot_be_read_any_more_proves_nothing(lab):
    lab.xen(FROM, FROM, physical=2, threads=1)
    lab.way.does = lambda: lab.host.commands.pop("xl dmesg")
    done = lab()
    assert done["failed"] is True and "may have worked, but that is not proved" in done["msg"]
    lab.says(cpu0=NEW, cpu1=NEW)
    assert lab()["changed"] is False  # a second run reaches the truth


def test_on_xen_any_file_is_taken(lab):
    lab.xen(FROM, FROM, physical=2, threads=1)
    lab.way.does = lambda: lab.says(cpu0=NEW, cpu1=NEW)
    with open(lab.host.locate(FILE) + ".new", "wb") as stream:
        stream.write(UPDATE)
    assert lab(path=FILE + ".new")["file"] == FILE + ".new"


# --- what is told ---

def test_what_was_logged_since(lab):
    lab.linux(FROM, FROM)

    def wraps():
        lab.way.text = "".join("line %d\n" % number for number in range(99))
    lab.way.does = wraps
    assert lab()["log"] == ["line %d" % number for number in range(59, 99)]  # the ring has lost what was there
    lab.way.does, lab.way.text = lambda: setattr(lab.way, "text", "new\n"), ""
    assert lab()["log"] == ["new"]
    lab.way.does, lab.way.text = lambda: setattr(lab.way, "text", "perhaps old\n"), None
    assert lab()["log"] == []  # what was there before is not known


@pytest.mark.parametrize("guests, words", [(True, True), (False, False)])
def test_guests_see_it_after_they_were_started_again(lab, guests, words):
    files = {"/sys/module/kvm_intel/refcnt": "0\n", "/run/libvirt/qemu/x": ""} if guests else {}
    lab.linux(FROM, FROM, files=files).takes(NEW, NEW)()
    assert any("shut down and started again" in each for each in lab.host.warnings) is words


def test_a_host_that_would_fall_back_at_its_next_boot_is_told(lab):
    done = lab.linux(FROM, FROM).takes(NEW, NEW)()
    assert done["next_boot"]["revision"] is None
    assert any("the host falls back; load it early too" in each for each in lab.host.warnings)


# --- guests ---

def kvm(lab):
    return lab.linux(FROM, FROM, files={"/sys/module/kvm_intel/refcnt": "0\n", "/run/libvirt/qemu/x": ""}).takes(NEW, NEW)


def test_guests_that_run_are_held_for_the_load_alone(lab):
    done = kvm(lab)(pause="pause", hold=3)
    assert lab.done == [("pause", ["g1", "g2"], 3), ("load", FILE, 60), "resume"]
    assert done["held"] == [{"uuid": "a", "name": "g1", "seconds": 0.25}, {"uuid": "b", "name": "g2", "seconds": 0.25}]
    assert [(each["name"], each["why"]) for each in done["left"]] == [("g3", "it is paused"), ("net", "driver domain")]


def test_unless_it_is_asked_for_none_is_paused(lab):
    done = kvm(lab)()
    assert lab.done[0] == ("pause", [], 5) and done["held"] == done["left"] == []


def test_a_guest_that_cannot_be_paused_keeps_it_from_loading(lab):
    lab.held["error"] = "guests that could not be paused: g2"
    with pytest.raises(GuestError, match="g2"):
        kvm(lab)(pause="pause")
    assert [each[0] for each in lab.done] == ["pause"] and lab.record()[1].startswith("failed: guests that could not be paused")


def test_a_guest_that_cannot_be_resumed_is_a_failure(lab):
    lab.held["problems"] = {"b": "Operation not permitted"}
    done = kvm(lab)(pause="pause")
    assert done["failed"] is True and done["after"] == {WANTED: [0, 1]}
    assert any("g2 (Operation not permitted)" in each for each in lab.host.warnings)


def test_a_hold_that_ran_out_is_told(lab):
    lab.expired = True
    done = kvm(lab)(pause="pause")
    assert (done["expired"], done["failed"]) == (True, False) and any("longer than guests may be held" in each for each in lab.host.warnings)


# --- check mode, the journal, a run before ---

def test_check_mode_makes_the_checks_and_touches_nothing(lab):
    done = kvm(lab)(pause="pause", check=True)
    assert done["changed"] is True and done["msg"] == ("would load 0x02007006 from /lib/firmware/intel-ucode/06-55-04 through sysfs, "
                                                       "with 2 guests paused for at most 5 s")
    assert lab.done == [] and not os.path.exists(journal.FOLDER)
    assert "not the file" in lab.refused(digest="00", check=True)


def interrupted():
    """A run that was killed."""
    child = os.fork()
    if not child:
        with contextlib.suppress(Exception), journal.run(Host(), "late_load"):
            os._exit(0)  # pylint: disable=protected-access
        os._exit(1)  # pylint: disable=protected-access
    assert os.waitpid(child, 0)[1] == 0


def test_what_an_interrupted_run_left_is_released_first(lab):
    interrupted()
    lab.leases = ["a"]
    done = kvm(lab)(pause="pause")
    assert lab.done[0] == "released" and done["resumed"] == {"a": None} and done["after"] == {WANTED: [0, 1]}


@pytest.mark.parametrize("check", [True, False])
def test_what_an_interrupted_run_left_is_released_though_nothing_is_to_be_loaded(lab, check):
    interrupted()
    lab.leases = ["a"]
    kvm(lab).runs(NEW, NEW)
    done = lab(check=check)
    assert lab.done == ([] if check else ["released"]) and (done["changed"], done["failed"]) == (not check, False)


def test_a_load_that_fails_after_guests_were_released_has_changed_something(lab):
    interrupted()
    lab.leases = ["a"]
    lab.linux(FROM, FROM)
    done = lab()
    assert (done["changed"], done["failed"]) == (True, True)


@pytest.mark.parametrize("event, begun", [("begun", False), ("loading", False), ("loaded", True), ("read back", True)])
def test_a_journal_that_cannot_be_written_keeps_it_from_beginning_and_not_from_telling(lab, event, begun):
    def note(run, what, **_more):
        run.record["events"].append({"event": what})
        if what == event:
            raise journal.JournalError("no room")
    lab.monkeypatch.setattr(journal.Run, "note", note)
    kvm(lab)
    if begun:
        assert lab(pause="pause")["failed"] is False and "no room" in lab.host.warnings
        return
    with pytest.raises(journal.JournalError, match="no room"):
        lab(pause="pause")
    assert lab.done == []


# --- signals ---

def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_waits_until_the_load_has_ended(lab, number):
    kvm(lab)
    lab.way.does = lambda: (send(number), lab.done.append("loaded"))
    with pytest.raises(load.Stopped):
        lab(pause="pause")
    assert [each if isinstance(each, str) else each[0] for each in lab.done] == ["pause", "load", "loaded", "resume"]
    assert lab.record() == (["begun", "loading", "loaded"], "failed: signal %d asked for the end" % number)


def test_a_signal_while_guests_are_being_paused_keeps_it_from_loading(lab):
    lab.held["does"] = lambda _none: send()
    with pytest.raises(load.Stopped):
        kvm(lab)(pause="pause")
    assert [each if isinstance(each, str) else each[0] for each in lab.done] == ["pause", "resume"]


@pytest.mark.parametrize("after_load", [False, True])
def test_a_signal_while_facts_are_read_ends_the_run(lab, after_load):
    kvm(lab)
    real, seen = facts.distro.facts, []

    def reads(host):
        seen.append(host)
        if len(seen) == 1 + after_load:
            send()
        return real(host)
    lab.monkeypatch.setattr(facts.distro, "facts", reads)
    with pytest.raises(load.Stopped):
        lab()
    assert (("load", FILE, 60) in lab.done) is after_load


def test_signals_are_what_they_were_afterwards_and_one_that_is_ignored_stays_so(lab):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        kvm(lab)
        lab.way.does = lambda: (send(signal.SIGHUP), lab.runs(NEW, NEW))
        assert lab()["failed"] is False
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == [before[0], signal.SIG_IGN]
    finally:
        signal.signal(signal.SIGHUP, before[1])
