# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is sent of a host becomes its facts, in any shell; what is no answer, or a hostile one, is refused with a reason."""
import shutil
import subprocess

import hypothesis
import hypothesis.strategies as some
import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import facts
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.plugin_utils import tree
from ansible_collections.fleet.microcode.tests.fleet.machine import cpuinfo

SHELLS = [["sh"], ["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]]


def answer(*frames):
    """An answer of frames (kind, name, text)."""
    return tree.START + b"".join(b"%s %d %s\n%s\n" % (kind.encode(), len(text), name.encode(), text) for kind, name, text in frames) + tree.END[1:]


def metal(*more):
    files = {"/proc/cpuinfo": cpuinfo(), "/sys/devices/system/cpu/online": "0-1", "/sys/devices/system/cpu/present": "0-1",
             "/sys/devices/system/cpu/cpu0/microcode/version": "0x2000050", "/sys/devices/system/cpu/cpu1/microcode/version": "0x2000050",
             "/sys/devices/system/cpu/cpu0/microcode/processor_flags": "0x80", "/etc/os-release": 'ID=debian\nVERSION_ID="12"'}
    return answer(("run", "0 id -u", b"0"), *[("file", path, text.encode()) for path, text in files.items()], *more)


def test_a_host_of_a_few_files():
    found = tree.gather(tree.parse(b"Welcome to this machine!\n" + metal()))
    assert (found["cpu"]["signature"], found["cpu"]["pf_mask"], found["cpu"]["revision"]) == ("0x00050654", "0x00000080", "0x02000050")
    assert found["cpu"]["revision_source"] == "sysfs" and found["applicable"] is True and found["hypervisor"]["role"] == "none"
    assert [found[key] for key in ("early", "boot", "files", "pending")] == [None] * 4  # never "current"
    assert found["warnings"] == []


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_any_shell_brings_what_the_readers_find_on_this_machine(shell):
    if not shutil.which(shell[0]):
        pytest.skip("no %s here" % shell[0])
    done = subprocess.run(shell, input=tree.SCRIPT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)
    swept, read = tree.gather(tree.parse(done.stdout)), facts.gather(Host(), tree.SUBSET)
    for each in (swept, read):
        del each["gathered"]
    assert swept == read
    assert done.stderr == b""


def test_a_script_that_breaks_off_runs_nothing():
    for size in range(0, len(tree.SCRIPT) - 60, 97):
        done = subprocess.run(["sh"], input=tree.SCRIPT[:size], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        assert done.stdout == b""


def test_what_cannot_be_read_is_said():
    found = tree.gather(tree.parse(metal(("unread", "/proc/1/environ", b"Permission denied"), ("folder", "/run/libvirt/qemu", b"Permission denied"),
                                         ("folder", "/sys/module/kvm_intel", b""), ("file", "/sys/module/kvm_intel/refcnt", b"2"))))
    assert found["hypervisor"]["role"] == "host" and found["hypervisor"]["guests"] is None
    assert "/proc/1/environ: Permission denied" in found["warnings"] and "/run/libvirt/qemu: Permission denied" in found["warnings"]


def test_a_command_that_hung():
    host = tree.parse(answer(("run", "124 xl info", b""), ("run", "1 xl list", b"no")))
    assert host.run(["xl", "info"]) is None and host.warnings == ["xl info: no end after 10 s; stopped"]
    assert host.run(["/usr/sbin/xl", "list"]) == (1, "no", "") and host.run(["xl", "dmesg"]) is None


@pytest.mark.parametrize("data, said", [
    (b"", "it answered nothing"),
    (b"This account is currently not available.\n", "something else: This account is currently not available."),
    (metal()[:-1], "breaks off"),
    (metal()[:-40], "breaks off"),
    (answer(("file", "/etc/../../root/x", b"")), "no possible name"),
    (answer(("file", "relative", b"")), "no possible name"),
    (answer(("file", "//twice", b"")), "no possible name"),
    (answer(("file", "/", b"")), "no possible name"),
    (answer(("file", "/sys/devices/system/cpu/vulnerabilities/__ansible_vault", b"")), "no possible name"),
    (answer(("run", "x id -u", b"")), "damaged"),
    (tree.START + b"file 99999999 /etc/passwd\nshort\n" + tree.END[1:], "damaged"),
    (tree.START + b"gift 1 /x\n.\n" + tree.END[1:], "damaged"),
    (tree.START + b"".join(b"there 0 /x%d\n\n" % number for number in range(tree.ENTRIES + 2)) + tree.END[1:], "damaged"),
])
def test_what_is_no_answer(data, said):
    with pytest.raises(tree.TreeError, match=said):
        tree.parse(data)


@hypothesis.given(some.lists(some.tuples(some.integers(0, len(metal()) - 1), some.binary(min_size=1, max_size=3)), max_size=8))
def test_a_damaged_answer_is_refused_or_read(spots):
    data = bytearray(metal())
    for at, text in spots:
        data[at:at + len(text)] = text
    try:
        host = tree.parse(bytes(data))
    except tree.TreeError:
        return
    found = tree.gather(host)
    assert not [text for text in found["warnings"] if "internal error" in text]


def test_a_file_that_is_a_folder_too():
    host = tree.parse(answer(("file", "/a", b"x"), ("file", "/a/b", b"y"), ("link", "/l", b"/etc")))
    assert host.text("/a") == "x" and host.names("/a") == ["b"] and host.link("/l") == "/etc" and host.read("/l") is None


def test_a_name_that_is_no_text():
    data = metal().replace(tree.END[1:], b"unread 1 /run/libvirt/qemu/\xff.pid\nx\n" + tree.END[1:])
    assert tree.parse(data).names("/run/libvirt/qemu") == ["\ufffd.pid"]
