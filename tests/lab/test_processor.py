# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The emulated processor by itself: a program of our own runs on it (processor/probe.c), no operating system."""
import collections
import json
import pathlib
import subprocess
import time

import pytest
from qemu.qmp.legacy import QEMUMonitorProtocol

from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_intel
from ansible_collections.fleet.microcode.tests.gate.cache import kept
from ansible_collections.fleet.microcode.tests.lab import processor, workshop

pytestmark = pytest.mark.smoke

OLD, NEW = "0x02000050", "0x02007006"
SKYLAKE = "Haswell-noTSX,model=85,stepping=4,-hypervisor,check=off,ucode-rev=0x0200005000000000"  # signature 0x50654
HASWELL = "Haswell,stepping=3,check=off,ucode-rev=0x0200005000000000"  # 0x306c3, with TSX
ROME = "EPYC-Rome,check=off,ucode-rev=0x08301025"  # 0x00830f10
UPDATE = made_intel.update()
HASWELL_UPDATE = made_intel.update(signature=0x306c3)
ROME_UPDATE = made_amd.patch(0x0830107c, 0x8310)
UNDEFINED, PROTECTION = "fault 0x00000006", "fault 0x0000000d"
POPCNT, RTM_AND_HLE = "1/0/ecx/0x800000", "7/0/ebx/0x810"
LIMIT = 300  # seconds; a run takes half of one on a quiet machine


@pytest.fixture(scope="session", name="probe")
def _probe():
    """Path of the program."""
    sources = ["probe.S", "probe.c"]
    argv = ["gcc", "-m32", "-march=i686", "-O2", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-pic", "-fno-stack-protector",
            "-fno-asynchronous-unwind-tables", "-mno-sse", "-mno-mmx", "-nostdlib", "-static", "-no-pie",
            "-Wl,--build-id=none,-N,--no-warn-rwx-segments,-Ttext=0x100000", "-o", "probe.elf"] + sources
    texts = [(processor.FOLDER / name).read_text() for name in sources]

    def make(folder):
        for name, text in zip(sources, texts):
            (folder / name).write_text(text)
        workshop.run(argv, folder)
    return kept("lab/probe", argv + texts, make) / "probe.elf"


class Run:
    """One start of the emulator. said: the outcome of each word; events: the lines of the processor's log, as dictionaries."""

    def __init__(self, probe, folder, words, updates=(), model=SKYLAKE, smp="2", properties=()):
        self.folder, self.words = pathlib.Path(folder), words.split()
        names = []
        for number, update in enumerate(updates):
            names.append(str(self.folder / ("update%d" % number)))
            pathlib.Path(names[-1]).write_bytes(update)
        options = ["ucode-log=%s" % (self.folder / "log")] + list(properties)
        argv = [str(processor.qemu()), "-machine", "q35,accel=tcg", "-cpu", ",".join([model] + options), "-smp", smp, "-m", "64", "-nodefaults",
                "-display", "none", "-serial", "file:%s" % (self.folder / "serial"), "-qmp", "unix:%s,server=on,wait=off" % (self.folder / "qmp"),
                "-device", "isa-debug-exit,iobase=0xf4", "-kernel", str(probe), "-append", words]
        self.process = subprocess.Popen(argv + ["-initrd", ",".join(names)] * bool(names), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def _text(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    @property
    def serial(self):
        """What the probe has said so far."""
        return self._text("serial")

    @property
    def said(self):
        """The outcomes of the words."""
        return [line.partition(" ")[2] for line in self.serial.splitlines()]

    @property
    def events(self):
        """What the processor's log has so far."""
        return [json.loads(line) for line in self._text("log").splitlines(True) if line.endswith("\n")]

    @property
    def updates(self):
        """The log of updates, without their times."""
        return [dict((key, value) for key, value in event.items() if key != "time") for event in self.events if event["event"] in ("update", "sibling")]

    def wait(self, condition):
        """Until condition() is true."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None and time.monotonic() < end, "waited in vain; the probe said:\n%s\nand the log:\n%s" % (self.serial, self.events)
            time.sleep(0.02)

    def press_reset(self):
        """Reset the machine from outside."""
        monitor = QEMUMonitorProtocol(str(self.folder / "qmp"))
        monitor.connect()
        try:
            monitor.cmd("system_reset")
        finally:
            monitor.close()

    def finish(self):
        """Wait for the end; itself."""
        errors = self.process.communicate(timeout=LIMIT)[1]
        assert self.process.returncode == 1, errors + self.serial  # isa-debug-exit was given 0
        assert [line.partition(" ")[0] for line in self.serial.splitlines()] == self.words, self.serial
        return self


@pytest.fixture(name="start")
def _start(probe, tmp_path):
    """start(words, updates, model, smp, properties) -> Run."""
    runs = []

    def start(*arguments, **options):
        runs.append(Run(probe, tmp_path, *arguments, **options))
        return runs[-1]
    yield start
    for run in runs:
        run.process.kill()
        run.process.communicate()


@pytest.fixture(name="run")
def _run(start):
    """run(...) -> Run that has ended."""
    return lambda *arguments, **options: start(*arguments, **options).finish()


def taken(cpu=0, before=OLD, after=NEW):
    """The log's line of an update."""
    return {"cpu": cpu, "event": "update", "result": "taken", "from": before, "to": after, "revision": after}


def left(result, cpu=0, before=OLD, offered=NEW):
    """The log's line of an update that changes nothing."""
    return {"cpu": cpu, "event": "update", "result": result, "from": before, "to": offered, "revision": before}


# --- what is taken ---

def test_an_update_is_taken_by_the_one_core_that_is_given_it(run):
    """The address is a linear one: the probe loads through a second mapping of its memory."""
    one = run("0.rev 0.load.0 0.rev 1.rev 1.load.0 1.rev", [UPDATE])
    assert one.said == [OLD, "ok", NEW, OLD, "ok", NEW]
    assert one.updates == [taken(0), taken(1)]


def test_the_log_has_a_line_for_each_event(run):
    started = time.time()
    events = run("0.load.0", [UPDATE]).events
    assert [(event["event"], event["cpu"]) for event in events[:2]] == [("reset", 0), ("reset", 1)]
    assert collections.Counter(event["event"] for event in events) == {"reset": 2, "init": 2, "update": 1}  # SeaBIOS and the probe start processor 1
    assert all(started <= event["time"] <= time.time() for event in events)
    assert all(event["revision"] == OLD for event in events if event["event"] != "update")
    assert set(events[0]) == {"time", "cpu", "event", "revision"}
    assert set(events[-1]) == {"time", "cpu", "event", "result", "from", "to", "revision"}


def test_an_older_revision_is_taken_too(run):
    one = run("0.load.0 0.rev 0.load.1 0.rev", [UPDATE, made_intel.update(revision=0x2000011)])
    assert one.said == ["ok", NEW, "ok", "0x02000011"]


INTEL_TAKEN = {
    "extended signature": made_intel.update(0x50657, extended=[(0x50657, 1), (0x50654, 4)]),
    "platform 2": made_intel.update(pf_mask=4),
    "no platform": made_intel.update(pf_mask=0),
    "old form": made_intel.update(data_size=2000, old=True),
    "long": made_intel.update(data_size=made_intel.fitting(kib=700)),
    "negative": made_intel.update(revision=-0x7fffffff),
}


@pytest.mark.parametrize("name", INTEL_TAKEN)
def test_intel_takes(run, name):
    one = run("0.load.0 0.rev 0.rdmsr.0x17", [INTEL_TAKEN[name]], properties=["ucode-platform=2"])
    revision = "0x80000001" if name == "negative" else NEW
    assert one.said == ["ok", revision, "0x00080000 0x00000000"] and one.updates == [taken(after=revision)]


INTEL_LEFT = {
    "signature": ("signature", made_intel.update(0x50657)),
    "extended signature": ("signature", made_intel.update(0x50657, extended=[(0x50657, 0xff), (0x50656, 0xff)])),
    "platform": ("platform", made_intel.update(pf_mask=0xfb)),
    "extended platform": ("platform", made_intel.update(0x50657, extended=[(0x50657, 4), (0x50654, 0xfb)])),
    "checksum": ("checksum", made_intel.update(checksum=1)),
    "checksum at the end": ("checksum", UPDATE[:-1] + b"\xff"),
    "table's checksum": ("checksum", made_intel.update(extended=[(0x50654, 4)], table_checksum=1)),
    "header version": ("header", made_intel.update(hdrver=made_intel.IFS)),
    "loader version": ("header", made_intel.update(ldrver=2)),
    "size": ("header", made_intel.update(header={"totalsize": 1024})),
    "odd size": ("header", made_intel.update(header={"datasize": 2001})),
    "boundless size": ("header", made_intel.update(header={"totalsize": 0xfffffc00})),
    "boundless table": ("header", made_intel.update(table=b"\xff" * 32)),
}


@pytest.mark.parametrize("name", INTEL_LEFT)
def test_intel_leaves(run, name):
    result, update = INTEL_LEFT[name]
    one = run("0.load.0 0.rev", [update], properties=["ucode-platform=2"])
    assert one.said == ["ok", OLD] and one.updates == [left(result)]


@pytest.mark.parametrize("where", ["0.0xb0000030", "0.0", "0.47", "0xffffffff.0xfffffff0", "0.0xfffffff0"])
def test_an_update_that_cannot_be_read_is_left(run, where):
    one = run("0.wrmsr.0x79.%s 0.rev" % where)
    assert one.said == ["ok", OLD] and one.updates[0]["result"] == "header" and len(one.updates) == 1
    assert one.updates[0]["to"] is None or where.endswith("0xfffffff0")  # there lies the BIOS


def test_amd_takes_what_is_made_for_it(run):
    one = run("0.rev 0.load.0 0.rdmsr.0x8b 1.rev", [ROME_UPDATE], model=ROME)
    assert one.said == ["0x08301025", "ok", "0x00000000 0x0830107c", "0x08301025"]
    assert one.updates == [taken(before="0x08301025", after="0x0830107c")]


@pytest.mark.parametrize("family, model, stepping, identifier", [(25, 1, 1, 0xa011), (25, 0x11, 2, 0xa112), (26, 2, 1, 0xb021)])
def test_amd_families(run, family, model, stepping, identifier):
    made = made_amd.patch(0x0a0011d5, identifier)
    one = run("0.load.0 0.rev", [made], model="%s,family=%d,model=%d,stepping=%d" % (ROME, family, model, stepping))
    assert one.said == ["ok", "0x0a0011d5"]


@pytest.mark.parametrize("result, update", [("signature", made_amd.patch(0x0830107c, 0x8710)), ("platform", made_amd.patch(0x0830107c, 0x8310, nb_dev_id=1)),
                                            ("platform", made_amd.patch(0x0830107c, 0x8310, sb_dev_id=1))])
def test_amd_leaves(run, result, update):
    one = run("0.load.0 0.rev", [update], model=ROME)
    assert one.said == ["ok", "0x08301025"] and one.updates == [left(result, before="0x08301025", offered="0x0830107c")]


@pytest.mark.parametrize("model, register, update", [(SKYLAKE, "0xc0010020", UPDATE), (ROME, "0x79", ROME_UPDATE)])
def test_the_other_vendors_register_does_nothing(run, model, register, update):
    one = run("0.wrmsr.%s.0.0x100030" % register, [update], model=model)
    assert one.updates == []


# --- how a revision is asked for ---

@pytest.mark.parametrize("leaf", [0, 1])  # Xen executes 0, Linux 1
def test_intel_refreshes_the_register_at_cpuid_only(run, leaf):
    one = run("0.wrmsr.0x8b.5.7 0.load.0 0.rdmsr.0x8b 0.cpuid.%d 0.rdmsr.0x8b" % leaf, [UPDATE])
    assert one.said[2] == "0x00000005 0x00000007" and one.said[4] == "%s 0x00000000" % NEW


def test_amd_register_cannot_be_written(run):
    one = run("0.wrmsr.0x8b.5.7 0.rdmsr.0x8b", model=ROME)
    assert one.said[1] == "0x00000000 0x08301025"


# --- cores, resets ---

def test_siblings_share_a_revision(run):
    one = run("2.load.0 0.rev 1.rev 2.rev 3.rev", [UPDATE], smp="4,sockets=1,cores=2,threads=2")
    assert one.said == ["ok", OLD, OLD, NEW, NEW]
    assert one.updates == [taken(2), {"cpu": 3, "event": "sibling", "revision": NEW}]


def test_init_keeps_and_reset_forgets(run):
    one = run("1.load.0 1.init 1.rev reset 1.rev 0.rev", [UPDATE])
    assert one.said == ["ok", "ok", NEW, "reset", OLD, OLD]
    events = [(event["event"], event["revision"]) for event in one.events if event["cpu"] == 1]
    assert events[events.index(("update", NEW)):][:3] == [("update", NEW), ("init", NEW), ("reset", OLD)]


# --- faults ---

def test_a_hung_processor_comes_back_by_reset_alone(start):
    one = start("?1.load.0 ?1.rev 1.nmi ?1.rev ?1.init 0.rev 0.load.0 1.rev", [UPDATE], properties=["ucode-hang=0x2007006"])
    one.wait(lambda: len(one.updates) == 2)
    assert [(event["cpu"], event["result"]) for event in one.updates] == [(1, "hang"), (0, "hang")]
    one.press_reset()
    assert one.finish().said == ["no answer", "no answer", "ok", "no answer", "no answer", OLD, "reset", OLD]
    events = [event["event"] for event in one.events if event["cpu"] == 1]
    assert events[events.index("update") + 1] == "reset"


def test_a_hung_processor_takes_its_sibling_along(run):
    one = run("?2.load.0 ?3.rev 1.rev", [UPDATE], smp="4,sockets=1,cores=2,threads=2", properties=["ucode-hang=0x2007006"])
    assert one.said == ["no answer", "no answer", OLD]
    assert one.updates[1] == {"cpu": 3, "event": "sibling", "revision": NEW}


@pytest.mark.parametrize("given, revision", [("0x2007006", 0x2007006), ("33583110", 0x2007006), ("0x80000001", -0x7fffffff), ("-2147483647", -0x7fffffff)])
def test_a_revision_is_refused_silently(run, given, revision):
    one = run("0.load.0 0.rev 0.load.1 0.rev", [made_intel.update(revision=revision), made_intel.update(revision=0x2007007)],
              properties=["ucode-refuse=" + given])
    assert one.said == ["ok", OLD, "ok", "0x02007007"]
    assert one.updates == [left("refused", offered="0x%08x" % (revision & 0xffffffff)), taken(after="0x02007007")]


def test_some_processors_take_none(run):
    one = run("0.load.0 1.load.0 2.load.0 0.rev 1.rev 2.rev", [UPDATE], smp="3", properties=["ucode-cpus=5"])
    assert one.said[3:] == [NEW, OLD, NEW]
    assert one.updates == [taken(0), left("refused", 1), taken(2)]


def test_an_update_takes_its_time(run):
    one = run("1.time.0 1.rev 1.time.1", [UPDATE, made_intel.update(0x50657)], properties=["ucode-time=400000"])
    assert int(one.said[0], 16) >= 400000 and one.said[1] == NEW
    assert one.updates == [taken(1), left("signature", 1, before=NEW)]


def test_a_reset_ends_a_long_update(start):
    one = start("?1.load.0 0.load.0 0.rev 1.rev", [UPDATE], properties=["ucode-time=%d" % (LIMIT * 10 ** 7)])
    one.wait(lambda: one.serial.endswith("0.load.0"))
    one.press_reset()
    assert one.finish().said == ["no answer", "reset", OLD, OLD] and one.updates == []


# --- CPUID bits ---

def ran(value):
    """The probe's outcome of an instruction."""
    return "ran 0x%08x" % value


def test_a_bit_is_added_at_a_revision_and_lost_with_it(run):
    words = "0.cpuid.7.0 0.load.0 0.cpuid.7.0 0.load.1 0.cpuid.7.0 1.cpuid.7.0 reset 0.cpuid.7.0"
    one = run(words, [UPDATE, made_intel.update(revision=0x2000060)], properties=["ucode-add=0x2007000/7/0/edx/0x04000000"])
    edx = [outcome.split()[3] for outcome in one.said if len(outcome.split()) == 4]
    assert edx == ["0x00000000", "0x04000000", "0x00000000", "0x00000000", "0x00000000"]


def test_a_bit_of_a_leaf_unknown_to_the_emulator_is_added(run):
    one = run("0.load.0 0.cpuid.7.0 0.cpuid.7.1 0.cpuid.7.2", [UPDATE], properties=["ucode-add=0/7/0/eax/2:%s/7/2/edx/0x1f" % NEW])
    assert [outcome.split()[column] for outcome, column in zip(one.said[1:], (0, 3, 3))] == ["0x00000002", "0x00000000", "0x0000001f"]


def test_transactions_always_abort(run):
    one = run("0.cpuid.7 0.try.xbegin 0.try.xtest 0.try.xabort 0.try.xend", model=HASWELL)
    assert int(one.said[0].split()[1], 16) & 0x810 == 0x810
    assert one.said[1:] == [ran(0), ran(0x40), ran(7), PROTECTION]


def test_without_transactions_their_instructions_are_undefined(run):
    one = run("0.try.xbegin 0.try.xtest 0.try.xabort 0.try.xend")
    assert one.said == [UNDEFINED] * 4


def test_withdrawn_transactions_are_undefined_until_a_reset(run):
    tries = ["0.try.xbegin", "0.try.xtest", "0.try.xabort", "0.try.xend", "0.cpuid.7"]
    one = run(" ".join(tries + ["0.load.0"] + tries + ["reset"] + tries), [HASWELL_UPDATE], model=HASWELL,
              properties=["ucode-withdraw=0x2007006/" + RTM_AND_HLE])
    there, gone, again = one.said[:5], one.said[6:11], one.said[12:]
    assert there[:4] == [ran(0), ran(0x40), ran(7), PROTECTION] and there == again
    assert gone[:4] == [UNDEFINED] * 4 and int(there[4].split()[1], 16) == int(gone[4].split()[1], 16) | 0x810


def test_elision_alone_still_answers_xtest(run):
    one = run("0.load.0 0.try.xbegin 0.try.xtest", [HASWELL_UPDATE], model=HASWELL, properties=["ucode-withdraw=0x2007006/7/0/ebx/0x800"])
    assert one.said[1:] == [UNDEFINED, ran(0x40)]


def test_processors_that_differ_do_not_share_translated_code(run):
    words = "0.try.popcnt 1.try.popcnt 0.load.0 0.try.popcnt 1.try.popcnt 0.try.popcnt 1.try.popcnt 0.try.movbe"
    one = run(words, [UPDATE], properties=["ucode-withdraw=0x2007006/" + POPCNT])
    assert one.said == [ran(8), ran(8), "ok", UNDEFINED, ran(8), UNDEFINED, ran(8), ran(0x44332211)]


def test_a_sibling_loses_an_instruction_too(run):
    one = run("1.try.popcnt 0.load.0 1.try.popcnt 1.cpuid.1", [UPDATE], smp="2,sockets=1,cores=1,threads=2",
              properties=["ucode-withdraw=0x2007006/" + POPCNT])
    assert one.said[:3] == [ran(8), "ok", UNDEFINED] and not int(one.said[3].split()[2], 16) & 0x800000


def test_an_added_bit_brings_its_instruction(run):
    one = run("0.try.popcnt 0.load.0 0.try.popcnt 1.try.popcnt", [UPDATE], model=SKYLAKE + ",-popcnt", properties=["ucode-add=0x2007006/" + POPCNT])
    assert one.said == [UNDEFINED, "ok", ran(8), UNDEFINED]


def test_a_rule_holds_from_its_revision_on_and_at_the_start_too(run):
    one = run("0.try.popcnt 0.load.0 0.try.popcnt reset 0.try.popcnt", [made_intel.update(revision=0x2000011)],
              properties=["ucode-withdraw=0x2000050/" + POPCNT])
    assert one.said == [UNDEFINED, "ok", ran(8), "reset", UNDEFINED]


def test_eight_rules(run):
    bits = [0x800000, 0x400000] + [1 << bit for bit in range(6)]
    rules = ":".join("0x2007006/1/0/ecx/%#x" % bit for bit in bits)
    one = run("0.try.popcnt 0.try.movbe 0.load.0 0.try.popcnt 0.try.movbe 1.try.popcnt 1.try.movbe", [UPDATE], properties=["ucode-withdraw=" + rules])
    assert one.said == [ran(8), ran(0x44332211), "ok", UNDEFINED, UNDEFINED, ran(8), ran(0x44332211)]


# --- what the guest or the user gets wrong ---

@pytest.mark.parametrize("seed", [1, 20260101])
@pytest.mark.parametrize("model, update, revision", [(SKYLAKE, UPDATE, NEW), (ROME, ROME_UPDATE, "0x0830107c")])
def test_no_address_and_no_header_harms_the_emulator(run, model, update, revision, seed):
    one = run("0.fuzz.%d.3000 1.fuzz.%d.500 0.load.0 0.rev" % (seed, seed + 1), [update], model=model, smp="2,sockets=1,cores=1,threads=2",
              properties=["ucode-withdraw=0x40000000/" + POPCNT])
    assert one.said[-1] == revision and sum(event["event"] == "update" for event in one.events) == 3501


@pytest.mark.parametrize("given, told", [
    ("ucode-hang=new", "a signed 32-bit number is wanted"), ("ucode-refuse=0x100000000", "a signed 32-bit number is wanted"),
    ("ucode-platform=8", "from 0 to 7"), ("ucode-add=1/7/0/ebx", "is not REVISION/LEAF/SUBLEAF/REGISTER/MASK"),
    ("ucode-withdraw=1/7/0/esi/1", "is not REVISION/LEAF/SUBLEAF/REGISTER/MASK"), ("ucode-withdraw=1/7/0/ebx/0", "is not REVISION"),
    ("ucode-add=" + ":".join(["1/7/0/ebx/1"] * 9), "more than 8 rules"), ("ucode-log=/nowhere/log", "/nowhere/log"),
])
def test_a_wrong_property_is_told(start, given, told):
    process = start("0.rev", properties=[given]).process
    assert told in process.communicate(timeout=LIMIT)[1] and process.returncode == 1
