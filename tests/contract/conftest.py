# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's tests on simulated hosts: the fixture `machine` gives one that is simulated, where tests/lab/conftest.py gives an emulated one."""
import os
import pathlib
import shutil
import tempfile

import pytest
import yaml

from ansible_collections.fleet.microcode.tests.fleet import simulated, trees
from ansible_collections.fleet.microcode.tests.gate.cache import CHECKOUT
from ansible_collections.fleet.microcode.tests.lab import guest

IMAGES = yaml.safe_load(pathlib.Path(__file__).with_name("machines.yml").read_text())["images"]
PROCESSORS = yaml.safe_load((CHECKOUT / "tests/lab/machines.yml").read_text())["processors"]
FAULTS = {"ucode-hang": ("hang", str), "ucode-refuse": ("refuse", str), "ucode-cpus": ("cpus", lambda mask: [n for n in range(64) if int(mask, 0) >> n & 1])}


def pytest_collection_modifyitems(config, items):
    """What needs a processor that executes instructions, or guests that run, is the lab's alone. Of the points at which a run is killed, CI takes each."""
    points = [item for item in items if item.get_closest_marker("point")]
    left = [] if os.environ.get("FLEET_MICROCODE_POINTS") == "all" else [item for at, item in enumerate(points) if at % 4]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason="takes a machine of the lab: " + item.get_closest_marker("real").args[0]))


@pytest.fixture(scope="session", autouse=True)
def _available(tmp_path_factory):
    """Skip where this machine cannot simulate hosts; in CI that is a failure."""
    one = simulated.make(tmp_path_factory.mktemp("available") / "web", trees.hosts()["deb12-web1"])
    try:
        one.ssh("true")
    except simulated.Unavailable as exc:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(exc))
    finally:
        simulated.stop_all(one.folder.parent)


@pytest.fixture
def machine():
    """make(image, **options) -> simulated.Host that has booted, or with boot=False one that is off; the options are those of the lab's."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hosts-"))

    def make(name, boot=True, kind="skylake-sp", cpus=2, threads=1, faults=(), revision=None):
        spec = dict(IMAGES[name])
        vcpus = {"vcpus": 2} if "vcpus" in spec["cpu"] else {}
        revision = PROCESSORS[kind]["revision"] if revision is None else revision
        spec["cpu"] = dict({"kind": kind, "cores": cpus // threads, "threads": threads, "revision": revision}, **vcpus)
        found = dict(each.partition("=")[::2] for each in faults)
        spec["simulate"] = dict(spec.get("simulate", {}), python=os.environ.get("FLEET_MICROCODE_HOST_PYTHON"),
                                faults=dict((FAULTS[word][0], FAULTS[word][1](value)) for word, value in found.items()))
        kernel = next(each["version"] for each in spec["kernels"] if each.get("running"))
        spec["files"] = dict(spec["files"], **dict(("/srv/guests/%s.cfg" % each, guest.xl(each, "/boot/vmlinuz-" + kernel, "/srv/guests/initramfs"))
                                                   for each in ("g1", "g2")))
        one = simulated.make(folder / str(len(list(folder.iterdir()))) / "lab", spec)
        one.kill()
        if boot:
            one.reset()
        return one
    try:
        yield make
    finally:
        for place in folder.iterdir():
            simulated.stop_all(place)
        shutil.rmtree(str(folder), ignore_errors=True)
