#!/bin/sh
# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# In the workshop, in a folder with QEMU's Debian source package: leaves qemu-system-x86_64, a wrapper, and what it needs.
set -eu
ours=/work/ours
mkdir source build lib rom
tar -xJf qemu_*.orig.tar.xz --strip-components=1 -C source
tar -xJf qemu_*.debian.tar.xz -C source
cd source
sed '/^#/d; /^$/d' debian/patches/series | while read -r name; do
    patch -p1 -s < "debian/patches/$name"
done
patch -p1 --fuzz=0 < $ours/hooks.patch
cp $ours/microcode.h target/i386/
cp $ours/microcode.c target/i386/tcg/sysemu/
cp $ours/tsx.c.inc target/i386/tcg/
cp $ours/devices.mak configs/devices/x86_64-softmmu/lab.mak
cd ../build
../source/configure --target-list=x86_64-softmmu --without-default-features --without-default-devices --with-devices-x86_64=lab \
    --enable-tcg --enable-slirp --disable-kvm --disable-install-blobs --disable-debug-info --disable-werror --meson=/usr/bin/meson
ninja qemu-system-x86_64
cd ..
strip -o qemu build/qemu-system-x86_64
# its own libraries and their loader, so that it runs on a Debian with older ones
ldd qemu | sed -n 's/.* => \(\/.*\) (.*/\1/p' | xargs -I '{}' cp -L '{}' lib/
cp -L /lib64/ld-linux-x86-64.so.2 lib/
(cd /usr/share/seabios && cp bios-256k.bin vgabios-stdvga.bin /work/rom/)
(cd /usr/share/qemu && cp kvmvapic.bin linuxboot_dma.bin multiboot_dma.bin /work/rom/)
cat > qemu-system-x86_64 <<'END'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec "$here/lib/ld-linux-x86-64.so.2" --argv0 "$0" --library-path "$here/lib" "$here/qemu" -L "$here/rom" "$@"
END
chmod 755 qemu-system-x86_64
rm -rf source build ours qemu_*
