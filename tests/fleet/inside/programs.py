# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which module of this folder stands in for which program: each has main(machine, name, argv) -> exit status."""
PROGRAMS = {
    "xl": "xl", "xen-ucode": "xen_ucode", "xen-livepatch": "xen_livepatch", "virsh": "virsh",
    "xenstore-ls": "xenstore_ls", "xenstore-write": "xenstore_ls", "xenstore-rm": "xenstore_ls",
    "update-initramfs": "initramfs_tools", "mkinitramfs": "initramfs_tools", "lsinitramfs": "initramfs_tools",
    "dracut": "dracut", "lsinitrd": "dracut", "mkinitcpio": "mkinitcpio", "lsinitcpio": "mkinitcpio",
    "update-grub": "grub", "grub-mkconfig": "grub", "grub-editenv": "grub", "grub-reboot": "grub", "grub-set-default": "grub",
    "grub2-mkconfig": "grub", "grub2-editenv": "grub", "grub2-reboot": "grub", "grub2-set-default": "grub",
    "apt-get": "dpkg", "apt-cache": "dpkg", "apt-mark": "dpkg", "dpkg-query": "dpkg", "dpkg": "dpkg",
    "rpm": "rpm", "dnf": "rpm", "zypper": "rpm", "pacman": "pacman", "apk": "apk", "iucode_tool": "iucode_tool", "uname": "uname",
    "systemd-run": "systemd", "systemctl": "systemd", "shutdown": "systemd", "reboot": "systemd", "poweroff": "systemd",
    "kexec": "kexec", "dmesg": "linux", "tee": "linux",
}
