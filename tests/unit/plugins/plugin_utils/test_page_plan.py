# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a plan: what it says, that nothing of a host or a rule becomes anything but text, and how large it gets."""
import re

import pytest

pytest.importorskip("jmespath")

from ansible_collections.fleet.microcode.plugins.plugin_utils import page_plan, plan, report
from ansible_collections.fleet.microcode.tests.page import fleets
from ansible_collections.fleet.microcode.tests.unit.plugins.plugin_utils.test_page import Parsed, data_of, held_to_itself, row_of

FROM, TO = "0x02006b06", "0x02007006"


def rendered(made, facts=None, domains=None):
    """(text of the page, the same parsed)."""
    text = page_plan.render(made, facts or {}, domains or {})
    return text, Parsed(text)


def because(text, rule="r1", effect="block", source="INTEL"):
    return {"rule": rule, "effect": effect, "text": text, "source": source}


def decision(action, wave=None, *reasons, **more):
    return dict({"action": action, "from": FROM, "to": TO, "file": "/x", "sha256": "ab", "package": "p 1", "guests": "none", "reboot": action == "early",
                 "because": list(reasons or [because("text")]), "brings": [], "takes": [], "closes": [], "signature": "0x00050654", "fingerprint": "f",
                 "wave": wave}, **more)


def made(hosts, limits=None, canaries=1, rules=(), **options):
    """A plan of these decisions."""
    numbers = sorted({each["wave"] for each in hosts.values() if each["wave"]})
    asked = dict({"late": "never", "guests": "none", "hold_days": 0, "accept": [], "target": "newest_staged", "domains": limits or {}, "wave_sizes": [5, 1280]},
                 **options)
    found = {"schema": 1, "planned": fleets.WHEN, "options": asked, "rules": rules, "reads": [], "hosts": hosts,
             "waves": [{"wave": number, "canaries": number <= canaries, "hosts": [name for name, each in hosts.items() if each["wave"] == number]}
                       for number in numbers]}
    found["summary"] = plan.summary(found, dict.fromkeys(limits or {}, 2))
    return dict(found, digest=plan.digest(found))


@pytest.fixture(scope="module", name="facts")
def facts_fixture(tmp_path_factory):
    """{name: facts} of the recorded hosts."""
    return fleets.recorded(tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module", name="recorded")
def recorded_fixture(facts):
    """(plan, text, parsed) of the recorded fleet and a host that was not reached."""
    found = fleets.planned(dict(facts, lost=None))
    return (found[0], *rendered(*found))


def test_what_hosts_and_rules_say_is_text_alone(facts, recorded):
    found = fleets.nasty_plan(facts["deb12-db1"])
    text, parsed = rendered(*found)
    _plan, _text, harmless = recorded
    few = rendered(*fleets.planned({"a": None}))[1]  # has actions that no host is given
    # what only a plan with domains, canaries of several waves, changes has
    more = rendered(*fleets.racked({"deb12-db1": facts["deb12-db1"], "pve-node1": facts["pve-node1"]}, 60))[1]
    assert parsed.kinds <= harmless.kinds | few.kinds | more.kinds
    assert text.isascii() and text.replace("\n", "").isprintable() and parsed.declared == ["DOCTYPE html"]
    assert parsed.texts("script")[1:] == harmless.texts("script")[1:]
    assert {attributes["href"][0] for _tag, attributes, _texts in parsed.elements if "href" in attributes} == {"#"}
    data = data_of(parsed)
    assert set(data["names"]) == {report.clean(name) for name in found[1]} <= set(parsed.texts("li"))
    for each in fleets.NASTY:
        assert report.clean(each) in "".join(parsed.texts("main")) and report.clean(each) in data["texts"]
    assert not set("<>&") & set(re.search('id="data">(.*?)</script>', text, re.S).group(1))


def test_nothing_is_loaded_and_no_other_code_may_run(recorded):
    _plan, text, parsed = recorded
    held_to_itself(text, parsed)


def test_how_many_take_which_path(recorded):
    found, _text, parsed = recorded
    counts = found["summary"]
    assert parsed.texts("h1") == ["Microcode plan for 33 hosts"] and parsed.texts("p", class_="quiet digest") == ["digest " + found["digest"]]
    cards = parsed.texts("div", class_="card")
    acted = counts["actions"]["early"] + counts["actions"]["late"]
    assert cards[0] == "%d to be worked on, in 2 waves early, at the next boot %d late, at run time %dreboots%dhosts whose guests are paused%d" % (
        acted, counts["actions"]["early"], counts["actions"]["late"], counts["reboots"], counts["guests"]["pause"])
    assert cards[1].startswith("%d left, with a reason firmware first %d " % (33 - acted - counts["actions"]["none"], counts["actions"]["firmware_first"]))
    assert cards[2].startswith("%d nothing to do" % counts["actions"]["none"])
    bars = [attributes["aria-label"] for tag, attributes, _texts in parsed.elements if tag == "svg" and attributes.get("role") == "img"]
    assert bars[0] == "; ".join("%s: %d" % (plan.ACTIONS[action], count) for action, count in counts["actions"].items() if count)


def test_what_was_asked_for():
    _text, parsed = rendered(made({"a": decision("early", 1)}, {"rack": 4, "pool": 1}, late="allowed", guests="pause", hold_days=14, accept=["r7"],
                                  target={"0x00050654": TO}))
    told = dict(zip(parsed.texts("dt"), parsed.texts("dd")))
    assert told == {"Late loading": "allowed, where distribution, file, platform and every rule allow it", "Guests": "paused during a late load",
                    "Target": TO + " for 0x00050654", "Held back": "what is younger than 14 days", "Accepted": "r7", "Wave sizes": "5, 1,280 and so on",
                    "At once": "at most 4 of one rack, at most 1 of one pool", "No limit": "for 2 hosts in waves without the variable pool"}


def test_rules_of_ones_own_are_shown_with_what_they_match():
    mine = {"id": "ours", "match": "facts.firmware.vendor == 'Dell Inc.'", "effect": "early_only", "text": "Not <b>late</b> here.", "source": "handbook",
            "added": "2026-11-01"}
    _text, parsed = rendered(made({"a": decision("early", 1, because("x", "ours")), "b": decision("early", 1, because("x", "ours"), because("y", "ours"))},
                                  rules=[mine, dict(mine, id="gone", retracted="2026-11-02")]))
    told = parsed.texts("section", id="rules")[0]
    assert "oursAgainst late loading: Not <b>late</b> here." in told and mine["match"] in told and "spoke of 2 hosts; source: handbook" in told
    assert "spoke of 0 hosts, retracted; source: handbook" in told
    assert not rendered(made({"a": decision("early", 1)}))[1].texts("section", id="rules")


def test_waves_are_told_and_drawn_one_behind_the_other():
    hosts = {"a": decision("early", 1), "b": decision("late", 1, guests="pause"), "c": decision("early", 2), "d": decision("early", 2),
             "e": decision("late", 3)}
    racks = {name: {"rack": "r1" if name in "cd" else name} for name in hosts}
    _text, parsed = rendered(made(hosts, {"rack": 2}), domains=racks)
    waves = parsed.texts("section", id="waves")[0]
    assert "1 canaries" in waves and "one of each kind, 1 late, 1 reboot, guests paused on 1 host, at most 1 of one rack" in waves
    assert "2 reboots, at most 2 of one rack" in waves
    widths = [float(attributes["width"][:-1]) for tag, attributes, _texts in parsed.elements if tag == "rect" and attributes.get("class") == "before"]
    assert widths == [40, 80]
    assert parsed.texts("ul", class_="said")[0] == "Wave 1, canaries: 2 hostsabWave 2: 2 hostscdWave 3: 1 hoste"


def test_many_waves_unfold():
    _text, parsed = rendered(made({"h%d" % number: decision("early", number) for number in range(1, 31)}))
    assert "6 more waves" in parsed.texts("summary")


def test_transitions_are_told_for_each_cpu(facts):
    found = {"a": facts["deb12-web1"], "b": facts["deb12-web1"], "c": facts["deb12-db1"]}
    _text, parsed = rendered(made({"a": decision("early", 1), "b": decision("blocked"), "c": decision("none", to=None)}), found)
    part = parsed.texts("section", id="transitions")[0]
    assert "Left out: 1 host for which nothing is to be loaded." in part
    assert "Xeon Gold 6148 0x00050654 2 hosts%s \u2192 %searly, at the next boot: 1blocked: 12" % (FROM, TO) in part
    assert "Debian 12" in parsed.texts("section", id="distributions")[0]


def test_what_comes_and_goes_is_counted():
    _text, parsed = rendered(made({"a": decision("early", 1, takes=["tsx"], closes=["tsa", "mds"]), "b": decision("early", 1, closes=["tsa"])}))
    assert parsed.texts("section", id="changes")[0].endswith(
        "It takestsxearly, at the next boot: 11It closestsaearly, at the next boot: 22mdsearly, at the next boot: 11")


def test_who_is_left_stands_under_the_rule_with_its_source_and_what_lets_it_through():
    hosts = {"old01": decision("blocked", None, because("BIOS 1.0 of old01 hangs. Update it.", "bios"), because("And more.", "other")),
             "old02": decision("blocked", None, because("BIOS 1.2 of old02 hangs. Update it.", "bios")),
             "asked": decision("blocked", None, because("Read this.", "read-me", "review")),
             "odd": decision("unknown", None, because("Its role is not known.", "engine.role-unknown", "note", "facts.hypervisor")),
             "bare": decision("unknown", **{"because": []})}
    _text, parsed = rendered(made(hosts))
    titles = [text for text in parsed.texts("tr", class_="title") if "Rule" in text and ":" not in text.partition("Rule")[0]]
    assert titles == ["BIOS \u2026 of \u2026 hangs. Update it. 2 hostsRule bios; source: INTEL",
                      "Read this. 1 hostRule read-me; source: INTEL. Who has read this and accepts it names the rule in accept.",
                      "No reason is given. 1 hostRule none", "Its role is not known. 1 hostRule engine.role-unknown; source: its facts, hypervisor"]
    assert "And more." not in parsed.texts("section", id="left")[0]


def test_every_host_has_all_that_explain_prints(recorded):
    found, _text, parsed = recorded
    data = data_of(parsed)
    assert set(data["names"]) == set(found["hosts"])
    for name, each in found["hosts"].items():
        row, lines = row_of(parsed, name), plan.explain(found, name)
        told = lines[lines.index("Why:") + 1:]
        assert [re.sub(r"^\d+\. ", "", line).strip() for line in told] == [line for text in row["because"] for line in text.split("\n")]
        assert (row["running"], row["to"], row["wave"]) == (each["from"] or ("" if name == "lost" else "unknown"), each["to"] or "", str(each["wave"] or ""))
        assert row["rule"] == each["because"][0]["rule"] and (not each["to"] or each["sha256"] in row["file"])
    assert row_of(parsed, "xen-node1")["does"] == "not rebooted, guests are paused meanwhile, in wave 1 of 2, as the first of its kind"
    assert row_of(parsed, "lost")["cpu"] == "" and row_of(parsed, "deb12-web1")["distribution"] == "Debian 12"


def test_every_host_is_listed_without_a_script_with_its_reasons(facts):
    found = fleets.racked(facts, 500)
    _text, parsed = rendered(*found)
    listed = parsed.texts("div", id="listed")[0]
    names = [name for name in parsed.texts("li") if name in found[1]]
    assert all(names.count(name) == (1 if each["action"] == "none" else 2) for name, each in found[0]["hosts"].items())
    for effect in ("For late loading: ", "Against late loading: ", "To know: "):
        assert effect in listed


@pytest.mark.parametrize("hosts, absent", [
    ({}, ("waves", "transitions", "distributions", "changes")),
    ({"a": decision("blocked"), "b": decision("blocked")}, ("waves", "distributions", "changes")),
    ({"vm": decision("none", to=None)}, ("waves", "transitions", "distributions", "changes")),
])
def test_a_plan_that_does_nothing_has_no_empty_pictures(hosts, absent):
    _text, parsed = rendered(made(hosts))
    assert not [name for name in absent if parsed.texts("section", id=name) or parsed.texts("a", href="#" + name)]
    assert ("Nobody." in parsed.texts("section", id="left")[0]) == ("a" not in hosts)
    assert set(parsed.texts("li")) >= set(hosts) and len(data_of(parsed)["names"]) == len(hosts)


def test_facts_of_a_mapping_with_numbers_for_names_are_found(facts):
    found, _hosts, _domains = fleets.planned({7: facts["deb12-web1"]}, {7: {"rack": 3}}, {"rack": 1})
    row = row_of(rendered(found, {7: facts["deb12-web1"]}, {7: {"rack": "3"}})[1], "7")
    assert row["cpu"] == "Xeon Gold 6148" and row["domains"] == ["rack 3"]


def test_ten_thousand_hosts_fit_and_equal_decisions_are_told_once(facts):
    found = fleets.racked(facts, 10000)
    text, parsed = rendered(*found)
    assert len(text) < 5 << 20
    data = data_of(parsed)
    assert len(data["names"]) == 10000 and set(parsed.texts("li")) >= set(found[1])
    assert len(data["texts"]) == len(set(data["texts"])) < 1000
    for number, (name, each) in enumerate(found[0]["hosts"].items()):  # and where each host has a reason of its own
        each["because"] = each["because"] + [because("Its /boot/initrd.img-6.1.%d-%d-amd64 of %s is like no other" % (number % 97, number, name))]
    assert len(page_plan.render(*found)) < 5 << 20
