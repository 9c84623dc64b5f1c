# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page in a real browser: searched, sorted, on a phone, in the dark, on paper, without scripts. That no page complained is asserted after each test."""
import pytest

from ansible_collections.fleet.microcode.plugins.plugin_utils import report
from ansible_collections.fleet.microcode.tests.page import fleets

FLEETS = ("recorded", "many", "nasty", "none")
PLANS = tuple("plan-" + fleet for fleet in FLEETS)
ROLLOUTS = tuple("rollout-" + fleet for fleet in FLEETS)
NAMES = "[...document.querySelectorAll('#rows button[data-host]')].map((each) => each.textContent)"
COUNT = "document.querySelector('#count').textContent"
# names that stand in lists, and whether all of them can be seen
LISTED = "[...document.querySelectorAll('%s .n li')].filter((each) => each.checkVisibility()).map((each) => each.textContent)"


def click(tab, selector):
    """Click on the first element of a selector that a person would see."""
    assert tab.value("document.querySelector(%r).checkVisibility()" % selector)
    tab.value("document.querySelector(%r).click()" % selector)


def search(tab, text):
    """Type into the search field, which is empty before."""
    tab.value("document.querySelector('#words').value = ''; document.querySelector('#words').focus()")
    tab.type(text)


def column(tab, number):
    """The texts of a column of the table."""
    return tab.value("[...document.querySelectorAll('#rows td:nth-child(%d)')].map((each) => each.textContent)" % number)


def test_a_search_finds_hosts_by_all_its_words_and_says_how_many(visit):
    tab = visit("recorded")
    assert tab.value(COUNT) == "33 hosts" and len(tab.value(NAMES)) == 33
    search(tab, "XEN-node2")
    assert tab.value(NAMES) == ["xen-node2"] and tab.value(COUNT) == "1 of 33 hosts"
    assert tab.value("document.querySelector('#count').getAttribute('aria-live')") == "polite"
    search(tab, "scan started")  # words of its reason
    assert tab.value(NAMES) == ["xen-node2"]
    search(tab, "pending reboot debian")
    assert set(tab.value(NAMES)) == {"deb12-web1", "debsid-desk", "xen-node1", "xen-node3"}
    search(tab, "no such host")
    assert tab.value(NAMES) == [] and tab.value(COUNT) == "0 of 33 hosts"


def test_columns_sort_both_ways(visit):
    tab = visit("recorded")
    assert tab.value("document.querySelectorAll('.hosts [aria-sort=ascending]').length") == 1
    for _time in range(2):
        click(tab, "[data-key=name]")
    assert tab.value(NAMES)[:2] == ["xen-node5", "xen-node4"]
    assert tab.value("document.querySelector('[data-key=name]').parentNode.getAttribute('aria-sort')") == "descending"
    click(tab, "[data-key=kind]")
    assert tab.value(NAMES)[:2] == ["alma9-mixed", "deb12-db1"]
    click(tab, "[data-key=running]")
    cells = column(tab, 4)
    assert cells == sorted(cells, key=lambda text: (text == "\u2013", text))


def test_a_row_unfolds_to_all_that_is_known(visit):
    tab = visit("recorded")
    search(tab, "deb12-db1")
    click(tab, "#rows button")
    text = tab.value("document.querySelector('.details').innerText")
    assert "update-initramfs -u -k 6.1.0-56-amd64 rebuilds it" in text and "Supermicro" in text
    assert tab.value("document.querySelector('#rows button').getAttribute('aria-expanded')") == "true"
    click(tab, "#rows button")
    assert not tab.value("document.querySelector('.details')")


def test_numbers_in_pictures_and_reasons_lead_to_their_hosts(visit):
    tab = visit("many")
    for link in ("#cpus td a", "#distributions td a", "#vulnerable td a", "#person .title a", "#warnings a", "#whole li a"):
        number = tab.value("document.querySelector(%r).textContent.split(' ')[0]" % link)
        click(tab, link)
        if link == "#whole li a":  # a state: chosen in the field for it
            assert tab.value("document.querySelector('#kind').selectedOptions[0].text") == report.STATES["cpus_differ"]
            number = tab.value("document.querySelector('#whole li b').textContent")
        else:
            assert tab.value("document.querySelector('#picked').checkVisibility()")
        assert tab.value(COUNT) == number + " of 10,000 hosts"
        assert tab.value("Math.abs(document.querySelector('#hosts').getBoundingClientRect().top) < innerHeight")
    click(tab, "#cpus td a")
    click(tab, "#picked")
    assert tab.value(COUNT) == "10,000 hosts"


def test_ten_thousand_hosts_are_shown_some_at_a_time(visit, shown):
    tab = visit("many")
    assert len(tab.value(NAMES)) == 100 and tab.value("document.querySelectorAll('*').length") < 25000
    assert not tab.value("document.querySelector('#listed').checkVisibility()")
    click(tab, "#more")
    assert len(tab.value(NAMES)) == 200
    search(tab, "xen-node-fra")
    found = [name for name in shown[0]["many"] if "xen-node-fra" in name]
    assert tab.value(COUNT) == "%d of 10,000 hosts" % len(found)


@pytest.mark.parametrize("fleet, title, hosts", [("nasty", "Microcode of %d hosts, 2026-11-22", 4 * len(fleets.NASTY)),
                                                 ("plan-nasty", "Microcode plan for %d hosts, 2026-11-22", 4 * len(fleets.NASTY))])
def test_what_hosts_and_rules_say_runs_nothing(visit, fleet, title, hosts):
    tab = visit(fleet)
    search(tab, "<script>")
    for index in range(len(tab.value(NAMES))):
        tab.value("document.querySelectorAll('#rows button')[%d].click()" % index)
    assert "<script>document.title = 'ran'</script>" in tab.value("document.querySelector('#rows').innerText")
    assert tab.value("document.title") == title % hosts
    assert tab.value("document.querySelectorAll('script').length") == 2 and tab.value("document.querySelectorAll('#rows script, img, iframe').length") == 0


@pytest.mark.parametrize("fleet", FLEETS + PLANS + ROLLOUTS)
def test_nothing_is_wider_than_the_window(visit, fleet):
    for scripts in (True, False):
        tab = visit(fleet, width=360, height=780, scripts=scripts)
        for width in (360, 760, 800, 1024, 1440):
            tab.width(width)
            if scripts and not fleet.endswith("none"):
                tab.value("document.querySelector('#rows button').click()")
            assert tab.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("fleet", FLEETS + PLANS + ROLLOUTS)
def test_without_scripts_all_hosts_are_there(visit, shown, fleet):
    tab = visit(fleet, scripts=False)
    assert not tab.value("document.querySelector('#live').checkVisibility()")
    assert tab.value("[...document.querySelectorAll('summary')].filter((each) => each.click()).length") == 0  # unfold all
    assert set(tab.value(LISTED % "")) == {report.clean(name) for name in shown[0][fleet]}


@pytest.mark.parametrize("fleet", ["recorded", "many"])
def test_on_paper_all_is_seen_in_light_colours(visit, shown, fleet):
    tab = visit(fleet, dark=True)
    tab.media("print", dark=True)
    calm = ("pending_reboot", "nothing_newer", "not_applicable")
    assert set(tab.value(LISTED % "#person")) == {name for name, each in shown[0][fleet].items() if each["state"] not in calm}
    assert set(tab.value(LISTED % "")) == set(shown[0][fleet])
    assert not tab.value("document.querySelector('form').checkVisibility()")
    assert tab.value("getComputedStyle(document.documentElement).getPropertyValue('--paper')").strip() == "#ffffff"


def test_dark_is_dark(visit):
    tab = visit("recorded", dark=True)
    assert tab.value("getComputedStyle(document.documentElement).backgroundColor") == "rgb(13, 17, 23)"


def test_whoever_does_not_see_it_is_told_what_everything_is(visit):
    tab = visit("recorded")
    nodes = [(each.get("role", {}).get("value"), each.get("name", {}).get("value")) for each in tab.call("Accessibility.getFullAXTree")["nodes"]
             if not each.get("ignored")]
    assert {"main", "navigation", "banner", "contentinfo", "search", "searchbox", "combobox", "status"} <= {role for role, _name in nodes}
    assert not [role for role, name in nodes if role in ("button", "link", "image", "searchbox", "combobox", "navigation", "region") and not name]
    assert ("image", "CPUs differ: 1; newer on disk, next boot will not load it: 5; no microcode file for this CPU on the host: 1; not reached: 1; unknown: 3; "
                     "update pending reboot: 9; nothing newer at hand: 6; not applicable: 7") in nodes
    assert [name for role, name in nodes if role == "columnheader"][-8:] == ["Host", "State", "CPU", "Runs", "At hand", "Next boot", "Distribution", "Path"]


def test_a_plan_is_searched_by_reasons_too_and_sorted_by_wave(visit):
    tab = visit("plan-many")
    assert tab.value(COUNT) == "2,000 hosts"
    search(tab, "excludes Haswell from late")
    assert {name.split("-")[0] for name in tab.value(NAMES)} == {"sles15"}
    search(tab, "xen-node late, at run time")
    assert tab.value(NAMES) and set(column(tab, 2)) == {"late, at run time"}
    tab.value("document.querySelector('#rows button').click()")
    text = tab.value("document.querySelector('.details').innerText")
    assert "Rule debian-stable-late; source: Xen wiki" in text and "SHA-256" in text and "rack" in text and "guests are paused" in text
    search(tab, "example")
    click(tab, "[data-key=wave]")
    waves = column(tab, 6)
    assert waves[0] == "1" and waves == sorted(waves, key=int) and len(set(waves)) > 1
    click(tab, "[data-key=wave]")
    assert set(column(tab, 6)) == {"\u2013"}


def test_numbers_and_reasons_of_a_plan_lead_to_their_hosts(visit, shown):
    tab = visit("plan-many")
    for link in ("#waves td a", "#transitions td a", "#distributions td a", "#changes td a", "#left .title a", "#left h3 a", "#whole li a"):
        number = tab.value("document.querySelector(%r).textContent.split(' ')[0]" % (link if link != "#whole li a" else "#whole li b"))
        click(tab, link)
        assert tab.value(COUNT) == number + " of 2,000 hosts"
        assert tab.value("Math.abs(document.querySelector('#hosts').getBoundingClientRect().top) < innerHeight")
    assert tab.value("document.querySelector('#kind').selectedOptions[0].text") == "early, at the next boot"
    click(tab, "#waves tbody:nth-of-type(2) td a")
    found = [each["wave"] for each in shown[0]["plan-many"].values()].count(2)
    assert tab.value(COUNT) == "%d of 2,000 hosts" % found and set(column(tab, 6)) == {"2"}


def test_whoever_does_not_see_a_plan_is_told_what_everything_is(visit, shown):
    tab = visit("plan-recorded")
    nodes = [(each.get("role", {}).get("value"), each.get("name", {}).get("value")) for each in tab.call("Accessibility.getFullAXTree")["nodes"]
             if not each.get("ignored")]
    assert not [role for role, name in nodes if role in ("button", "link", "image", "searchbox", "combobox", "navigation", "region") and not name]
    paths = [each["action"] for each in shown[0]["plan-recorded"].values() if each["wave"] == 2]
    assert ("image", "early, at the next boot: %d; late, at run time: %d" % (paths.count("early"), paths.count("late"))) in nodes  # the wave
    assert [name for role, name in nodes if role == "columnheader"][-8:] == ["Host", "Action", "CPU", "Runs", "To", "Wave", "Distribution", "First reason"]


def test_on_paper_a_plan_has_its_waves_and_all_reasons(visit, shown):
    tab = visit("plan-recorded", dark=True)
    tab.media("print", dark=True)
    assert set(tab.value(LISTED % "#listed")) == set(shown[0]["plan-recorded"])
    text = tab.value("document.querySelector('#listed').innerText")
    assert "Wave 1, canaries: 5 hosts" in text and "Wave 2, canaries: 7 hosts" in text and "SUSE excludes Haswell" in text
    assert tab.value("getComputedStyle(document.documentElement).getPropertyValue('--paper')").strip() == "#ffffff"


def test_a_rollout_leads_from_its_waves_and_troubles_to_their_hosts(visit):
    tab = visit("rollout-many")
    search(tab, "rolled back")
    tab.value("document.querySelector('#rows button').click()")
    text = tab.value("document.querySelector('.details').innerText")
    assert "Timed out waiting" in text and "rolled back" in text and "rack" in text
    search(tab, "")
    for link in ("#waves td a", "#trouble h3 a", "#whole li a"):
        number = tab.value("document.querySelector(%r).textContent.split(' ')[0]" % link)
        click(tab, link)
        assert link == "#whole li a" or tab.value(COUNT).startswith(number + " of ")


def test_pictures_of_it(visit, shots):
    visit("rollout-recorded", width=1360).shot(shots / "rollout.png")
    tab = visit("recorded", width=1360)
    tab.shot(shots / "wide.png")
    tab.media("screen", dark=True)
    tab.shot(shots / "dark.png")
    tab.media("print")
    tab.width(760)
    tab.shot(shots / "print.png")
    tab.paper(shots / "print.pdf")
    tab.media("screen")
    tab.width(360)
    tab.shot(shots / "phone.png")
    tab = visit("many", width=1360)
    tab.shot(shots / "many.png")
    visit("recorded", width=1360, scripts=False).shot(shots / "no-script.png")
    tab = visit("plan-recorded", width=1360)
    tab.shot(shots / "plan.png")
    tab.media("screen", dark=True)
    tab.shot(shots / "plan-dark.png")
    tab.width(360)
    tab.shot(shots / "plan-phone.png")
    tab.media("print")
    tab.paper(shots / "plan.pdf")
    visit("plan-many", width=1360).shot(shots / "plan-many.png")
    for name in ("wide", "dark", "print", "phone", "many", "no-script", "plan", "plan-dark", "plan-phone", "plan-many"):
        assert (shots / (name + ".png")).read_bytes()[:4] == b"\x89PNG"
    assert (shots / "print.pdf").read_bytes()[:4] == b"%PDF"
