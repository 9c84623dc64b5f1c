# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""dnf's errors."""


class Error(Exception):
    """Any of them."""


class DepsolveError(Error):
    """Packages do not fit together."""


class RepoError(Error):
    """A repository could not be read."""


class DownloadError(Error):
    """A package could not be had."""


class CompsError(Error):
    """There is no such group."""


class MarkingError(Error):
    """There is no such package."""


MarkingErrors = MarkingError


class PackagesNotInstalledError(MarkingError):
    """What should be upgraded is not there."""
