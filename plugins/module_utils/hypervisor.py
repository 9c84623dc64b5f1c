# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs below and above this kernel: bare metal, Xen dom0, KVM host, or a guest or container of something."""
import re

from .cpu import number, settle

# what the firmware of a virtual machine calls itself: pattern over "sys_vendor product_name" -> type; the last one's rent out whole machines too
MACHINES = (
    (r"VMware", "vmware"), (r"Microsoft Corporation Virtual Machine", "hyper-v"), (r"^Xen\b", "xen"), (r"innotek|VirtualBox", "virtualbox"),
    (r"\bKVM\b|QEMU|OpenStack|RHEV|oVirt", "kvm"), (r"Parallels", "parallels"), (r"BHYVE", "bhyve"),
    (r"^Amazon EC2|Google Compute Engine|DigitalOcean|Nutanix|^Alibaba Cloud .*ECS", "kvm"),
)
INITIAL = {"ipc": 0xefffffff, "uts": 0xeffffffe, "pid": 0xeffffffc}  # the first namespaces' numbers (Linux include/linux/proc_ns.h)
LINE = r"(?m)^(?:\[[^]\n]*\] ?)?\(XEN\) (?:\[[^]\n]*\] )?"  # of the hypervisor itself: a guest's own lines, of any text, begin otherwise
LOG_FILES = ("/var/log/xen/console/hypervisor.log", "/var/log/xen/hypervisor.log")  # kept by xenconsoled where asked to; XenServer's the second


def facts(host, flags, machine, guests=True):
    """Section hypervisor: {"role", "type", "version", "xen", "guests"}; role is none, host, guest, or null where it cannot be told.

    flags: set of CPU 0's flags, None without an x86 processor; machine: "sys_vendor product_name" of the firmware, or None.
    """
    found = {"role": None, "type": None, "version": None, "xen": None, "guests": None}
    container = _container(host)
    if container:
        found.update(role="guest", type=container)
    elif host.text("/sys/hypervisor/type") == "xen" or host.exists("/proc/xen/capabilities"):
        _xen(host, found, guests)
    elif "hypervisor" in (flags or ()) or _machine(machine, MACHINES[:-1]):
        found.update(role="guest", type=_machine(machine))
    elif flags:
        kvm = next((module for module in ("kvm_intel", "kvm_amd") if host.exists("/sys/module/" + module)), None)
        _kvm_host(host, found, kvm, guests) if kvm else found.update(role="none")
    elif flags is not None:
        host.warn("neither Xen nor the processor's flags can be read: whether this is a guest is not known")
    return found


def _machine(text, among=MACHINES):
    return next((kind for pattern, kind in among if re.search(pattern, text or "")), None)


def numbers(text):
    """(4, 17) of Xen's version 4.17.7, or of a file such as xen-4.17-amd64.gz; None where there is none."""
    found = re.search(r"(?:^|xen-)(\d{1,4})\.(\d{1,4})", text or "")
    return found and tuple(map(int, found.groups()))


def _container(host):
    """What kind of container this is, or None. PID 1's environment names it (systemd's container interface)."""
    if all(host.link("/proc/self/ns/" + name) == "%s:[%d]" % (name, number) for name, number in INITIAL.items()):
        return None  # a machine started from a container's image keeps the image's marks
    if host.exists("/.dockerenv"):
        return "docker"
    if host.exists("/run/.containerenv"):
        return "podman"
    named = host.text("/run/systemd/container", 256)
    if not named and host.exists("/proc/1/environ"):
        named = (re.findall(r"(?:^|\0)container=([\w-]+)", host.text("/proc/1/environ") or "") or [None])[0]
    if not named:
        named = (re.findall(r"/(docker|lxc|kubepods|libpod)[/.-]", host.text("/proc/1/cgroup") or "") or [None])[0]
    if not named and host.exists("/proc/vz") and not host.exists("/proc/bc"):
        named = "openvz"
    pids = host.link("/proc/self/ns/pid")  # a service may have the other namespaces of its own
    return named or ("container" if pids and pids != "pid:[%d]" % INITIAL["pid"] else None)


def _kvm_host(host, found, module, guests):
    """A loaded module alone makes no host: most kernels load it by themselves. Guests or their manager do."""
    users = number(host.text("/sys/module/%s/refcnt" % module, 64), 10)
    folders = [folder for folder in ("/run/libvirt/qemu", "/run/qemu-server") if host.is_dir(folder)]
    manager = folders or any(host.exists(path) for path in ("/etc/libvirt/qemu", "/etc/pve", "/usr/sbin/libvirtd", "/usr/sbin/virtqemud"))
    if not users and not manager:
        found.update(role="none")
        return
    found.update(role="host", type="kvm")
    if guests and users is not None:
        running = [name for folder in folders for name in host.names(folder) if name.endswith(".pid") and name != "driver.pid"]
        if bool(users) == bool(running):  # each running machine holds the module
            found["guests"] = {"count": len(running), "states": None}
        else:
            host.warn("%s is in use by %d, and %d running guests are recorded: how many guests there are is not known" % (module, users, len(running)))


def _xen(host, found, guests):
    """Xen: which domain this is, and of dom0 all that can be told of the hypervisor."""
    base = "/sys/hypervisor/"
    major, minor, extra = [host.text(base + "version/" + part, 64) for part in ("major", "minor", "extra")]
    version = "%s.%s%s" % (major, minor, extra or "") if major and minor else None  # a domU may see "<denied>"
    capabilities = host.text("/proc/xen/capabilities", 4096)
    features = number(host.text(base + "properties/features", 64), 16)
    if capabilities:
        dom0 = "control_d" in capabilities
    elif features is not None:
        dom0 = bool(features >> 11 & 1)  # XENFEAT_dom0; xenfs is not mounted everywhere
    else:
        dom0 = None if capabilities is None else False  # mounted and empty: a domU
    found.update(type="xen", version=version if version and "<" not in version else None)
    if dom0 is None:
        host.warn("this is Xen, but neither xenfs (mount it on /proc/xen) nor /sys/hypervisor tells whether it is dom0")
        return
    found["role"] = "host" if dom0 else "guest"
    if not dom0:
        return
    kind = (host.text(base + "guest_type", 64) or "").lower() or None
    info = host.run(["xl", "info"])
    said = dict(re.findall(r"^(\w+)\s*: (.*)$", info.out, re.M)) if info and info.rc == 0 else {}
    if host.live and not said:
        host.warn("xl info: no answer; without it neither Xen's command line nor the number of physical CPUs is known (are the matching xen-utils installed?)")
    found["version"] = said.get("xen_version", "").strip() or found["version"]
    patches = host.run(["xen-livepatch", "list"])
    listed = [name for name in host.names("/sys/devices/system/xen_cpu") if re.match(r"xen_cpu\d+$", name)]  # dom0's kernel lists the machine's
    found["xen"] = {"dom0": kind, "physical_cpus": number(said.get("nr_cpus"), 10) or len(listed) or None,
                    "threads_per_core": number(said.get("threads_per_core"), 10),
                    "command_line": said["xen_commandline"].strip() if "xen_commandline" in said else None, "ucode": None, "tool": None, "tool_features": None,
                    "livepatches": re.findall(r"^\s*(\S+)\s*\|\s*APPLIED", patches.out, re.M) if patches and patches.rc == 0 else None}
    listing = host.run(["xl", "list"]) if guests else None
    if listing and listing.rc == 0:
        states = [line.split()[-2] for line in listing.out.splitlines()[2:] if len(line.split()) >= 6]  # after the header and Domain-0
        named = [next((word for letter, word in zip("pscd", ("paused", "shutdown", "crashed", "dying")) if letter in state), "running") for state in states]
        found["guests"] = {"count": len(named), "states": dict((word, named.count(word)) for word in set(named))}


def xen_revisions(host, cpu_facts, xen):
    """Put the hypervisor's own word on revisions into cpu_facts and xen (tool, tool_features); returns (revision, pf_mask) or Nones.

    dom0's /proc/cpuinfo is what the processor ran when dom0 booted and stays so after a late load (LAB). xen-ucode speaks of CPU 0
    alone; the log names each CPU it updated, first threads only with Intel; a log that lost its beginning proves nothing by silence.
    """
    booted = cpu_facts["revision"]
    known, source, pf_mask = {}, None, None
    result = host.run(["xl", "dmesg"])
    log = result.out if result and result.rc == 0 else "".join(_end(host, path) for path in LOG_FILES if host.exists(path))
    whole, log = _since_boot(log)
    options = re.search(LINE + r"Command line: (.*)", log)
    if options and xen["command_line"] is None:
        xen["command_line"] = options.group(1).strip()
    bsp = re.search(LINE + r"BSP microcode revision: (0x[0-9a-f]+)", log)
    if bsp:
        known[0], source = int(bsp.group(1), 16), "xl-dmesg"
    elif whole and number(booted) is not None:
        known[0], source = number(booted), "cpuinfo"
    for index, revision in re.findall(LINE + r"microcode: CPU(\d{1,5}) (?:updated from revision|update rev) 0x[0-9a-f]+ to "
                                      r"(?:0x[0-9a-f]+ failed, result )?(0x[0-9a-f]+)\b(?! failed)", log):
        known[int(index)], source = int(revision, 16), "xl-dmesg"
    tool = xen["tool"] = host.which("xen-ucode")
    # without arguments every version prints its usage, some the CPU as well (XEN tools/misc/xen-ucode.c); nothing is loaded
    usage = host.run([tool]) if tool else None
    if usage and usage.rc > 125:
        xen["tool"] = None  # Debian's wrapper lies there without the xen-utils that match
    elif usage:
        said = usage.err + usage.out
        xen["tool_features"] = sorted(word for word in ("show-cpu-info", "force") if word in said or word == "show-cpu-info" and "Current CPU" in said)
        shown = _shown(said)
        if not shown and "show-cpu-info" in said:
            asked = host.run([tool, "--show-cpu-info" if "--show-cpu-info" in said else "show-cpu-info"])
            shown = _shown(asked.out) if asked else None
        if shown:
            if 0 in known and known[0] != shown[0]:
                known.clear()  # a load that the log no longer shows: what it says of the others is old too
            (known[0], pf_mask), source = shown, "xen-ucode"
    physical = xen["physical_cpus"]
    unread = physical - len(known) if physical else None
    if not known:
        host.warn("dom0's /proc/cpuinfo shows %s, the revision when dom0 booted; whether a later load changed it is not known: %s"
                  % (booted or "no revision", "the hypervisor's log has lost its beginning" if log else "the hypervisor's log could not be read")
                  + "; xen-ucode of Xen 4.18 and newer would tell")
    elif unread:
        host.warn("%d of the machine's %d CPUs: the hypervisor does not show their revision" % (unread, physical))
    # dom0's CPUs are virtual: what it sees of cores, caches and TSX is not the machine's
    cpu_facts.update(boot_revision=booted, smt=None, llc_per_core=None, tsx=None)
    running = settle(host, cpu_facts, known, source, unread)
    return running if known else None, pf_mask


def _end(host, path, size=4 << 20):
    """The last bytes of a log as text; a log so long may have lost the last boot's beginning."""
    stream = host.open(path)
    if stream is None:
        return ""
    with stream:
        try:
            stream.seek(max(0, stream.seek(0, 2) - size))
            return stream.read(size).decode("utf-8", "replace")
        except OSError as exc:
            host.warn("%s: %s" % (path, exc.strerror))
            return ""


def _since_boot(log):
    """(True where the log reaches back to boot, the log since then)."""
    starts = [match.start() for match in re.finditer(LINE + r"Xen version \d", log)]
    return bool(starts), log[starts[-1]:] if starts else log


def _shown(text):
    """(revision, pf_mask or None) of CPU 0 as xen-ucode shows it: upstream's one line, or XCP-ng's several."""
    revision = re.search(r"revision(?: is)?:? (0x[0-9a-f]+)", text)
    pf_mask = re.search(r"(?:\bpf|processor flags?(?: is| are)?:?) (0x[0-9a-f]+)", text)
    return (int(revision.group(1), 16), pf_mask and int(pf_mask.group(1), 16)) if revision else None
