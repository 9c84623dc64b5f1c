# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import distro

SID = "PRETTY_NAME=\"Debian GNU/Linux forky/sid\"\nNAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=forky\nID=debian\n"


@pytest.mark.parametrize("release, files, expected", [
    ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', {"/etc/debian_version": "12.11\n"}, ("debian", "debian", "12", "stable")),
    (SID, {"/etc/debian_version": "forky/sid\n", "/etc/apt/sources.list": "deb http://archive.example.org/debian sid main\n"},
     ("debian", "debian", None, "unstable")),
    (SID, {"/etc/debian_version": "forky/sid\n", "/etc/apt/sources.list": "# deb http://archive.example.org/debian sid main\n"
           "deb [signed-by=/usr/share/keyrings/k.gpg] http://archive.example.org/debian testing main\n"}, ("debian", "debian", None, "testing")),
    (SID, {"/etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: http://archive.example.org/debian\nSuites: forky forky-updates\n"},
     ("debian", "debian", None, "testing")),
    (SID, {"/etc/apt/sources.list.d/debian.sources": "Types: deb\nSuites: testing unstable\n"}, ("debian", "debian", None, "unstable")),
    (SID, {"/etc/apt/sources.list": "deb http://archive.example.org/debian testing main\n",  # apt reads no other endings
           "/etc/apt/sources.list.d/sid.list.save": "deb http://archive.example.org/debian sid main\n"}, ("debian", "debian", None, "testing")),
    (SID, {}, ("debian", "debian", None, None)),
    ('ID=debian\nVERSION_ID="12"\n', {"/usr/bin/pveversion": ""}, ("proxmox", "debian", "12", "stable")),
    ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', {}, ("ubuntu", "ubuntu", "24.04", "stable")),
    ('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n', {}, ("linuxmint", "ubuntu", "22", "stable")),
    ("ID=fedora\nVERSION_ID=42\n", {}, ("fedora", "fedora", "42", "stable")),
    ('ID=fedora\nVERSION="44 (Rawhide Prerelease)"\nVERSION_ID=44\n', {}, ("fedora", "fedora", "44", "unstable")),
    ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="8.10"\n', {}, ("rhel", "rhel", "8.10", "stable")),
    ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', {}, ("rocky", "rhel", "9.4", "stable")),
    ('ID="ol"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n', {}, ("ol", "rhel", "9.4", "stable")),
    ('NAME="XCP-ng"\nID="xenenterprise"\nID_LIKE="centos rhel fedora"\nVERSION_ID="8.2.1"\n', {}, ("xcp-ng", "rhel", "8.2.1", "stable")),
    ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n', {}, ("opensuse-leap", "suse", "15.6", "stable")),
    ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\nVERSION_ID="20261120"\n', {}, ("opensuse-tumbleweed", "suse", "20261120", "rolling")),
    ('ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.5"\n', {}, ("sles", "suse", "15.5", "stable")),
    ("ID=arch\nBUILD_ID=rolling\n", {}, ("arch", "arch", None, "rolling")),
    ("ID=alpine\nVERSION_ID=3.20.3\n", {}, ("alpine", "alpine", "3.20.3", "stable")),
    ("ID=gentoo\nVERSION_ID=2.15\n", {}, ("gentoo", "gentoo", "2.15", "rolling")),
    ("ID=stranger\nVERSION_ID=1\n", {}, ("stranger", None, "1", "stable")),
    ("", {}, (None, None, None, None)),
])
def test_distribution_and_release_class(machine, release, files, expected):
    found = distro.facts(machine(dict(files, **{"/etc/os-release": release})))
    assert (found["id"], found["family"], found["version"], found["release"]) == expected


def test_a_release_class_that_cannot_be_told_is_explained(machine):
    host = machine({"/etc/os-release": SID})
    distro.facts(host)
    assert "testing or unstable" in host.warnings[0]


@given(st.text())
def test_any_os_release_is_read(text):
    assert all("\n" not in value for value in distro.fields(text).values())


PATH = "/lib/firmware/intel-ucode/06-55-04"


@pytest.mark.parametrize("files, path, expected", [
    ({"/var/lib/dpkg/info/intel-microcode.list": "/.\n/lib\n%s\n" % PATH,
      "/var/lib/dpkg/status": "Package: bash\nVersion: 5\n\nPackage: intel-microcode\nStatus: install ok installed\nVersion: 3.20251111.1~deb12u1\n\n"},
     PATH, "intel-microcode 3.20251111.1~deb12u1"),
    ({"/var/lib/dpkg/info/intel-microcode.list": "/usr%s\n" % PATH, "/var/lib/dpkg/status": "Package: intel-microcode\nVersion: 3\n"}, PATH,
     "intel-microcode 3"),
    ({"/var/lib/dpkg/info/intel-microcode.list": "/other\n", "/var/lib/dpkg/status": "Package: intel-microcode\nVersion: 3\n"}, PATH, None),
    ({"/var/lib/pacman/local/intel-ucode-20251111-1/files": "%%FILES%%\nusr/\nusr%s\n" % PATH}, "/usr" + PATH, "intel-ucode 20251111-1"),
    ({"/lib/apk/db/installed": "C:Q1\nP:bash\nV:5-r0\nF:bin\nR:bash\n\nC:Q1\nP:intel-ucode\nV:20251111-r0\nF:lib/firmware/intel-ucode\nR:06-55-04\n"}, PATH,
     "intel-ucode 20251111-r0"),
    ({"/var/db/pkg/sys-firmware/intel-microcode-20251111_p20251112/CONTENTS": "dir /lib\nobj %s d41d8cd98f00b204e9800998ecf8427e 1700000000\n" % PATH}, PATH,
     "intel-microcode 20251111_p20251112"),
    ({}, PATH, None),
])
def test_the_package_of_a_file_from_the_records_on_disk(machine, files, path, expected):
    assert distro.packages(machine(files), [path]).get(path) == expected


def test_rpm_is_asked_once_for_all_files_and_a_file_of_no_package_has_none(machine):
    line = "rpm -qf --queryformat %{NAME} %{VERSION}-%{RELEASE}\n /lib/firmware/a /lib/firmware/b"
    host = machine({"/var/lib/rpm": None}, {line: (1, "microcode_ctl 20220809-2.el8\nfile /lib/firmware/b is not owned by any package\n", "")})
    assert distro.packages(host, ["/lib/firmware/b", "/lib/firmware/a"]) == {"/lib/firmware/a": "microcode_ctl 20220809-2.el8"}
    assert host.ran == [line]
