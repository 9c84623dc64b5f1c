# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/rules.md: every example in it is a rule that works, says what the text has it say, or is refused as the text has it."""
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

pytest.importorskip("ansible")
pytest.importorskip("jmespath")

from ansible_collections.fleet.microcode.plugins.plugin_utils import decide, policy

COLLECTION = pathlib.Path(policy.__file__).absolute().parents[2]
TEXT = (COLLECTION / "docs" / "rules.md").read_text(encoding="utf-8")
RULES, HOST, (PLAY,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.S))
ANSWERS = {"yes": "speaks", "no": "silent", "not known": "unknown"}


def rows(title):
    """[(first cell's code, second cell)] of the table whose head has this."""
    table = re.search(r"\n\| %s \|[^\n]*\n\|[-|]+\n((?:\|.*\n)+)" % title, TEXT).group(1)
    found = [re.fullmatch(r"\| (`+)(.*?) ?\1 \| (.*) \|", line) for line in table.splitlines()]
    assert all(found)
    return [(match.group(2).replace("\\|", "|"), match.group(3)) for match in found]


def rule(match, **changes):
    return dict({"id": "example", "match": match, "effect": "note", "text": "x", "source": "x", "added": "2026-11-01"}, **changes)


@pytest.mark.parametrize("match, answer", rows("match"))
def test_a_match_answers_as_the_table_says(match, answer):
    verdicts = policy.Policy([rule(match)]).judge(HOST["facts"], HOST["candidate"], {})
    assert ("silent" if not verdicts else "unknown" if verdicts[0]["unknown"] else "speaks") == ANSWERS[answer]


@pytest.mark.parametrize("match, said", rows("wrong"))
def test_what_is_wrong_is_refused_with_what_would_be_right(match, said):
    with pytest.raises(policy.RuleError) as caught:
        policy.Policy([rule(match)])
    assert said in str(caught.value)


def test_all_keys_effects_candidates_options_and_functions_are_described():
    assert policy.KEYS | policy.OPTIONAL == set(re.findall(r"`(\w+)`", " ".join(re.findall(r"(?m)^\| ((?:`\w+`(?:, )?)+) \|", TEXT.split("\n## ")[0]))))
    assert [effect for effect, _said in rows("effect")] and {effect for effect, _said in rows("effect")} == set(policy.EFFECTS)
    asked = TEXT.split("\n## ")[1]
    for root, names in (("candidate", policy.CANDIDATE), ("options", policy.OPTIONS)):
        assert set(names) == {name for line in re.findall(r"(?m)^\| (`%s.*?) \|" % root, asked) for name in re.findall(r"\.(\w+)`", line)}
    for path in policy.MOMENTARY:
        assert path in asked


@pytest.mark.parametrize("effect, speaks, unknown", [
    (effect, *said.split(" | ")) for effect, said in rows("effect")])
def test_effects_do_what_the_table_says(effect, speaks, unknown, r740):
    """Those that decide; what late loading needs and what is only told has tests in test_decide.py."""
    left = {"block": "blocked", "firmware_first": "firmware_first", "review": "blocked"}
    expected = (left[effect], "unknown") if effect in left else ("early", "early")
    for match, action in (("`true`", expected[0]), ("facts.cpu.name == 'x'", expected[1])):
        found = decide.decide(policy.Policy([rule(match, effect=effect)]), dict(r740, cpu=dict(r740["cpu"], name=None)), {"today": "2026-11-22"})
        assert found["action"] == action
    assert ("unknown" in unknown) == (expected[1] == "unknown") and (expected[0] in ("early", "firmware_first") or "blocked" in speaks)


@pytest.fixture(name="r740")
def r740_fixture():
    facts = json.loads(json.dumps(HOST["facts"]))
    facts["cpu"].update(revisions={"0x02006b06": [0, 1]}, unread=0, offline=[], signatures=["0x00050654"])
    facts.update(schema=1, applicable=True, hypervisor={"role": "none", "type": None}, command_line=[], early={"kernels": []}, late={"available": False},
                 vulnerabilities={}, pending=None, files=[{
                     "path": "/lib/firmware/intel-ucode/06-55-04", "revision": "0x02007006", "date": "2023-03-06", "min_revision": None, "sha256": "ab",
                     "package": None, "early_only": False, "caveat": None, "problem": None}])
    return facts


def test_the_play_that_tries_the_rules_runs_and_notices_where_they_are_wrong(tmp_path, r740):
    (tmp_path / "r740.json").write_text(json.dumps(r740))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([PLAY]))
    (tmp_path / "ansible_collections" / "fleet").mkdir(parents=True)
    (tmp_path / "ansible_collections" / "fleet" / "microcode").symlink_to(COLLECTION)
    env = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(tmp_path), ANSIBLE_HOME=str(tmp_path), ANSIBLE_LOCAL_TEMP=str(tmp_path / "tmp"), ANSIBLE_NOCOLOR="1")
    for match, expected in ((RULES["rules"][0]["match"], 0), ("facts.firmware.product == 'PowerEdge R740'", 2)):
        (tmp_path / "our-rules.yml").write_text(yaml.safe_dump({"rules": [dict(RULES["rules"][0], match=match)] + RULES["rules"][1:]}))
        done = subprocess.run([sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", "play.yml"], cwd=tmp_path, env=env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert done.returncode == expected, done.stdout
        said = " ".join(done.stdout.split())
        assert "old: firmware first" in said and "hung two of ours with 0x02007006. Update it to 2.19 or newer first." in said
