# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Our reader against iucode_tool: what it lists of Debian's files, and whether it takes files that are damaged.

Calls used, one process a file, since one file's updates would else count as duplicates of another's:
  -l -tb FILE   what is selected: each signature of an update once, sorted by signature, then by falling mask
  -L -tb FILE   everything in the order of the file, up to the first update that is refused; exit status 0 if none is
with its defaults, --strict-checks and --no-ignore-broken. (--ignore-broken never ends where a total size is 0.)
FLEET_MICROCODE_MUTATIONS says how many damaged files to try; 1500 if it is not set.
"""
import collections
import io
import os
import random
import re
import subprocess

import pytest

from ansible_collections.fleet.microcode.plugins.module_utils import intel
from ansible_collections.fleet.microcode.tests.fleet import made_intel

MUTATIONS = int(os.environ.get("FLEET_MICROCODE_MUTATIONS") or 1500)
BATCHES = 10
ROW = re.compile(r"^ *(?:\d+/(\d+):)? +sig 0x(\w+), pf_mask 0x(\w+), (\S+), rev 0x(\w+)(?:, size (\d+))?$", re.M)

Tool = collections.namedtuple("Tool", "accepts rows said")
Ours = collections.namedtuple("Ours", "accepts rows updates problems")


def ask_tool(program, option, path):
    """Tool for one file; its rows are (number of the update, signature, mask, date, revision, size), each once."""
    done = subprocess.run([str(program), option, "-tb", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=60, check=False)
    rows, number, size = [], None, None
    for own, signature, mask, date, revision, total in ROW.findall(done.stdout):
        number, size = int(own or number), int(total or size)
        rows.append((number, int(signature, 16), int(mask, 16), date, int(revision, 16), size))
    return Tool(done.returncode == 0, list(dict.fromkeys(rows)), done.stderr)


def ask_us(data):
    """Ours for the same bytes, rows in the same form."""
    stream = io.BytesIO(data)
    updates, problem = intel.read(stream)
    updates = intel.verify(stream, updates)
    begins = sorted(set(update.offset for update in updates))
    rows = [(begins.index(update.offset) + 1, update.signature, update.pf_mask, update.date, update.revision & 0xffffffff, update.size)
            for update in updates]
    problems = list(dict.fromkeys([text for update in updates for text in update.problems] + [problem] * bool(problem)))
    return Ours(not problems, rows, updates, problems)


def words(data, field):
    """The values of a header field in all updates of a file."""
    return [int.from_bytes(data[place:place + 4], "little") for place in
            (offset + made_intel.FIELDS[field] for offset in made_intel.offsets(data))]


def same_name_other_contents(data):
    """True where two updates have the same signature, revision and size and a platform in common, but other contents."""
    seen, places = [], made_intel.offsets(data) + [len(data)]
    for name, mask, place, stop in zip(zip(words(data, "signature"), words(data, "revision"), words(data, "datasize")),
                                       words(data, "pf_mask"), places, places[1:]):
        contents = data[place + 48:stop]
        if any(name == other[0] and mask & other[1] and contents != other[2] for other in seen):
            return True
        seen.append((name, mask, contents))
    return False


def bad_date(word):
    """True where the header's date is one that iucode_tool refuses."""
    text = "%08x" % word
    return not (text.isdigit() and "01" <= text[:2] <= "12" and "01" <= text[2:4] <= "31" and text[4:] >= "1995")


# A difference that is known and meant. We refuse: what our problem says. The tool refuses: what it says on stderr, and
# what must be seen in the file. Only both together explain a refusal.
Known = collections.namedtuple("Known", "we_say tool_says seen fixture source")
LARGE = 4200
KNOWN = {
    "loader version": Known(
        "loader version is", None, lambda data: any(word != 1 for word in words(data, "ldrver")),
        lambda: made_intel.update(ldrver=2),
        "iucode_tool(8), BUGS: the loader version is ignored. LNX-intel intel_microcode_sanity_check and XEN cpu_request_microcode want 1"),
    "total size without a data size": Known(
        "without a data size", None, lambda data: 0 in words(data, "datasize"),
        lambda: made_intel.update(header={"datasize": 0, "totalsize": 4096}),
        "XEN get_totalsize looks at the total size alone, iucode_tool and LNX-intel get_totalsize at the data size"),
    "empty file": Known(
        "empty", None, lambda data: not data, lambda: b"",
        "iucode_tool(8), DESCRIPTION: empty files are skipped. A loader finds no microcode there"),
    "large table": Known(
        "extended table of", None, lambda data: any(len(data) - 48 - word > 12 * intel.MOST for word in words(data, "datasize")),
        lambda: made_intel.update(extended=[(0x10000 + number, 1) for number in range(LARGE)]),
        "our own bound on memory; the longest table that Intel published has 6 signatures (DEB-I)"),
    "many updates": Known(
        "beyond %d signatures" % intel.MOST, None, lambda data: len(made_intel.offsets(data)) > intel.MOST,
        lambda: b"".join(made_intel.update(0x10000 + number, data_size=976) for number in range(LARGE)),
        "our own bound on memory; all 126 files of DEB-I together hold 251 signatures"),
    "date": Known(
        None, "invalid microcode data", lambda data: any(bad_date(word) for word in words(data, "date")),
        lambda: made_intel.update(date=0x13092011),
        "iucode_tool(8), --no-strict-checks: invalid dates are non-critical metadata. Neither LNX-intel nor XEN looks at the date"),
    "revision 0": Known(
        None, "invalid microcode data", lambda data: 0 in words(data, "revision"),
        lambda: made_intel.update(revision=0),
        "iucode_tool refuses revision 0 in strict mode. LNX-intel and XEN list it, and never prefer it to a revision that runs"),
    "signature 0": Known(
        None, "Internal error: uclist_add_signature() returned EINVAL", lambda data: 0 in [update.signature for update in ask_us(data).updates],
        lambda: made_intel.update(signature=0),
        "iucode_tool's list cannot hold signature 0. LNX-intel and XEN only compare it, and no processor has it"),
    "same revision, other contents": Known(
        None, "has the same revision and signature as a previously loaded microcode, but different contents", same_name_other_contents,
        lambda: made_intel.update() + made_intel.update(payload=b"other"),
        "iucode_tool(8), --strict-checks. LNX-intel and XEN never compare two updates' contents; the first is loaded"),
    "less than 48 bytes of data": Known(
        None, "invalid microcode data", lambda data: any(0 < word < 48 for word in words(data, "datasize")),
        lambda: made_intel.update(extended=[(0x10000 + number, 1) for number in range(79)], data_size=8),
        "iucode_tool wants as much data as a header has. LNX-intel and XEN want a multiple of 4 at most"),
}


def difference(data, tool, ours):
    """None where both agree, else the names of the known differences that explain it; a difference without one fails."""
    if tool.accepts == ours.accepts:
        if tool.accepts:
            assert tool.rows == ours.rows
        return None
    names = [name for name, known in KNOWN.items() if known.seen(data) and (
        known.tool_says and known.tool_says in tool.said if ours.accepts else
        known.we_say and any(known.we_say in text for text in ours.problems))]
    explained = names if ours.accepts else ours.problems and all(
        any(KNOWN[name].we_say in text for name in names) for text in ours.problems)
    assert explained, "not in any listed class: iucode_tool says %s %r, we say %r" % (
        "yes" if tool.accepts else "no", tool.said, ours.problems)
    return names


@pytest.fixture(scope="session")
def iucode_tool(debian_microcode):
    """Path of the program."""
    return debian_microcode / "usr" / "sbin" / "iucode_tool"


@pytest.fixture(scope="session")
def files(debian_microcode):
    """Debian's Intel files."""
    found = sorted((debian_microcode / "lib" / "firmware" / "intel-ucode").iterdir())
    assert len(found) > 100
    return found


def test_lists_what_iucode_tool_lists(iucode_tool, files):
    for path in files:
        ours, tool, selected = ask_us(path.read_bytes()), ask_tool(iucode_tool, "-L", path), ask_tool(iucode_tool, "-l", path)
        assert ours.problems == [] and tool.accepts, path.name
        assert ours.rows == tool.rows, path.name
        assert sorted(ours.rows, key=lambda row: (row[1], -row[2])) == selected.rows, path.name


@pytest.mark.parametrize("name", KNOWN)
def test_known_difference_has_a_fixture(iucode_tool, tmp_path, name):
    known = KNOWN[name]
    data = known.fixture()
    (tmp_path / "made").write_bytes(data)
    tool, ours = ask_tool(iucode_tool, "-L", tmp_path / "made"), ask_us(data)
    assert (tool.accepts, ours.accepts) == (known.tool_says is None, known.we_say is None)
    assert difference(data, tool, ours) == [name]
    assert known.source


@pytest.mark.parametrize("accepts,problems", [(False, []), (True, ["loader version is 2, not 1", "wrong checksum of header and data"])])
def test_a_difference_without_a_class_fails(accepts, problems):
    ours = Ours(not problems, [], [], problems)
    with pytest.raises(AssertionError, match="not in any listed class"):
        difference(made_intel.update(ldrver=2), Tool(accepts, [], "invalid microcode data"), ours)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_same_verdict_on_damaged_files(iucode_tool, files, tmp_path, batch):
    small = [path.read_bytes() for path in files if path.stat().st_size <= 20480]
    several = [data for data in (path.read_bytes() for path in files if path.stat().st_size <= 131072) if len(made_intel.offsets(data)) > 1]
    tables = [made_intel.update(0x906a3, 0x80, 0x43a, extended=[(0x906a3, 0x80), (0x906a4, 0x80)]),
              made_intel.update(revision=7, data_size=976) + made_intel.update(0x906a3, extended=[(0x906a3, 0xb7)] * 6, min_revision=3)]
    assert len(small) > 10 and several
    rng, verdicts, path = random.Random(batch), collections.Counter(), tmp_path / "damaged"
    for number in range(MUTATIONS // BATCHES):
        data = rng.choice(rng.choice((small, several, tables, tables)))
        for _more in range(rng.choice((1, 1, 1, 2, 3))):
            data = made_intel.mutate(rng, data)
        path.write_bytes(data)
        tool, ours = ask_tool(iucode_tool, "-L", path), ask_us(data)
        try:
            names = difference(data, tool, ours)
            assert ours.rows[:len(tool.rows)] == tool.rows, "up to where it stops, iucode_tool lists something else"
        except AssertionError:
            print("damaged file number %d of batch %d" % (number, batch))
            raise
        verdicts["differ" if names else ours.accepts] += 1
    assert min(verdicts[True], verdicts[False]) > sum(verdicts.values()) // 20, verdicts  # else nothing was compared
    print(verdicts)
