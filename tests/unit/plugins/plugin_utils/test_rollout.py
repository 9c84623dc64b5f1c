# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rollout's judgement: who is worked on, what became of whom, and when no wave begins any more."""
import json

import pytest

pytest.importorskip("jmespath")

from ansible_collections.fleet.microcode.plugins.plugin_utils import plan, rollout
from ansible_collections.fleet.microcode.tests.unit.plugins.plugin_utils import test_plan
from ansible_collections.fleet.microcode.tests.unit.plugins.plugin_utils.test_plan import NEW, POLICY, facts, running

STARTED, NOW = "2026-11-22T22:00:00Z", "2026-11-22T23:30:05Z"


@pytest.fixture(autouse=True)
def _decisions(monkeypatch):
    monkeypatch.setattr(plan, "decide", test_plan.decide)


def fleet(count=6, **changes):
    """{name: facts} of hosts that are alike but for their boots."""
    return {"host%d" % number: facts(boot_id="b%d" % number, **changes) for number in range(count)}


def planned(hosts, sizes=(1, 2), domains=None):
    return plan.make(hosts, POLICY, dict(test_plan.OPTIONS), test_plan.NOW, domains or {}, {}, sizes)


def opened(made, hosts, inventory=None, domains=None, **options):
    return rollout.opened(made, hosts, domains or {}, set(hosts) | set(inventory or ()), options if "budget" in options else dict(options, budget=0),
                          STARTED) if "domain_budget" in options else opened(made, hosts, inventory, domains, domain_budget=9, **options)


def became(run, **states):
    """{host: what became of it}: done, where nothing else is said."""
    return {name: {"state": states.get(name, "done"), "why": "why", "domains": run["domains"].get(name, {})} for name in run["order"]}


def test_the_plans_order_and_waves_are_kept_for_those_that_are_left():
    hosts = fleet()
    made = planned(hosts)
    order = [name for wave in made["waves"] for name in wave["hosts"]]
    run = opened(made, hosts)
    assert (run["order"], run["serial"]) == (order, [1, 1, 2, 2])
    hosts[order[2]] = running(NEW)
    del hosts[order[0]]  # by a limit
    run = opened(made, hosts, inventory=order)
    assert (run["order"], run["serial"], run["done"]) == (order[1:2] + order[3:], [1, 1, 2], [order[2]])
    assert [rollout.members(run, at) for at in range(3)] == [[order[1]], [order[3]], order[4:]]
    assert [rollout.position(run, name) for name in run["order"]] == [0, 1, 2, 2]
    with pytest.raises(ValueError):
        rollout.position(run, "other")


def test_a_batch_that_is_no_wave_is_refused():
    hosts = fleet()
    run = opened(planned(hosts), hosts)
    rollout.one_wave(run, 2, run["order"][2:3])  # another one was lost
    with pytest.raises(plan.PlanError, match="the batch of wave 3 has host"):
        rollout.one_wave(run, 2, run["order"][2:5])


def test_who_is_lost_left_new_or_gone_is_named():
    hosts = fleet(4)
    made = planned(hosts)
    hosts.update(host0=None, host1=facts(firmware__bios_version="3"), newcomer=facts(boot_id="n"))
    run = opened(made, dict(hosts), inventory=())
    assert run["lost"] == ["host0"] and run["new"] == ["newcomer"] and "what the plan rests on has changed" in run["left"]["host1"]
    del hosts["host2"]
    assert opened(made, hosts)["left"]["host2"] == "it is not in the inventory any more"
    assert "host2" not in opened(made, hosts, inventory=["host2"])["left"]


def test_one_machine_under_two_names_is_refused():
    hosts = fleet(3)
    made = planned(hosts)
    hosts["host2"]["boot_id"] = hosts["host0"]["boot_id"]
    with pytest.raises(plan.PlanError, match="host0 and host2 are one machine"):
        opened(made, hosts)


@pytest.mark.parametrize("said, whole, found", [("3", 10, 3), (0, 10, 0), ("25%", 10, 2), ("100 %", 10, 10), ("2", None, 2)])
def test_budgets(said, whole, found):
    assert rollout._budget(said, whole, "budget") == found


@pytest.mark.parametrize("said, whole", [("-1", 10), ("101%", 10), ("many", 10), (None, 10), ("5%", None), (True, 10), (1.5, 10), ("\u0663%x", 10), ([], 10)])
def test_budgets_that_are_none_are_refused(said, whole):
    with pytest.raises(plan.PlanError, match="budget: .* is no number of hosts"):
        rollout._budget(said, whole, "budget")


def test_deadlines_are_moments_with_their_zone():
    assert rollout._moment("2026-11-24T05:00:00+01:00") == rollout._moment("2026-11-24T04:00:00Z") == "2026-11-24T04:00:00Z"
    assert rollout._moment("") is None
    for said in ("2026-11-24 04:00", "tomorrow", "04:00Z"):
        with pytest.raises(plan.PlanError, match="is no moment with its time zone"):
            rollout._moment(said)


@pytest.mark.parametrize("said, found, begun, state", [
    (None, facts(), False, "waiting"), (None, facts(), True, "lost"), ({"state": "begun"}, facts(), True, "lost"), ({"state": "begun"}, facts(), False, "lost"),
    ({"state": "waiting", "msg": "late"}, facts(), True, "waiting"), ({"state": "checked"}, facts(), True, "checked"),
    ({"state": "failed", "msg": "no"}, running(NEW), True, "failed"), ({"state": "lost"}, running(NEW), True, "lost"),
    ({"state": "done"}, running(NEW), True, "done"), ({"state": "done"}, facts(), True, "wrong"), ({"state": "done"}, None, True, "wrong"),
    ({"state": "done"}, running(NEW, cpu__unread=1), True, "wrong"), ({"state": "done"}, facts(pending=NEW), True, "prepared"),
    ({"state": "done", "rebooted": 95}, facts(pending=NEW), True, "wrong"), ({"state": "done", "rebooted": ""}, facts(pending=NEW), True, "prepared"),
    ({"state": {"x": 1}}, running(NEW), True, "lost"), ("done", running(NEW), True, "lost"), ({"state": "unheard of"}, running(NEW), True, "lost")])
def test_only_facts_make_a_host_done(said, found, begun, state):
    made = planned(fleet(1))
    assert rollout.outcome(made, "host0", said, found, begun)[0] == state


def test_a_wave_begins_while_the_budget_lasts():
    hosts = fleet()
    made = planned(hosts, domains={})
    run = opened(made, hosts, budget="20%", domains={"host%d" % number: {"rack": "r%d" % (number % 2)} for number in range(6)}, domain_budget=1)
    second, third = run["order"][1:3]
    assert rollout.judged(run, became(run), 2, NOW)["stop"] is None
    verdict = rollout.judged(run, became(run, **{second: "failed"}), 2, NOW)
    assert (verdict["stop"], verdict["trouble"]) == (None, [second])
    assert "Wave 3 (3 of 4, 2 hosts) begins; so far done 5, failed 1; 1:30:05" == verdict["line"]
    verdict = rollout.judged(run, became(run, **{second: "failed", third: "wrong"}), 3, NOW)
    assert "2 hosts in trouble, of which the budget allows 1" in verdict["stop"] and "does NOT begin" in verdict["line"]
    for canary in ("lost", "failed", "wrong"):
        assert "a canary stands for all hosts of its kind" in rollout.judged(run, became(run, **{run["order"][0]: canary}), 1, NOW)["stop"]
    assert rollout.judged(run, became(run), 2, NOW, "two alarms")["stop"] == "the operator's check says no: two alarms"


def test_a_failure_domain_has_a_budget_of_its_own():
    hosts = fleet()
    run = opened(planned(hosts), hosts, budget=6, domains={name: {"rack": "r1"} for name in hosts}, domain_budget=1)
    second, third = run["order"][1:3]
    assert rollout.judged(run, became(run, **{second: "lost"}), 2, NOW)["stop"] is None
    verdict = rollout.judged(run, became(run, **{second: "lost", third: "lost"}), 3, NOW)
    assert "2 hosts of rack r1 in trouble, of which the domain's budget allows 1" in verdict["stop"]


def test_the_deadline_stops_waves_and_is_nothing_once_all_are_done():
    hosts = fleet()
    run = opened(planned(hosts), hosts, deadline="2026-11-22T23:00:00Z", on_stop="roll_back")
    verdict = rollout.judged(run, became(run, **{run["order"][-1]: "waiting"}), 3, NOW)
    assert verdict["stop"] == "the deadline, 2026-11-22T23:00:00Z, has passed" and verdict["undo"] == []
    assert rollout.judged(run, became(run, **{run["order"][-1]: "waiting"}), None, NOW)["stop"] and rollout.judged(run, became(run), None, NOW)["stop"] is None


def test_who_is_rolled_back():
    hosts = fleet()
    run = opened(planned(hosts), hosts, on_stop="roll_back")
    fifth, sixth = run["order"][4:]
    third, fourth = run["order"][2:4]
    states = {third: "failed", fourth: "done", fifth: "waiting", sixth: "waiting"}
    assert rollout.judged(run, became(run, **states), None, NOW)["undo"] == [third, fourth]
    assert rollout.judged(run, became(run, **dict(states, **{fourth: "lost"})), None, NOW)["undo"] == [third]
    assert rollout.judged(run, became(run), None, NOW)["undo"] == []
    assert rollout.judged(dict(run, on_stop="leave"), became(run, **states), None, NOW)["undo"] == []


def test_what_hosts_noted_is_not_trusted():
    assert rollout.course({"began": "x" * 99, "ended": 5, "held": "long", "rebooted": -1}, {"state": ["x"]}) == dict.fromkeys(
        ("began", "ended", "held", "rebooted", "undone"))
    assert rollout.course({"held": 10 ** 400, "rebooted": "nan"}, None) == dict.fromkeys(("began", "ended", "held", "rebooted", "undone"))
    assert rollout.course({"held": "0.08123", "rebooted": "None"}, None) == dict(dict.fromkeys(("began", "ended", "rebooted", "undone")), held=0.081)
    assert rollout.course({"held": 0.08123, "rebooted": 95}, {"state": "failed", "msg": "gone\x1b[2J"}) == {
        "began": None, "ended": None, "held": 0.081, "rebooted": 95.0, "undone": "not rolled back: gone?[2J"}


def test_the_record_is_json_and_the_table_names_who_is_not_done():
    hosts = fleet()
    made = planned(hosts)
    run = opened(made, hosts)
    found = became(run, **{run["order"][1]: "failed", run["order"][5]: "waiting"})
    found[run["order"][1]]["undone"] = "rolled back"
    record = rollout.record(made, run, found, rollout.judged(run, found, None, NOW), NOW)
    assert json.loads(rollout.document(record)) == record and record["hosts"][run["order"][1]]["state"] == "failed"
    text = "\n".join(line for _state, line in rollout.table(made, record))
    assert "done: 4 hosts" in text and "failed: 1 host\n  %s: why" % run["order"][1] in text and "1 host: rolled back" in text and "Run it again" in text
