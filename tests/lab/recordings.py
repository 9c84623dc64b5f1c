# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What real tools print and return, kept as text in recordings/: a file holds its own script, so that to record anew is to run it again.

A file says:
  about       what it shows, in a sentence
  image       the lab's image it is recorded on
  packages    {package: version} that it came from, as dpkg says (filled in)
  log         optional: `argv`, a command that prints a log, and `only`, a pattern; its new lines are kept with each situation
  situations  in order, each building on those before it; each has
    situation   a plain sentence
    real        optional: why it takes a real machine, so that a simulated host is not asked
    boot        optional: GRUB's entry to boot before it, once; empty for the default
    before      optional: a shell script that prepares it and is not recorded
    argv        the command, or `script`, a shell script, where it takes a pipe
    after       optional: a shell script that takes back what it did, or waits for its effect; not recorded
    status, stdout, stderr, log   what came (filled in); a command without an end in time has the status `timeout`
"""
import difflib
import json
import pathlib
import re

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent / "recordings"
HEAD = "---\n# A recording: see ../recordings.py, which also says how it is made anew.\n"
RECORDED = ("status", "stdout", "stderr", "log")
SCRIPTED = ("situation", "real", "boot", "before", "argv", "script", "after")
SECONDS = 600  # for a command on a busy machine
RULES = [(re.compile(pattern, re.M), other) for pattern, other in (  # what changes by itself; applied where two recordings are compared, never to what is kept
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ [\d:]{8}( [AP]M)? (\w+ )?\d{4}\b", "TIME"),
    (r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d+ +(\d{4}|\d\d:\d\d)\b", "TIME"),  # of ls, cpio and lsinitrd
    (r"\b\d+(\.\d+)? [kM]?B\b", "SIZE"),  # of packages and what they bring
    (r"^([-d][-rwx]{9} +\d+ \w+ +\w+) +\d+ ", r"\1 SIZE "),  # of ls
    (r"\b\d+ files and directories", "N files and directories"),
    (r"\b20\d\d-\d\d-\d\d[ T][\d:]{5,8}(\.\d+)?( UTC|Z)?", "TIME"),
    (r"^\[ *\d+\.\d+\]", "[TIME]"),  # of dmesg
    (r"\b\d+(\.\d+)?(ms|s)\b", "TIME"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\b[0-9a-f]{32}([0-9a-f]{8})?\b", "ID"),  # of a boot, an invocation, a build
    (r"\b(4\.\d\d)\.\d+([-+]\S*\w)?", r"\1.POINT"),  # Xen's point releases, as packaged
    (r"(?<=\.c):\d+(?=:)", ":LINE"),
    (r"(^ +File \"[^\"]+\", line \d+, in .*\n) {4,}\S.*\n( +[\^~]+\n)?", r"\1"),  # Python quotes a line, and marks it, more often the newer it is
    (r"^((?:version|cpu_mhz|free_memory|total_memory|xen_extra|cc_compile_date|cc_compiler|release|nr_nodes) *: ).*", r"\1..."),  # of xl info
    (r"\bmfn (0x[0-9a-f]+|0)\b|Xen image load base address: 0x[0-9a-f]+", "ADDRESS"),
    (r"/mkinitramfs[_-]\w+|/dracut\.\w{6}|\.\w{6}(?=\b.*mktemp)", "/TEMPORARY"),
    (r"\brun-[ru]?[0-9a-f]+\.(service|scope|timer)", r"run-N.\1"),
    (r"\b[Pp][Ii][Dd]:? *=?\d+|(?<=\[)\d+(?=\]:)", "PID"),
    (r"\b\d+\.\d+\.\d+(\+deb\d+)?-\d+-amd64\b", "KERNEL-amd64"),  # Debian's point releases
    (r"\b\d+\.\d+\.\d+-late\b", "KERNEL-late"),
    (r"^(\S+ +\d+ +\d+ +\d+ +)[r-][b-]([p-][s-][c-][d-]) +\d+\.\d$", r"\1..\2 TIME"),  # of xl list: whether it runs this instant, and for how long it has
)]


def files():
    """Paths of all recordings."""
    return sorted(FOLDER.glob("*.yml"))


def load(path):
    """A file as a dictionary."""
    return yaml.safe_load(path.read_text())


def record(one, script):
    """Run a file's situations on a machine (machine.Machine) that was just booted; the dictionary of what a new file would hold."""
    new = dict(script, situations=[])
    batch = []
    for situation in script["situations"] + [None]:
        if batch and (situation is None or "boot" in situation):
            new["situations"] += _run(one, batch, script.get("log"))
            batch = []
        if situation is not None:
            if situation.get("boot"):
                one.ssh("grub-reboot", situation["boot"])
            if "boot" in situation:
                one.reboot()
            batch.append(dict((word, situation[word]) for word in SCRIPTED if word in situation))
    said = one.ssh("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *script["packages"]).stdout
    new["packages"] = dict(line.split() for line in said.splitlines())
    return new


def _run(one, batch, log):
    """The situations of a batch with what came of them. The machine runs all of them in one go: to log in takes it longer than most of them."""
    task = {"log": log, "situations": batch, "seconds": SECONDS}
    done = one.ssh("python3", "-c", _ON_THE_MACHINE, stdin=json.dumps(task), check=False, seconds=SECONDS * len(batch))
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(batch), "recording ended before %r: exit status %d, %s" % (
        batch[min(len(lines), len(batch) - 1)]["situation"], done.returncode, done.stderr[-2000:])
    return [dict(situation, **json.loads(line)) for situation, line in zip(batch, lines)]


_ON_THE_MACHINE = r"""
import json, os, re, subprocess, sys
task = json.load(sys.stdin)
os.makedirs("/srv/recordings", exist_ok=True)
os.chdir("/srv/recordings")
env = dict(os.environ, LC_ALL="C", TERM="dumb", HOME="/root")


def run(argv):
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=task["seconds"], env=env, check=False)
    except subprocess.TimeoutExpired:
        return "timeout", "", ""
    except OSError as exc:
        return "no such program", "", exc.strerror
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def aside(script):
    if script:
        status, stdout, stderr = run(["sh", "-ec", script])
        if status != 0:
            sys.exit("status %s of %r: %s%s" % (status, script, stdout, stderr))


def log():
    return run(task["log"]["argv"])[1].splitlines(True) if task["log"] else []


for situation in task["situations"]:
    aside(situation.get("before"))
    seen = log()
    status, stdout, stderr = run(situation.get("argv") or ["sh", "-c", situation["script"]])
    came = {"status": status, "stdout": stdout, "stderr": stderr}
    if task["log"]:
        lines = log()
        new = lines[len(seen):] if lines[:len(seen)] == seen else lines
        came["log"] = "".join(line for line in new if re.search(task["log"]["only"], line))
    aside(situation.get("after"))
    print(json.dumps(came), flush=True)
"""


def normal(text):
    """A text without what changes by itself."""
    for pattern, other in RULES:
        text = pattern.sub(other, text)
    return text


def difference(old, new):
    """How two recordings differ beside what changes by itself and the packages' versions: a diff, empty where they are the same."""
    sides = []
    for side in (old, new):  # each text by itself: rendered, its lines no longer begin and end where the rules expect it
        situations = [dict((word, normal(value) if word in RECORDED and isinstance(value, str) else value) for word, value in situation.items())
                      for situation in side["situations"]]
        sides.append(render(dict(side, packages=dict.fromkeys(side["packages"], ""), situations=situations)).splitlines(True))
    return "".join(difflib.unified_diff(*sides, "recorded", "now"))


def merged(old, new):
    """The new recording, but with the old one's words where they differ in nothing but what changes by itself."""
    if len(old["situations"]) != len(new["situations"]):
        return new
    situations = []
    for was, now in zip(old["situations"], new["situations"]):
        same = dict((word, was[word]) for word in RECORDED if isinstance(was.get(word), str) and normal(was[word]) == normal(now.get(word, "")))
        situations.append(dict(now, **same))
    return dict(new, situations=situations)


def render(recording):
    """A recording as the text of a file."""
    text = HEAD + "".join("%s:%s\n" % (word, _value(recording[word], "")) for word in ("about", "image", "packages", "log") if recording.get(word))
    text += "situations:\n"
    for situation in recording["situations"]:
        lines = ["%s:%s\n" % (word, _value(situation[word], "  ")) for word in SCRIPTED + RECORDED if word in situation]
        text += "- " + "  ".join(lines)
    return text


def _value(value, indent):
    """A value as YAML, at a depth of so many spaces, with what parts it from its key."""
    if isinstance(value, dict):
        return "".join("\n%s  %s:%s" % (indent, word, _value(value[word], indent + "  ")) for word in value)
    if not isinstance(value, str) or "\n" not in value:
        return " " + yaml.safe_dump(value, default_flow_style=True, width=10000, allow_unicode=True).replace("\n...\n", "\n").rstrip("\n")
    inner = indent + "  "
    if value.endswith("\n") and not value.endswith("\n\n") and not re.search(r"[^\n\x20-\x7e]|^\n| $", value, re.M):
        return " |%s\n" % ("2" if value.startswith(" ") else "") + "\n".join(inner + line if line else "" for line in value[:-1].split("\n"))
    # quoted line by line: what a literal block cannot hold, or an editor would spoil
    lines = ["\\" * line.startswith(" ") + json.dumps(line)[1:-1] for line in value.splitlines(True)]
    return ' "' + "".join("\\\n" + inner + line for line in lines) + '"'
