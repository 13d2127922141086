#!/bin/bash
# Includes go only down the layers, and a foreign library's headers stay in the folder that owns it.
#   layers.sh SOURCE_DIRECTORY
set -euo pipefail
cd "$1"

# Layer, folder, the headers of include/ that are the folder's.
layers='0 lib/base          tekd/auto.h tekd/buf.h tekd/clock.h tekd/enc.h tekd/err.h tekd/log.h tekd/net.h tekd/queue.h tekd/secret.h
1 lib/cp3           cp3.h
1 lib/audit         tekd/merkle.h tekd/note.h tekd/record.h
2 pkcs11            tekd/hsm.h
2 server/store      tekd/store.h
2 server/config     tekd/config.h
3 server/keys       tekd/keys.h
4 server/push       tekd/push.h
4 server/http       tekd/http.h
4 server/admin      tekd/admin.h
5 server
2 bsa
3 provisioning'

# Header of a library, as a pattern, and the folders that may include it.
libraries='h2o(\.h|/)                     server/http bsa
sqlite3\.h                     server/store
(libp11|p11-kit/.*|pkcs11)\.h  pkcs11 provisioning
libxml/                        lib/cp3
(cyaml/.*|yaml)\.h             server/config
curl/                          server/push bsa'

# The folder of the table that a file is in: the longest that fits.
folder_of() {
    awk -v f="$1" '{ if (index(f, $2 "/") == 1 && length($2) > length(best)) best = $2 }
                   END { print best }' <<<"$layers"
}

rank_of_folder() {
    awk -v d="$1" '$2 == d { print $1 }' <<<"$layers"
}

rank_of_header() {
    awk -v h="$1" '{ for (i = 3; i <= NF; i++) if ($i == h) print $1 }' <<<"$layers"
}

# check_include FILE HEADER: says what is wrong with it.
check_include() {
    local file=$1 header=$2 folder pattern owners rank
    folder=$(folder_of "$file")
    while read -r pattern owners; do
        [[ $header =~ ^$pattern ]] || continue
        [[ " $owners " == *" ${folder%%/*} "* || " $owners " == *" $folder "* ]] ||
            echo "$file: $header belongs to $owners"
    done <<<"$libraries"
    [[ $header == tekd/* || $header == cp3.h ]] || return 0
    rank=$(rank_of_header "$header")
    if [[ -z $rank ]]; then
        echo "$file: $header is of no layer"
    elif [[ $rank -gt $(rank_of_folder "$folder") ]]; then
        echo "$file: $header is of a layer above"
    fi
}

# Each pair of file and header once, in "FILE HEADER" lines.
includes() {
    grep -rnE --include='*.[ch]' '^#include' lib pkcs11 server bsa provisioning |
        sed -nE 's/^([^:]*):[0-9]+:#include ["<]([^">]*)[">].*/\1 \2/p' | sort -u
}

wrong() {
    local file header
    while read -r file header; do
        check_include "$file" "$header"
    done
}

# What it is for is found.
for bad in 'lib/base/buf.c tekd/log_audit.h' 'lib/audit/note.c tekd/store.h' \
           'server/keys/keys.c tekd/http.h' 'server/keys/keys.c h2o.h' 'server/main.c sqlite3.h' \
           'server/http/tls.c libp11.h' 'lib/base/log.c tekd/record.h' \
           'server/keys/keys.c tekd/push.h' 'server/http/tls.c curl/curl.h'; do
    [[ -n $(wrong <<<"$bad") ]] || { echo "not found: $bad"; exit 1; }
done

[[ $(includes | wc -l) -gt 500 ]] || { echo "no includes were read"; exit 1; }
found=$(includes | wrong)
[[ -z $found ]] || { echo "$found"; exit 1; }
