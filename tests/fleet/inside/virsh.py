# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""virsh and the libvirtd that it asks, as tests/lab/recordings/virsh.yml has them of libvirt 11.3; only on bare metal with KVM.

A domain of the state is {name, uuid, id: null where off, paused, persistent, saved: whether its state is kept on disk (managed save)} and, once it was
defined or started here, memory (KiB), vcpus, kind, reason (of the state that it is in) and what guest_clock.py needs. Where libvirt's "stopped" is true,
no daemon answers.
"""
import errno
import glob
import os
import sys
import uuid
from xml.etree import ElementTree

import guest_clock

UNITS = {"b": 1 / 1024, "bytes": 1 / 1024, "KiB": 1, "k": 1, "MiB": 1024, "M": 1024, "GiB": 1 << 20, "G": 1 << 20}


class Fails(SystemExit):
    """A command fails; args: what it says."""


def main(machine, _name, argv):
    while argv and argv[0].startswith("-"):  # -c URI, --connect URI and the like: there is one daemon
        argv = argv[2 if argv[0] in ("-c", "--connect") else 1:]
    function = COMMANDS.get(argv[0]) if argv else None
    if function is None:
        return _fail("unknown command: '%s'" % argv[0] if argv else "no command")
    try:
        with machine.change() as state:
            libvirt = state["libvirt"]
            if libvirt is None or libvirt.get("stopped"):
                raise Fails("failed to connect to the hypervisor", "Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory")
            libvirt["unpausable"] = state["faults"].get("unpausable", {})
            function(libvirt, [word for word in argv[1:] if word.startswith("-")], [word for word in argv[1:] if not word.startswith("-")])
            _show(machine, libvirt)
    except Fails as exc:
        print()
        return _fail(*exc.args)
    return 0


def _fail(*lines):
    sys.stderr.write("".join("error: %s\n" % line for line in lines))
    return 1


def boot(state):
    """The host has come up: no guest runs, and those that only ran are forgotten."""
    if state["libvirt"]:
        kept = [dict(each, id=None, paused=False, reason="unknown") for each in state["libvirt"]["domains"] if each["persistent"]]
        state["libvirt"].update(next_id=1, domains=kept)


def _show(machine, libvirt):
    """What files tell of guests that run: a process id each, and who uses the module."""
    folder = machine.at("/run/libvirt/qemu")
    running = [each["name"] for each in libvirt["domains"] if each["id"]]
    for path in glob.glob(folder + "/*.pid"):
        if os.path.basename(path) != "driver.pid" and os.path.basename(path)[:-4] not in running:
            os.unlink(path)
    for number, name in enumerate(running):
        machine.put("/run/libvirt/qemu/%s.pid" % name, str(4100 + number))
    for module in ("kvm_intel", "kvm_amd"):
        if machine.text("/sys/module/%s/refcnt" % module) is not None:
            machine.put("/sys/module/%s/refcnt" % module, "%d\n" % len(running))


def _domain(libvirt, words):
    """The domain that is meant by its name, its id or its UUID."""
    if not words:
        raise Fails("command requires <domain> option")
    for each in libvirt["domains"]:
        if words[0] in (each["name"], str(each["id"]), each["uuid"]):
            return each
    raise Fails("failed to get domain '%s'" % words[0])


def _running(libvirt, words, what):
    """A domain that runs or is paused; what fails where it is off."""
    one = _domain(libvirt, words)
    if not one["id"]:
        raise Fails("Failed to %s domain '%s'" % (what, one["name"]), "Requested operation is not valid: domain is not running")
    return one


def _state(one):
    return "shut off" if not one["id"] else "paused" if one["paused"] else "running"


def _list(libvirt, flags, _words):
    found = [each for each in libvirt["domains"] if "--all" in flags or bool(each["id"]) != ("--inactive" in flags)]
    found.sort(key=lambda each: (not each["id"], each["id"], each["name"]))
    for flag, word in (("--name", "name"), ("--uuid", "uuid"), ("--id", "id")):
        if flag in flags:
            print("".join("%s\n" % (each[word] or "-") for each in found))
            return
    rows = [(str(each["id"] or "-"), each["name"], _state(each)) for each in found]
    widths = [max(map(len, column)) for column in zip(("Id", "Name", "State"), *rows)]
    lines = [" %-*s   %-*s   %s\n" % (widths[0], row[0], widths[1], row[1], row[2]) for row in [("Id", "Name", "State")] + rows]
    print(lines[0] + "-" * (sum(widths) + 9) + "\n" + "".join(lines[1:]))


def _define(libvirt, _flags, words):
    try:
        tree = ElementTree.parse(words[0]).getroot()
    except OSError as exc:
        raise Fails("Failed to open file '%s': %s" % (words[0], exc.strerror))
    memory = tree.find("memory")
    one = {"name": tree.findtext("name"), "uuid": tree.findtext("uuid") or str(uuid.uuid4()), "id": None, "paused": False, "persistent": True, "saved": False,
           "memory": int(int(memory.text) * UNITS[memory.get("unit", "KiB")]), "vcpus": int(tree.findtext("vcpu") or 1), "kind": tree.findtext("os/type"),
           "reason": "unknown", "xml": ElementTree.tostring(tree, encoding="unicode")}
    libvirt["domains"] = [each for each in libvirt["domains"] if each["name"] != one["name"]] + [one]
    print("Domain '%s' defined from %s\n" % (one["name"], words[0]))


def _undefine(libvirt, _flags, words):
    one = _domain(libvirt, words)
    one["persistent"] = False
    libvirt["domains"] = [each for each in libvirt["domains"] if each["id"] or each["persistent"]]
    print("Domain '%s' has been undefined\n" % one["name"])


def _start(libvirt, _flags, words):
    one = _domain(libvirt, words)
    if one["id"]:
        raise Fails("Domain is already active")
    number = libvirt.get("next_id") or 1 + max([each["id"] or 0 for each in libvirt["domains"]])
    libvirt["next_id"] = number + 1
    guest_clock.begin(one, one.get("kept", 0.0) if one["saved"] else 0.0)
    one.update(id=number, paused=False, reason="restored" if one["saved"] else "booted", saved=False)
    print("Domain '%s' started\n" % one["name"])


def _off(libvirt, one, reason):
    one.update(id=None, paused=False, reason=reason)
    libvirt["domains"] = [each for each in libvirt["domains"] if each["id"] or each["persistent"]]


def _destroy(libvirt, _flags, words):
    one = _running(libvirt, words, "destroy")
    _off(libvirt, one, "destroyed")
    print("Domain '%s' destroyed\n" % one["name"])


def _shutdown(libvirt, _flags, words):
    one = _running(libvirt, words, "shutdown")
    if not one["paused"]:  # one that is suspended does not notice
        _off(libvirt, one, "shutdown")
    print("Domain '%s' is being shutdown\n" % one["name"])


def _save(libvirt, _flags, words):
    one = _running(libvirt, words, "save")
    one.update(saved=True, kept=guest_clock.ran(one) if "started" in one else 0.0)
    _off(libvirt, one, "saved")
    print("\nDomain '%s' state saved by libvirt\n" % one["name"])


def _suspend(libvirt, _flags, words):
    one = _running(libvirt, words, "suspend")
    if one["name"] in libvirt["unpausable"]:
        why = os.strerror(getattr(errno, libvirt["unpausable"][one["name"]]))
        raise Fails("Failed to suspend domain '%s'" % one["name"], "internal error: unable to execute QEMU command 'stop': " + why)
    if "started" not in one:
        guest_clock.begin(one)
    if not one["paused"]:  # libvirt does not count
        guest_clock.hold(one, "virsh")
    one.update(paused=True, reason="user")
    print("Domain '%s' suspended\n" % one["name"])


def _resume(libvirt, _flags, words):
    one = _running(libvirt, words, "resume")
    if not one["paused"]:
        raise Fails("Failed to resume domain '%s'" % one["name"], "Requested operation is not valid: domain is already running")
    guest_clock.release(one, "virsh")
    one.update(paused=False, reason="unpaused")
    print("Domain '%s' resumed\n" % one["name"])


def _domstate(libvirt, flags, words):
    one = _domain(libvirt, words)
    print(_state(one) + (" (%s)" % one.get("reason", "unknown") if "--reason" in flags else "") + "\n")


def _dominfo(libvirt, _flags, words):
    one = _domain(libvirt, words)
    memory = "%d KiB" % one.get("memory", 1 << 21)
    rows = [("Id", one["id"] or "-"), ("Name", one["name"]), ("UUID", one["uuid"]), ("OS Type", one.get("kind", "hvm")), ("State", _state(one)),
            ("CPU(s)", one.get("vcpus", 1))]
    rows += [("CPU time", "%.1fs" % guest_clock.ran(one))] if one["id"] and "started" in one else []
    rows += [("Max memory", memory), ("Used memory", memory), ("Persistent", "yes" if one["persistent"] else "no"), ("Autostart", "disable"),
             ("Autostart Once", "disable"), ("Managed save", "yes" if one["saved"] else "no"), ("Security model", "none"), ("Security DOI", 0)]
    print("".join("%-15s %s\n" % (word + ":", value) for word, value in rows))


def _dumpxml(libvirt, _flags, words):
    one = _domain(libvirt, words)
    print(one.get("xml") or "<domain type='kvm'><name>%s</name><uuid>%s</uuid></domain>" % (one["name"], one["uuid"]))


def _domjobinfo(libvirt, _flags, words):
    one = _running(libvirt, words, "get job info of")
    print("%-17s %-12s\n" % ("Job type:", one.get("job", "None")))


def _one_word(word):
    def show(libvirt, _flags, words):
        print("%s\n" % (_domain(libvirt, words)[word] or "-"))
    return show


COMMANDS = {"list": _list, "define": _define, "undefine": _undefine, "start": _start, "destroy": _destroy, "shutdown": _shutdown, "managedsave": _save,
            "suspend": _suspend, "resume": _resume, "domstate": _domstate, "dominfo": _dominfo, "dumpxml": _dumpxml, "domjobinfo": _domjobinfo,
            "domid": _one_word("id"), "domname": _one_word("name"), "domuuid": _one_word("uuid")}
