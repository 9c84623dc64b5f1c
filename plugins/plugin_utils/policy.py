# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Policy as data: rules about microcode are read, checked, and asked what they say of one host and one way to another revision.

A rule's match is JMESPath with a logic of three values (Kleene's): what a host does not tell is unknown, never false, so that no rule fails open for want of
a fact. Values are compared as what they are: revisions through rev(), versions through version(), dates through date().
"""
import datetime
import difflib
import functools
import glob
import os
import re

import yaml

try:
    import jmespath
    import jmespath.exceptions
except ImportError:  # said where rules are read
    jmespath = None

from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean, number, part, plain

EFFECTS = ("block", "firmware_first", "early_only", "require", "allow_late", "review", "note")
KEYS = {"id", "match", "effect", "text", "source", "added"}
LISTS = ("brings", "takes", "closes")  # CPU flags that come, and that go; names of the kernel's vulnerabilities
OPTIONAL = {"retracted", "signature", "pf_mask"}.union(LISTS)
RULES = os.path.join(os.path.dirname(__file__), "rules")
OWN = "rules of your own"
FACTS = os.path.join(os.path.dirname(__file__), os.pardir, "modules", "microcode_facts.yml")  # documents the facts, in a checkout and in a tarball alike
CANDIDATE = ("path", "from", "start", "to", "date", "min_revision", "file", "package", "early_only", "sha256", "age_days")
OPTIONS = ("late", "guests", "hold_days", "accept", "target", "today")
READS = (  # facts that decide.py itself reads
    "schema", "applicable", "command_line", "cpu.vendor", "cpu.signature", "cpu.signatures", "cpu.pf_mask", "cpu.revision", "cpu.revisions",
    "cpu.boot_revision", "cpu.unread", "cpu.offline", "hypervisor.role", "hypervisor.type", "hypervisor.version", "hypervisor.xen.ucode",
    "boot.reboot_is_kexec",
    "early.disabled", "early.loads", "early.xen_ucode", "early.kernels[].default",
    "early.kernels[].running", "early.kernels[].carries", "early.kernels[].revision", "late.interface", "late.available", "late.why_not",
    "late.min_revision_forced", "distro.id", "files", "pending", "vulnerabilities")
INSIDE = {  # which of the names that the documentation gives a section stand deeper in it
    "hypervisor": {"guests": {"count", "states"},
                   "xen": {"dom0", "physical_cpus", "threads_per_core", "command_line", "ucode", "tool", "tool_features", "livepatches"}},
    "early": {"kernels": {"version", "running", "default", "revision", "initrd", "image", "carries"}},
}
MANY = ("facts.early.kernels", "facts.cpu.signatures", "facts.cpu.offline", "facts.hypervisor.xen.tool_features", "facts.hypervisor.xen.livepatches",
        "options.accept")  # lists in a section
MOMENTARY = ("facts.gathered", "facts.boot_id", "candidate.age_days", "options.today")  # of another value tomorrow, though nothing has changed
OPEN = ("facts.cpu.revisions", "facts.vulnerabilities", "facts.hypervisor.guests.states", "options.target")  # mappings whose keys are not ours
ANY = object()
LARGEST, DEEPEST = 1 << 20, 10  # bytes of a file of rules; how deep its YAML goes, which takes 4 (rules, a rule, a list of names)
NESTED = 100  # levels of a match; "a || b || c" is one for each term
TYPED = {  # what is no text like any other: the function that reads it
    "facts.cpu.revision": "rev", "facts.cpu.boot_revision": "rev", "facts.pending": "rev", "facts.files[].revision": "rev",
    "facts.files[].min_revision": "rev", "facts.early.kernels[].revision": "rev", "candidate.from": "rev", "candidate.start": "rev", "candidate.to": "rev",
    "candidate.min_revision": "rev", "facts.kernel": "version", "facts.hypervisor.version": "version", "facts.distro.version": "version",
    "facts.early.kernels[].version": "version", "facts.gathered": "date", "facts.files[].date": "date", "facts.firmware.bios_date": "date",
    "candidate.date": "date", "options.today": "date", "candidate.age_days": "number", "options.hold_days": "number",
}
ORDERS = {"lt": lambda one, two: one < two, "lte": lambda one, two: one <= two, "gt": lambda one, two: one > two, "gte": lambda one, two: one >= two}


class RuleError(Exception):
    """A rule is wrong; the text names the rule, its file, and what would be right."""


class Unknown:
    """What a match comes to where something is not known: the paths that would have told."""

    __slots__ = ("paths",)

    def __init__(self, *paths):
        self.paths = paths

    def __or__(self, other):
        return Unknown(*dict.fromkeys(self.paths + other.paths))


# --- what is compared ---

@functools.lru_cache(4096)
def _version(text):
    """(numbers, False before a release) of 4.17.7, 6.1.0-56-amd64 or 4.21-rc2; None where it begins with no number. 4.17 and 4.17.0 are one."""
    match = re.match(r"\d{1,9}(?:\.\d{1,9}){0,7}(?![\d.]*\d)", text, re.A)
    if not match:
        return None
    numbers = [int(each) for each in match.group().split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), not re.match(r"[-~._+ ]?(rc|pre|alpha|beta|unstable)", text[match.end():], re.I)


@functools.lru_cache(4096)
def _day(text):
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(T[\d:.]{1,20}Z)?", text, re.A)
    try:
        return match and datetime.date.fromisoformat(match.group(1))
    except ValueError:  # there is no such day
        return None


def day(value):
    """datetime.date of 2026-11-22, or of a time of that day; None where it is none."""
    return _day(value) if isinstance(value, str) and len(value) < 40 else None


def revision(value, signed):
    """int of a revision; None where it is none, or where nobody knows whether it is signed, as Intel's are, and that makes a difference."""
    found = number(value)
    if found is None or not found >> 31:
        return found
    return None if signed is None else found - (1 << 32) if signed else found


def is_signed(facts):
    """Whether the host's revisions are signed numbers; None where its vendor is not known."""
    vendor = part(facts, "cpu", "vendor")
    return vendor == "GenuineIntel" if vendor in ("GenuineIntel", "AuthenticAMD") else None


READERS = {
    "rev": lambda value, scope: revision(value, scope["signed"]),
    "version": lambda value, scope: _version(value) if isinstance(value, str) and len(value) < 100 else None,
    "date": lambda value, scope: day(value),
}


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same(one, two):
    """Whether two values are equal, those in hexadecimal as numbers; None where they are of different types, and so cannot be compared."""
    if isinstance(one, str) and isinstance(two, str):
        return one == two or one[:2] == two[:2] == "0x" and number(one) is not None and number(one) == number(two)
    if isinstance(one, bool) and isinstance(two, bool) or _number(one) and _number(two):
        return one == two
    return None


# --- the facts' shape ---

@functools.lru_cache(1)
def _shape():
    """What a path may lead through, as the module documents its facts: a mapping by name, [what each item is], ANY, or None at an end."""
    with open(FACTS, encoding="utf-8") as stream:
        documented = yaml.safe_load(stream)["RETURN"]["ansible_facts"]["contains"]["microcode"]["contains"]
    facts = {}
    for name, about in documented.items():
        names = set(re.findall(r"C\((\w+)\)", str(about["description"]))) if about["type"] in ("dict", "list") else set()
        deeper = INSIDE.get(name, {})
        section = dict.fromkeys(names.difference(*deeper.values()))
        section.update({key: dict.fromkeys(inner & names) for key, inner in deeper.items()})
        facts[name] = [section or None] if about["type"] == "list" else section or None
    shape = {"facts": facts, "candidate": dict.fromkeys(CANDIDATE), "options": dict.fromkeys(OPTIONS)}
    for path in MANY + OPEN:
        keys = path.split(".")
        above = functools.reduce(lambda inner, key: inner[key], keys[:-1], shape)
        above[keys[-1]] = ANY if path in OPEN else [above[keys[-1]]]
    return shape


def _follow(steps):
    """What these steps lead to in the shape; ValueError says where they leave it."""
    at, gone = _shape(), []
    for step in steps:
        here = _text(gone)
        if isinstance(at, list):
            if not isinstance(step, int) and step != "[]":
                raise ValueError("%s is a list: %s[*].%s goes through it" % (here, here, step))
            at = at[0]
        elif at is not ANY:
            if not isinstance(at, dict) or step not in at:
                near = difflib.get_close_matches(str(step), at or (), 1)
                raise ValueError("there is no %s%s" % (_text(gone + [step]), "; is %s meant?" % _text(gone + near) if near else
                                                       " among facts, candidate and options; a text stands in single quotes" if not gone else ""))
            at = at[step]
        gone.append(step)
    if isinstance(at, dict):
        raise ValueError("%s is a section; one of its values is needed: %s" % (_text(gone), ", ".join(sorted(at))))
    return at


def _text(steps):
    """facts.early.kernels[].revision of its steps."""
    return ".".join(map(str, steps)).replace(".[]", "[]")


def _empty(item):
    """Whether this initrd or file is known to hold nothing for the processor: then it has no revision, which is no gap in what is known."""
    return part(item, "revision") is None and (part(item, "carries") == "none" or isinstance(item, dict) and item.get("problem", "") is None)


def _getter(steps, unknown):
    """A function of the scope that gives what these steps lead to, or unknown; of a list each item, None where that is not known."""
    root, rest = steps[0], steps[1:]

    def get(scope):
        value = scope[root]
        for key in rest:
            value = value.get(key) if isinstance(value, dict) else None
            if value is None:
                return unknown
        return value
    if not any(isinstance(step, int) or step == "[]" for step in rest):
        return get

    def walk(value, keys):
        for count, key in enumerate(keys):
            if key == "[]":
                below = keys[count + 1:]
                return [walk(each, below) for each in value if not (below == ["revision"] and _empty(each))] if isinstance(value, list) else None
            if isinstance(key, int):
                value = value[key] if isinstance(value, list) and -len(value) <= key < len(value) else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        return value

    def get_all(scope):
        value = walk(scope[root], rest)
        return unknown if value is None else value
    return get_all


# --- a match ---

class _Part:
    """A part of a match that was read: its kind, how it is worked out, and the paths that it reads."""

    __slots__ = ("kind", "work", "paths", "literal")

    def __init__(self, kind, work, paths=(), literal=None):
        self.kind, self.work, self.paths, self.literal = kind, work, paths, literal


class _Match:
    """Reads the syntax tree of a match into functions of one scope; ValueError says what is wrong with it.

    kind: "bool" is True, False or Unknown; "rev", "version", "date" and "number" have an order; "text", "list"; "value" is what a path leads to, of any type.
    """

    def read(self, tree):
        reader = getattr(self, "_" + tree["type"], None)
        if reader is None:
            raise ValueError("it uses %s, which rules cannot; they have paths, ==, !=, <, <=, >, >=, &&, ||, !, lists and functions"
                             % tree["type"].replace("_", " "))
        return reader(tree)

    def truth(self, tree):
        """A part that is true, false or unknown."""
        found = self.read(tree)
        if found.kind == "bool":
            return found
        if found.kind != "value":
            raise ValueError("a %s stands where something true or false is needed" % found.kind)
        unknown = Unknown(*found.paths)

        def work(scope):
            value = found.work(scope)
            return value if isinstance(value, (bool, Unknown)) else unknown
        return _Part("bool", work, found.paths)

    # paths

    def _steps(self, tree):
        kind, children = tree["type"], tree.get("children", ())
        if kind == "field":
            return [tree["value"]]
        if kind == "index":
            return [tree["value"]]
        if kind in ("identity", "current"):
            return []
        if kind == "flatten":
            return self._steps(children[0])
        if kind == "projection":
            return self._steps(children[0]) + ["[]"] + self._steps(children[1])
        if kind in ("subexpression", "index_expression"):
            return [step for child in children for step in self._steps(child)]
        raise ValueError("it uses %s within a path, which rules cannot%s" % (
            kind.replace("_", " "), ": write !(a.b), as !a.b is (!a).b in JMESPath" if kind == "not_expression" else ""))

    def _path(self, tree):
        steps = self._steps(tree)
        end = _follow(steps)
        text = _text(steps)
        kind = "list" if "[]" in steps or isinstance(end, list) else "number" if TYPED.get(text) == "number" else "value"
        return _Part(kind, _getter(steps, Unknown(text)), (text,))

    _field = _subexpression = _projection = _index_expression = _path

    def _literal(self, tree):
        value = tree["value"]
        if isinstance(value, bool):
            return _Part("bool", lambda scope: value, literal=value)
        if isinstance(value, (int, float)):
            return _Part("number", lambda scope: value, literal=value)
        if isinstance(value, str):
            return _Part("text", lambda scope: value, literal=value)
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return _Part("list", lambda scope: value, literal=value)
        raise ValueError("%s is compared with nothing here: what is not known makes the rule unknown by itself" % ("null" if value is None else "a mapping"))

    def _multi_select_list(self, tree):
        parts = [self.read(each) for each in tree["children"]]
        kinds = {each.kind for each in parts}
        if len(kinds) > 1 or "bool" in kinds:
            raise ValueError("a list here is of one kind; this has %s" % " and ".join(sorted(kinds)))

        def work(scope):
            values = [each.work(scope) for each in parts]
            return [None if isinstance(each, Unknown) else each for each in values]
        kind = kinds.pop()
        return _Part("list" if kind in ("text", "value", "number") else "list of " + kind, work, sum((each.paths for each in parts), ()))

    # logic

    def _and_expression(self, tree):
        return self._logic(tree, False)

    def _or_expression(self, tree):
        return self._logic(tree, True)

    def _logic(self, tree, decisive):
        """Kleene's and (decided by one that is false) or or (by one that is true)."""
        parts = [self.truth(each) for each in tree["children"]]
        works = [each.work for each in parts]

        def work(scope):
            unknown = None
            for each in works:
                value = each(scope)
                if value is decisive:
                    return decisive
                if value is not (not decisive):
                    unknown = unknown | value if unknown else value
            return unknown or not decisive
        return _Part("bool", work, sum((each.paths for each in parts), ()))

    def _not_expression(self, tree):
        inner = self.truth(tree["children"][0])

        def work(scope):
            value = inner.work(scope)
            return value if isinstance(value, Unknown) else not value
        return _Part("bool", work, inner.paths)

    def _comparator(self, tree):
        one, two = [self.read(each) for each in tree["children"]]
        order, negated = ORDERS.get(tree["value"]), tree["value"] == "ne"
        self._not_raw(one.paths * (one.kind == "value") + two.paths * (two.kind == "value"))
        for each in one, two:
            if each.kind.startswith("list"):
                raise ValueError("a list is compared: any_of(value, list) or contains(list, value) looks into it")
        kinds = {one.kind, two.kind}
        typed = kinds & set(READERS)
        if typed and len(kinds) > 1:
            raise ValueError("%s() is compared with a %s: both sides need it" % (sorted(typed)[0], sorted(kinds - {sorted(typed)[0]})[0]))
        if order and not typed and kinds not in ({"number"}, {"number", "value"}):
            raise ValueError("%s orders texts by their letters: revisions are compared through rev(), versions through version(), dates through date()"
                             % (" and ".join(one.paths + two.paths) or "it"))
        paths = tuple(dict.fromkeys(one.paths + two.paths))
        unknown, left, right, ordered = Unknown(*paths), one.work, two.work, bool(typed)

        def work(scope):
            first, second = left(scope), right(scope)
            if isinstance(first, Unknown) or isinstance(second, Unknown):
                return first | second if isinstance(first, Unknown) and isinstance(second, Unknown) else first if isinstance(first, Unknown) else second
            if order and not ordered and not (_number(first) and _number(second)):
                return unknown
            if order:
                return order(first, second)
            equal = first == second if ordered else _same(first, second)
            return unknown if equal is None else equal is not negated
        return _Part("bool", work, paths)

    def _not_raw(self, paths, allowed=()):
        for path in paths:
            if TYPED.get(path) in READERS and TYPED[path] not in allowed:
                raise ValueError("%s is compared by its letters; %s(%s) compares it as what it is" % (path, TYPED[path], path))

    # functions

    def _function_expression(self, tree):
        name, children = tree["value"], tree["children"]
        if name in READERS and len(children) == 1:
            return self._reader(name, self.read(children[0]))
        if name in ("any_of", "contains", "starts_with") and len(children) == 2:
            return getattr(self, "_" + name)(*[self.read(each) for each in children])
        known = "rev(x), version(x), date(x), any_of(x, list), contains(text or list, x), starts_with(text, x)"
        raise ValueError("%s() with %d values is none of the functions of rules: %s" % (name, len(children), known))

    def _reader(self, name, given):
        reader = READERS[name]
        if given.kind == "text":
            if reader(given.literal, {"signed": False}) is None:
                raise ValueError("%s('%s') is none" % (name, clean(given.literal)))
            vendor = Unknown("facts.cpu.vendor")
            return _Part(name, lambda scope: _known(reader(given.literal, scope), vendor))
        wanted = [TYPED.get(path) for path in given.paths]
        if given.kind != "value" or wanted[0] not in (None, name):
            raise ValueError("%s() takes a path to one text%s" % (name, "; %s is read by %s()" % (given.paths[0], wanted[0]) if given.kind == "value" else ""))
        unknown = Unknown(*given.paths)

        def work(scope):
            value = given.work(scope)
            return value if isinstance(value, Unknown) else _known(reader(value, scope), unknown)
        return _Part(name, work, given.paths)

    def _any_of(self, one, many):
        if not many.kind.startswith("list") or one.kind not in ("value", "text", "number") + tuple(READERS):
            raise ValueError("any_of() takes a value and a list")
        if (one.kind in READERS or many.kind != "list") and many.kind != "list of " + one.kind:
            raise ValueError("any_of() has a %s and a %s: all need the same function" % (one.kind, many.kind))
        if one.kind not in READERS:
            self._not_raw(one.paths + many.paths, ("rev",))  # numbers in hexadecimal are found by their value
        paths = one.paths + many.paths
        unknown = Unknown(*paths)
        return _Part("bool", lambda scope: _member(one.work(scope), many.work(scope), unknown), paths)

    def _contains(self, within, one):
        if within.kind not in ("value", "list") or one.kind not in ("text", "value", "number"):
            raise ValueError("contains() takes a path to a text or a list, and what is looked for")
        if within.kind == "list":
            self._not_raw(within.paths, ("rev",))
        paths = within.paths + one.paths
        unknown = Unknown(*paths)

        def work(scope):
            inside, value = within.work(scope), one.work(scope)
            if isinstance(inside, str) and isinstance(value, str):
                return value in inside
            return _member(value, inside, unknown)
        return _Part("bool", work, paths)

    def _starts_with(self, within, one):
        if within.kind != "value" or one.kind not in ("text", "value"):
            raise ValueError("starts_with() takes a path to a text, and a text")
        paths = within.paths + one.paths
        unknown = Unknown(*paths)

        def work(scope):
            text, start = within.work(scope), one.work(scope)
            if isinstance(text, Unknown) or isinstance(start, Unknown):
                return text if isinstance(text, Unknown) else start
            return text.startswith(start) if isinstance(text, str) and isinstance(start, str) else unknown
        return _Part("bool", work, paths)


def _known(value, unknown):
    return unknown if value is None else value


def _member(value, many, unknown):
    """Whether a value is in a list; not known where it is not among those that are, and others are not."""
    if isinstance(value, Unknown) or isinstance(many, Unknown):
        return value if isinstance(value, Unknown) else many
    if not isinstance(many, list):
        return unknown
    found = [_same(value, each) if isinstance(value, (str, bool, int, float)) else value == each or None for each in many]
    return True if True in found else unknown if None in found else False


def _deeper(tree, most):
    """Whether a syntax tree has more levels than this; without recursion, as a tree may be as deep as Python's stack."""
    level = [tree]
    for _level in range(most):
        level = [child for each in level for child in each.get("children", ()) if isinstance(child, dict)]
        if not level:
            return False
    return True


# --- a rule ---

TERMS = "its match has too many terms, or parentheses within each other; any_of(x, ['a', 'b', 'c']) takes the place of x == 'a' || x == 'b' || x == 'c'"


def _told(value, limit=60):
    """What somebody wrote where something else belongs, in few words; only texts and small numbers are worth showing."""
    if isinstance(value, (str, bool, datetime.date)) or isinstance(value, (int, float)) and -1e18 < value < 1e18:
        return clean(str(value), limit) or "(empty)"
    kinds = ((dict, "a mapping"), ((list, tuple), "a list"), ((int, float), "a number"), (type(None), "null"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "something else")


class _Rule:
    """One rule, ready to be asked."""

    def __init__(self, given, place):
        self.place = place
        self.id = given.get("id") if isinstance(given.get("id"), str) else None
        keys = set(given)
        self._need(self.id and re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", self.id) and not self.id.startswith("engine."),
                   "its id is no text such as vendor-what-1a (small letters, digits, - and .)")
        self._need(keys <= KEYS | OPTIONAL, "%s is no key of a rule; they are %s" % (
            ", ".join(sorted(_told(key, 40) for key in keys - KEYS - OPTIONAL)), ", ".join(sorted(KEYS | OPTIONAL))))
        self._need(keys >= KEYS, "%s is missing" % ", ".join(sorted(KEYS - keys)))
        self._need(isinstance(given["effect"], str) and given["effect"] in EFFECTS,
                   "the effect %s is none of %s" % (_told(given["effect"], 40), ", ".join(EFFECTS)))
        for key in ("match", "text", "source"):
            self._need(isinstance(given[key], str) and given[key].strip(), "%s is no text" % key)
        for key in ("added", "retracted"):
            self._need(key not in given or isinstance(given[key], datetime.date) or day(given[key]), "%s is no day such as 2026-11-22" % key)
        self.effect, self.source, self.retracted = given["effect"], " ".join(given["source"].split()), given.get("retracted") is not None
        self.signatures, masks = self._numbers(given, "signature"), self._numbers(given, "pf_mask")
        self.mask = functools.reduce(lambda one, two: one | two, masks) if masks else None
        self._need(self.mask != 0, "pf_mask has no bit set, and so fits no CPU")
        for key in LISTS:
            found = given.get(key, [])
            self._need(isinstance(found, list) and all(isinstance(each, str) for each in found), "%s is no list of names" % key)
            setattr(self, key, found)
        try:
            tree = jmespath.compile(given["match"]).parsed
            self._need(not _deeper(tree, NESTED), TERMS)
            found = _Match().truth(tree)
        except RecursionError:
            raise self._error(TERMS) from None
        except jmespath.exceptions.JMESPathError as exc:
            raise self._error("its match is no JMESPath: %s" % clean(str(exc))) from None
        except ValueError as exc:
            raise self._error("its match: %s" % exc) from None
        self.match, self.match_paths = found.work, set(found.paths)
        self.parts = self._filled(" ".join(given["text"].split()))
        self.paths = set(found.paths) | {path for path, _get in self.parts if _get}
        self.given = given

    def _error(self, text):
        return RuleError("rule %s (%s): %s" % (clean(self.id, 80) or "without an id", self.place, text))

    def _need(self, what, text):
        if not what:
            raise self._error(text)

    def _numbers(self, given, key):
        """Set of what signature or pf_mask names; None where the rule has none."""
        if key not in given:
            return None
        found = [number(each) for each in (given[key] if isinstance(given[key], list) else [given[key]])]
        self._need(found and None not in found, '%s is no text such as "0x00050654", nor a list of them; quote it, since YAML takes it for a number' % key)
        return set(found)

    def _filled(self, text):
        """[(text, None) or (path, its getter), …] of a text with places such as {candidate.to} in it."""
        found = []
        for count, piece in enumerate(re.split(r"\{([^{}]*)\}", text)):
            self._need(not set(piece) & set("{}"), "its text has a brace without its other")
            if not count % 2:
                found.append((piece, None))
                continue
            try:
                value = _Match().read(jmespath.compile(piece).parsed)
                if value.kind not in ("value", "number") or not value.paths:
                    raise ValueError("it is no path to one value")
                if value.paths[0] in MOMENTARY:
                    raise ValueError("it changes with the time, and a plan's digest would with it; {candidate.date} stays")
            except (jmespath.exceptions.JMESPathError, RecursionError, ValueError) as exc:
                raise self._error("its text has {%s}: %s" % (clean(piece) or "", clean(str(exc)))) from None
            found.append((piece, value.work))
        return found

    def asked(self, scope):
        """True or False, whether it speaks; Unknown where that is not known."""
        lacking = []
        if self.signatures is not None and scope["signature"] is None:
            lacking.append("facts.cpu.signature")
        if self.mask is not None:
            if scope["pf_mask"] is None:
                lacking.append("facts.cpu.pf_mask")
            elif not scope["pf_mask"] & self.mask:
                return False
        found = self.match(scope)
        return found if found is False or not lacking else Unknown(*lacking) if found is True else Unknown(*lacking) | found

    def said(self, scope):
        """Its text for this host."""
        return "".join(piece if get is None else _shown(get(scope)) for piece, get in self.parts)


def _shown(value):
    return (clean(value, 100) if isinstance(value, str) else clean(str(value), 100) if isinstance(value, (bool, int, float)) else None) or "unknown"


# --- all of them ---

class Policy:
    """Rules in their order, mappings as the files have them; places says for each where it comes from; own: how many of them, in front, are the user's."""

    def __init__(self, rules, places=None, own=0):
        if jmespath is None:
            raise RuleError("rules need the Python package jmespath where Ansible runs, which is not there: install it into Ansible's own environment, or "
                            "build the execution environment anew with what the collection asks for")
        read = [_Rule(rule, place) for rule, place in zip(rules, places or [OWN] * len(rules))]
        seen = {}
        for rule in read:
            if rule.id in seen:
                raise RuleError("rule %s is there twice, in %s and in %s: a name stands for one rule" % (rule.id, seen[rule.id], rule.place))
            seen[rule.id] = rule.place
        self.rules = [rule.given for rule in read]
        self.own = self.rules[:own]
        self._active = [rule for rule in read if not rule.retracted]
        self._general = [rule for rule in self._active if rule.signatures is None]
        self._by_signature = {signature: [rule for rule in self._active if rule.signatures is None or signature in rule.signatures]
                              for signature in set().union(*(rule.signatures or () for rule in self._active))}
        self.paths = set(READS).union(path[len("facts."):] for rule in self._active for path in rule.paths if path.startswith("facts."))

    def _for(self, signature):
        return self._active if signature is None else self._by_signature.get(signature, self._general)

    def asked(self, scope):
        """[(rule, True or Unknown), …] of the rules that speak or of which that is not known."""
        found = []
        for rule in self._for(scope["signature"]):
            answer = rule.asked(scope)
            if answer is not False:
                found.append((rule, answer))
        return found

    def judge(self, facts, candidate, options):
        """What the rules say of a way to a revision: [{"rule", "effect", "text", "source", "unknown": [paths]}, …] in their order."""
        scope = scope_of(facts, candidate, options)
        return [{"rule": rule.id, "effect": rule.effect, "text": rule.said(scope), "source": rule.source,
                 "unknown": list(answer.paths) if isinstance(answer, Unknown) else []} for rule, answer in self.asked(scope)]


def scope_of(facts, candidate, options):
    """What a match is worked out over."""
    return {"facts": facts, "candidate": candidate, "options": options, "signed": is_signed(facts), "signature": number(part(facts, "cpu", "signature")),
            "pf_mask": number(part(facts, "cpu", "pf_mask"))}


def load(extra=()):
    """The Policy of the user's rules, a list of them or the path of a file, and of the collection's. Raises RuleError where any of them is wrong."""
    shipped = sorted(glob.glob(os.path.join(RULES, "*.yml")))
    if not shipped:
        raise RuleError("%s holds no rules: this copy of the collection is incomplete" % RULES)
    found = _of_file(extra) if isinstance(extra, str) else _of_list(plain(extra), OWN)
    own = len(found)
    for path in shipped:
        found += _of_file(path)
    return Policy(*zip(*found), own)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key that is there twice, as where the dash before a rule was forgotten: the first one would be lost in silence."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key in (key for key, _value in node.value if isinstance(key.value, str)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, "the key %s is there twice in one mapping" % key.value, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _bounded(text):
    """ValueError where YAML is deeper than rules are, or an alias stands for more than one value, by which a small file becomes a huge one."""
    depth, scalars = 0, set()
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.ScalarEvent) and event.anchor:
            scalars.add(event.anchor)
        elif isinstance(event, yaml.CollectionStartEvent):
            scalars.discard(event.anchor)
        where = "line %d" % (event.start_mark.line + 1)
        if depth > DEEPEST:
            raise ValueError("%s is nested deeper than rules are (%d levels)" % (where, DEEPEST))
        if isinstance(event, yaml.AliasEvent) and event.anchor not in scalars:
            raise ValueError("%s has an alias, *%s, of what is no single value; write it out" % (where, event.anchor))


def _of_file(path):
    """[(rule, place), …] of a YAML file."""
    name = os.path.basename(path) if os.path.dirname(path) == RULES else path
    try:
        with open(path, "rb") as stream:
            text = stream.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError("it is larger than %d KiB" % (LARGEST >> 10))
        _bounded(text)
        found = yaml.load(text, _Loader)
    except OSError as exc:
        raise RuleError("the rules in %s cannot be read: %s" % (name, exc.strerror)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise RuleError("the rules in %s cannot be read as YAML: %s" % (name, clean(str(exc).replace('in "<byte string>"', "in it")))) from None
    if not isinstance(found, dict) or set(found) != {"rules"}:
        raise RuleError("%s is no mapping with the one key rules" % name)
    return _of_list(found["rules"], name)


def _of_list(rules, place):
    if not isinstance(rules, (list, tuple)):
        raise RuleError("%s: rules are a list, or the path of a file that has one below the key rules" % place)
    for each in rules:
        if not isinstance(each, dict):
            raise RuleError("%s: %s is no rule, which is a mapping with %s" % (place, _told(each), ", ".join(sorted(KEYS))))
    return [(each, place) for each in rules]
