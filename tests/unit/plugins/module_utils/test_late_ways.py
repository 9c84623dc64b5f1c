# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Linux and xen-ucode answer to a load, and that one which does not come back keeps nobody."""
import errno
import os
import select
import signal
import subprocess
import sys

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.plugins.module_utils.late_load import sysfs, xen_ucode

PLUGINS = os.path.dirname(os.path.dirname(os.path.dirname(sysfs.__file__)))
LONG = 600  # seconds that nobody waits for
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # whatever runs the tests may have threads


# --- Linux ---

@pytest.fixture
def reload_file(tmp_path, monkeypatch):
    path = tmp_path / "reload"
    path.write_bytes(b"")
    monkeypatch.setattr(sysfs, "RELOAD", str(path))
    return path


def test_linux_is_told_to_load(reload_file):
    assert sysfs.load(Host(), None, LONG) is None and reload_file.read_bytes() == b"1"


@pytest.mark.parametrize("number, words", [
    (errno.ENOENT, "found nothing to load"), (errno.EBUSY, "a CPU is offline"), (errno.EINVAL, "a CPU is offline"),
    (errno.EBADFD, "holds the file to be damaged"), (errno.EIO, "the load was incomplete"), (errno.EPERM, "the kernel refused (Operation not permitted)"),
])
def test_what_linux_answers_is_put_into_words(reload_file, monkeypatch, number, words):
    real = os.write

    def write(fd, data):
        if os.fstat(fd).st_ino == reload_file.stat().st_ino:
            raise OSError(number, os.strerror(number))
        return real(fd, data)
    monkeypatch.setattr(os, "write", write)
    said = sysfs.load(Host(), None, LONG)
    assert words in said and os.strerror(number) in said


def test_a_write_that_is_killed_is_not_taken_for_success(reload_file, monkeypatch):
    real = os.write

    def write(fd, data):
        if os.fstat(fd).st_ino == reload_file.stat().st_ino:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(fd, data)
    monkeypatch.setattr(os, "write", write)
    assert "what the kernel answered is not known" in sysfs.load(Host(), None, LONG)


def test_a_write_that_hangs_is_given_up_and_keeps_nothing_open(reload_file):
    reload_file.unlink()
    os.mkfifo(str(reload_file))  # which hangs until somebody reads
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from module_utils.late_load import sysfs; sysfs.RELOAD = sys.argv[2]; "
            "print(sysfs.load(None, None, 1))")
    reader, writer = os.pipe()  # such as the connection to the watcher of guests
    try:
        done = subprocess.run([sys.executable, "-c", code, PLUGINS, str(reload_file)], stdout=subprocess.PIPE, pass_fds=[writer], timeout=60, check=True)
        os.close(writer)
        assert b"has not come back from the load after 1 s" in done.stdout  # to its end, which it does not reach while anybody has it open
        assert select.select([reader], [], [], 0)[0] and os.read(reader, 1) == b""
    finally:
        os.close(reader)
        with open(str(reload_file), "rb") as fifo:
            written = fifo.read()
    assert written == b"1"  # it still hung


# --- Xen ---

@pytest.mark.parametrize("said, answer", [
    ((0, "", ""), None), ((0, "Microcode already up to date\n", ""), "Microcode already up to date"), ((1, "", ""), "xen-ucode ended with 1"),
    ((1, "", "Failed to update microcode. (err: No such file or directory)\n"), "Failed to update microcode. (err: No such file or directory)"),
    ((0, "", "Failed to update microcode. (err: Invalid argument)\n"), "Failed to update microcode. (err: Invalid argument)"),  # 4.13
])
def test_what_xen_ucode_answers(machine, said, answer):
    host = machine({}, {"xen-ucode /srv/file": said})
    assert xen_ucode.load(host, "/srv/file", LONG) == answer and host.ran == ["xen-ucode /srv/file"]


def test_xen_ucode_that_hangs_is_given_up(tmp_path, monkeypatch):
    tool = tmp_path / "xen-ucode"
    tool.write_text("#!/bin/sh\nexec sleep %d\n" % LONG)
    tool.chmod(0o755)
    host = Host(timeout=LONG)
    monkeypatch.setattr(host, "which", lambda _name: str(tool))
    assert xen_ucode.load(host, "/srv/file", 1) == "xen-ucode gave no answer within 1 s"
    assert "no end after 1 s; stopped" in host.warnings[0] and host.timeout == LONG


@pytest.mark.parametrize("way, command", [(sysfs, "dmesg"), (xen_ucode, "xl dmesg")])
def test_the_log(machine, way, command):
    assert way.log(machine({}, {command: "one\n"})) == "one\n"
    assert way.log(machine({}, {command: (1, "", "no")})) is None and way.log(machine({}, {"other": ""})) is None
