# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""uname of the simulated kernel; the real one would tell of the machine that simulates."""
import sys

PROGRAMS = {"uname": "/usr/bin/uname"}
ORDER = "snrvmpio"
LONG = {"--all": "a", "--kernel-name": "s", "--nodename": "n", "--kernel-release": "r", "--kernel-version": "v", "--machine": "m", "--processor": "p",
        "--hardware-platform": "i", "--operating-system": "o"}


def main(machine, name, argv):
    state, asked = machine.state(), ""
    for word in argv or ["-s"]:
        letters = LONG.get(word, word[1:] if word.startswith("-") else "")
        if not letters or set(letters) - set(ORDER + "a"):
            sys.stderr.write("uname: extra operand '%s'\nTry 'uname --help' for more information.\n" % word)
            return 1
        asked += letters
    kind = "aarch64" if state["spec"].get("arch") == "aarch64" else "x86_64"
    said = {"s": "Linux", "n": state["spec"]["name"], "r": state["boot"]["kernel"], "m": kind, "p": "unknown", "i": "unknown", "o": "GNU/Linux",
            "v": "#1 SMP PREEMPT_DYNAMIC Tue Nov 10 09:12:44 UTC 2026"}
    print(" ".join(said[letter] for letter in ORDER if letter in asked or "a" in asked and letter not in "pi"))
    return 0
