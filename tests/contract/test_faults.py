# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Faults of simulated hosts, as Ansible meets them; its own modules run unchanged."""
import os

import pytest

from ansible_collections.fleet.microcode.tests.fleet import simulated, trees
from ansible_collections.fleet.microcode.tests.fleet.driven import Lost

OLD, NEW = "0x02000050", "0x02007006"
LINUX = "Debian GNU/Linux"  # GRUB's entry without Xen


def test_a_cpu_that_hangs_at_a_revision_does_not_come_back_from_a_reboot_and_does_after_a_reset(machine):
    one = machine("bookworm-xen", faults=["ucode-hang=" + NEW])
    one.ssh("grub-reboot", LINUX)
    done = one.ansible("ansible.builtin.reboot", {"reboot_timeout": 3, "connect_timeout": 1}, check=False)
    assert "Timed out" in done["msg"] and done["rebooted"] is True
    assert one.silent() and one.events()[-1]["result"] == "hang"
    one.reset()
    facts = one.facts()
    assert (facts["hypervisor"]["type"], facts["cpu"]["revision"], facts["boot"]["next_entry"]) == ("xen", OLD, None)


def test_ansible_reboots_a_host_that_comes_back_with_what_its_initrd_carries(machine):
    one = machine("bookworm-dracut")
    before = one.facts()
    done = one.ansible("ansible.builtin.reboot")
    after = one.facts()
    assert done["rebooted"] is True and before["boot_id"] != after["boot_id"]
    assert after["cpu"]["revision"] == NEW


def test_ansible_installs_a_package_and_the_next_boot_has_its_microcode(machine):
    one = machine("bookworm-dracut", kind="sapphire-rapids")
    older = one.facts()["cpu"]["revision"]
    done = one.ansible("ansible.builtin.package", {"name": "intel-microcode", "state": "latest"})
    assert done["changed"] is True
    newer = one.facts()["pending"]
    assert newer > older
    assert one.ansible("ansible.builtin.package", {"name": "intel-microcode", "state": "latest"})["changed"] is False
    one.reboot()
    assert one.facts()["cpu"]["revision"] == newer


def test_ansible_copies_into_the_hosts_own_tree(machine, tmp_path):
    one = machine("bookworm-dracut")
    (tmp_path / "note").write_text("said\n")
    done = one.ansible("ansible.builtin.copy", {"src": str(tmp_path / "note"), "dest": "/etc/note", "mode": "0600"})
    assert done["changed"] is True and (one.folder / "root/etc/note").read_text() == "said\n"
    assert one.ansible("ansible.builtin.copy", {"src": str(tmp_path / "note"), "dest": "/etc/note", "mode": "0600"})["changed"] is False


def test_nothing_of_this_machine_can_be_changed_from_within(machine):
    one = machine("bookworm-dracut")
    for path in ("/.simulated/usr/bin", "/.simulated/fleet", "/.simulated/collections/ansible_collections/fleet/microcode"):
        done = one.ssh("touch", path + "/mine", check=False)
        assert done.returncode != 0 and "Read-only file system" in done.stderr
    mode = os.stat("/dev/full").st_mode
    done = one.ssh("chmod", "0600", "/dev/full", check=False)
    assert done.returncode != 0 and os.stat("/dev/full").st_mode == mode
    one.sh("echo gone >/dev/null; head -c 8 /dev/urandom >/dev/null")
    assert one.sh("cat /proc/sys/kernel/hostname").strip() == one.name


def test_a_module_is_killed_when_it_has_put_a_file_in_its_place(machine):
    one = machine("bookworm-dracut")
    one.fault(kill={"file": "/etc/note", "text": "said"})
    done = one.ansible("ansible.builtin.copy", {"content": "said", "dest": "/etc/note"}, check=False)
    assert done["rc"] == 137 and one.sh("cat /etc/note") == "said"
    assert one.ansible("ansible.builtin.copy", {"content": "said", "dest": "/etc/note"})["changed"] is False


def test_a_late_load_through_sysfs_hangs_until_it_is_released_or_lies(machine):
    one = machine("bookworm-late")
    one.fault(load={"hangs": True})
    one.ssh("systemd-run", "--quiet", "--unit=load", "sh", "-c", "echo 1 | tee /sys/devices/system/cpu/microcode/reload")
    assert one.ssh("systemctl", "is-active", "load").stdout == "active\n" and set(one.revisions().values()) == {OLD}
    one.fault(load={"lies": True})
    one.wait(lambda: one.ssh("systemctl", "is-active", "load", check=False).returncode == 3, "it still hangs")
    assert set(one.revisions().values()) == {OLD}
    one.fault(load=None)
    one.sh("echo 1 | tee /sys/devices/system/cpu/microcode/reload")
    assert set(one.revisions().values()) == {NEW}


def test_a_reboot_into_an_initrd_that_is_cut_does_not_come_back_and_does_after_a_reset_with_the_old_entry(machine):
    one = machine("bookworm-late")
    old = one.sh("uname -r").strip()
    one.sh("truncate -s -100 /boot/initrd.img-6.1.0-56-amd64")
    one.ssh("grub-reboot", "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-56-amd64")
    done = one.ansible("ansible.builtin.reboot", {"reboot_timeout": 3, "connect_timeout": 1}, check=False)
    assert "Timed out" in done["msg"] and done["rebooted"] is True
    assert one.silent() and "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)" in one.console
    one.reset()
    assert one.sh("uname -r").strip() == old and one.facts()["boot"]["next_entry"] is None


def test_a_lost_host_answers_nothing_until_it_is_found_again(machine):
    one = machine("bookworm-dracut")
    one.network(False)
    done = one.ansible("ansible.builtin.ping", check=False)
    assert done["unreachable"] is True and "timed out" in done["msg"]
    one.network(True)
    assert one.ansible("ansible.builtin.ping")["ping"] == "pong"


def test_a_host_is_lost_after_so_many_operations(machine):
    one = machine("bookworm-dracut")
    one.fault(unreachable={"after": one.operations + 2})
    one.ssh("true")
    one.ssh("true")
    with pytest.raises(Lost, match="timed out"):
        one.ssh("true")


def test_a_cut_connection_loses_the_answer_and_not_what_was_begun(machine):
    one = machine("bookworm-dracut")
    one.fault(cut=one.operations + 1)
    with pytest.raises(Lost):
        one.sh("echo done >/root/done")
    one.wait((one.folder / "root/root/done").exists, "the command did not go on")


def test_a_full_disk_is_full_for_tools_and_for_python(machine):
    one = machine("bookworm-xen")
    one.fault(full={"/boot": 0})
    before = one.sh("ls -l /boot")
    done = one.ssh("sh", "-c", "update-initramfs -u", check=False)
    assert done.returncode == 1 and "No space left on device" in done.stderr
    assert one.sh("ls -l /boot") == before
    script = "import os; print(os.statvfs('/boot').f_bavail, os.statvfs('/').f_bavail > 0); open('/boot/x', 'w', buffering=1).write('x\\n')"
    done = one.ssh("python3", "-c", script, check=False)
    assert done.stdout == "0 True\n" and "No space left on device" in done.stderr


def test_a_command_fails_as_often_as_it_should(machine):
    one = machine("bookworm-xen")
    one.fault(commands={"update-grub": {"status": 3, "stderr": "no\n", "times": 1}})
    done = one.ssh("update-grub", check=False)
    assert (done.returncode, done.stderr) == (3, "no\n")
    assert one.ssh("update-grub", check=False).returncode == 0


def test_a_refused_update_changes_nothing(machine):
    one = machine("bookworm-late", faults=["ucode-refuse=" + NEW])
    one.ssh("sh", "-c", "echo 1 | tee /sys/devices/system/cpu/microcode/reload", check=False)
    assert set(one.revisions().values()) == {OLD} and one.facts()["cpu"]["revision"] == OLD


def test_a_host_that_does_not_come_back_is_silent_whatever_it_boots(machine):
    one = machine("bookworm-dracut")
    one.fault(boots=False)
    one.ssh("systemctl", "reboot", check=False)
    assert one.silent()
    one.fault(boots=None)
    one.reset()
    assert not one.silent()


def test_every_recorded_host_boots_its_newest_kernel(tmp_path):
    fleet = simulated.build_all(tmp_path / "fleet")
    try:
        for name, one in fleet.items():
            one.reset()
            kernels = one.machine.state()["spec"].get("kernels") or [{"version": one.machine.state()["boot"]["kernel"]}]
            assert (name, one.sh("uname -r").strip()) == (name, kernels[0]["version"])
    finally:
        simulated.stop_all(tmp_path / "fleet")


def test_a_count_makes_that_many_hosts_which_share_nothing(tmp_path):
    spec = dict(trees.hosts()["deb12-web1"], count=12, vars={"rack": "r1"})
    fleet = simulated.build_all(tmp_path / "fleet", {"web": spec})
    assert sorted(fleet) == ["web-%02d" % number for number in range(1, 13)]
    try:
        fleet["web-01"].write("/etc/mine", "1")
        assert not (fleet["web-02"].folder / "root/etc/mine").exists()
        for name in ("web-01", "web-02"):
            assert fleet[name].sh("cat /etc/machine-id") == trees.machine_id(name) + "\n"
    finally:
        simulated.stop_all(tmp_path / "fleet")


def test_what_runs_on_a_host_ends_with_it(machine):
    one = machine("bookworm-dracut")
    one.sh("setsid sh -c 'while :; do date >/root/alive; sleep 1; done' >/dev/null 2>&1 &")
    alive = one.folder / "root/root/alive"
    one.wait(alive.exists, "it does not run")
    one.reset()
    alive.unlink(missing_ok=True)
    one.ssh("true")
    with pytest.raises(Lost):
        one.wait(alive.exists, "it is gone", 3)
