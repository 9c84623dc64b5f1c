# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever bytes come, and whatever fails, a place has the file that it had, or the one that was checked; and the way back leads to what was there."""
import base64
import errno
import hashlib
import json
import os
import random
import stat
import tempfile
import zlib

import pytest

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.module_utils import facts, files, journal, place
from ansible_collections.fleet.microcode.plugins.module_utils.host import Host
from ansible_collections.fleet.microcode.tests.fleet import made_amd, made_cpio, made_intel

NAME = "intel-ucode/06-55-04"
OLD, NEW, OTHER = [made_intel.update(revision=revision) for revision in (0x2007006, 0x2007007, 0x2007008)]
XEON = {"vendor": "GenuineIntel", "signature": "0x00050654", "pf_mask": "0x00000080", "revision": "0x02000050"}
MILAN = {"vendor": "AuthenticAMD", "signature": "0x00a00f11", "pf_mask": None, "revision": "0x0a0011d5"}


class Site(object):
    """A firmware folder and our own, in a folder of their own, and a host whose facts are given."""

    def __init__(self, folder, monkeypatch, **more):
        self.folder, self.base = str(folder), str(folder) + "/lib/firmware"
        self.dest = self.base + "/" + NAME
        os.makedirs(os.path.dirname(self.dest))
        own = self.folder + "/own"
        for module, name, value in ((journal, "FOLDER", own), (journal, "RECORD", own + "/run.json"), (journal, "LOCK", own + "/lock"),
                                    (place, "FOLDER", own + "/files"), (place, "RECORD", own + "/files/record.json")):
            monkeypatch.setattr(module, name, value)
        found = dict({"cpu": XEON, "hypervisor": {"role": "none", "type": None, "version": None, "xen": None}, "applicable": True, "kernel": "6.1",
                      "warnings": []}, **more)
        monkeypatch.setattr(facts, "gather", lambda host, wanted: found)
        monkeypatch.setattr(files, "folders", lambda host, release: [self.base + "/updates", self.base])

    def write(self, data, path=None):
        with open(path or self.dest, "wb") as stream:
            stream.write(data)

    def there(self, path=None):
        """The bytes of a file, or None."""
        try:
            with open(path or self.dest, "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def put(self, data, **options):
        return place.run(Host(), "present", options.pop("dest", self.dest), data, **options)

    def restore(self, **options):
        return place.run(Host(), "restored", options.pop("dest", self.dest), **options)

    def names(self):
        return sorted(os.listdir(os.path.dirname(self.dest)))

    def kept(self):
        return sorted(name for name in os.listdir(place.FOLDER) if name != "record.json") if os.path.isdir(place.FOLDER) else []


@pytest.fixture
def site(tmp_path, monkeypatch):
    one = Site(tmp_path, monkeypatch)
    one.write(OLD)
    return one


def refused(call, *words, **options):
    with pytest.raises(place.Refused) as caught:
        call(*words, **options)
    return str(caught.value)


# --- what is brought ---

@pytest.mark.parametrize("data, reason", [
    (b"", "no microcode: empty"), (b"some text", "neither Intel nor AMD"), (NEW[:-100], "cut off"), (NEW + b"\0" * 16, "zeros"),
    (NEW[:1000] + b"\xff" + NEW[1001:], "wrong checksum"), (NEW + made_intel.update(signature=0x50657, checksum=1), "wrong checksum"),
    (made_intel.update(signature=0x50657), "holds nothing for this processor"), (made_intel.update(pf_mask=0x01), "platform mask 0x00000080"),
    (made_amd.container([(0xa00f11, 0xa011)], [made_amd.patch(0xa0011de, 0xa011)]), "for processors of AuthenticAMD"),
    (made_cpio.early({made_cpio.INTEL: NEW}), "an initrd"), (zlib.compress(NEW), "no microcode"), (b"\xfd7zXZ" + NEW, "packed"),
])
def test_what_is_damaged_or_not_for_this_processor_is_refused(site, data, reason):
    assert reason in refused(site.put, data)
    assert site.there() == OLD and site.names() == ["06-55-04"] and not os.path.exists(place.FOLDER)


def test_amds_patches_that_nothing_loads_do_not_spoil_a_file(tmp_path, monkeypatch):
    site = Site(tmp_path, monkeypatch, cpu=MILAN)
    data = made_amd.container([(0xa00f11, 0xa011)], [made_amd.patch(0x0000_00ff, 0x1043), made_amd.patch(0xa0011de, 0xa011)])
    dest = site.base + "/amd-ucode/microcode_amd_fam19h.bin"
    assert site.put(data, dest=dest)["after"]["revision"] == "0x0a0011de" and site.there(dest) == data


def test_a_whole_file_of_which_the_choice_is_not_known_is_put_there_with_a_warning(tmp_path, monkeypatch):
    site = Site(tmp_path, monkeypatch, cpu=dict(XEON, pf_mask=None))
    data = made_intel.update(pf_mask=0x80, revision=0x7007) + made_intel.update(pf_mask=0x01, revision=0x7008)
    done = site.put(data)
    assert site.there() == data and done["after"]["revision"] is None and "platform mask" in done["after"]["problem"]
    assert any("not known" in text and "platform mask" in text for text in done["warnings"]) and "a revision that is not known" in done["msg"]


@pytest.mark.parametrize("more, reason", [
    ({"hypervisor": {"role": "guest", "type": "kvm"}, "applicable": False}, r"a guest (kvm)"),
    ({"hypervisor": {"role": None}, "applicable": None, "warnings": ["no sysfs"]}, "not known whether this is a machine.*: no sysfs"),
    ({"cpu": dict(XEON, signature=None), "warnings": ["CPUs differ"]}, "which processor this is, is not known.*: CPUs differ"),
    ({"cpu": None, "hypervisor": None, "applicable": None}, "nothing tells"),
])
def test_where_no_file_would_serve_it_is_refused(tmp_path, monkeypatch, more, reason):
    site = Site(tmp_path, monkeypatch, **more)
    assert pytest.raises(place.Refused, site.put, NEW).match(reason.replace("(", r"\(").replace(")", r"\)"))
    assert site.there() is None


@pytest.mark.parametrize("dest", [
    "etc/passwd", "{}/\0/intel-ucode/06-55-04", "{}/etc/passwd", "{}/lib/firmware/intel-ucode/06-55-07", "{}/lib/firmware/intel-ucode/06-55-04.bak",
    "{}/lib/firmware/06-55-04", "{}/lib/firmware/intel-ucode/06-55-04/",
])
def test_nothing_is_replaced_under_any_other_name(site, dest):
    assert "name" in refused(site.put, NEW, dest=dest.format(site.folder))


def test_what_the_action_sends_arrives_or_is_refused():
    text, digest = base64.b64encode(zlib.compress(NEW)).decode(), hashlib.sha256(NEW).hexdigest()
    assert place.unpack(text, digest) == NEW
    large = b"\0" * (place.LIMIT + 2)
    for wrong, wanted in ((text[:len(text) // 2], digest), (text[:100] + "A" + text[101:], digest), ("\u00e4", digest), ("", digest), (text, "0" * 64),
                          (base64.b64encode(zlib.compress(large)).decode(), hashlib.sha256(large).hexdigest())):
        assert "what arrived is not what was sent" in refused(place.unpack, wrong, wanted)


# --- what is there ---

def test_a_link_is_replaced_and_made_again_and_its_target_is_left(site):
    os.rename(site.dest, site.folder + "/shared")
    os.symlink("../../../shared", site.dest)
    done = site.put(NEW)
    assert (done["before"]["revision"], done["kept"]) == ("0x02007006", None)
    assert not os.path.islink(site.dest) and site.there() == NEW and site.there(site.folder + "/shared") == OLD
    assert site.put(OTHER)["changed"] is True and site.kept() == []
    back = site.restore()
    assert os.readlink(site.dest) == "../../../shared" and back["after"]["revision"] == "0x02007006" and site.names() == ["06-55-04"]


def test_a_link_that_leads_nowhere_is_made_again_too(site):
    os.unlink(site.dest)
    os.symlink("nowhere", site.dest)
    assert site.put(NEW)["before"] is None
    assert site.restore()["after"] is None and os.readlink(site.dest) == "nowhere"


def test_a_link_to_the_same_bytes_is_left(site):
    os.rename(site.dest, site.folder + "/shared")
    os.symlink("../../../shared", site.dest)
    assert site.put(OLD)["changed"] is False and os.path.islink(site.dest)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced(site, make):
    os.unlink(site.dest)
    make(site.dest)
    assert "move it away" in refused(site.put, NEW)
    assert not stat.S_ISREG(os.lstat(site.dest).st_mode)


def test_a_damaged_file_is_replaced_and_kept(site):
    site.write(OLD[:500])
    done = site.put(NEW)
    assert "cut off" in done["before"]["problem"] and site.there(done["kept"]) == OLD[:500]


def test_folders_that_are_missing_are_made_for_all_to_read(site):
    former = os.umask(0o077)
    try:
        site.put(NEW, dest=site.base + "/updates/6.1/" + NAME)
    finally:
        os.umask(former)
    assert stat.S_IMODE(os.stat(site.base + "/updates").st_mode) == stat.S_IMODE(os.stat(site.base + "/updates/6.1/intel-ucode").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(site.base + "/updates/6.1/" + NAME).st_mode) == 0o644


def test_a_folder_in_which_others_may_write_is_refused(site):
    os.chmod(os.path.dirname(site.dest), 0o775)
    assert "written to by others" in refused(site.put, NEW) and site.there() == OLD


def test_the_same_folder_by_another_path_is_the_same_place(site):
    os.symlink("lib", site.folder + "/usr")
    site.put(NEW, dest=site.folder + "/usr/firmware/" + NAME)
    assert site.put(OTHER)["changed"] is True and len(site.kept()) == 1
    site.restore(dest=site.folder + "/usr/firmware/" + NAME)
    assert site.there() == OLD


def test_owner_mode_and_time_come_back(site):
    os.chmod(site.dest, 0o600)
    os.utime(site.dest, ns=(10 ** 18 + 7, 10 ** 18 + 7))
    before = os.stat(site.dest)
    site.put(NEW)
    assert stat.S_IMODE(os.stat(site.dest).st_mode) == 0o644
    site.restore()
    after = os.stat(site.dest)
    assert [getattr(before, name) for name in ("st_mode", "st_uid", "st_gid", "st_mtime_ns")] == [
        getattr(after, name) for name in ("st_mode", "st_uid", "st_gid", "st_mtime_ns")]


def test_the_label_of_what_was_there_is_on_the_new_one_before_it_takes_its_place(site, monkeypatch):
    labels = {site.dest: b"system_u:object_r:lib_t:s0\0"}
    rename = os.rename
    monkeypatch.setattr(os, "getxattr", lambda path, name, follow_symlinks: labels[path], raising=False)
    monkeypatch.setattr(os, "setxattr", lambda path, name, value: labels.__setitem__(path, value), raising=False)
    renamed = []
    monkeypatch.setattr(os, "rename", lambda one, other: (renamed.append((other, labels.get(one))), rename(one, other)))
    site.put(NEW)
    assert (site.dest, labels[site.dest]) in renamed


# --- which file is read ---

def test_a_file_that_comes_first_is_told(site):
    os.makedirs(site.base + "/updates/intel-ucode")
    site.write(OLD, site.base + "/updates/" + NAME)
    done = site.put(NEW)
    assert done["kernel_reads"] == site.base + "/updates/" + NAME and "before" in done["warnings"][0]
    first = site.put(OTHER, dest=site.base + "/updates/" + NAME)
    assert (first["kernel_reads"], first["instead_of"], first["warnings"]) == (site.base + "/updates/" + NAME, None, []) or first["instead_of"] == site.dest


def test_a_plain_file_is_read_rather_than_a_packed_one(site):
    os.rename(site.dest, site.dest + ".xz")
    look = site.put(NEW, check=True)
    done = site.put(NEW)
    assert (done["kernel_reads"], done["instead_of"]) == (look["kernel_reads"], look["instead_of"]) == (site.dest, site.dest + ".xz")
    assert "rather than" in done["msg"]
    assert site.restore(check=True)["kernel_reads"] == site.restore()["kernel_reads"] == site.dest + ".xz"


def test_debians_name_for_what_is_not_to_be_loaded_late_is_told(site):
    os.rename(site.dest, site.dest + ".initramfs")
    done = site.put(NEW)
    assert any("from being loaded late" in text for text in done["warnings"])
    early = site.put(OTHER, dest=site.dest + ".initramfs")
    assert early["warnings"] == [] and early["instead_of"] is None


# --- what is kept ---

def test_our_own_is_never_kept_in_place_of_what_was_there(site):
    for data in (NEW, OTHER, NEW, OTHER):
        done = site.put(data)
    assert site.there(done["kept"]) == OLD and len(site.kept()) == 1
    assert site.restore()["changed"] is True and site.there() == OLD and site.kept() == []
    assert site.restore()["changed"] is False


def test_what_was_there_is_kept_also_where_our_own_was_removed(site):
    site.put(NEW)
    os.unlink(site.dest)
    done = site.put(OTHER)
    assert site.there(done["kept"]) == OLD
    site.restore()
    assert site.there() == OLD


def test_what_a_package_has_put_there_since_is_kept_then(site):
    site.put(NEW)
    site.write(OTHER)
    done = site.put(NEW)
    assert site.there(done["kept"]) == OTHER and len(site.kept()) == 1
    site.restore()
    assert site.there() == OTHER


def test_what_somebody_has_put_there_since_is_not_overwritten_by_the_way_back(site):
    done = site.put(NEW)
    site.write(OTHER)
    text = refused(site.restore)
    assert "no longer what was put there" in text and done["kept"] in text and site.there() == OTHER
    os.unlink(site.dest)
    assert site.restore()["changed"] is True and site.there() == OLD


def test_a_file_that_was_put_back_by_hand_is_no_longer_kept(site):
    site.put(NEW)
    site.write(OLD)
    assert site.restore(check=True)["changed"] is False and len(site.kept()) == 1
    assert site.restore()["changed"] is False and site.kept() == []


def test_what_is_kept_is_for_root_alone(site):
    done = site.put(NEW)
    assert stat.S_IMODE(os.stat(place.FOLDER).st_mode) == 0o700 and stat.S_IMODE(os.stat(done["kept"]).st_mode) == 0o600


def test_a_kept_file_that_is_damaged_is_not_put_back(site):
    done = site.put(NEW)
    site.write(OLD[:-1], done["kept"])
    assert "install its package anew" in refused(site.restore) and site.there() == NEW


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 2, "files": {}}', '{"schema": 1, "files": {"/x": {}}}', '{"schema": 1, "files": {"/x": 1}}'])
def test_a_record_that_cannot_be_read_loses_nothing(site, text):
    site.put(NEW)
    site.write(text.encode(), place.RECORD)
    assert "move it away" in refused(site.put, OTHER) and "move it away" in refused(site.restore)
    assert site.there() == NEW and len(site.kept()) == 1


def test_check_mode_touches_nothing(site):
    look = site.put(NEW, check=True)
    assert site.there() == OLD and not os.path.exists(journal.FOLDER)
    done = site.put(NEW)
    assert dict(look, msg=None) == dict(done, msg=None)
    look = site.restore(check=True)
    assert site.there() == NEW and len(site.kept()) == 1
    assert dict(look, msg=None) == dict(site.restore(), msg=None)


# --- what fails ---

@pytest.mark.parametrize("free, folder", [(0, "lib/firmware"), (place.RESERVE, "lib/firmware")])
def test_a_disk_that_will_be_full_is_seen_before(site, monkeypatch, free, folder):
    real = os.statvfs(site.folder)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, 1 << 30, free >> 12, free >> 12) + tuple(real)[5:]))
    text = refused(site.put, NEW)
    assert "make room" in text and folder in text and site.there() == OLD and not os.path.exists(journal.FOLDER)


def test_a_file_system_that_is_read_only_is_told(site, monkeypatch):
    real = os.statvfs(site.folder)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(tuple(real)[:8] + (real.f_flag | os.ST_RDONLY,) + tuple(real)[9:]))
    assert "mounted read-only" in refused(site.put, NEW) and site.there() == OLD


class Stopped(BaseException):
    """The process ends here."""


def broken(monkeypatch, count, error):
    """From now on the count-th call that changes something fails; where error is Stopped, so do all after it."""
    calls = []

    def breaking(name, real):
        def call(*words, **options):
            calls.append(name)
            if len(calls) == count or error is Stopped and len(calls) > count:
                raise Stopped() if error is Stopped else OSError(error, os.strerror(error))
            return real(*words, **options)
        return call
    for name in ("mkdir", "fsync", "rename", "unlink", "symlink", "chown", "utime", "fchmod", "chmod"):
        monkeypatch.setattr(os, name, breaking(name, getattr(os, name)))
    monkeypatch.setattr(tempfile, "mkstemp", breaking("mkstemp", tempfile.mkstemp))
    return calls


@pytest.mark.parametrize("was", ["file", "link", "absent", "ours"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, Stopped])
def test_whichever_step_fails_the_file_is_one_of_the_two_and_the_way_back_is_open(tmp_path, was, error):
    """Each call in turn; Stopped stands for a process that is killed, and cannot even tidy up."""
    def there(site):
        return os.readlink(site.dest) if os.path.islink(site.dest) else site.there()
    for count in range(1, 200):
        with pytest.MonkeyPatch.context() as monkeypatch:
            site = Site(tmp_path / str(count), monkeypatch)
            if was != "absent":
                site.write(OLD)
            if was == "link":
                os.rename(site.dest, site.folder + "/shared")
                os.symlink(site.folder + "/shared", site.dest)
            first = there(site)
            if was == "ours":
                site.put(OTHER)
            for step, last in ((lambda: site.put(NEW), NEW), (site.restore, first)):
                with pytest.MonkeyPatch.context() as patch:
                    calls = broken(patch, count, error)
                    try:
                        step()
                    except (place.Refused, journal.JournalError) as exc:
                        assert os.strerror(error) in str(exc)
                    except Stopped:
                        pass
                assert there(site) in [first, NEW] + [OTHER] * (was == "ours")
                step()
                assert there(site) == last and site.names() == ["06-55-04"] * (last is not None)
            assert site.kept() == [] and json.loads(site.there(place.RECORD).decode())["files"] == {}
        if len(calls) < count:
            return
    pytest.fail("it does not end")


# --- whatever comes ---

FILES = st.one_of(
    st.binary(max_size=200), st.sampled_from([b"", OLD, NEW, OTHER, NEW + OTHER, NEW + made_intel.update(signature=0x50657)]),
    st.builds(lambda seed, data: made_intel.mutate(random.Random(seed), data), st.integers(0, 1 << 30), st.sampled_from([NEW, OTHER + NEW])),
    st.builds(lambda data, tail: data + tail, st.sampled_from([NEW, OTHER]), st.binary(min_size=1, max_size=64)),
    st.builds(lambda data, end: data[:end], st.sampled_from([NEW, OTHER + NEW]), st.integers(0, 4096)))
STEPS = st.lists(st.one_of(st.tuples(st.just("put"), FILES), st.tuples(st.just("restore"), st.none()), st.tuples(st.just("package"), FILES),
                           st.tuples(st.just("remove"), st.none()), st.tuples(st.just("check"), FILES)), max_size=8)


@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(STEPS)
def test_whatever_comes_a_place_has_what_it_had_or_what_was_checked_and_the_former_is_never_lost(steps):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda fd: None)
        site = Site(folder + "/site", monkeypatch)
        now = former = None  # what lies there, and what the way back leads to
        mine = set()
        for step, data in steps:
            if step in ("put", "check"):
                try:
                    done = site.put(data, check=step == "check")
                    good = files.file(place._Carried(data), site.dest, place._Machine(Host()).processor, False)
                    assert good["revision"] is not None or done["after"]["problem"]  # nothing but what a reader takes
                    assert done["changed"] is (data != now)
                    if step == "put" and data != now:
                        if now not in mine and not (now is None and mine):
                            former, mine = now, set()
                        now = data
                        mine.add(data)
                except place.Refused:
                    pass
            elif step == "restore":
                try:
                    done = site.restore()
                    if mine:
                        now, mine = former, set()
                except place.Refused:
                    assert now is not None and now not in mine
            else:
                if step == "package":
                    site.write(data)
                elif site.there() is not None:
                    os.unlink(site.dest)
                now = data
            assert site.there() == now
            assert site.names() == ["06-55-04"] * (now is not None)
            if mine and former is not None:
                assert [site.there(place.FOLDER + "/" + name) for name in site.kept()] == [former]
