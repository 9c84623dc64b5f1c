# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mkinitcpio, of Arch: an image is made as its preset says, in a file beside the one that is there. Its own hooks run after that, for the new file."""
import re

from .. import distro, files

PRESETS = "/etc/mkinitcpio.d/"


def _preset(host, kernel):
    """(config file, kernel as the preset names it, options) of the image that this kernel boots with; None: no preset makes it."""
    for name in host.names(PRESETS):
        text = host.text(PRESETS + name) if name.endswith(".preset") else None
        said = distro.fields(text)
        for key, path in said.items():
            if key.endswith("_image") and path == kernel["initrd"]:
                part = key[:-len("_image")]
                return (said.get(part + "_config") or said.get("ALL_config") or "/etc/mkinitcpio.conf",
                        said.get(part + "_kver") or said.get("ALL_kver") or kernel["version"], said.get(part + "_options", "").split())
    return None


def _hooks(host, config):
    found = re.findall(r"^HOOKS=\(([^)]*)\)", host.text(config) or "", re.M)
    return found[-1].split() if found else []


def why_not(host, _vendor, kernel):
    """Why an initrd of mkinitcpio's would not carry microcode; None: nothing speaks against it."""
    preset = _preset(host, kernel)
    if preset is None:
        return "no preset in %s makes %s, so how it was made is not known; write one, as its package does" % (PRESETS, kernel["initrd"])
    if "microcode" not in _hooks(host, preset[0]):
        return ("HOOKS in %s has no microcode, so the initrd carries none; add it behind autodetect, or have the loader read the package's image (%s) first"
                % (preset[0], ", ".join("/boot/" + names[0] for names in files.IMAGES.values())))
    return None


def sources(host, _version, names):
    """Files with this processor's microcode that it takes; the packages' images where there are none."""
    return ([path for path in ("/usr/lib/firmware/" + name + end for name in names for end in ("", ".xz", ".zst")) if host.exists(path)]
            or [path for names in files.IMAGES.values() for path in ("/boot/" + name for name in names) if host.exists(path)])


def command(host, kernel, path):
    """What makes an initrd for a kernel in the file of that name."""
    config, version, options = _preset(host, kernel)
    return ["mkinitcpio", "-k", version, "-c", config, "-g", path] + options


def listing(host, path):
    """Names of what an initrd holds; None where it cannot be unpacked."""
    done = host.run(["lsinitcpio", path], 64 << 20)
    return set(done.out.splitlines()) if done and done.rc == 0 else None
