# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of an assessment: what it says of a fleet, that nothing a host says becomes anything but text, and how large it gets."""
import json
import re

import pytest

from ansible_collections.fleet.microcode.plugins.plugin_utils import page, page_posture, report
from ansible_collections.fleet.microcode.tests.page import fleets
from ansible_collections.fleet.microcode.tests.unit.plugins.plugin_utils.test_page import Parsed, data_of, held_to_itself, row_of


def rendered(hosts):
    """(text of the page, the same parsed)."""
    text = page_posture.render(hosts, report.posture(hosts), fleets.WHEN)
    return text, Parsed(text)


@pytest.fixture(scope="module", name="facts")
def facts_fixture(tmp_path_factory):
    """{name: facts} of the recorded hosts."""
    return fleets.recorded(tmp_path_factory.mktemp("trees"))


@pytest.fixture(scope="module", name="recorded")
def recorded_fixture(facts):
    """(hosts, text, parsed) of the recorded fleet."""
    hosts = fleets.fleet(facts)
    return (hosts, *rendered(hosts))


def test_what_hosts_say_is_text_alone(facts, recorded):
    nasty = fleets.nasty(facts["deb12-db1"])
    text, parsed = rendered(nasty)
    _hosts, _text, harmless = recorded
    few = rendered({"a": fleets.lost("a", "192.0.2.1")})[1]  # has states that no host is in
    assert parsed.kinds <= harmless.kinds | few.kinds
    assert parsed.declared == ["DOCTYPE html"]
    assert text.isascii() and text.replace("\n", "").isprintable()
    assert parsed.texts("script")[1:] == harmless.texts("script")[1:] and parsed.texts("style") == harmless.texts("style")
    assert {attributes["href"][0] for _tag, attributes, _texts in parsed.elements if "href" in attributes} == {"#"}
    said, data = "".join(parsed.texts("main")), data_of(parsed)
    for each in fleets.NASTY:
        shown = report.clean("named %s" % each)
        assert shown in data["names"] and shown in parsed.texts("li")
        assert report.clean(each) in said
    raw = re.search('id="data">(.*?)</script>', text, re.S).group(1)
    assert not set("<>&") & set(raw)
    assert len(data["names"]) == len(nasty)


def test_nothing_is_loaded_and_no_other_code_may_run(recorded):
    _hosts, text, parsed = recorded
    held_to_itself(text, parsed)


def test_the_posture_is_told_in_words_and_numbers(recorded):
    hosts, _text, parsed = recorded
    states = report.posture(hosts)["states"]
    assert parsed.texts("h1") == ["Microcode of 33 hosts"] and parsed.texts("time") == ["2026-11-22 14:00:00 UTC"]
    cards = parsed.texts("div", class_="card")
    assert cards[0].startswith("%d need a person" % sum(states[state] for state in page_posture.PERSON))
    for state, found in states.items():
        assert any("%s %d" % (report.STATES[state], found) in card or card.startswith("%d %s" % (found, report.STATES[state])) for card in cards)
    bars = [attributes["aria-label"] for tag, attributes, _texts in parsed.elements if tag == "svg" and attributes.get("role") == "img"]
    assert bars[0] == "; ".join("%s: %d" % (report.STATES[state], found) for state, found in states.items() if found)


def test_every_host_is_listed_without_a_script(facts):
    hosts = fleets.many(facts, 500)
    _text, parsed = rendered(hosts)
    warned = parsed.texts("ul", class_="said")[0]
    names = [name for name in parsed.texts("li") if name in hosts]
    assert set(names) == set(hosts)
    assert all(names.count(name) == 1 + warned.count(name) for name in hosts)


def test_reasons_that_differ_in_numbers_stand_together(recorded):
    _hosts, _text, parsed = recorded
    titles = parsed.texts("tr", class_="title")
    assert "Xen is started without ucode=scan, so that it takes none from the initrd 1 host" in titles
    assert "\u2026 of the machine's \u2026 CPUs: the hypervisor does not show their revision 5 hosts" in parsed.texts("p")


def test_cpus_and_revisions(facts):
    hosts = {"old": facts["deb12-web1"], "new": json.loads(json.dumps(facts["deb12-web1"])), "dom0": facts["xen-node4"], "guest": facts["xen-guest"]}
    hosts["new"]["cpu"].update(revision="0x02007006", revisions={"0x02007006": [0]})
    hosts["new"]["pending"] = None
    _text, parsed = rendered({name: fleets.assessed(each) for name, each in hosts.items()})
    table = [" ".join("".join(texts).split()) for tag, _attributes, texts in parsed.elements if tag == "tr"]
    start = table.index("Xeon Gold 6148, Xeon Silver 4110 0x00050654 3 hosts")
    assert table[start + 1] == "0x02007006nothing newer at hand: 223"  # the bar's words, 2 that run it, 3 that have it at hand
    assert table[start + 2] == "0x02006b06update pending reboot: 110"
    assert "Left out: 1 host that microcode does not apply to." in " ".join(parsed.texts("p"))


def test_pre_production_revisions_are_the_oldest():
    texts = ["0x8000001b", "unknown", "0x00000002", "0x0000000a"]
    assert sorted(texts, key=lambda text: page_posture.newest_first(text, True)) == ["0x0000000a", "0x00000002", "0x8000001b", "unknown"]
    assert sorted(texts, key=lambda text: page_posture.newest_first(text, False))[0] == "0x8000001b"


@pytest.mark.parametrize("loads, late, role, kind, path", [
    ("update", True, "host", "xen", "Xen: early or late"), ("update", False, "none", None, "Linux: early"), ("update", None, "host", "kvm", "Linux: early"),
    ("none", True, "host", "xen", "Xen: late only"), ("none", False, "none", None, "Linux: neither"), ("none", None, "none", None, "Linux: not known"),
    (None, True, "none", None, "Linux: late; early not known"), (None, False, "none", None, "Linux: not known"), ("update", True, None, None, "not known"),
    ("update", "yes", "none", None, "Linux: early"), ([], {}, [], [], "not known"),
])
def test_path(loads, late, role, kind, path):
    assert page_posture.path({"early": {"loads": loads}, "late": {"available": late}, "hypervisor": {"role": role, "type": kind}}) == path


@pytest.mark.parametrize("distro, name", [
    ({"id": "debian", "version": "12", "codename": "bookworm", "release": "stable"}, "Debian 12"), ({"id": "nixos", "version": "25.05"}, "nixos 25.05"),
    ({"id": "debian", "version": None, "codename": "forky", "release": "testing"}, "Debian testing (forky)"),
    ({"id": "arch", "release": "rolling"}, "Arch Linux rolling"),
    (None, "not known"), ({"id": ["x"]}, "not known"),
])
def test_distribution(distro, name):
    assert page.distribution({"distro": distro}) == name


@pytest.mark.parametrize("name, wanted", [
    ("deb12-db1", {"because": "/boot/initrd.img-6.1.0-56-amd64 carries 0x00000102; update-initramfs -u -k 6.1.0-56-amd64 rebuilds it",
                   "boots": "finds 0x00000102 in /boot/initrd.img-6.1.0-56-amd64, initrd by initramfs-tools"}),
    ("ubuntu-noload", {"boots": "loads none, though there is 0x000000fa in /boot/initrd.img-6.8.0-87-generic, the kernel's loader is switched off, "
                                "initrd by initramfs-tools"}),
    ("pve-node1", {"boots": "what it loads is not known, initrd by initramfs-tools"}),
    ("xen-node1", {"hypervisor": "host of xen 4.17.7, dom0 is pv", "late": "possible through xen-ucode", "path": "Xen: early or late"}),
    ("kvm-milan1", {"hypervisor": "host of kvm, 2 guests"}), ("vm-vmware", {"hypervisor": "guest of vmware", "path": "its host's", "late": ""}),
    ("arm-ampere", {"path": "none", "processor": "8 of 8 CPUs online"}),
    ("deb12-web1", {"vulnerable": ["gather_data_sampling"], "firmware": "Dell Inc., PowerEdge R740, 2.12.2, 2021-07-09"}),
    ("rhel8-app1", {"loader": "bls, an entry can be booted just once"}),
    ("db-archive", {"because": "Failed to connect to the host via ssh: ssh: connect to host 192.0.2.17 port 22: No route to host (db-archive)", "cpu": ""}),
])
def test_what_the_table_unfolds(recorded, name, wanted):
    found = row_of(recorded[2], name)
    assert {key: found[key] for key in wanted} == wanted


def test_names_and_values_stand_in_the_order_in_which_they_sort():
    _text, parsed = rendered({name: fleets.lost(name, "192.0.2.%d" % index) for index, name in enumerate(("node10", "Node1", "node9", "10", "9"))})
    assert data_of(parsed)["names"] == ["9", "10", "Node1", "node9", "node10"]


def test_names_that_look_the_same_stay_two_hosts():
    text, parsed = rendered({name: fleets.lost(name, "192.0.2.1") for name in ("web\x01", "web\x02")})
    assert data_of(parsed)["names"] == ["web?", "web? (2)"] and {"web?", "web? (2)"} <= set(parsed.texts("li"))
    assert "2 hosts" in text


def test_a_fleet_without_hosts_or_without_facts_has_no_pictures(facts):
    for hosts in ({}, {"a": fleets.lost("a", "192.0.2.1")}, {"vm": fleets.assessed(facts["vm-kvm"])}):
        _text, parsed = rendered(hosts)
        assert parsed.texts("h1") == ["Microcode of %s" % ("1 host" if hosts else "0 hosts")]
        assert not parsed.texts("section", id="cpus") and not parsed.texts("section", id="distributions")
        assert set(parsed.texts("li")) >= set(hosts)


def test_hosts_that_are_not_reached_are_told_with_the_reason():
    _text, parsed = rendered({name: fleets.lost(name, "10.1.2.%d" % index) for index, name in enumerate(("web", "mail", "db-archive"))})
    told = parsed.texts("section", id="person")[0]
    assert "Failed to connect to the host via ssh: ssh: connect to host \u2026 port 22: No route to host" in told
    assert set(parsed.texts("li")) >= {"web", "mail", "db-archive"}


def test_ten_thousand_hosts_fit(facts):
    hosts = fleets.many(facts, 10000)
    text, parsed = rendered(hosts)
    assert len(text) < 5 << 20
    assert len(data_of(parsed)["names"]) == 10000 and parsed.texts("h1") == ["Microcode of 10,000 hosts"]
    assert set(parsed.texts("li")) >= set(hosts)


def test_many_reasons_are_counted_not_all_shown():
    words = ["%s%s" % (one, other) for one in "abcdefghijklm" for other in "abcdefghijklm"]
    _text, parsed = rendered({"host-%s" % word: report.assess([{"failed": True, "msg": "failed in way " + word}]) for word in words})
    assert len(parsed.texts("tr", class_="title")) == page.REASONS + 1
    assert set(parsed.texts("li")) >= {"host-%s" % word for word in words}
