# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the lab: machines that a test switches on, and what they said kept where it fails."""
import pathlib
import re
import shutil

import pytest

from ansible_collections.fleet.microcode.tests.gate.cache import CACHE

LOGS = CACHE / "logs" / "lab"
RUNNING = []


@pytest.fixture
def machine(request):
    """make(image, **options) -> Machine that has booted, or with boot=False one that is off; see machine.py. All are taken away at the end."""
    from ansible_collections.fleet.microcode.tests.lab.machine import Machine  # needs qemu.qmp, which only the lab has
    made = []

    def make(name, boot=True, **options):
        one = Machine(name, **options)
        made.append(one)
        RUNNING.append(one)
        if boot:
            one.boot()
        return one
    try:
        yield make
    finally:
        for one in made:
            RUNNING.remove(one)
            one.kill()
            request.node.user_properties += [("tried", "%s: a boot was tried once more: %s" % (one.name, text.splitlines()[0])) for text in one.tries]
            shutil.rmtree(str(one.folder), ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where a test fails, keep what its machines said."""
    report = yield
    if report.failed:
        for number, one in enumerate(RUNNING):
            place = LOGS / ("%s-%d" % (re.sub(r"\W+", "-", item.name), number))
            shutil.rmtree(str(place), ignore_errors=True)
            place.mkdir(parents=True)
            for path in pathlib.Path(one.folder).glob("*.log"):
                shutil.copy(str(path), str(place))
            report.sections.append(("machine %s, whose logs are in %s" % (one.name, place), one.last_words()))
    return report


def pytest_terminal_summary(terminalreporter):
    """Boots that were tried once more are told."""
    for report in sum(terminalreporter.stats.values(), []):
        for name, text in getattr(report, "user_properties", ()):
            if name == "tried" and report.when == "teardown":
                terminalreporter.write_line(text)
