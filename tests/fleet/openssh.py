# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real OpenSSH servers on loopback addresses, run by this user, with keys made for them; who connects needs the files in `folder` and nothing of the home.

    python openssh.py FOLDER PORT [ADDRESS ...]     serves until its standard input ends
"""
import contextlib
import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

SSHD = shutil.which("sshd", path="%s:/usr/sbin:/usr/local/sbin:/sbin" % os.environ.get("PATH", ""))
CONFIG = """\
Port {port}
{listen}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 2000
LogLevel VERBOSE
PrintMotd no
SetEnv SHLVL=2
{more}
"""


class Unavailable(Exception):
    """There is no OpenSSH server to be run here; the text says what would change that."""


class Servers:
    """These addresses of 127.0.0.0/8, each of them a host; a process serves up to 16, the most that sshd listens on."""

    def __init__(self, folder, addresses=("127.0.0.1",), port=None, more=""):
        if not SSHD or not shutil.which("ssh-keygen"):
            raise Unavailable("sshd and ssh-keygen are not installed (on Debian: apt-get install openssh-server)")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # where it confines itself; its service makes it at boot
        self.folder, self.addresses, self.processes = pathlib.Path(folder).resolve(), addresses, []
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.port, self.user, self.more = port or free_port(), getpass.getuser(), more
        for name in ("host_key", "user_key"):
            if not (self.folder / name).exists():
                make_key(self.folder / name)
        shutil.copy(str(self.folder / "user_key.pub"), str(self.folder / "authorized_keys"))
        self.know()

    def know(self, key="host_key"):
        """Write known_hosts with this key for all addresses, and an ssh_config that uses it."""
        public = (self.folder / (key + ".pub")).read_text()
        (self.folder / "known_hosts").write_text("".join("[%s]:%d %s" % (address, self.port, public) for address in self.addresses))
        (self.folder / "ssh_config").write_text(
            "Host *\n  Port %d\n  User %s\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  GlobalKnownHostsFile /dev/null\n"
            % (self.port, self.user, self.folder / "user_key", self.folder / "known_hosts"))

    def start(self):
        for at in range(0, len(self.addresses), 16):
            listen = self.addresses[at:at + 16]
            config = self.folder / ("sshd_config%d" % at)
            config.write_text(CONFIG.format(port=self.port, listen="\n".join(map("ListenAddress {}".format, listen)), folder=self.folder, more=self.more))
            with open(str(self.folder / "log"), "ab") as log:
                self.processes.append(subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            self._wait(listen[-1])
        return self

    def _wait(self, address):
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection((address, self.port), 1) as sock:
                if sock.recv(4) == b"SSH-":
                    return
            if self.processes[-1].poll() is not None or time.monotonic() > until:
                self.stop()
                raise Unavailable("sshd does not start: " + (self.folder / "log").read_text()[-500:])
            time.sleep(0.05)

    def stop(self):
        """Seconds of CPU that the servers and their sessions took."""
        used = [_ended(process) for process in self.processes]
        self.processes = []
        return sum(used)

    __enter__ = start

    def __exit__(self, *_problem):
        self.stop()

    def logins(self):
        """How many times somebody was let in."""
        return (self.folder / "log").read_text(errors="replace").count("Accepted publickey for ")


def _ended(process):
    process.terminate()
    _pid, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    return used.ru_utime + used.ru_stime


def make_key(path, *words):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path), *words], stdin=subprocess.DEVNULL, check=True)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


if __name__ == "__main__":
    with Servers(sys.argv[1], tuple(sys.argv[3:]) or ("127.0.0.1",), int(sys.argv[2])):
        print("ready", flush=True)
        sys.stdin.read()
