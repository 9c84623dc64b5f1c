# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One initrd: made beside the one that boots, proved, and put in its place. state is early's _State throughout, noted the journal's run."""
import contextlib
import io
import os
import re
import shutil

from . import kept
from .kept import Failed
from .. import container, earlycpio, journal

BUILD = journal.FOLDER + "/build"  # where tools unpack what they gather; their own choice would keep it when they are stopped
HOOKS = "/etc/initramfs/post-update.d"


def carries(kernel, wanted):
    """Whether a kernel's initrd carries this revision (as text) for this processor."""
    return kernel["carries"] == "update" and kernel["revision"] == wanted


def _run_tool(tools, argv):
    """Run what makes an initrd. Failed."""
    shutil.rmtree(BUILD, ignore_errors=True)
    os.mkdir(BUILD, 0o700)
    try:
        done = tools.run(["env", "TMPDIR=" + BUILD] + argv, 64 << 20)
    finally:
        shutil.rmtree(BUILD, ignore_errors=True)
    if done is None or done.rc:
        raise Failed("%s failed: %s" % (" ".join(argv[:1]), "; ".join(tools.warnings[-1:]) if done is None else "exit status %d; %s" % (done.rc, _last(done))))
    return done


def _last(done):
    return " / ".join((done.err.strip() or done.out.strip()).splitlines()[-4:]) or "it said nothing"


def _bytes(host, state, path):
    """The bytes of the update for this processor that a file or an initrd holds; None where there is none."""
    stream = container.open_file(host, path)
    if stream is None:
        return None
    with stream:
        update = container.choose(stream, state.processor, state.xen)[0]
        if update is None:
            return None
        stream.seek(update.offset)
        return stream.read(update.size)


def _rest(host, path):
    """Bytes of an initrd behind its microcode."""
    with host.open(path) as stream:
        ends = [offset + size for offset, size in earlycpio.find(stream, list(container.MEMBERS))[0].values()]
        return stream.seek(0, io.SEEK_END) - max(ends + [0])


def _proved(state, tools, kernel, source, new, wanted, said):
    """Failed where the new initrd does not carry the revision, or lacks what the old one held."""
    instead, tool = kept.Instead(state.host, {kernel["initrd"]: new}), state.early["tool"]
    kernels, loads = state.look(instead)
    found = kernels[kernel["version"]]
    if not carries(found, wanted):
        raise Failed("the initrd that %s made carries %s for this processor, not %s (%s); are the package with its hook and the file for it there?" % (
            tool, found["revision"] or "no microcode", wanted, "; ".join(instead.warnings[-1:]) or _last(said)))
    if _bytes(state.host, state, new) != _bytes(state.host, state, source):
        raise Failed("the initrd that %s made carries another update of revision %s than %s holds; another file has it too" % (tool, wanted, source))
    if kernel["default"] and not state.xen and loads != "update":
        raise Failed("kernel %s would not load what the new initrd carries: %s" % (
            kernel["version"], "; ".join(instead.warnings[-2:]) or "its loader is not built in"))
    names, before = state.backend.listing(tools, new), state.backend.listing(tools, kernel["initrd"])
    if names is None:
        raise Failed("the initrd that %s made cannot be unpacked: it is cut off or damaged (%s)" % (tool, "; ".join(tools.warnings[-1:]) or _last(said)))
    gone = main_part(before or ()) - main_part(names)
    modules = sorted(name for name in gone if re.search(r"\.ko(\.\w+)?$", name))
    if "init" not in main_part(names) or modules or len(gone) * 10 > len(before or ()):
        raise Failed("the initrd that %s made lacks %s, which the present one has; where that is meant, make it anew by yourself and run this again" % (
            tool, ", ".join((modules or sorted(gone) or ["init"])[:5]) + (" and %d more" % (len(gone) - 5) if len(gone) > 5 else "")))
    if _rest(state.host, new) * 2 < _rest(state.host, kernel["initrd"]):
        raise Failed("the initrd that %s made is less than half as large as the present one, microcode apart; look at why" % tool)


def main_part(names):
    """What an initrd holds beside microcode; tools begin names in different ways."""
    names = set(re.sub(r"^(\./|/)", "", name) for name in names)
    return set(name for name in names if not re.match(r"kernel(/x86(/microcode.*)?)?$|early_cpio$|\.?$", name))


def hooks(tools, version, path):
    """Run what Debian's update-initramfs runs once an initrd is in its place; loaders without a menu of their own are told there. Failed."""
    for name in tools.names(HOOKS):
        if re.match(r"[\w-]+$", name) and os.access(HOOKS + "/" + name, os.X_OK):
            done = tools.run([HOOKS + "/" + name, version, path])
            if done is None or done.rc:
                raise Failed("%s/%s failed: %s" % (HOOKS, name, "; ".join(tools.warnings[-1:]) if done is None else _last(done)))


def _keep(state, noted, kernel, folder, known, new):
    """Keep what boots now, unless what is kept is of this boot already: that is what came up. The record also tells what takes its place."""
    version, path = kernel["version"], os.path.realpath(kernel["initrd"])
    entry, target = known["kernels"].get(version), "%s/%s.kept" % (folder, version)
    if not (entry and entry["boot_id"] == state.facts["boot_id"] and kept.digest(entry["kept"]) == entry["sha256"]):
        kept.second_name(path, target)
        image = kernel_file(state, kernel)
        entry = {"kept": target, "initrd": path, "sha256": kept.digest(target), "boot_id": state.facts["boot_id"],
                 "kernel": image and {"path": image, "sha256": kept.digest(image)}}
    known["kernels"][version] = dict(entry, ours=kept.digest(new))
    kept.write(known)
    noted.note("kept", kernel=version, initrd=path, kept=target)


def kernel_file(state, kernel):
    """The kernel's own file, or None."""
    if kernel["default"]:
        return state.entry["kernel"]
    return next((path for path in ("/boot/vmlinuz-" + kernel["version"], "/boot/kernel-" + kernel["version"]) if os.path.exists(path)), None)


def make(state, noted, tools, kernel, source, wanted, known):
    """Make an initrd anew and put it in its place. Failed: the old one is there."""
    version, path = kernel["version"], os.path.realpath(kernel["initrd"])
    folder = kept.beside(path)
    new = "%s/%s.%d.new" % (folder, version, os.getpid())
    noted.note("making", kernel=version, initrd=path)
    try:
        said = _run_tool(tools, state.backend.command(state.host, kernel, new))
        if not os.path.isfile(new):
            raise Failed("%s says that it made an initrd, and there is none" % state.early["tool"])
        old = os.stat(path)
        os.chown(new, old.st_uid, old.st_gid)
        os.chmod(new, old.st_mode & 0o7777)
        kept.sync(new)
        _proved(state, tools, kernel, source, new, wanted, said)
        _keep(state, noted, kernel, folder, known, new)
        place(state, noted, tools, kernel, new, wanted)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def place(state, noted, tools, kernel, new, wanted):
    """Have a whole initrd take the place of a kernel's. Failed: the former one is back. wanted: the revision that it must carry, None for any."""
    version, path = kernel["version"], os.path.realpath(kernel["initrd"])
    back, whole = new[:-len("new")] + "old", kept.digest(new)
    kept.second_name(path, back)
    noted.note("replacing", kernel=version, initrd=path)
    try:
        kept.rename(new, path)
        try:
            hooks(tools, version, path)
            found = state.look(state.host)[0].get(version)
            if kept.digest(path) != whole or wanted and not (found and carries(found, wanted)):
                raise Failed("%s is not what was put there, once read back" % path)
        except BaseException as exc:
            kept.rename(back, path)
            with contextlib.suppress(Failed):
                hooks(tools, version, path)
            if isinstance(exc, Failed):
                raise Failed("%s; the former initrd of kernel %s is back" % (exc, version))
            raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(back)
    noted.note("replaced", kernel=version, initrd=path)
