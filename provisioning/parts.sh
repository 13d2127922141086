# What provisioning/quickstart and the containers of docker/ have in common: the token, the keys,
# the certificates and the configuration of the demonstration, and what is played with them.
# Sourced by bash, with "set -euo pipefail"; does nothing by itself.
# shellcheck shell=bash
#
# Who sources it says who and where:
#
#   me            its name, in front of what it complains of
#   state         tekd's folder: tokens/, softhsm2.conf, hsm.pin, tekd.yaml
#   so_pin        the file of the SO PIN
#   pki           the folder of the development CA
#   public_key    where the key that checks the audit log is written
#   bsa_state     the BSA's folder: its KEK, and what it was given
#   bsa_pki       the folder of its certificate, its key and the CA's certificate
#   socket        tekd's admin socket, as tekctl finds it
#   tekd_hsm tekctl tek_provision tek_bsa     the programs
#
# shellcheck disable=SC2154  # these

# What the demonstration calls its parts.
bsm=bsm.example.net
bsa="bsa-1"
content=urn:example:channel-1
token=tekd

# How often something is asked before it counts as failed, and the pause between, in seconds.
tries=150
pause=0.2

# --- telling ----------------------------------------------------------------------------------

step() {
    printf '\n==> %s\n' "$*"
}

say() {
    printf '    %s\n' "$*"
}

die() {
    printf '%s: %s\n' "$me" "$*" >&2
    exit 1
}

# Shows a command as one would type it, with the path of the program cut to its name; runs it.
run() {
    local shown
    printf -v shown ' %q' "${@:2}"
    printf '    $ %s%s\n' "${1##*/}" "$shown"
    "$@" | sed 's/^/      /' || die "${1##*/} failed"
}

# --- the token and its keys -------------------------------------------------------------------

find_module() {
    local path
    for path in /usr/lib/softhsm /usr/lib/*/softhsm; do
        if [[ -e $path/libsofthsm2.so ]]; then
            module=$path/libsofthsm2.so
            return
        fi
    done
    die "SoftHSM is not installed (package softhsm2)"
}

# SoftHSM wants an absolute path: written anew, so that the directory may be moved.
write_softhsm_conf() {
    cat >"$state/softhsm2.conf" <<END
directories.tokendir = $state/tokens
objectstore.backend = file
log.level = ERROR
END
}

# tek-provision over the token.
provision() {
    run "$tek_provision" "$@" --module "$module" --profile softhsm \
        --env "SOFTHSM2_CONF=$state/softhsm2.conf" --pin-file "$state/hsm.pin"
}

make_keys() {
    local uri=pkcs11:token=$token

    step "HSM token (SoftHSM, for development) with random PINs in hsm.pin and so.pin"
    provision token --label "$token" --so-pin-file "$so_pin" --generate-pins
    step "keys: the storage KEK wraps TEKs at rest, the checkpoint key signs the audit log"
    provision kek storage --token "$uri" --label tekd-storage
    provision key checkpoint --token "$uri" --label tekd-checkpoint --out "$public_key"
    step "the BSA's KEK; $bsa.kek is the BSA's side of it, in clear, for this demonstration only"
    provision kek bsa --token "$uri" --label "$bsa" --export-demo "$bsa_state/$bsa.kek"
    step "what is in the token"
    provision list --token "$uri"
}

# --- the development PKI ----------------------------------------------------------------------

make_ca() {
    run "$tek_provision" pki ca --dir "$pki"
}

# make_certificate NAME [--host HOST]...
make_certificate() {
    run "$tek_provision" pki cert --dir "$pki" --name "$@"
}

# A CRL holds 30 days; an expired one would lock everybody out.
make_crl() {
    run "$tek_provision" pki crl --dir "$pki"
}

# --- configuration ----------------------------------------------------------------------------

# write_config ADDRESS ANCHOR SOCKET HEALTH: where tekd listens, its anchor file, its admin socket,
# and the address and port of /readyz.
write_config() {
    cat >"$state/tekd.yaml" <<END
# Written by $me; "tekd --sample-config" explains every setting.
bsm_id: $bsm
listen: [{address: $1, port: 8443}]
tls: {certificate: pki/tekd.crt, key: pki/tekd.key, client_ca: pki/ca.crt, crl: pki/ca.crl}
hsm:
  program: $tekd_hsm
  module: $module
  env: {SOFTHSM2_CONF: softhsm2.conf}
  token: "pkcs11:token=$token"
  pin_file: hsm.pin
  profile: softhsm
  workers: 2
store: {sqlite: tekd.db}
audit: {release: signed, anchor_file: $2}
policy: {auto_content: true}
admin: {socket: $3, http: "$4"}
log: {format: logfmt, level: info}
END
}

# --- the server -------------------------------------------------------------------------------

# is_ready HOST PORT: keys can be given: /readyz says 200.
is_ready() {
    local line=
    {
        printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
        read -r -t 5 line <&3
    } 2>/dev/null 3<>"/dev/tcp/$1/$2" || true
    [[ $line == "HTTP/1.1 200"* ]]
}

ctl() {
    run "$tekctl" --socket "$socket" "$@"
}

# enrol CERTIFICATE [OPTION]...: the BSA, with those options of "bsa add".
enrol() {
    step "enrolment: certificate and KEK make $bsa known, --entitle says what it may have"
    if "$tekctl" --socket "$socket" bsa show "$bsa" >/dev/null 2>&1; then
        say "$bsa is enrolled already"
    else
        ctl bsa add "$bsa" --cert "$1" --kek "$bsa" --entitle '*' "${@:2}"
    fi
}

# --- both cases of CP-3 -----------------------------------------------------------------------

# request URL [OPTION]...: a Key Request with the MessageID $message.
request() {
    run "$tek_bsa" request --url "$1" --ca "$bsa_pki/ca.crt" \
        --cert "$bsa_pki/$bsa.crt" --key "$bsa_pki/$bsa.key" --kek "$bsa_state/$bsa.kek" \
        --source "$bsa" --destination "$bsm" --content "$content" --message-id "$message" "${@:2}"
}

# play_request URL
play_request() {
    message=$bsa-$(date +%Y%m%dT%H%M%S)-$$
    step "Key Request: the BSA asks for the TEK of $content and unwraps the answer"
    rm -f "$bsa_state/$bsa.tek"
    request "$1" --out "$bsa_state/$bsa.tek"
    say "TEK, unwrapped by the BSA: $(<"$bsa_state/$bsa.tek")"
    step "the same Message ID again: the same answer, octet by octet"
    request "$1"
}

# Until the delivery $pushed is confirmed; $1 is where the BSA's log is found.
wait_for_confirmation() {
    local i

    for ((i = 0; i < tries; i++)); do
        "$tekctl" --socket "$socket" --json delivery show "$pushed" |
            grep -q '"state": "confirmed"' && return
        sleep "$pause"
    done
    "$tekctl" --socket "$socket" delivery show "$pushed" >&2
    die "the delivery $pushed was not confirmed; see $1"
}

# push_delivery LOG: its MessageID is in $pushed then.
push_delivery() {
    step "Key Delivery: tekd pushes the TEK of $content, the BSA unwraps and confirms it"
    say "\$ tekctl deliver $content --bsa $bsa"
    pushed=$("$tekctl" --socket "$socket" deliver "$content" --bsa "$bsa") ||
        die "tekctl deliver failed"
    say "  $pushed"
    wait_for_confirmation "$1"
}
