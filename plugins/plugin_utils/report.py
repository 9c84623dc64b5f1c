# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a fleet's microcode facts come to: one state for each host, the posture of all of them, the table, and the JSON file; page.py makes the page.

Facts come from hosts and are not trusted: any key may be missing, null or of another type, and texts may hold control characters.
"""
import contextlib
import json
import os
import re
import secrets
import stat
import textwrap
from collections import Counter

SCHEMA = 1
STATES = {  # what to act on comes first; the table follows this order
    "cpus_differ": "CPUs differ",
    "not_loaded": "newer on disk, next boot will not load it",
    "no_file": "no microcode file for this CPU on the host",
    "not_reached": "not reached",
    "unknown": "unknown",
    "pending_reboot": "update pending reboot",
    "nothing_newer": "nothing newer at hand",
    "not_applicable": "not applicable",
}
ROWS = 15  # rows of one state in the table; more are counted, and stand in the JSON
REBUILD = {"initramfs-tools": "update-initramfs -u -k %s", "dracut": "dracut -f --kver %s", "mkinitcpio": "mkinitcpio -P"}  # %s: the default kernel
PACKAGES = {  # which bring microcode, by the distribution's id or family: Intel's, AMD's
    "debian": ("intel-microcode (component non-free-firmware)", "amd64-microcode (component non-free-firmware)"),
    "ubuntu": ("intel-microcode", "amd64-microcode"), "fedora": ("microcode_ctl", "linux-firmware"), "rhel": ("microcode_ctl", "linux-firmware"),
    "xcp-ng": ("microcode_ctl", "amd-microcode"), "suse": ("ucode-intel", "ucode-amd"), "arch": ("intel-ucode", "amd-ucode"),
    "alpine": ("intel-ucode", "amd-ucode"), "gentoo": ("sys-firmware/intel-microcode", "sys-kernel/linux-firmware"),
}
CAVEATS = "/usr/share/microcode_ctl/ucode_with_caveats/%s/readme"
HEADS = ("HOST", "CPU", "SIGNATURE", "RUNS", "AT HAND", "NEXT BOOT")


class ReportError(Exception):
    """A file cannot be written; the text says why and what would change that."""


# --- reading what hosts say ---

def part(value, *keys):
    """value[key][key]…, or None where something on the way is no dict or lacks the key."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def items(value):
    """A list's items; none where it is no list."""
    return value if isinstance(value, (list, tuple)) else ()


def clean(value, limit=300):
    """One line of printable text: no control characters, nothing that reorders what follows; None where it is no text or empty."""
    if not isinstance(value, str):
        return None
    text = "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in value[:limit * 4])
    text = " ".join(text.split())
    return (text if len(text) <= limit else text[:limit - 3] + "...") or None


def plain(value, depth=12):
    """A copy in JSON's own types; what is none of them, or nested deeper, is null."""
    if isinstance(value, dict):
        return {str(key): plain(each, depth - 1) for key, each in value.items()} if depth else None
    if isinstance(value, (list, tuple)):
        return [plain(each, depth - 1) for each in value] if depth else None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and value - value != 0:  # NaN and infinity
        return None
    return value if value is None or isinstance(value, (bool, int, float)) else None


def number(value, signed=False):
    """int of a revision or signature such as "0x0000002b"; signed where its 32 bits are Intel's revision; None where it is none."""
    if not isinstance(value, str) or not re.fullmatch(r"0x[0-9a-fA-F]{1,8}", value):
        return None
    found = int(value, 16)
    return found - (1 << 32) if signed and found >> 31 else found


def hex8(value):
    """0x-prefixed hex in 8 digits; None stays None."""
    return None if value is None else "0x%08x" % (value & 0xffffffff)


def spans(cpus):
    """"0-39, 80" of a list of CPU numbers."""
    found = []
    for cpu in sorted({cpu for cpu in items(cpus) if isinstance(cpu, int)}):
        if found and cpu == found[-1][1] + 1:
            found[-1][1] = cpu
        else:
            found.append([cpu, cpu])
    return ", ".join("%d" % first if first == last else "%d-%d" % (first, last) for first, last in found)


def short_name(cpu):
    """"Xeon Gold 6148" of "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz"; family-model-stepping where there is no name; else None."""
    name = clean(part(cpu, "name"), 100)
    if name:
        name = re.sub(r"\((?:R|TM)\)|@.*|\b(?:with|w/) .*|\b\d+(?:th|st|nd|rd) Gen\b", " ", name, flags=re.I)
        name = re.sub(r"\b(?:Intel|AMD|Genuine|Authentic|CPU|Processor|\S+-Core)\b", " ", name, flags=re.I)
        name = " ".join(name.split())
    triple = [part(cpu, key) for key in ("family", "model", "stepping")]
    if not name and all(isinstance(each, int) for each in triple):
        name = "%02x-%02x-%02x" % tuple(triple)
    return name or None


# --- one host ---

class View:
    """What one host's results say, read once; each attribute is None where that is not known.

    tries: what the host's attempts at microcode_facts were registered as, in their order, as far as they are defined.
    """

    def __init__(self, tries):
        tries = [each for each in tries if isinstance(each, dict)]
        last = tries[-1] if tries else None
        facts = part(last, "ansible_facts", "microcode")
        self.failure = _failure(last)
        self.facts = facts if isinstance(facts, dict) else None
        self.warnings = [text for text in map(clean, items(part(facts, "warnings"))) if text]
        self.vendor = part(facts, "cpu", "vendor")
        self.signature = number(part(facts, "cpu", "signature"))
        self.running = self.revision(part(facts, "cpu", "revision"))
        cpus = part(facts, "cpu", "revisions")
        cpus = {self.revision(key): spans(value) for key, value in cpus.items()} if isinstance(cpus, dict) else {}
        self.cpus = sorted((key, value) for key, value in cpus.items() if key is not None)
        self.role = part(facts, "hypervisor", "role")
        self.pending = self.revision(part(facts, "pending"))
        files = part(facts, "files")
        self.files = [each for each in files if isinstance(each, dict)] if isinstance(files, list) else None
        read = [(self.revision(part(each, "revision")), each) for each in self.files or ()]
        self.at_hand, self.newest = max((item for item in read if item[0] is not None), key=lambda item: item[0], default=(None, None))
        # a file whose revision is not known may hold a newer one, unless its reader says that it holds none for this processor
        self.doubtful = [clean(part(each, "path")) or "?" for revision, each in read if revision is None and part(each, "problem")]
        self.initrd, self.no_newer, self.obstacle = None, False, None
        self._boot(part(facts, "early"))
        self.notes = []
        if len(tries) > 1 and not self.failure:
            self.notes.append("read without becoming root, which failed: %s; not all can be read without root" % _failure(tries[0]))

    def revision(self, value):
        """int of a revision, signed for Intel, so that a pre-production one is older than any other."""
        return number(value, self.vendor == "GenuineIntel")

    def _boot(self, early):
        """no_newer: whether it is known that the next boot loads nothing newer; obstacle: why it does not load what is at hand."""
        default = next((each for each in items(part(early, "kernels")) if part(each, "default") is True), None)
        image = clean(part(default, "image"), 100)
        self.initrd = image or clean(part(default, "initrd"), 100)
        loads, option, lack = part(early, "loads"), None, None
        if default is None or self.running is None or loads not in ("update", "none"):
            return
        carries, revision = part(default, "carries"), self.revision(part(default, "revision"))
        if part(self.facts, "hypervisor", "type") == "xen":
            if part(early, "xen_ucode") in ("none", "off") and loads == "none":
                option = "Xen is started without ucode=scan, so that it takes none from the initrd"
        elif loads == "none" and carries == "update":
            option = ("the kernel's loader is switched off: take dis_ucode_ldr from its command line" if part(early, "disabled") is True
                      else "the kernel that boots next was built without a loader for this CPU (CONFIG_MICROCODE)")
        if carries == "none":
            lack = "%s carries none for this CPU" % self.initrd if self.initrd else "the default boot entry loads no initrd"
        elif carries == "update" and revision is not None and revision < (self.at_hand or revision):
            lack = "%s carries %s" % (self.initrd, hex8(revision))
        if lack:
            caveat = clean(part(self.newest, "caveat"), 60)
            remedy = "microcode_ctl may hold the newer one back: see " + CAVEATS % caveat if caveat else None if image else self._rebuild(early, default)
            lack += "; " + remedy if remedy else ""
        self.obstacle = "; ".join(filter(None, (option, lack))) or None
        self.no_newer = self.pending is None

    def _rebuild(self, early, kernel):
        """What makes this kernel's initrd anew, or None. People paste it: so nothing that a shell would read otherwise."""
        system, version = part(self.facts, "boot", "system"), part(kernel, "version")
        if system in ("ostree", "transactional-update"):  # the initrd belongs to a deployment or snapshot
            return "transactional-update initrd rebuilds it" if system != "ostree" else "the next deployment brings another initrd"
        command = REBUILD.get(clean(part(early, "tool")), "")
        if "%s" in command:
            command = command % version if isinstance(version, str) and re.fullmatch(r"\w[\w.+~-]{,99}", version, re.A) else ""
        return command + " rebuilds it" if command else None

    def said(self, about=None):
        """What the host's warnings give as the reason; where some begin with about, those."""
        warnings = [text for text in self.warnings if about and text.startswith(about)] or self.warnings
        more = " (and %d more, see the JSON)" % (len(warnings) - 2) if len(warnings) > 2 else ""
        return "; ".join(warnings[:2]) + more if warnings else "the facts do not say why"


def _failure(result):
    """Why a host has no facts, or None where it has."""
    if result is None:
        return "no facts were read from it: it dropped out of the play before, its turn comes with a later batch (serial), or results names no variable of it"
    if part(result, "skipped"):
        return "the task that reads the facts was skipped"
    if not part(result, "unreachable") and not part(result, "failed"):
        return None
    text = re.sub(r"^(Task failed: )+|[.\s]*See stdout/stderr for the (exact error|returned output)\.?$|\.$", "", clean(part(result, "msg")) or "")
    # with a terminal, as without pipelining, what the module wrote is all in stdout, and stderr tells the end of the connection
    written = "\n".join(part(result, name)[-10000:] for name in ("module_stdout", "module_stderr") if isinstance(part(result, name), str)).splitlines()
    written = [line for line in written if line.strip(" ^") and not re.match(r'\s*File "|Shared connection to .* closed|Connection to .* closed', line)]
    if "SyntaxError: future feature annotations" in " ".join(written[-2:]):
        written = ["its Python is too old for this ansible-core; 2.16 is the last one that drives Python 3.6"]
    text = ": ".join(filter(None, (text, clean(" ".join(written[-2:]), 250))))
    return text or "the task failed without a message"


# Each rule returns the reason for its state ("": the table's columns say it all), or None where it does not apply.

def _not_reached(view):
    return view.failure


def _no_facts(view):
    if view.facts is None:
        return "the result holds no microcode facts"
    if view.facts.get("schema") != SCHEMA:
        return "facts of schema %s, this report knows %d: use one version of the collection everywhere" % (
            clean(str(plain(view.facts.get("schema"))), 20), SCHEMA)
    return None


def _not_applicable(view):
    if view.role == "guest":
        return "guest of %s: its host loads microcode, its own revision says nothing" % (
            clean(part(view.facts, "hypervisor", "type"), 20) or "an unknown hypervisor")
    if view.facts.get("applicable") is False:
        return "not a processor of Intel or AMD (%s): it takes no microcode from the operating system" % (clean(view.vendor, 20) or "no x86 vendor")
    return None


def _role_unknown(view):
    return None if view.role in ("none", "host") else "whether this is a guest is not known: " + view.said()


def _cpus_differ(view):
    return "; ".join("%s on CPUs %s" % (hex8(revision), cpus or "?") for revision, cpus in view.cpus) if len(view.cpus) > 1 else None


def _cpu_unknown(view):
    missing = [name for name, value in (("signature", view.signature), ("revision", view.running)) if value is None]
    return "no %s is known: %s" % (" and no ".join(missing), view.said()) if missing else None


def _not_loaded(view):
    if view.at_hand is None or view.at_hand <= max(view.running, view.running if view.pending is None else view.pending):
        return None
    return view.obstacle  # None: whether the next boot loads it is not known


def _pending_reboot(view):
    return "" if view.pending is not None and view.pending > view.running else None


def _files_unknown(view):
    if view.files is None:
        return "its microcode files were not read: " + view.said()
    doubtful = [] if _newer(view) else view.doubtful
    return "what a file holds is not known: " + view.said(doubtful[0]) if doubtful else None


def _boot_unknown(view):
    return "newer is on the disk, but what the next boot loads is not known: " + view.said(view.initrd) if _newer(view) else None


def _no_file(view):
    if view.at_hand is not None:
        return None
    if view.files:
        return "%s holds none for it" % ", ".join(str(clean(part(each, "path"), 100)) for each in view.files[:2])
    package = next((PACKAGES[key] for key in (part(view.facts, "distro", name) for name in ("id", "family")) if isinstance(key, str) and key in PACKAGES), None)
    return "is the distribution's package %s installed?" % (package[view.vendor == "AuthenticAMD"] if package else "of microcode")


def _newer(view):
    return view.at_hand is not None and view.at_hand > view.running


RULES = (  # the order of precedence: the first rule that applies gives the state; a rule may rely on those above it
    ("not_reached", _not_reached),
    ("unknown", _no_facts),
    ("not_applicable", _not_applicable),
    ("unknown", _role_unknown),
    ("cpus_differ", _cpus_differ),
    ("unknown", _cpu_unknown),
    ("not_loaded", _not_loaded),
    ("pending_reboot", _pending_reboot),
    ("unknown", _files_unknown),
    ("unknown", _boot_unknown),
    ("no_file", _no_file),
    ("nothing_newer", lambda view: ""),
)


def assess(tries):
    """What the JSON says of one host; tries as View takes them."""
    view = View(tries)
    state, because = next((state, because) for state, because in ((state, rule(view)) for state, rule in RULES) if because is not None)
    running, at_hand, next_boot = (None,) * 3 if state == "not_applicable" else map(hex8, (view.running, view.at_hand, view.pending))
    return {"state": state, "because": clean(because, 500), "notes": view.notes, "cpu": short_name(part(view.facts, "cpu")),
            "signature": hex8(view.signature), "running": running, "at_hand": at_hand, "next_boot": next_boot,
            "next_boot_known": view.pending is not None or view.no_newer, "facts": plain(view.facts)}


# --- the fleet ---

def posture(hosts):
    """Counts over {name: what assess() returned}."""
    missing, affected = Counter(), 0
    for each in hosts.values():
        named = lacking(each)
        missing.update(named)
        affected += bool(named)
    states = Counter(each["state"] for each in hosts.values())
    return {"hosts": len(hosts), "states": {state: states[state] for state in STATES},
            "vulnerable": {"hosts": affected, "names": dict(missing.most_common(50))},
            "warnings": sum(1 for each in hosts.values() if items(part(each["facts"], "warnings")))}


def lacking(entry):
    """Names of the vulnerabilities that newer microcode would close, as the host's kernel said at its boot."""
    said = part(entry["facts"], "vulnerabilities") if part(entry["facts"], "hypervisor", "role") in ("none", "host") else None
    return [clean(name, 60) or "?" for name, text in said.items() if isinstance(text, str) and text.startswith("Vulnerable")
            and ("no microcode" in text.lower() or name == "old_microcode")] if isinstance(said, dict) else []


def table(hosts, counts, gathered, width=79):
    """[(state or None, line), …] for the terminal: the posture, then one row for all hosts alike, what to act on first."""
    lines = [(None, "Microcode of %s, %s" % (quantity(len(hosts), "host"), gathered))]
    found = ["%s: %d" % (STATES[state], count) for state, count in counts["states"].items() if count]
    lines += _wrapped(None, 2, "; ".join(each.replace(" ", "\0") for each in found), width, 9)
    named = ["%s (%d)" % item for item in counts["vulnerable"]["names"].items()]
    if named:
        lines += _wrapped(None, 2, "%s vulnerable for want of newer microcode, as the kernel saw it at boot: %s%s" % (
            quantity(counts["vulnerable"]["hosts"], "host"), ", ".join(named[:4]), " and %d more" % (len(named) - 4) if named[4:] else ""), width)
    rows = {}
    for name, each in hosts.items():
        rows.setdefault((each["state"], cells(each), each["because"], tuple(each["notes"])), []).append(name)
    shown = [(state, [(key, names) for key, names in rows.items() if key[0] == state]) for state in STATES]
    shown = [(state, sorted(same, key=lambda row: -len(row[1])) if len(same) > ROWS else same) for state, same in shown if same]
    labels = {key: _label(names) for _state, same in shown for key, names in same[:ROWS]}
    form, host, cpu = _columns(max([4] + [len(label) for label in labels.values()]), max([3] + [len(key[1][0]) for key in labels]), width)
    lines += [(None, ""), (None, form % HEADS)]
    for state, same in shown:
        lines += [(None, ""), (state, "%s: %s" % (STATES[state], quantity(sum(len(names) for _key, names in same), "host")))]
        for key, names in same[:ROWS]:
            label, after = labels[key], key[1]
            if len(label) > host:  # as df does: a name is never cut
                lines.append((state, label))
                label = ""
            row = (form % ((label, after[0] if len(after[0]) <= cpu else after[0][:cpu - 2] + "..") + after[1:])).rstrip()
            lines += [(state, row)] if row else []
            for text in filter(None, key[2:3] + key[3] + _warned([hosts[name] for name in names], key[2] or "")):
                lines += _wrapped(state, 4, text, width)
        if same[ROWS:]:
            lines.append((state, "    ... and %s more: see the JSON" % quantity(sum(len(names) for _key, names in same[ROWS:]), "host")))
    return lines


def _columns(host, cpu, width):
    """(form of a row, width of the host column, of the CPU column) that fit, for the longest of each."""
    gap = 2 if host + min(cpu, 20) + 50 <= width else 1
    room = width - 44 - 3 * gap  # four columns of ten, and two spaces after the first two
    cpu = min(cpu, 20, max(16, room - host))
    host = min(host, room - cpu)
    return ("%%-%ds  %%-%ds  " % (host, cpu) + (" " * gap).join(["%-10s"] * 3 + ["%s"])), host, cpu


def quantity(number_of, what):
    return "%d %s%s" % (number_of, what, "" if number_of == 1 else "s")


def _label(names):
    return (clean(names[0], 253) or "?") + (" +%d" % (len(names) - 1) if names[1:] else "")


def _wrapped(state, indent, text, width, most=3):
    """Lines of text; a NUL in it is a space at which no line ends."""
    lines = textwrap.wrap(text, width - indent, max_lines=most, placeholder=" ...")
    return [(state, " " * indent + line.replace("\0", " ")) for line in lines]


def cells(entry):
    """What the columns after the host say; a word stands where there is no number, since an empty field could mean anything."""
    if entry["state"] == "not_reached":
        return "", "", "", "", ""
    about = (entry["cpu"] or "unknown", entry["signature"] or "unknown")
    if entry["state"] == "not_applicable":
        return about + ("n/a",) * 3
    return about + (entry["running"] or ("differs" if entry["state"] == "cpus_differ" else "unknown"),
                    entry["at_hand"] or ("none" if part(entry["facts"], "files") == [] else "unknown"),
                    entry["next_boot"] or ("no newer" if entry["next_boot_known"] else "unknown"))


def _warned(entries, because):
    """The two warnings that most of these hosts give, beside what is the reason already."""
    each_said = (dict.fromkeys(map(clean, items(part(each["facts"], "warnings")))) for each in entries)
    said = Counter(text for texts in each_said for text in texts if text and text not in because)
    return tuple("warning%s: %s" % (" (%s)" % quantity(count, "host") if entries[1:] else "", text) for text, count in said.most_common(2))


# --- the files ---

def document(hosts, counts, gathered):
    """The report as JSON text, one line for each host."""
    lines = ",\n".join("%s: %s" % (json.dumps(str(name)), json.dumps(each, allow_nan=False)) for name, each in hosts.items())
    return '{"schema": %d, "gathered": %s, "posture": %s, "hosts": {\n%s\n}}\n' % (SCHEMA, json.dumps(gathered), json.dumps(counts), lines)


def write(path, text):
    """Put text at path for its owner alone, whole or not at all; a link of that name is replaced, not followed. Raises ReportError."""
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    temporary = ".%s.tmp" % secrets.token_hex(8)
    try:
        with contextlib.ExitStack() as stack:
            at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # all below happens in this one folder
            stack.callback(os.close, at)
            with contextlib.suppress(FileNotFoundError):
                kind = os.lstat(name, dir_fd=at).st_mode
                if not stat.S_ISREG(kind) and not stat.S_ISLNK(kind):
                    raise ReportError("%s is there and is no regular file; name another path for the report" % path)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=at)
            try:
                with open(handle, "w", encoding="ascii") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(handle)
                os.replace(temporary, name, src_dir_fd=at, dst_dir_fd=at)
            except OSError:
                os.unlink(temporary, dir_fd=at)
                raise
            os.fsync(at)
    except OSError as exc:
        raise ReportError("the report %s cannot be written: %s; its folder must be there and writable for who runs Ansible"
                          % (path, exc.strerror)) from None
