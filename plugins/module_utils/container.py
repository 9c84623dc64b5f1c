# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What any file holds: Intel or AMD microcode, plain or packed, or an initrd that carries some."""
import io
from collections import namedtuple

from . import amd, earlycpio, intel
from .update import FormatError

try:
    import lzma
except ImportError:  # a Python built without it
    lzma = None
try:
    from compression import zstd  # from Python 3.14 on
except ImportError:
    zstd = None

Container = namedtuple("Container", (
    "member",   # str, name in an initrd's early cpio; None for a file of its own
    "vendor",   # "GenuineIntel" or "AuthenticAMD"; None where it is no microcode
    "updates",  # list of Update
    "problem",  # str, why nothing (more) could be read; None where all was read
))
READERS = {"GenuineIntel": intel, "AuthenticAMD": amd}
MEMBERS = dict(("kernel/x86/microcode/%s.bin" % vendor, vendor) for vendor in READERS)
# what a compressed initrd, or a compressed file of another name, begins with: gzip, bzip2, lzma, xz, lzo, lz4, zstd
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\x5d\0\0", b"\xfd7zXZ", b"\x89LZO", b"\x02\x21\x4c\x18", b"\x28\xb5\x2f\xfd")
CHUNK, MOST = 1 << 16, 8 << 20  # bytes of an unpacked file; Intel's largest has 3.3 MB
DICTIONARY = 80 << 20  # bytes that xz may ask for, enough for all of its presets; no more is touched than is unpacked


def open_file(host, path):
    """A seekable binary file of what path holds, unpacked where its name ends in .xz or .zst; None with a warning."""
    stream = host.open(path)
    if stream is None or not path.endswith((".xz", ".zst")):
        return stream
    with stream:
        try:
            if path.endswith(".xz"):
                if lzma is None:
                    raise FormatError("packed with xz, which this Python was built without")
                return _unpack(stream, lzma.LZMADecompressor(lzma.FORMAT_XZ, DICTIONARY), lzma.LZMAError)
            if zstd is None:
                raise FormatError("packed with zstd, which Python reads from 3.14 on")
            return _unpack(stream, zstd.ZstdDecompressor(), zstd.ZstdError)
        except (FormatError, OSError) as exc:
            host.warn("%s: %s; what it holds is not known" % (path, exc))
            return None


def _unpack(stream, tool, error):
    """The first packed stream, as kernels read no more of a firmware file; FormatError where it is damaged or too large."""
    out = io.BytesIO()
    try:
        while not tool.eof:
            data = stream.read(CHUNK) if tool.needs_input else b""
            if tool.needs_input and not data:
                raise FormatError("cut off")
            out.write(tool.decompress(data, CHUNK))
            if out.tell() > MOST:
                raise FormatError("unpacks to more than %d bytes, far beyond what belongs there" % MOST)
    except error as exc:
        raise FormatError("cannot be unpacked: %s" % exc)
    out.seek(0)
    return out


def read(stream):
    """[Container, ...] of a seekable binary file: one, or one for each microcode file in an initrd; none: an initrd without any."""
    try:
        stream.seek(0)
        head = stream.read(8)
        if head[:4] == amd.MAGIC:
            return [Container(None, "AuthenticAMD", *amd.read(stream))]
        if head[:1] in (b"\1", b"\2") and head[1:4] == b"\0\0\0":
            return [Container(None, "GenuineIntel", *intel.read(stream))]
        if head.startswith(COMPRESSED):
            return []
        if head[:5] == b"07070" or head[:1] == b"\0":
            members, problem = earlycpio.find(stream, list(MEMBERS))
            found = [Container(name, MEMBERS[name], *READERS[MEMBERS[name]].read(stream, *place))
                     for name, place in sorted(members.items(), key=lambda item: item[1])]
            if problem or found or head[:1] != b"\0":
                return found + [Container(None, None, [], problem)] * bool(problem)
        problem = "neither Intel nor AMD microcode, nor an initrd: it begins with %s" % head.hex() if head else "empty"
    except OSError as exc:
        problem = "cannot be read: %s" % (exc.strerror or exc)
    return [Container(None, None, [], problem)]


def verify(vendor, stream, updates):
    """The same updates, with what else is wrong once their data is read."""
    return READERS[vendor].verify(stream, updates)


def pick(vendor, updates, processor, xen=False, problem=None):
    """What the reader of that vendor picks for the processor, see intel.pick and amd.pick; (None, None) for the other vendor's."""
    if processor.signature is None:
        return None, "which processor this is, is not known"
    if processor.vendor != vendor:
        return None, None
    return amd.pick(updates, processor, problem, xen) if vendor == "AuthenticAMD" else intel.pick(updates, processor, problem)


def choose(stream, processor, xen=False):
    """pick() from what a file or an initrd holds, once the sums were checked: of all updates of a file, of those in an initrd that are for the processor."""
    why = None
    for each in read(stream):
        if each.vendor == processor.vendor:
            updates = verify(each.vendor, stream, each.updates) if not each.member else [
                verify(each.vendor, stream, [update])[0] if update.signature == processor.signature else update for update in each.updates]
            return pick(each.vendor, updates, processor, xen, each.problem)
        why = why if each.vendor else each.problem
    return None, why
