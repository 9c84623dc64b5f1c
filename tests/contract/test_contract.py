# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Simulated hosts behave like the lab's machines: they pass the same tests, and their tools say what was recorded of the real ones."""
import pytest

pytest.register_assert_rewrite(*("ansible_collections.fleet.microcode.tests.lab.test_" + name for name in ("linux", "recordings", "xen")))

from ansible_collections.fleet.microcode.tests.lab.test_linux import *  # noqa: E402,F401,F403 pylint: disable=wrong-import-position,wildcard-import,unused-wildcard-import
from ansible_collections.fleet.microcode.tests.lab.test_recordings import *  # noqa: E402,F401,F403 pylint: disable=wrong-import-position,wildcard-import,unused-wildcard-import
from ansible_collections.fleet.microcode.tests.lab.test_xen import *  # noqa: E402,F401,F403 pylint: disable=wrong-import-position,wildcard-import,unused-wildcard-import
