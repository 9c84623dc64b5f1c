# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report: one state for each host in the written order of precedence, a table for the terminal, a file for programs."""
import copy
import json
import os
import stat

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils.distro import FAMILIES
from ansible_collections.fleet.microcode.plugins.module_utils.facts import gather
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.plugin_utils import page_posture, report
from ansible_collections.fleet.microcode.tests.fleet import trees

OLD, NEW, NEWEST = "0x02006b06", "0x02007006", "0x02007008"
FACTS = {
    "schema": 1, "gathered": "2026-11-22T14:00:00Z", "applicable": True,
    "cpu": {"vendor": "GenuineIntel", "name": "Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", "family": 6, "model": 85, "stepping": 4,
            "signature": "0x00050654", "revision": OLD, "revisions": {OLD: [0, 1, 2, 3]}, "unread": 0},
    "hypervisor": {"role": "none", "type": None, "xen": None},
    "early": {"tool": "initramfs-tools", "disabled": False, "xen_ucode": None, "loads": "update",
              "kernels": [{"version": "5.10", "initrd": "/boot/other", "revision": NEWEST, "carries": "update", "default": False},
                          {"version": "6.1.0", "initrd": "/boot/initrd.img-6.1.0", "revision": NEW, "carries": "update", "default": True}]},
    "files": [{"path": "/lib/firmware/intel-ucode/06-55-04", "revision": NEW, "sha256": "00"}],
    "vulnerabilities": {}, "pending": NEW, "warnings": [],
}


def facts(**changes):
    """FACTS with some values replaced, named as cpu__revision."""
    made = copy.deepcopy(FACTS)
    for name, value in changes.items():
        *path, last = name.split("__")
        place = made
        for key in path:
            place = place[key]
        place[last] = value
    return made


def good(**changes):
    """What microcode_facts is registered as."""
    return {"changed": False, "ansible_facts": {"microcode": facts(**changes)}}


def files(*revisions):
    return [{"path": "/lib/firmware/%d" % index, "revision": revision, "problem": None if revision else "damaged", "sha256": "00"}
            for index, revision in enumerate(revisions)]


def boots(revision=None, carries="update", image=None, **changes):
    """A host with a newer file and nothing pending; its default initrd carries this."""
    made = good(pending=None, **dict({"early__loads": carries}, **changes))
    made["ansible_facts"]["microcode"]["early"]["kernels"][1].update(revision=revision, carries=carries, image=image)
    return made


XEN = {"hypervisor": {"role": "host", "type": "xen"}}


def fleet(**hosts):
    """(hosts, posture, the table's lines as one text) of {name: registered result}."""
    hosts = {name: report.assess([result]) for name, result in hosts.items()}
    posture = report.posture(hosts)
    return hosts, posture, "\n".join(line for _state, line in report.table(hosts, posture, "2026-11-22T14:00:00Z", 100))


MIXED = {OLD: [0, 1], NEW: [2, 3]}
CURRENT = {"cpu__revision": NEW, "cpu__revisions": {NEW: [0]}, "pending": None}
# In the order of precedence: what a line's host has is also there, where it can be, on the lines below.
PRECEDENCE = [
    ("not_reached", {"unreachable": True, "msg": "Failed to connect to the host via ssh"}, "Failed to connect"),
    ("not_reached", dict(good(), failed=True, msg="broken"), "broken"),
    ("not_reached", None, "results names no variable"),
    ("unknown", {"ansible_facts": {}}, "no microcode facts"),
    ("unknown", good(schema=2, hypervisor__role="guest"), "schema 2"),
    ("not_applicable", good(hypervisor={"role": "guest", "type": "kvm"}, cpu__revisions=MIXED, cpu__revision=None), "guest of kvm"),
    ("not_applicable", good(applicable=False, cpu__vendor="HygonGenuine"), "HygonGenuine"),
    ("unknown", good(hypervisor__role=None, cpu__revisions=MIXED, warnings=["xenfs is not mounted"]), "xenfs is not mounted"),
    ("cpus_differ", good(cpu__revisions=MIXED, cpu__revision=None, cpu__signature=None), "%s on CPUs 0-1; %s on CPUs 2-3" % (OLD, NEW)),
    ("unknown", good(cpu__revision=None, cpu__revisions={}, warnings=["/proc/cpuinfo: odd"]), "no revision is known: /proc/cpuinfo: odd"),
    ("unknown", good(cpu__signature=None), "no signature"),
    ("not_loaded", good(files=files(NEW, NEWEST)), "/boot/initrd.img-6.1.0 carries %s; update-initramfs -u -k 6.1.0 rebuilds it" % NEW),
    ("not_loaded", boots(OLD), "/boot/initrd.img-6.1.0 carries %s; update-initramfs -u -k 6.1.0 rebuilds it" % OLD),
    ("not_loaded", boots(OLD, image="/boot/intel-uc.img"), "/boot/intel-uc.img carries"),
    ("not_loaded", boots(carries="none", early__tool="dracut"), "/boot/initrd.img-6.1.0 carries none for this CPU; dracut -f --kver 6.1.0 rebuilds it"),
    ("not_loaded", boots(OLD, files=[dict(files(NEW)[0], caveat="intel-06-55-04")]), "hold the newer one back: see " + report.CAVEATS % "intel-06-55-04"),
    ("not_loaded", boots(NEW, early__disabled=True, early__loads="none"), "dis_ucode_ldr"),
    ("not_loaded", boots(NEW, early__loads="none"), "without a loader"),
    ("not_loaded", boots(NEW, early__xen_ucode="none", early__loads="none", **XEN), "without ucode=scan"),
    ("not_loaded", boots(carries="none", early__xen_ucode="off", **XEN), "initrd; /boot/initrd.img-6.1.0 carries none"),
    ("not_loaded", boots(OLD, early__xen_ucode="scan", **XEN), "carries " + OLD),
    ("pending_reboot", good(files=None), None),
    ("pending_reboot", good(files=[]), None),
    ("unknown", good(files=None, pending=None), "not read"),
    ("unknown", good(files=files(None), pending=None, warnings=["/other: x", "/lib/firmware/0: wrong checksum"]), ": /lib/firmware/0: wrong checksum"),
    ("unknown", good(files=files(OLD, None), pending=None), "not known"),
    ("unknown", boots(None, None, warnings=["other", "/boot/initrd.img-6.1.0 could not be opened"]), "not known: /boot/initrd.img-6.1.0 could not be opened"),
    ("unknown", boots(NEW, early__loads=None), "what the next boot loads is not known"),  # its options could not be read
    ("unknown", good(pending=None, early=None), "next boot"),
    ("unknown", good(pending=None, early__kernels=[]), "next boot"),
    ("unknown", boots(carries="none", early__xen_ucode="1", early__loads=None, **XEN), "next boot"),
    ("unknown", boots(carries="none", early__xen_ucode=None, early__loads=None, **XEN), "next boot"),
    ("unknown", boots(NEW, early__xen_ucode="none", early__loads=None, warnings=["/boot/xen.gz may have been built to scan for it"], **XEN), "built to scan"),
    ("no_file", good(files=[], pending=None), "package"),
    ("no_file", good(files=[dict(files(None)[0], problem=None)], pending=None), "/lib/firmware/0"),
    ("nothing_newer", good(**CURRENT), None),
    ("nothing_newer", good(pending=None, files=files(OLD)), None),
]


@pytest.mark.parametrize("state, result, because", PRECEDENCE)
def test_state(state, result, because):
    found = report.assess([result])
    assert found["state"] == state
    assert found["because"] == because or because in found["because"]


def test_every_state_has_a_rule_and_a_name():
    assert {state for state, _rule in report.RULES} == set(report.STATES) == {state for state, _result, _because in PRECEDENCE}


def test_revisions_are_compared_as_signed_numbers_for_intel_only():
    negative = {"cpu__revision": "0x8000001b", "cpu__revisions": {"0x8000001b": [0]}}
    assert report.assess([good(**negative)])["state"] == "pending_reboot"
    assert report.assess([good(pending="0x8000001b", files=files("0x8000001b"))])["state"] == "nothing_newer"
    assert report.assess([good(pending=None, cpu__vendor="AuthenticAMD", files=files(NEW), **negative)])["state"] == "nothing_newer"


@pytest.mark.parametrize("text", ["0x", "2007006", "0x1ffffffff", "-0x1", " 0x1", "0x1\n", 0x2007006, True, None, ["0x1"]])
def test_what_is_no_revision_is_not_known(text):
    found = report.assess([good(cpu__revision=text, pending=text)])
    assert (found["state"], found["running"], found["next_boot"]) == ("unknown", None, None)


@pytest.mark.parametrize("result, known", [
    (good(), True), (boots(OLD), True), (boots(carries="none"), True), (boots(NEW, early__disabled=True, early__loads="none"), True),
    (boots(NEW, early__loads=None), False),
    (boots(None, None), False), (good(pending=None, early=None), False), (boots(OLD, early__xen_ucode="1", early__loads=None, **XEN), False),
])
def test_whether_the_next_boot_is_known(result, known):
    assert report.assess([result])["next_boot_known"] is known


def test_the_last_attempt_counts_and_the_first_one_is_told():
    found = report.assess([{"failed": True, "msg": "Missing sudo password"}, good()])
    assert found["state"] == "pending_reboot"
    assert found["notes"] == ["read without becoming root, which failed: Missing sudo password; not all can be read without root"]
    assert report.assess([{"failed": True, "msg": "one"}, {"failed": True, "msg": "two"}])["because"] == "two"


TRACEBACK = '''  File "/home/x/.ansible/tmp/ansible-tmp-1795368981.8329403-6278-73728113572171/AnsiballZ_microcode_facts.py", line 3
    from __future__ import annotations
    ^
SyntaxError: future feature annotations is not defined
'''
CLOSED = "Shared connection to 192.0.2.1 closed.\r\n"
SEE = "MODULE FAILURE\nSee stdout/stderr for the exact error"


@pytest.mark.parametrize("result, because", [
    ({"msg": "Task failed: MODULE FAILURE\nSee stderr", "module_stderr": "line\n/bin/sh: python3: not found\n"},
     "MODULE FAILURE See stderr: line /bin/sh: python3: not found"),
    ({"msg": SEE, "module_stdout": "", "module_stderr": "/bin/sh: 1: sudo: not found\n"}, "MODULE FAILURE: /bin/sh: 1: sudo: not found"),
    # with a terminal, all that the host says comes in stdout
    ({"msg": SEE, "module_stdout": "This account is currently not available.\r\n", "module_stderr": CLOSED},
     "MODULE FAILURE: This account is currently not available."),
    ({"msg": "The module interpreter '/x' was not found.", "module_stdout": "/bin/sh: 1: /x: not found\r\n", "module_stderr": CLOSED},
     "The module interpreter '/x' was not found: /bin/sh: 1: /x: not found"),
    ({"msg": "Module result deserialization failed: No start of json char found", "module_stderr": TRACEBACK}, "Python is too old for this ansible-core"),
    ({"msg": SEE, "module_stdout": TRACEBACK, "module_stderr": CLOSED}, "Python is too old for this ansible-core"),
    ({"msg": SEE, "module_stderr": "warning\n" * 1000 + "the last line"}, "MODULE FAILURE: warning the last line"),
    ({"msg": "sysroot is no folder.", "module_stdout": None, "module_stderr": 3}, "sysroot is no folder"),
    ({}, "the task failed without a message"),
])
def test_a_failed_module_shows_what_it_wrote(result, because):
    found = report.assess([dict(result, failed=True)])["because"]
    assert found == because or "Python" in because and because in found


@pytest.mark.parametrize("changes, remedy", [
    ({}, "; update-initramfs -u -k 6.1.0 rebuilds it"),
    ({"early__tool": "dracut"}, "; dracut -f --kver 6.1.0 rebuilds it"),  # without it dracut rebuilds the running kernel's
    ({"early__tool": "dracut", "boot": {"system": "transactional-update"}}, "; transactional-update initrd rebuilds it"),  # the root is read-only
    ({"early__tool": "dracut", "boot": {"system": "ostree"}}, "; the next deployment brings another initrd"),
    ({"early__tool": "mkinitcpio"}, "; mkinitcpio -P rebuilds it"),
    ({"early__tool": "genkernel"}, ""), ({"early__tool": None}, ""),
])
def test_the_remedy_is_for_the_kernel_that_boots_next(changes, remedy):
    assert report.assess([boots(OLD, **changes)])["because"] == "/boot/initrd.img-6.1.0 carries %s%s" % (OLD, remedy)


def test_an_option_that_the_next_boot_no_longer_has_is_no_obstacle():
    found = report.assess([boots(OLD, early__disabled=True)])  # of the running kernel's command line alone: the next boot loads
    assert found["because"] == "/boot/initrd.img-6.1.0 carries %s; update-initramfs -u -k 6.1.0 rebuilds it" % OLD


@pytest.mark.parametrize("version", ["6.1; reboot", "$(reboot)", "-k all", "6.1\n", "6.1\u0661", "", None, ["6.1"], "6" * 200])
def test_what_people_may_paste_holds_no_more_than_a_version(version):
    result = boots(OLD)
    result["ansible_facts"]["microcode"]["early"]["kernels"][1]["version"] = version
    assert report.assess([result])["because"] == "/boot/initrd.img-6.1.0 carries " + OLD


@pytest.mark.parametrize("distro, vendor, package", [
    ({"id": "debian", "family": "debian"}, "GenuineIntel", "package intel-microcode (component non-free-firmware) installed"),
    ({"id": "rocky", "family": "rhel"}, "AuthenticAMD", "package linux-firmware installed"),
    ({"id": "xcp-ng", "family": "rhel"}, "AuthenticAMD", "package amd-microcode installed"),
    ({"id": "slackware", "family": None}, "GenuineIntel", "package of microcode installed"),
    (None, "GenuineIntel", "package of microcode installed"), ({"id": [], "family": {}}, "GenuineIntel", "package of microcode installed"),
])
def test_a_host_without_a_file_is_told_the_package(distro, vendor, package):
    found = report.assess([good(files=[], pending=None, distro=distro, cpu__vendor=vendor)])
    assert found["state"] == "no_file" and package in found["because"]


def test_every_family_of_distributions_has_its_package():
    assert set(FAMILIES) <= set(report.PACKAGES)


@pytest.mark.parametrize("name, short", [
    ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", "Xeon Gold 6148"), ("Intel(R) Xeon(R) CPU E5-2697 v4 @ 2.30GHz", "Xeon E5-2697 v4"),
    ("AMD EPYC 7763 64-Core Processor", "EPYC 7763"), ("13th Gen Intel(R) Core(TM) i7-1370P", "Core i7-1370P"),
    ("AMD Ryzen 7 PRO 4750U with Radeon Graphics", "Ryzen 7 PRO 4750U"), ("Intel(R) Core(TM)2 Duo CPU     E8400  @ 3.00GHz", "Core 2 Duo E8400"),
    ("AMD Opteron(tm) Processor 6376", "Opteron 6376"), ("INTEL(R) XEON(R) PLATINUM 8581C CPU @ 2.10GHz", "XEON PLATINUM 8581C"),
    ("", "06-55-04"), (None, "06-55-04"), ("(R)", "06-55-04"),
])
def test_short_name(name, short):
    assert report.assess([good(cpu__name=name)])["cpu"] == short


def recorded(name, folder, change=None):
    """The state of a recorded host, its facts read from its tree after a change to what it is made of."""
    spec = trees.hosts()[name]
    (change or (lambda spec: None))(spec)
    trees.build(spec, folder / "tree")
    return report.assess([{"ansible_facts": {"microcode": gather(Host(str(folder / "tree")))}}])


def without_milan(spec):
    """An AMD container, and an initrd, without a patch for this processor: usual with processors for clients."""
    spec["kernels"][0]["carries"] = ["genoa-1148"]
    spec["packages"][0]["files"]["amd-ucode/microcode_amd_fam19h.bin"] = ["genoa-1148"]


def xen(version):
    """Xen without ucode=scan."""
    return lambda spec: spec["hypervisor"].update(version=version, options="")


@pytest.mark.parametrize("name, change, state, because", [
    ("kvm-milan1", None, "pending_reboot", None),
    ("kvm-milan1", without_milan, "no_file", "/lib/firmware/amd-ucode/microcode_amd_fam19h.bin holds none for it"),
    ("xen-node1", None, "pending_reboot", None),
    ("xen-node1", xen("4.17.5"), "not_loaded", "without ucode=scan"),
    ("xen-node1", xen("4.21.0"), "unknown", "built to scan"),  # what a build of 4.21 does without the option, it alone knows
    ("debtest-broken", None, "unknown", "checksum"),
    ("ct-lxc", None, "not_applicable", "lxc"),
])
def test_facts_as_they_are_read(tmp_path, name, change, state, because):
    found = recorded(name, tmp_path, change)
    assert found["state"] == state
    assert found["because"] == because or because in found["because"]


def test_hosts_alike_share_a_row_and_what_to_act_on_comes_first():
    hosts, posture, text = fleet(a=good(), b=good(**CURRENT), c=good(cpu__revision=None, cpu__revisions=MIXED), d=good(),
                                 e={"unreachable": True, "msg": "no route"})
    assert posture["states"] == dict(dict.fromkeys(report.STATES, 0), pending_reboot=2, nothing_newer=1, cpus_differ=1, not_reached=1)
    rows = [line.split()[:2] for line in text.splitlines() if line[:1].isalpha()]
    assert [row for row in rows if row[0] in "abcde"] == [["c", "Xeon"], ["e"], ["a", "+1"], ["b", "Xeon"]]
    row = next(line for line in text.splitlines() if line.startswith("a +1"))
    assert row.split()[2:] == ["Xeon", "Gold", "6148", "0x00050654", OLD, NEW, NEW]
    assert "no route" in text
    assert "update pending reboot: 2 hosts" in text
    assert list(hosts) == list("abcde")


def test_the_posture_is_never_cut():
    hosts = {"%s-%d" % (index, copies): report.assess([result]) for index, (_state, result, _because) in enumerate(PRECEDENCE) for copies in range(300)}
    counts = report.posture(hosts)
    text = " ".join(line.strip() for _state, line in report.table(hosts, counts, "now", 70)[1:8])
    assert all("%s: %d" % (name, counts["states"][state]) in text for state, name in report.STATES.items())


def test_guests_show_no_revision():
    hosts, _posture, text = fleet(vm=good(hypervisor={"role": "guest", "type": "kvm"}))
    assert [hosts["vm"][key] for key in ("running", "at_hand", "next_boot")] == [None] * 3
    assert OLD not in text and NEW not in text and "n/a" in text


def test_missing_microcode_is_counted_from_what_the_kernel_says():
    said = {"gather_data_sampling": "Vulnerable: No microcode", "mds": "Vulnerable: Clear CPU buffers attempted, no microcode; SMT vulnerable",
            "spectre_v2": "Vulnerable", "retbleed": "Mitigation: IBRS", "old_microcode": "Vulnerable",
            "spec_rstack_overflow": "Vulnerable: Microcode, no safe RET"}  # the microcode is there, the kernel's part is not (hw-vuln/srso)
    _hosts, posture, text = fleet(a=good(vulnerabilities=said), b=good(vulnerabilities={"gather_data_sampling": "Vulnerable: No microcode"}),
                                  vm=good(vulnerabilities=said, hypervisor__role="guest"), c=good(vulnerabilities={"mds": None, "x": 3}))
    assert posture["vulnerable"] == {"hosts": 2, "names": {"gather_data_sampling": 2, "mds": 1, "old_microcode": 1}}
    assert "2 hosts vulnerable for want of newer microcode" in text


def test_warnings_are_shown_once():
    _hosts, posture, text = fleet(a=good(warnings=["/boot/x: Permission denied"]), b=good(warnings=["/boot/x: Permission denied"]),
                                  c=good(cpu__revision=None, cpu__revisions={}, warnings=["only reason"]))
    assert text.count("Permission denied") == 1 and "warning (2 hosts): /boot/x" in text
    assert text.count("only reason") == 1
    assert posture["warnings"] == 3


def test_thousands_of_hosts_stay_readable_and_none_is_lost():
    results = {"node%04d" % index: good(cpu__name="Model %d" % (index % 40)) for index in range(2000)}
    hosts, posture, text = fleet(**results)
    assert len(text.splitlines()) < 40
    assert "... and 1250 hosts more" in text  # 40 rows of 50 hosts, 15 shown
    assert posture["hosts"] == len(json.loads(report.document(hosts, posture, "now"))["hosts"]) == 2000


@pytest.mark.parametrize("width", [70, 79, 160])
def test_lines_fit_the_terminal_and_names_are_whole(width):
    long_name = "a-host-with-a-long-name.in.a.long.domain.example.com"
    hosts = {long_name: report.assess([good(cpu__name="x" * 80, warnings=["word " * 200])]), "b": report.assess([good()])}
    lines = [line for _state, line in report.table(hosts, report.posture(hosts), "now", width)]
    assert any(line.startswith(long_name) for line in lines)
    assert max(len(line) for line in lines) <= width


HOSTILE = "\x1b[2J\x1b]0;x\x07\x9b31m\u202eoff\r\nx\u2028y\x00\x7f"


def assert_printable(hosts):
    text = report.table(hosts, report.posture(hosts), "now", 79)
    assert all(line.isprintable() for _state, line in text)
    written = report.document(hosts, report.posture(hosts), "now")
    assert written.isascii() and written.replace("\n", "").isprintable()
    json.loads(written)
    made = page_posture.render(hosts, report.posture(hosts), "now")
    assert made.isascii() and made.replace("\n", "").isprintable()


def test_control_characters_reach_neither_terminal_nor_file():
    every = good(cpu__name=HOSTILE, warnings=[HOSTILE], vulnerabilities={HOSTILE: "Vulnerable: no microcode" + HOSTILE}, files=files(None))
    every["ansible_facts"]["microcode"]["files"][0]["path"] = HOSTILE
    assert_printable({HOSTILE: report.assess([every]), "b": report.assess([{"failed": True, "msg": HOSTILE, "module_stderr": HOSTILE}]),
                      "c": report.assess([good(hypervisor={"role": "guest", "type": HOSTILE})]), "d": report.assess([good(schema=HOSTILE)]),
                      "e": report.assess([good(applicable=False, cpu__vendor=HOSTILE)])})


ODD = [None, True, -1, 1.5, float("nan"), "", "text", HOSTILE, [], [None], [[1]], {}, {"a": 1}, {1: 2}, {"0x1": None}, "0xffffffff", b"bytes", object()]


def places(value, path=()):
    """Where in FACTS something could stand that should not."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, path + (key,))


# a host of each kind whose reason is made of what it says
KINDS = {"pending": good(), "not loaded": boots(OLD, boot={"system": "grub"}), "no file": good(files=[], pending=None, distro={"id": "x", "family": "debian"}),
         "held back": boots(OLD, files=[dict(files(NEW)[0], caveat="intel-06-55-04")]), "failed": dict(good(), failed=True, msg="m", module_stderr="e")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: type(odd).__name__)
def test_no_value_anywhere_breaks_the_report(odd, kind):
    hosts = {}
    for path in places({"r": dict({"failed": False, "msg": ""}, **KINDS[kind])}):
        result = {"r": copy.deepcopy(KINDS[kind])}
        place = result
        for key in path[:-1]:
            place = place[key]
        if path:
            place[path[-1]] = odd
        hosts[str(path)] = report.assess([result.get("r")])
    for warning in (HOSTILE, "x"):
        hosts[warning] = report.assess([odd, good(warnings=[warning, odd])])
    assert_printable(hosts)


def test_deep_nesting_is_cut():
    deep = []
    for _level in range(5000):
        deep = [{"deeper": deep}]
    assert json.dumps(report.assess([good(files=deep)])["facts"])


def test_the_file_is_whole_private_and_replaces(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(0o644)
    hosts = {"a": report.assess([good()])}
    report.write(str(path), report.document(hosts, report.posture(hosts), "now"))
    found = json.loads(path.read_text())
    assert found["schema"] == 1 and found["gathered"] == "now" and found["posture"]["hosts"] == 1
    assert found["hosts"]["a"]["state"] == "pending_reboot" and found["hosts"]["a"]["facts"] == FACTS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(str(tmp_path)) == ["report.json"]


def test_a_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "other").write_text("precious")
    (tmp_path / "report.json").symlink_to("other")
    report.write(str(tmp_path / "report.json"), "new")
    assert (tmp_path / "other").read_text() == "precious"
    assert (tmp_path / "report.json").read_text() == "new" and not (tmp_path / "report.json").is_symlink()


def test_what_cannot_be_written_says_why(tmp_path):
    with pytest.raises(report.ReportError, match="folder must be there"):
        report.write(str(tmp_path / "nowhere" / "report.json"), "new")
    with pytest.raises(report.ReportError, match="no regular file"):
        report.write(str(tmp_path), "new")
    os.mkfifo(str(tmp_path / "pipe"))
    with pytest.raises(report.ReportError, match="no regular file"):
        report.write(str(tmp_path / "pipe"), "new")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "report.json").write_text("old")

    def full(handle):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(report.ReportError, match="No space left"):
        report.write(str(tmp_path / "report.json"), "new")
    assert os.listdir(str(tmp_path)) == ["report.json"] and (tmp_path / "report.json").read_text() == "old"
