#!/usr/bin/python
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import absolute_import, division, print_function
__metaclass__ = type

# Documentation: hypervisor_guest.yml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.fleet.microcode.plugins.module_utils import cpu, hypervisor, journal
from ansible_collections.fleet.microcode.plugins.module_utils.guests import guest, lease, saved, states
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host


def reach(host, state, names, seconds, folder, check):
    """What the module returns. GuestError, Busy, JournalError."""
    machine = " ".join(host.text("/sys/class/dmi/id/" + word, 4096) or "" for word in ("sys_vendor", "product_name"))
    below = hypervisor.facts(host, cpu.read(host)[2], machine, guests=False)
    try:
        driver = guest.driver(host, below)
    except guest.GuestError:
        if state != "running" or names or lease.open_leases(host):
            raise
        driver = None  # whoever manages them, we have paused none
    done = states.reach(host, driver, state, names, seconds, folder, check)
    held = dict((guest.uuid, one["left"]) for one in lease.open_leases(host) if not one["void"] for guest in one["guests"])
    before, after = [dict(("%s %s" % (guest.name, guest.uuid), guest.state) for guest in done[word]) for word in ("before", "after")]
    return {"changed": done["changed"], "hypervisor": below["type"] if driver else None, "tool": driver and driver.tool,
            "guests": [dict(guest._asdict(), held=held.get(guest.uuid)) for guest in done["after"]],
            "left": [{"uuid": guest.uuid, "name": guest.name, "state": guest.state, "why": why} for guest, why in done["left"]],
            "diff": {"before": before, "after": after}}


def main():
    module = AnsibleModule(
        argument_spec={"name": {"type": "list", "elements": "str", "aliases": ["names"]}, "state": {"choices": ["paused", "running", "saved", "restored"]},
                       "for": {"type": "int"}, "folder": {"type": "path", "default": saved.FOLDER}},
        required_if=[("state", "paused", ("for",))],
        supports_check_mode=True,
    )
    state, seconds = module.params["state"], module.params["for"]
    if seconds is not None and not 1 <= seconds <= 3600:
        module.fail_json(msg="for: %d; guests are paused for 1 to 3600 seconds: their clocks jump by as much, and who waits for them gives up" % seconds)
    host, problem, result = Host(), None, {}
    try:
        result = reach(host, state, module.params["name"], seconds, module.params["folder"].rstrip("/"), module.check_mode)
    except (guest.GuestError, journal.Busy, journal.JournalError) as exc:
        problem = str(exc)
    for text in host.warnings:
        module.warn(text)
    if problem:
        module.fail_json(msg=problem)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
