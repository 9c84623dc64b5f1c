# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which distribution, how settled its release is, and which package a file came from."""
import re

FAMILIES = ("debian", "ubuntu", "fedora", "rhel", "suse", "arch", "alpine", "gentoo")
ROLLING = ("arch", "kali", "gentoo", "opensuse-tumbleweed", "opensuse-microos", "opensuse-slowroll", "manjaro", "endeavouros")
PACKAGES = ("intel-microcode", "amd64-microcode", "intel-ucode", "amd-ucode", "linux-firmware", "linux-firmware-amd", "ucode-intel", "ucode-amd")


def fields(text):
    """{NAME: value} of a file of shell assignments such as os-release; quotes are taken off, nothing is evaluated."""
    found = re.findall(r"^[ \t]*([A-Za-z_][A-Za-z0-9_]*)=(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\s\"'#]*))[ \t]*(?:#.*)?$", text or "", re.M)
    return dict((name, double or single or bare) for name, double, single, bare in found)


def facts(host):
    """Section distro: id, family, version, codename and release (stable, testing, unstable, rolling); null where not told."""
    release = fields(host.text("/etc/os-release") or host.text("/usr/lib/os-release"))
    name, version = release.get("ID", "").lower() or None, release.get("VERSION_ID") or None
    if name is None:
        host.warn("/etc/os-release names no distribution; only what every distribution shares can be told")
    if release.get("NAME") == "XCP-ng":
        name = "xcp-ng"  # its ID is xenenterprise, as XenServer's
    elif name == "debian" and host.exists("/usr/bin/pveversion"):
        name = "proxmox"
        manager = host.text("/usr/share/perl5/PVE/pvecfg.pm") or ""
        version = (re.findall(r"['\"](\d+\.\d+[\w.~-]*)['\"]", manager) or [version])[0]
    likes = [release.get("ID", "").lower()] + release.get("ID_LIKE", "").lower().split()
    # RHEL's kin name fedora too: the nearer kin comes first
    family = next((each for each in ("ubuntu", "rhel") + FAMILIES for like in likes
                   if like == each or like in {"rhel": ("centos", "ol", "xenenterprise"), "suse": ("opensuse", "sles")}.get(each, ())), None)
    if name == "fedora" or likes[0].startswith(("opensuse", "sle")):
        family = "fedora" if name == "fedora" else "suse"
    return {"id": name, "family": family, "version": version, "codename": release.get("VERSION_CODENAME") or None,
            "release": _release(host, name, family, version, release)}


def _release(host, name, family, version, release):
    if name in ROLLING or (name or "").startswith("opensuse-tumbleweed") or release.get("BUILD_ID") == "rolling":
        return "rolling"
    if name == "fedora":
        return "unstable" if "rawhide" in (release.get("REDHAT_BUGZILLA_PRODUCT_VERSION", "") + release.get("VERSION", "")).lower() else "stable"
    if name == "alpine":
        return "unstable" if re.search(r"_alpha|_rc|edge", (version or "") + release.get("PRETTY_NAME", "")) else "stable"
    if family != "debian" or name == "proxmox":
        return "stable" if version else None
    if version and "/sid" not in (host.text("/etc/debian_version") or "") + release.get("PRETTY_NAME", ""):
        return "stable"
    # testing and unstable call themselves the same ("forky/sid"): what apt follows tells them apart
    suites = set(re.findall(r"[\w.-]+", " ".join(_suites(host))))
    if suites & {"sid", "unstable"}:
        return "unstable"
    if suites & {"testing", release.get("VERSION_CODENAME")}:
        return "testing"
    host.warn("this Debian is testing or unstable, and apt's sources do not say which: the release class is not known")
    return None


def _suites(host):
    """The suites that apt follows, from one-line and deb822 sources."""
    folder = "/etc/apt/sources.list.d/"
    for path in ["/etc/apt/sources.list"] + [folder + name for name in host.names(folder) if name.endswith((".list", ".sources"))]:
        text = host.text(path) or ""
        pattern = r"^Suites:[ \t]*(.+)$" if path.endswith(".sources") else r"^\s*deb\s+(?:\[[^\]]*\]\s+)?\S+\s+(\S+)"
        yield from re.findall(pattern, text, re.M)


def packages(host, paths):
    """{path: "name version"} for those paths whose package the distribution's own records tell."""
    found = {}
    wanted = {}
    for path in paths:
        wanted[path] = path
        wanted[path[4:] if path.startswith("/usr/") else "/usr" + path] = path  # one file, two names on a merged /usr
    for read in (_dpkg, _pacman, _apk, _portage):
        for path, package in read(host, set(wanted)):
            found.setdefault(wanted[path], package)
    left = sorted(set(paths) - set(found))
    result = host.run(["rpm", "-qf", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\n"] + left) if left and host.exists("/var/lib/rpm") else None
    lines = result.out.splitlines() if result else []
    if len(lines) == len(left):  # one line a file, in order; a file of no package says so in several words
        found.update((path, line) for path, line in zip(left, lines) if len(line.split(" ")) == 2)
    return found


def _dpkg(host, wanted):
    info = "/var/lib/dpkg/info/"
    names = [name for name in PACKAGES if host.exists(info + name + ".list")]
    status = host.read("/var/lib/dpkg/status", 16 << 20) if names else None  # some 1 MiB for each thousand packages
    for name, version in re.findall(r"^Package: (%s)\n(?:.+\n)*?Version: (\S+)$".encode() % "|".join(names).encode(), status or b"", re.M):
        name = name.decode()
        for path in wanted.intersection(host.lines(info + name + ".list")):
            yield path, "%s %s" % (name, version.decode("utf-8", "replace"))


def _pacman(host, wanted):
    for folder in host.names("/var/lib/pacman/local"):
        match = re.match(r"([\w.+@-]+?)-((?:\d+:)?[^-]+-[^-]+)$", folder)
        if match and match.group(1).startswith(PACKAGES):
            for line in host.lines("/var/lib/pacman/local/%s/files" % folder):
                if "/" + line in wanted:
                    yield "/" + line, "%s %s" % match.groups()


def _apk(host, wanted):
    name = version = folder = ""
    database = next((path for path in ("/lib/apk/db/installed", "/usr/lib/apk/db/installed") if host.exists(path)), None)
    for line in host.lines(database) if database else ():
        key, _colon, value = line.partition(":")
        if key == "P":
            name = value
        elif key == "V":
            version = value
        elif key == "F":
            folder = "/" + value + "/"
        elif key == "R" and name.startswith(PACKAGES) and folder + value in wanted:
            yield folder + value, "%s %s" % (name, version)


def _portage(host, wanted):
    for category in ("sys-firmware", "sys-kernel"):
        for folder in host.names("/var/db/pkg/" + category):
            match = re.match(r"(intel-microcode|linux-firmware)-(\d.*)$", folder)
            for line in host.lines("/var/db/pkg/%s/%s/CONTENTS" % (category, folder)) if match else ():
                parts = line.split(" ")
                if parts[0] == "obj" and len(parts) > 1 and parts[1] in wanted:
                    yield parts[1], "%s %s" % match.groups()
