# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The roles early and rollback: what runs says the processor, which guests there are the host, and what came of it Ansible's own words."""
import hashlib
import json
import re

import pytest

from ansible_collections.fleet.microcode.tests.fleet import made_intel
from ansible_collections.fleet.microcode.tests.lab.test_late import states, with_guests

OLD, NEW, NEWEST = "0x02000050", "0x02007006", "0x02007007"
UPDATE = made_intel.update(revision=0x2007007, min_revision=0x2006b06, date="2024-05-01", data_size=made_intel.fitting(kib=64))
FILE = "/lib/firmware/intel-ucode/06-55-04"
IMAGES = "/var/lib/fleet-microcode/reboot"
EARLY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: fleet.microcode.early
    - ansible.builtin.debug:
        msg: "pending={{ early_reboot_pending | default('unsaid') }} rebooted={{ early_rebooted | default({}) is changed }}"
"""


def decision(one, **more):
    """What a plan would have of this host."""
    digest = one.sh("sha256sum " + FILE).split()[0]
    return dict({"action": "early", "from": OLD, "to": NEW, "file": FILE, "sha256": digest, "guests": "none", "reboot": True, "closes": ["one_hole"]}, **more)


def early(one, said, check=True, look=False, **variables):
    """What Ansible says of the role's run."""
    done = one.play(EARLY, dict({"early_decision": said, "early_reboot_timeout": 900 if one.real else 60}, **variables), check=check, look=look, seconds=1800)
    assert check or done.returncode, done.stdout
    return " ".join(done.stdout.split())


def boots(one):
    """Digests of what boots, and of the file."""
    return one.sh("cat /boot/initrd.img-* /boot/grub/grub.cfg %s | sha256sum" % FILE)


def runs(one, revision):
    return set(one.revisions().values()) == {revision}


def counts(one, name):
    """How far a guest has counted, each time that it said so: a guest that lost its memory begins anew."""
    return [int(text) for text in re.findall(r"%s count=(\d+)" % name, one.sh("cat /var/log/xen/console/guest-%s.log" % name))]


def rollback(one, look=False, **variables):
    """What Ansible says of the playbook's run."""
    return " ".join(one.play("fleet.microcode.rollback", variables, look=look, seconds=1800).stdout.split())


@pytest.fixture
def xen(machine):
    """A Xen host with the guests g1 and g2, and a boot menu as its own tools make it."""
    def make(**options):
        one = machine("bookworm-xen", **options)
        one.sh("update-grub")
        with_guests(one)
        return one
    return make


@pytest.fixture
def linux(machine, tmp_path):
    """(a host with initramfs-tools, what a plan would have of it, the file that the plan names)."""
    one, source = machine("trixie-libvirt"), tmp_path / "06-55-04"
    source.write_bytes(UPDATE)
    one.sh("update-grub")
    return one, decision(one, **{"from": NEW, "to": NEWEST, "sha256": hashlib.sha256(UPDATE).hexdigest()}), str(source)


def test_linux_boots_into_it_once_and_goes_back(linux, tmp_path):
    one, said, source = linux
    before, boot, plan = boots(one), one.boot_id(), tmp_path / "plan.json"
    survey = {"early_source": source, "early_reboot": "if_needed", "early_reboot_timeout": "900", "early_become": "true"}  # all text
    looked = early(one, json.dumps(said), look=True, **survey)
    assert "Would reboot: the next boot loads " + NEWEST in looked and "pending=True rebooted=False" in looked
    assert boots(one) == before and one.boot_id() == boot
    assert "pending=False rebooted=True" in early(one, json.dumps(said), **survey)
    after = one.boot_id()
    assert runs(one, NEWEST) and after != boot and boots(one) != before
    again = early(one, json.dumps(said), **survey)
    assert "pending=False rebooted=False" in again and " changed=0 " in again and one.boot_id() == after

    plan.write_text(json.dumps({"hosts": {one.name: said}}))
    held = boots(one)
    rollback(one, look=True, rollback_plan=str(plan))
    assert boots(one) == held
    back = rollback(one, rollback_plan=str(plan))
    assert boots(one) == before and runs(one, NEWEST)
    assert NEWEST + " runs, and goes on running until the processor is reset" in back and "The next boot loads " + NEW in back
    assert "Open again from then on: one_hole" in back and "still holds" not in back
    again = rollback(one, rollback_plan=str(plan))
    assert " changed=0 " in again and "goes on running" in again
    one.reboot()
    assert runs(one, NEW)


def test_xen_boots_into_it_with_guests_saved_and_restored(xen):
    one = xen()
    said, boot = decision(one, guests="save"), one.boot_id()
    uuids = sorted(each["uuid"] for each in one.ansible("fleet.microcode.hypervisor_guest")["guests"])
    looked = early(one, said, look=True)
    assert "Would reboot: the next boot loads %s; guests: save" % NEW in looked and one.boot_id() == boot and states(one) == {"g1": False, "g2": False}
    far = {name: counts(one, name)[-1] for name in ("g1", "g2")}
    done = early(one, said)
    assert "pending=False rebooted=True" in done and one.boot_id() != boot and runs(one, NEW)
    for name, before in far.items():
        one.wait(lambda name=name, before=before: counts(one, name)[-1] > before, name + " does not go on to count")
        numbers = counts(one, name)
        assert numbers == sorted(set(numbers)), name
    assert states(one) == {"g1": False, "g2": False} and one.sh("ls " + IMAGES) == ""
    assert sorted(each["uuid"] for each in one.ansible("fleet.microcode.hypervisor_guest")["guests"]) == uuids
    again = early(one, said)
    assert " changed=0 " in again and "rebooted=False" in again


def test_without_a_reboot_it_is_said_that_one_is_pending_and_guests_of_an_earlier_run_are_restored(xen):
    one = xen()
    boot = one.boot_id()
    one.ansible("fleet.microcode.hypervisor_guest", {"state": "saved", "name": ["g1"], "folder": IMAGES})
    done = early(one, decision(one), early_reboot="never")
    assert "Reboot pending: the next boot loads " + NEW in done and "pending=True rebooted=False" in done
    assert one.boot_id() == boot and runs(one, OLD) and one.facts()["pending"] == NEW and states(one) == {"g1": False, "g2": False}
    one.ansible("fleet.microcode.hypervisor_guest", {"state": "saved", "name": ["g1"], "folder": IMAGES})
    early(one, decision(one, action="none"))
    assert one.boot_id() == boot and states(one) == {"g1": False, "g2": False}


def test_another_revision_after_the_boot_is_a_failure_with_the_guests_back(machine, xen):
    one = xen(faults=["ucode-refuse=" + NEW])
    done = early(one, decision(one, guests="save"), check=False)
    assert "every CPU was to run %s; the facts say" % NEW in done and "It was logged: " in done
    assert runs(one, OLD) and states(one) == {"g1": False, "g2": False} and one.sh("ls " + IMAGES) == ""


def test_guests_that_are_left_to_the_host_are_waited_for(xen):
    one = xen()
    one.sh("mkdir -p /etc/xen/auto; cp /srv/guests/g[12].cfg /etc/xen/auto")
    boot = one.boot_id()
    assert "rebooted=True" in early(one, decision(one), early_guests="leave")
    assert one.boot_id() != boot and runs(one, NEW) and states(one) == {"g1": False, "g2": False}
