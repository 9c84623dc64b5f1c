# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import os
import sys

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils.host import Host


@pytest.fixture
def live(tmp_path):
    """The machine that runs the tests, with a short patience for commands."""
    return Host("/", timeout=1)


def program(tmp_path, text):
    path = tmp_path / "program"
    path.write_text("#!%s\n%s" % (sys.executable, text))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("target", ["/etc/secret", "../../../../../../etc/secret", "/elsewhere", "/../../../etc/secret"])
def test_links_of_a_captured_tree_stay_inside_it(tmp_path, target):
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/secret").write_text("inside")
    (tmp_path / "root/elsewhere").symlink_to("/etc/secret")
    (tmp_path / "root/link").symlink_to(target)
    assert Host(str(tmp_path / "root")).text("/link") == "inside"


def test_a_folder_that_is_a_link_leads_where_the_machine_itself_would_go(tmp_path):
    (tmp_path / "usr/lib/firmware").mkdir(parents=True)
    (tmp_path / "usr/lib/firmware/file").write_text("here")
    (tmp_path / "lib").symlink_to("usr/lib")
    host = Host(str(tmp_path))
    assert host.text("/lib/firmware/file") == "here"
    assert host.names("/lib/firmware") == ["file"]
    assert host.link("/lib") == "usr/lib"


def test_a_loop_of_links_is_said(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    host = Host(str(tmp_path))
    assert host.text("/a") is None
    assert "symbolic links" in host.warnings[0]


def test_what_is_not_there_is_none_without_a_word(tmp_path):
    host = Host(str(tmp_path))
    assert (host.read("/nothing"), host.names("/nothing"), host.exists("/nothing"), list(host.lines("/nothing"))) == (None, [], False, [])
    assert host.warnings == []


def test_a_fifo_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(str(tmp_path / "fifo"))
    host = Host(str(tmp_path))
    assert host.read("/fifo") is None
    assert host.warnings == ["/fifo: not a regular file"]


def test_a_device_is_not_even_opened(monkeypatch):
    """Opening some devices does something: a tape rewinds."""
    monkeypatch.setattr(os, "open", None)
    live = Host("/")
    assert live.read("/dev/zero") is None
    assert live.warnings == ["/dev/zero: not a regular file"]


def test_a_file_beyond_its_limit_is_refused_rather_than_cut(tmp_path):
    with open(str(tmp_path / "sparse"), "wb") as stream:
        stream.truncate(1 << 30)
    host = Host(str(tmp_path))
    assert host.read("/sparse") is None
    assert "more than 1048576 bytes" in host.warnings[0]
    assert sum(1 for _line in host.lines("/sparse", 1 << 20)) == 256  # 4096 bytes each
    assert host.warnings[1] == "/sparse: far longer than what belongs there; the rest was not read"


def test_a_file_of_sysfs_is_read_though_its_size_is_a_page():
    path, host = "/sys/devices/system/cpu/online", Host()
    assert os.stat(path).st_size > 64
    with open(path) as stream:
        assert host.text(path, 64) == stream.read().strip() != ""
    assert host.warnings == []


def test_an_unreadable_file_is_said(tmp_path):
    (tmp_path / "closed").write_text("x")
    (tmp_path / "closed").chmod(0)
    host, user = Host(str(tmp_path)), os.geteuid()
    if user == 0:  # root reads everything
        os.seteuid(65534)
    try:
        assert host.read("/closed") is None
    finally:
        os.seteuid(user)
    assert host.warnings == ["/closed: Permission denied"]


def test_no_command_runs_for_a_captured_tree(tmp_path):
    host = Host(str(tmp_path))
    marker = tmp_path / "marker"
    assert host.run(["/usr/bin/touch", str(marker)]) is None
    assert not marker.exists()


def test_a_command_answers_with_status_and_both_outputs(live, tmp_path):
    path = program(tmp_path, "import os, sys; print(os.environ['LC_ALL'], sys.stdin.read() == ''); sys.stderr.write('err'); sys.exit(3)")
    assert live.run([path]) == (3, "C True\n", "err")


def test_a_missing_command_is_none_without_a_word(live):
    assert live.run(["no-such-command-here"]) is None
    assert live.warnings == []


@pytest.mark.parametrize("text, reason", [
    ("import signal\nsignal.pause()", "no end after 1 s; stopped"),
    ("import os\nif os.fork(): os._exit(0)\nos.read(os.pipe()[0], 1)", "no end after 1 s; stopped"),  # a child keeps the outputs open
    ("import os\nos.close(1); os.close(2)\nos.read(os.pipe()[0], 1)", "no end after 1 s; stopped"),
    ("while True: print('rubbish' * 1000)", "more than 1048576 bytes of output; stopped"),
])
def test_a_command_that_hangs_or_floods_is_stopped_with_its_children(live, tmp_path, text, reason):
    path = program(tmp_path, text)
    assert live.run([path]) is None
    assert live.warnings == ["%s: %s" % (path, reason)]


def test_a_command_that_cannot_start_is_said(live, tmp_path):
    path = tmp_path / "no-program"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    assert live.run([str(path)]) is None
    assert "No such file" in live.warnings[0]


def test_bytes_that_are_no_text_still_are_read(live, tmp_path):
    path = program(tmp_path, "import os; os.write(1, bytes(range(256)))")
    assert live.run([path]).out.startswith("\0\1\2")
