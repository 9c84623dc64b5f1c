# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""As much of dnf 4's Python side as ansible.builtin.dnf asks for, of a simulated host."""
from . import base, const, exceptions, package, subject, util  # noqa: F401  pylint: disable=unused-import
from .base import Base  # noqa: F401  pylint: disable=unused-import

__version__ = "4.14.0"
