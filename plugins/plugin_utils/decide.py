# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done with one host: from its facts, the rules and the operator's options to an action, with every reason for it.

What takes precedence over what is written down here once: GATES, then VERDICTS, each from the top. Every sentence of a decision carries the id of the rule
that it comes from; those of this file begin with "engine.". Facts come from hosts and are not trusted.
"""
import functools
import re

from ansible_collections.fleet.microcode.plugins.plugin_utils.policy import READERS, day, is_signed, revision, scope_of
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import SCHEMA, clean, hex8, items, number, part, plain, quantity, spans

DEFAULTS = {"late": "never", "guests": "none", "hold_days": 0, "accept": (), "target": "newest_staged", "today": None}
MOST = 64  # files looked at; a host has a few
PACKED = (".zst", ".xz", ".gz")
WOULD_TELL = {  # what is not known: what would tell
    "candidate.start": "What firmware brings, a boot that loads nothing shows (dis_ucode_ldr on Linux's command line; on Xen none of ucode=).",
    "facts.cpu.pf_mask": "dom0 does not see the platform mask of Xen's CPUs; Linux without Xen does.",
}
ALONE = ("zenbleed",)  # closed by microcode alone; Linux has no file of it among the vulnerabilities
LINUX = "Linux, arch/x86/kernel/cpu/microcode/"


class _Host:
    """What of a host's facts decides, read once."""

    def __init__(self, facts):
        self.facts = facts
        self.vendor, self.signed = part(facts, "cpu", "vendor"), is_signed(facts)
        self.intel = self.vendor == "GenuineIntel"
        self.signature = number(part(facts, "cpu", "signature"))
        self.runs = revision(part(facts, "cpu", "revision"), self.signed)
        shown = part(facts, "cpu", "revisions")
        self.cpus = sorted((key, spans(cpus)) for key, cpus in shown.items()) if isinstance(shown, dict) and all(isinstance(key, str) for key in shown) else []
        self.role, self.xen = part(facts, "hypervisor", "role"), part(facts, "hypervisor", "type") == "xen"
        self.offline, self.unread = items(part(facts, "cpu", "offline")), _count(part(facts, "cpu", "unread"))
        self.kernels = [each for each in items(part(facts, "early", "kernels"))[:MOST] if isinstance(each, dict)]
        self.next = [revision(each.get("revision"), self.signed) for each in self.kernels if each.get("default") is True]  # what its initrd has
        self.files, self.doubtful, self.waiting, self.held = [], [], [], []  # waiting: those of the doubtful for which firmware must come first
        self.sought = []  # paths by which Linux looks for a file to load late, in its order
        for entry in items(part(facts, "files"))[:MOST]:
            self._file(entry)
        self.start = self._start()

    def _file(self, entry):
        """A file's candidate, or why there is none."""
        path, found = clean(part(entry, "path"), 4096), revision(part(entry, "revision"), self.signed)
        path = path if path == part(entry, "path") else None
        caveat, problem, sha256 = (clean(part(entry, key)) for key in ("caveat", "problem", "sha256"))
        least = revision(part(entry, "min_revision"), self.signed)
        if not caveat and part(entry, "early_only") is False:
            self.sought.append(path or "a file without a name")
        if caveat and (found is None or found not in self.next):  # the next boot's initrd carries it where microcode_ctl lets it through
            if found is not None or problem:
                self.held.append((found, path, caveat))
        elif found is not None and path and sha256:
            early_only = bool(caveat) or part(entry, "early_only")  # late loading does not look into the folders of caveats
            self.files.append({
                "to": found, "file": path, "sha256": sha256, "date": clean(part(entry, "date"), 20), "package": clean(part(entry, "package")),
                "min_revision": least, "early_only": early_only if isinstance(early_only, bool) else None})
        elif found is not None or problem or not isinstance(entry, dict):
            self.doubtful.append((path or "a file without a name", problem or "its path or its SHA-256 is not known"))
            if found is None and None not in (least, self.runs) and not self.intel and self.runs < least:
                self.waiting.append(self.doubtful[-1])

    def _start(self):
        """The revision that firmware brings, from which every early load sets out; None where that is not proven, as where a load may have covered it."""
        if self.xen:
            return revision(part(self.facts, "cpu", "boot_revision"), self.signed) if self._xen_loaded_nothing() else None
        # of an initrd it is known what it carries now, not what it carried when it was booted; and kexec leaves what was loaded before
        alone = "dis_ucode_ldr" in items(part(self.facts, "command_line")) and part(self.facts, "boot", "reboot_is_kexec") is False
        return self.runs if alone else None

    def _xen_loaded_nothing(self):
        """Whether the Xen that runs is known to have loaded nothing before dom0 booted: from 4.21 on it may scan unasked, and xen.cfg may name a file."""
        option, following = part(self.facts, "hypervisor", "xen", "ucode"), part(self.facts, "early", "xen_ucode")
        version = READERS["version"](part(self.facts, "hypervisor", "version"), None)
        return following in ("none", "off") and (option == "off" or option == "none" and version is not None and version[0][:2] <= (4, 20))


def _count(value):
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


# --- gates: hosts of which no candidate is looked at; each returns the reason, or None where it does not apply ---

def _no_facts(host):
    return None if isinstance(host.facts, dict) else "It has no microcode facts: it was not reached, or they were not read. Read them, and plan again."


def _schema(host):
    found = host.facts.get("schema")
    if found == SCHEMA and found is not True:
        return None
    return "Its facts are of schema %s, and %d is known here. Use one version of the collection everywhere." % (clean(str(plain(found)), 20), SCHEMA)


def _not_its_business(host):
    if host.role == "guest":
        return "It is a guest of %s: its host loads microcode." % (clean(part(host.facts, "hypervisor", "type"), 20) or "an unknown hypervisor")
    if host.facts.get("applicable") is False or isinstance(host.vendor, str) and host.signed is None:
        return "Its processor, of %s, takes no microcode from the operating system." % (clean(host.vendor, 20) or "no x86 vendor")
    return None


def _role_unknown(host):
    return None if host.role in ("none", "host") else "Whether it is a guest is not known. Its warnings say why; read its facts as root."


def _processor_unknown(host):
    several = [clean(each, 20) or "?" for each in items(part(host.facts, "cpu", "signatures"))[:8]]
    if host.signed is not None and host.signature is not None and len(several) < 2:
        return None
    return "Its CPUs differ in kind (%s), and each kind needs microcode of its own." % ", ".join(several) if several[1:] else \
        "Which processor it has is not known. Its warnings say why."


def _revisions_differ(host):
    return "Its CPUs run different revisions: %s. Find out why; a boot with microcode in the initrd reaches every CPU." % "; ".join(
        "%s on CPUs %s" % (clean(found, 20) or "?", cpus or "?") for found, cpus in host.cpus[:8]) if len(host.cpus) > 1 else None


def _revision_unknown(host):
    unread = (host.unread or 0) - (0 if host.xen else len(host.offline))
    if host.runs is not None and (unread <= 0 or host.xen):  # Xen shows the revision of few of its CPUs
        return None
    return "Which revision runs is not known%s. Its warnings say why; read its facts as root." % (
        " of %s" % quantity(unread, "CPU") if host.runs is not None else "")


def _files_unknown(host):
    return None if isinstance(host.facts.get("files"), list) else "Which microcode files it has is not known. Read its facts with all sections."


GATES = (  # (action, rule, reason), the first one counts
    ("unknown", "no-facts", _no_facts),
    ("unknown", "schema", _schema),
    ("none", "not-its-business", _not_its_business),
    ("unknown", "role-unknown", _role_unknown),
    ("unknown", "processor-unknown", _processor_unknown),
    ("unknown", "revisions-differ", _revisions_differ),
    ("unknown", "revision-unknown", _revision_unknown),
    ("unknown", "files-unknown", _files_unknown),
)
VERDICTS = (  # (what is said of a candidate, action), the first one counts; where nothing is said it is taken: late where all allows it, else early
    ("block", "blocked"),
    ("firmware_first", "firmware_first"),
    ("unknown", "unknown"),  # whether a rule of the effect block, firmware_first or review speaks
    ("review", "blocked"),  # until it is accepted by name
)
STANDING = tuple(said for said, _action in VERDICTS)
ORDER = STANDING + ("require", "newer", "allow_late", "early_only", "note")  # in which reasons are given


# --- one candidate ---

class _Case:
    """The rules, asked about one host."""

    def __init__(self, policy, host, options):
        self.policy, self.host, self.options = policy, host, options

    def scope(self, path, found):
        """What the rules are asked about: a way from what runs to a file's revision."""
        start = self.host.start if path == "early" else self.host.runs
        changes = {"path": path, "from": hex8(self.host.runs), "start": hex8(start), "to": hex8(found["to"]), "min_revision": hex8(found.get("min_revision")),
                   "age_days": self.age(found)}
        return scope_of(self.host.facts, {**dict.fromkeys(("date", "file", "package", "early_only", "sha256")), **found, **changes}, self.options)

    def at(self, to):
        """What the rules are asked about a host that runs this revision already."""
        return scope_of(self.host.facts, {"path": "early", "from": hex8(to), "start": hex8(to), "to": hex8(to)}, self.options)

    def released(self, found):
        """The day of a release: the latest of the file's own and those that its package's version has; None where that has none, or there is no package.

        A file's own day is months before its release.
        """
        package = found.get("package")
        named = [day("-".join(each)) for each in re.findall(r"(?<!\d)(20\d\d)(\d\d)(\d\d)(?!\d)", package or "")]
        return max(filter(None, named + [day(found.get("date"))])) if any(named) else None

    def age(self, found):
        """Days since then; None where that is not known."""
        released, today = self.released(found), day(self.options["today"])
        return (today - released).days if released and today else None

    @functools.cached_property
    def asked(self):
        """[(rule, True or Unknown, text)] of what the rules say of what runs, whatever is at hand."""
        scope = self.at(self.host.runs)
        return [(rule, answer, rule.said(scope)) for rule, answer in self.policy.asked(scope)]

    @property
    def standing(self):
        """[(rule, text)] of those that speak."""
        return [(rule, text) for rule, answer, text in self.asked if answer is True]

    @property
    def doubted(self):
        """{paths: [rule]} of those that may ask for another revision, and the facts that would tell."""
        return _lacking((rule, answer) for rule, answer, _text in self.asked if rule.effect == "require" and answer is not True)

    @functools.cached_property
    def needed(self):
        """[(rule, reason)] of what asks for another revision than the one that runs; a revision that is refused is no reason to stay on it."""
        return [(rule, _reason(rule.id, "require", text, rule.source)) for rule, text in self.standing if rule.effect == "require"] + [
            (rule, _reason(rule.id, "require", "%s runs already, and is to be left: %s" % (hex8(self.host.runs), text), rule.source))
            for rule, text in self.standing if rule.effect == "block" and "candidate.to" in rule.match_paths]

    def met(self, to):
        """Whether a revision is all that is asked for."""
        scope = self.at(to)
        return all(rule.asked(scope) is False for rule, _because in self.needed)

    def verdict(self, found):
        """(action, or None where nothing stands against it, [reason]) of an early load."""
        scope, reasons, lacking = self.scope("early", found), [], []
        for rule, answer in self.policy.asked(scope):
            if rule.effect == "review" and rule.id in self.options["accept"]:
                reasons.append(_reason(rule.id, "note", "Accepted by name: " + rule.said(scope), rule.source))
            elif rule.effect in ("block", "firmware_first", "review"):
                reasons.append(_of(rule, answer, scope))
            elif rule.effect in ("require", "note") and answer is not True:
                lacking.append((rule, answer))
            elif rule.effect == "note":
                reasons.append(_of(rule, answer, scope))
        if not self.host.intel and found.get("min_revision") is not None and self.host.runs < found["min_revision"]:
            reasons.append(_engine("amd-minimum", "firmware_first", "%s can be loaded from %s on, which newer firmware brings; %s runs. Update the firmware "
                                   "first." % (hex8(found["to"]), hex8(found["min_revision"]), hex8(self.host.runs)), "linux-firmware, amd-ucode/README"))
        reasons += _not_known(_lacking(lacking))
        said = _kinds(reasons)
        return next((action for kind, action in VERDICTS if kind in said), None), reasons

    def late(self, found):
        """(whether everything allows a late load, [reason])."""
        scope = self.scope("late", found)
        asked = [(rule, answer) for rule, answer in self.policy.asked(scope) if not (rule.effect == "review" and rule.id in self.options["accept"])]
        against = [_of(rule, answer, scope, "early_only") for rule, answer in asked if rule.effect in ("block", "firmware_first", "review", "early_only")]
        allowing = [(answer, _of(rule, answer, scope, "allow_late")) for rule, answer in asked if rule.effect == "allow_late"]
        notes = [_of(rule, answer, scope) for rule, answer in asked if rule.effect == "note" and answer is True]
        allowed = [reason for answer, reason in allowing if answer is True]
        if not allowed:
            against.insert(0, _engine("late-distribution", "early_only", "No rule allows late loading on this distribution (%s)." % (
                clean(part(self.host.facts, "distro", "id"), 40) or "which is not known")))
            against += [("early_only", because) for _answer, (_kind, because) in allowing]
        against += [_engine("late-" + name, "early_only", text, source) for name, text, source in self._missing(found)]
        return not against, against + allowed + (notes if not (against and allowed) else [])

    def _missing(self, found):
        """(name, text, source) of what a late load needs of the file and the platform, and does not have."""
        host, facts = self.host, self.host.facts
        declared, forced, late = found["min_revision"], part(facts, "late", "min_revision_forced"), part(facts, "late", "interface")
        if found["early_only"] is not False:
            yield "file", "%s is %sfor early loading alone." % (found["file"], "" if found["early_only"] else "perhaps "), "facts.files"
        elif host.xen and found["file"].endswith(PACKED):
            yield "file", "xen-ucode hands Xen the file as it lies, and %s is packed. Unpack it beside, or load early." % found["file"], "facts.files"
        elif not host.xen and host.sought[0] != found["file"]:
            yield "file", "Linux looks for the file itself, and finds %s before %s." % (host.sought[0], found["file"]), "facts.files"
        if host.intel and declared is None:
            yield "minimum", "Intel declares no revision from which on %s may be loaded late." % hex8(found["to"]), LINUX + "intel.c"
        elif host.intel and host.runs < declared:
            yield "minimum", "Intel declares %s safe to load late from %s on, and %s runs." % (
                hex8(found["to"]), hex8(declared), hex8(host.runs)), LINUX + "intel.c"
        elif late == "sysfs" and not host.intel and forced is not False:
            yield "minimum", "The kernel %s a minimum revision that the file declares, and reads none from AMD's files." % (
                "insists on" if forced else "may insist on"), LINUX + "core.c"
        if part(facts, "late", "available") is not True:
            yield "platform", "The running system cannot load late: %s." % (clean(part(facts, "late", "why_not")) or "why is not known"), "facts.late"
        elif late != ("xen-ucode" if host.xen else "sysfs"):
            yield "platform", "Late loading would go through %s, which is not the way on %s." % (
                clean(late, 20) or "an unknown interface", "Xen" if host.xen else "Linux"), "facts.late"
        if not host.cpus:
            yield "cpus", "Which CPU runs what is not known.", "facts.cpu.revisions"
        elif not host.xen and not isinstance(part(facts, "cpu", "offline"), (list, tuple)):
            yield "cpus", "Which CPUs are offline is not known, and where any is Linux refuses a late load.", "facts.cpu.offline"
        elif host.offline and not host.xen:
            yield "cpus", "CPUs %s are offline, and Linux then refuses a late load." % (spans(host.offline[:8192]) or "of unknown number"), LINUX + "core.c"
        elif host.unread is None:
            yield "cpus", "Of how many CPUs the revision was not read is not known.", "facts.cpu.unread"

    def changes(self, path, found):
        """(brings, takes, closes) by the rules that speak of the way, and no longer once it is gone."""
        after, lists = self.at(found["to"]), ([], [], [])
        for rule, answer in self.policy.asked(self.scope(path, found)):
            if answer is True and (rule.brings or rule.takes or rule.closes) and rule.asked(after) is False:
                for known, more in zip(lists, (rule.brings, rule.takes, self._closed(path, rule.closes))):
                    known.extend(each for each in more if each not in known)
        return lists

    def _closed(self, path, names):
        """Those of the names that are closed for certain: by the microcode alone, or together with a kernel that knows of them and chooses anew at its boot.

        dom0's kernel does not speak for Xen.
        """
        said = part(self.host.facts, "vulnerabilities")
        said = said if isinstance(said, dict) and path == "early" and not self.host.xen else {}
        return [name for name in names if name in ALONE or str(said.get(name)).startswith("Vulnerable")]


# --- reasons: (which of ORDER, what "because" has) ---

def _reason(rule, effect, text, source, kind=None):
    return kind or effect, {"rule": rule, "effect": effect, "text": text, "source": source}


def _of(rule, answer, scope, effect=None):
    """What a rule says, or that it is not known whether it does; effect where it counts as another."""
    effect, text = effect or rule.effect, rule.said(scope)
    if answer is True:
        return _reason(rule.id, effect, text, rule.source)
    tells = dict.fromkeys(WOULD_TELL.get(path, "The host's warnings say why; read its facts as root.") for path in answer.paths)
    text = "Not known, for want of %s, is whether this holds: %s %s" % (" and ".join(answer.paths), text, " ".join(tells))
    return _reason(rule.id, effect, text, rule.source, "unknown" if effect in ("block", "firmware_first", "review") else effect)


def _engine(name, effect, text, source=None, kind=None):
    return _reason("engine." + name, effect, text, source, kind)


def _lacking(answers):
    """{paths: [rule]} of (rule, Unknown)s."""
    found = {}
    for rule, answer in answers:
        found.setdefault(answer.paths, []).append(rule.id)
    return found


def _not_known(lacking):
    return [_engine("not-known", "note", "For want of %s it is not known whether there is more to say (%s)." % (" and ".join(paths), ", ".join(rules)))
            for paths, rules in lacking.items()]


# --- the decision ---

def decide(policy, facts, options):
    """The decision for one host: {"action", "from", "to", "file", "sha256", "package", "guests", "reboot", "because", "brings", "takes", "closes"}."""
    host, options = _Host(facts), {**DEFAULTS, **options}
    for action, name, gate in GATES:
        text = gate(host)
        if text:
            return _decision(host, action, [_engine(name, "note", text)])
    case = _Case(policy, host, options)
    wanted, reasons = _wanted(case)
    if not wanted:
        return _nothing(case, reasons)
    passed = []
    for found in wanted:
        action, said = case.verdict(found)
        if action is None or not case.needed and "block" not in _kinds(said):  # what is asked for is not kept waiting for what only waits
            break
        passed.append((found, action, said))
    else:  # something stands against each: what only waits stands for them, else what was wanted most
        found, action, said = passed.pop(next((count for count, each in enumerate(passed) if "block" not in _kinds(each[2])), 0))
    reasons = said + [reason for _rule, reason in case.needed] + reasons
    if host.xen and host.unread:
        reasons.append(_unshown(host))
    reasons += [_reason(because["rule"], "note", "%s is passed over: %s" % (hex8(other["to"]), because["text"]), because["source"])
                for other, _action, also in passed for kind, because in also if kind in STANDING]
    if case.needed and not case.met(found["to"]):
        better = [hex8(each["to"]) for each in host.files if each["to"] > found["to"] and case.met(each["to"])]
        reasons.append(_engine("still-needed", "note", "Even %s is not all that is asked for, and %s." % (
            hex8(found["to"]), "the target, or hold_days, keeps %s back, which is" % better[0] if better else "nothing better is at hand")))
    if action is None:
        action = "early"
        reasons.append(_engine("newer", "note", "%s is at hand in %s, newer than %s, which runs." % (hex8(found["to"]), found["file"], hex8(host.runs)),
                               "facts.files", "newer"))
        if options["late"] == "allowed":
            late, more = case.late(found)
            action, reasons = "late" if late else "early", reasons + more
        if action == "late" and revision(part(facts, "pending"), host.signed) != found["to"]:
            reasons.append(_engine("late-lasts", "note", "A late load lasts until the next boot, which loads it again only if the initrd has it.",
                                   "facts.pending"))
        if action == "early" and part(facts, "early", "disabled") is True and not host.xen:  # of dom0's kernel it means nothing
            action = "blocked"
            reasons.insert(0, _engine("loader-off", "note", "A kernel option (dis_ucode_ldr) switches Linux's loader off, so that a boot would load nothing. "
                                      "Take it out of the boot loader's settings and boot.", "facts.early.disabled", "block"))
    return _decision(host, action, reasons, found, case)


def _wanted(case):
    """([candidate, …], what is wanted most first, [reason]) of the files that are newer than what runs."""
    host, target, found = case.host, case.options["target"], {}
    for each in host.files:
        if each["to"] > host.runs:
            found.setdefault(each["to"], each)  # of files alike the first, which late loading finds
    newer = [found[to] for to in sorted(found, reverse=True)]
    if isinstance(target, dict):
        newer = [each for each in newer if each["to"] == _named(host, target)]
    elif target == "advisory":
        steps = [(case.met(each["to"]), each) for each in reversed(newer) if any(rule.asked(case.at(each["to"])) is False for rule, _because in case.needed)]
        newer = [each for met, each in steps if met] or [each for _met, each in reversed(steps)]  # where none is all that is asked for, the one nearest to it
    kept = [_held_back(case, each) for each in newer]
    ready, reasons = [each for each, why in zip(newer, kept) if not why], list(filter(None, kept))
    reasons += [_engine("caveat", "note", "microcode_ctl keeps %s apart (caveat %s), and the default kernel's initrd does not have it: what runs is what this "
                        "distribution means to run. The caveat's readme says why, and how to override it." % (hex8(to) or path or "a file", caveat),
                        "microcode_ctl, README.caveats", "caveat")
                for to, path, caveat in host.held if to is None or to > host.runs]
    return ready, reasons + [_engine("file-unknown", "note", "What %s holds is not known: %s." % each, "facts.files", "doubt") for each in host.doubtful]


def _held_back(case, found):
    """The reason for which a candidate waits until it is older, or None."""
    age, least = case.age(found), case.options["hold_days"]
    if not least or age is not None and age >= least:
        return None
    text = "%s is held back: its release is of %s, and releases wait for %s. hold_days says so." % (
        hex8(found["to"]), case.released(found) or "a day that is not known", quantity(least, "day"))
    return _engine("held-back", "note", text, "facts.files", "undated" if age is None else "held")


def _kinds(reasons):
    return {kind for kind, _because in reasons}


def _named(host, target):
    """The revision that the operator's target names for this host's signature."""
    return next((revision(to, host.signed) for signature, to in target.items() if number(signature) == host.signature), None)


def _nothing(case, reasons):
    """The decision where no file is to be loaded; the first line that applies counts."""
    host, target, kinds = case.host, case.options["target"], _kinds(reasons)
    named = _named(host, target) if isinstance(target, dict) else None
    runs, held = hex8(host.runs), kinds & {"held", "undated"}
    lines = (
        (isinstance(target, dict) and named is None, "none", "no-target", "The target names no revision for %s." % hex8(host.signature)),
        (named == host.runs, "none", "target-runs", "%s runs, which is the target." % runs),
        (named is not None and named < host.runs, "none", "target-older",
         "%s runs, and the target %s is older: loading never goes back." % (runs, hex8(named))),
        (target == "advisory" and not case.needed and case.doubted, "unknown", "need-unknown",
         "Whether a rule asks for a newer revision than %s is not known, for want of %s (%s)." % (
             runs, " and ".join(dict.fromkeys(path for paths in case.doubted for path in paths)), ", ".join(sum(case.doubted.values(), [])))),
        (target == "advisory" and not case.needed, "none", "not-needed", "No rule asks for a newer revision than %s, which runs." % runs),
        (host.waiting, "firmware_first", "firmware-first", "%s: %s. Update the firmware first." % (host.waiting + [("", "")])[0]),
        ("doubt" in kinds, "unknown", "files-unclear", "Whether something newer than %s is at hand is not known, as a file cannot be read." % runs),
        (named is not None and not held, "blocked", "no-target-file",
         "No file at hand holds the target %s. Install the package that does, or name another target." % hex8(named)),
        (named is not None, "blocked", "target-held", "The target %s is held back." % hex8(named)),
        (case.needed and held, "blocked", "held",
         "A newer revision than %s is asked for, and what is at hand is held back until it is old enough; a smaller hold_days takes it now." % runs),
        (case.needed and "caveat" in kinds, "blocked", "apart",
         "A newer revision than %s is asked for, and microcode_ctl keeps what is at hand apart: override the caveat, or see that one runs without it." % runs),
        (case.needed, "blocked", "no-file", "A newer revision than %s is asked for, and no file at hand provides it. Install a newer package." % runs),
        ("undated" in kinds, "unknown", "age-unknown",
         "What is newer than %s is held back, and how old it is nobody says, so it would wait for ever: hold_days: 0 for this host takes it now." % runs),
        ("held" in kinds, "none", "held", "What is newer than %s is held back." % runs),
        ("caveat" in kinds, "none", "apart", "Nothing newer than %s is meant for this host." % runs),
        (host.unread is None, "unknown", "unread-unknown",
         "Nothing newer than %s is at hand; whether every CPU runs that is not known. The host's warnings say why; read its facts as root." % runs),
        (not host.files, "none", "no-files", "No file at hand holds microcode for this CPU. Is the distribution's package of microcode installed?"),
        (True, "none", "current", "Nothing newer than %s, which runs, is at hand." % runs),
    )
    action, name, text = next(line[1:] for line in lines if line[0])
    if host.xen and host.unread:
        reasons = reasons + [_unshown(host)]
    lost, more = _lost_by_a_boot(case)
    if lost and action == "none" and not case.needed:  # what would run then is not to run
        action, name, text = "blocked", "next-boot", lost
    elif more and action == "none" and host.files:
        reasons = reasons + [more]
    first = _engine(name, "firmware_first" if action == "firmware_first" else "note", text, kind=ORDER[0])
    notes = [_reason(rule.id, "note", text, rule.source) for rule, text in case.standing if rule.effect == "note"]
    notes += _not_known(case.doubted) if name != "need-unknown" else []
    return _decision(host, action, [first] + [reason for _rule, reason in case.needed] + reasons + notes, case=case)


def _unshown(host):
    return _engine("unread", "note", "Xen does not show the revision of %s, taken to run what the others run." % quantity(host.unread, "CPU"),
                   "facts.cpu.unread")


def _lost_by_a_boot(case):
    """(why the next boot must not be, [reason]) where what runs is not what it loads, nor known to be the firmware's own; (None, None) where it is."""
    host, loads = case.host, part(case.host.facts, "early", "loads")
    least = min(host.next) if host.next and None not in host.next else None
    if host.start == host.runs or loads == "update" and least is not None and least >= host.runs:
        return None, None
    carried = "nothing" if loads == "none" else hex8(least) if loads == "update" and least is not None else "what is not known"
    told = "%s runs, and the next boot loads %s: it runs on after that only if firmware brings it." % (hex8(host.runs), carried)
    scope = case.at(least) if least is not None and carried == hex8(least) else None
    said = [rule.said(scope) for rule, answer in case.policy.asked(scope) if rule.effect == "require" and answer is True] if scope else []
    why = "%s Make the initrd anew with it before any boot, as microcode_early_load does. Of %s it is known: %s" % (told, carried, " ".join(said))
    return why if said else None, _engine("next-boot", "note", told, "facts.early")


def _next_boot(case, action, found, reasons):
    """(action, [reason]): what the default kernel's initrd holds is judged too, as the next boot loads it, whatever is decided of the files."""
    host, to = case.host, found.get("to")
    pending = revision(part(host.facts, "pending"), host.signed)
    if pending is None or pending <= host.runs or action == "early" and pending == to:
        return action, reasons
    known = next((each for each in host.files if each["to"] == pending), {"to": pending})
    _verdict, said = case.verdict(known)
    early = _held_back(case, known)
    said += [early] if early and action != "early" else []
    against = ("block", "unknown", "review", "held", "undated")  # where firmware must come first nothing is loaded
    against = [(ORDER[0], because) for kind, because in said if kind in against]
    if action == "early":  # which puts another one there
        return action, reasons + [_reason(because["rule"], "note", "The default kernel's initrd holds %s now, and is to be made anew before any boot: %s" % (
            hex8(pending), because["text"]), because["source"]) for _kind, because in against] + (
                [_engine("pending", "note", "The default kernel's initrd holds %s: a boot before it is made anew tries that." % hex8(pending), "facts.pending")]
                if pending > to else [])
    if against and action in ("none", "late"):
        return "blocked", [_engine("pending-refused", "note", "The default kernel's initrd holds %s, which the next boot loads, whatever is decided here. "
                                   "Rebuild the initrd with another revision first." % hex8(pending), "facts.pending", ORDER[0])] + against + reasons
    told = "The default kernel's initrd holds %s: the next boot tries it, whatever is decided here." % hex8(pending)
    return action, reasons + against + [_engine("pending", "note", told, "facts.pending")]


def _decision(host, action, reasons, found=None, case=None):
    """A decision's dictionary."""
    found = found or {}
    if case:
        action, reasons = _next_boot(case, action, found, reasons)
    acted, to = action in ("early", "late"), found.get("to")
    order, because = {kind: place for place, kind in enumerate(ORDER)}, []
    for _kind, each in sorted(reasons, key=lambda reason: order.get(reason[0], len(order))):
        if each not in because:
            because.append(each)
    brings, takes, closes = case.changes(action, found) if acted else ([], [], [])
    pause = action == "late" and host.role == "host" and case.options["guests"] == "pause"
    return {"action": action, "from": hex8(host.runs), "to": hex8(to), "file": found.get("file"), "sha256": found.get("sha256"),
            "package": found.get("package"), "guests": "pause" if pause else "none", "reboot": action == "early", "because": because,
            "brings": brings, "takes": takes, "closes": closes}
