#!/bin/sh
# The steps of the Dockerfile in a clean root folder, for machines without a container engine: a minimal Debian instead of the base image,
# no network once it runs. usage, as root: container.sh FOLDER WHEEL PAGE; prints the page's text. Needs debootstrap.
set -eu
folder=$(realpath "$1") wheel=$(realpath "$2") page=$(realpath "$3") here=$(realpath "$(dirname "$0")")
base=$folder/base root=$folder/root

[ -x "$base/usr/bin/python3" ] || debootstrap --variant=minbase --include=python3,python3-pip,ca-certificates stable "$base"
rm -rf "$root"
cp -a "$base" "$root"
# What an engine gives a container: names of hosts, and here the certificates of the network.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mkdir "$root/dist"
cp "$wheel" "$page" "$root/dist/"
ln -sf python3 "$root/usr/bin/python"

python3 "$here/dockerfile.py" RUN | while read -r step; do
    chroot "$root" /usr/bin/env PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore sh -euc "$step" >&2
done
rm "$root"/dist/*.whl

cat > "$root/dist/inside.sh" <<'INSIDE'
set -eu
setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all sh -c "exec $1" > /tmp/log 2>&1 &
server=$!
trap 'cat /tmp/log >&2; kill -9 $server 2>/dev/null' EXIT
for _ in $(seq 300); do
    kill -0 $server
    if setpriv --reuid 10001 --regid 10001 --clear-groups sh -c "$2" 2>/dev/null; then healthy=1 && break; fi
    sleep 0.2
done
[ "$healthy" ]
python3 - "$3" <<'CLIENT'
import base64, json, sys, urllib.request
body = json.dumps({"file": base64.b64encode(open(sys.argv[1], "rb").read()).decode(), "format": "text"}).encode()
request = urllib.request.Request("http://127.0.0.1:8000/v1/read", body, {"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
CLIENT
kill -TERM $server
wait $server
trap - EXIT
INSIDE

# A root that cannot be written to but for /tmp, and a network that is only the loopback.
unshare --mount --net --pid --fork --mount-proc="$root/proc" sh -euc '
    ip link set lo up
    mount --bind "$1" "$1"
    mount -t tmpfs tmpfs "$1/tmp"
    mount -t tmpfs tmpfs "$1/dev"
    for device in null zero urandom; do touch "$1/dev/$device"; mount --bind "/dev/$device" "$1/dev/$device"; done
    mount -o remount,bind,ro "$1"
    exec chroot "$1" sh /dist/inside.sh "$2" "$3" "/dist/$4"
' sh "$root" "$(python3 "$here/dockerfile.py" ENTRYPOINT)" "$(python3 "$here/dockerfile.py" HEALTHCHECK)" "$(basename "$page")"
