# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is decided for one host: what takes precedence over what, what late loading needs, and that nothing is guessed."""
import copy
import itertools
import json

import pytest

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("jmespath")

from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import amd
from ansible_collections.fleet.microcode.plugins.module_utils.facts import gather
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.module_utils.update import Processor, Update
from ansible_collections.fleet.microcode.plugins.plugin_utils import decide, plan, policy, report
from ansible_collections.fleet.microcode.tests.fleet import trees

OLDER, RUNS, MIDDLE, NEW = "0x02006a00", "0x02006b06", "0x02006e05", "0x02007006"
PATH, TODAY = "/lib/firmware/intel-ucode/06-55-04", "2026-11-22"
UNKNOWN = "facts.boot.next_entry == 'x'"  # null on every host here
ALLOW = {"id": "allow", "match": "candidate.path == 'late'", "effect": "allow_late", "text": "Late is fine.", "source": "A wiki", "added": TODAY}
LATE = {"late": "allowed"}


def rule(effect="block", match="`true`", name=None, **changes):
    return {"id": name or effect.replace("_", "-"), "match": match, "effect": effect, "text": "Text of %s." % effect, "source": "A bulletin", "added": TODAY,
            **changes}


def minimum(revision, **changes):
    return rule("require", "rev(candidate.from) < rev('%s')" % revision, "minimum", **changes)


def refuse(revision):
    return rule("block", "rev(candidate.to) == rev('%s')" % revision, "refuse-%s" % revision)


def staged(revision=NEW, **changes):
    return {"path": PATH, "revision": revision, "date": "2023-03-06", "min_revision": RUNS, "sha256": "ab" * 32, "package": None, "early_only": False,
            "caveat": None, "problem": None, **changes}


def facts(*files, **changes):
    found = {
        "schema": 1, "applicable": True, "command_line": [], "pending": None, "vulnerabilities": {}, "firmware": {"vendor": "Dell Inc."},
        "boot": {"next_entry": None},
        "cpu": {"vendor": "GenuineIntel", "signature": "0x00050654", "signatures": ["0x00050654"], "pf_mask": "0x00000080", "revision": RUNS,
                "revisions": {RUNS: [0, 1]}, "boot_revision": None, "unread": 0, "offline": []},
        "hypervisor": {"role": "none", "type": None, "version": None, "xen": None}, "distro": {"id": "debian"},
        "early": {"disabled": False, "xen_ucode": None, "loads": "none",
                  "kernels": [{"version": "6.1", "running": True, "default": True, "carries": "none", "revision": None}]},
        "late": {"interface": "sysfs", "available": True, "why_not": None, "min_revision_forced": False}, "files": list(files or [staged()])}
    put(found, changes)
    if "cpu__revision" in changes and "cpu__revisions" not in changes:
        found["cpu"]["revisions"] = {changes["cpu__revision"]: [0, 1]}
    return found


def put(found, changes):
    for path, value in changes.items():
        at, keys = found, path.split("__")
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value


def xen(*files, **changes):
    return facts(*files, **{"hypervisor__role": "host", "hypervisor__type": "xen", "hypervisor__version": "4.17.7", "hypervisor__xen": {"ucode": "scan"},
                            "late__interface": "xen-ucode", "late__min_revision_forced": None, **changes})


def epyc(*files, **changes):
    revision = changes.pop("runs", "0x0a0011d5")
    return facts(*files, **{"cpu__vendor": "AuthenticAMD", "cpu__signature": "0x00a00f11", "cpu__signatures": ["0x00a00f11"], "cpu__pf_mask": None,
                            "cpu__revision": revision, **changes})


def picked(found, rules):
    """What the plan's fingerprint of a host has of its facts."""
    return plan._pick(found, plan._tree(sorted({path.split("[")[0] for path in rules.paths})))  # pylint: disable=protected-access


def decided(found, *rules, **options):
    """The decision, which rests on nothing that a host's fingerprint does not have."""
    rules, options = policy.Policy(rules), dict({"today": TODAY}, **options)
    decision = decide.decide(rules, found, options)
    assert decision == decide.decide(rules, picked(found, rules), options)
    return decision


def action(found, *rules, **options):
    return decided(found, *rules, **options)["action"]


def names(decision):
    """The rules that give the reasons; what the next boot loses is not that of the decision, and has tests of its own."""
    return [each["rule"] for each in decision["because"] if each["rule"] != "engine.next-boot"]


def text(decision, name):
    return next(each["text"] for each in decision["because"] if each["rule"] == name)


# --- precedence ---

PRECEDENCE = (  # (what is decided, by which line, changes of the facts, rule); the first line that applies counts
    ("unknown", "no-facts", None, None),
    ("unknown", "schema", {"schema": 2}, None),
    ("none", "not-its-business", {"hypervisor__role": "guest", "hypervisor__type": "kvm"}, None),
    ("unknown", "role-unknown", {"hypervisor__role": None}, None),
    ("unknown", "processor-unknown", {"cpu__signature": None}, None),
    ("unknown", "revisions-differ", {"cpu__revisions": {RUNS: [0], OLDER: [1]}}, None),
    ("unknown", "revision-unknown", {"cpu__revision": None}, None),
    ("unknown", "files-unknown", {"files": None}, None),
    ("blocked", "block", {}, rule("block")),
    ("firmware_first", "firmware_first", {}, rule("firmware_first")),
    ("unknown", "unknown", {}, rule("block", UNKNOWN, "not-known")),
    ("blocked", "review", {}, rule("review")),
    ("late", "allow_late", {}, ALLOW),
    ("early", "require", {}, minimum(NEW)),
    ("early", "nothing said", {}, None),
)


def test_the_table_here_is_all_of_the_table_there():
    lines = [(action, name) for action, name, _gate in decide.GATES] + [(action, said) for said, action in decide.VERDICTS]
    assert [line[:2] for line in PRECEDENCE[:len(lines)]] == lines


@pytest.mark.parametrize("first, second", list(itertools.combinations_with_replacement(range(len(PRECEDENCE)), 2)))
def test_what_takes_precedence(first, second):
    found, rules = facts(), []
    for line in (PRECEDENCE[second], PRECEDENCE[first]):
        if line[2] is None:
            found = None
        else:
            put(found, line[2])
        rules += [line[3]] if line[3] and line[3] not in rules else []
    decision = decided(found, *rules, **LATE)
    assert decision["action"] == PRECEDENCE[first][0]
    gates, verdicts = len(decide.GATES), len(decide.VERDICTS)
    if first < gates:
        assert names(decision) == ["engine." + PRECEDENCE[first][1]]
    elif first < gates + verdicts:
        assert names(decision)[0] == PRECEDENCE[first][3]["id"]
    assert all(line[3]["id"] in names(decision) for line in (PRECEDENCE[first], PRECEDENCE[second]) if gates <= first and line[3] and (
        line[3] is not ALLOW or decision["action"] == "late"))


def test_reasons_come_with_what_counted_most_first():
    rules = [rule("note"), minimum(NEW), rule("review"), rule("block", UNKNOWN, "not-known"), rule("firmware_first"), rule("block")]
    assert names(decided(facts(), *rules)) == ["block", "firmware-first", "not-known", "review", "minimum", "note"]


def test_a_decision_says_what_is_loaded_and_why():
    package = "intel-microcode 3.20251111.1~deb12u1"
    assert decided(facts(staged(package=package)), minimum(NEW)) == {
        "action": "early", "from": RUNS, "to": NEW, "file": PATH, "sha256": "ab" * 32, "package": package, "guests": "none", "reboot": True,
        "because": [{"rule": "minimum", "effect": "require", "text": "Text of require.", "source": "A bulletin"},
                    {"rule": "engine.newer", "effect": "note", "source": "facts.files",
                     "text": "%s is at hand in %s, newer than %s, which runs." % (NEW, PATH, RUNS)}],
        "brings": [], "takes": [], "closes": []}


# --- hosts of which nothing is known, or that it does not concern ---

@pytest.mark.parametrize("changes, expected", [
    ({"schema": None}, "unknown"), ({"schema": "1"}, "unknown"), ({"schema": True}, "unknown"), ({"applicable": False}, "none"),
    ({"hypervisor": None}, "unknown"),
    ({"hypervisor__role": "guest", "hypervisor__type": None}, "none"), ({"cpu__vendor": "CentaurHauls"}, "none"), ({"cpu__vendor": None}, "unknown"),
    ({"cpu": None}, "unknown"),
    ({"cpu__signatures": ["0x00050654", "0x00050657"]}, "unknown"), ({"cpu__revisions": None, "cpu__revision": None}, "unknown"),
    ({"cpu__revision": "unknown"}, "unknown"),
    ({"cpu__unread": 1}, "unknown"), ({"cpu__unread": 1, "cpu__offline": [7]}, "early"), ({"cpu__unread": None}, "early"), ({"files": {}}, "unknown"),
    ({"files": []}, "none"),
])
def test_facts_that_are_missing_or_half_known(changes, expected):
    decision = decided(facts(**changes))
    assert decision["action"] == expected
    assert expected == "early" or decision["because"][0]["rule"].startswith("engine.") and decision["to"] is decision["file"] is None


@pytest.mark.parametrize("found", [None, [], "facts", 7])
def test_a_host_without_facts(found):
    assert names(decided(found)) == ["engine.no-facts"] and action(found) == "unknown"


def test_facts_of_another_schema_are_not_read():
    decision = decided(facts(schema=2))
    assert text(decision, "engine.schema") == "Its facts are of schema 2, and 1 is known here. Use one version of the collection everywhere."


def test_cpus_that_differ_are_named():
    decision = decided(facts(cpu__revision=None, cpu__revisions={RUNS: [0], OLDER: [1, 2]}))
    assert "0x02006a00 on CPUs 1-2; 0x02006b06 on CPUs 0" in text(decision, "engine.revisions-differ")


# --- which file ---

@pytest.mark.parametrize("runs, files, to", [
    (RUNS, [NEW], NEW), (RUNS, [MIDDLE, NEW, OLDER], NEW), (NEW, [NEW], None), (NEW, [MIDDLE], None), (RUNS, [], None),
    ("0x80000010", ["0x00000001"], "0x00000001"), ("0x00000001", ["0x80000010"], None), ("0x80000010", ["0x80000011"], "0x80000011"),
])
def test_intel_revisions_are_signed_so_that_a_pre_production_one_is_older_than_any(runs, files, to):
    decision = decided(facts(cpu__revision=runs, files=[staged(each) for each in files]))
    assert (decision["action"], decision["to"]) == ("early" if to else "none", to)


def test_amd_patch_levels_are_not_signed():
    assert decided(epyc(staged("0x8a0011d5", min_revision=None)))["to"] == "0x8a0011d5"
    assert action(epyc(staged("0x0a0011d6", min_revision=None), runs="0x8a0011d5")) == "none"


def test_of_files_alike_the_first_is_taken_which_late_loading_finds():
    files = [staged(path="/lib/firmware/updates/a"), staged(path="/lib/firmware/a", sha256="cd" * 32)]
    assert decided(facts(*files))["file"] == "/lib/firmware/updates/a"


def test_without_any_file_it_asks_for_the_package():
    assert names(decided(facts(files=[]))) == ["engine.no-files"]


def test_a_file_that_holds_nothing_for_this_processor_is_none():
    assert names(decided(facts(staged(None)))) == ["engine.no-files"]
    assert names(decided(facts(staged(None), staged(RUNS)))) == ["engine.current"]


@pytest.mark.parametrize("changes", [
    {"revision": None, "problem": "cut off"}, {"sha256": None}, {"path": None}, {"path": "/lib/a\nb"}, {"path": ""}, {"sha256": {}}])
def test_whether_a_file_that_cannot_be_read_or_pinned_is_newer_is_not_known(changes):
    decision = decided(facts(staged(**changes)))
    assert (decision["action"], names(decision)) == ("unknown", ["engine.files-unclear", "engine.file-unknown"])
    beside = decided(facts(staged(**changes), staged(MIDDLE)))
    assert (beside["action"], beside["to"]) == ("early", MIDDLE) and "engine.file-unknown" in names(beside)


def test_a_file_that_is_no_mapping_is_not_known_either():
    assert action(facts(files=["x"])) == "unknown"


def test_amd_files_that_want_newer_firmware_first():
    patch = Update(0xa00f11, None, 0x0a0011de, "2025-10-01", 5568, 0x0a0011d9, 0, "both", ())
    picked, why = amd.pick([patch], Processor("AuthenticAMD", 0xa00f11, None, 0x0a0011d5))
    assert picked is None
    assert why.min_revision == 0x0a0011d9
    waits = staged(None, problem="any words", min_revision="0x0a0011d9", path="/lib/firmware/amd-ucode/microcode_amd_fam19h.bin")
    decision = decided(epyc(waits))
    assert (decision["action"], names(decision)[0]) == ("firmware_first", "engine.firmware-first") and "any words" in decision["because"][0]["text"]
    assert action(epyc(dict(waits, min_revision=None))) == action(epyc(waits, runs="0x0a0011d9")) == action(facts(waits)) == "unknown"
    declared = decided(epyc(staged("0x0a0011de", min_revision="0x0a0011d9")))
    assert (declared["action"], names(declared)[0]) == ("firmware_first", "engine.amd-minimum")
    assert action(epyc(staged("0x0a0011de", min_revision="0x0a0011d9"), runs="0x0a0011d9")) == "early"


def test_what_red_hats_caveats_hold_back_makes_no_host_outdated():
    held = staged(caveat="intel-06-55-04", path="/usr/share/microcode_ctl/ucode_with_caveats/intel-06-55-04/intel-ucode/06-55-04")
    decision = decided(facts(staged(RUNS), held))
    assert (decision["action"], names(decision)) == ("none", ["engine.apart", "engine.caveat"])
    assert "caveat intel-06-55-04" in text(decision, "engine.caveat")
    both = decided(facts(staged(RUNS), held), minimum(NEW))
    assert (both["action"], names(both)) == ("blocked", ["engine.apart", "minimum", "engine.caveat"])
    assert "override the caveat" in text(both, "engine.apart")
    assert decided(facts(staged(MIDDLE), held))["to"] == MIDDLE
    assert names(decided(facts(staged(RUNS), dict(held, revision=OLDER)))) == ["engine.current"]
    assert action(facts(staged(RUNS), dict(held, revision=None, problem="cut off"))) == "none"


def test_a_caveat_is_let_through_where_the_next_boots_initrd_has_its_revision_but_for_early_loading_alone():
    kernel, held = {"running": False, "carries": "update", "revision": NEW}, staged(caveat="intel-06-55-04")
    assert action(facts(held, early__kernels=[dict(kernel, default=False), dict(kernel, default=True, revision=RUNS)])) == "none"
    found = facts(held, early__kernels=[dict(kernel, default=True)])
    assert (action(found), action(found, ALLOW, **LATE)) == ("early", "early")
    assert "engine.late-file" in names(decided(found, ALLOW, **LATE))


# --- held back ---

DATED = "intel-microcode 3.20200101.1"


@pytest.mark.parametrize("changes, days, expected", [
    ({"date": "2026-11-15", "package": DATED}, 7, "early"), ({"date": "2026-11-16", "package": DATED}, 7, "none"), ({"date": "2026-11-16"}, 0, "early"),
    ({"date": "2026-12-24", "package": DATED}, 7, "none"), ({"date": "2020-01-01"}, 7, "unknown"),  # of no package
    ({"date": None}, 7, "unknown"), ({"date": None}, 0, "early"), ({"date": "2023-13-01"}, 7, "unknown"),
    ({"package": "intel-microcode 3.20261118.1~deb12u1"}, 7, "none"), ({"package": "intel-microcode 3.20261101.1"}, 7, "early"),
    ({"package": "ucode-intel-20269999"}, 7, "unknown"), ({"package": "microcode_ctl-2.1-73.fc43"}, 7, "unknown"),
    ({"package": "microcode_ctl-20220809-2.20261118.1.el8"}, 7, "none"), ({"package": "microcode_ctl-20220809-2.20230808.1.el8"}, 7, "early"),
    ({"date": None, "package": "intel-ucode 20261101-1"}, 7, "early"), ({"date": "2026-11-20", "package": "intel-ucode 20200101-1"}, 7, "none"),
])
def test_a_release_is_held_back_until_it_is_old_enough(changes, days, expected):
    decision = decided(facts(staged(**changes)), hold_days=days)
    assert decision["action"] == expected
    assert expected == "early" or names(decision) == ["engine.held" if expected == "none" else "engine.age-unknown", "engine.held-back"]


def test_without_a_day_to_count_from_nothing_is_old_enough():
    assert action(facts(), hold_days=1, today=None) == "unknown"


def test_where_the_newest_is_held_back_the_next_older_is_taken():
    decision = decided(facts(staged(date="2026-11-20", package=DATED), staged(MIDDLE, package=DATED)), hold_days=7)
    assert (decision["action"], decision["to"]) == ("early", MIDDLE)
    assert text(decision, "engine.held-back").startswith("0x02007006 is held back: its release is of 2026-11-20, and releases wait for 7 days.")


def test_what_is_needed_and_held_back_is_blocked_and_both_are_said():
    assert names(decided(facts(staged(date="2026-11-20", package=DATED)), minimum(NEW), hold_days=7)) == ["engine.held", "minimum", "engine.held-back"]


# --- refused, required, reviewed ---

def test_where_the_newest_is_refused_the_next_older_is_taken():
    decision = decided(facts(staged(), staged(MIDDLE)), refuse(NEW))
    assert (decision["action"], decision["to"]) == ("early", MIDDLE)
    assert text(decision, "refuse-" + NEW) == "0x02007006 is passed over: Text of block."


def test_where_all_are_refused_the_newest_stands_for_them():
    decision = decided(facts(staged(MIDDLE), staged()), refuse(NEW), refuse(MIDDLE))
    assert (decision["action"], decision["to"], names(decision)) == ("blocked", NEW, ["refuse-" + NEW, "refuse-" + MIDDLE])


@pytest.mark.parametrize("effect", ["firmware_first", "review"])
def test_what_only_waits_keeps_nobody_from_what_is_asked_for(effect):
    waits = rule(effect, "rev(candidate.to) == rev('%s')" % NEW)
    decision = decided(facts(staged(), staged(MIDDLE)), waits, minimum(MIDDLE))
    assert (decision["action"], decision["to"]) == ("early", MIDDLE)
    assert text(decision, waits["id"]) == "0x02007006 is passed over: Text of %s." % effect
    assert decided(facts(staged(), staged(MIDDLE)), waits, refuse(MIDDLE), minimum(NEW))["to"] == NEW


@pytest.mark.parametrize("effect, expected", [("firmware_first", "firmware_first"), ("review", "blocked")])
def test_what_only_waits_is_not_passed_over(effect, expected):
    decision = decided(facts(staged(), staged(MIDDLE)), rule(effect, "rev(candidate.to) == rev('%s')" % NEW))
    assert (decision["action"], decision["to"]) == (expected, NEW)


def test_a_refusal_that_is_not_known_is_unknown_and_says_for_want_of_what():
    decision = decided(facts(staged(), staged(MIDDLE)), rule("block", "rev(candidate.to) == rev('%s') && %s" % (NEW, UNKNOWN)))
    assert (decision["action"], decision["to"]) == ("unknown", NEW)
    assert text(decision, "block") == ("Not known, for want of facts.boot.next_entry, is whether this holds: Text of block. The host's warnings say why; read "
                                       "its facts as root.")
    decision = decided(facts(), rule("block", "rev(candidate.start) == rev('%s')" % NEW))
    assert text(decision, "block").endswith("a boot that loads nothing shows (dis_ucode_ldr on Linux's command line; on Xen none of ucode=).")


def test_a_minimum_that_only_a_refused_revision_provides_is_blocked_and_both_are_said():
    decision = decided(facts(), minimum(NEW), refuse(NEW))
    assert (decision["action"], names(decision)) == ("blocked", ["refuse-" + NEW, "minimum"])


def test_a_minimum_that_no_file_provides_is_blocked():
    decision = decided(facts(staged(RUNS)), minimum(NEW))
    assert (decision["action"], names(decision)) == ("blocked", ["engine.no-file", "minimum"])


def test_a_step_that_does_not_reach_the_minimum_is_taken_and_said_to_be_one():
    decision = decided(facts(staged(MIDDLE)), minimum(NEW))
    assert (decision["action"], names(decision)) == ("early", ["minimum", "engine.newer", "engine.still-needed"])
    assert "engine.still-needed" not in names(decided(facts(), minimum(NEW)))
    kept = decided(facts(staged(), staged(MIDDLE)), minimum(NEW), target={"0x00050654": MIDDLE})
    assert text(kept, "engine.still-needed") == ("Even %s is not all that is asked for, and the target, or hold_days, keeps %s back, which is." % (MIDDLE, NEW))


def test_a_minimum_that_is_not_known_is_not_taken_for_none():
    doubt = rule("require", UNKNOWN)
    decision = decided(facts(), doubt, target="advisory")
    assert (decision["action"], names(decision)) == ("unknown", ["engine.need-unknown"])
    assert text(decision, "engine.need-unknown").endswith("is not known, for want of facts.boot.next_entry (require).")
    assert names(decided(facts(staged(RUNS)), doubt)) == ["engine.current", "engine.not-known"]
    assert action(facts(), doubt, minimum(NEW), target="advisory") == "early"


def test_what_runs_and_is_refused_is_a_reason_to_leave_it_and_never_to_stay():
    decision = decided(facts(), refuse(RUNS))
    assert decision["action"] == "early" and decision["because"][0] == {
        "rule": "refuse-" + RUNS, "effect": "require", "text": "0x02006b06 runs already, and is to be left: Text of block.", "source": "A bulletin"}
    assert action(facts(staged(RUNS)), refuse(RUNS)) == "blocked"
    assert action(facts(staged(RUNS)), rule("block", "contains(facts.firmware.vendor, 'Dell')")) == "none"  # it says nothing of the revision
    assert action(facts(staged(RUNS)), rule("block", "rev(candidate.to) == rev('%s') && %s" % (RUNS, UNKNOWN))) == "none"


def test_a_review_is_accepted_by_its_name_and_by_no_other():
    assert action(facts(), rule("review"), accept=["another"]) == "blocked"
    decision = decided(facts(), rule("review"), accept=["review"])
    assert (decision["action"], text(decision, "review")) == ("early", "Accepted by name: Text of review.")
    assert action(facts(), rule("review", UNKNOWN)) == "unknown"
    assert action(facts(), rule("review", UNKNOWN), accept=["review"]) == "early"
    assert action(facts(), rule("block"), accept=["block"]) == "blocked"


@pytest.mark.parametrize("effect", ["require", "note", "allow_late", "early_only"])
def test_what_stands_in_no_way_may_be_unknown(effect):
    decision = decided(facts(), rule(effect, UNKNOWN))
    assert decision["action"] == "early"
    said = effect in ("require", "note")
    assert ("engine.not-known" in names(decision)) == said
    assert not said or text(decision, "engine.not-known") == "For want of facts.boot.next_entry it is not known whether there is more to say (%s)." % effect


def test_notes_are_shown_where_nothing_is_to_be_done_too():
    assert names(decided(facts(staged(RUNS)), rule("note"))) == ["engine.current", "note"]


def test_a_retracted_rule_refuses_nothing():
    assert action(facts(), rule("block", retracted="2026-11-20")) == "early"


# --- the target ---

@pytest.mark.parametrize("target, expected", [
    ({"0x00050654": MIDDLE}, ("early", MIDDLE, "engine.newer")), ({"0x50654": "0x2006e05"}, ("early", MIDDLE, "engine.newer")),
    ({"0x00050654": "0x02009999"}, ("blocked", None, "engine.no-target-file")), ({"0x00050654": RUNS}, ("none", None, "engine.target-runs")),
    ({"0x00050654": OLDER}, ("none", None, "engine.target-older")), ({"0x00050657": MIDDLE}, ("none", None, "engine.no-target")),
    ({}, ("none", None, "engine.no-target")),
])
def test_a_target_that_is_named(target, expected):
    decision = decided(facts(staged(), staged(MIDDLE)), target=target)
    assert (decision["action"], decision["to"], names(decision)[0]) == expected


def test_a_target_that_no_file_provides_is_named():
    assert text(decided(facts(), target={"0x00050654": "0x02009999"}), "engine.no-target-file") == (
        "No file at hand holds the target 0x02009999. Install the package that does, or name another target.")


def test_a_named_target_is_judged_as_any_other():
    target = {"0x00050654": NEW}
    assert action(facts(), refuse(NEW), target=target) == "blocked"
    assert names(decided(facts(staged(date="2026-11-20")), target=target, hold_days=7)) == ["engine.target-held", "engine.held-back"]
    assert action(facts(staged(date="2026-11-20")), target=target, hold_days=7) == "blocked"
    assert action(facts(staged(None, problem="cut off")), target=target) == "unknown"
    assert action(facts(staged(None, problem="cut off")), target={"0x00050654": RUNS}) == "none"


def test_an_advisory_takes_a_step_where_nothing_at_hand_is_all_that_is_asked_for():
    decision = decided(facts(staged(), staged(MIDDLE)), minimum(MIDDLE), minimum("0x02007007", id="more"), target="advisory")
    assert (decision["action"], decision["to"]) == ("early", NEW) and "engine.still-needed" in names(decision)


def test_an_advisory_takes_the_lowest_revision_that_is_all_that_is_asked_for():
    files = staged(), staged(MIDDLE), staged("0x02006c00")
    assert decided(facts(*files), minimum(MIDDLE), target="advisory")["to"] == MIDDLE
    assert decided(facts(*files), minimum(MIDDLE), rule("require", "rev(candidate.from) < rev('%s')" % NEW, "another"), target="advisory")["to"] == NEW
    assert decided(facts(*files), minimum(MIDDLE), refuse(MIDDLE), target="advisory")["to"] == NEW
    assert decided(facts(*files), refuse(RUNS), target="advisory")["to"] == "0x02006c00"
    assert names(decided(facts(*files), target="advisory")) == ["engine.not-needed"]
    assert names(decided(facts(*files), minimum("0x02009999"), target="advisory"))[:2] == ["engine.no-file", "minimum"]


# --- late ---

def test_late_where_everything_allows_it():
    decision = decided(facts(), ALLOW, late="allowed", guests="pause")
    assert (decision["action"], decision["reboot"], decision["guests"]) == ("late", False, "none")
    assert names(decision) == ["engine.newer", "allow", "engine.late-lasts"]
    assert "engine.late-lasts" not in names(decided(facts(pending=NEW), ALLOW, **LATE))


def test_late_on_xen_and_on_amd():
    assert action(xen(), ALLOW, **LATE) == "late"
    assert action(epyc(staged("0x0a0011d7", min_revision=None)), ALLOW, **LATE) == "late"
    assert action(xen(cpu__offline=[7], cpu__unread=1), ALLOW, **LATE) == action(xen(cpu__offline=None), ALLOW, **LATE) == "late"


def test_late_is_never_taken_unasked_and_then_not_spoken_of():
    assert names(decided(facts(), ALLOW, rule("early_only"))) == ["engine.newer"]
    assert action(facts(), ALLOW, late="Allowed") == "early"


@pytest.mark.parametrize("guests, found, expected", [("pause", xen(), "pause"), ("none", xen(), "none"), ("pause", facts(), "none"),
                                                     ("pause", xen(late__available=False), "none")])
def test_guests_are_paused_for_a_late_load_on_a_host_that_has_them(guests, found, expected):
    assert decided(found, ALLOW, late="allowed", guests=guests)["guests"] == expected


MISSING = [  # (what is missing, the reason's rule, what it says)
    (facts(), [], "engine.late-distribution", "No rule allows late loading on this distribution (debian)."),
    (facts(), [dict(ALLOW, match="candidate.path == 'late' && " + UNKNOWN)], "allow",
     "Not known, for want of facts.boot.next_entry, is whether this holds: Late is fine."),
    (facts(), [ALLOW, rule("early_only")], "early-only", "Text of early_only."),
    (facts(), [ALLOW, rule("early_only", UNKNOWN)], "early-only", "Not known, for want of facts.boot.next_entry"),
    (facts(), [ALLOW, rule("block", "candidate.path == 'late'")], "block", "Text of block."),
    (facts(), [ALLOW, rule("firmware_first", "candidate.path == 'late'")], "firmware-first", "Text of firmware_first."),
    (facts(), [ALLOW, rule("review", "candidate.path == 'late'")], "review", "Text of review."),
    (facts(), [ALLOW, rule("block", "candidate.path == 'late' && " + UNKNOWN)], "block", "Not known, for want of facts.boot.next_entry"),
    (facts(staged(early_only=True)), [ALLOW], "engine.late-file", PATH + " is for early loading alone."),
    (facts(staged(early_only=None)), [ALLOW], "engine.late-file", PATH + " is perhaps for early loading alone."),
    (facts(staged(OLDER, path="/lib/firmware/updates/x"), staged()), [ALLOW], "engine.late-file", "finds /lib/firmware/updates/x before " + PATH),
    (facts(staged(None, path="/lib/firmware/updates/x", problem="cut off"), staged()), [ALLOW], "engine.late-file", "finds /lib/firmware/updates/x before"),
    (facts(staged(None, path="/lib/firmware/updates/x"), staged()), [ALLOW], "engine.late-file", "finds /lib/firmware/updates/x before"),
    (xen(staged(path=PATH + ".zst")), [ALLOW], "engine.late-file", "hands Xen the file as it lies, and %s.zst is packed" % PATH),
    (facts(staged(min_revision=None)), [ALLOW], "engine.late-minimum", "Intel declares no revision from which on 0x02007006 may be loaded late."),
    (facts(staged(min_revision=MIDDLE)), [ALLOW], "engine.late-minimum",
     "Intel declares 0x02007006 safe to load late from 0x02006e05 on, and 0x02006b06 runs."),
    (xen(staged(min_revision=MIDDLE)), [ALLOW], "engine.late-minimum", "Intel declares"),
    (epyc(staged("0x0a0011d7", min_revision=None), late__min_revision_forced=True), [ALLOW], "engine.late-minimum", "The kernel insists on"),
    (epyc(staged("0x0a0011d7", min_revision=None), late__min_revision_forced=None), [ALLOW], "engine.late-minimum", "The kernel may insist on"),
    (facts(late__available=False, late__why_not="the kernel has no reload file"), [ALLOW], "engine.late-platform",
     "cannot load late: the kernel has no reload file."),
    (facts(late__available=None, late__why_not=None), [ALLOW], "engine.late-platform", "why is not known"),
    (facts(late=None), [ALLOW], "engine.late-platform", "why is not known"),
    (xen(late__interface="sysfs"), [ALLOW], "engine.late-platform", "through sysfs, which is not the way on Xen."),
    (facts(late__interface="xen-ucode"), [ALLOW], "engine.late-platform", "through xen-ucode, which is not the way on Linux."),
    (facts(cpu__offline=[3, 4], cpu__unread=2), [ALLOW], "engine.late-cpus", "CPUs 3-4 are offline"),
    (facts(cpu__unread=None), [ALLOW], "engine.late-cpus", "Of how many CPUs"),
    (xen(cpu__unread=None), [ALLOW], "engine.late-cpus", "Of how many CPUs"),
    (facts(cpu__offline=None), [ALLOW], "engine.late-cpus", "Which CPUs are offline is not known"),
    (facts(cpu__revisions={}), [ALLOW], "engine.late-cpus", "Which CPU runs what is not known"),
    (xen(cpu__revisions=None), [ALLOW], "engine.late-cpus", "Which CPU runs what is not known"),
]


@pytest.mark.parametrize("found, rules, name, said", MISSING)
def test_where_one_thing_is_missing_for_late_it_is_early_and_says_what(found, rules, name, said):
    decision = decided(found, *rules, **LATE)
    assert (decision["action"], decision["reboot"]) == ("early", True)
    missing = [each for each in decision["because"] if each["effect"] == "early_only" and each["rule"] != "engine.late-distribution" or each["rule"] == name]
    assert [each["rule"] for each in missing] == [name] and said in missing[0]["text"]


def test_all_that_is_missing_is_said_at_once():
    decision = decided(xen(staged(min_revision=None, early_only=True), late__available=False, cpu__unread=None), rule("early_only"), **LATE)
    assert [each["rule"] for each in decision["because"] if each["effect"] == "early_only"] == [
        "engine.late-distribution", "early-only", "engine.late-file", "engine.late-minimum", "engine.late-platform", "engine.late-cpus"]


def test_a_review_of_the_late_path_is_accepted_by_name_too():
    assert action(facts(), ALLOW, rule("review", "candidate.path == 'late'"), late="allowed", accept=["review"]) == "late"


def test_notes_on_the_late_path_are_shown_where_it_is_taken_or_no_rule_allows_it():
    note = rule("note", "candidate.path == 'late'")
    assert "note" in names(decided(facts(), ALLOW, note, **LATE)) and "note" in names(decided(facts(), note, **LATE))
    assert "note" not in names(decided(facts(late__available=False), ALLOW, note, **LATE)) and "note" not in names(decided(facts(), ALLOW, note))


# --- where a path sets out from ---

def never_late(**changes):
    """A host whose kernel loads early alone."""
    return facts(**{"late__interface": "none", "late__available": False, **changes})


def booted(ucode, following, version="4.17.7"):
    """A Xen host that had OLDER when dom0 booted."""
    return xen(hypervisor__xen={"ucode": ucode}, hypervisor__version=version, early__xen_ucode=following, cpu__boot_revision=OLDER)


@pytest.mark.parametrize("found, start", [
    (facts(), None),  # it may have been loaded late, from a file that is gone
    (facts(early__kernels=[{"running": True, "carries": "update", "revision": OLDER}]), None),
    (never_late(), None),  # the initrd that carries none now may have been made anew since the boot
    (never_late(early__kernels=[{"running": True, "carries": "update", "revision": OLDER}]), None),
    (never_late(early__kernels=[]), None), (never_late(early=None), None),
    (facts(early=None, command_line=["dis_ucode_ldr"], boot__reboot_is_kexec=False), RUNS),
    (facts(command_line=["dis_ucode_ldr"], boot__reboot_is_kexec=True), None), (facts(command_line=["dis_ucode_ldr"]), None),
    (booted("none", "none"), OLDER), (booted("off", "off", "4.21.0"), OLDER), (booted("none", "none", "4.20.1"), OLDER),
    (booted("none", "none", "4.21.0"), None),  # it may have been built to scan
    (booted("none", "none", None), None),
    (booted("none", "/EFI/xen/ucode.bin"), None), (booted("none", None), None),  # xen.cfg names a file, of which the command line says nothing
    (booted("-1", "-1"), None), (booted("scan", "scan"), None), (booted("/ucode.bin", "none"), None), (booted(None, "none"), None),
    (xen(early=None, command_line=["dis_ucode_ldr"]), None),
    (xen(early__xen_ucode="off", hypervisor__xen={"ucode": "off"}), None),
])
def test_an_early_load_sets_out_from_what_firmware_brings(found, start):
    rules = [rule("block", "rev(candidate.start) == rev('%s')" % (start or RUNS))]
    assert action(found, *rules) == ("blocked" if start else "unknown")
    from_elsewhere = rule("block", "candidate.path == 'late' && rev(candidate.start) != rev(candidate.from)")
    assert action(found, from_elsewhere, ALLOW, **LATE) == action(found, ALLOW, **LATE)


# --- the next boot ---

def carrying(revision, **changes):
    """A host whose default kernel's initrd carries this revision now."""
    kernel = {"version": "6.1", "running": True, "default": True, "carries": "update" if revision else "none", "revision": revision}
    return facts(staged(RUNS), **dict({"early__loads": kernel["carries"], "early__kernels": [kernel]}, **changes))


def told(decision):
    return [each["text"] for each in decision["because"] if each["rule"] == "engine.next-boot"]


@pytest.mark.parametrize("found, words", [
    (carrying(OLDER), "the next boot loads 0x02006a00"), (carrying(None), "the next boot loads nothing"),
    (carrying(RUNS, early__loads=None), "the next boot loads what is not known"), (carrying(RUNS, early__kernels=[]), "the next boot loads what is not known")])
def test_what_runs_and_is_not_what_the_next_boot_loads_is_said(found, words):
    decision = decided(found)
    assert decision["action"] == "none" and words in told(decision)[0] and "only if firmware brings it" in told(decision)[0]
    assert not told(decided(dict(found, command_line=["dis_ucode_ldr"], boot={"reboot_is_kexec": False})))  # firmware brings it


def test_where_the_next_boot_loads_what_runs_nothing_is_said():
    assert not told(decided(carrying(RUNS))) and not told(decided(carrying(NEW, pending=NEW)))


def test_a_boot_into_what_is_asked_to_be_left_is_blocked_before_it_happens():
    decision = decided(carrying(OLDER), minimum(RUNS))
    assert (decision["action"], names(decision)) == ("blocked", [])
    assert told(decision)[0].startswith("%s runs, and the next boot loads %s" % (RUNS, OLDER)) and told(decision)[0].endswith("Text of require.")
    assert action(carrying(RUNS), minimum(RUNS)) == "none"


def test_a_release_that_is_held_back_is_not_booted_either():
    held = staged(date="2026-11-20", package=DATED)
    decision = decided(facts(held, pending=NEW), hold_days=7)
    assert decision["action"] == "blocked" and names(decision)[0] == "engine.pending-refused" and "engine.held-back" in names(decision)
    assert action(facts(held, pending=NEW)) == "early"


# --- what comes and goes ---

def test_what_comes_and_goes_is_told_by_rules_of_the_way_that_no_longer_speak_at_its_end():
    way = "rev(candidate.from) < rev('%s') && rev(candidate.to) >= rev('%s')"
    rules = [minimum(NEW, closes=["zenbleed"]), rule("note", way % (MIDDLE, MIDDLE), "tsx", takes=["rtm", "hle"]),
             rule("note", way % (NEW, NEW), "more", brings=["rdseed"], takes=["hle"]),
             rule("note", "`true`", "always", takes=["sgx"]), rule("note", "rev(candidate.from) < rev('0x0300ffff')", "further", brings=["avx"])]
    decision = decided(facts(), *rules)
    assert (decision["brings"], decision["takes"], decision["closes"]) == (["rdseed"], ["rtm", "hle"], ["zenbleed"])
    step = decided(facts(staged(MIDDLE)), *rules)
    assert (step["brings"], step["takes"], step["closes"]) == ([], ["rtm", "hle"], [])
    stays = decided(facts(), refuse(NEW), *rules)
    assert (stays["action"], stays["takes"], stays["closes"]) == ("blocked", [], [])


@pytest.mark.parametrize("said, early", [
    ({"gds": "Vulnerable: No microcode"}, ["gds"]), ({"gds": "Vulnerable"}, ["gds"]), ({"gds": "Not affected"}, []), ({"gds": "Mitigation: Microcode"}, []),
    ({"gds": None}, []), (None, []), ({}, []), ({"other": "Vulnerable"}, []),
])
def test_a_kernel_closes_what_it_knows_of_and_chooses_only_at_its_boot(said, early):
    rules = [minimum(NEW, closes=["gds"]), ALLOW]
    assert decided(facts(vulnerabilities=said), *rules)["closes"] == early
    assert decided(facts(vulnerabilities=said), *rules, **LATE)["closes"] == []


def test_what_microcode_closes_alone_is_closed_by_either_path():
    rules = [minimum(NEW, closes=["zenbleed", "gds"]), ALLOW]
    assert decided(facts(), *rules)["closes"] == decided(facts(), *rules, **LATE)["closes"] == decided(xen(), *rules)["closes"] == ["zenbleed"]


def test_what_dom0s_kernel_says_is_not_xens():
    assert decided(xen(vulnerabilities={"gds": "Vulnerable"}), minimum(NEW, closes=["gds"]))["closes"] == []


# --- what else there is to know ---

NEWER = "0x02008888"


@pytest.mark.parametrize("pending, rules, noted", [
    (NEW, [refuse(NEW)], True), (NEW, [], False), (MIDDLE, [], False), (NEWER, [], True), (None, [], False), (OLDER, [refuse(NEW)], False),
    (MIDDLE, [rule("review")], True),
])
def test_what_the_next_boot_loads_although_it_was_not_decided(pending, rules, noted):
    assert ("engine.pending" in names(decided(facts(pending=pending), *rules))) == noted


@pytest.mark.parametrize("effect, match", [("block", "`true`"), ("review", "`true`"), ("block", UNKNOWN), ("firmware_first", UNKNOWN)])
def test_what_the_next_boot_loads_is_judged_too(effect, match):
    against = rule(effect, "rev(candidate.to) == rev('%s') && candidate.path == 'early' && rev(candidate.from) == rev('%s') && %s" % (NEWER, RUNS, match))
    for found in (facts(staged(RUNS), pending=NEWER), facts(pending=NEWER)):
        decision = decided(found, against, ALLOW, target={"0x00050654": NEW if found["files"][0]["revision"] == NEW else RUNS}, **LATE)
        assert (decision["action"], names(decision)[:2]) == ("blocked", ["engine.pending-refused", against["id"]])
        assert not decision["reboot"] and "Rebuild the initrd with another revision first." in text(decision, "engine.pending-refused")
    early = decided(facts(pending=NEWER), against)
    assert early["action"] == "early" and "is to be made anew before any boot" in text(early, against["id"])
    assert action(facts(staged(RUNS), pending=NEW), against) == "none" and action(facts(pending=NEW), against, ALLOW, **LATE) == "late"


def test_what_the_cpu_would_refuse_of_the_next_boots_initrd_is_only_told():
    decision = decided(facts(staged(RUNS), pending=NEWER), rule("firmware_first"))
    assert (decision["action"], names(decision)) == ("none", ["engine.current", "engine.pending"])


def test_a_loader_that_is_switched_off_loads_nothing_at_a_boot():
    decision = decided(facts(early__disabled=True))
    assert (decision["action"], decision["reboot"], names(decision)[0]) == ("blocked", False, "engine.loader-off")
    assert action(facts(early__disabled=True), ALLOW, **LATE) == "late" and action(facts(early__disabled=None)) == "early"
    assert action(xen(early__disabled=True)) == "early"  # Xen does not read what dom0's kernel is told


def test_cpus_that_xen_does_not_show():
    assert text(decided(xen(staged(RUNS), cpu__unread=31)), "engine.unread") == "Xen does not show the revision of 31 CPUs, taken to run what the others run."
    assert names(decided(facts(staged(RUNS), cpu__unread=None))) == ["engine.unread-unknown"] and action(facts(staged(RUNS), cpu__unread=None)) == "unknown"
    assert text(decided(xen(cpu__unread=31)), "engine.unread") == "Xen does not show the revision of 31 CPUs, taken to run what the others run."


# --- whatever hosts say ---

RULES = policy.load([ALLOW, minimum(NEW, closes=["gds"]), refuse(MIDDLE), rule("block", "facts.kernel_config.MICROCODE == 'n'"),
                     rule("note", text="{facts.firmware.product} {facts.distro.id}")])
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5) | st.sampled_from(
    [RUNS, NEW, MIDDLE, "0x80000001", "0x00050654", "4.17.7", "2026-11-20", "GenuineIntel", "AuthenticAMD", "xen", "host", "none",
     "guest", "debian", "x" * 9999, "{{ 1 }}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["0x1", RUNS, "path", "revision", "ucode", "running", "carries"]), inner, max_size=3), max_leaves=6)
PLACES = ["%s__%s" % (section, key) for section in ("cpu", "hypervisor", "early", "late", "distro") for key in facts()[section]]
PLACES += ["kernel_config"] + list(facts())


@st.composite
def hosts(draw):
    files = draw(st.just([]) | st.lists(st.fixed_dictionaries({}, optional={key: VALUES for key in staged()}).map(lambda changes: staged(**changes)) | VALUES,
                                        max_size=3))
    found = draw(st.sampled_from([facts(), xen(), epyc(staged("0x0a0011d7", min_revision=None))]))
    found = dict(copy.deepcopy(found), files=files or found["files"], kernel_config={"MICROCODE": "y"})
    found["vulnerabilities"] = draw(st.sampled_from([{}, {"gds": "Not affected"}]))
    for place in sorted(draw(st.sets(st.sampled_from(PLACES), max_size=3)), reverse=True):
        put(found, {place: draw(VALUES)})
    return found


OPTIONS = st.fixed_dictionaries({
    "late": st.sampled_from(["allowed", "never"]), "guests": st.sampled_from(["none", "pause"]), "hold_days": st.integers(0, 9), "today": st.just(TODAY),
    "target": st.sampled_from(["newest_staged", "advisory", {"0x00050654": NEW}]), "accept": st.just(["review"])})


@hypothesis.settings(max_examples=400)
@hypothesis.given(hosts(), OPTIONS)
def test_whatever_a_host_says_it_is_decided_on_from_what_it_says_alone(found, options):
    found = report.plain(found)
    before = copy.deepcopy(found)
    decision = decide.decide(RULES, found, options)
    assert found == before and decision == decide.decide(RULES, copy.deepcopy(found), options) == decide.decide(RULES, picked(found, RULES), options)
    assert decision["action"] in ("none", "early", "late", "firmware_first", "blocked", "unknown") and decision["because"]
    assert all("\n" not in each["text"] and len(each["text"]) < 9000 and set(each) == {"rule", "effect", "text", "source"} for each in decision["because"])
    assert json.loads(json.dumps(decision, allow_nan=False)) == decision
    if decision["action"] in ("early", "late"):
        assert decision["file"] and decision["sha256"] and decision["to"] != decision["from"]
        assert any(report.part(each, "revision") is not None for each in found["files"])
    if decision["action"] == "late":
        assert options["late"] == "allowed" and found["late"]["available"] is True


def test_all_that_decides_on_real_hosts_is_in_the_fingerprint_of_a_host(tmp_path):
    trees.build_all(tmp_path)
    actions = set()
    for name in trees.hosts():
        found = report.plain(gather(Host(str(tmp_path / name))))
        for options in itertools.product(("never", "allowed"), ("newest_staged", "advisory"), (0, 30)):
            options = dict(zip(("late", "target", "hold_days"), options), today=TODAY)
            decision = decide.decide(RULES, found, options)
            assert decision == decide.decide(RULES, picked(found, RULES), options)
            actions.add(decision["action"])
    assert actions == {"none", "early", "late", "firmware_first", "unknown", "blocked"}
