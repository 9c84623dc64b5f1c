# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fleets to make pages of: the recorded hosts, thousands that are like them, and hosts that say what would hurt a careless page."""
import datetime
import functools
import json
import random
import re

from ansible_collections.fleet.microcode.plugins.module_utils.facts import gather
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.plugin_utils import plan, policy, report, rollout
from ansible_collections.fleet.microcode.tests.fleet import trees

WHEN = "2026-11-22T14:00:00Z"
NASTY = ("<script>document.title = 'ran'</script>", "</script><script>document.title = 'ran'</script>", "<img src=x onerror=\"document.title = 'ran'\">",
         "\"><svg onload=document.title='ran'>", "' onmouseover='x", "{{ lookup('pipe', 'id') }} {% for x in y %}", "&lt;b&gt; &amp; & ]]> --> <!--",
         "a\u2028b\u2029c\u202egnp.exe\u2066\x00\x1b[2J\x07\x9b31m", "\ud800 \U0001f600 \u05d0\u05d1\u05d2 1-2", "javascript:alert(1)", "0x<b>")


def assessed(facts):
    """A host's entry of these facts."""
    return report.assess([{"ansible_facts": {"microcode": facts}}])


def recorded(folder):
    """{name: facts} of the recorded hosts, whose trees are made below folder."""
    return {name: gather(Host(str(trees.build(spec, folder / name)))) for name, spec in trees.hosts().items()}


def fleet(facts):
    """{name: entry} of the recorded hosts, and one that is not reached."""
    hosts = {name: assessed(each) for name, each in facts.items()}
    hosts["db-archive"] = lost("db-archive", "192.0.2.17")
    return hosts


def lost(name, address):
    """The entry of a host that does not answer."""
    return report.assess([{"unreachable": True, "msg": "Failed to connect to the host via ssh: ssh: connect to host %s port 22: No route to host (%s)"
                           % (address, name)}])


def many(facts, number):
    """{name: entry} of that many hosts: the recorded ones with other names, kernels, firmware and counts; half of those that waited for a reboot had it."""
    choice = random.Random(number)
    texts = {name: json.dumps(each) for name, each in facts.items()}
    kernels = {name: each["kernel"] for name, each in facts.items()}
    hosts = {}
    for index in range(number):
        seed = choice.choice(sorted(texts))
        name = "%s-%s%d-%05d.example.net" % (seed.rstrip("0123456789"), choice.choice(("fra", "ams", "iad", "sin")), choice.randrange(1, 4), index)
        if choice.random() < 0.02:
            hosts[name] = lost(name, "10.%d.%d.%d" % (choice.randrange(256), choice.randrange(256), choice.randrange(256)))
            continue
        kernel = re.sub("[0-9]+(?=[^0-9]*$)", lambda found: str(int(found.group()) + choice.randrange(6)), kernels[seed] or "6.1.0-1")
        text = texts[seed].replace(kernels[seed], kernel) if kernels[seed] else texts[seed]
        made = json.loads(re.sub(r"\b[0-9]+ of the machine's", lambda _found: "%d of the machine's" % choice.randrange(1, 96), text))
        if made["firmware"]:
            made["firmware"]["bios_version"] = "2.%d.%d" % (choice.randrange(10, 20), choice.randrange(4))
        if made["pending"] and choice.random() < 0.5:
            made["cpu"].update(revision=made["pending"], revisions={made["pending"]: [0]})
            made["pending"] = None
        hosts[name] = assessed(made)
    return hosts


def nasty(facts):
    """{name: entry} of hosts that say each nasty text everywhere a text can stand, one of them in its name alone."""
    def everywhere(value, text):
        return {key: text if isinstance(each, str) else each for key, each in value.items()}

    hosts = {"named %s" % text: assessed(facts) for text in NASTY}
    for index, text in enumerate(NASTY):
        said = json.loads(json.dumps(facts), object_hook=functools.partial(everywhere, text=text))
        said.update(schema=1, warnings=[text, "x " + text], vulnerabilities={text: "Vulnerable: no microcode"}, applicable=True)
        hosts["all texts %d" % index] = assessed(said)
        kept = dict(facts, kernel=text, warnings=[text], distro={"id": text, "version": text}, vulnerabilities={text: "Vulnerable: no microcode"},
                    cpu=dict(facts["cpu"], name=text), files=[dict(each, path=text, package=text) for each in facts["files"]],
                    early=dict(facts["early"], tool=text, kernels=[dict(each, initrd=text, version=text) for each in facts["early"]["kernels"]]))
        hosts["some texts %d" % index] = assessed(kept)
        hosts["lost %d" % index] = report.assess([{"unreachable": True, "msg": text}])
    return hosts


def planned(facts, domains=None, limits=None, sizes=(5, 20, 80, 320, 1280), **options):
    """(plan, facts, domains) of a fleet, as page_plan takes them."""
    asked = dict({"late": "allowed", "guests": "pause", "hold_days": 0, "accept": [], "target": "newest_staged"}, **options)
    return plan.make(facts, policy.load(), asked, WHEN, domains, limits, sizes), facts, domains or {}


def racked(facts, number):
    """A plan of that many hosts, most of which stand in racks and belong to pools."""
    choice = random.Random(number)
    found = {name: each["facts"] for name, each in many(facts, number).items()}
    domains = {name: {"rack": "r%02d" % choice.randrange(60), "pool": "p%03d" % choice.randrange(200)} for name in found if choice.random() < 0.98}
    return planned(found, domains, {"rack": 4, "pool": 2})


def nasty_plan(facts):
    """A plan of hosts that say each nasty text, and of rules, files and failure domains that do."""
    hosts = {name: each["facts"] for name, each in nasty(facts).items()}
    made, hosts, domains = planned(hosts, {name: {NASTY[0]: NASTY[index % len(NASTY)]} for index, name in enumerate(hosts)}, {NASTY[0]: 2})
    for index, (name, each) in enumerate(made["hosts"].items()):
        text = NASTY[index % len(NASTY)]
        said = dict.fromkeys(("rule", "effect", "text", "source"), text)
        made["hosts"][name] = dict(each, because=[said, dict(said, effect="note")], file=text, package=text, sha256=text,
                                   brings=[text], takes=[text], closes=[text])
    return made, hosts, domains


def rolled(made, *texts):
    """(plan, record) of a rollout of this plan that was stopped: of what is to be worked on, the last third was not begun, and some failed with these texts."""
    start, hosts = datetime.datetime.fromisoformat(WHEN.replace("Z", "+00:00")), {}
    order = [name for wave in made["waves"] for name in wave["hosts"]]
    for at, name in enumerate(order):
        wave = made["hosts"][name]["wave"]
        state = "waiting" if at >= len(order) * 2 // 3 else ("failed", "lost", "wrong", "done", "done", "done", "done")[at % 7]
        times = [(start + datetime.timedelta(minutes=minutes)).strftime(rollout.TIME) for minutes in (wave * 20, wave * 20 + 3 + at % 11)]
        text = texts[at % len(texts)] if texts else "Reboot: Timed out waiting for last boot time check (timeout=900)"
        began, ended = times if state != "waiting" else (None, None)
        hosts[name] = {"state": state, "why": None if state in ("done", "waiting") else text, "action": made["hosts"][name]["action"], "began": began,
                       "ended": None if state == "lost" else ended, "domains": {"rack": "r%d" % (at % 5)},
                       "undone": "rolled back" if state == "failed" else None,
                       "rebooted": 95.0 + at % 40 if state == "done" and made["hosts"][name]["reboot"] else None, "held": 0.081 if at % 3 == 0 else None}
    end = (start + datetime.timedelta(minutes=20 * len(made["waves"]) + 30)).strftime(rollout.TIME)
    return made, {"digest": made["digest"], "started": WHEN, "ended": end, "stopped": texts[0] if texts else "3 hosts in trouble, of which the budget allows 1",
                  "waves": made["waves"], "hosts": hosts}
