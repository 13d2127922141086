#!/bin/bash
# What "cmake --install" leaves: each file in its place and none besides, programs that run from
# there, each with its manual page, documents whose links lead somewhere, libcp3 found by pkg-config
# and linked by a program, a unit that systemd accepts and whose manual page is there; and the
# folders of Debian when the prefix is /usr.
#   install.sh SOURCE_DIRECTORY BUILD_DIRECTORY C_COMPILER [FLAG]...
set -euo pipefail
source=$1 build=$2 cc=$3
shift 3
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

fail() {
    printf '%s\n' "$*"
    exit 1
}

# cached NAME: a variable of the build.
cached() {
    sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"
}

prefix=$(cached CMAKE_INSTALL_PREFIX)
libdir=$prefix/$(cached CMAKE_INSTALL_LIBDIR)
docdir=$prefix/share/doc/tekd
mandir=$prefix/share/man
version=$(cached CMAKE_PROJECT_VERSION)

expected() {
    printf '%s\n' "$prefix"/bin/{tek-audit,tek-bsa,tekctl} \
        "$prefix"/sbin/{tek-provision,tekd,tekd-hsm} \
        "$prefix/include/cp3.h" "$libdir"/libcp3.so{,.0,".$version"} "$libdir/pkgconfig/cp3.pc" \
        "$prefix"/share/tekd/xsd/cp3{,-ext}.xsd "$docdir"/{README.md,LICENSE} \
        "$prefix/lib/systemd/system/tekd.service" "$prefix/lib/sysusers.d/tekd.conf"
    local file
    for file in "$source"/docs/*.{md,sample}; do
        printf '%s\n' "$docdir/docs/${file##*/}"
    done
    printf '%s\n' "$mandir"/man1/{tek-audit,tek-bsa,tekctl}.1 "$mandir/man5/tekd.yaml.5" \
        "$mandir"/man8/{tek-provision,tekd,tekd-hsm}.8
}

check_files() {
    local differ
    DESTDIR=$root cmake --install "$build" >"$root/log"
    rm "$root/log"
    differ=$(diff <(expected | LC_ALL=C sort) \
                  <(cd "$root" && find . ! -type d | cut -c2- | LC_ALL=C sort)) ||
        fail "not installed (<) or not expected (>):" "$differ"
    [[ -z $(find "$root$prefix" -perm /022 ! -type l) ]] || fail "writable to others"
}

check_programs() {
    local program page
    for program in "$root$prefix"/{bin,sbin}/*; do
        [[ -x $program ]] || fail "$program cannot be run"
        "$program" --help >/dev/null || fail "$program --help: status $?"
        [[ $("$program" --version) == "${program##*/} $version" ]] || fail "$program: another version"
        [[ $(readelf -d "$program") != *PATH* ]] || fail "$program looks for libraries in the build"
        # What is for root is in section 8, as its program is in sbin.
        page=$mandir/man1/${program##*/}.1
        [[ $program != */sbin/* ]] || page=$mandir/man8/${program##*/}.8
        grep -qx "\.Nm ${program##*/}" "$root$page" || fail "$page is not the page of ${program##*/}"
    done
    # tekd looks for tekd-hsm beside itself; the sample names the place of Debian's packages.
    diff "$root$docdir/docs/tekd.yaml.sample" <("$root$prefix/sbin/tekd" --sample-config) ||
        fail "the sample is not what tekd prints"
}

check_links() {
    local file link
    for file in "$root$docdir"/{README.md,docs/*.md}; do
        while read -r link; do
            [[ -e $(dirname "$file")/$link ]] || fail "${file##*/} leads to $link, which is not there"
        done < <(grep -oE '\]\([^)#:]+\)' "$file" | sed 's/^](\(.*\))$/\1/')
    done
}

check_library() {
    local -x PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=$root$libdir/pkgconfig
    local -x LD_LIBRARY_PATH=$root$libdir
    cat >"$root/program.c" <<'END'
#include <cp3.h>
#include <stdio.h>

int main(void)
{
    enum cp3_wrap wrap;

    return cp3_wrap_from_name("aes-kw", &wrap) == 0 ? puts(cp3_wrap_name(wrap)) < 0 : 1;
}
END
    [[ $(pkg-config --modversion cp3) == "$version" ]] || fail "cp3.pc has another version"
    # shellcheck disable=SC2046 # several words are wanted
    "$cc" -Wall -Wextra -Werror "$@" -o "$root/program" "$root/program.c" \
        $(pkg-config --cflags --libs cp3)
    [[ $("$root/program") == aes-kw ]] || fail "the program says something else"
}

check_unit() {
    local unit=$root$prefix/lib/systemd/system/tekd.service start page
    start=$(sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p' "$unit")
    [[ -x $root$start ]] || fail "the unit starts $start, which is not installed"
    # An I/O error or tampering: somebody has to look, as the documents say.
    grep -qx 'RestartPreventExitStatus=1 2 74' "$unit" || fail "the unit starts again on 74"
    ! grep -n '@' "$unit" || fail "the unit was not filled in"
    page=$(sed -n 's/^Documentation=man:\(.*\)(\(.\)) .*/man\2\/\1.\2/p' "$unit")
    [[ -f $root$mandir/$page ]] || fail "the unit names the page $page, which is not installed"
    command -v systemd-analyze >/dev/null || return 0
    # It knows nothing of our root: a program that is there stands for the one that is not.
    mkdir "$root/unit"
    sed "s|^ExecStart=[^ ]*|ExecStart=/bin/true|; /^Documentation=/d" "$unit" >"$root/unit/tekd.service"
    systemd-analyze verify --man=no "$root/unit/tekd.service" 2>&1 | grep -F tekd.service &&
        fail "systemd does not accept the unit"
    return 0
}

# A package is configured like this, and its library goes where the architecture's are.
check_debian() {
    local multiarch
    multiarch=$(gcc -print-multiarch)
    cmake -S "$source" -B "$root/usr-build" -G Ninja -DCMAKE_INSTALL_PREFIX=/usr \
        -DTEKD_TESTS=OFF >/dev/null
    build=$root/usr-build
    [[ $(cached CMAKE_INSTALL_LIBDIR) == "lib/$multiarch" ]] || fail "another libdir"
    grep -qx "libdir=\${prefix}/lib/$multiarch" "$build/lib/cp3/cp3.pc" || fail "another libdir in cp3.pc"
    grep -q '^ExecStart=/usr/sbin/tekd ' "$build/provisioning/systemd/tekd.service" ||
        fail "the unit starts another tekd"
}

check_files
check_programs
check_links
check_library "$@"
check_unit
check_debian
