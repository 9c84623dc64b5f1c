# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""As much of python-apt as ansible.builtin.apt asks for, of a simulated host."""
import subprocess

import apt_pkg

from . import cache, debfile  # noqa: F401  pylint: disable=unused-import


class Package(apt_pkg.Package):
    """A package; installed is None, or has its version."""

    @property
    def installed(self):
        """What is installed of it."""
        return Installed(self.packages[self.name]["Version"]) if apt_pkg.dpkg.here(self.packages, self.name) else None

    @property
    def installed_files(self):
        """Paths."""
        return apt_pkg.dpkg.files(apt_pkg.HOST, self.name)


class Installed:
    """An installed version."""

    def __init__(self, version):
        self.version = version


class Cache:
    """All packages that are known; _cache is the lower half."""

    def __init__(self, progress=None, rootdir=None):  # pylint: disable=unused-argument
        self._cache = {}
        self.open()

    def open(self, progress=None):  # pylint: disable=unused-argument
        """Read anew."""
        names = set(apt_pkg.HOST.state()["offered"]) | set(apt_pkg.dpkg.installed(apt_pkg.HOST))
        self._cache = dict((name, Package(name)) for name in sorted(names))

    def update(self):
        """apt-get update."""
        if subprocess.run(["apt-get", "-qq", "update"], check=False).returncode:
            raise cache.FetchFailedException("the update failed")

    def __getitem__(self, name):
        return self._cache[name]

    def __iter__(self):
        return iter(self._cache.values())

    def __contains__(self, name):
        return name in self._cache

    def get_providing_packages(self, name):  # pylint: disable=unused-argument
        """No package provides another."""
        return []

    def is_virtual_package(self, name):  # pylint: disable=unused-argument
        """No package is."""
        return False
