# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One measurement in a process of its own: python probe.py NAME [argument ...] prints its answer as JSON. Times are in seconds.

Imports are not part of a time, so that the work of all is compared alike.
"""
import gc
import importlib
import json
import os
import subprocess
import sys
import time

UTILS = "ansible_collections.fleet.microcode.plugins.module_utils."
BENCH = "ansible_collections.fleet.microcode.tests.bench."
NEEDRESTART = """use Time::HiRes qw(time); use NeedRestart; use NeedRestart::UI; use NeedRestart::uCode;
my $ui = NeedRestart::UI->new(0); my $start = time; my ($state, %vars) = nr_ucode_check(0, $ui);
printf("%.9f %d %s %s", time - $start, $state, $vars{CURRENT} // "none", $vars{AVAIL} // "none");"""


def timed(call, *arguments):
    """(seconds, result) of a call."""
    started = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - started, result


def facts(root, live=False):
    """All facts of a tree of files or of a live machine; live: the tree is made this machine's root, so that it is read as one."""
    gather, host = importlib.import_module(UTILS + "facts").gather, importlib.import_module(UTILS + "host").Host
    if live:
        os.chroot(root)
        os.chdir("/")
        root = "/"
    seconds, found = timed(lambda: gather(host(root)))
    return {"seconds": seconds, "facts": found}


def setup(subset):
    """The collectors of ansible.builtin.setup, with a real module object, as setup itself calls them."""
    from ansible.module_utils import basic
    from ansible.module_utils.facts import ansible_collector, default_collectors, namespace
    basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = json.dumps({"ANSIBLE_MODULE_ARGS": {}}).encode(), "legacy"  # what a module finds on a host
    module = basic.AnsibleModule(argument_spec={"gather_subset": {"type": "list"}, "gather_timeout": {"type": "int", "default": 10},
                                                "filter": {"type": "list"}, "fact_path": {"type": "path", "default": "/etc/ansible/facts.d"}})
    collector = ansible_collector.get_ansible_collector(
        all_collector_classes=default_collectors.collectors, gather_subset=subset.split(","), gather_timeout=10,
        namespace=namespace.PrefixFactNamespace(namespace_name="ansible", prefix="ansible_"), minimal_gather_subset=frozenset())
    seconds, found = timed(lambda: collector.collect(module=module))
    return {"seconds": seconds, "facts": {"processors": found.get("ansible_processor_nproc"), "count": len(found)}}


def load(name):
    """Reading a module's code from source, as each run on a host does, once AnsibleModule is there; no bytecode is kept or used."""
    importlib.import_module("ansible.module_utils.basic")
    sys.dont_write_bytecode, sys.pycache_prefix = True, os.devnull + "/none"
    return {"seconds": timed(importlib.import_module, name)[0]}


def needrestart(*perl):
    """needrestart's microcode check inside its own Perl, less start and loading."""
    done = subprocess.run(list(perl) + ["-e", NEEDRESTART], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, check=True)
    seconds, state, current, available = done.stdout.split(" ")
    return {"seconds": float(seconds), "answer": {"state": int(state), "current": current, "available": available}}


def command(*argv):
    """A whole command."""
    seconds, done = timed(lambda: subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False))
    return {"seconds": seconds, "status": done.returncode, "stdout": done.stdout.decode("utf-8", "replace"), "stderr": done.stderr.decode("utf-8", "replace")}


def listing(folder, checksums):
    """microcode_file_info's work over a folder."""
    reader, host = importlib.import_module(UTILS + "listing"), importlib.import_module(UTILS + "host").Host()
    seconds, found = timed(reader.containers, host, [folder], checksums == "True")
    return {"seconds": seconds, "containers": found, "warnings": host.warnings}


def memory(root):
    """KiB that gathering adds to a process that has loaded the same code."""
    gather, host = importlib.import_module(UTILS + "facts").gather, importlib.import_module(UTILS + "host").Host(root)
    gc.collect()
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")  # the peak begins anew
    before = status("VmRSS")
    seconds, found = timed(gather, host)
    return {"seconds": seconds, "added": status("VmHWM") - before, "idle": before, "facts": found}


def status(name):
    """A line of /proc/self/status, in KiB."""
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith(name + ":"))


def plan(recorded, count, alike):
    """A plan of that many hosts like those whose facts are in a file, with all rules; alike: they differ as in a fleet, else each from every other.

    Seconds are those of one core.
    """
    utils = "ansible_collections.fleet.microcode.plugins.plugin_utils."
    made, policy, machines = importlib.import_module(utils + "plan"), importlib.import_module(utils + "policy"), importlib.import_module(BENCH + "machines")
    with open(recorded) as stream:
        hosts = machines.fleet(json.load(stream), int(count), alike == "True")
    domains = dict((name, {"rack": str(number % (len(hosts) // 40 + 1))}) for number, name in enumerate(hosts))
    options = {"late": "allowed", "guests": "none", "hold_days": 7, "accept": [], "target": "newest_staged"}
    gc.collect()  # what making the facts left to do
    idle, started = status("VmRSS"), time.process_time()
    rules = policy.load()
    loading = time.process_time() - started
    found = made.make(hosts, rules, options, "2026-11-22T14:00:00Z", domains, {"rack": 4})
    text = made.document(found)
    seconds = time.process_time() - started
    decisions = set(repr([each[key] for key in ("action", "from", "to", "because")]) for each in found["hosts"].values())
    return {"loading": loading, "seconds": seconds, "rules": len(rules.rules), "decisions": len(decisions), "bytes": len(text), "idle": idle,
            "peak": status("VmHWM"), "summary": found["summary"]}


def report(recorded, count):
    """The assessment of that many hosts like those whose facts are in a file: its JSON and its page; seconds of one core."""
    utils = "ansible_collections.fleet.microcode.plugins.plugin_utils."
    made, page = importlib.import_module(utils + "report"), importlib.import_module(utils + "page_posture")
    machines = importlib.import_module(BENCH + "machines")
    with open(recorded) as stream:
        hosts = machines.fleet(json.load(stream), int(count), True)
    gc.collect()
    idle, started = status("VmRSS"), time.process_time()
    found = dict((name, made.assess([{"ansible_facts": {"microcode": facts}}])) for name, facts in hosts.items())
    counts = made.posture(found)
    assessed = time.process_time() - started
    document, shown = made.document(found, counts, "2026-11-22T14:00:00Z"), page.render(found, counts, "2026-11-22T14:00:00Z")
    return {"assessed": assessed, "seconds": time.process_time() - started, "bytes": len(document), "page": len(shown), "idle": idle, "peak": status("VmHWM"),
            "posture": counts}


def opened(root):
    """Paths of the files that gathering opens below root, one for each time."""
    gather, host = importlib.import_module(UTILS + "facts").gather, importlib.import_module(UTILS + "host").Host(root)
    paths = []
    sys.addaudithook(lambda event, arguments: event == "open" and paths.append(str(arguments[0])))
    gather(host)
    return {"paths": [path[len(root):] for path in paths if path.startswith(root)]}


def fuzz(name, count, seed):
    """Hostile input for one reader."""
    seconds, whole = timed(importlib.import_module(BENCH + name).fuzz, int(count), int(seed))
    return {"seconds": seconds, "whole": whole}


def within(tree, settings, name, *arguments):
    """The same with this machine's processors, firmware folder and needrestart's settings replaced by a tree's; in a mount namespace of our own."""
    places = [("/proc/cpuinfo", "/proc/cpuinfo"), ("/sys/devices/system/cpu", "/sys/devices/system/cpu"), ("/lib/firmware", "/lib/firmware")]
    for source, target in places + [("/needrestart.sh", settings)] * bool(settings):
        subprocess.run(["mount", "--bind", tree + source, target], check=True)
    return PROBES[name](*arguments)


PROBES = dict((each.__name__, each) for each in (facts, setup, load, needrestart, command, listing, memory, plan, report, opened, fuzz, within))

if __name__ == "__main__":
    answer = PROBES[sys.argv[1]](*sys.argv[2:])
    json.dump(answer, sys.stdout)
