# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every test may rely on: the collection's import path, hypothesis profiles, Debian's microcode packages."""
import os
import pathlib
import sys
import types

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]


def _importable():
    """Make ansible_collections.fleet.microcode this checkout, whatever its folder is called, with or without Ansible."""
    for name, path in (("ansible_collections", []), ("ansible_collections.fleet", []), ("ansible_collections.fleet.microcode", [str(CHECKOUT)])):
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = path
        parent, _dot, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


_importable()

from ansible_collections.fleet.microcode.tests.gate import cache, debian  # noqa: E402, pylint: disable=wrong-import-position

try:
    import hypothesis
    from hypothesis.configuration import set_hypothesis_home_dir
except ImportError:  # only the tests that use it need it
    pass
else:
    set_hypothesis_home_dir(str(cache.CACHE / "hypothesis"))
    hypothesis.settings.register_profile("gate", deadline=None, database=None, derandomize=True)  # the same inputs each time
    hypothesis.settings.load_profile("gate")


@pytest.fixture(scope="session")
def debian_microcode():
    """pathlib.Path of a folder that holds Debian's lib/firmware/intel-ucode, lib/firmware/amd-ucode and usr/sbin/iucode_tool."""
    try:
        return debian.microcode()
    except debian.Unavailable as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        pytest.skip(str(exc))


@pytest.fixture(scope="session", autouse=True)
def _collection(tmp_path_factory):
    """Ansible finds this checkout as the collection; where the caller named a copy, that one."""
    if "ANSIBLE_COLLECTIONS_PATH" not in os.environ:
        folder = tmp_path_factory.mktemp("collections") / "ansible_collections" / "fleet"
        folder.mkdir(parents=True)
        (folder / "microcode").symlink_to(CHECKOUT)
        os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(folder.parents[1])
