# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine of the lab: an emulated one that takes microcode, reached over SSH, watched on its console and by its processor's own log."""
import contextlib
import json
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time

from qemu.qmp.legacy import QEMUMonitorProtocol

from ansible_collections.fleet.microcode.tests.fleet.driven import COMMAND, Driven, Lost
from ansible_collections.fleet.microcode.tests.lab import image, processor, workshop

BOOT = 900  # seconds: Xen takes 20 on a quiet machine, minutes on a busy one
FIRMWARE = ["type=0,vendor=Lab,version=1.7,date=04/01/2024", "type=1,manufacturer=Lab,product=Emulated"]


class Reached(Driven):
    """What is driven over SSH, as root: folder, name, address and port are set by those who are."""

    def know(self, made):
        """Take the host key of an image as that of this host."""
        kind, public = (made / "host_key.pub").read_text().split()[:2]
        (self.folder / ("known-" + self.name)).write_text("%s %s %s\n" % (self.name, kind, public))

    def ssh_options(self):
        """Options of ssh: the lab's key alone, and host keys checked."""
        settings = {"IdentitiesOnly": "yes", "BatchMode": "yes", "StrictHostKeyChecking": "yes", "HostKeyAlias": self.name, "GlobalKnownHostsFile": "none",
                    "UserKnownHostsFile": self.folder / ("known-" + self.name), "ConnectTimeout": 15, "ServerAliveInterval": 10}
        return ["-F", "none", "-i", str(image.key())] + [word for item in settings.items() for word in ("-o", "%s=%s" % item)]

    def ssh(self, *argv, check=True, stdin="", seconds=COMMAND):
        """Run a command as root; the finished process (stdout and stderr as text). AssertionError where it fails, unless check is off."""
        words = ["ssh"] + self.ssh_options() + ["-p", str(self.port), "root@" + self.address, "--"] + [shlex.join(map(str, argv))]
        done = subprocess.run(words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", timeout=seconds, check=False)
        assert not check or done.returncode == 0, "exit status %d of %s; it said: %s%s" % (done.returncode, argv, done.stdout[-1000:], done.stderr[-1000:])
        return done

    def variables(self):
        """How Ansible reaches it."""
        return {"ansible_host": self.address, "ansible_port": self.port, "ansible_user": "root",
                "ansible_ssh_common_args": shlex.join(self.ssh_options()), "ansible_python_interpreter": "/usr/bin/python3"}


class Machine(Reached):
    """machine.ssh(...), machine.console, machine.revisions(): see each. Made by the fixture `machine`, which also takes it away."""

    def __init__(self, name, kind="skylake-sp", cpus=2, threads=1, memory=1536, faults=(), revision=None, disk_of=None):
        self.folder, self.name, self.process, self.tries = pathlib.Path(tempfile.mkdtemp(prefix="lab-")), name, None, []  # short: it holds sockets
        made = image.image(name)
        about = image.DESCRIPTION["processors"][kind]
        self.cpus, self.revision = cpus, about["revision"] if revision is None else revision
        with socket.socket() as probe:  # one port as long as the machine lives, as a real machine has one address
            probe.bind(("127.0.0.1", 0))
            self.address, self.port = probe.getsockname()
        self.know(made)
        amd = "platform" not in about
        options = [about["model"], "-hypervisor", "ucode-rev=%#x" % (self.revision << (0 if amd else 32)), "ucode-log=%s" % (self.folder / "processor.log")]
        options += ([] if amd else ["ucode-platform=%d" % about["platform"]]) + list(faults)
        self.argv = [str(processor.qemu()), "-name", name, "-machine", "q35,accel=tcg", "-cpu", ",".join(options), "-m", str(memory),
                     "-smp", "%d,sockets=1,cores=%d,threads=%d" % (cpus, cpus // threads, threads), "-nodefaults", "-display", "none", "-rtc", "base=utc"]
        for port in ("console", "guests"):
            self.argv += ["-chardev", "socket,id={0},path={1}/{0}.socket,server=on,wait=off,logfile={1}/{0}.log,logappend=on".format(port, self.folder),
                          "-serial", "chardev:" + port]
        for text in FIRMWARE:
            self.argv += ["-smbios", text]
        self.argv += ["-qmp", "unix:%s/qmp.socket,server=on,wait=off" % self.folder, "-device", "virtio-rng-pci",
                      "-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:%d-:22" % self.port, "-device", "virtio-net-pci,netdev=net,romfile=", "-boot", "c"]
        for number, each in enumerate([made] + [image.image(other) for other in (disk_of,) if other]):  # a second disk is for a guest
            disk = "disk%d" % number
            workshop.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-u", "-b", each / "disk", disk, str(image.SIZE)], self.folder)
            self.argv += ["-drive", "if=virtio,format=qcow2,file=%s/%s" % (self.folder, disk)]

    # --- power ---

    def start(self):
        """Switch on; returns at once."""
        assert self.process is None, "the machine is on"
        with open(str(self.folder / "qemu.log"), "ab") as log:
            self.process = subprocess.Popen(["nice"] + self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent)

    def kill(self):
        """Cut the power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def reset(self):
        """Press the reset button."""
        self.qmp("system_reset")

    def boot(self):
        """Switch on if off, and wait until it answers; where it does not, once more. Lost."""
        for attempt in (1, 2):
            if self.process is None:
                self.start()
            try:
                return self.wait_up()
            except Lost as exc:
                self.tries.append(str(exc))
                self.kill()
                if attempt == 2:
                    raise
        return None

    def power_cycle(self):
        """Cut the power, switch on again, and wait until it answers."""
        self.kill()
        self.boot()

    def reboot(self, how=("systemctl", "reboot")):
        """Have the machine reboot, and wait until it answers anew."""
        before = self.boot_id()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.ssh(*how, check=False)
        self.wait(lambda: self.boot_id(check=False) not in (None, before), "no other boot answers on SSH")

    # --- what is seen from outside ---

    @property
    def console(self):
        """All that the machine has said on its console, over all boots."""
        return self._log("console")

    @property
    def guests(self):
        """All that its guests have said on theirs."""
        return self._log("guests")

    def _log(self, name):
        path = self.folder / (name + ".log")
        text = path.read_text(errors="replace") if path.exists() else ""
        return re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]|\r", "", text)

    def events(self):
        """Lines of the processor's own log, as dictionaries: see processor/README.md."""
        path = self.folder / "processor.log"
        lines = path.read_text().splitlines(True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def revisions(self):
        """{CPU: revision that it runs}, as the processor itself says."""
        return dict((event["cpu"], event["revision"]) for event in self.events())

    def wait(self, condition, otherwise, seconds=BOOT):
        """Wait until condition() is true; what it was. Lost where it is not in time, or the machine has gone off."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if self.process is None or self.process.poll() is not None:
                raise Lost("%s, and the machine is off. %s" % (otherwise, self.last_words()))
            if time.monotonic() > deadline:
                raise Lost("%s after %d s. %s" % (otherwise, seconds, self.last_words()))
            time.sleep(0.2)

    def wait_console(self, pattern, seconds=BOOT, since=0):
        """The match of a pattern on the console, from this character on."""
        return self.wait(lambda: re.compile(pattern, re.M).search(self.console, since), "the console does not say %r" % pattern, seconds)

    def wait_up(self):
        """Wait until SSH answers; the boot's id."""
        return self.wait(lambda: self.boot_id(check=False), "SSH does not answer")

    def last_words(self):
        """The end of the console and of QEMU's own messages."""
        return "QEMU said:\n%s\nThe console ends with:\n%s" % (self._log("qemu")[-1500:], self.console[-3000:])

    # --- its network and its keys ---

    def qmp(self, command, **arguments):
        """Send QEMU a command; what it answers."""
        monitor = QEMUMonitorProtocol(str(self.folder / "qmp.socket"))
        monitor.connect()
        try:
            return monitor.cmd(command, **arguments)
        finally:
            monitor.close()

    def silent(self):
        """Whether nobody answers, for as long as one would wait for that."""
        with contextlib.suppress(Lost):
            self.wait(lambda: self.boot_id(check=False), "nobody answers", 20)
            return False
        return True

    def network(self, up):
        """Plug the network cable in, or pull it out."""
        self.qmp("set_link", name="net", up=up)


class Guest(Reached):
    """A guest that runs SSH, reached through the machine that it runs on."""

    def __init__(self, machine, name, address, made):
        self.folder, self.name, self.address, self.port, self.host = machine.folder, name, address, 22, machine
        self.know(image.image(made))

    def ssh_options(self):
        hop = ["ssh"] + self.host.ssh_options() + ["-p", str(self.host.port), "-W", "[%h]:%p", "root@" + self.host.address]
        return super().ssh_options() + ["-o", "ProxyCommand=" + shlex.join(hop)]

    def wait_up(self):
        """Wait until SSH answers."""
        self.host.wait(lambda: self.boot_id(check=False), "the guest's SSH does not answer", 2 * BOOT)


def _die_with_parent():
    """In a child: end when the parent does, so that no machine is left behind."""
    import ctypes  # pylint: disable=import-outside-toplevel
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
