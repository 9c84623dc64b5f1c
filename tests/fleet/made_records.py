# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What package managers note of a package, in their own forms. Runs on hosts too."""
import hashlib

APK = "/lib/apk/db/installed"
MUSL = "P:musl\nV:1.2.5-r10\nA:x86_64\nF:lib\nR:ld-musl-x86_64.so.1\n"  # no apk machine is without it


def record(tree, packaging, package, paths, status):
    """Note a package as its manager does; rpm's database is binary and left out."""
    name, version = package["name"], str(package["version"])
    above = sorted(set("/".join(path.split("/")[:depth]) for path in paths for depth in range(2, path.count("/") + 1)))
    if packaging == "dpkg":
        status.append("Package: %s\nStatus: install ok installed\nPriority: standard\nSection: non-free-firmware/admin\nMaintainer: Nobody "
                      "<nobody@example.com>\n%sArchitecture: amd64\nVersion: %s\nDescription: %s\n as in the package\n" % (
                          name, "Installed-Size: %s\n" % package["installed_size"] if "installed_size" in package else "", version, name))
        tree.put("/var/lib/dpkg/info/%s.list" % name, "".join(line + "\n" for line in ["/."] + sorted(above + paths)))
    elif packaging == "pacman":
        base = "/var/lib/pacman/local/%s-%s" % (name, version)
        tree.put(base + "/desc", "%%NAME%%\n%s\n\n%%VERSION%%\n%s\n\n%%ARCH%%\nany\n" % (name, version))
        tree.put(base + "/files", "%FILES%\n" + "".join("%s\n" % path.lstrip("/") for path in sorted([folder + "/" for folder in above] + paths)))
    elif packaging == "apk":
        lines = ["P:" + name, "V:" + version, "A:x86_64"]
        for folder in above:
            lines += ["F:" + folder.lstrip("/")] + ["R:" + path.rsplit("/", 1)[1] for path in paths if path.rsplit("/", 1)[0] == folder]
        status.append("\n".join(lines) + "\n")
    elif packaging == "portage":
        base = "/var/db/pkg/%s-%s" % (package["category"] + "/" + name, version)
        contents = ["dir " + folder for folder in above]
        contents += ["obj %s %s 1763424000" % (path, hashlib.md5(path.encode()).hexdigest()) for path in paths]
        tree.put(base + "/CONTENTS", "\n".join(contents) + "\n")
        tree.fill(base, {"PF": "%s-%s" % (name, version), "CATEGORY": package["category"], "SLOT": 0})
