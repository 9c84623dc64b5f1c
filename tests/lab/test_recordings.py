# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real tools still say what was recorded of them; with FLEET_MICROCODE_RECORD=1 in the environment, what they say is recorded anew."""
import os

import pytest

from ansible_collections.fleet.microcode.tests.lab import recordings

FILES = recordings.files()


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_tools_say_what_was_recorded(machine, path):
    old = recordings.load(path)
    if "status" not in old["situations"][0] and not os.environ.get("FLEET_MICROCODE_RECORD"):
        pytest.skip("%s is a script that was not recorded yet; FLEET_MICROCODE_RECORD=1 does it" % path.name)
    one = machine(old["image"])
    old["situations"] = [each for each in old["situations"] if one.real or "real" not in each]
    new = recordings.record(one, old)
    if os.environ.get("FLEET_MICROCODE_RECORD"):
        path.write_text(recordings.render(recordings.merged(old, new)))
        assert recordings.load(path)["situations"]
        return
    difference = recordings.difference(old, new)
    assert not difference, "%s no longer holds; record anew with FLEET_MICROCODE_RECORD=1 if this is how it is now:\n%s" % (path.name, difference)
