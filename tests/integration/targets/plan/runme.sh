#!/usr/bin/env bash
# Plans from facts at hand: what is printed, written and explained, and how a run without jmespath ends. The playbook over real hosts.

set -eux

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

play() {  # EXPECTED_STATUS ARGUMENTS...: run into $folder/output
    local expected="$1" status=0
    shift
    ansible-playbook -i inventory.yml -e "folder=$folder" "$@" > "$folder/output" 2>&1 || status="$?"
    cat "$folder/output"
    [ "$status" -eq "$expected" ]
}

# a lost host is in the plan and still fails
play 2 plan.yml
grep -q "^Microcode plan for 6 hosts, " "$folder/output"
grep -q "all of it was checked" "$folder/output"  # the lost host alone fails
grep -q "this play: 1 done, 2 pending" "$folder/output"
grep -q "early, at the next boot: 3; blocked: 1; unknown: 1; nothing to do: 1" "$folder/output"
grep -q "BIOS 1.0 is too old here. \[ours\]" "$folder/output"
grep -Eq "^r3-lost .* failed=1" "$folder/output"
[ "$(stat -c %a "$folder/plan.json")" = 600 ]
grep -q "^r2-old: blocked" "$folder/explained"
grep -q "Rule ours; source: handbook" "$folder/explained"
first="$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["digest"])' "$folder/plan.json")"

# the same again has the same digest; an edited plan is refused where it is read; check mode writes nothing
play 2 plan.yml
grep -q "$first" "$folder/output"
sed -i 's/0x02007006/0x02007007/' "$folder/plan.json"
play 2 plan.yml --check
grep -q "Check mode: $folder/plan.json is not written" "$folder/output"
grep -q "was changed after it was made" "$folder/output"

# over real hosts, though another strategy is configured
ANSIBLE_STRATEGY=free play 0 fleet.microcode.plan -e plan_hosts=here -e "plan_path=$folder/real.json" -e "plan_page=$folder/real.html" -e '{"plan_explain": ["here1"]}'
grep -q "^Microcode plan for 2 hosts, " "$folder/output"
grep -q "^here1: " "$folder/output"
[ -e "$folder/real.json" ]
grep -q "Microcode plan for 2 hosts" "$folder/real.html"

# a wish that cannot be meant
play 2 fleet.microcode.plan -e plan_hosts=here -e plan_path= -e plan_page= -e plan_target=latest
grep -q "target: latest is none of newest_staged, advisory and a mapping" "$folder/output"

# without jmespath, a sentence
mkdir "$folder/without"
echo 'raise ModuleNotFoundError("No module named jmespath", name="jmespath")' > "$folder/without/jmespath.py"
PYTHONPATH="$folder/without${PYTHONPATH:+:$PYTHONPATH}" play 2 fleet.microcode.plan -e plan_hosts=here -e plan_path= -e plan_page=
grep -q "the Python package jmespath" "$folder/output"
