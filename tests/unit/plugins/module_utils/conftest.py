# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine of a few files and canned command output."""
import pytest

from ansible_collections.fleet.microcode.tests.fleet.machine import Machine


@pytest.fixture
def machine(tmp_path):
    """machine({path: text or bytes}, {command line: output}) -> Machine."""
    def make(files, commands=None):
        for path, content in files.items():
            place = tmp_path / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                place.mkdir(exist_ok=True)
            else:
                place.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Machine(str(tmp_path), commands or {})
    return make
