#!/bin/bash
# Run a command as the first one in a fresh clone on a bare Debian.
#
#   tests/fresh.sh make demo      one command
#   tests/fresh.sh                make demo, then make test, each on a bare system of its own
#
# The system is debootstrap's smallest with git, make and sudo, of the Debian release and the mirror
# that this machine uses, and with this machine's settings for apt and pip. The clone is HEAD:
# what is not committed is not there. The exit code is the command's.
#
#   FRESH_DIRECTORY    where systems are made (default: build/fresh)
#   FRESH_SOURCE       the repository to clone (default: this one)
#
# Needs root and debootstrap. Mounts and processes are in namespaces that end with this script,
# also when it is killed; what a killed run left on the disk is removed by the next one.
set -euo pipefail

SELF=$(realpath -- "${BASH_SOURCE[0]}")
REPOSITORY=$(dirname -- "$(dirname -- "$SELF")")
DIRECTORY=$(realpath -m -- "${FRESH_DIRECTORY:-$REPOSITORY/build/fresh}")
SOURCE=$(realpath -- "${FRESH_SOURCE:-$REPOSITORY}")
readonly SELF REPOSITORY DIRECTORY SOURCE
readonly CLONE=/root/countersign
readonly PIP_CONFIGURATIONS=(/etc/pip.conf /etc/xdg/pip /root/.config/pip /root/.pip)
# What is run behind this has mount and process namespaces that end with it, and it ends with this
# script.
readonly ISOLATED=(
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc --
)

say() { printf 'fresh: %s\n' "$*"; }

fail() {
    printf 'fresh: error: %s\n' "$*" >&2
    exit 1
}

# ---- the bare system -------------------------------------------------------------------------

apt_source_files() {
    find /etc/apt/sources.list /etc/apt/sources.list.d -type f \
        \( -name '*.list' -o -name '*.sources' \) 2>/dev/null
}

# Print "URI suite" for each of Debian's own sources of this release in the given files.
debian_sources() {
    awk -v release="$VERSION_CODENAME" '
        function found(uris, suites, components,    uri, suite, n, i) {
            if (components !~ /(^|[ \t])main([ \t]|$)/) return
            split(uris, uri, /[ \t]+/)
            n = split(suites, suite, /[ \t]+/)
            for (i = 1; i <= n; i++)
                if (suite[i] ~ "^" release "(-updates|-security|-backports)?/?$")
                    print uri[1], suite[i]
        }
        function end_of_stanza() {
            if (field["Types"] ~ /(^| )deb( |$)/)
                found(field["URIs"], field["Suites"], field["Components"])
            delete field
        }
        FNR == 1 { end_of_stanza() }
        /^[ \t]*#/ { next }
        /^deb[ \t]/ {
            sub(/^deb[ \t]+(\[[^]]*\][ \t]*)?/, "")
            uris = $1; suites = $2; $1 = $2 = ""
            found(uris, suites, $0)
        }
        /^[A-Za-z-]+:/ {
            name = $1; sub(/:.*/, "", name); sub(/^[^:]*:[ \t]*/, "")
            field[name] = $0
        }
        /^[ \t]*$/ { end_of_stanza() }
        END { end_of_stanza() }
    ' "$@"
}

# Make the bare system once: whole or not at all.
make_base() {
    local mirror proxy=''
    mapfile -t files < <(apt_source_files)
    mirror=$(debian_sources "${files[@]}" |
        awk -v suite="$VERSION_CODENAME" '$2 == suite { print $1; exit }')
    [[ -n $mirror ]] || fail "no source of Debian $VERSION_CODENAME main in /etc/apt"
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [[ -z $proxy ]] || export http_proxy=${http_proxy:-$proxy}

    say "debootstrap --variant=minbase $VERSION_CODENAME (once, into $BASE)"
    rm -rf --one-file-system -- "$BASE.part"
    if ! "${ISOLATED[@]}" debootstrap --variant=minbase --include=git,make,sudo "$VERSION_CODENAME" \
        "$BASE.part" "$mirror" >"$DIRECTORY/debootstrap.log" 2>&1 </dev/null; then
        tail -n 20 -- "$DIRECTORY/debootstrap.log" >&2
        fail "debootstrap failed; all of its output is in $DIRECTORY/debootstrap.log"
    fi
    find "$BASE.part/var/cache/apt/archives" -name '*.deb' -delete
    mv -- "$BASE.part" "$BASE"
}

# ---- this machine's settings -----------------------------------------------------------------

# Copy files or folders, those that exist, to the same place in the system $1.
copy_to() {
    local root=$1 path
    shift
    for path in "$@"; do
        [[ -e $path ]] || continue
        mkdir -p -- "$root${path%/*}"
        cp -aLT -- "$path" "$root$path"
    done
}

copy_apt_settings() {
    local root=$1 file
    rm -f -- "$root/etc/apt/sources.list"
    while read -r file; do
        [[ -n $(debian_sources "$file") ]] || continue
        copy_to "$root" "$file"
        # Keyrings that the sources name, in either notation.
        mapfile -t keyrings < <(grep -ioE 'signed-by[:=] *[^] ]+' "$file" | grep -oE '/.+')
        copy_to "$root" "${keyrings[@]}"
    done < <(apt_source_files)
    copy_to "$root" /etc/apt/trusted.gpg.d
    # How to fetch (proxies, checks, languages), not what this machine does around it.
    apt-config dump | grep -E '^Acquire::' |
        grep -vE '^Acquire::(IndexTargets|CompressionTypes|Changelogs|cdrom)\b' \
            >"$root/etc/apt/apt.conf.d/00this-machine"
}

pip_settings() {
    local name
    for name in "${!PIP_@}"; do printf '%s\n' "${!name}"; done
    find "${PIP_CONFIGURATIONS[@]}" -type f -exec cat {} + 2>/dev/null || true
}

# Folders of this machine in which pip finds packages.
pip_folders() {
    local path
    while read -r path; do
        # The pages of an index name files beside the index.
        if [[ $path == file://* ]]; then
            path=${path#file://}
            [[ $path != /*/*/* ]] || path=${path%/*}
        fi
        [[ ! -d $path ]] || printf '%s\n' "$path"
    done < <(pip_settings | grep -oE '(^|[[:space:]=])(file://)?/[^[:space:]]+' |
        sed -E 's/^[[:space:]=]//; s#/+$##') | sort -u
}

copy_settings() {
    local root=$1
    copy_apt_settings "$root"
    copy_to "$root" /etc/resolv.conf /etc/hosts "${PIP_CONFIGURATIONS[@]}" \
        /usr/local/share/ca-certificates /etc/ssl/certs/ca-certificates.crt
}

# Keep of the environment what pip, apt and TLS need, and nothing else.
clean_environment() {
    local name
    for name in $(compgen -e); do
        case $name in
            PIP_* | [Hh][Tt][Tt][Pp]_[Pp]* | [Hh][Tt][Tt][Pp][Ss]_[Pp]* | no_proxy | NO_PROXY) ;;
            SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE | GIT_SSL_CAINFO) ;;
            TERM) ;;
            *) unset "$name" ;;
        esac
    done
    export HOME=/root LANG=C.UTF-8 USER=root LOGNAME=root SHELL=/bin/bash
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
}

# ---- one command -----------------------------------------------------------------------------

# The part that runs in the namespaces, as process 1: it reaps orphans, and the kernel ends all
# that is left with it.
inside() {
    local root=$1 folder
    shift
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    while read -r folder; do
        mkdir -p -- "$root$folder"
        mount --bind -- "$folder" "$root$folder"
        mount -o remount,bind,ro -- "$root$folder"
    done < <(pip_folders)
    clean_environment
    chroot "$root" git clone --quiet /source.bundle "$CLONE"
    rm -- "$root/source.bundle"
    say "$ $*"
    chroot "$root" env -C "$CLONE" "$@"
}

COPY=''
CHILD=''
clean_up() {
    if [[ -n $CHILD ]]; then
        kill -KILL "$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
    [[ -z $COPY ]] || rm -rf --one-file-system -- "$COPY"
}

remove_stale_copies() {
    local copy
    for copy in "$DIRECTORY"/run.*; do
        [[ -d $copy && ! -d /proc/${copy##*.} ]] || continue
        say "removing $copy, left by a run that was killed"
        rm -rf --one-file-system -- "$copy"
    done
}

run() {
    local status=0
    COPY=$DIRECTORY/run.$$
    say "copying the bare system to $COPY"
    "${ISOLATED[@]}" cp -a --reflink=auto -- "$BASE" "$COPY"
    copy_settings "$COPY"
    say "cloning $(git -C "$SOURCE" rev-parse --short HEAD) of $SOURCE"
    git -C "$SOURCE" bundle create --quiet "$COPY/source.bundle" HEAD --branches --tags
    # In the background, because the shell acts on a signal only between commands; it would
    # leave SIGINT ignored in what it starts there.
    "${ISOLATED[@]}" env --default-signal=INT,QUIT "$SELF" --inside "$COPY" "$@" <&0 &
    CHILD=$!
    wait "$CHILD" || status=$?
    CHILD=''
    rm -rf --one-file-system -- "$COPY"
    COPY=''
    say "exit code $status: $*"
    return "$status"
}

main() {
    local command status=0
    [[ $EUID -eq 0 ]] || fail "making a bare system needs root"
    for command in debootstrap git unshare setpriv; do
        command -v "$command" >/dev/null || fail "$command is missing: apt-get install $command"
    done
    # shellcheck source=/dev/null
    VERSION_CODENAME=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    BASE=$DIRECTORY/$VERSION_CODENAME
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    mkdir -p -- "$DIRECTORY"
    exec 9>"$DIRECTORY/lock"
    flock 9
    [[ -d $BASE ]] || make_base
    remove_stale_copies
    exec 9>&-

    if [[ $# -gt 0 ]]; then
        run "$@"
        return
    fi
    # As processes: `set -e` does not hold in a function whose status is looked at.
    "$SELF" make demo || status=$?
    "$SELF" make test || status=$?
    return "$status"
}

if [[ ${1:-} == --inside ]]; then
    shift
    inside "$@"
else
    main "$@"
fi
