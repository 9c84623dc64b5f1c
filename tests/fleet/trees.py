# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recorded hosts: small trees of files as they would be copied from real machines, each made from a few lines of YAML.

    python trees.py FOLDER         every host of hosts/*.yml under FOLDER, and an inventory.yml that reads them through assess_sysroot

A host's YAML has these keys; all but distro and cpu may be left out:

    about, groups      what the host shows; inventory groups
    vars, count        variables of the inventory, such as its rack and pool; more hosts of this kind, numbered
    simulate           settings of a simulated host (simulated.py): {offered, faults, firmware, xl_seconds, python}
    distro             a name of distros in parts.yml
    cpu                {kind: a name of cpus in parts.yml, sockets, cores, threads, vcpus (a guest's or dom0's), revision, revisions: {revision: [cpu]},
                       offline: [cpu]}
    arch               aarch64, for a processor that takes no microcode; cpu then holds only count
    hypervisor         {is: metal}, {is: kvm-host, running, manager: libvirt or proxmox}, {is: container, engine}, {is: guest, of: kvm, vmware or hyper-v},
                       {is: guest, of: xen, mode: pv, pvh or hvm, version}, {is: dom0, mode: pv or pvh, version, physical, options, log: {path: [line]},
                       xenfs: false where not mounted, wrapper: false where xl is no script of Debian's}; metal may say kvm_module: true, loaded but unused
    kernels            newest first: {version, running: true, carries: [update], main: gzip, zstd or null for no compressed rest}
    late_loading       the kernels have the reload file; a kernel may say otherwise
    boot               {system: grub, bls, ostree, systemd-boot, extlinux, proxmox-boot-tool or none; uefi; images: [/boot/….img read before the initrd]}
    init               sysv, where it is not systemd
    options, mounts    kernel options; {mount point: [type, device] or [type, device, ro]}
    packages           {name, version, files: {path: [update]}}; a path without / in front lies in the firmware folder, *.img becomes an early initrd,
                       *.xz is compressed
    updates            more of what parts.yml has under that name
    firmware           the files of /sys/class/dmi/id; vulnerabilities, tainted: as in sysfs and /proc
    damage             {path: [cut, bytes that stay] or [flip, offset of the byte]}
    files, links       {path: text}, {path: target}: anything else, written as it is
    expect             the main facts that a correct reader finds, as dotted paths (see differences)
    not_yet            the same, of facts that our readers do not find so far; a test tells when one of them is found

Where the forms come from: /proc and /sys as Linux's arch/x86/kernel/cpu/proc.c, drivers/base, LNX-core and Documentation/ABI describe them; what
dom0 shows as LAB observed it, bits of features from XEN; initrds as LNX-core reads them and initramfs-tools, dracut and mkinitcpio write them.
"""
import hashlib
import re
import sys
import uuid
from pathlib import Path

import yaml

try:
    from . import made_grub, made_microcode, made_records
except ImportError:  # run as a program: the makers lie beside it
    import made_grub
    import made_microcode
    import made_records

HERE = Path(__file__).resolve().parent
CPU = "/sys/devices/system/cpu/"
LOADER_INFO = "/sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"  # systemd's boot loader interface
INTEL_FLAGS = """fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush dts acpi mmx fxsr sse sse2 ss ht tm pbe syscall nx pdpe1gb
rdtscp lm constant_tsc art arch_perfmon pebs bts rep_good nopl xtopology nonstop_tsc cpuid aperfmperf pni pclmulqdq dtes64 monitor ds_cpl vmx est tm2 ssse3
sdbg fma cx16 xtpr pdcm pcid sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave avx f16c rdrand lahf_lm abm 3dnowprefetch cpuid_fault ssbd ibrs
ibpb stibp fsgsbase tsc_adjust bmi1 avx2 smep bmi2 erms invpcid xsaveopt dtherm ida arat pln pts md_clear flush_l1d""".split()
AMD_FLAGS = """fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm
constant_tsc rep_good nopl nonstop_tsc cpuid extd_apicid aperfmperf rapl pni pclmulqdq monitor ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c
rdrand lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs skinit wdt tce topoext perfctr_core perfctr_nb bpext mwaitx cpb
hw_pstate ssbd mba ibrs ibpb stibp vmmcall fsgsbase bmi1 avx2 smep bmi2 cqm rdt_a rdseed adx smap clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 xsaves
clzero irperf xsaveerptr rdpru wbnoinvd arat""".split()
PHYSICAL_FLAGS = "dts acpi ss tm pbe art pebs bts dtes64 ds_cpl vmx svm est tm2 sdbg xtpr pdcm skinit wdt tce ibs mwaitx dtherm ida pln pts monitor".split()
# XENFEAT bits (XEN public/features.h): a PV guest has 5 to 7 and 13, a translated one 0, 2, 8, 9 and 13; 11 is dom0; 16 and 17 say whether mapped directly
XEN_FEATURES = {"pv": 0x220e0, "pvh": 0x12305, "hvm": 0x12705}
DOM0 = 1 << 11
XEN_CFG = """echo "Including Xen overrides from /etc/default/grub.d/xen.cfg" >&2
%sGRUB_CMDLINE_XEN_DEFAULT="%s"
if [ "${XEN_OVERRIDE_GRUB_DEFAULT:-1}" = 1 ]; then
    [ -n "$XEN_OVERRIDE_GRUB_DEFAULT" ] ||
        grub_warn "GRUB_DEFAULT changed to boot into Xen by default! Edit /etc/default/grub.d/xen.cfg to avoid this warning."
    GRUB_DEFAULT="$GRUB_DISTRIBUTOR GNU/Linux, with Xen hypervisor"
fi
"""


class Tree:
    """A folder that stands for the root of a machine."""

    def __init__(self, root):
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)

    def at(self, path):
        """Where an absolute path of the machine lies; the folder above it is made. ValueError where it leads out of the machine."""
        if ".." in path.split("/"):
            raise ValueError("%s: a path of a machine goes down only" % path)
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def put(self, path, content="", mode=None):
        """Write text or bytes."""
        place = self.at(path)
        place.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        if mode:
            place.chmod(mode)

    def folder(self, path):
        """An empty folder."""
        self.at(path + "/x")

    def link(self, path, target):
        """A symbolic link."""
        self.at(path).symlink_to(target)

    def fill(self, base, files):
        """Write {name: value} below base, each with a line end."""
        for name, value in files.items():
            self.put("%s/%s" % (base, name), "%s\n" % value)


def load(path):
    """What a YAML file says."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


PARTS = load(HERE / "parts.yml")


def hosts():
    """{name: spec} of all recorded hosts."""
    return dict((path.stem, dict(load(path), name=path.stem)) for path in sorted((HERE / "hosts").glob("*.yml")))


def ranges(numbers):
    """The kernel's text for a set of CPUs: 0-3,8."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(first) if first == last else "%d-%d" % (first, last) for first, last in found)


def identity(name, what):
    """A UUID that is always the same for this host and purpose."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, "%s.%s.example" % (what, name)))


def machine_id(name):
    """/etc/machine-id."""
    return identity(name, "machine").replace("-", "")


# --- /proc and /sys ---

class Processors:
    """The logical CPUs of a host: [(index, package, core, thread)], numbered as firmware and Linux do."""

    def __init__(self, spec):
        said, self.kind = spec["cpu"], PARTS["cpus"][spec["cpu"]["kind"]]
        kind, sockets, single = self.kind, said.get("sockets", 1), self.kind.get("single", 0)
        cores, threads = (said.get(word, kind[word]) for word in ("cores", "threads"))
        if "vcpus" in said:
            cores, threads, sockets, single = said["vcpus"], 1, 1, 0
        if single:  # hybrid: threads of a core side by side, then the cores of one thread
            places = [(0, core, thread) for core in range(cores) for thread in range(threads)] + [(0, cores + core, 0) for core in range(single)]
        else:
            places = [(socket, core, thread) for thread in range(threads) for socket in range(sockets) for core in range(cores)]
        self.all = [(index,) + place for index, place in enumerate(places)]
        self.cores, self.shared = cores + single, kind.get("l3_cores", cores + single)
        self.offline = set(said.get("offline", ()))
        self.revision = dict((index, said["revision"]) for index in range(len(places)))
        for revision, those in said.get("revisions", {}).items():
            self.revision.update((index, int(revision)) for index in those)  # text in what JSON kept
        self.amd = kind["name"].startswith("AMD")
        self.virtual = spec["hypervisor"]["is"] in ("guest", "dom0")
        signature = kind["signature"]
        self.family = (signature >> 8 & 15) + (signature >> 20 if signature >> 8 & 15 == 15 else 0)
        self.model, self.stepping = signature >> 4 & 15 | signature >> 12 & 0xf0, signature & 15
        flags = (AMD_FLAGS if self.amd else INTEL_FLAGS) + kind.get("flags", "").split()
        if self.virtual:
            flags = [flag for flag in flags if flag not in PHYSICAL_FLAGS]
            flags.insert(flags.index("rdrand") + 1, "hypervisor")
        self.flags = " ".join(flags)

    @property
    def online(self):
        """The CPUs that /proc/cpuinfo shows."""
        return [place for place in self.all if place[0] not in self.offline]

    def cpuinfo(self):
        """/proc/cpuinfo: numbers are decimal, but for the revision, whose line is missing where it is 0."""
        blocks, width = [], max(1, (self.cores - 1).bit_length())
        for index, package, core, thread in self.online:
            siblings = sum(1 for place in self.online if place[1] == package)
            apic = package << width + 1 | core << 1 | thread
            lines = [("processor\t", index), ("vendor_id\t", "AuthenticAMD" if self.amd else "GenuineIntel"), ("cpu family\t", self.family),
                     ("model\t\t", self.model), ("model name\t", self.kind["name"]), ("stepping\t", self.stepping),
                     ("microcode\t", "0x%x" % self.revision[index]), ("cpu MHz\t\t", "%d.000" % self.kind["mhz"]),
                     ("cache size\t", "%d KB" % self.kind.get("cache", self.kind["l3"])), ("physical id\t", package), ("siblings\t", siblings),
                     ("core id\t\t", core), ("cpu cores\t", self.cores), ("apicid\t\t", apic), ("initial apicid\t", apic), ("fpu\t\t", "yes"),
                     ("fpu_exception\t", "yes"), ("cpuid level\t", 16 if self.amd else 22), ("wp\t\t", "yes"), ("flags\t\t", self.flags),
                     ("bugs\t\t", "sysret_ss_attrs spectre_v1 spectre_v2 spec_store_bypass" if self.amd else "spectre_v1 spectre_v2 spec_store_bypass swapgs"),
                     ("bogomips\t", "%d.00" % (2 * self.kind["mhz"])), ("clflush size\t", 64), ("cache_alignment\t", 64),
                     ("address sizes\t", "46 bits physical, 48 bits virtual")]
            blocks.append("".join("%s: %s\n" % line for line in lines if self.revision[index] or line[0] != "microcode\t") + "power management:\n")
        return "\n".join(blocks) + "\n"

    def sysfs(self, tree):
        """/sys/devices/system/cpu: an offline CPU keeps its folder, but neither topology, caches nor microcode."""
        everyone = [place[0] for place in self.all]
        tree.fill(CPU, {"online": ranges(place[0] for place in self.online), "possible": ranges(everyone), "present": ranges(everyone),
                        "offline": ranges(self.offline), "smt/active": int(any(place[3] for place in self.online)),
                        "smt/control": "on" if any(place[3] for place in self.all) else "notsupported"})
        for index, package, core, _thread in self.all:
            base = CPU + "cpu%d" % index
            if index:
                tree.put(base + "/online", "%d\n" % (index not in self.offline))
            if index in self.offline:
                continue
            peers = [place for place in self.online if place[1] == package]
            tree.fill(base + "/topology", {"core_id": core, "physical_package_id": package,
                                           "thread_siblings_list": ranges(place[0] for place in peers if place[2] == core)})
            tree.fill(base + "/cache/index3", {"level": 3, "type": "Unified", "size": "%dK" % self.kind["l3"],
                                               "shared_cpu_list": ranges(place[0] for place in peers if place[2] // self.shared == core // self.shared)})
            if not self.virtual:  # LNX-core: the loader is off where CPUID's hypervisor bit is set, and then there is no folder
                tree.fill(base + "/microcode", {"version": "0x%x" % self.revision[index], "processor_flags": "0x%x" % self.kind.get("pf_mask", 0)})


def processors(tree, spec):
    """/proc/cpuinfo and /sys/devices/system/cpu."""
    if spec.get("arch") == "aarch64":
        count = spec["cpu"]["count"]
        tree.put("/proc/cpuinfo", "".join(
            "processor\t: %d\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
            "asimddp ssbs\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\n" % index
            for index in range(count)))
        tree.fill(CPU, dict.fromkeys(("online", "possible", "present"), ranges(range(count))))
        tree.put(CPU + "offline", "\n")
    else:
        cpus = Processors(spec)
        tree.put("/proc/cpuinfo", cpus.cpuinfo())
        cpus.sysfs(tree)
        if not cpus.virtual:
            tree.folder(CPU + "microcode")
            if spec.get("late_loading"):
                tree.put(CPU + "microcode/reload", bytes(4096), 0o200)
    tree.fill(CPU + "vulnerabilities", spec.get("vulnerabilities", {}))
    if spec["hypervisor"]["is"] != "container":
        names = dict({"bios_vendor": spec.get("firmware", {}).get("sys_vendor")}, **spec.get("firmware", {}))
        tree.fill("/sys/devices/virtual/dmi/id", dict((name, value) for name, value in names.items() if value))
        tree.link("/sys/class/dmi/id", "../../devices/virtual/dmi/id")


def kernel_words(tree, spec, distro, running):
    """What the running kernel says of itself, and what is mounted."""
    name, version = spec["name"], running["version"]
    loader = {"systemd-boot": "", "proxmox-boot-tool": ""}.get(spec["boot"]["system"], "BOOT_IMAGE=%s " % boot_path(spec, distro["kernel"], version))
    if spec["hypervisor"]["is"] == "dom0":
        loader = "placeholder "  # XEN and GRUB's 20_linux_xen: a word stands where the file's name was
    tree.put("/proc/cmdline", "%sroot=UUID=%s %s\n" % (loader, identity(name, "root"), spec["options"]))
    tree.put("/proc/version", "Linux version %s (%s) (gcc 13.3.0, GNU ld 2.42) #1 SMP PREEMPT_DYNAMIC Tue Nov 10 09:12:44 UTC 2026\n"
             % (version, distro["compiler"]))
    tree.fill("/proc/sys/kernel", {"osrelease": version, "ostype": "Linux", "hostname": name, "tainted": spec.get("tainted", 0),
                                   "random/boot_id": identity(name, "boot")})
    tree.put("/sys/kernel/kexec_loaded", "0\n")
    tree.put("/etc/hostname", name + "\n")
    tree.put("/etc/machine-id", machine_id(name) + "\n")
    mounts, table = spec["mounts"], []
    for number, (place, (kind, device, *how)) in enumerate(sorted(dict({"/proc": ["proc", "proc"], "/sys": ["sysfs", "sysfs"]}, **mounts).items())):
        table.append((number + 22, 1 if place == "/" else 22, block_device(tree, device, number), place, (how or ["rw"])[0], kind, device))
    tree.put("/proc/self/mountinfo", "".join("%d %d %s / %s %s,relatime shared:1 - %s %s rw\n" % row for row in table))
    tree.put("/proc/self/mounts", "".join("%s %s %s %s,relatime 0 0\n" % (row[6], row[3], row[5], row[4]) for row in table))
    tree.link("/proc/mounts", "self/mounts")
    if systemd(spec, distro):
        tree.folder("/run/systemd/system")  # sd_booted(3)


def systemd(spec, distro):
    """Whether systemd runs the machine; in containers it is left out."""
    return "init" not in spec and distro["packaging"] != "apk" and spec.get("hypervisor", {}).get("is") != "container"


def block_device(tree, device, number):
    """major:minor of a mount's source; sysfs then has its folder, two links to it, and what tells a mapped or mirrored one."""
    match = re.match(r"/dev/(?:mapper/(?P<mapper>\S+)|(?P<md>md)(?P<array>\d+)|(?P<disk>(?P<kind>sd|xvd|vd)[a-z]|(?P<nvme>nvme)\S+?p)(?P<part>\d+))$", device)
    if not match:
        return "0:%d" % (21 + number)
    if match.group("mapper"):
        name, major, minor = "dm-%d" % number, 253, number
        files = {"dm/name": match.group("mapper"), "dm/uuid": "LVM-" + hashlib.sha256(device.encode()).hexdigest()}
    elif match.group("md"):
        name, major, minor, files = "md" + match.group("array"), 9, match.group("array"), {"md/level": "raid1", "md/raid_disks": 2}
    else:
        name, minor, files = device[5:], match.group("part"), {"partition": match.group("part")}
        major = {"sd": 8, "xvd": 202, "vd": 254, "nvme": 259}[match.group("kind") or match.group("nvme")]
    home = "devices/%s/block/%s" % ("virtual" if major in (253, 9) else "pci0000:00/0000:00:17.0", name)
    tree.fill("/sys/" + home, dict(files, dev="%s:%s" % (major, minor)))
    tree.link("/sys/dev/block/%s:%s" % (major, minor), "../../" + home)
    tree.link("/sys/class/block/" + name, "../../" + home)
    return "%s:%s" % (major, minor)


# --- kernels, boot loaders, packages ---

def boot_path(spec, pattern, version):
    """The name of a kernel or initrd as the boot loader sees it: below /boot, unless that is a partition of its own."""
    return ("/" if "/boot" in spec["mounts"] else "/boot/") + pattern.format(v=version)


def kernels(tree, spec, distro, updates):
    """/boot and /lib/modules. Files that only have to be there say what they stand for."""
    for kernel in spec["kernels"]:
        version = kernel["version"]
        tree.put("/boot/" + distro["kernel"].format(v=version), "stands for Linux %s\n" % version)
        if "carries" in kernel:
            carried = [updates[name] for name in kernel["carries"]]
            tree.put("/boot/" + distro["initrd"].format(v=version), made_microcode.initrd(carried, distro["tool"], kernel.get("main", "gzip")))
        tree.put("/lib/modules/%s/modules.dep" % version)
        late = "CONFIG_MICROCODE_LATE_LOADING=y" if kernel.get("late_loading", spec.get("late_loading")) else "# CONFIG_MICROCODE_LATE_LOADING is not set"
        old = [int(part) for part in re.findall(r"\d+", version)[:2]]  # the option came with 5.19 and Intel's and AMD's own went with 6.6
        config = ["CONFIG_X86=y", "CONFIG_XEN_DOM0=y", "CONFIG_MICROCODE=y"]
        config += ["CONFIG_MICROCODE_INTEL=y", "CONFIG_MICROCODE_AMD=y"] * (old < [6, 6]) + [late] * (old >= [5, 19])
        if spec.get("arch") == "aarch64":
            config = ["CONFIG_ARM64=y"]
        place = {"pacman": "/lib/modules/%s/config", "rpm": "/lib/modules/%s/config"}.get(distro["packaging"], "/boot/config-%s")
        tree.put(place % version, "\n".join(config) + "\n")
        if distro["packaging"] == "pacman":
            tree.put("/lib/modules/%s/pkgbase" % version, "linux\n")
        if distro["packaging"] == "rpm":
            tree.put("/boot/config-" + version, "\n".join(config) + "\n")


def initrd_settings(tree, distro):
    """What the tool that builds initrds is told by its package; hostonly is the choice of distributions with rpm."""
    if distro["tool"] == "initramfs-tools":
        tree.put("/etc/initramfs-tools/update-initramfs.conf", "update_initramfs=yes\nbackup_initramfs=no\n")
        for name in ("conf.d", "hooks"):
            tree.folder("/etc/initramfs-tools/" + name)
    elif distro["tool"] == "dracut":
        tree.folder("/etc/dracut.conf.d")
        if distro["packaging"] == "rpm":
            tree.put("/usr/lib/dracut/dracut.conf.d/01-dist.conf", 'hostonly="yes"\n')


def root_options(spec):
    """The kernel's options in a boot entry."""
    return "root=UUID=%s %s" % (identity(spec["name"], "root"), spec["options"])


def grub(tree, spec, distro):
    """GRUB with its generated configuration, or with BLS entries."""
    base, system, newest, name = "/boot/" + distro["grub"], spec["boot"]["system"], spec["kernels"][0]["version"], distro["grub_name"]
    bls = system in ("bls", "ostree")
    entry = "ostree-%d" if system == "ostree" else machine_id(spec["name"]) + "-%s"
    saved = "saved_entry=%s\nboot_success=1\n" % (entry % newest) if system == "bls" else ""
    text = "# GRUB Environment Block\n" + saved
    tree.put(base + "/grubenv", text + "#" * (1024 - len(text)))
    dom0 = spec["hypervisor"] if spec["hypervisor"]["is"] == "dom0" else None
    settings = {"GRUB_DEFAULT": "saved" if bls else "0", "GRUB_TIMEOUT": "5", "GRUB_DISTRIBUTOR": name, "GRUB_CMDLINE_LINUX": "",
                "GRUB_CMDLINE_LINUX_DEFAULT": re.sub(r"^r[ow] ?", "", spec["options"])}
    text = "".join('%s=%s\n' % (key, value if value.isalnum() else '"%s"' % value) for key, value in settings.items())
    if system != "ostree":
        tree.put("/etc/default/grub", text + "GRUB_ENABLE_BLSCFG=true\n" * bls)
    title, above = made_grub.title(settings, distro["packaging"] != "rpm"), ""
    if bls:
        menu = made_grub.section("10_linux", "insmod blscfg\nblscfg\n")
        for number, kernel in enumerate(reversed(spec["kernels"]), 1):  # ostree numbers its entries, the newest has the highest
            version = kernel["version"]
            tree.put("/boot/loader/entries/%s.conf" % (entry % (number if system == "ostree" else version)), "".join(line + "\n" for line in (
                "title %s (%s)" % (distro["os_release"]["PRETTY_NAME"], version), "version " + version, "linux " + boot_path(spec, distro["kernel"], version),
                "initrd " + boot_path(spec, distro["initrd"], version), "options %s $tuned_params" % root_options(spec), "grub_users $grub_users",
                "grub_arg --unrestricted", "grub_class " + distro["os_release"]["ID"])))
    else:
        early = [boot_path(spec, each.rsplit("/", 1)[1], "") for each in spec["boot"].get("images", ())]
        installed = [made_grub.Kernel(each["version"], boot_path(spec, distro["kernel"], each["version"]),
                                      early + [boot_path(spec, distro["initrd"], each["version"])] * ("carries" in each)) for each in spec["kernels"]]
        root = {"word": "UUID=" + identity(spec["name"], "root"), "id": identity(spec["name"], "root")}
        menu = made_grub.section("10_linux", made_grub.linux(settings, title, installed, root))
        above = made_grub.xen(settings, title, xens(tree, spec, distro, settings), installed, root) if dom0 else above
    parts = (made_grub.HEADER, made_grub.section("00_header", made_grub.header(settings)), menu, made_grub.section("20_linux_xen", above),
             made_grub.section("41_custom", made_grub.CUSTOM))
    tree.put(base + "/grub.cfg", "\n".join(parts), 0o600)


def xens(tree, spec, distro, settings):
    """The files of Xen in /boot, newest first, and what its package sets for GRUB."""
    dom0, debian = spec["hypervisor"], distro["packaging"] == "dpkg"
    name = "xen-%s-amd64" % ".".join(dom0["version"].split(".")[:2])
    for end in [".gz"] + [".efi", ".config"] * debian:
        tree.put("/boot/" + name + end, "stands for Xen %s\n" % dom0["version"])
    settings["GRUB_CMDLINE_XEN_DEFAULT"] = dom0.get("options", "")
    settings["GRUB_DEFAULT"] = made_grub.title(settings, distro["packaging"] != "rpm") + ", with Xen hypervisor"
    if debian:  # its package boots Xen whatever GRUB_DEFAULT says in /etc/default/grub, and tells (DEB:xen)
        tree.put("/etc/default/grub.d/xen.cfg", XEN_CFG % ("#" * (not dom0.get("options")), dom0.get("options", "")))
    return [made_grub.Xen((name + end).replace(".gz", "")[4:], boot_path(spec, name + end, "")) for end in [".gz"] + [".efi"] * debian]


def efi_loader(tree, name):
    """What a loader that speaks systemd's interface leaves in an EFI variable: four bytes of attributes, then UTF-16."""
    tree.put(LOADER_INFO, b"\x06\0\0\0" + (name + "\0").encode("utf-16-le"))


def boot(tree, spec, distro):
    """The boot loader's files."""
    system, newest = spec["boot"]["system"], spec["kernels"][0]["version"] if spec["kernels"] else None
    if spec["boot"].get("uefi"):
        tree.put("/sys/firmware/efi/fw_platform_size", "64\n")
    if system in ("grub", "bls", "ostree"):
        grub(tree, spec, distro)
    elif system == "systemd-boot":
        efi_loader(tree, "systemd-boot 258.2-2-arch")
        tree.put("/boot/EFI/systemd/systemd-bootx64.efi", "stands for systemd-boot\n")
        tree.put("/boot/loader/loader.conf", "default arch.conf\ntimeout 3\n")
        images = [name.rsplit("/", 1)[1] for name in spec["boot"].get("images", ())] + [distro["initrd"].format(v=newest)]
        tree.put("/boot/loader/entries/arch.conf", "title   Arch Linux\nlinux   /%s\n%soptions %s\n" % (
            distro["kernel"].format(v=newest), "".join("initrd  /%s\n" % image for image in images), root_options(spec)))
    elif system == "proxmox-boot-tool":  # proxmox-boot-tool copies kernels to every EFI system partition of this list; none of them stays mounted
        efi_loader(tree, "systemd-boot 252.39-1~deb12u1")
        tree.put("/etc/kernel/proxmox-boot-uuids", "7A1C-4E0B\n7A1D-9F32\n")
        tree.put("/etc/kernel/cmdline", "root=ZFS=rpool/ROOT/pve-1 boot=zfs\n")
        tree.put("/etc/kernel/postinst.d/zz-proxmox-boot", "", 0o755)
    elif system == "extlinux":
        images = ",".join([name.rsplit("/", 1)[1] for name in spec["boot"].get("images", ())] + [distro["initrd"].format(v=newest)])
        tree.put("/boot/extlinux.conf", "DEFAULT menu.c32\nPROMPT 0\nTIMEOUT 30\n\nLABEL lts\n  MENU LABEL Linux lts\n  LINUX %s\n  INITRD %s\n  APPEND %s\n"
                 % (distro["kernel"].format(v=newest), images, root_options(spec)))
        tree.put("/etc/update-extlinux.conf", "overwrite=1\ndefault=lts\nmodules=ext4\n")


def package_files(package, distro, updates):
    """{absolute path: [update]} of a package's files."""
    return dict((path if path.startswith("/") else "%s/%s" % (distro["firmware"], path),
                 [dict(updates[name], date=str(updates[name]["date"])) for name in names]) for path, names in package.get("files", {}).items())


def packages(tree, spec, distro, updates):
    """The files of packages and, where it is text, the package manager's record of them."""
    status = []
    for package in spec.get("packages", ()):
        files = package_files(package, distro, updates)
        for path, made in files.items():
            tree.put(path, made_microcode.file(path, made))
        made_records.record(tree, distro["packaging"], package, list(files), status)
    if distro["packaging"] == "dpkg":
        base = ("Package: base-files\nStatus: install ok installed\nMaintainer: Nobody <nobody@example.com>\nArchitecture: amd64\nVersion: 12.4\n"
                "Description: base system\n")
        tree.put("/var/lib/dpkg/status", "\n".join([base] + status))
    elif distro["packaging"] == "apk":
        tree.put(made_records.APK, "\n".join([made_records.MUSL] + status))
    elif distro["packaging"] == "rpm":
        tree.folder("/var/lib/rpm")  # rpm's database is binary: what runs as a machine asks rpm


# --- hypervisors ---

def kvm(tree, spec):
    """A KVM host: each running machine holds the module (refcnt), and its manager keeps a process id."""
    module, running = "kvm_amd" if PARTS["cpus"][spec["cpu"]["kind"]]["name"].startswith("AMD") else "kvm_intel", spec["hypervisor"].get("running", 0)
    tree.fill("/sys/module/" + module, {"refcnt": running, "parameters/nested": 1})
    tree.put("/sys/module/kvm/refcnt", "1\n")
    tree.put("/sys/devices/virtual/misc/kvm/dev", "10:232\n")
    tree.link("/sys/class/misc/kvm", "../../devices/virtual/misc/kvm")
    tree.put("/dev/kvm")  # a device on the machine
    manager = spec["hypervisor"].get("manager")
    for number in range(running):
        if manager == "libvirt":
            tree.put("/run/libvirt/qemu/vm%d.pid" % number, str(4100 + number))
            tree.put("/run/libvirt/qemu/vm%d.xml" % number, "<domstatus state='running' pid='%d'/>\n" % (4100 + number))
            tree.put("/etc/libvirt/qemu/vm%d.xml" % number, "<domain type='kvm'>\n  <name>vm%d</name>\n</domain>\n" % number)
        elif manager == "proxmox":
            tree.put("/run/qemu-server/%d.pid" % (100 + number), "%d\n" % (4100 + number))
            tree.put("/etc/pve/qemu-server/%d.conf" % (100 + number), "cores: 2\nmemory: 2048\nname: vm%d\n" % number)
    if manager == "libvirt":
        tree.put("/run/libvirt/qemu/driver.pid", "2150")
        tree.put("/usr/sbin/libvirtd", "", 0o755)


def xen_domain(tree, kind, version, dom0=None):
    """What Xen shows to one of its domains of this kind (pv, pvh, hvm); dom0: its part of the host's YAML."""
    major, minor, extra = version.split(".", 2)
    features = XEN_FEATURES[kind] | (DOM0 if dom0 else 0)
    tree.fill("/sys/hypervisor", {"type": "xen", "guest_type": kind.upper(), "uuid": "0" * 8 + "-0000-0000-0000-" + "0" * 12 if dom0 else identity(kind, "xen"),
                                  "version/major": major, "version/minor": minor, "version/extra": "." + extra,
                                  "properties/capabilities": "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ",
                                  "properties/features": "%08x" % features, "properties/pagesize": 4096})
    if not dom0 or dom0.get("xenfs", True):
        tree.put("/proc/xen/capabilities", "control_d\n" if dom0 else "")
    if not dom0:
        return
    short = "%s.%s" % (major, minor)
    for index in range(dom0["physical"]):  # the machine's own CPUs, as dom0's kernel lists them; CPU 0 cannot be put offline
        tree.folder("/sys/devices/system/xen_cpu/xen_cpu%d" % index)
        if index:
            tree.put("/sys/devices/system/xen_cpu/xen_cpu%d/online" % index, "1\n")
    if dom0.get("wrapper", True):  # Debian: one wrapper that looks for the tools of the running version
        tree.put("/usr/lib/xen-common/bin/xen-utils-wrapper", "", 0o755)
        for program in ("xl", "xen-ucode"):
            tree.put("/usr/lib/xen-%s/bin/%s" % (short, program), "", 0o755)
            tree.link("/usr/sbin/" + program, "../lib/xen-common/bin/xen-utils-wrapper")
    else:
        for program in ("xl", "xen-ucode", "xen-livepatch"):
            tree.put("/usr/sbin/" + program, "", 0o755)
    for path, lines in dom0.get("log", {}).items():
        tree.put(path, "".join(line + "\n" for line in lines))


def container(tree, spec):
    """A container sees its host's processors, kernel and sysfs, and no boot files."""
    engine = spec["hypervisor"]["engine"]
    if engine == "docker":
        tree.put("/.dockerenv")
    else:  # the container interface of systemd: PID 1 is told, and systemd passes it on
        tree.put("/proc/1/environ", b"container=" + engine.encode() + b"\0TERM=linux\0")
        tree.put("/run/systemd/container", engine)
    tree.put("/proc/1/cgroup", "0::/init.scope\n" if engine == "lxc" else "0::/\n")


def hypervisor(tree, spec):
    """What runs below or above this kernel."""
    said = spec["hypervisor"]
    if said["is"] == "kvm-host" or said.get("kvm_module"):
        kvm(tree, spec)
    elif said["is"] == "dom0":
        xen_domain(tree, said["mode"], said["version"], said)
    elif said["is"] == "container":
        container(tree, spec)
    elif said["is"] == "guest" and said["of"] == "xen":
        xen_domain(tree, said["mode"], said["version"])
    if said["is"] != "container":
        tree.put("/proc/1/environ", b"HOME=/\0TERM=linux\0")


# --- the whole ---

def build(spec, folder):
    """Make the tree of one host below folder, which must be empty or absent; returns the folder."""
    distro = PARTS["distros"][spec["distro"]]
    spec = dict({"name": Path(folder).name, "hypervisor": {"is": "metal"}, "kernels": [], "boot": {"system": "none"}, "options": "ro quiet",
                 "mounts": {"/": ["ext4", "/dev/sda2"]}}, **spec)
    updates = dict(PARTS["updates"], **spec.get("updates", {}))
    tree = Tree(folder)
    if distro["merged"]:
        for name in ("lib", "bin", "sbin"):
            tree.folder("/usr/" + name)
            tree.link("/" + name, "usr/" + name)
    words = ("%s=%s" % (key, value if re.match(r"[\w.:/-]+$", str(value)) and key not in ("VERSION_ID", "NAME") else '"%s"' % value)
             for key, value in distro["os_release"].items())
    tree.put("/usr/lib/os-release", "\n".join(words) + "\n")
    tree.link("/etc/os-release", "../usr/lib/os-release")
    if distro["packaging"] == "rpm" and "suse" not in str(distro["os_release"].get("ID_LIKE")):
        tree.put("/etc/redhat-release", "%s release %s\n" % (distro["os_release"]["NAME"], distro["os_release"]["VERSION"]))
    for path, text in distro["files"].items():
        tree.put(path, text)
    for path in distro["tools"] if spec["kernels"] and spec["hypervisor"]["is"] != "container" else ():
        tree.put(path, "", 0o755)
    running = next((kernel for kernel in spec["kernels"] if kernel.get("running")), None)
    if running is None:  # a container, or a machine without a kernel of its own on the disk
        running = {"version": spec["kernel"]}
    processors(tree, dict(spec, late_loading=running.get("late_loading", spec.get("late_loading"))))
    kernel_words(tree, spec, distro, running)
    if spec["hypervisor"]["is"] != "container":
        kernels(tree, spec, distro, updates)
        initrd_settings(tree, distro)
        boot(tree, spec, distro)
    packages(tree, spec, distro, updates)
    hypervisor(tree, spec)
    for path, text in spec.get("files", {}).items():
        tree.put(path, text)
    for path, target in spec.get("links", {}).items():
        tree.link(path, target)
    for path, (how, number) in spec.get("damage", {}).items():
        data = bytearray(tree.at(path).read_bytes())
        if how == "cut":
            del data[number:]
        else:
            data[number] ^= 0xff
        tree.put(path, bytes(data))
    return tree.root


def inventory(specs, folder):
    """The inventory of trees below folder, and of the machine at hand."""
    groups = {"recorded": {"vars": {"assess_become": False},  # whoever made the trees can read them
                           "hosts": dict((name, {"assess_sysroot": str(Path(folder).resolve() / name)}) for name in specs)}}
    for name, spec in specs.items():
        for group in spec.get("groups", ()):
            groups.setdefault(group, {"hosts": {}})["hosts"][name] = {}
    groups["this_machine"] = {"hosts": {"localhost": {}}}
    return {"all": {"vars": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}, "children": groups}}


def build_all(folder):
    """Make every recorded host below folder, with an inventory.yml; returns {name: spec}."""
    specs = hosts()
    for name, spec in specs.items():
        build(spec, Path(folder) / name)
    (Path(folder) / "inventory.yml").write_text(yaml.safe_dump(inventory(specs, folder), sort_keys=False), encoding="utf-8")
    return specs


def find(facts, path):
    """What lies at a dotted path: names of a mapping, numbers of a list; KeyError where nothing does."""
    for step in path.split("."):
        try:
            facts = facts[int(step)] if isinstance(facts, list) else facts[step]
        except (IndexError, KeyError, TypeError, ValueError):
            raise KeyError(path) from None
    return facts


def differences(expect, facts):
    """What of expect the facts do not say, one line each.

    {dotted path: value}; a path that ends in .* means that some element of that list is the value, has all its pairs, or is a text with it inside.
    """
    found = []
    for path, wanted in expect.items():
        some = path.endswith(".*")
        try:
            actual = find(facts, path[:-2] if some else path)
        except KeyError:
            found.append("%s: expected %r, is not there" % (path, wanted))
            continue
        if not (any(holds(each, wanted) for each in actual or ()) if some else actual == wanted):
            found.append("%s: expected %r, found %r" % (path, wanted, actual))
    return found


def holds(actual, wanted):
    """True where actual is wanted, has all its pairs, or is a text with wanted in it."""
    if isinstance(wanted, dict) and isinstance(actual, dict):
        return all(name in actual and actual[name] == value for name, value in wanted.items())
    return wanted in actual if isinstance(wanted, str) and isinstance(actual, str) else wanted == actual


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: trees.py FOLDER (a folder that is not there yet, for the hosts and an inventory.yml)")
    if Path(sys.argv[1]).exists():
        sys.exit("%s is there already, and a tree is only true where nothing else lies in it; name a folder that is not there yet" % sys.argv[1])
    print("%d recorded hosts in %s" % (len(build_all(sys.argv[1])), sys.argv[1]))
