# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan: what it decides is what was decided for each host, its digest stands for that and nothing else, and people can read it."""
import copy
import hashlib
import json
import types

import pytest

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("jmespath")

from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import facts as reader
from ansible_collections.fleet.microcode.plugins.module_utils import host as host_reader
from ansible_collections.fleet.microcode.plugins.plugin_utils import plan, policy, report
from ansible_collections.fleet.microcode.tests.fleet import trees

REAL = plan.decide
OLD, NEW, NOW = "0x02006b06", "0x02007006", "2026-11-22T14:00:00Z"
OPTIONS = {"late": "never", "guests": "none", "hold_days": 0, "accept": [], "target": "newest_staged"}
POLICY = types.SimpleNamespace(own=[], rules=[{"id": "hang", "effect": "review"}, {"id": "withdrawn", "effect": "block"}], paths={
    "schema", "cpu.signature", "cpu.revision", "cpu.revisions", "firmware.bios_version", "files[].revision", "files[].sha256", "late.available", "pending",
    "early.kernels[].revision"})
TEXTS = st.text(max_size=5)
HOSTILE = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["schema", "cpu", "signature", "revision", "revisions", "unread", "offline", "files", "firmware", "bios_version", "late", "available"]),
    inner, max_size=5), max_leaves=15)


def facts(**changes):
    found = {"schema": 1, "gathered": "2026-11-22T13:00:00Z", "boot_id": "b1", "warnings": [],
             "cpu": {"vendor": "GenuineIntel", "signature": "0x00050654", "pf_mask": "0x00000080", "revision": OLD, "revisions": {OLD: [0, 1]}, "unread": 0,
                     "offline": []},
             "hypervisor": {"role": "none", "type": None}, "firmware": {"vendor": "Dell Inc.", "product": "R740", "bios_version": "2.1"},
             "distro": {"id": "debian", "version": "12"}, "files": [{"path": "/x", "revision": NEW, "sha256": "ab"}], "late": {"available": False},
             "pending": None, "early": {"kernels": [{"version": "6.1", "running": True, "revision": None}]}}
    for path, value in changes.items():
        at, keys = found, path.split("__")
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
    return found


def running(revision, **changes):
    return facts(cpu__revision=revision, cpu__revisions={revision: [0, 1]}, **changes)


def decide(policy, found, options):
    """Stands in for decide.py, which has tests of its own: early where a file is newer, blocked by BIOS 1.0, late where asked for and there."""
    assert policy is POLICY and options["today"] in ("2026-11-22", "2026-11-23")
    decision = {"action": "none", "from": report.part(found, "cpu", "revision"), "to": None, "file": None, "sha256": None, "package": None, "guests": "none",
                "reboot": False, "because": [], "brings": [], "takes": [], "closes": []}
    if found is None:
        decision.update(action="unknown", because=[because("engine.nothing", "note", "there are no facts")])
    elif not isinstance(decision["from"], str):
        decision.update(action="unknown", **{"from": None}, because=[because("engine.unknown", "note", "the revision is not known")])
    elif decision["from"] == NEW:
        decision["because"].append(because("engine.newest", "note", "nothing newer is at hand"))
    else:
        decision.update(action="early", to=NEW, file="/lib/firmware/x", sha256="ab", package="intel-microcode 3", reboot=True, closes=["gather_data_sampling"])
        decision["because"].append(because("needed", "require", "below %s data leaks" % NEW))
        decision["because"].append(because("engine.newer", "note", "it is newer", "facts.files"))
        if options["late"] == "allowed" and report.part(found, "late", "available") is True:
            decision.update(action="late", reboot=False, guests=options["guests"])
        if report.part(found, "firmware", "bios_version") == "1.0":
            decision.update(action="blocked", reboot=False)
            decision["because"].insert(0, because("withdrawn", "block", "BIOS 1.0 hangs with it; BIOS 2.0 does not"))
    return decision


def because(rule, effect, text, source="INTEL"):
    return {"rule": rule, "effect": effect, "text": text, "source": source}


@pytest.fixture(autouse=True)
def decided(monkeypatch):
    """Facts that were decided on, in their order."""
    calls = []
    monkeypatch.setattr(plan, "decide", lambda policy, found, options: calls.append(found) or decide(policy, found, options))
    return calls


def make(hosts, planned=NOW, domains=None, limits=None, sizes=(1, 2), **options):
    return plan.make(hosts, POLICY, dict(OPTIONS, **options), planned, domains, limits, sizes)


def fleet(count, **changes):
    return {"host%02d" % number: facts(**changes) for number in range(count)}


# --- making it ---

def test_every_host_has_its_decision_and_what_is_acted_on_its_wave():
    hosts = dict(fleet(4), lost=None, done=running(NEW), old=facts(firmware__bios_version="1.0"), late=facts(late__available=True))
    made = make(hosts, late="allowed", guests="pause")
    assert {name: each["action"] for name, each in made["hosts"].items()} == {
        "host00": "early", "host01": "early", "host02": "early", "host03": "early", "lost": "unknown", "done": "none", "old": "blocked", "late": "late"}
    assert {name for name, each in made["hosts"].items() if each["wave"] is None} == {"lost", "done", "old"}
    assert [len(wave["hosts"]) for wave in made["waves"]] == [1, 1, 1, 2] and [wave["canaries"] for wave in made["waves"]] == [True, True, False, False]
    assert all(made["hosts"][name]["wave"] == wave["wave"] for wave in made["waves"] for name in wave["hosts"])
    assert made["summary"] == {
        "hosts": 8, "actions": {"early": 4, "late": 1, "firmware_first": 0, "blocked": 1, "unknown": 1, "none": 1}, "reboots": 4, "guests": {"pause": 1},
        "without_domain": {}, "waves": 4, "left": [{"action": "blocked", "rule": "withdrawn", "count": 1, "hosts": ["old"]},
                                                   {"action": "unknown", "rule": "engine.nothing", "count": 1, "hosts": ["lost"]}]}


def test_what_is_alike_is_decided_once(decided):
    hosts = fleet(50)
    for number, found in enumerate(hosts.values()):
        found.update(gathered=str(number), boot_id=str(number), warnings=["a warning of host %d" % number])
        found["firmware"]["bios_date"] = str(number)  # no rule reads it
    hosts.update(other=facts(firmware__bios_version="2.2"), list=facts(files=[]), path=facts(files=[{"path": "/y", "revision": NEW, "sha256": "ab"}]))
    assert len(make(hosts)["hosts"]) == 53 and len(decided) == 3


def test_a_rule_that_reads_when_the_facts_were_gathered_is_asked_for_each_time(monkeypatch, decided):
    monkeypatch.setattr(POLICY, "paths", POLICY.paths | {"gathered"})
    first, second = (make({"a": facts(gathered=each), "b": facts(gathered=NOW)}) for each in ("2026-01-01T00:00:00Z", NOW))
    assert len(decided) == 2 + 1
    assert first["digest"] == second["digest"]


@hypothesis.settings(suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.dictionaries(TEXTS, HOSTILE | st.sampled_from([facts(), running(NEW), facts(firmware__bios_version="1.0")]), max_size=6))
def test_each_host_has_what_is_decided_for_it_alone_whatever_hosts_say(hosts):
    made = make(hosts)
    for name, found in hosts.items():
        mine = made["hosts"][name]
        expected = decide(POLICY, report.plain(found), {"late": "never", "today": "2026-11-22"})
        assert {key: mine[key] for key in expected} == expected
        assert plan.state(made, name, found)[0] in (None, "pending", "stale")
    assert plan.check(json.loads(plan.document(made)))["hosts"] == made["hosts"]
    assert all("\n" not in line for _action, line in plan.table(made))
    assert all("\n" not in line for name in hosts for line in plan.explain(made, name))


@pytest.mark.parametrize("late", ["never", "allowed"])
def test_no_decision_reads_what_hosts_that_share_it_may_differ_in(late, tmp_path):
    rules, options = policy.load(), dict(OPTIONS, late=late, today="2026-11-22", hold_days=30)
    tree = plan._tree(rules.paths)
    for name in trees.build_all(tmp_path):
        found = reader.gather(host_reader.Host(str(tmp_path / name)))
        assert REAL(rules, plan._pick(found, tree), options) == REAL(rules, found, options), name


def test_no_decision_changes_with_the_day_alone(tmp_path):
    rules = policy.load()
    for name in trees.build_all(tmp_path):
        found = reader.gather(host_reader.Host(str(tmp_path / name)))
        for hold_days in (0, 99999):
            one, two = (REAL(rules, found, dict(OPTIONS, late="allowed", today=today, hold_days=hold_days)) for today in ("2026-11-22", "2026-11-23"))
            assert one == two, name


def test_kinds_have_a_canary_each_and_domains_their_limit():
    hosts = dict(fleet(6), bios=facts(firmware__bios_version="3.0"), sles=facts(distro__id="sles"), xen=facts(hypervisor__type="xen"),
                 mask=facts(cpu__pf_mask="0x00000010"), older=running("0x02000064"))
    assert len(make(hosts, sizes=(9,))["waves"][0]["hosts"]) == 6
    racks = {name: {"rack": "r%d" % (number % 2)} for number, name in enumerate(hosts)}
    made = make(hosts, domains=racks, limits={"rack": 1})
    for wave in made["waves"]:
        found = [racks[name]["rack"] for name in wave["hosts"]]
        assert len(set(found)) == len(found)
    assert sum(len(wave["hosts"]) for wave in made["waves"]) == 11


def test_a_host_that_is_down_takes_its_domains_room():
    hosts, racks = dict(fleet(5), lost=None, far=facts(), gone=None), {"host%02d" % number: {"rack": "r1"} for number in range(5)}
    racks.update(lost={"rack": "r1"}, far={"rack": "r2"})
    made = make(hosts, domains=racks, limits={"rack": 2}, sizes=(9,))
    assert all(sum(1 for name in wave["hosts"] if racks[name]["rack"] == "r1") <= 1 for wave in made["waves"]) and len(made["waves"]) == 5
    made = make(hosts, domains=racks, limits={"rack": 1})
    assert {name: each["action"] for name, each in made["hosts"].items()} == dict(dict.fromkeys(racks, "blocked"), lost="unknown", gone="unknown", far="early")
    first = made["hosts"]["host00"]
    assert first["because"][0]["text"] == ("Of rack r1, of which at most 1 may be worked on at once, 1 host has no facts and may be down: lost. Bring it "
                                           "back, and plan again.")
    assert (first["wave"], first["reboot"], first["fingerprint"], len(first["because"])) == (None, False, None, 3)
    assert made["summary"]["actions"]["blocked"] == 5 and made["summary"]["without_domain"] == {"rack": 0}


def test_hosts_without_the_domain_are_counted_where_they_are_acted_on():
    made = make(dict(fleet(3), done=running(NEW)), domains={"host00": {"rack": "r1"}}, limits={"rack": 1})
    assert made["summary"]["without_domain"] == {"rack": 2}
    assert "2 hosts to act on without the variable rack: no limit holds for them" in text(made)


@pytest.mark.parametrize("options, said", [
    ({"accept": ["nothing"]}, "accept: nothing is no rule that is known here"),
    ({"accept": ["withdrawn"]}, "accept: withdrawn is a rule of the effect block"),
    ({"target": "newest"}, "target: newest is none of newest_staged, advisory"),
    ({"target": None}, "target: None is none of"),
    ({"target": {"0x00050654": 33582086}}, "target: 0x00050654: 33582086 is no signature with its revision"),
    ({"target": {"skylake": NEW}}, "target: skylake"),
    ({"target": {"0x50654": NEW, "0x00050654": NEW}}, "target: 0x50654 and 0x00050654 are one signature"),
    ({"hold_days": -1}, "hold_days: -1 days"),
    ({"sizes": ()}, "wave_sizes: at least one number"),
    ({"sizes": (5, 0)}, "each at least 1"),
    ({"limits": {"rack": 0}}, "domains: at most 0 hosts of one rack at once"),
])
def test_what_cannot_be_meant_is_refused(options, said):
    with pytest.raises(plan.PlanError, match=said):
        make(fleet(1), **options)


# --- the digest ---

def test_the_digest_is_that_of_the_json_without_itself_and_its_time():
    hosts = dict(fleet(3), **{"h\u00f6st": facts()})
    made = json.loads(plan.document(make(hosts)))
    body = {key: value for key, value in made.items() if key not in ("digest", "planned")}
    text_of = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert made["digest"] == hashlib.sha256(text_of.encode()).hexdigest()


def test_the_same_facts_have_the_same_digest_whenever_and_in_whatever_order_they_come():
    hosts = fleet(9)
    again = {name: dict(copy.deepcopy(found), gathered="later", boot_id="b2", warnings=["new"]) for name, found in reversed(hosts.items())}
    assert make(hosts)["digest"] == make(again, planned="2026-11-23T01:00:00Z")["digest"]


@pytest.mark.parametrize("changes", [{"firmware__bios_version": "2.2"}, {"late__available": True}, {"files": []}, {"cpu__revision": "0x02000064"}])
def test_other_grounds_have_another_digest(changes):
    hosts = fleet(3)
    assert make(hosts)["digest"] != make(dict(hosts, host01=facts(**changes)))["digest"]


@pytest.mark.parametrize("options", [{"late": "allowed"}, {"sizes": (3,)}, {"hold_days": 7}])
def test_other_wishes_have_another_digest(options):
    assert make(fleet(9))["digest"] != make(fleet(9), **options)["digest"]


EDITS = {
    "action": lambda made: made["hosts"]["old"].update(action="early", wave=1),
    "revision": lambda made: made["hosts"]["host01"].update(to="0x02007007"),
    "file": lambda made: made["hosts"]["host01"].update(sha256="cd"),
    "reason": lambda made: made["hosts"]["old"]["because"][0].update(text="never mind"),
    "wave": lambda made: made["waves"][0]["hosts"].append(made["waves"][1]["hosts"].pop()),
    "grounds": lambda made: made["hosts"]["host01"].update(fingerprint="0" * 32),
    "what is read": lambda made: made["reads"].pop(),
    "host taken out": lambda made: made["hosts"].pop("host01"),
    "host put in": lambda made: made["hosts"].update(new=made["hosts"]["host01"]),
    "option": lambda made: made["options"].update(late="allowed"),
    "count": lambda made: made["summary"].update(reboots=0),
    "key put in": lambda made: made.update(more=1),
    "digest": lambda made: made.update(digest="0" * 64),
    "digest of another type": lambda made: made.update(digest=[]),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_plan_is_refused(edit):
    made = json.loads(plan.document(make(dict(fleet(3), old=facts(firmware__bios_version="1.0")))))
    assert plan.check(made) is made
    edit(made)
    with pytest.raises(plan.PlanError, match="was changed after it was made"):
        plan.check(made)


@pytest.mark.parametrize("value", [None, [], {}, "plan", {"schema": 2, "hosts": {}}, {"schema": 1, "hosts": []}])
def test_what_is_no_plan_is_refused(value):
    with pytest.raises(plan.PlanError, match="no plan of schema 1"):
        plan.check(value)


# --- done, pending, stale ---

def xen(unread, threads, *shown):
    """Facts of a Xen host whose log names these CPUs alone, with the new revision."""
    return facts(cpu__revision=NEW, cpu__revisions={NEW: list(shown)}, cpu__unread=unread,
                 hypervisor={"role": "host", "type": "xen", "xen": {"threads_per_core": threads}})


def prepared(pending=NEW, sha256="ab", **changes):
    """Facts of a host whose initrd was built anew, and that has not booted since."""
    return facts(pending=pending, early__kernels=[{"version": "6.1", "running": True, "revision": pending}],
                 files=[{"path": "/y", "revision": NEW, "sha256": sha256}], **changes)


@pytest.mark.parametrize("found, state, why", [
    (facts(), "pending", "as it was"),
    (prepared(), "pending", "its next boot loads 0x02007006"),
    (prepared(OLD), "stale", "has changed"),
    (prepared("0x02007007"), "stale", "has changed"),
    (prepared(None), "pending", "as it was"),
    (prepared(sha256="cd"), "stale", "has changed"),
    (prepared(firmware__bios_version="9"), "stale", "has changed"),
    (prepared(cpu__revision="0x02006c00"), "stale", "has changed"),
    (xen(2, 2, 0, 2), "done", "every CPU runs 0x02007006"),
    (xen(0, 2, 0, 1, 2, 3), "done", "every CPU"),
    (xen(1, 2, 0, 2), "stale", "of 1 CPU the revision is not known"),  # not every core has as many threads as the first
    (xen(3, 2, 0), "stale", "of 3 CPUs the revision is not known"),
    (xen(2, 1, 0, 2), "stale", "of 2 CPUs"),
    (xen(2, None, 0, 2), "stale", "of 2 CPUs"),
    (xen(None, 2, 0, 2), "stale", "of others"),
    (running(NEW, cpu__unread=2, hypervisor={"type": None, "xen": {"threads_per_core": 2}}), "stale", "of 2 CPUs"),
    (facts(gathered="later", boot_id="b2", warnings=["x"]), "pending", "as it was"),
    (running(NEW), "done", "every CPU runs 0x02007006"),
    (running("0x2007006"), "done", "every CPU"),
    (running(NEW, cpu__unread=2, cpu__offline=[2, 3]), "done", "every CPU"),  # offline under Linux: they are given it when they come
    (running(NEW, cpu__unread=4, cpu__offline=[2, 3]), "stale", "of 2 CPUs the revision is not known"),
    (running(NEW, cpu__unread=2, cpu__offline=[2, 3], hypervisor__type="xen"), "stale", "of 2 CPUs the revision is not known"),
    (running(NEW, cpu__unread=None), "stale", "of others the revision is not known"),
    (facts(cpu__revision=None, cpu__revisions={OLD: [0], NEW: [1]}), "stale", "it runs 0x02006b06, 0x02007006 now"),
    (running("0x02007007"), "stale", "it runs 0x02007007 now, and ran 0x02006b06"),
    (facts(firmware__bios_version="9"), "stale", "has changed"),
    (facts(files=[]), "stale", "has changed"),
    (None, "stale", "it has no facts"),
    (facts(cpu=None), "stale", "it runs what is not known now"),
    ({"cpu": {"revisions": {"x": []}}}, "stale", "it runs 0x00000000 now"),
])
def test_states(found, state, why):
    made = json.loads(plan.document(make({"host": facts()})))
    assert plan.state(made, "host", found)[0] == state
    assert why in plan.state(made, "host", found)[1]


def test_a_host_that_the_plan_leaves_has_no_state():
    made = make({"host": running(NEW)})
    assert plan.state(made, "host", running(NEW)) == (None, "the plan does nothing with it")
    assert plan.state(made, "other", facts()) == (None, "the plan does not name it")


# --- an approved plan ---

def test_a_rollout_that_was_interrupted_goes_on_by_the_plan_that_was_approved():
    hosts = fleet(9)
    approved = json.loads(plan.document(make(hosts)))
    now = dict(hosts, host01=running(NEW), host02=None, host03=facts(firmware__bios_version="9"), host04=prepared(), new=facts())
    assert plan.check(plan.read(plan.pack(approved)), approved["digest"]) == approved
    found = plan.progress(approved, now)
    assert {kind: list(each) for kind, each in found.items()} == {
        "done": ["host01"], "pending": ["host00", "host04", "host05", "host06", "host07", "host08"], "stale": ["host02", "host03"], "new": ["new"]}
    lines = "\n".join(line for _none, line in plan.progress_table(found))
    assert "1 done, 6 pending, 2 changed since, and left, 1 not in the plan, and left" in lines.replace("\n", " ").replace("  ", " ")
    assert "  host02\n    it has no facts: it was not reached, or they were not read" in lines and "  new\n    the plan does not name it" in lines
    limited = plan.progress(approved, {"host05": facts()})
    assert {kind: list(each) for kind, each in limited.items() if each} == {"pending": ["host05"]}


def test_what_the_plan_leaves_is_not_counted_as_anything():
    made = make({"old": facts(firmware__bios_version="1.0"), "lost": None})
    assert not any(plan.progress(made, {"old": facts(), "lost": facts()}).values())


def test_a_plan_made_anew_says_why_it_is_not_the_one_that_was_approved():
    hosts = fleet(5)
    approved = make(hosts)["digest"]
    assert plan.reached(make(hosts), approved)["digest"] == approved
    with pytest.raises(plan.PlanError) as caught:
        plan.reached(make(dict(hosts, host00=None, host01=None)), approved)
    assert approved in str(caught.value) and "(approved)" in str(caught.value)


@pytest.mark.parametrize("given, said", [
    ("/nowhere/plan.json", "/nowhere/plan.json cannot be read: No such file"), ("xz:", "cannot be read"),
    ("xz:????", "cannot be read"), ("xz:AAAA", "cannot be read"),
    ("xz:/Td6WFoAAATm1rRG", "cut off"),
])
def test_what_is_no_approved_plan_is_refused(given, said):
    with pytest.raises(plan.PlanError, match=said):
        plan.read(given)


def test_a_packed_plan_that_is_cut_off_or_endless_is_refused(monkeypatch):
    packed = plan.pack(make(fleet(3)))
    with pytest.raises(plan.PlanError, match="cut off, or too large"):
        plan.read(packed[:len(plan.PACKED) + len(packed) // 8 * 4])
    monkeypatch.setattr(plan, "UNPACKED", 100)
    with pytest.raises(plan.PlanError, match="cut off, or too large|emory"):
        plan.read(packed)
    monkeypatch.setattr(plan, "lzma", None)
    assert plan.pack(make(fleet(3))) is None
    with pytest.raises(plan.PlanError, match="built without lzma"):
        plan.read(packed)


def test_the_approved_digest_is_the_one_that_counts(tmp_path):
    made = make(fleet(3))
    path = tmp_path / "plan.json"
    path.write_text(plan.document(made))
    assert plan.check(plan.read(str(path)), made["digest"])["hosts"] == made["hosts"]
    with pytest.raises(plan.PlanError, match="approved was " + "0" * 64):
        plan.check(plan.read(str(path)), "0" * 64)


# --- what people read ---

def text(made, width=79):
    lines = [line for _action, line in plan.table(made, width)]
    assert all(len(line) <= width for line in lines)
    return "\n".join(lines)


def test_the_table():
    hosts = dict(fleet(4), lost=None, done=running(NEW), old1=facts(firmware__bios_version="1.0"), old2=facts(firmware__bios_version="1.0"),
                 xen=facts(late__available=True, hypervisor__type="xen"), mixed=facts(cpu__revision=5))
    made = make(hosts, late="allowed")
    assert text(made, 110) == """\
Microcode plan for 10 hosts, 2026-11-22T14:00:00Z
  digest %s
  early, at the next boot: 4; late, at run time: 1; blocked: 2; unknown: 2; nothing to do: 1; 4 reboots

PATH   SIGNATURE   RUNS        TO          HOSTS  WAVES
late   0x00050654  0x02006b06  0x02007006      1  1
early  0x00050654  0x02006b06  0x02007006      4  2-4

WAVE  HOSTS
   1      1  one of each kind: xen
   2      1  one of each kind: host00
   3      1  host01
   4      2  host02, host03

blocked: 2 hosts
  old1, old2
    BIOS 1.0 hangs with it; BIOS 2.0 does not [withdrawn]

unknown: 2 hosts
  lost
    there are no facts [engine.nothing]
  mixed
    the revision is not known [engine.unknown]""" % made["digest"]


def test_the_table_of_a_large_fleet_stays_short():
    hosts = {"host%04d" % number: running("0x0200%04x" % (number % 50)) for number in range(3000)}
    hosts.update({"old%04d" % number: facts(firmware__bios_version="1.0") for number in range(900)})
    said = text(make(hosts, sizes=(100,)))
    assert len(said.splitlines()) < 60
    assert "... and 2280 hosts of 38 transitions more: see the JSON" in said
    assert "and 20 waves more with 1950 hosts, of at most 100" in said
    assert "old0000, " in said and "and 893 more" in said


def test_nothing_to_do_shows_no_empty_tables():
    assert text(make({"done": running(NEW)})).splitlines()[2:] == ["  nothing to do: 1"]


def test_the_explanation():
    made = make(dict(fleet(2), old=facts(firmware__bios_version="1.0")))
    canary = made["waves"][0]["hosts"][0]
    assert plan.explain(made, canary) == [
        canary + ": early, at the next boot",
        "It runs 0x02006b06, on signature 0x00050654.",
        "It is to run 0x02007006, from /lib/firmware/x of intel-microcode 3, SHA-256 ab.",
        "It is rebooted; its guests are left as they are.",
        "It is in wave 1 of 2, as the first of its kind of hardware and software to show that all is well.",
        "It closes: gather_data_sampling.",
        "Why:",
        "1. For it: below 0x02007006 data leaks",
        "   Rule needed; source: INTEL",
        "2. To know: it is newer",
        "   Rule engine.newer; source: its facts, files"]
    blocked = plan.explain(made, "old")
    assert "It would have run 0x02007006, from /lib/firmware/x of intel-microcode 3, SHA-256 ab." in blocked
    assert blocked[-6:-2] == ["1. Against it: BIOS 1.0 hangs with it; BIOS 2.0 does not", "   Rule withdrawn; source: INTEL",
                              "2. For it: below 0x02007006 data leaks", "   Rule needed; source: INTEL"]
    with pytest.raises(plan.PlanError, match="does not name other"):
        plan.explain(made, "other")


@hypothesis.given(HOSTILE, HOSTILE)
def test_a_hostile_plan_that_carries_its_digest_is_explained_without_an_exception(decision, waves):
    if isinstance(decision, dict):
        made = report.plain({"schema": 1, "hosts": {"a": dict(decision, because=waves)}, "waves": waves})
        made["digest"] = plan.digest(made)
        assert plan.explain(plan.check(made), "a")
