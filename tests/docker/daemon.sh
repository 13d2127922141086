# A docker daemon and an image of Debian 12 for tests/docker/run, on a machine that may have neither,
# nor a registry.  Sourced by it; $work is its folder.
# shellcheck shell=bash
# shellcheck disable=SC2154  # work

daemon_pid=
rules_before=    # "clean" if the packet filter had nothing of docker's
forward_before=  # ip_forward, and the policy of the chain FORWARD
policy_before=

# --- the daemon -----------------------------------------------------------------------------------

# What a daemon leaves behind in the kernel, to be put back: it sets both, and never resets them.
remember_network() {
    forward_before=$(cat /proc/sys/net/ipv4/ip_forward)
    policy_before=$(iptables -S FORWARD | sed -n 's/^-P FORWARD //p')
    [[ -e /sys/class/net/docker0 ]] || iptables -S | grep -q DOCKER || rules_before=clean
}

# forget_rules TABLE: those that mention docker's chains or its bridge, then the chains.
forget_rules() {
    local table=$1 rule chain

    while read -ra rule; do
        iptables -t "$table" -D "${rule[@]}"
    done < <(iptables -t "$table" -S | sed -n '/DOCKER\|docker0/s/^-A //p')
    while read -r chain; do
        iptables -t "$table" -X "$chain"
    done < <(iptables -t "$table" -S | sed -n 's/^-N \(DOCKER.*\)/\1/p')
}

restore_network() {
    [[ $rules_before == clean ]] || return 0
    forget_rules nat
    forget_rules filter
    iptables -P FORWARD "$policy_before"
    [[ ! -e /sys/class/net/docker0 ]] || ip link del docker0
    echo "$forward_before" >/proc/sys/net/ipv4/ip_forward
}

# try_daemon [OPTION]...: a daemon with everything of its own in $work.  In a session of its own: an
# interrupt at the terminal must leave it alive for the clean-up.
try_daemon() {
    local i

    setsid dockerd "$@" --data-root "$work/data" --exec-root "$work/exec" \
        --pidfile "$work/docker.pid" --host "$DOCKER_HOST" >"$work/dockerd.log" 2>&1 </dev/null &
    daemon_pid=$!
    for ((i = 0; i < 300; i++)); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$daemon_pid" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 20 "$work/dockerd.log"
    end_daemon
    return 1
}

# The best storage driver that there is for $work, or the one that works everywhere; that is slow.
start_daemon() {
    remember_network
    export DOCKER_HOST=unix://$work/docker.sock
    try_daemon || try_daemon --storage-driver=vfs
}

end_daemon() {
    kill -TERM "$daemon_pid" 2>/dev/null || true
    wait "$daemon_pid" || true
    daemon_pid=
}

stop_daemon() {
    local mount

    [[ -n $daemon_pid ]] || return 0
    end_daemon
    while read -r mount; do
        umount "$mount"
    done < <(awk -v under="$work/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r)
    restore_network
}

# --- the image ------------------------------------------------------------------------------------

# The lines of a sources.list with the machine's own sources of Debian 12.
debian_sources() {
    # shellcheck disable=SC2016  # apt's variables
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian' | grep ' bookworm' | sort -u |
        while read -r deb uri rest; do
            # A list of mirrors in a file: the first of it.
            [[ $uri != mirror+file:* ]] ||
                uri=$(awk '!/^#/ && NF { print $1; exit }' "/${uri#mirror+file:/}")
            echo "$deb $uri $rest"
        done
}

# make_base IMAGE: Debian 12 by debootstrap, with the machine's sources and proxy.
make_base() {
    local image=$1 root=$work/root mirror proxy

    # Without lists apt does not know whose sources they are.
    [[ -n $(debian_sources) ]] || apt-get update -q
    mirror=$(debian_sources | awk '$3 == "bookworm" && $4 == "main" { print $2; exit }')
    [[ -n $mirror ]] || { echo "apt has no source of Debian 12"; return 1; }
    proxy=$(apt-config dump --format '%v' Acquire::http::Proxy)
    [[ -z $proxy ]] || export http_proxy=$proxy
    debootstrap --variant=minbase bookworm "$root" "$mirror"
    debian_sources >"$root/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::https?::Proxy ' >"$root/etc/apt/apt.conf.d/proxy" || true
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | docker import - "$image"
    rm -rf "$root"
}
