#!/bin/sh
# libcp3 as an integrator gets it: installed alone, found by pkg-config, linked by a small program.
#   cp3_install.sh BUILD_DIRECTORY C_COMPILER SAMPLE [FLAG]...
# Fails if a file is missing, if the library exports or needs what it should not, or if the program
# does not build from what was installed and read the sample.
set -eu
build=$1 cc=$2 sample=$3
shift 3
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

cmake --install "$build" --component cp3 --prefix "$dir/usr" >"$dir/log"
lib=$(dirname "$(find "$dir/usr" -name libcp3.so.0)")
for file in "$lib/libcp3.so" "$lib/pkgconfig/cp3.pc" "$dir/usr/include/cp3.h" \
            "$dir/usr/share/tekd/xsd/cp3.xsd" "$dir/usr/share/tekd/xsd/cp3-ext.xsd"; do
    [ -e "$file" ] || { echo "not installed: $file"; exit 1; }
done

exported=$(nm -D --defined-only "$lib/libcp3.so" | awk '{print $3}')
declared=$(sed -n 's/^CP3_API.*\b\(cp3_[a-z_0-9]*\)(.*/\1/p' "$dir/usr/include/cp3.h")
[ "$(echo "$exported" | sort)" = "$(echo "$declared" | sort)" ] ||
    { echo "exported: $exported; declared: $declared"; exit 1; }
needed=$(readelf -d "$lib/libcp3.so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
others=$(echo "$needed" | grep -vE '^(libxml2|libjansson|libc|libm|ld-linux.*|lib[a-z]*san)\.so' || true)
[ -z "$others" ] || { echo "needs $others"; exit 1; }

cat >"$dir/program.c" <<'END'
#include <cp3.h>
#include <stdio.h>

int main(void)
{
    static char body[CP3_BODY_MAX];
    struct cp3_reader *reader;
    struct cp3_message m;
    struct cp3_error err;
    size_t len = fread(body, 1, sizeof(body), stdin);

    if (cp3_reader_new(&reader) < 0)
        return 2;
    if (cp3_read(reader, CP3_XML, body, len, &m, &err) < 0)
        printf("line %u, %s: %s\n", err.line, err.element, err.reason);
    else
        printf("%s %s\n", cp3_tag_name(m.tag), m.message_id);
    cp3_reader_free(reader);
    return 0;
}
END
export PKG_CONFIG_PATH="$lib/pkgconfig" LD_LIBRARY_PATH="$lib"
# The prefix of pkg-config's file is that of the configured build: it is told the one used here.
# shellcheck disable=SC2046 # several words are wanted
"$cc" -std=c99 -pedantic -Wall -Wextra -Werror "$@" -o "$dir/program" "$dir/program.c" \
    $(pkg-config --define-variable=prefix="$dir/usr" --cflags --libs cp3)
[ "$("$dir/program" <"$sample")" = "KeyRequest m-0001" ]
[ "$(echo '<a/>' | "$dir/program")" = "line 1, a: not a message of namespace urn:x-bcast:spcp:cp3:1.0" ]
