# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The page of a rollout: what became of whom and when, and that nothing of a host becomes anything but text."""
import pytest

pytest.importorskip("jmespath")

from ansible_collections.fleet.microcode.plugins.plugin_utils import page, page_rollout, rollout
from ansible_collections.fleet.microcode.tests.page import fleets
from ansible_collections.fleet.microcode.tests.unit.plugins.plugin_utils.test_page import Parsed, held_to_itself, row_of
from ansible_collections.fleet.microcode.tests.unit.plugins.plugin_utils.test_page_plan import decision, made


def rendered(hosts, plan=None, stopped=None, started="2026-11-22T22:00:00Z", ended="2026-11-22T23:00:00Z"):
    """(text of the page, the same parsed)."""
    plan = plan or made({name: decision("early", 1 + at // 2) for at, name in enumerate(hosts)})
    waves = [dict(wave, hosts=[name for name in wave["hosts"] if name in hosts]) for wave in plan["waves"]]
    text = page_rollout.render(plan, {"digest": plan["digest"], "started": started, "ended": ended, "stopped": stopped, "waves": waves, "hosts": hosts})
    return text, Parsed(text)


def host(state, why=None, began=None, ended=None, **more):
    times = {key: each and "2026-11-22T%sZ" % each for key, each in (("began", began), ("ended", ended))}
    return dict(times, state=state, why=why, domains={}, held=None, rebooted=None, undone=None, **more)


def test_waves_stand_where_they_were_in_time_with_their_reboots_and_pauses():
    hosts = {"a": dict(host("done", began="22:00:00", ended="22:15:00"), rebooted=95.4),
             "b": dict(host("done", began="22:06:00", ended="22:30:00"), held=0.0812),
             "c": dict(host("failed", "it said no", "22:30:00", "23:00:00"), undone="rolled back", domains={"rack": "r1"}), "d": host("waiting")}
    text, parsed = rendered(hosts, stopped="1 host in trouble")
    held_to_itself(text, parsed)
    assert "22:00:00 to 22:30:00, 1 reboot, the longest 95 s, guests held on 1 host, at most 0.0812 s" in parsed.texts("body")[0]
    assert "22:30:00 to 23:00:00" in parsed.texts("body")[0] and 'class="before" y="6.0" width="50.00%"' in text  # the second wave begins halfway
    assert "after 1:00:00 h" in parsed.texts("body")[0] and "Stopped: 1 host in trouble" in parsed.texts("body")[0]
    found = row_of(parsed, "c")
    assert (found["took"], found["why"], found["undone"], found["domains"]) == ("30:00 min", "it said no", "rolled back", ["rack r1"])
    assert row_of(parsed, "d")["began"] == ""


def test_what_hosts_say_is_text_alone():
    hosts = {}
    for text in fleets.NASTY:
        hosts[text] = dict(host("failed", text), undone=text, domains={text: text})
    text, parsed = rendered(hosts, stopped=fleets.NASTY[0])
    held_to_itself(text, parsed)
    assert "<script>document.title" not in text and text.isascii()


@pytest.mark.parametrize("hosts", [{}, {"a": host("begun")}, {"a": host("lost", began="22:00:10")}, {"a": host("new", "not in the plan")}])
def test_whatever_became_of_hosts_there_is_a_page(hosts):
    text, parsed = rendered(hosts, ended="2026-11-22T22:00:00Z")
    held_to_itself(text, parsed)
    assert "Microcode rollout over %d host" % len(hosts) in parsed.texts("body")[0]


def test_every_state_has_its_words_its_sign_and_its_colour():
    style = page.beside("page.css")
    assert set(page_rollout.MEANINGS) == set(rollout.STATES) <= set(page.ICONS)
    assert all(style.count(".%s" % state) >= 2 for state in rollout.STATES) and set(rollout.TROUBLE) | set(page_rollout.OPEN) | {"done"} == set(rollout.STATES)
