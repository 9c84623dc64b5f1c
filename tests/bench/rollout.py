# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the rollout adds to the modules that do the work: simulated Xen hosts loaded late by fleet.microcode.rollout and by reference.yml, one after the other.

    python rollout.py [HOSTS]      without a number 200

Printed are seconds, the controller's and the hosts' CPU seconds together, and SSH operations a host (pipelining on).
"""
import json
import os
import pathlib
import resource
import shutil
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
WORK = tempfile.mkdtemp(prefix="rollout-", dir=os.environ.get("FLEET_MICROCODE_CACHE"))
os.makedirs(WORK + "/ansible_collections/fleet")
os.symlink(HERE.parents[1], WORK + "/ansible_collections/fleet/microcode")
sys.path.insert(0, WORK)

from ansible_collections.fleet.microcode.tests.fleet import driven, simulated, trees  # noqa: E402, pylint: disable=wrong-import-position

FORKS = "20"


def hosts(folder, count):
    """Hosts that are alike: Xen on Debian stable, of which the plan says late."""
    spec = trees.hosts()["xen-node1"]
    spec = dict(spec, cpu=dict(spec["cpu"], sockets=1, cores=2, threads=1, vcpus=2), hypervisor=dict(spec["hypervisor"], physical=2))
    return [simulated.make(folder / ("node%03d" % number), dict(spec, name="node%03d" % number)) for number in range(count)]


def measured(name, some, folder, *arguments):
    """Run a playbook over hosts, and print what it cost; (seconds, CPU seconds)."""
    before, cpu, since = sum(one.operations for one in some), _cpu(), time.monotonic()
    done = driven.run(some, folder, "ansible-playbook", *arguments, "-f", FORKS, seconds=7200)
    took, used = time.monotonic() - since, _cpu() - cpu
    if done.returncode:
        sys.exit("%s: %s%s" % (name, done.stdout[-3000:], done.stderr[-2000:]))
    operations = (sum(one.operations for one in some) - before) / len(some)
    print("%-40s %7.1f s  %7.1f s CPU  %5.2f operations a host" % (name, took, used, operations), flush=True)
    return took, used


def _cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(count=200):
    folder = pathlib.Path(WORK)
    os.environ.update(ANSIBLE_COLLECTIONS_PATH=WORK, PYTHONPATH=WORK)
    paths = {"plan_path": str(folder / "plan.json"), "rollout_path": str(folder / "rollout.json"), "rollout_page": str(folder / "rollout.html")}
    try:
        some = hosts(folder / "first", count)
        ours = measured("fleet.microcode.rollout", some, folder, "fleet.microcode.rollout", "-e", json.dumps(dict(paths, plan_late="allowed")))
        plan = json.loads((folder / "plan.json").read_text())
        again = measured("the same again, nothing to do", some, folder, "fleet.microcode.rollout", "-e", json.dumps(dict(
            paths, rollout_plan=paths["plan_path"], rollout_digest=plan["digest"])))
        simulated.stop_all(folder / "first")
        some = hosts(folder / "second", count)
        waves = {"reference_waves": [len(wave["hosts"]) for wave in plan["waves"]], "reference_plan": paths["plan_path"]}
        theirs = measured("reference.yml", some, folder, str(HERE / "reference.yml"), "-e", json.dumps(waves))
        print("%d hosts in %d waves: the rollout takes %.2f times the reference's time, %.2f times its CPU time; again, %.2f times the reference's time"
              % (count, len(plan["waves"]), ours[0] / theirs[0], ours[1] / theirs[1], again[0] / theirs[0]))
    finally:
        for each in ("first", "second"):
            simulated.stop_all(folder / each)
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
