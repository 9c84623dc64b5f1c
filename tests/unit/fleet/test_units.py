# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Transient units and shutdowns of a simulated host, and the initrds that package managers of all kinds leave."""
import pytest

from ansible_collections.fleet.microcode.tests.fleet import simulated, trees


@pytest.fixture
def make(tmp_path):
    """make(name of a recorded host, offered packages) -> simulated.Host."""
    def build(name="deb12-web1", offered=()):
        one = simulated.make(tmp_path / name, dict(trees.hosts()[name], simulate={"offered": dict(offered)}))
        try:
            one.ssh("true")
        except simulated.Unavailable as exc:
            pytest.skip(str(exc))
        return one
    try:
        yield build
    finally:
        simulated.stop_all(tmp_path)


def test_a_unit_outlives_who_started_it_and_is_gone_when_it_is_done(make):
    one = make()
    one.ssh("mkfifo", "/tmp/go")
    said = one.ssh("systemd-run", "--unit=mine", "--setenv=ASKED=yes", "sh", "-c", "read line </tmp/go; echo $line $ASKED $USER. >/tmp/done")
    assert said.stderr == "Running as unit: mine.service\n"
    assert one.ssh("systemctl", "is-active", "mine").stdout == "active\n"
    one.sh("echo went >/tmp/go")
    one.wait(lambda: one.ssh("systemctl", "is-active", "mine", check=False).returncode == 3, "it does not end")
    assert one.sh("cat /tmp/done") == "went yes .\n"  # nothing of the environment of who started it
    one.ssh("systemd-run", "--unit=mine", "true")


def test_a_timer_starts_its_unit_once_the_time_is_over_unless_it_is_stopped(make):
    one = make()
    said = one.ssh("systemd-run", "--on-active=1ms", "--unit=soon", "touch", "/tmp/soon")
    assert said.stderr == "Running timer as unit: soon.timer\nWill run service as unit: soon.service\n"
    one.ssh("systemd-run", "--quiet", "--on-active=1h", "--unit=late", "touch", "/tmp/late")
    one.wait(lambda: one.ssh("test", "-e", "/tmp/soon", check=False).returncode == 0, "it does not start")
    assert one.ssh("systemctl", "is-active", "late.timer").stdout == "active\n"
    one.ssh("systemctl", "stop", "late.timer")
    one.wait(lambda: "late.service" not in one.machine.state()["units"], "the timer's unit is still there")
    assert one.ssh("systemctl", "is-active", "late.timer", check=False).returncode == 3


def test_a_failed_unit_is_told_of_until_it_is_collected_or_reset(make):
    one = make()
    one.ssh("systemd-run", "--quiet", "--wait", "--collect", "false", check=False)
    assert one.ssh("systemctl", "is-system-running").stdout == "running\n"
    assert one.ssh("systemd-run", "--quiet", "--wait", "--unit=bad", "sh", "-c", "exit 7", check=False).returncode == 7
    assert one.ssh("systemctl", "is-system-running", check=False).stdout == "degraded\n"
    assert "Result=exit-code" in one.ssh("systemctl", "show", "bad").stdout
    one.ssh("systemctl", "reset-failed", "bad")
    assert one.ssh("systemctl", "is-system-running").stdout == "running\n"


def test_a_unit_may_run_no_longer_than_it_is_told(make):
    one = make()
    done = one.ssh("systemd-run", "--quiet", "--wait", "--property=RuntimeMaxSec=10ms", "sleep", "600", check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("how", [["systemctl", "reboot"], ["shutdown", "-r", "now"], ["reboot"],
                                 ["systemd-run", "--on-active=1ms", "systemctl", "reboot"]], ids=" ".join)
def test_a_reboot_ends_all_units_and_begins_anew(make, how):
    one = make()
    one.ssh("systemd-run", "--quiet", "--unit=mine", "sleep", "600")
    before = one.boot_id()
    one.ssh(*how, check=False)
    one.wait(lambda: one.boot_id(check=False) not in (None, before), "it does not boot")
    assert one.machine.state()["units"] == {}


def test_a_shutdown_that_waits_can_be_called_off_and_a_poweroff_stays_off(make):
    one = make()
    assert one.ssh("shutdown", "-r", "+5").stderr.startswith("Reboot scheduled for ")
    one.ssh("shutdown", "-c")
    assert one.machine.state()["units"] == {} and one.machine.state()["power"] == "on"
    one.ssh("shutdown", "-h", "now", check=False)
    assert one.silent() and one.machine.state()["power"] == "off"


@pytest.mark.parametrize("name, package, files, install, image, carried", [
    ("rocky9-app1", "microcode_ctl", {"intel-ucode/06-6a-06": ["icx-404"]}, "dnf -y upgrade microcode_ctl", None, "0x0d000404"),
    ("sles15-hana", "ucode-intel", {"intel-ucode/06-3f-02": ["hsx-43"]}, "zypper --non-interactive update ucode-intel", None, "0x00000043"),
    ("arch-desk", "intel-ucode", {"/boot/intel-ucode.img": ["adl-437"]}, "pacman -Syu --noconfirm", "/boot/intel-ucode.img", "0x00000437"),
    ("alpine-router", "intel-ucode", {"/boot/intel-ucode.img": ["adln-1e"]}, "apk add -u intel-ucode", "/boot/intel-ucode.img", "0x0000001e")])
def test_what_a_package_manager_installs_is_in_what_is_booted(make, name, package, files, install, image, carried):
    """Revisions that differ from the recorded ones, so that nothing but the installation can have brought them."""
    one = make(name, {package: {"version": "99:1-1" if "-" in trees.hosts()[name]["packages"][0]["version"] else "99", "files": files}})
    one.sh(install)
    facts = one.facts()
    kernels = [each for each in facts["early"]["kernels"] if each["default"] or each["running"]]
    assert [(each["image"], each["revision"]) for each in kernels] == [(image, carried)]
    assert facts["files"][0]["revision"] == carried and facts["files"][0]["package"].startswith(package + " ")
    again = one.sh("%s; ls -l --time-style=full-iso /boot" % install)
    assert again.splitlines()[-1] == one.sh("ls -l --time-style=full-iso /boot").splitlines()[-1]
