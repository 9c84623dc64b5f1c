# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What tests do with a host, be it an emulated machine of the lab or a simulated one."""
import json
import os
import pathlib
import subprocess
import sys

COMMAND = 300  # seconds for a command on a busy machine


class Lost(Exception):
    """A host did not do what was waited for, or does not answer; the text says what it said last."""


class Driven:
    """A host that runs commands as root: name, folder (for files of the tests), ssh() and variables() are its own."""

    real = True  # False for a simulated one

    def sh(self, script, **options):
        """Run a shell script as root; what it wrote to standard output."""
        return self.ssh("sh", "-ec", script, **options).stdout

    def boot_id(self, check=True):
        """The kernel's id of this boot; None where nobody answers and check is off."""
        try:
            return self.ssh("cat", "/proc/sys/kernel/random/boot_id", check=check, seconds=60).stdout.strip() or None
        except subprocess.TimeoutExpired:
            if check:
                raise
            return None

    def write(self, path, text):
        """Write a file on the host."""
        self.ssh("sh", "-c", 'cat >"$1"', "sh", path, stdin=text)

    def ansible(self, module, arguments=None, seconds=COMMAND, check=True, look=False):
        """Run an Ansible module on the host, in check mode with look; what it returned.

        AssertionError where it fails, unless check is off; Lost where it returned nothing at all.
        """
        done = self._run("ansible", self.name, "-m", module, *(["-a", json.dumps(arguments)] if arguments else []), *["--check"] * look, seconds=seconds)
        head, _arrow, body = done.stdout.partition(" => ")
        good = done.returncode == 0 and ("SUCCESS" in head or "CHANGED" in head)
        assert good or not check, "%s on %s: %s%s" % (module, self.name, done.stdout[-3000:], done.stderr[-3000:])
        try:
            return json.loads(body)
        except ValueError:
            raise Lost("%s on %s returned nothing: %s%s" % (module, self.name, done.stdout[-3000:], done.stderr[-3000:])) from None

    def play(self, text, variables=None, seconds=COMMAND, check=True, look=False):
        """Run a playbook, its text or the full name of one of a collection, in check mode with look; the subprocess's (returncode, stdout, stderr).

        AssertionError where it fails, unless check is off.
        """
        if "\n" in text:
            path = pathlib.Path(self.folder) / "playbook.yml"
            path.write_text(text)
            text = str(path)
        done = self._run("ansible-playbook", text, *(["-e", json.dumps(variables)] if variables else []), *["--check"] * look, seconds=seconds)
        assert done.returncode == 0 or not check, "%s: %s%s" % (self.name, done.stdout[-5000:], done.stderr[-3000:])
        return done

    def _run(self, program, *arguments, seconds):
        return run([self], pathlib.Path(self.folder), program, *arguments, seconds=seconds)

    def facts(self):
        """What microcode_facts says."""
        return self.ansible("fleet.microcode.microcode_facts")["ansible_facts"]["microcode"]


def run(hosts, folder, program, *arguments, seconds=COMMAND):
    """Run one of Ansible's programs, of the environment of the tests, with an inventory of these hosts alone, which it writes into the folder."""
    path = folder / "inventory.json"
    path.write_text(json.dumps({"all": {"hosts": {host.name: host.variables() for host in hosts}}}))
    env = dict(os.environ, ANSIBLE_LOAD_CALLBACK_PLUGINS="true", ANSIBLE_NOCOLOR="true", ANSIBLE_PIPELINING="true", ANSIBLE_HOST_KEY_CHECKING="true",
               ANSIBLE_SSH_CONTROL_PATH_DIR=str(folder / "cp"), ANSIBLE_TIMEOUT="60",
               ANSIBLE_CONNECTION_PLUGINS=str(pathlib.Path(__file__).with_name("connection")))
    if program == "ansible":
        env["ANSIBLE_STDOUT_CALLBACK"] = "ansible.builtin.minimal"
    return subprocess.run([str(pathlib.Path(sys.executable).with_name(program)), "-i", str(path), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds, env=env, check=False)
