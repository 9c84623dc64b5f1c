# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The guests of this host, and through what they are paused, resumed, saved and restored."""
from collections import namedtuple

Guest = namedtuple("Guest", (
    "uuid",     # str, lower case
    "id",       # int, Xen's or libvirt's number of it while it runs; None where it does not
    "name",     # str, or None
    "state",    # "running", "paused", "shutdown", "crashed", "dying" or "building"
    "why_not",  # str, why this one must not be paused; None where it may be
))


class GuestError(Exception):
    """Guests cannot be listed, paused, saved or restored; the text says what was found, why it matters and what would change it."""


def named(host, name):
    """The driver of this name."""
    from . import libvirt, xen  # pylint: disable=import-outside-toplevel  # they take Guest from here
    return xen.Xen(host) if name == "xen" else libvirt.Libvirt(host)


def driver(host, hypervisor):
    """Through what the guests of this host are driven, or None where it has no hypervisor; hypervisor: that section of the facts. GuestError."""
    from . import libvirt, xen  # pylint: disable=import-outside-toplevel
    if hypervisor["role"] != "host":
        return None
    one = xen if hypervisor["type"] == "xen" else libvirt
    manager = one.managed_elsewhere(host)
    if manager:
        raise GuestError(manager)
    return named(host, hypervisor["type"])
