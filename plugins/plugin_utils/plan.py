# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan of a fleet: the decision for every host, the waves, the digest; what has become of an approved one; what people read of it.

A plan is a dictionary, see docs/plan.md. Facts come from hosts and are not trusted, nor is a plan that was read from a file.
"""
import base64
import hashlib
import json
import re
import textwrap
from collections import Counter

try:
    import lzma
except ImportError:  # Pythons that were built without it pack no plan
    lzma = None

from ansible_collections.fleet.microcode.plugins.plugin_utils import waves
from ansible_collections.fleet.microcode.plugins.plugin_utils.decide import decide
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean, hex8, items, number, part, plain, quantity

SCHEMA = 1
ACTIONS = {  # in the order in which people are shown them
    "early": "early, at the next boot",
    "late": "late, at run time",
    "firmware_first": "firmware first",
    "blocked": "blocked",
    "unknown": "unknown",
    "none": "nothing to do",
}
ACTED = ("early", "late")  # a host of another action stands in no wave
STATES = {  # of a host by an approved plan
    "done": "done",
    "pending": "pending",
    "stale": "changed since, and left",
    "new": "not in the plan, and left",
}
MOMENTARY = ("gathered", "boot_id")  # facts that change while nothing has changed
PREPARED = ("boot", "early", "files", "pending")  # facts that an early load changes before the host boots
UNDIGESTED = ("digest", "planned")
PACKED, UNPACKED = "xz:", 64 << 20  # how a packed plan begins, and how large its JSON may be
UNREADABLE = (ValueError, RecursionError) + ((lzma.LZMAError,) if lzma else ())
ROWS = 12  # of one kind in what is printed; more are counted, and stand in the JSON
KIND = (("cpu", "signature"), ("cpu", "pf_mask"), ("firmware", "vendor"), ("firmware", "product"), ("firmware", "bios_version"),
        ("hypervisor", "role"), ("hypervisor", "type"), ("hypervisor", "version"), ("distro", "id"), ("distro", "version"))
EFFECTS = {"block": "Against it", "firmware_first": "Firmware first", "early_only": "Against late loading", "require": "For it",
           "allow_late": "For late loading", "review": "To be accepted by name", "note": "To know"}


class PlanError(Exception):
    """No plan can be made, or one that was read cannot be used; the text says why and what would change that."""


# --- making it ---

def make(facts, policy, options, planned, domains=None, limits=None, sizes=waves.SIZES):
    """The plan of {host: its facts, or None where there are none}.

    options: the operator's, see decide.py; planned: when, in UTC, as facts have it. limits: {variable: the most hosts of one of its values in a wave}, with
    the hosts' values in domains, {host: {variable: value}}.
    """
    domains, limits = domains or {}, limits or {}
    _check(policy, options, limits, sizes)
    reads = sorted(policy.paths)
    tree, decided, hosts, kinds, down = _tree(reads), {}, {}, {}, _down(facts, domains, limits)
    options = dict(options, today=planned[:10])
    for name, found in facts.items():
        picked = _pick(found, tree)
        momentary = [picked.pop(key, None) for key in MOMENTARY] if isinstance(picked, dict) else []
        fingerprint = _fingerprint(picked)
        key = fingerprint + _canonical(momentary)
        if key not in decided:  # hosts of which all that is read is alike share a decision
            decision = decide(policy, plain(found), options)
            decided[key] = dict(decision, signature=hex8(number(part(found, "cpu", "signature"))),
                                fingerprint=fingerprint if decision["action"] in ACTED else None), _transition(decision)
        decision, transition = decided[key]
        full = _full(domains.get(name, {}), limits, down) if decision["action"] in ACTED else None
        if full:
            decision = _left(decision, full)
        hosts[str(name)] = dict(decision, wave=None)
        if decision["action"] in ACTED:
            about = [plain(part(found, *keys)) for keys in KIND]
            kinds[str(name)] = _canonical(transition + about), domains.get(name, {})
    arranged, canaries = waves.arrange(kinds, sizes, limits, {domain: len(names) for domain, names in down.items()})
    for count, wave in enumerate(arranged, 1):
        for name in wave:
            hosts[name]["wave"] = count
    del options["today"]
    plan = {"schema": SCHEMA, "planned": planned, "options": dict(options, domains=limits, wave_sizes=list(sizes)), "rules": plain(policy.own),
            "reads": reads,
            "waves": [{"wave": count, "canaries": count <= canaries, "hosts": wave} for count, wave in enumerate(arranged, 1)], "hosts": hosts}
    plan["summary"] = summary(plan, {variable: sum(1 for name in kinds if variable not in domains.get(name, {})) for variable in limits})
    return dict(plan, digest=digest(plan))


def _down(facts, domains, limits):
    """{(variable, value): [host, ...]} of the hosts without facts, which may be down."""
    found = {}
    for name, each in facts.items():
        if not isinstance(each, dict):
            for variable, value in domains.get(name, {}).items():
                if variable in limits:
                    found.setdefault((variable, value), []).append(str(name))
    return found


def _full(domain, limits, down):
    """The reason why no host of these domains can be worked on, where so many of one are down; else None."""
    for key in domain.items():
        names = sorted(down.get(key, ()))
        if names and waves.room(limits, {key: len(names)}, key) < 1:
            return {"rule": "engine.domain-down", "effect": "note", "source": None, "text": (
                "Of %s %s, of which at most %d may be worked on at once, %s %s no facts and may be down: %s. Bring %s back, and plan again." % (
                    clean(str(key[0])), clean(str(key[1])), limits[key[0]], quantity(len(names), "host"), "has" if len(names) == 1 else "have",
                    _names(names, len(names), 100), "it" if len(names) == 1 else "them"))}
    return None


def _left(decision, reason):
    """The decision for a host that would be acted on, and is left for this reason."""
    return dict(decision, action="blocked", guests="none", reboot=False, fingerprint=None, brings=[], takes=[], closes=[],
                because=[reason] + decision["because"])


def _check(policy, options, limits, sizes):
    """PlanError where what the operator asks for cannot be meant."""
    known = {rule["id"]: rule["effect"] for rule in policy.rules}
    for name in options["accept"]:
        if known.get(name) != "review":
            raise PlanError("accept: %s is %s; what can be accepted are rules of the effect review" % (
                clean(name), "a rule of the effect " + known[name] if name in known else "no rule that is known here"))
    target = options["target"]
    if isinstance(target, dict):
        seen = {}
        for signature, revision in target.items():
            if number(signature) is None or number(revision) is None:
                raise PlanError("target: %s: %s is no signature with its revision, such as \"0x00050654\": \"0x02007006\"; quote both, since YAML takes "
                                "them for numbers otherwise" % (clean(str(signature)), clean(str(revision))))
            if number(signature) in seen:
                raise PlanError("target: %s and %s are one signature: name it once" % (seen[number(signature)], clean(signature)))
            seen[number(signature)] = clean(signature)
    elif target not in ("newest_staged", "advisory"):
        raise PlanError("target: %s is none of newest_staged, advisory and a mapping of signatures to revisions" % clean(str(target)))
    if options["hold_days"] < 0:
        raise PlanError("hold_days: %d days are none; 0 holds nothing back" % options["hold_days"])
    if not sizes or min(sizes) < 1:
        raise PlanError("wave_sizes: at least one number of hosts is needed, and each at least 1")
    for variable, most in limits.items():
        if most < 1:
            raise PlanError("domains: at most %d hosts of one %s at once would be no host ever; the least is 1" % (most, clean(str(variable))))


def _tree(paths):
    """{"cpu": {"signature": None}, "files": {"[]": {"path": None}}} of ["cpu.signature", "files[].path"]; a path within another takes no place of its own."""
    tree = {}
    for path in sorted(paths):
        at, keys = tree, path.replace("[]", ".[]").split(".")
        for key in keys[:-1]:
            at = at.setdefault(key, {})
            if at is None:
                break
        else:
            at[keys[-1]] = None
    return tree


def _pick(value, tree):
    """What these paths lead to; all of a value that is not what they take it for."""
    if isinstance(value, dict) and tree:
        return {key: _pick(value.get(key), below) for key, below in tree.items()}
    if isinstance(value, (list, tuple)) and tree and list(tree) == ["[]"]:
        return [_pick(each, tree["[]"]) for each in value]
    return plain(value)


def _canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _fingerprint(picked):
    """What decides of a host's facts, in 64 digits: 32 of what stays as it is until the host loads, and 32 of PREPARED."""
    prepared = {key: picked[key] for key in PREPARED if key in picked} if isinstance(picked, dict) else {}
    stays = {key: each for key, each in picked.items() if key not in prepared} if isinstance(picked, dict) else picked
    return _sha256(_canonical(stays))[:32] + _sha256(_canonical(prepared))[:32]


def _sha256(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _transition(decision):
    return [decision[key] for key in ("action", "from", "to", "sha256")]


def digest(plan):
    """SHA-256 of all that was decided; when it was decided is not part of it, and which hosts are done is nowhere in a plan."""
    return _sha256(_canonical({key: value for key, value in plan.items() if key not in UNDIGESTED}))


def summary(plan, nowhere):
    """Counts: hosts by action, reboots, guests; and of those that are not acted on, by which rule; nowhere: hosts of the waves without a domain."""
    hosts = plan["hosts"].values()
    actions, why = Counter(each["action"] for each in hosts), {}
    for name, each in plan["hosts"].items():
        if each["action"] not in ACTED + ("none",):
            why.setdefault((each["action"], first_reason(each)["rule"]), []).append(name)
    return {"hosts": len(hosts), "actions": {action: actions[action] for action in ACTIONS}, "reboots": sum(1 for each in hosts if each["reboot"]),
            "guests": dict(Counter(each["guests"] for each in hosts if each["guests"] != "none")), "without_domain": nowhere,
            "waves": len(plan["waves"]), "left": [{"action": action, "rule": rule, "count": len(names), "hosts": names[:ROWS]}
                                                  for (action, rule), names in sorted(
                                                      why.items(), key=lambda item: (list(ACTIONS).index(item[0][0]), -len(item[1])))[:50]]}


# --- using it ---

def check(plan, approved=None):
    """The plan, read from JSON, as it was made; PlanError where it is none, was changed since, or has another digest than the approved one."""
    if not isinstance(plan, dict) or plan.get("schema") != SCHEMA or not isinstance(plan.get("hosts"), dict):
        raise PlanError("this is no plan of schema %d; use one version of the collection everywhere, and the JSON that microcode_plan wrote" % SCHEMA)
    if plan.get("digest") != digest(plain(plan)):
        raise PlanError("the plan was changed after it was made: its content no longer has the digest %s that it carries; plan again"
                        % (clean(plan.get("digest"), 64) or "(none)"))
    if approved and approved != plan["digest"]:
        raise PlanError("the plan of %s has the digest %s, and approved was %s: give the plan that was approved, or have this one approved" % (
            clean(plan["planned"], 30), plan["digest"], clean(approved, 64)))
    return plan


def reached(plan, approved):
    """The plan, made anew, where it has the digest that was approved; else PlanError, which says what has changed as far as it shows."""
    if plan["digest"] == approved:
        return plan
    lost = [name for name, each in plan["hosts"].items() if first_reason(each)["rule"] == "engine.no-facts"]
    there = [name for name, each in plan["hosts"].items() if first_reason(each)["rule"] in ("engine.current", "engine.target-runs", "engine.not-needed")]
    seen = ["%s: %s (%s)" % (what, quantity(len(names), "host"), _names(names, len(names), 100))
            for what, names in (("without facts", lost), ("with all that is wanted", there)) if names]
    raise PlanError("the plan that is made now has the digest %s, and approved was %s. A plan made anew has the approved one's only while the options, the "
                    "rules and the hosts' facts are as they were: once a host is finished, lost, added or otherwise changed, what it ran then is known "
                    "nowhere. Now%s. Give the approved plan itself (approved), by which hosts that are done are skipped and those that changed are left; or "
                    "have the plan of now approved" % (plan["digest"], clean(approved, 64), " " + ", ".join(seen) if seen else " nothing of that shows"))


def read(given):
    """The plan that a text from pack() or the file of this path holds, or this mapping; PlanError where none can be read from it."""
    if not isinstance(given, str):
        return given
    try:
        if given.startswith(PACKED):
            if lzma is None:
                raise ValueError("this Python was built without lzma, with which it is packed")
            unpacker = lzma.LZMADecompressor(memlimit=UNPACKED)
            text = unpacker.decompress(base64.b64decode(given[len(PACKED):], validate=True), UNPACKED)
            if not unpacker.eof:
                raise ValueError("it is cut off, or too large")
        else:
            with open(given, encoding="utf-8") as stream:
                text = stream.read()
        return json.loads(text)
    except OSError as exc:
        raise PlanError("the approved plan %s cannot be read: %s; name the JSON that microcode_plan wrote" % (clean(given), exc.strerror)) from None
    except UNREADABLE as exc:
        raise PlanError("the approved plan cannot be read: %s; give the JSON that microcode_plan wrote, or its path" % clean(str(exc), 100)) from None


def pack(plan):
    """The plan as a text that is short enough to travel from job to job; None where this Python cannot pack."""
    return PACKED + base64.b64encode(lzma.compress(document(plan).encode(), preset=1)).decode() if lzma else None


def progress(plan, facts):
    """{each of STATES: {host: why}} of these hosts, {name: its facts or None}, by an approved plan; those with which it does nothing are in none of them."""
    found = {kind: {} for kind in STATES}
    for name, each in facts.items():
        kind, why = state(plan, str(name), each)
        if kind or str(name) not in plan["hosts"]:
            found[kind or "new"][str(name)] = why
    return found


def state(plan, name, facts):
    """("done" | "pending" | "stale", why) of a host of the plan by its facts; (None, why) where the plan does nothing with it."""
    decision = part(plan, "hosts", name)
    if part(decision, "action") not in ACTED:
        return None, "the plan does nothing with it" if decision else "the plan does not name it"
    if not isinstance(facts, dict):
        return "stale", "it has no facts: it was not reached, or they were not read"
    revisions, unread, target = part(facts, "cpu", "revisions"), _unread(facts), number(part(decision, "to"))
    runs = sorted({number(each) or 0 for each in revisions}) if isinstance(revisions, dict) else []
    if runs == [target] and unread == 0:
        return "done", "every CPU runs %s" % hex8(target)
    reads = [path for path in items(part(plan, "reads")) if isinstance(path, str) and path not in MOMENTARY]
    was, is_now = clean(part(decision, "fingerprint"), 64) or "", _fingerprint(_pick(facts, _tree(reads)))
    if is_now == was:
        return "pending", "what was read of it is as it was when the plan was made"
    staged = {part(each, "sha256") for each in items(part(facts, "files")) if isinstance(part(each, "sha256"), str)}
    if is_now[:32] == was[:32] and number(part(facts, "pending")) == target and part(decision, "sha256") in staged:
        return "pending", "its next boot loads %s" % hex8(target)
    if runs == [target]:
        return "stale", "CPUs run %s, but of %s the revision is not known" % (hex8(target), quantity(unread, "CPU") if unread else "others")
    return "stale", "what the plan rests on has changed: it runs %s now, and ran %s; plan again" % (
        ", ".join(map(hex8, runs)) or "what is not known", clean(part(decision, "from")) or "what was not known")


def _unread(facts):
    """CPUs that may run anything; None where that is not known. A CPU of Linux that is offline is given the update before it runs again.

    Threads of a core share its microcode, and Xen's log tells of the first one alone: where one CPU of each core is told, all are.
    """
    unread, offline = part(facts, "cpu", "unread"), items(part(facts, "cpu", "offline"))
    if not isinstance(unread, int):
        return None
    if part(facts, "hypervisor", "type") != "xen":
        return max(0, unread - len(offline))
    if part(facts, "cpu", "vendor") == "AuthenticAMD":  # Xen loads on each thread, and tells of each
        return unread
    revisions, threads = part(facts, "cpu", "revisions"), part(facts, "hypervisor", "xen", "threads_per_core")
    told = sum(len(items(cpus)) for cpus in revisions.values()) if isinstance(revisions, dict) else 0
    return 0 if isinstance(threads, int) and told and told * threads == told + unread else unread


def document(plan):
    """The plan as JSON text, one line for each host."""
    head = {key: value for key, value in plan.items() if key != "hosts"}
    lines = ",\n".join("%s: %s" % (json.dumps(name), json.dumps(each)) for name, each in plan["hosts"].items())
    return json.dumps(head)[:-1] + ', "hosts": {\n%s\n}}\n' % lines


# --- what people read ---

def table(plan, width=79):
    """[(action or None, line), …] for the terminal: how many by which path, the waves, and who is left and why."""
    counts, hosts = plan["summary"], plan["hosts"]
    lines = [(None, "Microcode plan for %s, %s" % (quantity(counts["hosts"], "host"), plan["planned"])), (None, "  digest " + plan["digest"])]
    lines += _wrapped(None, "  ", "; ".join("%s: %d" % (ACTIONS[action], count) for action, count in counts["actions"].items() if count)
                      + ("; %s" % quantity(counts["reboots"], "reboot") if counts["reboots"] else "")
                      + "".join("; guests %sd on %s" % (how, quantity(count, "host")) for how, count in sorted(counts["guests"].items())), width)
    lines += [(None, line) for variable, count in sorted(counts["without_domain"].items()) if count for _none, line in _wrapped(
        None, "  ", "%s to act on without the variable %s: no limit holds for them" % (quantity(count, "host"), clean(variable)), width)]
    if plan["waves"]:
        lines += _paths(hosts) + _waves(plan, width)
    said = None
    for left in counts["left"][:ROWS]:
        action, first = left["action"], first_reason(hosts[left["hosts"][0]])
        if action != said:
            lines += [(None, ""), (action, "%s: %s" % (ACTIONS[action], quantity(counts["actions"][action], "host")))]
            said = action
        lines.append((action, "  " + _names(left["hosts"], left["count"], width - 2)))
        lines += _wrapped(action, "    ", "%s [%s]" % (first["text"], first["rule"]), width, 4)
    if counts["left"][ROWS:]:
        lines += [(None, ""), (None, "and %s for other reasons: see the JSON" % quantity(sum(left["count"] for left in counts["left"][ROWS:]), "host"))]
    return lines


def progress_table(found, width=79):
    """[(None, line), …] for the terminal, of what progress() found: how many are how far, and who is left and why."""
    lines = [(None, ""), (None, "Of the approved plan's hosts, those in this play: " + (", ".join(
        "%d %s" % (len(found[kind]), STATES[kind]) for kind in STATES if found[kind]) or "none"))]
    for kind in ("stale", "new"):
        reasons = {}
        for name, why in found[kind].items():
            reasons.setdefault(why, []).append(name)
        for why, names in sorted(reasons.items(), key=lambda item: -len(item[1]))[:ROWS]:
            lines += [(None, "  " + _names(names, len(names), width - 2))] + _wrapped(None, "    ", why, width)
        if len(reasons) > ROWS:
            lines.append((None, "  ... and more for %s" % quantity(len(reasons) - ROWS, "other reason")))
    return lines


def _paths(hosts):
    """Rows of the transitions."""
    rows = {}
    for each in hosts.values():
        if each["wave"]:
            rows.setdefault((each["action"], each["signature"], each["from"], each["to"]), []).append(each["wave"])
    form = "%-5s  %-10s  %-10s  %-10s  %5s  %s"
    found = sorted(rows.items(), key=lambda row: (row[0][0] != "late", -len(row[1]), str(row[0])))
    lines = [(None, ""), (None, form % ("PATH", "SIGNATURE", "RUNS", "TO", "HOSTS", "WAVES"))]
    lines += [(key[0], form % (key + (len(among), "%d" % min(among) if min(among) == max(among) else "%d-%d" % (min(among), max(among)))))
              for key, among in found[:ROWS]]
    more = sum(len(among) for _key, among in found[ROWS:])
    return lines + ([(None, "... and %s of %s more: see the JSON" % (quantity(more, "host"), quantity(len(found) - ROWS, "transition")))] if more else [])


def _waves(plan, width):
    """Rows of the waves."""
    lines = [(None, ""), (None, "WAVE  HOSTS")]
    shown = plan["waves"] if len(plan["waves"]) <= ROWS else plan["waves"][:ROWS - 1]
    for wave in shown:
        start = "%4d  %5d  %s" % (wave["wave"], len(wave["hosts"]), "one of each kind: " if wave["canaries"] else "")
        lines.append((None, start + _names(wave["hosts"], len(wave["hosts"]), width - len(start))))
    more = plan["waves"][len(shown):]
    if more:
        lines.append((None, "... and %s more with %s, of at most %d" % (quantity(len(more), "wave"), quantity(sum(len(wave["hosts"]) for wave in more), "host"),
                                                                        max(len(wave["hosts"]) for wave in more))))
    return lines


def _names(names, count, room):
    """As many of these names as there is room for, one at least."""
    names = [clean(name, 100) or "?" for name in names[:ROWS * 4]]
    for shown in range(len(names), 0, -1):
        text = ", ".join(names[:shown]) + (" and %d more" % (count - shown) if count > shown else "")
        if len(text) <= room:
            break
    return text


def first_reason(decision):
    """The reason that counted most, which stands in front."""
    return decision["because"][0] if decision["because"] else {"rule": "none", "text": "No reason is given.", "source": None}


def _wrapped(action, start, text, width, most=3):
    """Lines of text, the first with this start, the others as far in."""
    return [(action, line) for line in textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * len(start), max_lines=most, placeholder=" ...")]


def explain(plan, name):
    """The whole chain of reasoning for one host, in lines of plain words. PlanError where the plan does not name it."""
    decision = part(plan, "hosts", name)
    if not isinstance(decision, dict):
        raise PlanError("the plan does not name %s" % (clean(str(name)) or "a host without a name"))

    def said(key):
        return clean(part(decision, key), 4096)
    action = said("action")
    lines = ["%s: %s" % (clean(name, 253), ACTIONS.get(action, action))]
    lines.append("It runs %s%s." % (said("from") or "a revision that is not known", ", on signature %s" % said("signature") if said("signature") else ""))
    if said("to"):
        lines.append("It %s %s, from %s%s%s." % (
            "is to run" if action in ACTED else "would have run", said("to"), said("file") or "a file that is not known",
            " of %s" % said("package") if said("package") else "", ", SHA-256 %s" % said("sha256") if said("sha256") else ""))
    if action in ACTED:
        lines.append("%s; %s." % ("It is rebooted" if part(decision, "reboot") else "It is not rebooted",
                                  "its guests are paused meanwhile" if said("guests") == "pause" else "its guests are left as they are"))
    wave = next((each for each in items(part(plan, "waves")) if part(each, "wave") == part(decision, "wave")), None)
    if wave and part(decision, "wave"):
        lines.append("It is in wave %s of %d%s." % (part(wave, "wave"), len(plan["waves"]), ", as the first of its kind of hardware and software to show that "
                                                    "all is well" if part(wave, "canaries") else ""))
    for title, key in (("It brings", "brings"), ("It takes", "takes"), ("It closes", "closes")):
        texts = [text for text in (clean(each if isinstance(each, str) else json.dumps(each), 500) for each in items(part(decision, key))) if text]
        lines += ["%s: %s." % (title, ", ".join(texts))] if texts else []
    reasons = items(part(decision, "because"))
    lines.append("Why:" if reasons else "No rule spoke.")
    for count, each in enumerate(reasons, 1):
        said_of_it, whence = reason(each)
        lines += ["%d. %s" % (count, said_of_it), "   " + whence]
    return lines


def reason(each):
    """(what a rule said of a host, which rule and where it has that from), in plain words."""
    rule, effect, text, source = (clean(part(each, key), 2000) for key in ("rule", "effect", "text", "source"))
    return "%s: %s" % (EFFECTS.get(effect, effect), text), "Rule %s%s" % (rule, sourced(source))


def sourced(source):
    """Where a rule has what it says from."""
    return "; source: %s" % re.sub(r"^facts\.", "its facts, ", source) if source else ""
