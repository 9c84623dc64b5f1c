# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""initramfs-tools, of Debian and its kin.

update-initramfs -u renames what mkinitramfs made over the initrd before anybody could look at it, so mkinitramfs is run as it does
(mkinitramfs -o FILE VERSION), and the hooks that it runs afterwards (/etc/initramfs/post-update.d) are run once the new one is in place (DEB:initramfs-tools).
"""
from .. import distro

SWITCHES = {"GenuineIntel": ("/etc/default/intel-microcode", "IUCODE_TOOL_INITRAMFS"), "AuthenticAMD": ("/etc/default/amd64-microcode", "AMD64UCODE_INITRAMFS")}
UPDATES = "/etc/initramfs-tools/update-initramfs.conf"


def why_not(host, vendor, _kernel):
    """Why an initrd of this tool would not carry microcode, or must not be made anew; None: nothing speaks against it (DEB-I, DEB-A)."""
    path, name = SWITCHES[vendor]
    value = distro.fields(host.text(path)).get(name)
    if value in ("no", "0"):
        return "%s has %s=%s, so somebody decided that initrds carry no microcode; take that line out" % (path, name, value)
    if distro.fields(host.text(UPDATES)).get("update_initramfs") == "no":
        return "%s has update_initramfs=no, so somebody decided that initrds stay as they are; say yes there" % UPDATES
    return None


def sources(host, _version, names):
    """Files with this processor's microcode that it takes; the hooks read the folder as it is, packed ones are passed over (DEB-I, DEB-A)."""
    return [path for path in ("/lib/firmware/" + name for name in names) if host.exists(path)]


def command(_host, kernel, path):
    """What makes an initrd for a kernel in the file of that name."""
    return ["mkinitramfs", "-o", path, kernel["version"]]


def listing(host, path):
    """Names of what an initrd holds; None where it cannot be unpacked."""
    done = host.run(["lsinitramfs", path], 64 << 20)
    return set(done.out.splitlines()) if done and done.rc == 0 else None
