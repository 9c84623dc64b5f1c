# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rollout over simulated hosts: it stops by itself, says why, and the next run does what is left."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from ansible_collections.fleet.microcode.tests.fleet import driven, simulated, trees

NEW = "0x02007006"
KIND = "xen-node1"  # a Xen host of Debian stable, whose file is one of those known to work late
BROKEN = "Failed to update microcode. (err: Input/output error)"


@pytest.fixture
def fleet():
    """make(count) -> Fleet of hosts that are alike, so that one is the canary of all."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rollout-"))
    made = []

    def make(count=3):
        spec = trees.hosts()[KIND]
        spec = dict(spec, cpu=dict(spec["cpu"], sockets=1, cores=2, threads=1, vcpus=2), hypervisor=dict(spec["hypervisor"], physical=2),
                    simulate=dict(spec.get("simulate", {}), python=os.environ.get("FLEET_MICROCODE_HOST_PYTHON")))
        for number in range(1, count + 1):
            made.append(simulated.make(folder / "hosts" / ("node%d" % number), dict(spec, name="node%d" % number)))
        return Fleet(folder, made)
    try:
        yield make
    finally:
        for one in made:
            simulated.stop_all(one.folder.parent)
        shutil.rmtree(str(folder), ignore_errors=True)


class Fleet:
    """Hosts, their plan and the record of the last rollout."""

    def __init__(self, folder, hosts):
        self.folder, self.hosts = folder, {host.name: host for host in hosts}
        self.paths = {"plan_path": str(folder / "plan.json"), "rollout_path": str(folder / "rollout.json"), "rollout_page": str(folder / "rollout.html")}

    def roll(self, *arguments, approved=True, check=0, **variables):
        """Run the playbook, with the plan of the last run where there is one; what it printed. check: how it is to end, None for anyhow."""
        variables = dict(dict(self.paths, plan_late="allowed", plan_wave_sizes=[1, 2], early_reboot_timeout=300), **variables)
        if approved and os.path.exists(self.paths["plan_path"]):
            variables.update(rollout_plan=self.paths["plan_path"], rollout_digest=self.plan()["digest"])
        done = driven.run(list(self.hosts.values()), self.folder, "ansible-playbook", "fleet.microcode.rollout", "-e", json.dumps(variables), *arguments)
        assert check is None or done.returncode == check, done.stdout[-6000:] + done.stderr
        return done.stdout

    def plan(self):
        return json.loads(pathlib.Path(self.paths["plan_path"]).read_text())

    def record(self):
        """{host: what became of it}."""
        found = json.loads(pathlib.Path(self.paths["rollout_path"]).read_text())
        return {name: each["state"] for name, each in found["hosts"].items()}

    def waves(self):
        return [wave["hosts"] for wave in self.plan()["waves"]]

    def runs(self):
        """{host: whether every CPU runs the new revision}."""
        return {name: set(host.revisions().values()) == {NEW} for name, host in self.hosts.items()}


def test_wave_by_wave_everybody_gets_there_and_the_next_run_touches_nobody(fleet):
    one = fleet(4)
    said = one.roll("-l", "all")
    canary, second, third = one.waves()
    assert [len(each) for each in (canary, second, third)] == [1, 1, 2] and all(one.runs().values())
    lines = re.findall(r"^Wave .*", said, re.M)
    assert len(lines) == 3 and "canaries" in lines[0] and "so far done 2, not begun 2" in lines[2]
    assert set(one.record().values()) == {"done"} and not os.path.exists(one.paths["rollout_path"] + ".lock")
    assert {name: host.operations for name, host in one.hosts.items()} == {name: 3 for name in one.hosts}  # facts, the load, facts
    assert "Microcode rollout over 4 hosts" in pathlib.Path(one.paths["rollout_page"]).read_text()
    before = {name: host.operations for name, host in one.hosts.items()}
    again = one.roll()
    assert "changed=1" not in again and "4 done already" in again
    assert {name: host.operations - before[name] for name, host in one.hosts.items()} == {name: 1 for name in one.hosts}  # its facts


def test_a_canary_that_fails_stops_all_and_the_next_run_goes_on(fleet):
    one = fleet(3)
    one.roll("--check")
    assert not any(one.runs().values()) and not os.path.exists(one.paths["rollout_path"])
    for host in one.hosts.values():
        host.fault(load={"fails": BROKEN})
    said = one.roll(check=2, rollout_budget="2")  # as a survey sends it
    (canary,), *others = one.waves()
    assert "a canary stands for all hosts of its kind" in said and one.record() == dict({name: "waiting" for name in sum(others, [])}, **{canary: "failed"})
    assert not any(one.runs().values()) and "begun" not in one.hosts[others[0][0]].sh("ls /var/lib/fleet-microcode 2>/dev/null || true")
    for host in one.hosts.values():
        host.fault(load=None)
    one.roll()
    assert all(one.runs().values()) and set(one.record().values()) == {"done"}


def test_a_host_that_is_lost_in_its_load_stops_what_follows(fleet):
    one = fleet(3)
    order = _planned(one)
    one.hosts[order[0]].fault(cut={"file": "run.json", "text": '"event": "loading"'})
    said = one.roll(check=None)
    assert "was lost in the load" in said and one.record()[order[0]] == "lost" and [one.record()[name] for name in order[1:]] == ["waiting", "waiting"]
    one.hosts[order[0]].fault(cut=None)
    one.roll()
    assert all(one.runs().values())


def _planned(one, **variables):
    """The order of the plan, which is made by this."""
    one.roll(approved=False, rollout_deadline="2020-01-01T00:00:00Z", **variables)
    return sum(one.waves(), [])


def test_a_deadline_that_has_passed_begins_nobody_and_is_no_failure(fleet):
    one = fleet(2)
    order = _planned(one)
    assert one.record() == {name: "waiting" for name in order} and not any(one.runs().values())


def test_a_canary_that_is_lost_before_its_facts_are_read_stops_all(fleet):
    one = fleet(3)
    order = _planned(one)
    one.hosts[order[0]].network(False)
    said = one.roll(check=4)
    assert "does NOT begin" in said and one.record()[order[0]] == "lost"
    assert not any(each for name, each in one.runs().items() if name != order[0])


def test_within_the_budget_it_goes_on_beyond_it_stops(fleet):
    one = fleet(5)
    order = _planned(one)
    one.hosts[order[1]].fault(load={"lies": True})
    one.hosts[order[2]].fault(load={"fails": BROKEN})
    said = one.roll(check=2, rollout_budget="20%")
    assert "2 hosts in trouble, of which the budget allows 1" in said and one.record()[order[4]] == "waiting"
    assert [one.record()[name] for name in order[:3]] == ["done", "failed", "failed"]
    one.roll(check=2, rollout_budget=2)
    assert one.record()[order[4]] == "done"


def test_through_reboots_with_eight_operations_a_hypervisor_and_a_few_to_see_that_it_is_back(fleet):
    one = fleet(2)
    _planned(one, plan_late="never")
    before = {name: host.operations for name, host in one.hosts.items()}
    one.roll()
    assert all(one.runs().values()) and set(one.record().values()) == {"done"}
    assert all(host.operations - before[name] <= 11 for name, host in one.hosts.items())


def test_the_wave_that_stops_it_is_rolled_back_where_the_operator_wants_that(fleet):
    one = fleet(2)
    order = _planned(one, plan_late="never")
    canary = one.hosts[order[0]]
    before = canary.sh("cat /etc/default/grub /etc/default/grub.d/* /boot/grub/grub.cfg | sha256sum")
    canary.fault(refuse=NEW)
    said = one.roll(check=2, rollout_on_stop="roll_back")
    assert "every CPU was to run " + NEW in said and "1 host: rolled back" in said
    assert canary.sh("cat /etc/default/grub /etc/default/grub.d/* /boot/grub/grub.cfg | sha256sum") == before
    assert one.record() == {order[0]: "failed", order[1]: "waiting"} and not any(one.runs().values())


def test_a_limit_does_not_merge_waves(fleet):
    one = fleet(4)
    order = _planned(one)
    said = one.roll("--limit", ",".join([order[3], order[0], order[1]]))
    assert [each.group(1) for each in re.finditer(r"^Wave (\d)", said, re.M)] == ["1", "2", "3"]
    assert one.runs() == {name: name != order[2] for name in order}


def test_what_was_edited_or_approved_otherwise_is_refused(fleet):
    one = fleet(2)
    _planned(one)
    path = pathlib.Path(one.paths["plan_path"])
    assert "has the digest" in one.roll(check=2, rollout_plan=str(path), rollout_digest="0" * 64, approved=False)
    path.write_text(path.read_text().replace(NEW, "0x02007007"))
    assert "was changed after it was made" in one.roll(check=2) and not any(one.runs().values())


BEFORE = """\
- name: Drain
  ansible.builtin.fail:
    msg: cannot be drained
  when: inventory_hostname == '%s'
"""
AFTER = """\
- name: Note
  ansible.builtin.lineinfile:
    path: %s/{{ inventory_hostname }}
    line: "{{ rollout_state }}"
    create: true
    mode: '600'
  delegate_to: localhost
  connection: local
  vars:
    ansible_python_interpreter: %s
"""
CHECK = """\
- name: Ask the monitoring
  ansible.builtin.fail:
    msg: two alarms
"""


def test_the_operators_tasks_and_check_decide(fleet):
    one = fleet(3)
    order = _planned(one)
    tasks = {}
    for name, text in (("before", BEFORE % order[1]), ("after", AFTER % (one.folder, sys.executable)), ("check", CHECK)):
        tasks["rollout_" + name] = str(one.folder / (name + ".yml"))
        (one.folder / (name + ".yml")).write_text(text)
    said = one.roll(check=None, rollout_soak="1", **tasks)
    assert "the operator's check says no: Ask the monitoring: two alarms" in said
    assert one.runs() == {name: name == order[0] for name in order} and (one.folder / order[0]).read_text() == "done\n"
    del tasks["rollout_check"]
    said = one.roll(check=2, **tasks)
    assert "Drain: cannot be drained" in said and one.runs()[order[1]] is False and (one.folder / order[1]).read_text() == "failed\n"


def test_one_machine_under_two_names_is_refused(fleet):
    one = fleet(2)

    class Alias:
        name = "other"
        variables = one.hosts["node1"].variables
    one.hosts["other"] = Alias()
    said = one.roll(check=2, approved=False)
    del one.hosts["other"]
    assert "node1 and other are one machine" in said and not any(one.runs().values())


def test_a_killed_controller_leaves_nothing_that_the_next_run_does_not_end(fleet):
    one = fleet(3)
    order = _planned(one)
    one.hosts[order[0]].fault(load={"hangs": True})
    text = dict(one.paths, rollout_plan=one.paths["plan_path"], rollout_digest=one.plan()["digest"])
    argv = ["ansible-playbook", "-i", str(one.folder / "inventory.json"), "fleet.microcode.rollout", "-e", json.dumps(text)]
    env = dict(os.environ, ANSIBLE_PIPELINING="true", ANSIBLE_CONNECTION_PLUGINS=str(pathlib.Path(driven.__file__).with_name("connection")))
    with open(os.devnull, "w", encoding="utf-8") as null, subprocess.Popen(
            [str(pathlib.Path(sys.executable).with_name(argv[0])), *argv[1:]], stdout=null, stderr=null, stdin=subprocess.DEVNULL, env=env,
            start_new_session=True) as running:
        one.hosts[order[0]].wait(lambda: "loading" in one.hosts[order[0]].sh("cat /var/lib/fleet-microcode/run.json 2>/dev/null || true"), "it does not begin")
        said = one.roll(check=2)
        assert "another rollout goes on here: process %d" % running.pid in said
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    one.hosts[order[0]].fault(load=None)
    one.roll()
    assert all(one.runs().values())
