# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How fast, how large, how robust: one table, side by side with other tools, in one run.

    python bench.py [--only SECTION ...] [--seed N] [FOLDER ...]     FOLDER: bin folder of another ansible-core, whose payload is measured too

Times come from rounds in which all that are compared take turns. A ratio is that of the lowest times, which a busy machine disturbs least; the
median and the highest tell how busy it was. A row that is held to something says whether it was reached. The exit status is about what is broken,
not about time: an exception from hostile input, a wrong answer, a tool that failed.
"""
import argparse
import base64
import concurrent.futures
import io
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
WORK = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("FLEET_MICROCODE_CACHE")))
COLLECTION = WORK / "ansible_collections" / "fleet" / "microcode"
COLLECTION.parent.mkdir(parents=True)
COLLECTION.symlink_to(CHECKOUT)
sys.path.insert(0, str(WORK))

from ansible_collections.fleet.microcode.plugins.module_utils import update  # noqa: E402, pylint: disable=wrong-import-position
from ansible_collections.fleet.microcode.tests.bench import machines, tools  # noqa: E402, pylint: disable=wrong-import-position
from ansible_collections.fleet.microcode.tests.gate import debian  # noqa: E402, pylint: disable=wrong-import-position

ENV = dict(os.environ, PATH=tools.PATH, LC_ALL="C.UTF-8", PYTHONPATH=str(WORK), PYTHONDONTWRITEBYTECODE="1", ANSIBLE_COLLECTIONS_PATH=str(WORK),
           ANSIBLE_HOME=str(WORK / "home"), ANSIBLE_LOCAL_TEMP=str(WORK / "local"), ANSIBLE_REMOTE_TMP=str(WORK / "remote"), ANSIBLE_NOCOLOR="1")
ROUNDS, FUZZED, MEMORY, REPLY, PAYLOAD = 9, 100000, 8 << 10, 4 << 10, 190 << 10  # MEMORY in KiB: "a few MiB"
FACTS = "fleet.microcode.microcode_facts"
LISTED = re.compile(r"sig (0x\w+), pf_mask (0x\w+), (\S+), rev (0x\w+)")


class Broken(Exception):
    """Something is wrong with an answer or a tool, whatever its speed; the text says what."""


class Table:
    """Rows of text, each shown at once; what is broken is kept for the end."""

    def __init__(self):
        self.broken, self.missed = [], 0

    def section(self, title, figure="lowest", spread="median..highest", ratio="ours to it", held="held to"):
        print("\n%-58s %12s %19s %11s  %s" % (title.upper(), figure, spread, ratio, held))

    def row(self, what, figure="", spread="", ratio="", held="", reached=None):
        """reached: True, False, or None where the row is held to nothing."""
        self.missed += reached is False
        mark = {True: "reached", False: "NOT REACHED", None: ""}[reached]
        print(("  %-56s %12s %19s %11s  %-14s %s" % (what, figure, spread, ratio, held, mark)).rstrip(), flush=True)

    def say(self, text):
        print("  " + text, flush=True)

    def fail(self, text):
        self.broken.append(text)
        self.say("BROKEN: " + text)


TABLE = Table()


def need(right, text):
    """Broken where an answer is not right."""
    if not right:
        raise Broken(text if len(text) < 3000 else text[:3000] + " ...")


def probe(*words, prefix=(), timeout=600):
    """The answer of a measurement in a process of its own, see probe.py."""
    argv = list(prefix) + [sys.executable, str(HERE / "probe.py")] + [str(word) for word in words]
    try:
        done = subprocess.run(argv, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                              timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise Broken("%s: no end after %d s" % (" ".join(argv[-len(words):]), timeout))
    need(done.returncode == 0, "%s: exit status %d: %s" % (" ".join(str(word) for word in words), done.returncode, done.stderr.strip()[-2000:]))
    return json.loads(done.stdout)


def take_turns(cases, rounds=ROUNDS):
    """{name: [seconds]} of {name: function that returns an answer with seconds}; one that breaks is said and left out."""
    found = dict((name, []) for name in cases)
    for _round in range(rounds):
        for name in [name for name in cases if name in found]:
            try:
                found[name].append(cases[name]()["seconds"])
            except Broken as exc:
                TABLE.fail("%s: %s" % (name, exc))
                del found[name]
    return found


def time(seconds):
    return "%.1f ms" % (seconds * 1000) if seconds < 0.1 else "%.0f ms" % (seconds * 1000) if seconds < 1 else "%.2f s" % seconds


def show(name, samples, ratio="", held="", reached=None):
    """A row of times."""
    TABLE.row(name, time(min(samples)), "%s..%s" % (time(statistics.median(samples)), time(max(samples))), ratio, held, reached)


def compare(found, ours, held):
    """Rows of times, ours first, the others with what ours is to them; held: {name: the most that this may be}."""
    for name in found:
        ratio, most = min(found.get(ours, [0])) / min(found[name]), held.get(name)
        if name == ours or ours not in found:
            show(name, found[name])
        else:
            show(name, found[name], "%.3f" % ratio, "at most %.2f" % most if most else "", None if most is None else ratio <= most)


def commanded(ask, argv, statuses=(0,)):
    """A measurement of a whole command, Broken where its exit status is none of these."""
    def call():
        answer = ask("command", *argv)
        need(answer["status"] in statuses, "exit status %d: %s" % (answer["status"], (answer["stderr"] or answer["stdout"]).strip()[-500:]))
        return answer
    return call


class Machines:
    """What the sections measure on; made once."""

    def __init__(self):
        self.debian = self.iucode_tool = None
        try:
            self.debian, self.iucode_tool = tools.microcode()
            ENV["PATH"] += os.pathsep + os.path.dirname(self.iucode_tool)  # needrestart looks for it there
        except debian.Unavailable as exc:
            TABLE.say("without Debian's microcode files and iucode_tool: %s" % exc)
        self.large = str(machines.large(WORK / "large", self.debian))
        self.newest = 0xd000410
        if self.debian:
            listed = self.list_with_iucode_tool(self.debian / "lib/firmware/intel-ucode" / machines.NAME)
            self.newest = max(entry[3] for entry in listed if entry[0] == machines.SIGNATURE and entry[1] & machines.PF_MASK)

    def list_with_iucode_tool(self, *paths):
        """{(signature, pf_mask, date, revision), ...} as iucode_tool lists them, each once."""
        listed = LISTED.findall(probe("command", self.iucode_tool, "-l", "-tb", *paths)["stdout"])
        return set((int(signature, 16), int(pf_mask, 16), date, int(revision, 16)) for signature, pf_mask, date, revision in listed)

    def check(self, found):
        """Broken where facts of the large tree are wrong."""
        need(found["cpu"]["revisions"] == {update.hex8(machines.RUNS): list(range(128))}, "revisions: not 0 to 127 run %s" % update.hex8(machines.RUNS))
        need([each["revision"] for each in found["files"]] == [update.hex8(self.newest)], "files are %s" % found["files"])
        need((found["files"][0]["package"] or "").startswith("intel-microcode 1.2.3"), "package is %s" % found["files"][0]["package"])
        need([kernel["revision"] for kernel in found["early"]["kernels"]] == [update.hex8(self.newest)] * 3, "kernels are %s" % found["early"]["kernels"])
        need(found["applicable"] is True and found["pending"] == update.hex8(self.newest), "pending is %s; %s" % (found["pending"], found["warnings"]))


# --- the sections ---

def facts(made):
    """Facts in process against the other tools in process: on this machine, and on the large one put in its place."""
    try:
        found = tools.needrestart()
    except debian.Unavailable as exc:
        found = None
        TABLE.say("left out: needrestart, neither installed nor to be had from Debian: %s" % exc)
    try:
        spectre = tools.spectre()
    except debian.Unavailable as exc:
        spectre = None
        TABLE.say("left out: spectre-meltdown-checker, neither installed nor to be had from Debian: %s" % exc)

    def ours(*words, prefix=()):
        answer = probe("facts", made.large, *words, prefix=prefix)
        made.check(answer["facts"])
        return answer

    def inside(*words):
        return probe("within", made.large, found["settings"] if found else "", *words, prefix=("unshare", "-rm"))

    for place, ask in (("this machine", probe), ("a host of 128 CPUs, made up", inside)):
        TABLE.section("facts, in process, on " + place)
        cases = {"our facts": lambda: ask("facts", "/")}
        if ask is inside:
            cases = {"our facts": lambda: ours("live", prefix=("unshare", "-r")), "our facts, of a tree of files (sysroot)": ours}
            try:
                ask("command", "true")
            except Broken as exc:
                TABLE.say("left out: all but a tree of files, since others see such a host in a mount namespace only: " + str(exc)[-300:])
                compare(take_turns({"our facts, of a tree of files (sysroot)": ours}), "our facts, of a tree of files (sysroot)", {})
                break
        cases["setup's collectors, all"] = lambda: ask("setup", "all")
        cases["setup's collectors, hardware"] = lambda: ask("setup", "!all,!min,hardware")
        if found:
            def right():
                answer = ask("needrestart", *found["perl"])
                need(ask is probe or not made.debian or int(answer["answer"]["available"], 16) == made.newest, "needrestart found %s" % answer["answer"])
                return answer
            cases["needrestart's microcode check, less its start"] = right
            cases["needrestart -w -b, the whole command"] = commanded(ask, found["program"] + ["-w", "-b"])
            cases["needrestart --version: its start and nothing else"] = commanded(ask, found["program"] + ["--version"])
        samples = take_turns(cases)
        if spectre:
            samples.update(take_turns({"spectre-meltdown-checker, the whole command": commanded(ask, spectre, (0, 2, 3))}, 3))
        compare(samples, "our facts", {"setup's collectors, all": 0.2, "needrestart's microcode check, less its start": 1})
    TABLE.section("reading the code that a host is sent, from source")
    compare(take_turns({"our facts": lambda: probe("load", "ansible_collections.fleet.microcode.plugins.module_utils.facts"),
                        "setup's collectors": lambda: probe("load", "ansible.module_utils.facts.default_collectors")}), "our facts", {})


def runs(made):
    """Whole runs of Ansible on this machine, connection local, pipelining on."""
    def run(*words):
        return commanded(probe, [str(pathlib.Path(sys.executable).parent / "ansible"), "-i", "localhost,", "-c", "local", "localhost",
                                 "-e", "ansible_pipelining=true ansible_python_interpreter=" + sys.executable, "-m"] + list(words))
    TABLE.section("whole runs of ansible, one host, local, pipelining", ratio="to ping")
    found = take_turns({"ansible.builtin.ping": run("ansible.builtin.ping"), FACTS: run(FACTS),
                        FACTS + ", 128 CPUs": run(FACTS, "-a", "sysroot=" + made.large), "ansible.builtin.setup": run("ansible.builtin.setup")})
    if len(found) < 4:
        return
    ping, everything = min(found["ansible.builtin.ping"]), min(found["ansible.builtin.setup"])
    for name in found:
        way = (min(found[name]) - ping) / (everything - ping)
        ours = name.startswith(FACTS)
        show(name, found[name], "%.3f" % (min(found[name]) / ping), "nearer to ping" if ours else "", way < 0.5 if ours else None)
        if ours:
            TABLE.row("  that much of the way from ping to setup", "%.0f %%" % (100 * way))


def listing(made):
    """microcode_file_info's work against iucode_tool -l, over all of Intel's files as Debian has them."""
    TABLE.section("listing all Intel files of Debian, in process")
    if not made.iucode_tool:
        TABLE.say("left out: Debian's files and iucode_tool are not to be had, see above")
        return
    folder = str(made.debian / "lib/firmware/intel-ucode")
    theirs = made.list_with_iucode_tool(folder)

    def ours(checksums):
        answer = probe("listing", folder, checksums)
        entries = [entry for each in answer["containers"] for entry in each["entries"]]
        listed = set((int(entry["signature"], 16), int(entry["pf_mask"], 16), entry["date"], int(entry["revision"], 16)) for entry in entries)
        need(listed == theirs and all(entry["valid"] for entry in entries), "%d updates are not the %d that iucode_tool lists" % (len(listed), len(theirs)))
        return answer
    command = "iucode_tool -l, the whole command: %d updates" % len(theirs)
    found = take_turns({"headers": lambda: ours(False), "with checksums": lambda: ours(True),
                        command: commanded(probe, [made.iucode_tool, "-l", "-tb", folder])})
    if command in found:
        show(command, found[command])
        for name, most in (("headers", 1), ("with checksums", 10)):
            if name in found:
                ratio = min(found[name]) / min(found[command])
                show(name, found[name], "%.3f" % ratio, "at most %.2f" % most, ratio <= most)


def payload(folder, name, *words):
    """The file that Ansible of this bin folder sends a host to run a module."""
    remote = WORK / "remote"
    shutil.rmtree(str(remote), ignore_errors=True)
    answer = probe("command", "env", "ANSIBLE_KEEP_REMOTE_FILES=1", folder / "ansible", "-i", "localhost,", "-c", "local", "localhost", "-m", name,
                   "-e", "ansible_pipelining=false ansible_python_interpreter=" + str(folder / "python"), *words)
    kept = sorted(remote.glob("*/AnsiballZ_*.py"))
    need(answer["status"] == 0 and len(kept) == 1, "%s of %s: %s" % (name, folder, (answer["stderr"] or answer["stdout"]).strip()[-500:]))
    return kept[0]


def size(made, folders):
    """What a host is sent and what it answers."""
    TABLE.section("what a host is sent and answers", "figure", "of it", "to ping's")
    program = pathlib.Path(sys.executable).parent
    for folder in [folder for folder in folders if folder != program] + [program]:
        try:
            ping = payload(folder, "ansible.builtin.ping").stat().st_size
            sent = payload(folder, FACTS, "-a", "sysroot=" + made.large)
            version = probe("command", folder / "python", "-c", "from ansible.release import __version__; print(__version__)")["stdout"].strip()
        except Broken as exc:
            TABLE.fail(str(exc))
            continue
        ours = sent.stat().st_size
        TABLE.row("payload, ansible-core " + version, "%.1f KiB" % (ours / 1024), "ping's %.1f KiB" % (ping / 1024), "%.3f" % (ours / ping),
                  "at most %d KiB" % (PAYLOAD >> 10), ours <= PAYLOAD)
    packed = max(re.findall(r"[A-Za-z0-9+/=\n]{1000,}", sent.read_text()), key=len)
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))) as archive:
        mine = [(each.compress_size * 4 / 3 / 1024, each.file_size / 1024, each.filename.split("/microcode/plugins/")[1])
                for each in archive.infolist() if "/microcode/plugins/" in each.filename and each.file_size]
    TABLE.row("  our files in it, as sent: packed, in base64", "%.1f KiB" % sum(each[0] for each in mine), "source %.1f KiB" % sum(each[1] for each in mine))
    for each in sorted(mine, reverse=True):
        TABLE.row("    " + each[2], "%.1f KiB" % each[0], "source %.1f KiB" % each[1])
    answer = probe("command", program / "python", sent)
    found = json.loads(answer["stdout"])["ansible_facts"]["microcode"]
    made.check(found)
    reply = len(answer["stdout"].encode())
    TABLE.row("reply of a host of 128 CPUs", "%d bytes" % reply, "", "", "at most %d" % REPLY, reply <= REPLY)
    TABLE.say("  of it: " + ", ".join("%s %d" % (key, length) for length, key in
                                      sorted(((len(json.dumps(value)), key) for key, value in found.items()), reverse=True)[:6]))


def opened(made):
    """Which files the facts open on the large host."""
    TABLE.section("files opened on the large host", "figure", "of them", "")
    paths = probe("opened", made.large)["paths"]
    microcode = [path for path in paths if "-ucode/" in path]
    others = sorted(set(path for path in microcode if os.path.basename(path) not in (machines.NAME, machines.NAME + ".initramfs")))
    there = len(os.listdir(made.large + "/lib/firmware/intel-ucode"))
    TABLE.row("microcode files, of %d that are there" % there, "%d" % len(set(microcode)), "", "", "this CPU's only", not others)
    for path in others:
        TABLE.say("  opened, but of another CPU: " + path)
    cpus = sum(1 for path in paths if "/sys/devices/system/cpu/" in path)
    TABLE.row("all files, each time counted", "%d" % len(paths), "%d below cpu/" % cpus)
    twice = sorted(set((paths.count(path), path) for path in paths if paths.count(path) > 1), reverse=True)
    TABLE.say("  more than once: " + (", ".join("%s %d times" % (path, count) for count, path in twice) or "none"))


def memory(made):
    """What gathering adds to the memory of a process on hosts with hostile files."""
    TABLE.section("memory that gathering adds, hostile files of 1 GiB", "added", "before", "time")

    def measure(kind, title, right, most=MEMORY):
        try:
            root = machines.hostile(WORK / kind, kind) if kind != "large" else made.large
            answer = probe("memory", root, timeout=300)
            need(right(answer["facts"]), "%s: the facts are wrong: %s" % (title, answer["facts"]))
            TABLE.row(title, "%.1f MiB" % (answer["added"] / 1024), "%.1f MiB" % (answer["idle"] / 1024), time(answer["seconds"]),
                      "at most %d MiB" % (most >> 10) if most else "", answer["added"] <= most if most else None)
        except Broken as exc:
            TABLE.fail(str(exc))
        finally:
            shutil.rmtree(str(WORK / kind), ignore_errors=kind == "large")
    signature, sane = update.hex8(machines.SIGNATURE), "internal error"
    measure("large", "the large host, nothing hostile", lambda found: found["pending"])
    measure("files", "microcode, initrds, grub.cfg, kernel configuration, dpkg", lambda found: found["cpu"]["signature"] == signature
            and found["warnings"] and found["pending"] is None and sane not in str(found["warnings"]))
    measure("cpuinfo", "/proc/cpuinfo", lambda found: found["cpu"]["signature"] is None and found["warnings"] and sane not in str(found["warnings"]))
    measure("cpus", "no hostile file, but 8192 CPUs", lambda found: found["cpu"]["signature"] == signature, None)


def planning(_made):
    """A plan of a whole fleet, with all rules; seconds of one core."""
    TABLE.section("a plan of a whole fleet made of the recorded hosts", ratio="to a tenth")
    (WORK / "recorded.json").write_text(json.dumps(machines.recorded(WORK / "recorded")))
    found, cases = {}, {(1000, True): "1,000 hosts", (10000, True): "10,000 hosts", (1000, False): "1,000 hosts, no two alike"}
    for _round in range(5):
        for count, alike in cases:
            found.setdefault((count, alike), []).append(probe("plan", WORK / "recorded.json", count, alike))
    before = None
    for (count, alike), answers in found.items():
        need(answers[0]["summary"]["hosts"] == count and answers[0]["summary"]["actions"]["early"] > count / 10, "the plan is %s" % answers[0]["summary"])
        samples, peak = [answer["seconds"] for answer in answers], max(answer["peak"] for answer in answers)
        show("%s: %d rules read, plan, JSON" % (cases[count, alike], answers[0]["rules"]), samples, "", "at most 5 s", min(samples) <= 5)
        less = min(answer["seconds"] - answer["loading"] for answer in answers)
        ratio = less / before if count > 1000 else None
        TABLE.row("  less reading the rules", time(less), "", "%.2f" % ratio if ratio else "", "at most 11" if ratio else "", ratio <= 11 if ratio else None)
        before = less
        TABLE.row("  memory of the process, the facts included", "%.0f MiB" % (peak / 1024), "%.0f MiB before" % (answers[0]["idle"] / 1024), "",
                  "at most 500", peak <= 500 << 10)
        TABLE.row("  JSON", "%.1f MiB" % (answers[0]["bytes"] / (1 << 20)), "%d decisions" % answers[0]["decisions"])


def reporting(_made):
    """The assessment of a whole fleet, as JSON and as a page; seconds of one core."""
    TABLE.section("the assessment of a whole fleet made of the recorded hosts", ratio="to a tenth")
    (WORK / "recorded.json").write_text(json.dumps(machines.recorded(WORK / "recorded")))
    found = {}
    for _round in range(3):
        for count in (1000, 10000):
            found.setdefault(count, []).append(probe("report", WORK / "recorded.json", count))
    before = 0
    for count, answers in found.items():
        need(answers[0]["posture"]["hosts"] == count and answers[0]["posture"]["states"]["pending_reboot"], "the posture is %s" % answers[0]["posture"])
        samples, peak = [answer["seconds"] for answer in answers], max(answer["peak"] for answer in answers)
        ratio = min(samples) / before if before else 0
        show("%d hosts: assessed, JSON, page" % count, samples, "%.2f" % ratio if ratio else "", "at most 15" if ratio else "",
             ratio <= 15 if ratio else None)  # ten, and what Python's collector of garbage takes more in a larger heap
        TABLE.row("  assessed alone", time(min(answer["assessed"] for answer in answers)))
        TABLE.row("  memory of the process, the facts included", "%.0f MiB" % (peak / 1024), "%.0f MiB before" % (answers[0]["idle"] / 1024))
        TABLE.row("  JSON and page", "%.1f MiB" % (answers[0]["bytes"] / (1 << 20)), "%.1f MiB" % (answers[0]["page"] / (1 << 20)))
        before = min(samples)


def fuzz(seed):
    """Hostile input for the readers, two readers at a time."""
    TABLE.section("hostile input: %d inputs a reader, seed %d" % (FUZZED, seed), "inputs", "time", "found whole")

    def one(name):
        try:
            return name, probe("fuzz", name, FUZZED, seed, timeout=1200), None
        except Broken as exc:
            return name, None, exc
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name, answer, problem in pool.map(one, sorted(path.stem for path in HERE.glob("fuzz_*.py"))):
            if problem:
                TABLE.fail("%s; again with: --only fuzz --seed %d" % (problem, seed))
            else:
                TABLE.row(name[5:], "%.0f a second" % (FUZZED / answer["seconds"]), time(answer["seconds"]), "%.1f %%" % (100 * answer["whole"] / FUZZED),
                          "no exception", True)


def main():
    sections = {"facts": facts, "runs": runs, "listing": listing, "size": size, "opened": opened, "memory": memory, "plan": planning, "report": reporting,
                "fuzz": fuzz}
    parser = argparse.ArgumentParser(description="How fast, how large, how robust: side by side with other tools.")
    parser.add_argument("--only", action="append", choices=list(sections), help="only this section; may be given several times")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the hostile inputs, to have the same ones again")
    parser.add_argument("folders", nargs="*", type=pathlib.Path, help="bin folder of another ansible-core, whose payload is measured too")
    said = parser.parse_args()
    more = {size: [said.folders], fuzz: [said.seed]}
    try:
        made = Machines()
        for name, section in sections.items():
            if not said.only or name in said.only:
                try:
                    section(*([made] * (section is not fuzz) + more.get(section, [])))
                except Broken as exc:
                    TABLE.fail(str(exc))
    finally:
        shutil.rmtree(str(WORK), ignore_errors=True)
    print("\n%d rows did not reach what they are held to, %d are broken" % (TABLE.missed, len(TABLE.broken)))
    for text in TABLE.broken:
        print("BROKEN: " + text.splitlines()[0][:150])
    sys.exit(1 if TABLE.broken else 0)


if __name__ == "__main__":
    main()
