# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The roles early and rollback on simulated hosts: what tests/lab/test_roles.py says, and hosts that go wrong as they are told."""
import json
import pathlib

import pytest

pytest.register_assert_rewrite("ansible_collections.fleet.microcode.tests.lab.test_roles")

from ansible_collections.fleet.microcode.tests.lab import test_roles  # noqa: E402  pylint: disable=wrong-import-position
from ansible_collections.fleet.microcode.tests.lab.test_roles import (  # noqa: E402  pylint: disable=wrong-import-position
    IMAGES, NEW, boots, decision, early, linux, rollback, runs, states, xen)

globals().update((name, value) for name, value in vars(test_roles).items() if name.startswith("test_"))
__all__ = ["linux", "xen"]  # fixtures


def test_a_rollback_without_a_plan_takes_back_all_that_is_kept_and_with_another_nothing(linux, tmp_path):
    one, said, source = linux
    before = boots(one)
    early(one, said, early_source=source, early_reboot="never")
    made, plan = boots(one), tmp_path / "plan.json"
    plan.write_text(json.dumps({"hosts": {one.name: dict(said, to="0x02007008", sha256="00")}}))
    assert " changed=0 " in rollback(one, rollback_plan=str(plan)) and boots(one) == made != before
    back = rollback(one)
    assert boots(one) == before and "goes on running" not in back and one.facts()["pending"] is None


@pytest.mark.parametrize("guests, setup, words", [
    ("none", "true", "There are guests here (g1, g2), and it is not said what becomes of them"),
    ("save", "xl pause g2", "g2: it is paused"),
    ("save", "mkdir -p /etc/xen/auto; cp /srv/guests/g2.cfg /etc/xen/auto", "g2: /etc/xen/auto/g2.cfg has xendomains start it"),
    ("evacuate", "true", "Name a file of tasks in early_evacuate"),
])
def test_where_guests_cannot_be_cared_for_nothing_is_done(xen, guests, setup, words):
    one = xen()
    one.sh(setup)
    before, boot, there = boots(one), one.boot_id(), states(one)
    assert words in early(one, decision(one, guests=guests), check=False)
    assert (boots(one), one.boot_id(), states(one)) == (before, boot, there)


def test_guests_of_a_host_that_was_lost_are_restored_once_it_is_back(xen):
    one = xen()
    if one.real:
        pytest.skip("takes a host that does not come back by itself")
    one.fault(boots=False)
    early(one, decision(one, guests="save"), check=False, early_reboot_timeout=3)
    one.fault(boots=None)
    one.reset()
    assert runs(one, NEW) and states(one) == {}
    one.play("fleet.microcode.resume_guests")
    assert states(one) == {"g1": False, "g2": False} and one.sh("ls " + IMAGES) == ""


def test_guests_are_evacuated_by_the_operators_tasks_and_brought_back_whatever_comes(xen):
    one = xen()
    boot, folder = one.boot_id(), pathlib.Path(one.folder)
    tasks = "- ansible.builtin.command: {cmd: 'xl %s'}\n  loop: [%s]\n"
    (folder / "return.yml").write_text(tasks % ("create --quiet /srv/guests/{{ item }}.cfg", "g1"))
    files = {"early_evacuate": str(folder / "evacuate.yml"), "early_return": str(folder / "return.yml")}
    (folder / "evacuate.yml").write_text(tasks % ("destroy {{ item }}", "g1"))
    assert "Guests are still here" in early(one, decision(one, guests="evacuate"), check=False, **files)
    assert one.boot_id() == boot and states(one) == {"g1": False, "g2": False}
    (folder / "evacuate.yml").write_text(tasks % ("destroy {{ item }}", "g1, g2"))
    assert "rebooted=True" in early(one, decision(one, guests="evacuate"), **files)
    assert one.boot_id() != boot and runs(one, NEW) and states(one) == {"g1": False}


def test_a_guest_that_came_while_the_initrd_was_made_keeps_the_host_from_its_reboot(xen):
    one = xen()
    one.sh("xl destroy g1; xl destroy g2; mkdir -p /etc/grub.d")
    one.write("/etc/grub.d/99_guest", "#!/bin/sh\nxl create --quiet /srv/guests/g1.cfg >/dev/null 2>&1 || true\n")
    one.sh("chmod +x /etc/grub.d/99_guest")
    boot = one.boot_id()
    assert "Guests are still here" in early(one, decision(one), check=False) and one.boot_id() == boot and states(one) == {"g1": False}


def test_guests_that_an_earlier_run_left_saved_are_restored_by_the_rollout_also_where_the_host_is_done(xen, tmp_path):
    one = xen()
    paths = {"plan_path": str(tmp_path / "plan.json"), "rollout_path": str(tmp_path / "rollout.json"), "rollout_page": ""}
    one.play("fleet.microcode.rollout", dict(paths, rollout_deadline="2020-01-01T00:00:00Z"))
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["hosts"][one.name]["action"] == "early"
    one.ansible("fleet.microcode.hypervisor_guest", {"state": "saved", "folder": IMAGES})
    one.ansible("fleet.microcode.microcode_early_load", {"revision": NEW})
    one.reboot()
    assert runs(one, NEW) and states(one) == {}
    done = one.play("fleet.microcode.rollout", dict(paths, rollout_plan=paths["plan_path"], rollout_digest=plan["digest"], early_guests="save")).stdout
    assert "done 1" in done and states(one) == {"g1": False, "g2": False} and one.sh("ls " + IMAGES) == ""
