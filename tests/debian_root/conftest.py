# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Machines made of a Debian root and a recorded /proc and /sys. Skipped without root or Debian; on Debian as root in CI, what is missing fails."""
import contextlib
import os

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.tests.debian_root import roots
from ansible_collections.fleet.microcode.tests.fleet import trees
from ansible_collections.fleet.microcode.tests.gate.debian import KEYRING, Unavailable


@pytest.fixture(scope="session")
def view_of():
    """view_of(kind): a Debian root of that kind whose files may be replaced; the same one for all tests."""
    if os.geteuid():
        pytest.skip("Debian roots are made and read as root; run as root: make test-root")
    if not os.path.exists(KEYRING):
        pytest.skip("%s is missing, so this is no Debian; Debian roots are made on one" % KEYRING)
    views = {}
    with contextlib.ExitStack() as stack:
        def get(kind):
            if kind not in views:
                try:
                    views[kind] = stack.enter_context(roots.view(kind))
                except Unavailable as exc:
                    (pytest.fail if os.environ.get("CI") else pytest.skip)(str(exc))
            return views[kind]
        yield get


@pytest.fixture
def machine(view_of):
    """machine(kind of root, kind of processor, revision that runs) -> Host. See trees.py; what a machine showed before is taken away."""
    def make(kind, cpu, revision, hypervisor=None, kernel=None):
        view = view_of(kind)
        roots.forget(view)
        spec = {"name": "debian", "cpu": {"kind": cpu, "revision": revision}, "hypervisor": hypervisor or {"is": "metal"}, "boot": {"system": "grub"},
                "options": "ro quiet", "mounts": {"/": ["ext4", "/dev/sda1"]}}
        tree = trees.Tree(view)
        trees.processors(tree, spec)
        trees.kernel_words(tree, spec, {"kernel": "vmlinuz-{v}", "compiler": "Debian", "packaging": "dpkg"}, {"version": kernel or roots.kernels(view)[-1]})
        return Host(str(view))
    return make
