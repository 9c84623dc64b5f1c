# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A rollout: which hosts of a plan are worked on in which wave, what became of each, and whether the next wave may begin.

Nothing is remembered between runs: who is done says each host by its facts. Facts and outcomes come from hosts and are not trusted.
"""
import datetime
import json
import textwrap
from collections import Counter

from ansible_collections.fleet.microcode.plugins.plugin_utils.plan import PlanError, progress, state
from ansible_collections.fleet.microcode.plugins.plugin_utils.report import clean, part, quantity

SCHEMA = 1
TIME = "%Y-%m-%dT%H:%M:%SZ"  # UTC, as facts have it
TROUBLE = {  # what counts against the budget
    "lost": "lost",
    "failed": "failed",
    "wrong": "running another revision",
}
STATES = dict({  # of a host, in the order in which people are shown them
    "done": "done",
    "prepared": "waiting for a boot",
    "checked": "looked at in check mode",
}, **TROUBLE, begun="being worked on", waiting="not begun", stale="changed since the plan, and left", new="not in the plan, and left")
WORK = ("action", "from", "to", "file", "sha256", "guests", "reboot", "takes", "closes")  # of a decision, what carrying it out takes
SHOWN = 20  # hosts that are named in what is printed


# --- opening it ---

def opened(plan, facts, domains, inventory, options, now):
    """How this rollout goes: {"order": the hosts that are worked on, in the plan's order, "serial": how many of them in each wave, ...}.

    facts: {host: its facts, or None where it was not reached}, domains: {host: {domain variable: value}}, both of the hosts of the play.
    inventory: the names of all hosts that there are, also of those that a limit leaves out. options: budget, domain_budget, deadline, on_stop as given.
    PlanError where two names are one machine, or an option cannot be meant.
    """
    found = progress(plan, facts)
    _no_machine_twice(found["pending"], facts)
    waves = [dict(wave, hosts=[name for name in wave["hosts"] if name in found["pending"]]) for wave in plan["waves"]]
    waves = [wave for wave in waves if wave["hosts"]]
    lost = sorted(name for name in found["stale"] if not isinstance(facts.get(name), dict))
    acted = len(found["done"]) + len(found["pending"]) + len(found["stale"])
    left = {name: why for kind in ("stale", "new") for name, why in found[kind].items() if name not in lost}
    left.update((name, "it is not in the inventory any more") for wave in plan["waves"] for name in wave["hosts"] if name not in inventory)
    return {
        "digest": plan["digest"], "started": now, "order": [name for wave in waves for name in wave["hosts"]],
        "serial": [len(wave["hosts"]) for wave in waves] or [1], "waves": [{"wave": wave["wave"], "canaries": wave["canaries"]} for wave in waves],
        "done": sorted(found["done"]), "lost": lost, "left": left,
        "new": sorted(found["new"]), "budget": _budget(options.get("budget"), acted, "budget"),
        "domains": {name: each for name, each in domains.items() if each},
        "domain_budget": _budget(options.get("domain_budget"), None, "domain_budget"), "deadline": _moment(options.get("deadline")),
        "on_stop": options.get("on_stop") or "leave",
    }


def _no_machine_twice(names, facts):
    """PlanError where two of these names are one machine: work on one would take the other by surprise."""
    seen = {}
    for name in sorted(names):
        boot = part(facts.get(name), "boot_id")
        if isinstance(boot, str) and seen.setdefault(boot, name) != name:
            raise PlanError("%s and %s are one machine: both run the boot %s. It would be worked on twice, maybe at once; leave one of the names out of the "
                            "inventory, or out of this run by --limit" % (clean(seen[boot], 100), clean(name, 100), clean(boot, 40)))


def _budget(said, whole, option):
    """A number of hosts, of "3", 3 or, of the whole, "5%"."""
    text = str(said).strip()
    if text.isdecimal():
        return int(text)
    if whole is not None and text.endswith("%") and text[:-1].strip().isdecimal() and int(text[:-1]) <= 100:
        return whole * int(text[:-1]) // 100
    raise PlanError("%s: %s is no number of hosts%s" % (
        option, clean(text, 40) or "nothing", " such as 3, nor a part of them such as 5%" if whole is not None else " such as 3"))


def _moment(said):
    """A moment in UTC as facts have it, of a text such as 2026-11-24T05:00:00+01:00; None for none."""
    if not said:
        return None
    try:
        found = datetime.datetime.fromisoformat(str(said).strip().replace("Z", "+00:00"))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise PlanError("deadline: %s is no moment with its time zone, such as 2026-11-24T04:00:00Z or 2026-11-24T05:00:00+01:00; quote it, since YAML takes "
                        "it for a date" % (clean(str(said), 40) or "nothing"))
    return found.astimezone(datetime.timezone.utc).strftime(TIME)


# --- judging it ---

def outcome(plan, name, said, facts, begun):
    """(one of STATES, why) of a host that this rollout works on, by what was noted of it, said, and by its facts of now."""
    noted = clean(part(said, "state"), 20)
    text = clean(part(said, "msg"), 1000)
    if noted in ("failed", "lost"):
        return noted, text or "no reason was given"
    if noted not in ("done", "checked", "waiting"):
        return ("lost", "it was begun, and nothing was heard of it since; see Ansible's own message") if begun or noted else ("waiting", None)
    if noted == "waiting":
        return "waiting", text
    if noted == "checked":
        return "checked", None
    found, why = state(plan, name, facts)
    if found == "done":
        return "done", None
    prepared = found == "pending" and part(facts, "pending") == plan["hosts"][name]["to"]
    return ("prepared", why) if prepared and _measured(part(said, "rebooted")) is None else ("wrong", why)


def _noted(text):
    """A moment that a host's note has, or None where it is none."""
    try:
        return datetime.datetime.strptime(text, TIME).strftime(TIME)
    except (TypeError, ValueError):
        return None


def _measured(value):
    """Seconds as a number, which older versions of Ansible have made a text of; None where it is none."""
    try:
        found = round(float(value), 3) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else 0
    except (ValueError, OverflowError):
        return None
    return found if 0 < found < 1e6 else None


def course(said, undone):
    """{"began", "ended", "held", "rebooted", "undone"} of a host, by what was noted of it; what is not known, or was not done, is None.

    held: seconds for which a guest was held at most; rebooted: seconds until the host was back; undone: what became of rolling it back, in words.
    """
    found = {key: _noted(part(said, key)) for key in ("began", "ended")}
    found.update((key, _measured(part(said, key))) for key in ("held", "rebooted"))
    how = part(undone, "state")
    found["undone"] = {"done": "rolled back", "reset": "rolled back; the newer revision runs until the processor is reset",
                       "failed": "not rolled back: %s" % (clean(part(undone, "msg"), 1000) or "no reason was given")}.get(how if isinstance(how, str) else "")
    return found


def judged(run, hosts, wave, now, objection=None):
    """{"counts", "trouble", "stop", "undo", "line"}: what has become of the hosts so far, why no wave may begin any more (stop, else None), whom to roll back.

    wave: the position of the next one among the run's waves; None at the end. hosts: {name: {"state", "why", "domains"}} of all hosts of the run.
    objection: what the operator's own check says against going on.
    """
    counts = Counter(each["state"] for each in hosts.values())
    trouble = sorted(name for name, each in hosts.items() if each["state"] in TROUBLE)
    canaries = {name for at, each in enumerate(run["waves"]) if each["canaries"] for name in members(run, at)} & set(trouble)
    domains = Counter(key for name in trouble for key in hosts[name]["domains"].items())
    worst = max(domains.items(), key=lambda each: (each[1], each[0]), default=None)
    lines = (
        (canaries, "a canary stands for all hosts of its kind, so nothing goes on to them: %s" % _who(hosts, sorted(canaries))),
        (len(trouble) > run["budget"], "%s in trouble, of which the budget allows %d: %s" % (
            quantity(len(trouble), "host"), run["budget"], _who(hosts, trouble))),
        (worst and worst[1] > run["domain_budget"], worst and "%s of %s %s in trouble, of which the domain's budget allows %d: %s" % (
            quantity(worst[1], "host"), clean(worst[0][0], 60), clean(worst[0][1], 60), run["domain_budget"],
            _who(hosts, [name for name in trouble if hosts[name]["domains"].get(worst[0][0]) == worst[0][1]]))),
        (objection, "the operator's check says no: %s" % clean(objection, 1000)),
        (run["deadline"] and now >= run["deadline"] and (counts["waiting"] or wave is not None), "the deadline, %s, has passed" % run["deadline"]),
    )
    stop = next((text for true, text in lines if true), None)
    undo = _last_begun(run, hosts) if run["on_stop"] == "roll_back" and any(true for true, _text in lines[:4]) else []
    return {"counts": dict(counts), "trouble": trouble, "stop": stop, "undo": undo, "line": _line(run, counts, wave, stop, now)}


def _last_begun(run, hosts):
    """The hosts of the last wave that was begun which can be reached, and were worked on."""
    begun = [[name for name in members(run, at) if hosts[name]["state"] not in ("waiting", "checked")] for at in range(len(run["waves"]))]
    return [name for name in next(filter(None, reversed(begun)), []) if hosts[name]["state"] != "lost"]


def members(run, at):
    """The hosts of a wave, by its position in the run."""
    start = sum(run["serial"][:at])
    return run["order"][start:start + run["serial"][at]]


def position(run, name):
    """In which of the run's waves a host is."""
    place = run["order"].index(name)
    for at, size in enumerate(run["serial"]):
        if place < size:
            return at
        place -= size
    raise ValueError(name)


def one_wave(run, at, batch):
    """PlanError where this batch of hosts has others than those of a wave."""
    others = sorted(set(map(str, batch)) - set(members(run, at)))
    if others:
        raise PlanError("the batch of wave %d has %s, which the plan has not put there: a name of a host that is a group's name too, or has characters of a "
                        "pattern, brings others. Name that host otherwise in the inventory" % (run["waves"][at]["wave"], ", ".join(
                            clean(name, 100) or "?" for name in others[:5])))


def work(plan, names):
    """{host: what carrying its decision out takes}."""
    return {name: {key: plan["hosts"][name].get(key) for key in WORK} for name in names}


def seconds(since, until):
    """Between two moments."""
    return (datetime.datetime.strptime(until, TIME) - datetime.datetime.strptime(since, TIME)).total_seconds()


def _who(hosts, names):
    """Hosts with what became of them."""
    text = "; ".join("%s %s%s" % (clean(name, 100), TROUBLE[hosts[name]["state"]], ": " + clean(hosts[name]["why"], 300) if hosts[name]["why"] else "")
                     for name in names[:3])
    return text + (" and %d more" % (len(names) - 3) if len(names) > 3 else "")


def _line(run, counts, wave, stop, now):
    """One line of how far the rollout is."""
    passed = str(datetime.timedelta(seconds=int(seconds(run["started"], now))))
    so_far = ", ".join("%s %d" % (STATES[each], counts[each]) for each in STATES if counts[each]) or "nothing to do"
    if wave is None:
        return "The rollout %s after %s: %s" % ("stopped" if stop else "ended", passed, so_far)
    here = run["waves"][wave]
    return "Wave %d (%d of %d%s, %s) %s; so far %s; %s" % (
        here["wave"], wave + 1, len(run["waves"]), ", canaries" if here["canaries"] else "", quantity(run["serial"][wave], "host"),
        "does NOT begin" if stop else "begins", so_far, passed)


# --- what people and programs read ---

def record(plan, run, hosts, verdict, now):
    """The rollout as a mapping for JSON, see docs/rollout.md."""
    return {"schema": SCHEMA, "digest": plan["digest"], "started": run["started"], "ended": now, "stopped": verdict["stop"], "counts": verdict["counts"],
            "options": {key: run[key] for key in ("budget", "domain_budget", "deadline", "on_stop")},
            "waves": [dict(each, hosts=members(run, at)) for at, each in enumerate(run["waves"])], "hosts": hosts}


def document(found):
    """That as JSON text, one line for each host."""
    head = {key: value for key, value in found.items() if key != "hosts"}
    lines = ",\n".join("%s: %s" % (json.dumps(name), json.dumps(each)) for name, each in found["hosts"].items())
    return json.dumps(head)[:-1] + ', "hosts": {\n%s\n}}\n' % lines


def table(plan, found, width=79):
    """[(state or None, line), ...] for the terminal: what became of the hosts, with the reasons of those that are not done."""
    lines = []
    for each, words in STATES.items():
        names = [name for name, host in found["hosts"].items() if host["state"] == each]
        if not names:
            continue
        lines.append((each, "%s: %s" % (words, quantity(len(names), "host"))))
        if each in ("done", "checked", "waiting"):
            continue
        for name in names[:SHOWN]:
            text = found["hosts"][name]["why"] or "no reason is known"
            lines += [(each, line) for line in textwrap.wrap("%s: %s" % (clean(name, 100), clean(text, 1000)), width, initial_indent="  ",
                                                             subsequent_indent="    ")]
        if len(names) > SHOWN:
            lines.append((each, "  and %d more: see the JSON" % (len(names) - SHOWN)))
    undone = Counter(host["undone"] for host in found["hosts"].values() if host.get("undone"))
    lines += [(None, "%s: %s" % (quantity(count, "host"), text)) for text, count in sorted(undone.items())]
    if found["stopped"]:
        lines += [(None, line) for line in textwrap.wrap("Stopped: %s." % found["stopped"], width)]
    left = [name for name, host in found["hosts"].items() if host["state"] not in ("done", "new")]
    if left:
        lines.append((None, "Run it again with the same plan: hosts that are done are skipped. Those that were left take a new plan."))
    return lines
