#!/usr/bin/env bash
# The playbook over hosts that can be read, hosts that fail and hosts that are lost: what it prints, what it writes, how it ends.

set -eux

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

assess() {  # EXPECTED_STATUS ARGUMENTS...: run into $folder/output
    local expected="$1" status=0
    shift
    ansible-playbook -i inventory.yml fleet.microcode.assess -e "assess_report=$folder/report.json assess_page=$folder/report.html" "$@" \
        > "$folder/output" || status="$?"
    cat "$folder/output"
    [ "$status" -eq "$expected" ]
}

states() {  # EXPECTED: "host=state ..." as the JSON has them
    [ "$(python -c 'import json, sys; print(*("%s=%s" % (name, host["state"]) for name, host in json.load(open(sys.argv[1]))["hosts"].items()))' \
         "$folder/report.json")" = "$1" ]
}

# lost hosts hide nothing and are not swallowed; the report is made once, though another strategy is configured
ANSIBLE_STRATEGY=free assess 2
states "tree=no_file not_sudoer=no_file broken=not_reached dead=not_reached dead_too=not_reached"
grep -q "not reached: 3 hosts" "$folder/output"
[ "$(grep -c "^Microcode of 5 hosts" "$folder/output")" -eq 1 ]
grep -q "read without becoming root, which failed" "$folder/output"
grep -Eq "^tree +Xeon Gold 6148 +0x00050654 +0x02006b06 +none" "$folder/output"
grep -Eq "^dead .* failed=1" "$folder/output"
grep -Eq "^broken .* failed=1" "$folder/output"
grep -Eq "^not_sudoer .* failed=0" "$folder/output"
[ "$(stat -c %a "$folder/report.json")" = 600 ]
[ "$(stat -c %a "$folder/report.html")" = 600 ]
grep -q "<h1>Microcode of 5 hosts</h1>" "$folder/report.html"

# nobody is reached: still a report
assess 2 --limit 'dead*'
states "dead=not_reached dead_too=not_reached"
grep -q "not reached: 2 hosts" "$folder/output"

# all is well
assess 0 --limit tree
states "tree=no_file"

# check mode writes nothing and says so
rm "$folder/report.json" "$folder/report.html"
assess 0 --limit tree --check
[ ! -e "$folder/report.json" ]
[ ! -e "$folder/report.html" ]
grep -q "Check mode: $folder/report.json is not written" "$folder/output"
grep -q "Check mode: $folder/report.html is not written" "$folder/output"
grep -q "Microcode of 1 host" "$folder/output"

# nor does an empty path; a pattern of hosts
assess 0 -e assess_report= -e assess_page= -e assess_hosts=readable
[ ! -e "$folder/report.json" ]
[ ! -e "$folder/report.html" ]
grep -q "Microcode of 2 hosts" "$folder/output"

# a folder that is missing costs the file, not the table
assess 2 --limit tree -e "assess_report=$folder/nowhere/report.json"
grep -q "Microcode of 1 host" "$folder/output"
grep -q "its folder must be there" "$folder/output"
