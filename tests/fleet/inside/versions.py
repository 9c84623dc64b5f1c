# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Versions, in the order that dpkg has them (Debian Policy, section 5.6.12)."""
import functools
import re


def _order(letter):
    return -1 if letter == "~" else 0 if not letter else ord(letter) if letter.isalpha() else ord(letter) + 256


def _part(left, right):
    """-1, 0 or 1 of two upstream versions or two revisions: what is no digit by _order(), digits as numbers, in turns."""
    while left or right:
        (mine, left), (other, right) = [re.match(r"(\D*)(.*)", text, re.S).groups() for text in (left, right)]
        for place in range(max(len(mine), len(other))):
            first, second = _order(mine[place:place + 1]), _order(other[place:place + 1])
            if first != second:
                return 1 if first > second else -1
        (mine, left), (other, right) = [re.match(r"(\d*)(.*)", text, re.S).groups() for text in (left, right)]
        if int(mine or 0) != int(other or 0):
            return 1 if int(mine or 0) > int(other or 0) else -1
    return 0


def compare(left, right):
    """-1, 0 or 1."""
    parts = []
    for text in (left, right):
        epoch, colon, rest = text.partition(":")
        upstream, dash, revision = (rest if colon else text).rpartition("-")
        parts.append((epoch if colon else "0", upstream if dash else rest if colon else text, revision if dash else ""))
    return next((found for found in map(_part, *parts) if found), 0)


key = functools.cmp_to_key(compare)
