#!/usr/bin/env bash
# Real OpenSSH servers looked at by the inventory, and groups made of facts that are in a cache.

set -eux

folder="$(mktemp -d)"
server=
trap '[ -z "$server" ] || { exec 3>&-; wait "$server"; }; rm -rf "$folder"' EXIT

# groups by signature, state and wave over cached facts
export ANSIBLE_CACHE_PLUGIN=ansible.builtin.jsonfile ANSIBLE_CACHE_PLUGIN_CONNECTION="$folder/facts"
echo '{"hosts": {"web1": {"wave": 2}, "web2": {"wave": null}, "vm1": {}}}' > "$folder/plan.json"
ansible-playbook -i recorded.yml facts.yml
ansible-playbook -i recorded.yml -e "plan_path=$folder/plan.json" waves.yml
ansible-inventory -i recorded.yml -i fleet.constructed.yml --list > "$folder/groups.json"
cat "$folder/groups.json"
python - "$folder/groups.json" <<'END'
import json, sys
groups = json.load(open(sys.argv[1]))
hosts = {name: sorted(group.get("hosts", ())) for name, group in groups.items()}
assert hosts["signature_0x00050654"] == ["vm1", "web1", "web2"], hosts
assert hosts["microcode_pending_reboot"] == ["web1"] and hosts["microcode_not_applicable"] == ["vm1"], hosts
assert hosts["wave_2"] == ["web1"], hosts
END
unset ANSIBLE_CACHE_PLUGIN ANSIBLE_CACHE_PLUGIN_CONNECTION

if ! PATH="$PATH:/usr/sbin" command -v sshd; then
    echo "skipped: the rest takes sshd (on Debian: apt-get install openssh-server)"
    [ -z "${CI:-}" ]
    exit 0
fi

mkfifo "$folder/end"
port="$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
python ../../../fleet/openssh.py "$folder/servers" "$port" 127.0.0.1 127.0.0.2 127.0.0.3 < "$folder/end" > "$folder/said" &
server="$!"
exec 3> "$folder/end"
for _try in $(seq 600); do
    grep -q ready "$folder/said" && break
    kill -0 "$server"
    sleep 0.1
done

cat > "$folder/fleet.ssh_facts.yml" <<END
plugin: fleet.microcode.ssh_facts
hosts: ["127.0.0.[1:3]", closed]
ssh_config: $folder/servers/ssh_config
connect_timeout: 30
keyed_groups:
  - {key: microcode.hypervisor.role, prefix: role}
END
printf 'Host closed\n  HostName 127.0.0.1\n  Port 1\n' | cat - "$folder/servers/ssh_config" > "$folder/both"
mv "$folder/both" "$folder/servers/ssh_config"
ansible-inventory -i "$folder/fleet.ssh_facts.yml" --graph > "$folder/graph"
cat "$folder/graph"
grep -A1 "@microcode_failed:" "$folder/graph" | grep closed
[ "$(grep -A3 "@role_" "$folder/graph" | grep -c "127.0.0.")" -eq 3 ]

# what the module tells of the same hosts, over ssh itself
ANSIBLE_PIPELINING=true ansible-playbook -i "$folder/fleet.ssh_facts.yml" compare.yml --limit '!microcode_failed' \
    --ssh-common-args "-F $folder/servers/ssh_config"
