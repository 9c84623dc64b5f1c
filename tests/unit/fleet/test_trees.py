# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The recorded hosts: what the builder makes, and what the facts say of it."""
import os
import subprocess
import sys

import pytest
import yaml

from ansible_collections.fleet.microcode.plugins.module_utils import facts
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.tests.fleet import trees

HOSTS = trees.hosts()
# every kind of machine that a first assessment must get right
DISTRIBUTIONS = {"debian-12", "debian-13", "debian-testing", "debian-sid", "ubuntu-22.04", "ubuntu-24.04", "fedora-43", "fedora-coreos", "rhel-8", "rocky-9",
                 "alma-9", "sles-15.5", "microos", "arch", "alpine-3.22", "gentoo", "proxmox-8", "xcp-ng-8.3"}
ROLES = {("metal", None), ("dom0", "pv"), ("dom0", "pvh"), ("kvm-host", "libvirt"), ("kvm-host", "proxmox"), ("guest", "xen"), ("guest", "kvm"),
         ("guest", "vmware"), ("guest", "hyper-v"), ("container", "lxc"), ("container", "docker")}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Every recorded host, built once."""
    folder = tmp_path_factory.mktemp("fleet")
    trees.build_all(folder)
    return folder


@pytest.mark.parametrize("name", sorted(HOSTS))
def test_the_facts_say_what_is_true_of(name, fleet):
    host = Host(str(fleet / name))
    found = facts.gather(host, ["all"])
    assert trees.differences(HOSTS[name]["expect"], found) == [], "warnings: %s" % host.warnings
    assert "internal error" not in " ".join(host.warnings)
    for path, value in HOSTS[name].get("not_yet", {}).items():
        assert trees.differences({path: value}, found), "%s is found now: move it from not_yet to expect" % path


def test_no_kind_of_machine_is_missing():
    machines = [spec.get("hypervisor", {"is": "metal"}) for spec in HOSTS.values()]
    kinds = set((said["is"], next((said[key] for key in ("manager", "of", "engine", "mode") if key in said), None)) for said in machines)
    assert ROLES - kinds == set()
    assert DISTRIBUTIONS - set(spec["distro"] for spec in HOSTS.values()) == set()
    assert any(spec["cpu"].get("revisions") for spec in HOSTS.values()), "no host with revisions that differ"
    assert any(spec["cpu"].get("offline") for spec in HOSTS.values()), "no host with an offline CPU"
    assert any(spec.get("arch") == "aarch64" for spec in HOSTS.values()), "no host of another architecture"
    assert any(spec.get("damage") for spec in HOSTS.values()), "no host with a broken microcode file"
    assert any("packages" not in spec for spec, said in zip(HOSTS.values(), machines) if said["is"] == "metal"), "no host without a microcode package"
    assert all(len(spec["about"]) > 20 and len(spec["expect"]) >= 4 for spec in HOSTS.values())


def test_the_trees_stay_small_and_nothing_in_them_leads_out(fleet):
    size = 0
    for base, folders, files in os.walk(str(fleet)):
        for name in folders + files:
            place = os.path.join(base, name)
            size += os.lstat(place).st_size if name in files else 0
            assert os.path.realpath(place).startswith(os.path.realpath(str(fleet)) + os.sep), place
    assert size < 3 << 20


def test_building_twice_makes_the_same(fleet, tmp_path):
    """Facts, digests and plans made of a recorded host must not change from one day to the next."""
    again = trees.build(HOSTS["xen-node3"], tmp_path / "xen-node3")
    for place in again.rglob("*"):
        if place.is_file():
            assert place.read_bytes() == (fleet / "xen-node3" / place.relative_to(again)).read_bytes(), place


def test_the_inventory_reads_every_tree_through_its_sysroot(fleet):
    children = yaml.safe_load((fleet / "inventory.yml").read_text())["all"]["children"]
    assert set(children["recorded"]["hosts"]) == set(HOSTS)
    for variables in children["recorded"]["hosts"].values():
        assert os.path.isfile(variables["assess_sysroot"] + "/etc/os-release")
    assert children["this_machine"]["hosts"] == {"localhost": {}}
    assert "xen-node1" in children["xen"]["hosts"]


def test_as_a_program_it_builds_into_a_folder_of_ones_own(tmp_path):
    run = subprocess.run([sys.executable, trees.__file__, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert run.returncode == 0, run.stdout
    assert (tmp_path / "out" / "arch-desk" / "boot" / "intel-ucode.img").is_file()


def test_a_spec_of_ones_own(tmp_path):
    """Three lines are enough, and everything else follows from them."""
    trees.build({"distro": "debian-12", "cpu": {"kind": "gold-6148", "revision": 0x2000065},
                 "kernels": [{"version": "6.1.0-56-amd64", "running": True, "carries": []}]}, tmp_path / "mine")
    found = facts.gather(Host(str(tmp_path / "mine")), ["all"])
    assert trees.differences({"cpu.revision": "0x02000065", "cpu.online": 40, "hypervisor.role": "none", "pending": None}, found) == []


@pytest.mark.parametrize("expect, said", [
    ({"a.b": 2}, "a.b: expected 2, found 1"), ({"a.c": None}, "a.c: expected None, is not there"), ({"l.0.v": 3}, "l.0.v: expected 3, found 1"),
    ({"l.*": {"v": 3}}, "l.*: expected {'v': 3}, found [{'v': 1, 'w': 1}, {'v': 2}]"), ({"l.2": {}}, "l.2: expected {}, is not there"),
    ({"w.*": "odd"}, "w.*: expected 'odd', found ['a text']"), ({"n.*": 1}, "n.*: expected 1, found None"),
])
def test_a_difference_is_named(expect, said):
    assert trees.differences(expect, {"a": {"b": 1}, "l": [{"v": 1, "w": 1}, {"v": 2}], "w": ["a text"], "n": None}) == [said]


def test_what_is_as_expected_is_no_difference():
    assert trees.differences({"a.b": 1, "l.*": {"v": 1}, "w.*": "text", "n": None}, {"a": {"b": 1}, "l": [{"v": 1, "w": 1}], "w": ["a text"], "n": None}) == []


def test_numbers_of_cpus_are_written_as_the_kernel_does():
    assert trees.ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert trees.ranges([]) == ""
