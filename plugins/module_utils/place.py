# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A microcode file takes its place on a host: checked before, in one step, and what was there is kept so that it can be put back.

What was there is kept once. The record says which bytes lie at a path because of us, by their SHA-256; these are never kept in place of what was there before.
"""
import base64
import contextlib
import errno
import hashlib
import io
import json
import os
import re
import stat
import zlib

from . import atomic, container, cpu, distro, facts, files, hypervisor, journal
from .host import Host
from .update import Processor, hex8

FOLDER = journal.FOLDER + "/files"
RECORD = FOLDER + "/record.json"
LIMIT = 16 << 20  # bytes of a file that is carried; Intel's largest has 3.3 MB, AMD's less (DEB-I, DEB-A)
RESERVE = 1 << 20  # bytes that stay free beside what is written
PACKED = (".zst", ".xz")
LABEL = "security.selinux"
OURS = "fleet-microcode"  # how the name ends under which a file is made beside what it will replace


class Refused(Exception):
    """The text says what was found, why it matters and what would change it; what lay there before does so still, unless the text says otherwise."""


class _Carried(Host):
    """A machine all of whose files hold these bytes."""

    def __init__(self, data):
        Host.__init__(self)
        self.data = data

    def open(self, path):
        return io.BytesIO(self.data)


def unpack(text, digest):
    """The bytes that the action sent, packed with zlib and in base64, with their SHA-256. Refused."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), LIMIT + 1)
    except (ValueError, zlib.error):
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise Refused("what arrived is not what was sent (its SHA-256 is not %s), so nothing was done with it; run this again" % digest)
    return data


# --- what is there ---

class _Machine(object):
    """What has to be known of this host; why_not: why no microcode is put there, or None."""

    def __init__(self, host):
        self.host, found = host, facts.gather(host, ("min",))
        seen, below = found["cpu"] or {}, found["hypervisor"] or {}
        self.processor = Processor(seen.get("vendor"), *[cpu.number(seen.get(name)) for name in ("signature", "pf_mask", "revision")])
        self.xen = bool(below.get("xen")) and (hypervisor.numbers(below["version"]) or True)
        self.release, self.names = found["kernel"], files.names(self.processor)
        why = "; ".join(found["warnings"][:2]) or "nothing tells"
        if below.get("role") == "guest":
            self.why_not = "this is a guest (%s), whose processor takes no microcode from it; use the host that it runs on" % (
                below["type"] or "of an unknown hypervisor")
        elif found["applicable"] is None:
            self.why_not = "it is not known whether this is a machine whose processor takes microcode from it: %s" % why
        else:
            self.why_not = None if self.names else "which processor this is, is not known, so neither is which file is for it: %s" % why

    def held(self, path):
        """{"revision", "date", "sha256", "problem"} of what a file holds for this processor; None where there is none."""
        if not self.host.exists(path):
            return None
        found = files.file(self.host, path, self.processor, self.xen)
        return dict((name, found[name]) for name in ("revision", "date", "sha256", "problem"))

    def reads(self, there=None, gone=None):
        """The file that Linux reads when it loads late, as if there were one at the place there, and none at gone. None: no file, or Xen, which is told one."""
        bases = [base for base in files.folders(self.host, self.release) if not base.startswith(files.CAVEATS)] if self.names and not self.xen else []
        for path in (base + "/" + self.names[0] + suffix for suffix in ("",) + PACKED for base in bases):
            if _place(path) != gone and (self.host.exists(path) or _place(path) == there):
                return path
        return None


def _place(path):
    """Where a file lies, with links among its folders followed, and itself none."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _former(host, where):
    """({"was": absent, link or file, and what it takes to make it again}, its bytes or None). Refused."""
    try:
        info = os.lstat(where)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return {"was": "absent"}, None
    if stat.S_ISLNK(info.st_mode):
        return {"was": "link", "link": os.readlink(where)}, None
    data = host.read(where, files.LIMIT) if stat.S_ISREG(info.st_mode) else None
    if data is None:
        raise Refused("what lies at %s cannot be kept, and so is not replaced: %s; move it away first" % (
            where, "; ".join(host.warnings[-1:]) or "it is no file"))
    return {"was": "file", "sha256": hashlib.sha256(data).hexdigest(), "mode": stat.S_IMODE(info.st_mode), "uid": info.st_uid, "gid": info.st_gid,
            "mtime_ns": info.st_mtime_ns}, data


def _same(one, other):
    """Whether two formers are the same thing to whoever reads them."""
    return all(one.get(name) == other.get(name) for name in ("was", "link", "sha256"))


# --- what is kept ---

def _record(host):
    """{place: former, with ours: [SHA-256 of what we put there]}. Refused."""
    text = host.text(RECORD)
    try:
        found = json.loads(text) if os.path.lexists(RECORD) else {"schema": 1, "files": {}}
        if found["schema"] == 1 and all(one["ours"] and one["was"] in ("absent", "link", "file") for one in found["files"].values()):
            return found["files"]
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    raise Refused("%s is no record of files that were kept, so what lay where before is not known, and could be lost; move it away" % RECORD)


def _write(known):
    """Replace the record."""
    atomic.replace(RECORD, json.dumps({"schema": 1, "files": known}, indent=1, sort_keys=True).encode() + b"\n")


def _tidy(known):
    """Remove what the record does not name."""
    wanted = set([RECORD] + [_kept(where, one) for where, one in known.items()])
    for name in os.listdir(FOLDER):
        if FOLDER + "/" + name not in wanted:
            os.unlink(FOLDER + "/" + name)


def _kept(where, former):
    """Where the bytes of a former file are kept; None where it was none."""
    return "%s/%s.%s" % (FOLDER, former["sha256"], os.path.basename(where)) if former["was"] == "file" else None


def _to_keep(host, where, known):
    """(what was there before, as the record has it or shall have it, its bytes where they are not kept yet). Refused."""
    former, data = _former(host, where)
    if where in known and (former["was"] == "absent" or former.get("sha256") in known[where]["ours"]):
        return known[where], None
    return dict(former, ours=[]), data


def _keep(host, where, digest):
    """Keep what was there before, and note that bytes with this digest are about to be put there."""
    known = _record(host)
    former, data = _to_keep(host, where, known)
    atomic.private_folder(FOLDER)
    if data is not None:
        atomic.replace(_kept(where, former), data)
    known[where] = dict(former, ours=[each for each in former["ours"] if each != digest] + [digest])
    _write(known)
    _tidy(known)


def _forget(host, where):
    """Nothing is kept of it any more; the record goes last, so that a run which is killed before can be made again."""
    known = _record(host)
    known.pop(where, None)
    _tidy(known)
    _write(known)


# --- the checks ---

def _verified(machine, dest, data):
    """({"revision", "date", "sha256", "problem"} of the bytes, for this processor). Refused where they are damaged or not for it."""
    carried, processor = _Carried(data), machine.processor
    stream = container.open_file(carried, dest)
    if stream is None:
        raise Refused("the file cannot be unpacked as the ending of %s asks for (%s); bring it unpacked, to the name without that ending" % (
            dest, carried.warnings[-1].partition(": ")[2]))
    with contextlib.closing(stream):
        found = container.read(stream)
        if len(found) != 1 or found[0].member:
            raise Refused("the file is an initrd, or packed: in the place of a vendor's microcode file nothing reads it; give the vendor's own file")
        one = found[0]
        if one.vendor is None:
            raise Refused("the file is no microcode: %s; give the vendor's own file" % one.problem)
        if one.vendor != processor.vendor:
            raise Refused("the file is for processors of %s, and this is one of %s; give the file for this one" % (one.vendor, processor.vendor))
        updates = container.verify(one.vendor, stream, one.updates)
    picked, why = container.pick(one.vendor, updates, processor, machine.xen, one.problem)
    # of an Intel file Linux loads nothing where one update is damaged; AMD's have patches for processors that nothing loads
    broken = [update.problems[0] for update in updates if update.problems and (one.vendor == cpu.VENDORS[0] or update.signature == processor.signature)]
    if one.problem or broken:
        raise Refused("the file is damaged, so nothing was replaced: %s; bring an intact one" % (one.problem or broken[0]))
    if picked is None and why is None:
        raise Refused("the file holds nothing for this processor (signature %s, platform mask %s); give the one for it (%s)" % (
            hex8(processor.signature), hex8(processor.pf_mask), machine.names[0]))
    return {"revision": picked and hex8(picked.revision), "date": picked and picked.date, "sha256": hashlib.sha256(data).hexdigest(), "problem": why}


def _trusted(folder):
    """Refused where others than root could put something else in the place of a folder or of what lies in it."""
    path = folder
    while True:
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(path)
            others = info.st_mode & 0o022 and (path == folder or not info.st_mode & stat.S_ISVTX)
            if others or info.st_uid not in (0, os.geteuid()):
                raise Refused("%s can be written to by others than root (mode %o, owner %d), who could have the host load something else; take that from them"
                              % (path, stat.S_IMODE(info.st_mode), info.st_uid))
        if path == "/":
            return
        path = os.path.dirname(path)


def _room(needs):
    """Refused where a file system has no room for what is to be written: [(folder, bytes), ...]."""
    systems = {}
    for folder, size in needs:
        while not os.path.exists(folder):
            folder = os.path.dirname(folder)
        one = systems.setdefault(os.stat(folder).st_dev, [folder, RESERVE])
        one[1] += size
    for folder, size in systems.values():
        room = os.statvfs(folder)
        if room.f_flag & os.ST_RDONLY:
            raise Refused("%s lies on a file system that is mounted read-only, so nothing can be put there; mount it read-write, or, where the distribution "
                          "replaces all of it at once (ostree, snapshots), install its package in its way" % folder)
        if room.f_bavail * room.f_frsize < size:
            raise Refused("%s has %d KiB free, and the new file beside the former one, which is kept, needs %d; make room there"
                          % (folder, room.f_bavail * room.f_frsize >> 10, size + 1023 >> 10))


# --- the changes ---

@contextlib.contextmanager
def _change(host, where, **about):
    """One run at a time, noted in the journal. Refused, Busy, JournalError."""
    try:
        with journal.run(host, "file", path=where, **about):
            folder, ours = os.path.dirname(where), r"\.\.?%s\.%s(\.\w{8})?$" % (re.escape(os.path.basename(where)), OURS)
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                if re.match(ours, name):  # a run that was killed left it
                    os.unlink(os.path.join(folder, name))
            yield
    except OSError as exc:
        raise Refused("%s could not be replaced: %s%s; what lies there is the former file or the new one, each whole; put that right, then run this again"
                      % (where, exc.strerror or exc, " (%s)" % exc.filename if exc.filename else ""))


def _folder(path):
    """Make a folder where it is not there, and those above it."""
    if not os.path.isdir(path):
        _folder(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)
        atomic.sync_folder(os.path.dirname(path))


@contextlib.contextmanager
def _beside(where):
    """A path beside it; what the block has put there takes its place when the block ends."""
    path = os.path.join(os.path.dirname(where), ".%s.%s" % (os.path.basename(where), OURS))
    try:
        yield path
        os.rename(path, where)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    atomic.sync_folder(os.path.dirname(where))


def _put(where, data, mode=0o644, owner=None, mtime_ns=None):
    """Put bytes there under the SELinux label of what was there; where there was none, the folder's rules give it."""
    label = None
    with contextlib.suppress(OSError):  # nothing is there, or nothing is labelled
        label = os.getxattr(where, LABEL, follow_symlinks=False)
    with _beside(where) as path:
        atomic.replace(path, data, mode)
        if label is not None:
            os.setxattr(path, LABEL, label)
        if owner is not None:
            os.chown(path, *owner)
            os.utime(path, ns=(mtime_ns, mtime_ns))


def _put_back(where, former, data):
    """Make again what was there before."""
    _folder(os.path.dirname(where))
    if former["was"] == "absent":
        os.unlink(where)
        atomic.sync_folder(os.path.dirname(where))
    elif former["was"] == "link":
        with _beside(where) as path:
            os.symlink(former["link"], path)
    else:
        _put(where, data, former["mode"], (former["uid"], former["gid"]), former["mtime_ns"])


def run(host, state, dest=None, data=None, check=False):
    """Bring a file into its state, see the module microcode_file for what is returned, beside "warnings": [str]. Refused, Busy, JournalError."""
    machine = _Machine(host)
    if machine.why_not and (state == "present" or dest is None):
        raise Refused(machine.why_not)
    dest = dest or "/lib/firmware/" + machine.names[0]
    if not dest.startswith("/") or "\0" in dest:
        raise Refused("dest: %s is no path from the root folder on; name all of it" % dest)
    try:
        return (_present if state == "present" else _restored)(machine, dest, _place(dest), data, check)
    except OSError as exc:  # while all was only looked at
        raise Refused("%s cannot be looked at (%s), so nothing was done; put that right, then run this again" % (exc.filename or dest, exc.strerror or exc))


def _present(machine, dest, where, data, check):
    host, bare = machine.host, dest[:-len(os.path.splitext(dest)[1])] if dest.endswith(PACKED) else dest
    if "/".join(bare.split("/")[-2:]) not in machine.names:
        raise Refused("dest: nothing looks for this processor's microcode under the name %s, so what is there is left alone; name a place that ends with %s"
                      % (dest, " or ".join(machine.names)))
    after, before = _verified(machine, dest, data), machine.held(dest)
    known = _record(host)
    former, old = _to_keep(host, where, known)
    result = {"changed": False, "file": dest, "before": before, "after": after, "package": distro.packages(host, [dest]).get(dest),
              "kernel_reads": machine.reads(where), "instead_of": None, "warnings": []}
    late = bare.endswith("/" + machine.names[0])
    if after["problem"]:
        result["warnings"].append("which revision this host would load from %s is not known: %s" % (dest, after["problem"]))
    if late and result["kernel_reads"] and _place(result["kernel_reads"]) != where:
        result["warnings"].append("Linux reads %s before %s when it loads late; put the file in that place, or remove that one" % (
            result["kernel_reads"], dest))
    if before and before["sha256"] == after["sha256"]:
        return dict(result, kept=_kept(where, known[where]) if where in known else None, msg="%s holds these bytes already" % dest)
    if late and before is None and any(host.exists(path) for path in (bare + ".initramfs", bare + ".initramfs.xz", bare + ".initramfs.zst")):
        result["warnings"].append("the distribution keeps this processor's microcode from being loaded late by the name %s.initramfs; as %s it can be" % (
            bare, dest))
    instead = machine.reads(gone=where)
    if late and instead and result["kernel_reads"] != instead:
        result["instead_of"] = instead
    _trusted(os.path.dirname(where))
    _room([(os.path.dirname(where), len(data)), (FOLDER, len(old or b""))])
    result.update(changed=True, kept=_kept(where, former), msg="%s %s %s%s%s" % (
        dest, "would hold" if check else "holds", after["revision"] or "a revision that is not known",
        " instead of %s" % (before["revision"] or "one that is not known") if before else "",
        "; Linux reads it rather than %s" % instead if result["instead_of"] else ""))
    if not check:
        with _change(host, where, to=after["revision"], sha256=after["sha256"]):
            _keep(host, where, after["sha256"])
            _folder(os.path.dirname(where))
            _put(where, data)
    return result


def _restored(machine, dest, where, _data, check):
    host = machine.host
    known, before = _record(host).get(where), machine.held(dest)
    result = {"changed": False, "file": dest, "before": before, "after": before, "package": distro.packages(host, [dest]).get(dest), "kept": None,
              "kernel_reads": machine.reads(), "instead_of": None, "warnings": []}
    if known is None:
        return dict(result, msg="nothing is kept of %s, so it stays as it is" % dest)
    former, _old = _former(host, where)
    if _same(former, known):
        if not check:
            with _change(host, where):
                _forget(host, where)
        return dict(result, msg="%s is again what it was before" % dest)
    kept = _kept(where, known)
    if former["was"] != "absent" and former.get("sha256") not in known["ours"]:
        raise Refused("%s is no longer what was put there: its package, or somebody, has replaced it, and what was there before that could be older than it; "
                      "where the former one is wanted still, remove %s%s" % (dest, dest, ", or take %s" % kept if kept else ""))
    data = kept and host.read(kept, files.LIMIT)
    if kept and (data is None or hashlib.sha256(data).hexdigest() != known["sha256"]):
        raise Refused("%s is not what was kept of %s, so that stays as it is; install its package anew" % (kept, dest))
    _trusted(os.path.dirname(where))
    _room([(os.path.dirname(where), len(data or b""))])
    if not check:
        with _change(host, where, sha256=known.get("sha256")):
            _put_back(where, known, data)
            _forget(host, where)
    at = {"absent": None, "link": os.path.join(os.path.dirname(where), known.get("link", "")), "file": kept if check else dest}[known["was"]]
    after = at and machine.held(at)
    gone, there = (where, None) if after is None else (None, where)
    return dict(result, changed=True, after=after, kernel_reads=machine.reads(there, gone), msg="%s %s %s" % (
        dest, "would be" if check else "is", {"absent": "removed; none was there before", "link": "again a link to %s" % known.get("link"),
                                              "file": "again what it was before"}[known["was"]]))
