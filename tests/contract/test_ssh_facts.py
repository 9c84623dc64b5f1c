# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a sweep over SSH tells of a host is what the module on it tells: tree.sh brings all that the readers of these sections look at."""
import json

import pytest

from ansible_collections.fleet.microcode.plugins.plugin_utils import tree
from ansible_collections.fleet.microcode.tests.fleet import simulated, trees

ON_THE_HOST = """
import json, sys
sys.path.insert(0, "/.simulated/collections")
from ansible_collections.fleet.microcode.plugins.module_utils import facts, host
print(json.dumps(facts.gather(host.Host(), sys.argv[1:])))
"""


@pytest.mark.parametrize("name", sorted(trees.hosts()))
def test_the_module_and_the_sweep_agree(tmp_path, name):
    one = simulated.make(tmp_path / name, trees.hosts()[name])
    try:
        said = one.ssh("python3", "-IS", "-c", ON_THE_HOST, *tree.SUBSET).stdout
        swept = tree.gather(tree.parse(one.ssh("sh", stdin=tree.SCRIPT.decode()).stdout.encode()))
    finally:
        one.stop()
    told = json.loads(said)
    for facts in (told, swept):
        del facts["gathered"]
    assert swept == told
