# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts held against the processor's own log."""


def check(facts, one):
    """The facts tell of each CPU the revision that it runs, or count it as unread; the log of one, a Machine, is the truth."""
    truth, cpu = one.revisions(), facts["cpu"]
    told = dict((number, revision) for revision, numbers in cpu["revisions"].items() for number in numbers)
    assert told, "no revision was told"
    assert told == dict((number, truth[number]) for number in told)
    assert len(told) + cpu["unread"] == len(truth)
    assert cpu["revision"] == (told[0] if len(set(told.values())) == 1 else None)


def taken(one, since=0):
    """[(CPU, revision), ...] of updates that the processor took, in order, from this event of its log on."""
    return [(event["cpu"], event["revision"]) for event in one.events()[since:] if event.get("result") == "taken"]
