# shellcheck shell=sh
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# What the readers in module_utils look at, as one stream that tree.py takes apart; read by `sh` from its standard input: the host needs neither Python nor a
# file of ours. Nothing is changed. It is one function, so that a connection that breaks off in the middle runs nothing.
# A frame: KIND LENGTH NAME, a line break, LENGTH bytes, a line break. Kinds: file; packed (the file is this, gzipped); link (its text); there (not read);
# folder, unread (the text: why it cannot be read); run (NAME: exit status, command; its output).
fleet_microcode() {
    PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin LC_ALL=C # ${#...} counts bytes
    export PATH LC_ALL
    cpu=/sys/devices/system/cpu limit=

    put() { printf '%s %s %s\n%s\n' "$1" "${#3}" "$2" "$3"; }
    readable() { # what is there but cannot be read is said
        [ -e "$1" ] || return 1
        [ -f "$1" ] && [ -r "$1" ] && return
        put unread "$1" "Permission denied"
        return 1
    }
    whole() {
        for each; do
            if readable "$each"; then
                text=$(cat "$each")
                put file "$each" "$text"
            fi
        done
    }
    line() { # without a process each; byte by byte in dash and ash, which numbers in /proc/sys and lists of CPUs do not stand
        for each; do
            if readable "$each"; then
                text=
                IFS= read -r text <"$each"
                put file "$each" "$text"
            fi
        done
    }
    there() {
        for each; do
            if [ -d "$each" ]; then
                text=
                [ -r "$each" ] || text="Permission denied"
                put folder "$each" "$text"
            elif [ -e "$each" ]; then
                put there "$each" ""
            fi
        done
    }
    links() { for each; do if [ -L "$each" ]; then put link "$each" "$(readlink "$each")"; fi; done; }
    run() { # $limit is words
        command -v "$1" >/dev/null || return
        # shellcheck disable=SC2086
        text=$($limit "$@")
        status=$?
        put run "$status $*" "$text"
        return $status
    }

    printf '\nfleet.microcode tree 1\n'
    run id -u

    # facts.py
    whole /proc/cmdline /proc/sys/kernel/random/boot_id /proc/sys/kernel/tainted /proc/sys/kernel/osrelease
    release=$text
    line /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name /sys/class/dmi/id/bios_version /sys/class/dmi/id/bios_date $cpu/vulnerabilities/*

    # cpu.py: all of the first CPU, of the others what may differ
    if readable /proc/cpuinfo; then
        text=$(sed -n -e '1,/^$/{p;d;}' -e '/^$/p' -e '/^processor[[:blank:]]*:/p' -e '/^vendor_id/p' -e '/^cpu family/p' -e '/^model[[:blank:]]*:/p' \
            -e '/^stepping/p' -e '/^microcode/p' -e '/^physical id/p' /proc/cpuinfo)
        put file /proc/cpuinfo "$text"
        first=${text#*: } first=${first%%[!0-9]*}
    fi
    line $cpu/online $cpu/present $cpu/smt/active $cpu/cpu[0-9]*/microcode/version $cpu/cpu[0-9]*/microcode/processor_flags
    whole "$cpu/cpu$first/cache/index3/size" "$cpu/cpu$first/cache/index3/shared_cpu_list" "$cpu/cpu$first/topology/thread_siblings_list"

    # late.py; of the kernel's configuration a few lines
    there $cpu/microcode $cpu/microcode/reload
    line /sys/module/microcode/parameters/force_minrev
    text=
    for each in "/boot/config-$release" "/lib/modules/$release/config" "/usr/lib/modules/$release/config"; do
        if [ -z "$text" ] && readable "$each"; then
            text=$(grep -e '^CONFIG_MICROCODE' -e '^CONFIG_X86=' "$each")
            put file "$each" "$text"
        fi
    done
    if [ -z "$text" ] && readable /proc/config.gz; then
        put packed /proc/config.gz "$(gzip -dc </proc/config.gz | grep -e '^CONFIG_MICROCODE' -e '^CONFIG_X86=')"
    fi

    # distro.py: what apt follows only where the release does not say; addresses may hold passwords
    text=
    whole /etc/os-release
    os=$text
    [ -n "$os" ] || whole /usr/lib/os-release
    text=
    whole /etc/debian_version
    os=$os$text
    there /usr/bin/pveversion
    [ -e /usr/bin/pveversion ] && whole /usr/share/perl5/PVE/pvecfg.pm
    if [ -e /etc/debian_version ]; then
        case $os in
            */sid*) ;;
            *VERSION_ID=*) false ;;
        esac && for place in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
            if readable "$place"; then
                put file "$place" "$(sed -n -e 's,//[^/[:blank:]]*@,//,' -e '/^[[:blank:]]*deb[[:blank:]]/p' -e '/^Suites:/p' "$place")"
            fi
        done
    fi

    # hypervisor.py; of process 1's environment, which may hold secrets, one variable
    links /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/pid
    there /.dockerenv /run/.containerenv /proc/vz /proc/bc
    whole /run/systemd/container /proc/1/cgroup
    if readable /proc/1/environ; then put file /proc/1/environ "$(tr '\0' '\n' </proc/1/environ | grep '^container=')"; fi
    there /sys/module/kvm_intel /sys/module/kvm_amd /run/libvirt/qemu /run/libvirt/qemu/*.pid /run/qemu-server /run/qemu-server/*.pid \
        /etc/libvirt/qemu /etc/pve /usr/sbin/libvirtd /usr/sbin/virtqemud
    line /sys/module/kvm_intel/refcnt /sys/module/kvm_amd/refcnt
    text=
    line /sys/hypervisor/type
    if [ -e /proc/xen/capabilities ] || [ "$text" = xen ]; then
        line /sys/hypervisor/guest_type /sys/hypervisor/version/* /sys/hypervisor/properties/features
        whole /proc/xen/capabilities
        there /sys/devices/system/xen_cpu /sys/devices/system/xen_cpu/*
        timeout 10 true && limit="timeout 10"
        run xl info
        run xl list
        run xl dmesg || for each in /var/log/xen/console/hypervisor.log /var/log/xen/hypervisor.log; do
            if readable "$each"; then put file "$each" "$(tail -c 1048576 "$each")"; fi
        done
        run xen-livepatch list
        there /usr/sbin/xen-ucode /usr/bin/xen-ucode /sbin/xen-ucode /bin/xen-ucode /usr/local/sbin/xen-ucode /usr/local/bin/xen-ucode
        if command -v xen-ucode >/dev/null; then # without arguments it says its usage, some versions on standard error, and loads nothing
            # shellcheck disable=SC2086
            text=$($limit xen-ucode 2>&1)
            put run "$? xen-ucode" "$text"
            case $text in
                *--show-cpu-info*) run xen-ucode --show-cpu-info ;;
                *show-cpu-info*) run xen-ucode show-cpu-info ;;
            esac
        fi
    fi

    put end - ""
}
fleet_microcode </dev/null 2>/dev/null
