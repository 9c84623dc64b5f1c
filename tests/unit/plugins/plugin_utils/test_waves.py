# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waves: canaries first, growing, within what a domain allows, and the same again when little has changed."""
import random

import pytest

hypothesis = pytest.importorskip("hypothesis")

from hypothesis import strategies as st

from ansible_collections.fleet.microcode.plugins.plugin_utils import waves

SMALL = (1, 2, 4)
FLEETS = st.dictionaries(st.text(max_size=8), st.tuples(st.sampled_from("abc"), st.dictionaries(
    st.sampled_from(["rack", "pool"]), st.sampled_from(["1", "2", None, 3]))), max_size=40)
LIMITS = st.dictionaries(st.sampled_from(["rack", "pool"]), st.integers(1, 3))
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def numbers(arranged):
    return {name: number for number, wave in enumerate(arranged[0]) for name in wave}


def fleet(count, kinds=1, racks=None):
    return {"node%04d" % number: ("kind%d" % (number % kinds), {"rack": number % racks} if racks else {}) for number in range(count)}


def test_no_host_no_wave():
    assert waves.arrange({}) == ([], 0)


def test_a_canary_of_each_kind_then_growing_waves():
    arranged, canaries = waves.arrange(fleet(1000, 7))
    assert canaries == 2 and sorted(int(name[4:]) % 7 for name in arranged[0] + arranged[1]) == list(range(7))
    assert [len(wave) for wave in arranged] == [5, 2, 5, 20, 80, 320, 568]


def test_a_fleet_of_many_kinds_begins_small_too():
    assert [len(wave) for wave in waves.arrange(fleet(300, 300))[0]] == [5, 20, 80, 195]


def test_what_is_down_of_a_domain_is_room_that_others_do_not_have():
    arranged, _canaries = waves.arrange(fleet(12, racks=2), limits={"rack": 3}, down={("rack", 0): 2})
    assert [max([0] + [sum(1 for name in wave if int(name[4:]) % 2 == rack) for wave in arranged]) for rack in (0, 1)] == [1, 3]


def test_a_wave_takes_hosts_from_everywhere():
    hosts = {"%s%02d" % (site, number): ("kind", {}) for site in ("berlin", "oslo", "paris") for number in range(90)}
    assert all({name[:2] for name in wave} == {"be", "os", "pa"} for wave in waves.arrange(hosts)[0][2:])


def test_the_last_size_holds_for_all_waves_that_follow_and_for_the_canaries():
    arranged, canaries = waves.arrange(fleet(20, 5), (1, 3))
    assert [len(wave) for wave in arranged] == [1, 3, 1, 1, 3, 3, 3, 3, 2] and canaries == 3


def test_a_canary_is_taken_where_the_domain_has_room():
    hosts = {}
    for count in range(20):  # one host of each kind stands elsewhere: but for one kind, it is the canary, whatever the hash says
        hosts.update({"%d-%d" % (count, number): ("kind%d" % count, {"rack": "full"}) for number in range(9)})
        hosts["%d-free" % count] = ("kind%d" % count, {"rack": count})
    arranged, canaries = waves.arrange(hosts, (20,), limits={"rack": 1})
    assert canaries == 1 and len(arranged[0]) == 20
    assert sum(1 for name in arranged[0] if name.endswith("-free")) == 19


def test_where_a_domain_has_no_room_canaries_take_waves_of_their_own_and_still_come_first():
    hosts = {"%s%d" % (kind, number): (kind, {"pool": "one"}) for kind in "abc" for number in range(2)}
    arranged, canaries = waves.arrange(hosts, limits={"pool": 1})
    assert [len(wave) for wave in arranged] == [1] * 6 and canaries == 3
    assert sorted(wave[0][0] for wave in arranged[:3]) == ["a", "b", "c"]


def test_a_host_without_the_variable_is_limited_by_nothing():
    hosts = fleet(30)
    assert waves.arrange(hosts, limits={"rack": 1}) == waves.arrange(hosts)


@hypothesis.given(FLEETS, SIZES, LIMITS, st.randoms())
def test_always(hosts, sizes, limits, shuffler):
    arranged, canaries = waves.arrange(hosts, sizes, limits)
    assert sorted(name for wave in arranged for name in wave) == sorted(hosts)  # each in one
    assert all(arranged)
    assert all(len(wave) <= sizes[min(count, len(sizes) - 1)] for part in (arranged[:canaries], arranged[canaries:]) for count, wave in enumerate(part))
    for wave in arranged:
        for variable, most in limits.items():
            values = [hosts[name][1][variable] for name in wave if variable in hosts[name][1]]
            assert all(values.count(value) <= most for value in values)
    first = [name for wave in arranged[:canaries] for name in wave]
    assert sorted(hosts[name][0] for name in first) == sorted({kind for kind, _domains in hosts.values()})  # one of each kind, before all others
    shuffled = list(hosts)
    shuffler.shuffle(shuffled)
    assert waves.arrange({name: hosts[name] for name in shuffled}, sizes, limits) == (arranged, canaries)


@hypothesis.given(FLEETS, st.text(max_size=8), st.sampled_from("abcd"), st.lists(st.integers(4, 9), min_size=1, max_size=4).map(sorted))
def test_a_new_host_moves_at_most_one_host_a_wave(hosts, new, kind, sizes):
    hypothesis.assume(new not in hosts)
    before, after = waves.arrange(hosts, sizes + [50]), waves.arrange(dict(hosts, **{new: (kind, {})}), sizes + [50])
    was, now = numbers(before), numbers(after)
    moved = [(was[name], now[name]) for name in was if was[name] != now[name]]
    assert len({start for start, _end in moved}) == len(moved)  # at most one from each wave
    assert all(end == start + 1 for start, end in moved if start)  # a canary that another replaced stands where its hash says


def test_a_new_host_in_a_fleet_with_domains_leaves_the_rest_nearly_as_it_was():
    chance, hosts = random.Random(1), {}
    for number in range(600):
        hosts["host%d" % number] = ("kind%d" % chance.randrange(9), {"rack": number % 20, "pool": number // 4})
    before = waves.arrange(hosts, limits={"rack": 4, "pool": 1})
    was, moved = numbers(before), []
    for number in range(60):
        now = numbers(waves.arrange(dict(hosts, **{"new%d" % number: ("kind%d" % (number % 9), {"rack": number % 20, "pool": number})}),
                                    limits={"rack": 4, "pool": 1}))
        moved.append(sum(1 for name in was if was[name] != now[name]))
    assert max(moved) <= 2 * len(before[0]) and sum(moved) / len(moved) <= len(before[0])
