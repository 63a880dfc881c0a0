#!/bin/sh
# Knotwork @VERSION@ (@PLATFORM@). This text is followed by an archive with the program and all it needs.
# It is unpacked once, into a folder named by its digest, and then this process becomes the program: no parent stays
# behind, and nothing is unpacked again. The folder: $KNOTWORK_CACHE_DIR, else $XDG_CACHE_HOME/knotwork, else
# ~/.cache/knotwork. It may be removed whenever no node runs.

case " $* " in *" up "*) trap '' HUP ;; esac # a node asked to read its configuration again must not die of it

digest=@DIGEST@
offset=@OFFSET@ # bytes of this text
blocks=@BLOCKS@ # of 64 KiB, of the archive

if [ -n "${KNOTWORK_CACHE_DIR:-}" ]; then
    cache=$KNOTWORK_CACHE_DIR
elif [ -n "${XDG_CACHE_HOME:-}${HOME:-}" ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/knotwork
else
    cache=
fi
short=${digest%????????????????????????????????????????????????}
folder=$cache/$short
program=$folder/knotwork

fail() {
    echo "error: knotwork cannot unpack itself: $2" >&2
    exit "$1"
}

is_left() { # has the process that was unpacking here gone?
    case $1 in
    "$cache/.new.$(uname -n)."*) ! kill -0 "${1##*.}" 2>/dev/null ;;
    *) false ;; # another machine or container sharing the folder
    esac
}

sha256() {
    if command -v sha256sum >/dev/null; then
        sha256sum
    elif command -v shasum >/dev/null; then
        shasum -a 256
    else
        openssl dgst -sha256 -r
    fi | cut -c 1-64
}

archive() { # by the block: when this process is killed, those it started for that end at once, too
    {
        dd bs="$offset" count=1 >/dev/null 2>&1
        left=$blocks
        while [ "$left" -gt 0 ] && kill -0 $$; do
            dd bs=65536 count=16 2>/dev/null
            left=$((left - 16))
        done
    } <"$0"
}

unpack() {
    [ -n "$cache" ] || fail 78 "neither HOME nor KNOTWORK_CACHE_DIR says where."
    mkdir -p "$cache" 2>/dev/null || fail 78 "$cache cannot be made. Set KNOTWORK_CACHE_DIR to a folder of yours."
    new=$cache/.new.$(uname -n).$$
    rm -rf "$new"
    mkdir -m 700 "$new" || fail 78 "$cache cannot be written. Set KNOTWORK_CACHE_DIR to a folder of yours."
    trap 'rm -rf "$new"' EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    [ "$(archive | sha256)" = "$digest" ] || fail 1 "$0 is damaged. Get it again."
    archive | tar -xzf - -C "$new" || fail 75 "see above; is there space left in $cache?"
    sync -f "$new" 2>/dev/null || sync # a power cut must not leave a folder that only looks whole
    mv "$new/knotwork" "$folder" 2>/dev/null # fails when another process was faster: then theirs is as good
    rm -rf "$new"
    trap - EXIT TERM INT
    [ -x "$program" ] || fail 78 "programs may not run from $cache. Set KNOTWORK_CACHE_DIR to a folder where they may."
}

for left in "$cache"/.new.*; do
    if [ -d "$left" ] && is_left "$left"; then
        rm -rf "$left" 2>/dev/null
    fi
done
[ -x "$program" ] || unpack
exec "$program" "$@"
exit 1 # what follows is the archive
