# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's way to simulated hosts, for tests and the demonstration alone."""
DOCUMENTATION = """
name: simulated
short_description: Run tasks on a simulated host
description:
  - Runs every command in the private root of a simulated host, see tests/fleet/simulated.py. Only for tests.
author: The fleet.microcode authors (@fleet)
version_added: 0.1.0
options:
  folder:
    description: Folder of the host.
    type: path
    required: true
    vars:
      - name: ansible_simulated_folder
  remote_user:
    description: Who the commands run as; there is only root.
    default: root
    vars:
      - name: ansible_user
"""
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase

from ansible_collections.fleet.microcode.tests.fleet import simulated


class Connection(ConnectionBase):
    """An SSH connection would behave as this one does: it counts operations, is lost when the host is, and gives a dead host's reason."""

    transport = "simulated"
    has_pipelining = True

    @property
    def host(self):
        """The host on the other side."""
        return simulated.Host(self.get_option("folder"))

    def _connect(self):
        self._connected = True
        return self

    def _operate(self, call, *arguments):
        try:
            return call(*arguments)
        except simulated.Lost as exc:
            raise AnsibleConnectionFailure("Failed to connect to the host via ssh: %s" % exc) from None
        except simulated.Unavailable as exc:
            raise AnsibleError(str(exc)) from None

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        terminal = not in_data and sudoable  # when Ansible's ssh asks for one
        return self._operate(lambda: self.host.execute(["/bin/sh", "-c", cmd], in_data or b"", terminal=terminal))

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        if not Path(in_path).exists():
            raise AnsibleFileNotFound("file or module does not exist: %s" % in_path)
        status, _stdout, stderr = self._operate(self.host.execute, ["/bin/sh", "-c", 'exec cat >"$1"', "sh", out_path], Path(in_path).read_bytes())
        if status:
            raise AnsibleError("failed to transfer file to %s: %s" % (out_path, stderr.decode(errors="replace")))

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        status, stdout, stderr = self._operate(self.host.execute, ["/bin/cat", in_path])
        if status:
            raise AnsibleError("failed to transfer file from %s: %s" % (in_path, stderr.decode(errors="replace")))
        Path(out_path).write_bytes(stdout)

    def close(self):
        self._connected = False

    def reset(self):
        self.close()
