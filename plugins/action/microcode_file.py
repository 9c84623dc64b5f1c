# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Carry a microcode file to a host in the module's own arguments: one operation of the connection, where copying it first takes several."""
import base64
import hashlib
import os
import re
import stat
import zlib

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.fleet.microcode.plugins.module_utils.place import LIMIT

OPTIONS = {"src": {"type": "path"}, "dest": {"type": "str"}, "sha256": {"type": "str"}, "state": {"choices": ["present", "restored"], "default": "present"}}


class Refused(Exception):
    """The text says what was found, why it matters and what would change it."""


class Packed(str):
    """Text that is not shown where the arguments it is among are: Ansible's debugging prints them."""

    def __repr__(self):
        return "%d characters" % len(self)


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        del tmp
        _valid, args = self.validate_argument_spec(OPTIONS, required_if=[("state", "present", ("src",))])
        args = {key: value for key, value in args.items() if value is not None}
        if args["state"] == "present":
            try:
                data = _read(self._find_needle("files", args["src"]))
                args.update(sha256=_checked(data, args), _content=Packed(base64.b64encode(zlib.compress(data)).decode()))
            except (Refused, AnsibleError) as exc:
                return {"failed": True, "changed": False, "msg": str(exc)}  # raised, core 2.16 would speak of an exception
        result.update(self._execute_module("fleet.microcode.microcode_file", args, task_vars=task_vars))
        result.pop("invocation", None)
        return result


def _read(path):
    """The bytes of a file on the controller. Refused."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as stream:  # of a pipe nobody would come to the end
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise Refused("src: %s is no regular file; name a vendor's microcode file" % path)
            data = stream.read(LIMIT + 1)
    except OSError as exc:
        raise Refused("src: %s cannot be read: %s" % (path, exc.strerror)) from None
    if len(data) > LIMIT:
        raise Refused("src: %s has more than %d MiB, and a vendor's file for one processor has 4 at most, so it is something else; name the one for the host's "
                      "processor" % (path, LIMIT >> 20))
    return data


def _checked(data, args):
    """The SHA-256 of the bytes. Refused where that is not the one which is asked for."""
    found, wanted = hashlib.sha256(data).hexdigest(), args.get("sha256", "").lower()
    if "sha256" in args and not re.fullmatch("[0-9a-f]{64}", wanted):
        raise Refused("sha256: %s is no SHA-256, which has 64 hexadecimal digits" % args["sha256"])
    if "sha256" in args and found != wanted:
        raise Refused("src: %s has the SHA-256 %s, not %s: it is not the file that was decided on; bring that one, or plan again" % (
            args["src"], found, wanted))
    return found
