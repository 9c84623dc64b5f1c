# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""As much of python-apt's lower half as ansible.builtin.apt asks for, of a simulated host."""
import fnmatch
import sys

sys.path[:0] = ["/.simulated/fleet/inside", "/.simulated/collections"]
import dpkg  # noqa: E402  pylint: disable=wrong-import-position
import machine  # noqa: E402  pylint: disable=wrong-import-position
import versions  # noqa: E402  pylint: disable=wrong-import-position
del sys.path[:2]

CURSTATE_NOT_INSTALLED, CURSTATE_INSTALLED = 0, 6
HOST = machine.Machine()
version_compare = versions.compare


def get_architectures():
    """Those that packages may be of."""
    return ["amd64"]


class Config(dict):
    """apt's settings; none is kept."""

    def find_file(self, name, default=""):  # pylint: disable=unused-argument
        """Where a setting's file lies."""
        return default

    def find_dir(self, name, default="/"):  # pylint: disable=unused-argument
        """Where a setting's folder lies."""
        return "/var/lib/apt/lists/" if name == "Dir::State::Lists" else default


config = Config()


class Version:
    """A version that can be had."""

    def __init__(self, text):
        self.ver_str = text


class Package:
    """What is known of a package; KeyError where nothing is."""

    def __init__(self, name):
        self.name, self.state, self.packages = name, HOST.state(), dpkg.installed(HOST)
        if name not in self.state["offered"] and not dpkg.here(self.packages, name):
            raise KeyError(name)

    @property
    def current_state(self):
        """CURSTATE_*."""
        return CURSTATE_INSTALLED if dpkg.here(self.packages, self.name) else CURSTATE_NOT_INSTALLED


class Policy:
    """Which version an installation would take."""

    def __init__(self, cache):  # pylint: disable=unused-argument
        self.pins = {}

    def read_pinfile(self, path):
        """There are none."""

    def read_pindir(self, path):
        """There are none."""

    def create_pin(self, kind, name, pattern, priority):  # pylint: disable=unused-argument
        """Ask for a version."""
        if kind == "Version":
            self.pins[name] = pattern

    def get_candidate_ver(self, package):
        """Version, or None."""
        mine = package.packages[package.name]["Version"] if dpkg.here(package.packages, package.name) else None
        known = [each for each in (package.state["offered"].get(package.name, {}).get("version"), mine) if each]
        pinned = [each for each in known if fnmatch.fnmatch(each, self.pins.get(package.name, ""))]
        best = pinned[0] if pinned else dpkg.candidate(package.state, package.packages, package.name)
        return Version(best) if best else None
