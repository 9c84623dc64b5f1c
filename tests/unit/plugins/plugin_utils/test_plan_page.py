# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a plan: what it says, and that nothing of a host becomes anything but text."""
import base64
import hashlib

from ansible_collections.fleet.microcode.plugins.plugin_utils import plan, plan_page
from ansible_collections.fleet.microcode.tests.unit.plugins.plugin_utils.test_page import Parsed

NASTY = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202e&amp;\x00\ud800"


def decision(action, wave=None, said="text", **more):
    return dict({"action": action, "from": "0x02006b06", "to": "0x02007006", "file": "/x", "sha256": "ab", "package": "p 1", "guests": "none",
                 "reboot": action == "early", "because": [{"rule": "r1", "effect": "block", "text": said, "source": "INTEL"}], "brings": [], "takes": [],
                 "closes": [], "signature": "0x00050654", "fingerprint": "f", "wave": wave}, **more)


def made(hosts, **limits):
    """A plan with these decisions."""
    numbers = sorted({each["wave"] for each in hosts.values() if each["wave"]})
    found = {"schema": 1, "planned": "2026-11-22T14:00:00Z", "options": {"domains": limits}, "reads": [], "hosts": hosts,
             "waves": [{"wave": number, "canaries": number == 1, "hosts": [name for name, each in hosts.items() if each["wave"] == number]}
                       for number in numbers]}
    found["summary"] = plan.summary(found, dict.fromkeys(limits, 0))
    return dict(found, digest=plan.digest(found))


def rendered(found):
    text = plan_page.render(found)
    assert text.isascii()
    return Parsed(text)


FLEET = {"canary": decision("early", 1, closes=["gather_data_sampling"]), "xen01": decision("late", 1), "web01": decision("early", 2),
         "web02": decision("early", 2),
         "old01": decision("blocked", said="BIOS 1.0 of old01 hangs"),
         "old02": decision("blocked", said="BIOS 1.2 of old02 hangs"),
         "new01": decision("blocked", because=[]), "vm01": decision("none", said="a guest")}


def test_what_it_says():
    found = made(FLEET, rack=4)
    page = rendered(found)
    assert page.texts("h1") == ["Microcode plan for 8 hosts"] and page.texts("code", class_="digest") == [found["digest"]]
    assert page.texts("div", class_="card")[:3] == [
        "3 early, at the next bootThe host is rebooted, and its kernel or Xen loads the newer revision as it starts.",
        "1 late, at run timeThe running kernel or Xen loads it. Distribution, file, platform and every rule allow it.",
        "3 blockedA rule stands against it, or what is asked for is not at hand."]
    assert "At most 4 of one rack at once." in page.texts("section", id="waves")[0]
    assert page.texts("tr")[1:3] == ["1 one of each kindearly, at the next boot: 1late, at run time: 12 canaryxen01",
                                     "2 early, at the next boot: 22 web01web02"]
    assert page.texts("tr")[4:] == ["late, at run time0x000506540x02006b060x020070061 xen01",
                                    "early, at the next boot0x000506540x02006b060x02007006gather_data_sampling3 canaryweb01web02"]
    left = page.texts("section", class_="state blocked")[0]
    assert "BIOS \u2026 of \u2026 hangsRule r1; source: INTEL2 hosts old01old02" in left and "No reason is given.Rule none1 host new01" in left


def test_bars_are_as_long_as_there_are_hosts():
    page = rendered(made(FLEET))
    widths = [attributes["width"] for tag, attributes, _texts in page.elements if tag == "rect" and "x" in attributes]
    assert widths == ["37.50%", "12.50%", "37.50%", "12.50%", "50.00%", "50.00%", "100.00%"]  # the fleet's, then of two waves of two


def test_where_nothing_is_done_there_are_no_empty_tables():
    page = rendered(made({"vm01": decision("none")}))
    assert [attributes["id"] for tag, attributes, _texts in page.elements if tag == "section" and "id" in attributes] == ["plan", "left"]
    assert rendered(made({})).texts("h1") == ["Microcode plan for 0 hosts"]


def test_many_waves_unfold():
    page = rendered(made({"h%d" % number: decision("early", number) for number in range(1, 31)}))
    assert "6 more waves" in page.texts("summary")


def test_nothing_that_a_host_says_is_anything_but_text():
    hosts = dict(FLEET)
    hosts[NASTY] = decision("blocked", said=NASTY)
    hosts[NASTY + "2"] = decision("early", 2, **{"from": NASTY, "signature": None, "closes": [NASTY]})
    page = rendered(made(hosts, **{NASTY: 1}))
    assert page.kinds == rendered(made(FLEET)).kinds
    assert not any(tag == "script" or any(key.startswith("on") or key == "src" for key in attributes) for tag, attributes, _texts in page.elements)
    assert any("<script>" in text for text in page.texts("li"))


def test_the_policy_allows_its_style_and_nothing_else():
    page = rendered(made(FLEET))
    style = "".join(next(texts for tag, _attributes, texts in page.elements if tag == "style"))
    policy = next(attributes["content"] for tag, attributes, _texts in page.elements if attributes.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == "default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'" % digest
    assert "url(http" not in style and "@import" not in style
