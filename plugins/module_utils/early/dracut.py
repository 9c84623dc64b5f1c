# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""dracut: it takes the name of the file to make, so that the new initrd is made beside the old one."""
import re

from .. import distro, files

OWN = "/usr/lib/dracut/dracut.conf.d/"
OVERRIDE = "/usr/lib/dracut/modules.d/99microcode_ctl-fw_dir_override"  # by which RHEL's microcode_ctl chooses the folders (RH8)


def _settings(host):
    """{name: (value, file)}; a file in /etc hides one of the same name of the distribution's, later ones win (dracut.conf(5))."""
    found, parts = {}, {}
    for folder in (OWN, "/etc/dracut.conf.d/"):
        parts.update((name, folder + name) for name in host.names(folder) if name.endswith(".conf"))
    for path in ["/etc/dracut.conf"] + [parts[name] for name in sorted(parts)]:
        found.update((name, (value, path)) for name, value in distro.fields(host.text(path)).items())
    return found


def why_not(host, _vendor, _kernel):
    """Why an initrd of dracut's would not carry microcode; None: nothing speaks against it."""
    value, path = _settings(host).get("early_microcode", ("yes", None))
    if value != "yes":
        return '%s has early_microcode="%s", so somebody decided that initrds carry no microcode; take that line out' % (path, value)
    return None


def sources(host, version, names):
    """Files with this processor's microcode that it takes: of each folder the first, and ready images where there is none."""
    said = _settings(host).get("fw_dir", ("", None))[0]
    folders = re.split("[ :]+", said) if said else ["/lib/firmware/updates", "/lib/firmware", "/lib/firmware/" + version]
    if host.is_dir(OVERRIDE):
        folders += [files.CAVEATS + name for name in host.names(files.CAVEATS)]
    there = [[path for name in names for path in (folder + "/" + name + end for end in ("", ".xz", ".zst")) if host.exists(path)][:1] for folder in folders]
    return sum(there, []) or [path for names in files.IMAGES.values() for path in ("/boot/" + name for name in names) if host.exists(path)]


def command(_host, kernel, path):
    """What makes an initrd for a kernel in the file of that name."""
    return ["dracut", "--quiet", "--force", path, kernel["version"]]


def listing(host, path):
    """Names of what an initrd holds; None where it cannot be unpacked. lsinitrd lists as ls -l does."""
    done = host.run(["lsinitrd", path], 64 << 20)
    if done is None or done.rc:
        return None
    lines = re.findall(r"^[-dlbcps][-rwxsStT]{9} +\d+ \S+ +\S+ +\d+(?:, *\d+)? +\S+ +\d+ +[\d:]+ (.+?)(?: -> .*)?$", done.out, re.M)
    return set(lines)
