# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action: whose facts it takes, what it refuses with a sentence, what it writes, prints and returns."""
import json
from unittest import mock

import pytest

pytest.importorskip("ansible")
pytest.importorskip("jmespath")

from ansible.errors import AnsibleError, AnsibleFilterError

from ansible_collections.fleet.microcode.plugins.action import microcode_plan as action
from ansible_collections.fleet.microcode.plugins.filter.explain import explain
from ansible_collections.fleet.microcode.plugins.plugin_utils import plan

RULE = {"id": "ours", "match": "facts.firmware.bios_version == '1.0'", "effect": "block", "text": "BIOS 1.0 is too old here.", "source": "handbook",
        "added": "2026-11-01"}


def facts(revision="0x02006b06", bios="2.1", **more):
    return dict({
        "schema": 1, "applicable": True, "kernel": "6.1.0-56-amd64", "tainted": 0, "command_line": [], "warnings": [],
        "cpu": {"vendor": "GenuineIntel", "name": "Intel(R) Xeon(R) Gold 6148", "family": 6, "model": 85, "stepping": 4, "signature": "0x00050654",
                "signatures": ["0x00050654"], "pf_mask": "0x00000080", "online": 2, "present": 2, "offline": [], "unread": 0, "smt": True, "tsx": True,
                "revision": revision, "revisions": {revision: [0, 1]}, "revision_source": "sysfs", "boot_revision": None, "llc_per_core": 1441792},
        "hypervisor": {"role": "none", "type": None, "version": None, "xen": None, "guests": None},
        "early": {"tool": "initramfs-tools", "disabled": False, "xen_ucode": None, "loads": "update", "kernels": []},
        "boot": {"system": "grub", "one_time_entry": True, "why_not": None, "next_entry": None, "reboot_is_kexec": False},
        "late": {"interface": "none", "available": False, "why_not": "the kernel has no late loading", "min_revision_forced": False},
        "files": [{"path": "/lib/firmware/intel-ucode/06-55-04", "revision": "0x02007006", "date": "2023-03-06", "min_revision": "0x02006b06",
                   "sha256": "ab" * 32, "package": "intel-microcode 3.20251111.1~deb12u1", "early_only": False, "caveat": None, "problem": None}],
        "firmware": {"vendor": "Dell Inc.", "product": "PowerEdge R740", "bios_version": bios, "bios_date": "2023-06-04"},
        "distro": {"id": "debian", "family": "debian", "version": "12", "codename": "bookworm", "release": "stable"},
        "vulnerabilities": {"gather_data_sampling": "Vulnerable: No microcode"}, "pending": "0x02007006", "kernel_config": {},
        "gathered": "2026-11-22T13:00:00Z", "boot_id": "b"}, **more)


def host(*args, **variables):
    return dict({"ansible_facts": {"microcode": facts(*args)}}, **variables)


class HostVars(dict):
    """As Ansible's: the brackets evaluate templates, and must not be used for what hosts say; of a host that no inventory has, core 2.19 raises."""

    def raw_get(self, name):
        return dict.__getitem__(self, name)

    def __getitem__(self, name):
        return Evaluated()


class Evaluated:
    """The variables of a host, as templates of the inventory make them."""

    def __getitem__(self, variable):
        if variable == "broken":
            raise AnsibleError("'row' is undefined")
        assert variable == "rack"
        return "evaluated"


def run(hostvars, check_mode=False, lost=(), play=None, **args):
    """(result, printed text) of one run over these hosts' variables."""
    task = mock.Mock(args=args, async_val=0, check_mode=check_mode, diff=False)
    plugin = action.ActionModule(task, mock.Mock(), mock.Mock(check_mode=check_mode), mock.Mock(), mock.Mock(), mock.Mock())
    names = list(hostvars) if play is None else play
    with mock.patch.object(action.display, "display") as shown:
        result = plugin.run(task_vars={"hostvars": HostVars(hostvars), "ansible_play_hosts_all": names,
                                       "ansible_play_hosts": [name for name in names if name not in lost]})
    return result, "\n".join(call.args[0] for call in shown.call_args_list)


def hosts_of(path):
    return {name: each["action"] for name, each in json.loads(path.read_text())["hosts"].items()}


def test_every_host_of_the_play_is_in_and_what_a_cache_has_of_a_lost_one_is_not_used(tmp_path):
    path = tmp_path / "plan.json"
    result, printed = run({"a": host(), "b": host("0x02007006"), "lost": host(), "bare": {}, "none": None}, lost=["lost"], path=str(path))
    assert hosts_of(path) == {"a": "early", "b": "none", "lost": "unknown", "bare": "unknown", "none": "unknown"}
    assert (path.stat().st_mode & 0o777, result["path"], result["changed"]) == (0o600, str(path), False)
    made = json.loads(path.read_text())
    assert result["digest"] == made["digest"] and result["digest"] in printed and str(path) in printed
    assert result["waves"] == [{"wave": 1, "canaries": True, "count": 1, "hosts": ["a"]}]
    kept = result["ansible_stats"]["data"]["microcode_plan"]
    assert (kept["digest"], kept["summary"], plan.read(kept["packed"])) == (made["digest"], result["summary"], made)


def test_a_recorded_fleet_is_planned_without_its_hosts(tmp_path):
    path = tmp_path / "plan.json"
    run({"here": host()}, facts={"there": facts(), "here": facts("0x02007006")}, path=str(path))
    assert hosts_of(path) == {"there": "early", "here": "none"}


def test_the_users_rules_speak_as_a_list_and_as_a_file(tmp_path):
    for rules in ([RULE], str(tmp_path / "rules.yml")):
        (tmp_path / "rules.yml").write_text(json.dumps({"rules": [RULE]}))
        _result, printed = run({"a": host(), "old": host("0x02006b06", "1.0")}, rules=rules)
        assert "blocked: 1" in printed and "BIOS 1.0 is too old here. [ours]" in printed


@pytest.mark.parametrize("args, said", [
    ({"rules": [dict(RULE, match="facts.firmware.bios ==")]}, "ours"),
    ({"rules": [dict(RULE, effect="stop")]}, "ours"),
    ({"rules": "/nonexistent/rules.yml"}, "/nonexistent/rules.yml"),
    ({"rules": 5}, "rules"),
    ({"target": "latest"}, "target: latest"),
    ({"accept": ["ours"]}, "accept: ours"),
    ({"domains": {"rack": "a few"}}, "domains: rack: a few is no number"),
    ({"domains": {"rak": 1}}, "domains: no host has the variable rak"),
    ({"domains": {"broken": 1}}, "domains: the variable broken of a cannot be evaluated: 'row' is undefined"),
    ({"explain": ["xen09"]}, "does not name xen09"),
])
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path, args, said):
    path = tmp_path / "plan.json"
    result, _printed = run({"a": host(broken="{{ row }}")}, path=str(path), **args)
    assert result["failed"] and said in result["msg"] and not path.exists()


def test_domains_come_from_variables_and_only_templates_of_the_inventory_are_evaluated():
    hosts = {"a": host(rack="r1"), "b": host(rack="r1"), "c": host(rack=7), "d": host(rack="{{ x }}"), "e": host(rack="{{ y }}"), "f": host()}
    result, printed = run(hosts, domains={"rack": "1"})
    assert result["summary"]["without_domain"] == {"rack": 1} and "1 host to act on without the variable rack" in printed
    for wave in result["waves"]:
        assert len(set(wave["hosts"]) & {"a", "b"}) < 2 and len(set(wave["hosts"]) & {"d", "e"}) < 2


@pytest.mark.parametrize("how", ["path", "packed", "mapping"])
def test_an_approved_plan_is_gone_on_with(tmp_path, how):
    path = tmp_path / "plan.json"
    hosts = {"a": host(rack="r1"), "b": host(rack="r2"), "c": host(), "d": host("0x02007006")}
    first, _printed = run(hosts, path=str(path), domains={"rack": 1}, rules=[RULE])
    given = {"path": str(path), "packed": first["ansible_stats"]["data"]["microcode_plan"]["packed"], "mapping": json.loads(path.read_text())}[how]
    now = dict(hosts, a=host("0x02007006"), e=host())
    result, printed = run(now, lost=["b"], approved=given, digest=first["digest"], late="allowed", path=str(tmp_path / "again.json"))
    assert all(result[key] == first[key] for key in ("digest", "waves", "summary")) and (tmp_path / "again.json").read_text() == path.read_text()
    assert result["states"] == {"done": {"count": 1, "hosts": ["a"]}, "pending": {"count": 1, "hosts": ["c"]}, "stale": {"count": 1, "hosts": ["b"]},
                                "new": {"count": 1, "hosts": ["e"]}}
    assert "1 done, 1 pending, 1 changed since, and left, 1 not in the plan, and left" in printed and "it was not reached" in printed
    anew, _printed = run(now, lost=["b"], digest=first["digest"], domains={"rack": 1}, rules=[RULE], path=str(tmp_path / "anew.json"))
    assert anew["failed"] and "without facts: 1 host (b), with all that is wanted: 2 hosts (a, d)" in anew["msg"] and not (tmp_path / "anew.json").exists()


def test_a_plan_made_anew_from_the_same_facts_has_the_digest_that_was_approved():
    first, _printed = run({"a": host(), "b": host()})
    again, _printed = run({"b": host(), "a": host()}, digest=first["digest"])
    assert again["digest"] == first["digest"] and again["states"] is None


def test_an_approved_plan_with_another_digest_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    run({"a": host()}, path=str(path))
    result, _printed = run({"a": host()}, approved=str(path), digest="0" * 64)
    assert result["failed"] and "approved was " + "0" * 64 in result["msg"]
    with pytest.raises(AnsibleError, match="digest"):
        run({"a": host()}, approved=str(path))


def test_explained_hosts_are_printed():
    _result, printed = run({"a": host()}, explain=["a"])
    assert "\na: early, at the next boot\nIt runs 0x02006b06, on signature 0x00050654." in printed


def test_check_mode_writes_nothing_and_says_so(tmp_path):
    result, printed = run({"a": host()}, check_mode=True, path=str(tmp_path / "plan.json"))
    assert result["path"] is None and "is not written" in printed and not list(tmp_path.iterdir())


def test_the_page_is_written_beside_the_json(tmp_path):
    paths = {key: str(tmp_path / key) for key in ("path", "page")}
    result, printed = run({"a": host()}, **paths)
    assert {key: result[key] for key in paths} == paths and paths["page"] in printed and result["packed"] is None
    assert (tmp_path / "page").read_text().startswith("<!DOCTYPE html>") and (tmp_path / "page").stat().st_mode & 0o777 == 0o600
    result, _printed = run({"a": host()}, path=paths["path"], page=paths["path"])
    assert result["failed"] and "name two files" in result["msg"]


def test_a_missing_folder_is_an_error_after_the_table(tmp_path):
    result, printed = run({"a": host()}, path=str(tmp_path / "nowhere" / "plan.json"))
    assert result["failed"] and "folder must be there" in result["msg"] and "Microcode plan for 1 host" in printed


def test_the_result_stays_small_for_a_large_fleet():
    found = host()
    result, printed = run({"a-node-with-a-long-name-%05d.example.org" % index: found for index in range(9000)})
    assert [wave["count"] for wave in result["waves"]][:6] == [1, 5, 20, 80, 320, 1280] and result["waves"][0]["hosts"] is None
    packed = result["ansible_stats"]["data"]["microcode_plan"].pop("packed")
    assert result.pop("packed") == packed  # since no file holds the plan
    assert len(json.dumps(result)) < 10000 and len(printed) < 10000 and len(packed) <= action.REPLY


def test_without_jmespath_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(action.policy, "jmespath", None)
    result, _printed = run({"a": host()})
    assert result["failed"] and "the Python package jmespath" in result["msg"]


def test_the_filter_explains_a_plan_that_was_written_and_refuses_one_that_was_edited(tmp_path):
    path = tmp_path / "plan.json"
    run({"a": host()}, path=str(path))
    made = json.loads(path.read_text())
    assert explain(made, "a").startswith("a: early, at the next boot\n")
    made["hosts"]["a"]["to"] = "0x02007007"
    with pytest.raises(AnsibleFilterError, match="was changed after it was made"):
        explain(made, "a")
