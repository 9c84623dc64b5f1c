# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Late loading by Xen, which is given the file by its tool. What that says and ends with differs by version, and proves nothing (tests/lab/recordings)."""
import copy


def load(host, path, seconds):
    """What xen-ucode answered, as text; None where it said that all is well."""
    patient = copy.copy(host)
    patient.timeout = seconds  # it is then stopped; a call into Xen that it is in comes to its end all the same
    said = patient.run(["xen-ucode", path])
    if said is None:
        return "xen-ucode gave no answer within %d s" % seconds
    return " ".join((said.err + said.out).split()) or ("xen-ucode ended with %d" % said.rc if said.rc else None)


def log(host):
    """Xen's log as text, or None."""
    said = host.run(["xl", "dmesg"], 8 << 20)
    return said.out if said and said.rc == 0 else None
