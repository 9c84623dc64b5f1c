# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A package, and lists of them that can be narrowed down; they come of the state of the simulated host."""
import fnmatch
import functools
import sys

sys.path[:0] = ["/.simulated/fleet/inside", "/.simulated/collections"]
import machine  # noqa: E402  pylint: disable=wrong-import-position
import rpm  # noqa: E402  pylint: disable=wrong-import-position
import versions  # noqa: E402  pylint: disable=wrong-import-position
del sys.path[:2]

HOST = machine.Machine()


@functools.total_ordering
class Package:
    """A package that is installed, or can be had."""
    arch = rpm.ARCH

    def __init__(self, name, evr, installed):
        self.name, self.evr, self.installtime = name, evr, int(installed)
        self.epoch, self.version, self.release = rpm.parts(evr)
        self.epoch, self.repoid = self.epoch or "0", "@System" if installed else "updates"

    def __str__(self):
        return "%s-%s.%s" % (self.name, self.evr, self.arch)

    def __eq__(self, other):
        return (self.name, self.evr) == (other.name, other.evr)

    def __lt__(self, other):
        return (self.name, versions.key(self.evr)) < (other.name, versions.key(other.evr))

    def __hash__(self):
        return hash(str(self))

    def evr_gt(self, other):
        """Whether it is newer."""
        return versions.compare(self.evr, other.evr) > 0

    def called(self, spec):
        """Whether somebody means this one."""
        long = rpm.full(self.name, self.evr)
        return any(fnmatch.fnmatch(form, spec) for form in (self.name, long, long[:-len(self.arch) - 1], str(self), "%s-%s" % (self.name, self.evr)))


class Query(list):
    """Packages."""

    def installed(self):
        """Those that are."""
        return Query(each for each in self if each.installtime)

    def available(self):
        """Those that can be had."""
        return Query(each for each in self if not each.installtime)

    def upgrades(self):
        """Those that can be had and are newer than what is installed."""
        return Query(each for each in self.available() if any(each.name == other.name and each.evr_gt(other) for other in self.installed()))

    def filter(self, name=None, **others):
        """Those of a name; what is asked of other words none has."""
        return Query(each for each in self if name in (None, each.name) and not set(others) - {"arch"})

    def run(self):
        """The packages themselves."""
        return list(self)


class Sack:
    """All packages."""

    def query(self):
        """All of them."""
        state = HOST.state()
        return Query([Package(name, version, True) for name, version in state["packages"].items()]
                     + [Package(name, each["version"], False) for name, each in state["offered"].items()])
