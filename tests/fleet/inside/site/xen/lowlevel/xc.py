# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Xen's bindings for Python, those of their calls that list and pause domains, as tests/lab/recordings/xen-python-4.17.yml has them."""
import errno
import importlib.util
import os
import sys
import traceback
import uuid

_INSIDE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))


class Error(Exception):
    """A call failed; args as the real one has them."""


def _hypervisor():
    """The module of the simulated hypervisor, which bears the name of the package that this is in."""
    if _INSIDE not in sys.path:
        sys.path.append(_INSIDE)
    spec = importlib.util.spec_from_file_location("hypervisor", _INSIDE + "/xen.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def open_machine(name):
    """(hypervisor, Machine), or OSError; name: of the device that would be asked."""
    hypervisor = _hypervisor()
    from machine import Machine  # pylint: disable=import-outside-toplevel
    machine = Machine()
    number = errno.ENOENT if machine.state()["xen"] is None else errno.EACCES if os.geteuid() else 0
    if number:
        sys.stderr.write(name + ": " + os.strerror(number) + "\n")
        raise OSError(number, os.strerror(number))
    return hypervisor, machine


class xc:  # pylint: disable=invalid-name
    """The handle of the hypervisor's own calls."""

    def __init__(self):
        try:
            self._xen, self._machine = open_machine("xencall: error: Could not obtain handle on privileged command interface")
        except OSError as exc:
            raise Error(1, "Internal error", "xc_interface_open failed: " + exc.strerror) from None

    def _change(self, call, domid):
        try:
            with self._machine.change() as state:
                call(self._machine, state, domid, "xc")
        except OSError as exc:
            raise Error(exc.errno, exc.strerror) from None
        return 0

    def domain_pause(self, domid):
        """Count one more pause."""
        return self._change(self._xen.pause, domid)

    def domain_unpause(self, domid):
        """Count one pause less."""
        return self._change(self._xen.unpause, domid)

    def domain_getinfo(self, first_dom=0, max_doms=1024):
        """Domains from this id on."""
        state = self._machine.state()
        found = [domain for domain in self._xen.domains(state) if domain["id"] >= first_dom][:max_doms]
        if not found:
            raise Error(errno.ESRCH, os.strerror(errno.ESRCH))
        return [self._info(state, domain) for domain in found]

    def _info(self, state, domain):
        runs, reason = not domain["pauses"] and domain["shutdown"] is None, domain["shutdown"]
        return {"domid": domain["id"], "online_vcpus": domain["vcpus"], "max_vcpu_id": domain["vcpus"] - 1, "dying": 0,
                "hvm": int(domain["words"].get("type", "pv") == "hvm"), "crashed": int(reason == 3), "shutdown": int(reason is not None),
                "paused": int(domain["pauses"] > 0), "blocked": 0,
                "running": int(runs), "mem_kb": domain["memory"] << 10, "cpu_time": int(self._xen.seconds(state, domain) * 1e9),
                "maxmem_kb": domain["memory"] << 10, "ssidref": 0, "shutdown_reason": 255 if reason is None else reason, "cpupool": 0,
                "handle": list(uuid.UUID(domain["uuid"]).bytes)}

    def _words(self):
        return dict(self._xen.info(self._machine, self._machine.state()))

    def physinfo(self):
        """About the machine."""
        said = self._words()
        numbers = dict((word, said[word]) for word in ("cores_per_socket", "nr_cpus", "nr_nodes", "threads_per_core"))
        return dict(numbers, cpu_khz=int(float(said["cpu_mhz"]) * 1000), hw_caps=said["hw_caps"], virt_caps=said["virt_caps"], scrub_memory=0,
                    free_memory=said["free_memory"] << 10, total_memory=said["total_memory"] << 10)

    def xeninfo(self):
        """About the hypervisor."""
        said = self._words()
        return dict((word, said[word]) for word in (
            "xen_major", "xen_minor", "xen_extra", "xen_caps", "xen_pagesize", "platform_params", "xen_changeset", "xen_commandline", "cc_compiler",
            "cc_compile_by", "cc_compile_domain", "cc_compile_date"))


def _without_us(kind, value, trace):
    """The traceback of an error, without these lines: where the real bindings are, there are none of Python's."""
    depth, here = 0, trace
    while here and here.tb_frame.f_code.co_filename != __file__:
        depth, here = depth + 1, here.tb_next
    traceback.print_exception(kind, value, trace, limit=depth if here else None)


sys.excepthook = _without_us
