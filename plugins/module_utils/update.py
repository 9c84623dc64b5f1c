# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One microcode update as the readers of both vendors return it, and the processor it is held against."""
from collections import namedtuple

Update = namedtuple("Update", (
    "signature",     # int, CPUID leaf 1 EAX of the processors it is for; None for an AMD patch that nothing loads
    "pf_mask",       # int, Intel's platform mask; None for AMD, which has none
    "revision",      # int, signed for Intel (negative: pre-production)
    "date",          # "YYYY-MM-DD"; None where the header holds no such day
    "size",          # int, bytes of the whole update
    "min_revision",  # int, revision that must run before a late load; None where not declared
    "offset",        # int, where in its stream the update begins
    "matching",      # AMD: "table", "patch_id" or "both", how this signature was found; else None
    "problems",      # tuple of str, what is wrong with it; empty: nothing was found wrong
))

Processor = namedtuple("Processor", (
    "vendor",     # "GenuineIntel", "AuthenticAMD", or another, which takes no microcode; None: not known
    "signature",  # int
    "pf_mask",    # int with one bit set; None where it could not be read, and for AMD
    "revision",   # int that runs now; None where unknown or where CPUs differ
))


class FormatError(Exception):
    """These bytes are not what they should be; the text says what was found."""


def hex8(value):
    """0x-prefixed lower-case hex in 8 digits; None stays None."""
    return None if value is None else "0x%08x" % (value & 0xffffffff)


def bcd_date(value):
    """The day "YYYY-MM-DD" of a header's BCD word MMDDYYYY; None where it is none (AMD's 0x03000027 has month 13)."""
    text = "%08x" % value
    if not text.isdigit():
        return None
    month, day, year = text[:2], text[2:4], text[4:]
    if not ("01" <= month <= "12" and "01" <= day <= "31" and year >= "1990"):
        return None
    return "-".join((year, month, day))
