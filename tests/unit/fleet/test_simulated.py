# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Simulated hosts: what they cannot reach, what becomes of their sessions, boots that fail, folders that are full."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.fleet.microcode.tests.fleet import driven, simulated, trees
from ansible_collections.fleet.microcode.tests.fleet.driven import Lost

KERNEL, INITRD = "/boot/vmlinuz-6.1.0-56-amd64", "/boot/initrd.img-6.1.0-56-amd64"
EVENT = {"file": "run.json", "text": "paused"}
# writes a journal of two events, with a handler of signals that may be told to notes what came, and then says that it has ended
MODULE = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _frame: (open('/root/caught', 'a').write('%d' % number), sys.exit(1)))
open('/root/pid', 'w').write(str(os.getpid()))
for events in ('begun', 'begun paused', 'begun paused resumed'):
    open('/root/new', 'w').write(events)
    os.rename('/root/new', '/root/run.json')
open('/root/ended', 'w').close()
print('ended')
"""


@pytest.fixture
def make(tmp_path):
    """make(name of a recorded host, more of its YAML) -> simulated.Host."""
    def build(name="deb12-web1", **more):
        one = simulated.make(tmp_path / name, dict(trees.hosts()[name], **more))
        try:
            one.ssh("true")
        except simulated.Unavailable as exc:
            pytest.skip(str(exc))
        return one
    try:
        yield build
    finally:
        simulated.stop_all(tmp_path)


@pytest.fixture
def outside(tmp_path):
    """A folder of this machine that is none of a host's business, as links that a host plants would reach it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("mine\n")
    yield folder
    assert sorted(path.name for path in folder.iterdir()) == ["file"] and (folder / "file").read_text() == "mine\n"


# --- what a host can make its controller do ---

@pytest.mark.parametrize("names", ["state.json", "lock", "console.log processor.log state.new", "operations", "starts", "plan.json"])
@pytest.mark.parametrize("target", ["file", "new"])
def test_a_link_in_the_state_is_not_followed(make, outside, names, target):
    one = make()
    plant = "cd /.simulated/state; for name in %s; do rm -f $name; ln -s %s $name; done" % (names, outside / target)
    for act in (lambda: one.sh(plant), one.reset, lambda: one.ssh("true"), one.reboot, lambda: one.fault(cpus=[0]), lambda: one.console, one.events):
        with contextlib.suppress(Lost, OSError, AssertionError):
            act()


def test_what_a_host_writes_into_its_state_makes_no_files_elsewhere_and_starts_no_other_python(make, outside):
    one = make()
    spec = {"files": {"/proc/../../../outside/new": "x", "/run/../../../outside/file": "x"}, "simulate": {"python": str(outside / "new")}}
    one.ssh("python3", "-c", "import json; path = '/.simulated/state/state.json'; state = json.load(open(path)); "
            "state.setdefault('spec', {}).update(%r); json.dump(state, open(path, 'w'))" % spec)
    one.reboot()
    assert one.sh("uname -r") == "6.1.0-56-amd64\n"
    assert one.machine.state()["spec"]["name"] == "deb12-web1"


def test_a_path_of_a_machine_leads_nowhere_else(tmp_path):
    with pytest.raises(ValueError, match="down only"):
        trees.Tree(tmp_path / "root").put("/proc/../../new", "x")


@pytest.mark.parametrize("folder", ["/boot/grub", "/etc", "/proc", "/run", "/var", "/usr/lib"])
def test_a_boot_writes_nothing_through_links_of_the_hosts_tree(make, outside, folder):
    one = make()
    one.ssh("grub-reboot", "0")
    one.kill()
    root = one.folder / "root"
    kept = dict((name, (root / "boot/grub" / name).read_bytes()) for name in ("grubenv", "grub.cfg"))
    for name, data in kept.items():
        (outside / name).write_bytes(data)
    (root / folder[1:]).rename(root / "away")
    (root / folder[1:]).symlink_to(outside)
    with contextlib.suppress(Lost):
        one.reset()
    for name, data in kept.items():
        assert (outside / name).read_bytes() == data
        (outside / name).unlink()


def test_a_pipe_where_a_file_was_keeps_nobody_waiting(make):
    one = make()
    pipes = "/proc/cpuinfo /boot/grub/grubenv /etc/hostname"
    one.sh("rm %s; mkfifo %s" % (pipes, pipes))
    one.reset()
    assert one.sh("cat /etc/hostname") == "deb12-web1\n"
    one.sh("cd /.simulated/state; rm -f console.log; mkfifo console.log")
    with pytest.raises(Lost, match="deb12-web1 does not boot"):
        one.reset()


# --- what a host can reach ---

SUBMOUNT = """
import os, sys
sys.path.insert(0, sys.argv[1])
import namespace
user, group = os.geteuid(), os.getegid()
namespace.call("unshare", "unshare", sum(flag for name, flag in namespace.SPACES if name != "pid"))
namespace.put("/proc/self/setgroups", "deny")
namespace.put("/proc/self/uid_map", "0 %d 1" % user)
namespace.put("/proc/self/gid_map", "0 %d 1" % group)
namespace.call("mount", "mount", b"none", os.fsencode(sys.argv[2] + "/shown/below"), b"tmpfs", 0, None)
namespace.settle({"root": sys.argv[2] + "/root", "name": "x", "mounts": [[sys.argv[2] + "/shown", "/here", "ro"]]})
for path in ("/here/file", "/here/below/file"):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        print("written")
    except OSError as exc:
        print(exc.strerror)
"""


def test_what_is_mounted_below_a_folder_that_is_shown_is_read_only_too(make, tmp_path):
    make()
    (tmp_path / "shown/below").mkdir(parents=True)
    (tmp_path / "root/here").mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", SUBMOUNT, str(trees.HERE), str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "Read-only file system\n" * 2


def test_no_socket_of_this_machine_is_reached_and_the_hosts_own_are(make):
    one = make()
    with socket.socket(socket.AF_UNIX) as name, socket.socket() as port:
        name.bind("\0fleet-microcode-%d" % os.getpid())
        port.bind(("127.0.0.1", 0))
        for each in (name, port):
            each.listen(1)
        script = "import socket\nfor kind, where in ((socket.AF_UNIX, %r), (socket.AF_INET, %r)):\n  try: socket.socket(kind).connect(where)\n" \
                 "  except OSError as exc: print(exc.strerror)\n  else: print('reached')\n" % (name.getsockname(), port.getsockname())
        assert one.ssh("python3", "-c", script).stdout == "Connection refused\n" * 2
    own = "import socket; one = socket.socket(); one.bind(('127.0.0.1', 0)); one.listen(1); socket.create_connection(one.getsockname()); print('reached')"
    assert one.ssh("python3", "-c", own).stdout == "reached\n"


# --- sessions ---

def alive(one):
    """Whether the module's process is there."""
    return one.sh("kill -0 $(cat /root/pid) 2>/dev/null && echo yes || true") == "yes\n"


def has(one, name):
    return (one.folder / "root/root" / name).exists()


@pytest.mark.parametrize("before, journal", [(False, "begun paused"), (True, "begun")])
def test_a_program_is_killed_at_a_point_of_its_own_journal_once(make, before, journal):
    one = make()
    one.fault(kill=dict(EVENT, before=before))
    assert one.ssh("python3", "-c", MODULE, check=False).returncode == 128 + signal.SIGKILL
    assert one.sh("cat /root/run.json") == journal and not has(one, "ended") and not has(one, "caught")
    assert one.ssh("python3", "-c", MODULE).stdout == "ended\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_is_told_to_end_at_a_point_of_its_own_journal(make, number):
    one = make()
    one.fault(kill=dict(EVENT, signal=number))
    assert one.ssh("python3", "-c", MODULE, check=False).returncode == 1
    assert (one.sh("cat /root/run.json"), one.sh("cat /root/caught")) == ("begun paused", "%d" % number)


def test_only_the_file_that_was_named_and_only_what_it_should_hold_count(make):
    one = make()
    for fault in ({"file": "other.json", "text": "paused"}, {"file": "run.json", "text": "released"}):
        one.fault(kill=fault)
        assert one.ssh("python3", "-c", MODULE).stdout == "ended\n"


@pytest.mark.parametrize("terminal, said", [(True, "1"), (False, None)])
def test_a_connection_is_lost_at_a_point_and_a_terminal_with_it(make, terminal, said):
    """Without one the program goes on, and only its words are lost."""
    one = make()
    one.fault(cut=EVENT)
    with pytest.raises(Lost, match="in the middle"):
        one.execute(["python3", "-c", MODULE], terminal=terminal)
    one.wait(lambda: not alive(one), "the program does not end")
    assert has(one, "ended") is not terminal and has(one, "caught") is terminal
    assert said is None or one.sh("cat /root/caught") == said
    assert one.machine.state()["faults"] == {}


def test_a_connection_that_is_lost_at_once_takes_words_that_nobody_reads(make):
    one = make()
    one.fault(cut=one.operations + 1)
    with pytest.raises(Lost, match="in the middle"):
        one.ssh("true", stdin="x" * (1 << 22))


LEAVES = "setsid sh -c 'echo $$ >/root/pid; exec sleep 600' >/dev/null 2>&1 </dev/null & while [ ! -s /root/pid ]; do :; done; "


@pytest.mark.parametrize("setting, stays", [(None, True), (True, False)])
@pytest.mark.parametrize("cut", [False, True])
def test_what_a_session_leaves_running_ends_with_it_where_the_host_says_so(make, setting, stays, cut):
    one = make()
    one.fault(kill_user_processes=setting, cut=one.operations + 1 if cut else None)
    with pytest.raises(Lost) if cut else contextlib.nullcontext():
        one.sh(LEAVES + "sleep 600" * cut)
    if stays:
        one.wait(lambda: alive(one), "it does not run")  # what was begun goes on after the cut
    assert alive(one) is stays


@pytest.mark.parametrize("kind", ["", "--scope"])
def test_a_unit_outlives_the_session_whatever_the_host_says_of_those(make, kind):
    one = make()
    one.fault(kill_user_processes=True, cut=EVENT)
    with pytest.raises(Lost):
        one.sh("systemd-run --quiet --unit=mine " + kind + " sh -c 'echo $$ >/root/pid; exec sleep 600' & "
               "while [ ! -s /root/pid ]; do :; done; exec python3 -c \"" + MODULE.replace("'/root/pid'", "'/root/mine'") + "\"")
    one.wait(lambda: one.sh("kill -0 $(cat /root/mine) 2>/dev/null || echo gone"), "the session does not end")
    name = "mine." + ("scope" if kind else "service")
    assert alive(one) and one.ssh("systemctl", "is-active", name).stdout == "active\n"
    assert one.ssh("systemctl", "show", "--property=MainPID", "--value", name).stdout == one.sh("cat /root/pid")
    one.sh("kill -9 $(cat /root/pid)")
    one.wait(lambda: one.ssh("systemctl", "is-active", name, check=False).returncode == 3, "it is still there")


def test_a_unit_is_stopped_before_it_is_said_to_be_and_sent_the_signal_that_is_asked_for(make):
    one = make()
    program = ("trap 'echo told >>/root/caught; while [ ! -e /root/go ]; do sleep 0.01; done; exit 0' TERM; trap 'echo hup >>/root/caught' HUP; "
               "echo $$ >/root/pid; while :; do sleep 0.01; done")
    one.ssh("systemd-run", "--quiet", "--unit=mine", "sh", "-c", program)
    one.wait(lambda: has(one, "pid") and one.sh("cat /root/pid"), "it does not run")
    one.ssh("systemctl", "kill", "--signal=SIGHUP", "mine")
    one.wait(lambda: has(one, "caught"), "it is not told")
    one.sh("(systemctl stop mine; echo >/root/stopped) >/dev/null 2>&1 &")
    one.wait(lambda: one.sh("cat /root/caught") == "hup\ntold\n", "it is not told")
    assert alive(one) and not has(one, "stopped")
    one.sh("touch /root/go")
    one.wait(lambda: has(one, "stopped"), "it is not said to be")
    assert not alive(one)


def test_who_interrupts_a_command_leaves_nothing_of_it_behind(make, monkeypatch):
    one = make()

    def interrupted(*_arguments):
        one.wait(lambda: (one.folder / "root/root/pid").exists() and (one.folder / "root/root/pid").read_text(), "it does not run")
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(one, "_talk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            one.sh("echo $$ >/root/pid; sleep 600")
    assert not alive(one)


def test_a_host_that_nobody_asks_any_more_ends(make):
    one = make()
    pid = one._running()
    os.utime(str(one.folder / "operations"), (time.time() - 3600,) * 2)
    one.wait(lambda: not one._running(), "it is still there")
    assert one.sh("echo back") == "back\n" and one._running() != pid


# --- boots ---

def test_operations_that_come_at_once_boot_the_host_once(make):
    one = make()
    one.ssh("grub-reboot", "1")
    before = one.machine.state()["boot"]["count"]
    one.ssh("systemctl", "reboot", check=False)
    found = []
    threads = [threading.Thread(target=lambda: found.append(one.boot_id(check=False))) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.machine.state()["boot"]["count"] == before + 1
    assert found == [one.boot_id()] * 4


STUCK = [
    ("rm " + KERNEL, "error: file `/boot/vmlinuz-6.1.0-56-amd64' not found.", "Failed to boot both default and fallback entries."),
    ("rm " + INITRD, "error: file `/boot/initrd.img-6.1.0-56-amd64' not found.", "Kernel panic - not syncing: VFS: Unable to mount root fs"),
    ("truncate -s -100 " + INITRD, "Initramfs unpacking failed: read error", "Kernel panic - not syncing: VFS: Unable to mount root fs"),
    ("truncate -s 600 " + INITRD, "VFS: Cannot open root device \"UUID=", "Kernel panic - not syncing: VFS: Unable to mount root fs"),
    ("truncate -s 0 " + INITRD, "VFS: Cannot open root device \"UUID=", "Kernel panic - not syncing: VFS: Unable to mount root fs"),
    ("rm /boot/grub/grub.cfg", "GNU GRUB", "grub>"), ("echo >/boot/grub/grub.cfg", "GNU GRUB", "grub>")]


@pytest.mark.parametrize("damage, first, last", STUCK, ids=[row[0] for row in STUCK])
def test_a_host_whose_boot_files_are_gone_does_not_come_back_until_they_are(make, damage, first, last):
    one = make()
    one.sh("cp -a /boot /root/kept; " + damage)
    since = len(one.console)
    one.ssh("systemctl", "reboot", check=False)
    assert one.silent()
    assert first in one.console[since:] and last in one.console[since:] and "login:" not in one.console[since:]
    one.kill()
    subprocess.run(["cp", "-a", str(one.folder / "root/root/kept") + "/.", str(one.folder / "root/boot")], check=True)
    one.boot()
    assert not one.silent()


@pytest.mark.parametrize("name, damage, said", [
    ("arch-desk", "rm /boot/loader/entries/*", "No loader found."), ("arch-desk", "rm /boot/intel-ucode.img", "Error loading"),
    ("alpine-router", "rm /boot/vmlinuz-*", "Could not find kernel image"), ("alpine-router", "rm /boot/extlinux.conf", "No DEFAULT or UI"),
    ("rocky9-app1", "rm /boot/vmlinuz-*", "error: file `/vmlinuz-"), ("fedora-build", "truncate -s -1 /boot/initramfs-*", "ZSTD-compressed data"),
    ("rocky9-app1", "rm /boot/loader/entries/*", "login:")])  # the last: the simulation cannot tell, says so and boots what ran
def test_other_loaders_and_initrds_too(make, name, damage, said):
    one = make(name)
    one.sh(damage)
    one.reset() if said == "login:" else one.kill() or one.boot()
    assert one.silent() is (said != "login:") and said in one.console


XEN_ENTRY = ("Advanced options for Debian GNU/Linux (with Xen hypervisor)>Xen hypervisor, version 4.17-amd64>"
             "Debian GNU/Linux, with Xen 4.17-amd64 and Linux 6.1.0-53-amd64")


@pytest.mark.parametrize("damage", ["truncate -s -100 " + INITRD, "rm " + INITRD, "rm " + KERNEL])
def test_xen_restarts_after_a_panic_and_the_entry_for_one_boot_is_used_up(make, damage):
    spec = trees.hosts()["xen-node1"]
    newest = spec["kernels"][0]["version"]
    one = make("xen-node1", kernels=spec["kernels"][:1] + [{"version": "6.1.0-53-amd64", "carries": []}])
    one.sh(damage.replace("6.1.0-56-amd64", "6.1.0-53-amd64"))
    one.ssh("grub-reboot", XEN_ENTRY)
    since = len(one.console)
    one.ssh("systemctl", "reboot", check=False)
    assert one.sh("uname -r") == newest + "\n"
    assert "6.1.0-53" in one.console[since:] and "(XEN) Reboot in five seconds..." in one.console[since:]
    one.sh(damage.replace("6.1.0-56-amd64", newest))
    one.ssh("systemctl", "reboot", check=False)
    assert one.silent()


# --- full folders ---

WRITES = {"write": "with open('%s/new', 'w') as stream: stream.write('x')", "append": "with open('%s/old', 'a') as stream: stream.write('x' * 8192)",
          "copy": "import shutil; shutil.copyfile('/usr/bin/env', '%s/new')"}


@pytest.mark.parametrize("folder", ["/boot", "/var/lib", "/lib/firmware"])
@pytest.mark.parametrize("how", sorted(WRITES))
def test_a_full_folder_takes_nothing_however_it_is_written_to(make, folder, how):
    one = make()
    one.sh("mkdir -p %s; echo old >%s/old" % (folder, folder))
    one.fault(full={folder: 0})
    done = one.ssh("python3", "-c", WRITES[how] % folder, check=False)
    assert done.returncode and "No space left on device" in done.stderr
    done = one.ssh("sh", "-c", "echo more | tee -a %s/new" % folder, check=False)
    assert "No space left on device" in done.stderr


def test_what_is_written_into_a_folder_stays_over_boots_and_when_there_is_room_again(make):
    one = make()
    one.sh("rm /boot/config-*; mkdir /boot/kept; mkfifo /boot/pipe; ln -s kept /boot/link; chmod 0640 " + INITRD)
    one.fault(full={"/boot": 8192, "/boot/kept": 0})
    one.sh("echo first >/boot/kept.1; rm /boot/grub/grubenv")
    assert one.ssh("sh", "-c", "echo no >/boot/kept/x", check=False).returncode
    one.reboot()
    one.sh("echo second >/boot/kept.2")
    one.kill()
    one.boot()
    one.sh("test ! -e /boot/grub/grubenv; echo third >/boot/kept.3")
    one.fault(full=None)
    one.sh("cat /usr/bin/env /usr/bin/env >/boot/large; echo fourth >/boot/kept/x")
    assert one.sh("cat /boot/kept.*") == "first\nsecond\nthird\n" and one.sh("readlink /boot/link; stat -c %a " + INITRD) == "kept\n640\n"
    assert (one.folder / "root/boot/large").stat().st_size > 8192 and os.listdir(str(one.folder / "root/.simulated/full")) == []


# --- what is said of what goes wrong ---

@pytest.mark.parametrize("damage, said", [("mv /.simulated/usr /.simulated/away", "/.simulated/usr is gone"),
                                          ("mv /dev /away; ln -s /tmp /dev", "/dev/null of its own tree leads elsewhere")])
def test_a_host_that_cannot_start_is_named_with_the_reason(make, damage, said):
    one = make()
    one.kill()
    subprocess.run(["sh", "-ec", damage.replace(" /", " %s/" % (one.folder / "root"))], check=True)
    one.boot()
    with pytest.raises(Lost, match="deb12-web1 does not start: " + said):
        one.ssh("true")


def test_a_state_that_is_none_is_said_to_be(make):
    one = make()
    for _time in range(2):  # in the operation that does it, and ever after
        with pytest.raises(Lost, match="deb12-web1: state/state.json"):
            one.sh("echo '{' >/.simulated/state/state.json")


def test_a_module_that_returns_nothing_is_told_as_lost(tmp_path, monkeypatch):
    one = simulated.Host(tmp_path)
    done = subprocess.CompletedProcess([], 4, "ERROR! no such thing\n", "worse\n")
    monkeypatch.setattr(driven.subprocess, "run", lambda *_arguments, **_options: done)
    with pytest.raises(Lost, match="(?s)no such thing.*worse"):
        one.ansible("ansible.builtin.ping", check=False)


def test_as_a_program_it_makes_hosts_and_ends_them(make, tmp_path):
    one = make()
    path = os.pathsep.join([os.environ["ANSIBLE_COLLECTIONS_PATH"]] + sys.path[1:])
    done = subprocess.run([sys.executable, simulated.__file__, "stop", str(tmp_path)], env=dict(os.environ, PYTHONPATH=path), check=False)
    assert done.returncode == 0 and one._running() is None
    assert json.loads((one.folder / "state/state.json").read_text())["power"] == "on"
