# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The simulated Xen and libvirt, in what no recording of real tools shows: faults, SMT, the log's ring, guests over time."""
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import types

import pytest

from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_intel

INSIDE = pathlib.Path(made_intel.__file__).resolve().parent / "inside"
sys.path.append(str(INSIDE))
import guest_clock  # noqa: E402  pylint: disable=wrong-import-position,import-error
import machine as machine_module  # noqa: E402  pylint: disable=wrong-import-position,import-error
import virsh  # noqa: E402  pylint: disable=wrong-import-position,import-error
import xen  # noqa: E402  pylint: disable=wrong-import-position,import-error
import xen_ucode  # noqa: E402  pylint: disable=wrong-import-position,import-error
import xl  # noqa: E402  pylint: disable=wrong-import-position,import-error

OLD, NEW = 0x2006b06, 0x2007006
INTEL = {"vendor": "GenuineIntel", "signature": 0x50654, "pf_mask": 0x80}
AMD = {"vendor": "AuthenticAMD", "signature": 0xa00f11, "pf_mask": None}
UPDATED = "(XEN) microcode: CPU%d updated from revision 0x2006b06 to 0x2007006, date = 2023-03-06"
GUEST = 'name = "%s"\nmemory = 128  # MiB\nvcpus = 1\n'
UPDATE = types.SimpleNamespace(revision=NEW, date="2023-03-06")
CPUINFO = "processor\t: 0\nmicrocode\t: 0x2006b06\n"


class Xen:
    """A machine that Xen runs on, in a folder."""

    def __init__(self, folder, version="4.17.7", cpus=2, threads=1, processor=None, revision=OLD, options="loglvl=all", faults=None, xl_seconds=0):
        (folder / "state").mkdir()
        self.machine = machine_module.Machine(str(folder / "state"), str(folder / "root"))
        cpu = dict(processor or INTEL, threads=threads, firmware=revision, revisions=dict((str(number), revision) for number in range(cpus)))
        (folder / "spec.json").write_text(json.dumps({"name": "x", "cpu": {}, "hypervisor": {"mode": "pv"}, "simulate": {"xl_seconds": xl_seconds}}))
        state = {"boot": {"since": 0}, "power": "on", "cpu": cpu, "xen": None, "packages": {},
                 "faults": faults or {}, "libvirt": None}
        (folder / "state/state.json").write_text(json.dumps(state))
        for name in ("g1", "g2"):
            self.machine.put("/srv/%s.cfg" % name, GUEST % name)
        self.machine.put("/proc/cpuinfo", CPUINFO)
        self.file("/srv/new", made_intel.update(0x50654, 0xb7, NEW, "2023-03-06") if cpu["vendor"] == "GenuineIntel" else made_amd.container(
            [(0xa00f11, 0xa011)], [made_amd.patch(0xa0011de, 0xa011, "2025-07-15", 0xa0011d9, 5568)]))
        self.version, self.options = version, options
        self.boot(None)

    def boot(self, update):
        with self.machine.change() as state:
            xen.boot(self.machine, state, self.version, self.options, update)

    def file(self, path, data):
        self.machine.put(path, data)

    def state(self):
        return self.machine.state()

    @property
    def log(self):
        return xen.log_text(self.state()).splitlines()

    @property
    def runs(self):
        return list(self.state()["cpu"]["revisions"].values())

    def xl(self, *argv):
        return xl.main(self.machine, "xl", list(argv))

    def ucode(self, *argv):
        return xen_ucode.main(self.machine, "xen-ucode", list(argv))

    def guest(self, name):
        return next(domain for domain in self.state()["xen"]["domains"] if domain["name"] == name)

    def console(self, name):
        return [(int(count), float(uptime)) for count, uptime in re.findall(
            r"^%s count=(\d+) uptime=([\d.]+)$" % name, self.machine.text("/var/log/xen/console/guest-%s.log" % name), re.M)]


@pytest.fixture(name="make")
def _make(tmp_path):
    return lambda **settings: Xen(tmp_path, **settings)


@pytest.fixture(name="clock")
def _clock(monkeypatch):
    """The seconds of guests' clocks, in a list of one."""
    now = [1000.0]
    monkeypatch.setattr(guest_clock, "time", types.SimpleNamespace(time=lambda: now[0]))
    return now


# --- late loading ---

def test_a_load_that_one_cpu_refuses(make, capsys):
    one = make(faults={"cpus": [0]})
    assert one.ucode("/srv/new") == 1
    assert capsys.readouterr().err == "Failed to update microcode. (err: Input/output error)\n"
    assert one.runs == [NEW, OLD]
    assert one.log[-7:] == ["(XEN) 2 cores are to update their microcode", UPDATED % 0,
                            "(XEN) microcode: CPU1 update rev 0x2006b06 to 0x2007006 failed, result 0x2006b06",
                            "(XEN) ERROR: Updating microcode succeeded on 1 cores and failed", "(XEN) on other 1 cores. A system with differing microcode",
                            "(XEN) revisions is considered unstable. Please reboot and do not", "(XEN) load the microcode that triggers this warning!"]
    assert one.ucode("/srv/new") == 0  # and Xen then takes the machine for up to date
    assert (capsys.readouterr().out, one.runs) == ("Microcode already up to date\n", [NEW, OLD])


@pytest.mark.parametrize("version, said", [("4.14.6", "Device or resource busy"), ("4.17.7", "Input/output error")])
def test_a_load_that_the_first_cpu_refuses_is_not_tried_on_others(make, capsys, version, said):
    one = make(version=version, faults={"refuse": "0x02007006"})
    assert one.ucode("/srv/new") == 1
    assert said in capsys.readouterr().err
    assert one.log[-1] == "(XEN) Late loading aborted: CPU0 failed to update ucode"
    assert not any("CPU1 update" in line for line in one.log)


def test_a_load_that_stops_a_cpu(make):
    one = make(faults={"hang": "0x02007006"})
    with pytest.raises(machine_module.Hung):
        one.ucode("/srv/new")
    assert (one.state()["power"], one.runs) == ("hung", [NEW, OLD])


def test_intels_cores_load_once_and_dom0_does_not_notice(make):
    one = make(cpus=4, threads=2)
    assert one.ucode("/srv/new") == 0
    assert one.runs == [NEW] * 4
    assert one.log[-3:] == ["(XEN) 2 cores are to update their microcode", UPDATED % 0, UPDATED % 2]
    assert one.machine.text("/proc/cpuinfo") == CPUINFO


def test_amds_threads_load_each_and_wait_for_what_firmware_has_to_bring(make, capsys):
    one = make(processor=AMD, threads=2, revision=0xa0011d5)
    assert one.ucode("/srv/new") == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert one.log[-2:] == ["(XEN) No digest found for patch_id 0a0011de", "(XEN) microcode: couldn't find any matching ucode in the provided blob!"]
    with one.machine.change() as state:
        state["cpu"]["revisions"] = {"0": 0xa0011d9, "1": 0xa0011d9}
    assert one.ucode("/srv/new") == 0
    assert one.log[-2:] == ["(XEN) microcode: CPU%d updated from revision 0xa0011d9 to 0xa0011de, date = 2025-07-15" % cpu for cpu in (0, 1)]


@pytest.mark.parametrize("version, status, said", [("4.14.6", 1, "Invalid argument"), ("4.17.0", 1, "Invalid argument"), ("4.17.7", 0, "already up to date")])
def test_what_firmware_brought_already(make, capsys, version, status, said):
    """Nothing was loaded before, so that Xen asks every CPU."""
    one = make(version=version, revision=NEW)
    assert one.ucode("/srv/new") == status
    assert said in "".join(capsys.readouterr())
    assert one.log[-1] == "(XEN) 2 cores are to update their microcode"


@pytest.mark.parametrize("data, line", [
    (made_intel.update(0x50654, 0x01, NEW), "microcode: couldn't find any matching ucode in the provided blob!"),
    (made_intel.update(0x50657, 0xb7, NEW, extended=[(0x50657, 0xb7), (0x50654, 0xb7)], table_checksum=1), "microcode: Bad sigtable checksum"),
    (made_intel.update(data_size=1000), "microcode: Bad size"),
], ids=["another platform", "damaged table", "size"])
def test_a_file_that_is_not_taken(make, data, line):
    one = make()
    one.file("/srv/new", data)
    assert one.ucode("/srv/new") == 1
    assert "(XEN) " + line in one.log[-2:] and one.runs == [OLD, OLD]


def test_an_intact_update_before_a_damaged_one_is_taken(make):
    one = make()
    one.file("/srv/new", made_intel.update(0x50654, 0xb7, NEW) + made_intel.update(0x50654, 0xb7, NEW + 1, checksum=1))
    assert one.ucode("/srv/new") == 0
    assert one.runs == [NEW, NEW] and "(XEN) microcode: Bad checksum" in one.log


def test_xen_ucode_of_4_18_speaks_of_the_cpu(make, capsys):
    one, shown = make(version="4.18.3"), "CPU signature 06-55-04 (raw 0x00050654) pf 0x80 revision 0x02006b06\n"
    assert one.ucode() == 2
    assert capsys.readouterr().err.endswith("/bin/xen-ucode [<microcode file> | show-cpu-info]\n" + shown)
    assert one.ucode("show-cpu-info") == 0
    assert capsys.readouterr().out == shown
    assert one.ucode("--force", "/srv/new") == 1


@pytest.mark.parametrize("hangs", [True, 5])
def test_a_load_that_hangs_goes_on_when_it_is_released_or_its_time_is_over(make, monkeypatch, hangs):
    one, now = make(faults={"load": {"hangs": hangs}}), [0]

    def sleep(_seconds):
        assert one.runs == [OLD, OLD]
        now[0] += 1
        if now[0] == 3 and hangs is True:
            with one.machine.change() as state:
                state["faults"] = {}
    monkeypatch.setattr(machine_module, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=sleep, time=time.time))
    assert one.ucode("/srv/new") == 0
    assert (one.runs, now) == ([NEW, NEW], [3 if hangs is True else 5])


@pytest.mark.parametrize("fault, status, said", [({"lies": True}, 0, ""), ({"fails": "no such luck"}, 1, "no such luck\n")])
def test_a_load_that_lies_or_fails_changes_nothing(make, capsys, fault, status, said):
    one = make(faults={"load": fault})
    before = one.log
    assert one.ucode("/srv/new") == status
    assert (capsys.readouterr().err, one.runs, one.log) == (said, [OLD, OLD], before)


# --- the log ---

def test_without_loglvl_the_log_tells_less(make):
    one = make(options="ucode=scan")
    assert one.ucode("/srv/new") == 0
    assert one.log[-2:] == [UPDATED % 0, UPDATED % 1]
    assert not any(word in line for line in one.log for word in ("cores are to update", "BSP", "CPU Vendor"))


def test_the_log_is_a_ring(make):
    one = make()
    assert one.log[0].startswith("(XEN) Xen version 4.17.7 ")
    with one.machine.change() as state:
        for number in range(2000):
            xen.say(state, "line %d" % number)
    assert len(xen.log_text(one.state())) == 16384 and "Xen version" not in xen.log_text(one.state())
    assert one.xl("dmesg", "-c") == 0 and one.log == []


@pytest.mark.parametrize("version", ["4.14.6", "4.17.7", "4.20.2"])
def test_a_boot_that_loads(make, version):
    one = make(version=version, cpus=4, threads=2)
    with one.machine.change() as state:
        state["cpu"]["revisions"] = dict.fromkeys(state["cpu"]["revisions"], NEW)
    one.boot(UPDATE)
    about = [line for line in one.log if "microcode" in line]
    assert about == ["(XEN) BSP microcode revision: 0x02006b06"] * (version != "4.14.6") + [UPDATED % 0, UPDATED % 2]
    assert one.ucode("/srv/new") == (1 if version == "4.14.6" else 0)
    assert one.log[-1] == "(XEN) microcode: couldn't find any newer revision in the provided blob!"


# --- guests ---

def test_a_pause_holds_a_guest_and_is_seen(make, clock):
    one = make()
    one.xl("create", "-q", "/srv/g1.cfg")
    clock[0] += 5
    one.xl("pause", "g1")
    clock[0] += 2
    one.xl("pause", "g1")
    one.xl("unpause", "g1")
    clock[0] += 1
    assert one.xl("unpause", "g1") == 0
    clock[0] += 4
    guest = one.guest("g1")
    assert (guest_clock.ran(guest), guest["held"], guest["pauses"]) == (9, 3, 0)
    assert [(change, program) for _time, change, program in guest["calls"]] == [(1, "xl"), (1, "xl"), (-1, "xl"), (-1, "xl")]
    assert one.console("g1") == [(0, 0.0), (50, 5.0), (50, 7.0), (50, 7.0), (50, 8.0)]


def test_pauses_are_counted_no_further_than_255(make, capsys):
    one = make()
    one.xl("create", "-q", "/srv/g1.cfg")
    with one.machine.change() as state:
        for _time in range(254):
            xen.pause(one.machine, state, 1, "somebody")
    assert one.xl("pause", "g1") == 0 and capsys.readouterr().err == ""
    assert one.xl("pause", "g1") == 0
    assert "Pausing domain: Value too large" in capsys.readouterr().err and one.guest("g1")["pauses"] == 255


def test_a_guest_that_cannot_be_paused_runs_on_and_xl_says_so_but_ends_well(make, capsys):
    one = make(faults={"unpausable": {"g1": "EPERM"}})
    for name in ("g1", "g2"):
        one.xl("create", "-q", "/srv/%s.cfg" % name)
    capsys.readouterr()
    assert (one.xl("pause", "g1"), one.xl("pause", "g2")) == (0, 0)
    assert capsys.readouterr().err == "libxl: error: libxl_domain.c:587:libxl_domain_pause: Domain 1:Pausing domain: Operation not permitted\n"
    assert (one.guest("g1")["pauses"], one.guest("g2")["pauses"]) == (0, 1)
    with one.machine.change() as state, pytest.raises(OSError, match="Operation not permitted"):
        xen.pause(one.machine, state, 1, "xc")


def test_xl_lists_the_guests_by_their_uuid_too(make, capsys):
    one = make()
    one.xl("create", "-q", "/srv/g1.cfg")
    one.xl("list", "-v")
    head, _dom0, line = capsys.readouterr().out.splitlines()
    assert "UUID" in head and line.split()[-3:] == [one.guest("g1")["uuid"], "-", "-"]


def test_a_boot_loses_guests_and_starts_those_of_auto(make, clock):
    one = make()
    os.makedirs(one.machine.at("/etc/xen/auto"))
    os.symlink("/srv/g1.cfg", one.machine.at("/etc/xen/auto/g1.cfg"))
    for name in ("g2", "g1"):
        one.xl("create", "-q", "/srv/%s.cfg" % name)
    clock[0] += 60
    one.boot(None)
    assert [(domain["name"], domain["id"]) for domain in one.state()["xen"]["domains"]] == [("g1", 1)]
    clock[0] += 1
    one.xl("pause", "g1")
    assert one.console("g1") == [(0, 0.0), (0, 0.0), (10, 1.0)]


def test_a_saved_guest_goes_on_where_it_was(make, clock, capsys):
    one = make()
    one.xl("create", "-q", "/srv/g1.cfg")
    clock[0] += 5
    assert one.xl("save", "g1", "/srv/g1.saved") == 0
    assert one.state()["xen"]["domains"] == []
    clock[0] += 100
    assert one.xl("restore", "/srv/g1.saved") == 0
    clock[0] += 2
    assert (one.guest("g1")["id"], guest_clock.ran(one.guest("g1"))) == (2, 7)
    assert capsys.readouterr().out == ""


def test_a_save_that_fails_leaves_nobody_to_clean_up_after_the_guest(make, capsys):
    one = make(faults={"full": {"/srv": 1 << 20}})
    for name in ("g1", "g2"):
        one.xl("create", "-q", "/srv/%s.cfg" % name)
    assert one.xl("save", "g1", "/srv/g1.saved") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert one.xl("shutdown", "-a") == 0
    assert [(domain["name"], domain["shutdown"]) for domain in one.state()["xen"]["domains"]] == [("g1", 0)]


def test_xl_is_slow_where_it_is_told_to_be(make, monkeypatch, capsys):
    one, slept = make(xl_seconds=0.25), []
    monkeypatch.setattr(xl.time, "sleep", slept.append)
    assert one.xl("list") == 0
    assert slept == [0.25] and "Domain-0" in capsys.readouterr().out


def test_the_bindings_pause_the_same_guests(make):
    one = make()
    one.xl("create", "-q", "/srv/g1.cfg")
    one.xl("pause", "g1")
    script = ("import sys, machine; machine.Machine.__init__.__defaults__ = (%r, %r)\n"
              "from xen.lowlevel.xc import Error, xc; from xen.lowlevel.xs import xs\n"
              "calls = xc()\n"
              "print([calls.domain_unpause(1), calls.domain_pause(1), calls.domain_pause(1)], [each['paused'] for each in calls.domain_getinfo()])\n"
              "print(xs().read('', '/local/domain/1/name'), xs().ls('', '/local/domain'), xs().read('', '/local/domain/7/name'))\n"
              "calls.domain_pause(7)\n") % (one.machine.folder, one.machine.root)
    paths = "%s:%s:%s" % (INSIDE / "site", INSIDE, os.environ["ANSIBLE_COLLECTIONS_PATH"])
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stdout == "[0, 0, 0] [0, 1]\nb'g1' ['0', '1'] None\n", done.stderr
    assert done.stderr.splitlines()[-1] == "xen.lowlevel.xc.Error: (3, 'No such process')" and "xc.py" not in done.stderr
    assert one.guest("g1")["pauses"] == 2
    assert [program for _time, _change, program in one.guest("g1")["calls"]] == ["xl", "xc", "xc", "xc"]


# --- libvirt ---

def test_libvirts_guests_over_a_suspension_and_a_boot(make, clock, capsys):
    one = make()
    with one.machine.change() as state:
        state["libvirt"] = {"domains": []}
    one.machine.put("/sys/module/kvm_intel/refcnt", "0\n")
    place = one.machine.at("/srv/g.xml")
    one.machine.put("/srv/g.xml", "<domain><name>g</name><memory unit='MiB'>64</memory></domain>")

    def run(*argv):
        return virsh.main(one.machine, "virsh", list(argv))
    assert (run("define", place), run("-c", "qemu:///system", "start", "g")) == (0, 0)
    assert (one.machine.text("/sys/module/kvm_intel/refcnt"), os.path.exists(one.machine.at("/run/libvirt/qemu/g.pid"))) == ("1\n", True)
    with one.machine.change() as state:
        state["faults"]["unpausable"] = {"g": "EINVAL"}
    assert run("suspend", "g") == 1 and "Failed to suspend domain 'g'\nerror: internal error" in capsys.readouterr().err
    with one.machine.change() as state:
        state["faults"] = {}
    for seconds in (2, 1):
        run("suspend", "g")
        clock[0] += seconds
    run("resume", "g")  # libvirt does not count
    clock[0] += 1
    (guest,) = one.state()["libvirt"]["domains"]
    assert (guest_clock.ran(guest), guest["held"], guest["paused"]) == (1, 3, False)
    with one.machine.change() as state:
        virsh.boot(state)
    capsys.readouterr()
    run("list", "--all")
    assert capsys.readouterr().out == " Id   Name   State\n-----------------------\n -    g      shut off\n\n"
    assert not os.path.exists(one.machine.at("/run/libvirt/qemu/g.pid"))
    with one.machine.change() as state:
        state["libvirt"]["stopped"] = True
    assert run("list") == 1 and "failed to connect to the hypervisor" in capsys.readouterr().err
