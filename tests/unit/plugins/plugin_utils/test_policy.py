# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules are refused where they are wrong, and where a fact is not known they say so rather than nothing."""
import copy
import datetime
import os
import shutil
import subprocess
import sys

import pytest

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("jmespath")

from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils.facts import gather
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.plugin_utils import policy
from ansible_collections.fleet.microcode.tests.fleet import trees

FACTS = {
    "schema": 1, "kernel": "6.1.0-56-amd64", "gathered": "2026-11-22T14:00:00Z", "tainted": 0, "command_line": ["nosmt"],
    "cpu": {"vendor": "GenuineIntel", "signature": "0x00050654", "pf_mask": "0x00000080", "revision": "0x02006b06", "tsx": True, "llc_per_core": 1441792},
    "hypervisor": {"role": "host", "type": "xen", "version": "4.17.7", "xen": {"ucode": "scan"}, "guests": {"count": 2, "states": {"running": 2}}},
    "early": {"kernels": [{"version": "6.1.0-56-amd64", "revision": "0x02007006", "carries": "update"}], "xen_ucode": None},
    "late": {"available": True}, "files": [{"path": "/x", "revision": "0x02007006", "problem": None}],
    "firmware": {"vendor": "Dell Inc.", "bios_date": "2023-06-04"}, "distro": {"id": "debian", "version": "12"},
    "vulnerabilities": {"srbds": "Vulnerable: No microcode"},
}
CANDIDATE = {"path": "early", "from": "0x02006b06", "start": None, "to": "0x02007006", "date": "2023-03-06", "min_revision": None, "file": "/x",
             "package": None, "early_only": False, "sha256": "ab", "age_days": 3}
OPTIONS = {"late": "never", "guests": "none", "hold_days": 7, "accept": ["one"], "target": "newest_staged", "today": "2026-11-22"}
TRUE, FALSE, UNKNOWN = "facts.cpu.tsx", "!(facts.cpu.tsx)", "facts.applicable"


def rule(match="facts.cpu.tsx", **changes):
    return {"id": "a-rule", "match": match, "effect": "block", "text": "It hangs.", "source": "A bulletin", "added": "2026-11-22", **changes}


def facts(**changes):
    found = copy.deepcopy(FACTS)
    for path, value in changes.items():
        at, keys = found, path.split("__")
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value
    return found


def answer(match, **changes):
    """True or False, whether a rule of this match speaks; the paths for want of which that is not known."""
    verdicts = policy.Policy([rule(match)]).judge(facts(**changes), CANDIDATE, OPTIONS)
    return bool(verdicts) if not verdicts or not verdicts[0]["unknown"] else verdicts[0]["unknown"]


def wrong(*rules):
    with pytest.raises(policy.RuleError) as caught:
        policy.Policy(rules)
    return str(caught.value)


# --- three values ---

@pytest.mark.parametrize("match, expected", [
    (TRUE, True), (FALSE, False), (UNKNOWN, [UNKNOWN]), ("!(facts.applicable)", [UNKNOWN]),
    ("%s && %s" % (TRUE, TRUE), True), ("%s && %s" % (TRUE, FALSE), False), ("%s && %s" % (FALSE, TRUE), False),
    ("%s && %s" % (TRUE, UNKNOWN), [UNKNOWN]), ("%s && %s" % (UNKNOWN, TRUE), [UNKNOWN]),
    ("%s && %s" % (FALSE, UNKNOWN), False), ("%s && %s" % (UNKNOWN, FALSE), False),
    ("%s || %s" % (FALSE, FALSE), False), ("%s || %s" % (FALSE, TRUE), True), ("%s || %s" % (TRUE, FALSE), True),
    ("%s || %s" % (FALSE, UNKNOWN), [UNKNOWN]), ("%s || %s" % (UNKNOWN, FALSE), [UNKNOWN]),
    ("%s || %s" % (TRUE, UNKNOWN), True), ("%s || %s" % (UNKNOWN, TRUE), True),
    ("facts.applicable || facts.early.disabled", ["facts.applicable", "facts.early.disabled"]),
    ("facts.applicable && facts.early.disabled", ["facts.applicable", "facts.early.disabled"]),
    ("(facts.applicable || facts.cpu.tsx) && facts.early.disabled", ["facts.early.disabled"]),
    ("!(facts.applicable && !(facts.cpu.tsx))", True),
])
def test_logic_has_three_values(match, expected):
    assert answer(match) == expected


@pytest.mark.parametrize("match", [
    "facts.early.tool == facts.early.tool", "facts.applicable != `true`", "rev(facts.pending) < rev('0x1')", "!(rev(facts.pending) < rev('0x1'))",
    "rev('0x1') >= rev(facts.pending)", "any_of(facts.pending, ['0x1'])", "contains(facts.pending, '0x')", "starts_with(facts.pending, '0x')"])
def test_what_is_not_known_is_neither_true_nor_false_in_any_comparison(match):
    assert isinstance(answer(match), list)


@pytest.mark.parametrize("match, change", [
    ("facts.distro.id == 'debian'", {"distro__id": ["debian"]}), ("facts.distro.id != 'debian'", {"distro__id": 7}),
    ("facts.distro.id != 'debian'", {"distro": "debian"}),
    ("facts.cpu.tsx", {"cpu__tsx": "true"}), ("!(facts.cpu.tsx)", {"cpu__tsx": 0}), ("facts.cpu.tsx != `false`", {"cpu__tsx": "no"}),
    ("facts.cpu.llc_per_core > `5`", {"cpu__llc_per_core": "many"}), ("facts.cpu.llc_per_core < `5`", {"cpu__llc_per_core": False}),
    ("rev(facts.cpu.revision) < rev('0x1')", {"cpu__revision": "0x02007006f"}), ("rev(facts.cpu.revision) < rev('0x1')", {"cpu__revision": 5}),
    ("version(facts.hypervisor.version) < version('4.2')", {"hypervisor__version": "unstable"}),
    ("version(facts.hypervisor.version) < version('4.2')", {"hypervisor__version": "9" * 10 ** 6}),
    ("date(facts.firmware.bios_date) < date('2020-01-01')", {"firmware__bios_date": "2023-02-30"}),
    ("contains(facts.firmware.vendor, 'Dell')", {"firmware__vendor": {"Dell": 1}}), ("any_of(facts.distro.id, ['a'])", {"distro__id": {}}),
    ("any_of(facts.cpu.signature, facts.cpu.signatures)", {"cpu__signatures": "0x00050654"}),
])
def test_a_value_of_another_type_is_not_known(match, change):
    assert isinstance(answer(match, **change), list)


def test_a_list_with_gaps_says_what_is_in_it_and_not_what_is_not():
    match = "any_of(candidate.to, facts.early.kernels[*].revision)"
    assert answer(match) is True
    older = {"revision": "0x02006b06", "carries": "update"}
    assert answer(match, early__kernels=[older]) is False
    assert answer(match, early__kernels=[older, {"revision": None, "carries": None}]) == ["candidate.to", "facts.early.kernels[].revision"]
    assert answer(match, early__kernels=[{"revision": "0x02007006"}, {"revision": None}]) is True
    assert answer(match, early__kernels=[older, {"revision": None, "carries": "none"}]) is False  # it is known to hold nothing for this processor
    assert answer(match, early__kernels=None) == ["facts.early.kernels[].revision"]
    assert answer("any_of(candidate.to, facts.files[*].revision)", files=[{"revision": None, "problem": None}]) is False
    assert answer("any_of(candidate.to, facts.files[*].revision)", files=[{"revision": None, "problem": "cut off"}]) != []
    assert answer("contains(facts.command_line, 'nosmt')") is True
    assert answer("contains(facts.command_line[*], 'dis_ucode_ldr')", command_line=["nosmt", None]) != []


def test_an_item_of_a_list_can_be_named_by_its_place():
    assert answer("rev(facts.files[0].revision) == rev(candidate.to)") is True
    assert answer("rev(facts.files[7].revision) == rev(candidate.to)") == ["facts.files.7.revision"]


# --- what is compared ---

@pytest.mark.parametrize("vendor, one, two, less", [
    ("GenuineIntel", "0x80000010", "0x1", True), ("GenuineIntel", "0x1", "0xfffffff0", False), ("GenuineIntel", "0xfffffff0", "0xfffffff1", True),
    ("AuthenticAMD", "0x80000010", "0x1", False), ("AuthenticAMD", "0x0830107c", "0x80000010", True), ("GenuineIntel", "0xf0", "0x000000f1", True),
    ("GenuineIntel", "0x000000f0", "0xF0", False), (None, "0x80", "0x81", True), (None, "0x80000010", "0x1", ["facts.cpu.revision"]),
    ("Unheard", "0x1", "0x80000010", ["facts.cpu.vendor"]),
])
def test_revisions_are_numbers_with_a_sign_on_intel_alone(vendor, one, two, less):
    assert answer("rev(facts.cpu.revision) < rev('%s')" % two, cpu__vendor=vendor, cpu__revision=one) == less


@pytest.mark.parametrize("one, two, comparison", [
    ("4.9", "4.17", "<"), ("4.17.7", "4.17.10", "<"), ("4.17", "4.17.0", "=="), ("4.17.0", "4.17.0-rc1", ">"), ("4.21-unstable", "4.20.2", ">"),
    ("4.21-unstable", "4.21", "<"),
    ("6.1.0-56-amd64", "6.1", "=="), ("6.12.57+deb13-amd64", "6.7", ">"), ("8.10", "8.9", ">"), ("20261120", "15.6", ">"), ("4.17.5-13", "4.17.5", "=="),
    ("4.2", "4.13", "<"),
    ("10.0.0", "10", "=="), ("9", "10", "<"), ("0", "0.0.1", "<"),
])
def test_versions_are_numbers_part_by_part(one, two, comparison):
    for sign in ("<", "==", ">"):
        assert answer("version(facts.hypervisor.version) %s version('%s')" % (sign, two), hypervisor__version=one) is (sign == comparison)


def test_dates_are_days():
    assert answer("date(facts.firmware.bios_date) < date('2023-06-05')") is True
    assert answer("date(facts.gathered) == date(options.today)") is True
    assert answer("candidate.age_days < options.hold_days") is True


@pytest.mark.parametrize("match, expected", [
    ("facts.cpu.signature == '0x50654'", True), ("facts.cpu.signature != '0x50654'", False), ("any_of(facts.cpu.signature, ['0x1', '0X50654'])", False),
    ("any_of(candidate.to, ['0x2007006'])", True), ("any_of(rev(candidate.to), [rev('0x1'), rev('0x2007006')])", True),
    ("any_of(version(facts.distro.version), [version('12.0')])", True), ("facts.tainted == `0`", True), ("facts.tainted == `false`", ["facts.tainted"]),
    ("contains(facts.firmware.vendor, 'Dell')", True), ("starts_with(facts.firmware.vendor, 'Inc')", False),
    ("facts.hypervisor.guests.states.running == `2`", True),
    ("facts.vulnerabilities.srbds == 'Vulnerable: No microcode'", True), ("facts.vulnerabilities.retbleed == 'x'", ["facts.vulnerabilities.retbleed"]),
    ("contains(options.accept, 'one')", True), ("facts.cpu.llc_per_core >= `1441792`", True), ("'a' == 'a'", True), ("`true`", True),
])
def test_what_is_equal(match, expected):
    assert answer(match) == expected


@pytest.mark.parametrize("match, said", [
    ("candidate.to > '0x80'", "rev(candidate.to) compares it"), ("candidate.to == '0x80'", "rev(candidate.to) compares it"),
    ("facts.hypervisor.version == '4.17'", "version(facts.hypervisor.version)"), ("facts.kernel < facts.kernel", "version(facts.kernel)"),
    ("any_of(facts.distro.version, ['12'])", "version(facts.distro.version)"),
    ("contains(facts.early.kernels[*].version, '6.1')", "version(facts.early.kernels[].version)"),
    ("date(candidate.date) < '2020'", "date() is compared with a text"), ("rev(candidate.to) < version('4')", "rev() is compared with a version"),
    ("rev(candidate.to) < `5`", "rev() is compared with a number"), ("facts.distro.id < 'debian'", "orders texts by their letters"),
    ("facts.cpu.online < facts.cpu.present", "orders texts by their letters"), ("'4.9' < '4.17'", "orders texts by their letters"),
    ("rev(facts.kernel) < rev('0x1')", "facts.kernel is read by version()"), ("version('new') < version('4')", "version('new') is none"),
    ("rev('80') > rev('0x1')", "rev('80') is none"),
    ("date('22.11.2026') == date('2026-11-22')", "is none"), ("facts.applicable == `null`", "null is compared with nothing"),
    ("facts.command_line == 'x'", "a list is compared"), ("any_of(rev(candidate.to), ['0x80'])", "all need the same function"),
    ("any_of(candidate.to, [rev('0x80')])", "all need the same function"), ("any_of(facts.distro.id, 'debian')", "a value and a list"),
    ("['a', `1`] == 'a'", "of one kind"),
    ("rev(candidate.to)", "something true or false"), ("'late'", "something true or false"), ("facts.distro.id == 'a' && 'b'", "something true or false"),
    ("to_number(facts.kernel) > `5`", "none of the functions"), ("rev(candidate.to, candidate.from) > rev('0x1')", "none of the functions"),
    ("not_null(facts.pending, 'x') == 'x'", "none of the functions"), ("contains('Dell', facts.firmware.vendor)", "contains() takes a path"),
    ("!facts.cpu.tsx", "write !(a.b)"), ("facts.files[?early_only].revision", "filter projection"), ("facts.cpu | tsx", "pipe"),
    ("facts.cpu.revisions.*", "value projection"), ("sort_by(facts.files, &path)", "none of the functions"), ("contains(facts.files, &path)", "expref"),
    ("facts.files[0:2]", "slice"), ("{a: facts.cpu}", "multi select dict"),
    ("facts.cpu.signatur == '0x1'", "there is no facts.cpu.signatur; is facts.cpu.signature meant?"),
    ("facts.hypervisor.ucode == 'scan'", "there is no facts.hypervisor.ucode"),
    ("facts.hypervisor.xen.versoin == 'x'", "there is no facts.hypervisor.xen.versoin"), ("facts.schema.x == `1`", "there is no facts.schema.x"),
    ("fact.kernel == 'x'", "there is no fact"),
    ("candidate.revision == 'x'", "there is no candidate.revision"), ("options.hold == `1`", "is options.hold_days meant?"),
    ("candidate.file.name == 'x'", "there is no candidate.file.name"),
    ("candidate.path == \"late\"", "there is no late among facts, candidate and options; a text stands in single quotes"),
    ("facts.files.revision == 'x'", "facts.files is a list: facts.files[*].revision goes through it"),
    ("facts.early.kernels.revision == 'x'", "facts.early.kernels is a list"),
    ("facts.cpu == 'x'", "facts.cpu is a section"), ("facts == 'x'", "facts is a section"),
    ("facts.early.kernels[*].revison == 'x'", "is facts.early.kernels[].revision meant?"),
    ("facts.cpu.tsx &&", "no JMESPath"), ("", "match is no text"), (None, "match is no text"), ("(" * 5000 + "facts.cpu.tsx" + ")" * 5000, "too many terms"),
    ("!" * 100000 + "facts.cpu.tsx", "too many terms"), (" || ".join(["facts.distro.id == 'a'"] * 200), "any_of(x, ['a', 'b', 'c']) takes the place"),
])
def test_a_match_that_would_fail_in_silence_is_an_error_that_names_the_rule_and_where_it_is(match, said):
    text = wrong(rule(match))
    assert text.startswith("rule a-rule (rules of your own): ") and said in text and "\n" not in text


# --- the facts' shape ---

@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The facts of every recorded host."""
    folder = tmp_path_factory.mktemp("fleet")
    trees.build_all(folder)
    return [gather(Host(str(folder / name))) for name in trees.hosts()]


def paths(value, so_far="facts"):
    """Every path in these facts that a rule could name."""
    if isinstance(value, dict) and so_far not in policy.OPEN:
        return set().union(*(paths(each, "%s.%s" % (so_far, key)) for key, each in value.items()))
    if isinstance(value, list):
        return set().union(*(paths(each, so_far + "[]") for each in value))
    return {so_far}


def test_rules_can_name_every_fact_that_real_hosts_have_as_what_it_is(recorded):
    named = set().union(*map(paths, recorded))
    named = {path for path in named if not any(other.startswith((path + ".", path + "[]")) for other in named)}  # null on one host, a section on another
    assert len(named) > 70
    for path in named:
        function = policy.TYPED.get(path)
        if "[]" in path or path in policy.MANY:
            match = "contains(%s, 'x')" % path.replace("[]", "[*]")
        else:
            match = "%s(%s) == %s(%s)" % (function, path, function, path) if function else "%s == 'x'" % path
        if "[]" not in path or function in (None, "rev"):
            policy.Policy([rule(match)])
    assert {path for path in policy.TYPED if path.startswith("facts.")} <= named
    assert {"facts." + path for path in policy.READS} <= {shorter for path in named for shorter in (path, path.replace("[]", ""), path.split("[]")[0])}


def test_a_copy_of_the_plugins_alone_has_all_that_rules_need(tmp_path):
    plugins = os.path.dirname(os.path.dirname(policy.__file__))
    shutil.copytree(plugins, tmp_path / "ansible_collections" / "fleet" / "microcode" / "plugins")
    script = "from ansible_collections.fleet.microcode.plugins.plugin_utils import policy; print(policy.__file__, len(policy.load().rules))"
    done = subprocess.run([sys.executable, "-c", script],
                          env=dict(os.environ, PYTHONPATH=str(tmp_path)), cwd=tmp_path, capture_output=True, text=True, check=True)
    path, count = done.stdout.split()
    assert path.startswith(str(tmp_path)) and int(count) == len(policy.load().rules)


# --- a rule ---

@pytest.mark.parametrize("changes, said", [
    ({"effect": "prefer"}, "the effect prefer is none of block, firmware_first"), ({"effect": ["block"]}, "the effect a list is none of"),
    ({"effect": None}, "is none of"), ({"effect": 1 << 99999}, "the effect a number is none of"), ({"added": [["x"]]}, "added is no day"),
    ({"id": "A Rule"}, "rule A Rule"), ({"id": None}, "without an id"), ({"id": "engine.current"}, "its id"), ({"id": 7}, "without an id"),
    ({"text": ""}, "text is no text"), ({"source": None}, "source is no text"), ({"added": "yesterday"}, "added is no day"),
    ({"retracted": "2026-13-01"}, "retracted is no day"),
    ({"signature": 0x50654}, "quote it"), ({"signature": []}, "signature is no text"), ({"signature": ["0x50654", "50654"]}, "signature is no text"),
    ({"pf_mask": [128]}, "pf_mask is no text"), ({"pf_mask": ["0x00"]}, "no bit set"), ({"closes": "zenbleed"}, "closes is no list"),
    ({"brings": [1]}, "brings is no list"),
    ({"mtach": "x"}, "mtach is no key of a rule"), ({"text": "From {candidate.form} on"}, "{candidate.form}: there is no candidate.form; is candidate.from"),
    ({"text": "a { b"}, "a brace without"), ({"text": "{}"}, "its text has {}"), ({"text": "{facts.files}"}, "no path to one value"),
    ({"text": "{'x'}"}, "no path to one value"),
    ({"text": "{facts.files[*].path}"}, "no path to one value"),
])
def test_a_rule_that_is_wrong_is_an_error(changes, said):
    text = wrong(rule(**changes))
    assert said in text and "rules of your own" in text


@pytest.mark.parametrize("key", sorted(policy.KEYS))
def test_a_rule_that_lacks_a_key_is_an_error(key):
    assert ("its id" if key == "id" else "%s is missing" % key) in wrong({name: value for name, value in rule().items() if name != key})


def test_names_stand_for_one_rule():
    assert "rule a-rule is there twice, in rules of your own and in rules of your own" in wrong(rule(), rule())
    shipped = policy.load().rules[0]["id"]
    with pytest.raises(policy.RuleError, match="rule %s is there twice, in rules of your own and in [a-z]+.yml" % shipped):
        policy.load([rule(id=shipped)])


@pytest.mark.parametrize("effect", policy.EFFECTS)
def test_what_is_not_known_is_named_whatever_the_effect(effect):
    verdicts = policy.Policy([rule(UNKNOWN, effect=effect)]).judge(FACTS, CANDIDATE, OPTIONS)
    assert verdicts == [{"rule": "a-rule", "effect": effect, "text": "It hangs.", "source": "A bulletin", "unknown": [UNKNOWN]}]


@pytest.mark.parametrize("changes, expected", [
    ({}, True), ({"cpu__pf_mask": "0x00000020"}, True), ({"cpu__pf_mask": "0x00000040"}, False), ({"cpu__signature": "0x00050655"}, False),
    ({"cpu__signature": "0x00050657"}, True), ({"cpu__pf_mask": None}, ["facts.cpu.pf_mask"]), ({"cpu__pf_mask": "?"}, ["facts.cpu.pf_mask"]),
    ({"cpu__signature": None}, ["facts.cpu.signature"]), ({"cpu__signature": None, "cpu__pf_mask": None}, ["facts.cpu.signature", "facts.cpu.pf_mask"]),
    ({"cpu__pf_mask": None, "cpu__tsx": False}, False), ({"cpu__signature": None, "cpu__tsx": False}, False),
    ({"cpu__signature": None, "cpu__pf_mask": "0x40"}, False),
    ({"cpu__pf_mask": None, "cpu__tsx": None}, ["facts.cpu.pf_mask", "facts.cpu.tsx"]),
])
def test_signature_and_platform_mask_are_part_of_the_match(changes, expected):
    verdicts = policy.Policy([rule(signature=["0x50654", "0x00050657"], pf_mask=["0x80", "0x20"])]).judge(facts(**changes), CANDIDATE, OPTIONS)
    assert (bool(verdicts) if not verdicts or not verdicts[0]["unknown"] else verdicts[0]["unknown"]) == expected


def test_rules_speak_in_their_order_whether_they_name_a_signature_or_not():
    rules = [rule(id="first"), rule(id="second", signature="0x00050654"), rule(id="third"), rule(id="fourth", signature="0x00050655"),
             rule(id="fifth", signature="0x00050654")]
    assert [each["rule"] for each in policy.Policy(rules).judge(FACTS, CANDIDATE, OPTIONS)] == ["first", "second", "third", "fifth"]


def test_a_retracted_rule_does_not_speak_and_asks_for_no_facts():
    found = policy.Policy([rule("facts.firmware.product == 'x'", retracted="2026-11-01"), rule(id="other")])
    assert [each["rule"] for each in found.judge(FACTS, CANDIDATE, OPTIONS)] == ["other"]
    assert "firmware.product" not in found.paths and len(found.rules) == 2


def test_texts_name_values_and_evaluate_nothing():
    found = policy.Policy([rule(text="From {candidate.from} to {candidate.to}, of {facts.firmware.vendor}\n  in {facts.firmware.product}, "
                                     "after {options.hold_days} days")])
    text = found.judge(facts(firmware__vendor="{candidate.to}\x1b[31m\n{{ 7 * 7 }}" + "x" * 999, firmware__product=["a"]), CANDIDATE, OPTIONS)[0]["text"]
    assert text.startswith("From 0x02006b06 to 0x02007006, of {candidate.to}?[31m {{ 7 * 7 }}xxx")
    assert text.endswith("... in unknown, after 7 days") and len(text) < 200


@pytest.mark.parametrize("path", ["candidate.age_days", "options.today", "facts.gathered", "facts.boot_id"])
def test_no_text_says_what_changes_with_the_time(path):
    with pytest.raises(policy.RuleError, match="rule a-rule .*its text has {%s}: it changes with the time" % path):
        policy.Policy([rule(text="It is {%s}." % path)])


def test_paths_are_all_that_is_read():
    rules = [rule("facts.distro.codename == 'x' || any_of(candidate.to, facts.early.kernels[*].version) || facts.boot.system == 'grub'"
                  .replace("any_of(candidate.to, facts.early.kernels[*].version)", "contains(facts.early.kernels[*].initrd, 'x')"),
                  text="{facts.firmware.product}", signature="0x1", pf_mask="0x1")]
    assert policy.Policy(rules).paths - set(policy.READS) == {"distro.codename", "early.kernels[].initrd", "boot.system", "firmware.product"}
    assert {"cpu.signature", "cpu.pf_mask"} <= policy.Policy(rules).paths


# --- reading them ---

def test_the_collections_rules_can_be_read_and_ones_own_stand_in_front():
    shipped = policy.load().rules
    assert len(shipped) > 150 and all(each["source"] and each["added"] for each in shipped)
    mine = policy.load([rule()])
    assert [each["id"] for each in mine.rules] == ["a-rule"] + [each["id"] for each in shipped] and mine.own == [rule()] and policy.load().own == []


def test_rules_from_a_file(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("rules:\n  - id: mine\n    match: >-\n      facts.cpu.tsx\n    effect: note\n    text: Seen.\n    source: us\n    added: 2026-11-01\n")
    assert policy.load(str(path)).rules[0]["id"] == "mine"
    path.write_text(path.read_text().replace("facts.cpu.tsx", "facts.cpu.txs"))
    with pytest.raises(policy.RuleError, match="rule mine .*mine.yml.: .*facts.cpu.txs; is facts.cpu.tsx meant"):
        policy.load(str(path))


@pytest.mark.parametrize("content, said", [
    ("rules: [", "cannot be read as YAML: .*line 2"), ("- id: x", "no mapping with the one key rules"), ("rules: {id: x}", "rules are a list"),
    ("", "no mapping"),
    ("rules: [x]", "x is no rule"), ("rule: []", "no mapping"), ("rules: []\nrules: []", "the key rules is there twice"),
    (b"\xff\xfe\xff", "cannot be read as YAML"),
    ("rules:\n- {id: a, id: b}", "the key id is there twice in one mapping.*line 2"), ("rules: " + "[" * 3000, "cannot be read as YAML"),
    ("rules: [{added: 2026-13-45}]", "cannot be read"), ("rules: " + "[" * 11 + "]" * 11, "line 1 is nested deeper than rules are"),
    ("rules:\n- &a [x, x]\n- [*a, *a]\n", r"line 3 has an alias, \*a, of what is no single value; write it out"), ("rules: &a [*a]", "has an alias"),
    ("rules:\n- {id: &a x, text: &a [x]}\n- *a\n", "line 3 has an alias"), ("rules: []\n" + "#" * (1 << 20), "it is larger than 1024 KiB"),
    ("rules: !!python/object/apply:os.system [id]", "cannot be read as YAML"), ("rules: [{? [a, b] : c}]", "cannot be read as YAML|no key"),
])
def test_a_file_of_rules_that_cannot_be_read_is_an_error_that_names_it(tmp_path, content, said):
    path = tmp_path / "mine.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(policy.RuleError, match=said) as caught:
        policy.load(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_text_of_a_file_may_stand_in_several_rules(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text("rules:\n" + "".join("  - {id: mine-%d, match: facts.cpu.tsx, effect: note, text: %s, source: us, added: 2026-11-01}\n" % each
                                         for each in ((1, "&a Seen."), (2, "*a"))))
    assert [each["text"] for each in policy.load(str(path)).own] == ["Seen.", "Seen."]


@pytest.mark.parametrize("extra, said", [
    ({"id": "x"}, "rules are a list"), ([7], "7 is no rule"), (7, "rules are a list"),
    ("/nowhere/rules.yml", "/nowhere/rules.yml cannot be read: No such file"),
])
def test_what_is_no_list_of_rules_is_an_error(extra, said):
    with pytest.raises(policy.RuleError, match=said):
        policy.load(extra)


def test_without_jmespath_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(policy, "jmespath", None)
    with pytest.raises(policy.RuleError, match="rules need the Python package jmespath"):
        policy.load()


def test_a_copy_without_rules_does_not_take_silence_for_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "RULES", str(tmp_path))
    with pytest.raises(policy.RuleError, match="incomplete"):
        policy.load([rule()])


# --- whatever hosts say ---

SHIPPED = policy.load()
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | st.sampled_from(
    ["0x00050654", "0x80000001", "4.17.7", "2026-11-22", "debian", "Dell Inc.", "GenuineIntel", "AuthenticAMD", "late", "x" * 70000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["vendor", "signature", "revision", "kernels", "xen", "version", "0x1"]), inner, max_size=3), max_leaves=8)


@hypothesis.given(st.dictionaries(st.sampled_from(sorted(FACTS)), VALUES, max_size=6) | VALUES,
                  st.dictionaries(st.sampled_from(sorted(CANDIDATE)), VALUES, max_size=6))
def test_the_rules_judge_anything(found, candidate):
    merged = dict(FACTS, **found) if isinstance(found, dict) else found
    before = copy.deepcopy(merged)
    verdicts = SHIPPED.judge(merged, dict(CANDIDATE, **candidate), OPTIONS)
    assert merged == before and verdicts == SHIPPED.judge(merged, dict(CANDIDATE, **candidate), OPTIONS)
    assert all("\n" not in each["text"] and len(each["text"]) < 2000 for each in verdicts)


def test_a_day_is_a_day():
    assert policy.day("2026-11-22") == policy.day("2026-11-22T14:00:00Z") == datetime.date(2026, 11, 22)
    assert [policy.day(each) for each in ("2026-11-32", "20261122", "2026-11-22 14:00", "", None, 7, "2026-11-22" * 9)] == [None] * 7
