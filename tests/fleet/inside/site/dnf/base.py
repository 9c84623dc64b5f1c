# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A transaction: what is asked for, resolved and done."""
from . import exceptions
from .package import HOST, Sack, rpm
from .subject import Subject

WITH_MODULES = False


class Substitutions(dict):
    """Words in the settings of repositories."""

    def update_from_etc(self, installroot):  # pylint: disable=unused-argument
        """From files; there are none."""
        self["releasever"] = "9"


class Settings:
    """dnf.conf; the module sets more of them."""

    def __init__(self):
        self.substitutions, self.exclude, self.disable_excludes, self.strict, self.best, self.destdir = Substitutions(), [], [], True, True, None

    def read(self):
        """From /etc/dnf/dnf.conf; the module sets what counts."""

    def prepend_installroot(self, option):
        """Of a folder; it is always /."""


class Repositories:
    """Where packages come from; what is offered comes from one place."""

    def get_matching(self, pattern):  # pylint: disable=unused-argument
        """Those of that name."""
        return []

    def iter_enabled(self):
        """Those in use."""
        return iter(())


class Transaction:
    """What will be done."""

    def __init__(self):
        self.install_set, self.remove_set = [], []


class Base:
    """dnf itself."""

    def __init__(self):
        self.conf, self.repos, self.sack, self.transaction = Settings(), Repositories(), Sack(), Transaction()

    def __getattr__(self, name):
        if name in ("setup_loggers", "init_plugins", "pre_configure_plugins", "configure_plugins", "read_all_repos", "update_cache", "fill_sack",
                    "download_packages", "autoremove", "close", "read_comps"):  # nothing of that is to do here
            return lambda *arguments, **words: None
        raise AttributeError(name)

    def _sig_check_pkg(self, package):  # pylint: disable=unused-argument
        return 0, ""

    def add_remote_rpms(self, paths):
        """Packages of files, which simulated hosts take none of."""
        if paths:
            raise exceptions.Error("simulated hosts install no packages from files")
        return []

    def install(self, spec, strict=True):  # pylint: disable=unused-argument
        """Ask for a package."""
        found = Subject(spec).get_best_query(self.sack)
        if not found:
            raise exceptions.MarkingError("No match for argument: " + spec)
        self.transaction.install_set += [each for each in found.available() if each not in self.sack.query().installed()]

    def upgrade(self, spec):
        """Ask for what is newer."""
        self.transaction.install_set += [each for each in self.sack.query().upgrades() if each.called(spec)]

    def upgrade_all(self):
        """Ask for all that is newer."""
        self.transaction.install_set += self.sack.query().upgrades()

    def remove(self, spec):
        """Ask for a package to go."""
        found = Subject(spec).get_best_query(self.sack).installed()
        if not found:
            raise exceptions.PackagesNotInstalledError("No match for argument: " + spec)
        self.transaction.remove_set += found

    def resolve(self, allow_erasing=False):  # pylint: disable=unused-argument
        """Whether there is anything to do."""
        return bool(self.transaction.install_set or self.transaction.remove_set)

    def do_transaction(self):
        """Do it."""
        try:
            rpm.change(HOST, [each.name for each in self.transaction.install_set], [each.name for each in self.transaction.remove_set])
        except OSError as exc:
            raise exceptions.Error("Transaction test error:\n  installing package needs more space on %s: %s" % (exc.filename, exc.strerror))
