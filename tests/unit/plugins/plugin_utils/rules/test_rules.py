# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rules against what their sources say: incidents that must be refused or required, and near misses that must not.

The verdicts in the YAML files beside this one are written by hand. Keys of a scenario, all optional:
  name, base (of BASES; bare)
  cpu: signature and platform mask ("906eb/02", "906eb/" where the mask is not known), or an AMD signature without a mask
  from, to, start: revisions: what runs, what is staged, what the path sets out from (as from); path: early or late
  carried: what the running kernel's initrd has (nothing)
  facts, candidate, options: {dotted name: value} put over the base's, the candidate's and the operator's
  says: {rule: effect} of all that speak, unknown: {rule: a path that it would have to know}; both are all that may be said
  action: what is decided, with the candidate's file at hand; changes: what the decision says that it brings, takes and closes
  misses: [the same keys, put over this scenario's; says, unknown, action and changes are their own]
"""
import copy
import itertools
import os

import pytest
import yaml

from ansible_collections.fleet.microcode.plugins.plugin_utils import decide, policy

HERE = os.path.dirname(__file__)
BASES = {
    "bare": {
        "schema": 1, "gathered": "2026-11-22T14:00:00Z", "boot_id": "0f0e", "applicable": True, "kernel": "6.12.57",
        "kernel_config": {"MICROCODE": "y", "MICROCODE_LATE_LOADING": "y"}, "command_line": [], "tainted": 0,
        "distro": {"id": "nobodys", "family": None, "version": "1", "codename": None, "release": "stable"},
        "cpu": {"vendor": "GenuineIntel", "name": "a CPU", "family": 6, "smt": True, "tsx": False, "llc_per_core": 1441792, "online": 4, "present": 4,
                "offline": [], "unread": 0, "revision_source": "sysfs"},
        "hypervisor": {"role": "none", "type": None, "version": None, "guests": None, "xen": None},
        "early": {"tool": "initramfs-tools", "disabled": False, "xen_ucode": None},
        "boot": {"system": "grub", "reboot_is_kexec": False, "one_time_entry": True, "why_not": None, "next_entry": None},
        "late": {"interface": "sysfs", "available": True, "why_not": None, "min_revision_forced": False},
        "firmware": {"vendor": "Some Vendor", "product": "A Board", "bios_version": "1.0", "bios_date": "2020-01-01"},
        "vulnerabilities": {}, "pending": None, "warnings": [],
    },
}
BASES["xen"] = dict(
    BASES["bare"], distro={"id": "debian", "family": "debian", "version": "12", "codename": "bookworm", "release": "stable"},
    hypervisor={"role": "host", "type": "xen", "version": "4.17.7", "guests": {"count": 0, "states": {}},
                "xen": {"dom0": "pv", "physical_cpus": 4, "command_line": "ucode=scan", "ucode": "scan", "tool": "/usr/sbin/xen-ucode",
                        "tool_features": [], "livepatches": []}},
    early=dict(BASES["bare"]["early"], xen_ucode="scan"), late={"interface": "xen-ucode", "available": True, "why_not": None, "min_revision_forced": None},
    cpu=dict(BASES["bare"]["cpu"], llc_per_core=None, revision_source="xen-ucode"))
USUAL = {"cpu": "50654/01", "from": 0x02006b06, "to": 0x02007006}  # a transition that no rule minds


def corpus():
    """[(name, case)] of all scenarios and their misses."""
    for name in sorted(name for name in os.listdir(HERE) if name.endswith(".yml")):
        with open(os.path.join(HERE, name), encoding="utf-8") as stream:
            for number, scenario in enumerate(yaml.safe_load(stream)["scenarios"], 1):
                misses = scenario.pop("misses", [])
                label = "%s %d %s" % (name, number, scenario.pop("name", None) or scenario.get("cpu", ""))
                yield label, scenario
                shared = {key: value for key, value in scenario.items() if key not in ("says", "unknown", "action", "changes")}
                for count, miss in enumerate(misses, 1):
                    yield "%s, miss %d" % (label, count), dict(shared, **miss)


def hex8(number):
    return None if number is None else "0x%08x" % number


def put(target, values):
    for name, value in values.items():
        *keys, last = name.split(".")
        place = target
        for key in keys:
            place = place[key]
        place[last] = value


def made(case):
    """(facts, candidate, options) of a case."""
    case = dict(USUAL, **case) if "cpu" not in case else dict({"from": 1, "to": 2}, **case)
    facts = copy.deepcopy(BASES[case.get("base", "bare")])
    signature, slash, mask = case["cpu"].partition("/")
    number, revision = int(signature, 16), hex8(case["from"])
    file = "/lib/firmware/" + ("intel-ucode/file" if slash else "amd-ucode/file.bin")
    candidate = {"path": case.get("path", "early"), "from": revision, "to": hex8(case["to"]), "date": "2024-01-01", "age_days": 400, "file": file,
                 "min_revision": revision if slash else None, "early_only": False, "sha256": "0f" * 32, "package": None,
                 "start": hex8(case["start"]) if "start" in case else revision}
    facts["cpu"].update(vendor="GenuineIntel" if slash else "AuthenticAMD", signature=hex8(number), signatures=[hex8(number)],
                        family=(number >> 8 & 15) + (number >> 20 if number >> 8 & 15 == 15 else 0), model=number >> 4 & 15 | number >> 12 & 0xf0,
                        stepping=number & 15, pf_mask=hex8(int(mask, 16)) if mask else None, revision=revision, revisions={revision: [0, 1, 2, 3]})
    put(facts, case.get("facts", {}))
    changes = {key: hex8(value) if isinstance(value, int) and not isinstance(value, bool) else value for key, value in case.get("candidate", {}).items()}
    candidate.update((key, value) for key, value in changes.items() if key != "caveat")
    kernel = {"version": "6.12.57", "initrd": "/boot/initrd", "image": None, "running": True, "default": True,
              "revision": hex8(case.get("carried")), "carries": "update" if case.get("carried") else "none"}
    facts["early"].update(kernels=[kernel], loads=kernel["carries"])
    facts["files"] = [{"path": candidate["file"], "revision": candidate["to"], "problem": None, "caveat": changes.get("caveat"),
                       **{key: candidate[key] for key in ("date", "min_revision", "sha256", "package", "early_only")}}]
    return facts, candidate, dict({"late": "never", "guests": "none", "hold_days": 0, "accept": [], "target": "newest_staged", "today": "2026-11-22"},
                                  **case.get("options", {}))


def said(rules, case):
    """(what speaks, what is not known) of a case."""
    verdicts = rules.judge(*made(case))
    return ({each["rule"]: each["effect"] for each in verdicts if not each["unknown"]}, {each["rule"]: each["unknown"] for each in verdicts if each["unknown"]})


def holds(rules, case):
    """Whether the rules say of a case what its source says, all of it and no more."""
    speaks, unknown = said(rules, case)
    wanted = case.get("unknown", {})
    return speaks == case.get("says", {}) and set(unknown) == set(wanted) and all(wanted[rule] in unknown[rule] for rule in wanted)


CORPUS = list(corpus())
JUDGED = [(name, case) for name, case in CORPUS if "action" not in case or "says" in case or "unknown" in case]
DECIDED = [(name, case) for name, case in CORPUS if "action" in case]


def ids(cases):
    return [name for name, case in cases]


@pytest.fixture(scope="module")
def rules():
    return policy.load()


@pytest.mark.parametrize("case", [case for name, case in JUDGED], ids=ids(JUDGED))
def test_the_rules_say_what_their_sources_say(rules, case):
    speaks, unknown = said(rules, case)
    assert speaks == case.get("says", {})
    assert set(unknown) == set(case.get("unknown", {}))
    assert all(path in unknown[rule] for rule, path in case.get("unknown", {}).items())


@pytest.mark.parametrize("case", [case for name, case in DECIDED], ids=ids(DECIDED))
def test_the_decision_is_the_one_the_source_asks_for(rules, case):
    facts, candidate, options = made(case)
    decision = decide.decide(rules, facts, options)
    assert decision["action"] == case["action"], decision
    assert {key: decision[key] for key in case.get("changes", {})} == case.get("changes", {})


@pytest.mark.parametrize("rule", [rule["id"] for rule in policy.load().rules])
def test_without_any_one_rule_a_scenario_turns_red(rules, rule):
    fewer = policy.Policy([each for each in rules.rules if each["id"] != rule])
    named = [(name, case) for name, case in JUDGED if rule in itertools.chain(case.get("says", {}), case.get("unknown", {}))]
    assert named and not all(holds(fewer, case) for name, case in named)
