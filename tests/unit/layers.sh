#!/bin/bash
# Includes go only down the layers, and a foreign library's headers stay in the folder that owns it.
#   layers.sh SOURCE_DIRECTORY
set -euo pipefail
cd "$1"

# Layer, folder, the headers of include/ that are the folder's.
layers='0 lib/base          tekd/auto.h tekd/backoff.h tekd/buf.h tekd/clock.h tekd/enc.h tekd/err.h tekd/fds.h tekd/log.h tekd/net.h tekd/queue.h tekd/secret.h
1 lib/cp3           cp3.h
1 lib/audit         tekd/cosign.h tekd/escape.h tekd/ledger.h tekd/merkle.h tekd/note.h tekd/record.h tekd/timestamp.h
2 pkcs11            tekd/hsm.h
2 server/store      tekd/store.h
2 server/tls        tekd/pem.h
2 server/https      tekd/https.h
2 server/config     tekd/config.h
3 server/keys       tekd/keys.h
3 server/publish    tekd/publish.h
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
curl/                          server/https server/push bsa'

# Reads "FILE HEADER" lines; says what is wrong with each.  The folder of a file is the longest of
# the table that fits.
wrong() {
    layers=$layers libraries=$libraries awk '
        BEGIN {
            for (n = split(ENVIRON["layers"], line, "\n"); n > 0; n--) {
                k = split(line[n], word, " ")
                rank_of_folder[word[2]] = word[1]
                for (i = 3; i <= k; i++)
                    rank_of_header[word[i]] = word[1]
            }
            n_libraries = split(ENVIRON["libraries"], library, "\n")
        }
        function folder_of(file,   d, best) {
            for (d in rank_of_folder)
                if (index(file, d "/") == 1 && length(d) > length(best))
                    best = d
            return best
        }
        function check_owner(file, folder, header,   i, k, word, owners, top) {
            top = folder
            sub("/.*", "", top)
            for (i = 1; i <= n_libraries; i++) {
                k = split(library[i], word, " ")
                if (header !~ "^" word[1])
                    continue
                owners = " "
                for (; k > 1; k--)
                    owners = " " word[k] owners
                if (index(owners, " " top " ") == 0 && index(owners, " " folder " ") == 0)
                    print file ": " header " belongs to" owners
            }
        }
        function check_layer(file, folder, header) {
            if (header !~ "^tekd/" && header != "cp3.h")
                return
            if (!(header in rank_of_header))
                print file ": " header " is of no layer"
            else if (rank_of_header[header] > rank_of_folder[folder])
                print file ": " header " is of a layer above"
        }
        {
            check_owner($1, folder_of($1), $2)
            check_layer($1, folder_of($1), $2)
        }'
}

# Each pair of file and header once, in "FILE HEADER" lines.
includes() {
    grep -rnE --include='*.[ch]' '^#include' lib pkcs11 server bsa provisioning |
        sed -nE 's/^([^:]*):[0-9]+:#include ["<]([^">]*)[">].*/\1 \2/p' | sort -u
}

# What it is for is found.
for bad in 'lib/base/buf.c tekd/log_audit.h' 'lib/audit/note.c tekd/store.h' \
           'server/keys/keys.c tekd/http.h' 'server/keys/keys.c h2o.h' 'server/main.c sqlite3.h' \
           'server/http/tls.c libp11.h' 'lib/base/log.c tekd/record.h' \
           'server/keys/keys.c tekd/push.h' 'server/publish/publish.c tekd/admin.h' 'server/http/tls.c curl/curl.h'; do
    [[ -n $(wrong <<<"$bad") ]] || { echo "not found: $bad"; exit 1; }
done

[[ $(includes | wc -l) -gt 500 ]] || { echo "no includes were read"; exit 1; }
found=$(includes | wrong)
[[ -z $found ]] || { echo "$found"; exit 1; }
