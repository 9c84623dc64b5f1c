# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What files, and folders of them, hold, as microcode_file_info documents it."""
from .container import Container, open_file, read, verify
from .update import hex8


def containers(host, paths, checksums=True):
    """[{path, member, vendor, problem, entries}, ...] as microcode_file_info documents; what cannot be opened goes to host.warnings."""
    found, todo = [], paths[::-1]
    while todo:
        path = todo.pop()
        if host.is_dir(path):
            inside = [path.rstrip("/") + "/" + name for name in host.names(path)]
            todo += [each for each in inside[::-1] if host.link(each) is None or not host.is_dir(each)]  # a link to a folder may lead back
            continue
        if not host.exists(path):
            host.warn("%s: nothing is there" % path)
        stream = open_file(host, path)
        if stream is None:
            continue
        with stream:
            for each in read(stream) or [Container(None, None, [], None)]:
                updates = verify(each.vendor, stream, each.updates) if checksums and each.updates else each.updates
                found.append({"path": path, "member": each.member, "vendor": each.vendor, "problem": each.problem, "entries": [{
                    "signature": hex8(update.signature), "pf_mask": hex8(update.pf_mask), "revision": hex8(update.revision),
                    "date": update.date, "size": update.size, "min_revision": hex8(update.min_revision),
                    "valid": not update.problems, "problems": list(update.problems)} for update in updates]})
    return found
