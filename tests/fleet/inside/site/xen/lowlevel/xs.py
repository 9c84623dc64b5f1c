# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Xen's bindings for Python: reading XenStore, as its source has it (tools/python/xen/lowlevel/xs); what it holds is in xenstore_ls.py."""
from .xc import open_machine


class Error(Exception):
    """A call failed."""


class xs:  # pylint: disable=invalid-name
    """A connection to XenStore."""

    def __init__(self):
        try:
            self._xen, self._machine = open_machine("xenstore")
        except OSError as exc:
            raise Error(exc.errno, exc.strerror) from None

    def _entries(self):
        from xenstore_ls import entries  # pylint: disable=import-outside-toplevel,import-error  # its folder is on the path by now
        return entries(self._xen, self._machine.state())

    def read(self, _transaction, path):
        """The bytes of an entry, or None."""
        value = self._entries().get(path)
        return None if value is None else value.encode()

    def ls(self, _transaction, path):
        """The names below an entry, or None."""
        base = path.rstrip("/") + "/"
        return sorted({entry[len(base):].split("/")[0] for entry in self._entries() if entry.startswith(base)}) or None

    def close(self):
        """Nothing is to be closed."""
