# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Simulated hosts behave like the lab's machines: they pass the same tests, and their tools say what was recorded of the real ones."""
import pytest

pytest.register_assert_rewrite(*("ansible_collections.fleet.microcode.tests.lab.test_" + name for name in ("early", "late", "linux", "recordings", "xen")))

from ansible_collections.fleet.microcode.tests.lab import (  # noqa: E402  pylint: disable=wrong-import-position
    test_early, test_late, test_linux, test_recordings, test_xen)

globals().update((name, value) for module in (test_early, test_late, test_linux, test_recordings, test_xen) for name, value in vars(module).items()
                 if name.startswith("test_"))
