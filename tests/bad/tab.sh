#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# rbdcrypttab: what the generator makes of it, and that a wrong line, file or folder costs no more
# than itself.

# Conditions are text until they are asked.
# shellcheck disable=SC2016
set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"

GENERATOR=$O/rbdcrypt-generator
[[ -x $GENERATOR ]] || fail "no $GENERATOR"
tmpdir dir
export RBDCRYPTTAB=$dir/tab
bad=0

check() { # NAME CMD...
	local name=$1
	shift
	if "$@"; then echo "ok $name"; else echo "not ok $name"; cat "$dir/err"; find "$out"; bad=1; fi
}

# generate: the tab on standard input; its status is in rc, what it wrote in $out.
generate() {
	out=$dir/out
	rm -rf "$out"
	mkdir "$out"
	cat >"$RBDCRYPTTAB"
	"$GENERATOR" "$out" "$out" "$out" >"$dir/stdout" 2>"$dir/err"
	rc=$?
}

said() { [[ $(<"$dir/err") == *"$1"* ]]; }
has() { [[ -e $out/$1 || -L $out/$1 ]]; }
# starts NAME: its unit can be started.
starts() { grep -qs "^ExecStart=." "$out/rbdcrypt-nbd@$1.service.d"/*; }
line() { grep -qxF -- "$2" "$out/rbdcrypt-nbd@$1.service.d/50-rbdcrypttab.conf"; }

# Started when its device is asked for, and not when somebody else mapped it.
if_absent() { grep -qxF -- "ConditionPathExists=!$2" "$out/rbdcrypt-wanted@$1.service.d/50-rbdcrypttab.conf"; }

all_of() { # "CMD ARG" ...
	local each
	for each; do
		eval "$each" || { echo "# not: $each"; return 1; }
	done
}

generate </dev/null
check nothing-for-nothing all_of '((rc == 0))' '[[ -z $(find "$out" -mindepth 1) ]]'

generate <<<'db rbd/db /keys/a,/keys/b read-only,id=vm'
check volume-is-wanted-and-ordered all_of '((rc == 0))' '[[ ! -s $dir/err ]]' \
	'has rbdcrypt.target.requires/rbdcrypt-nbd@db.service' \
	'has remote-fs.target.wants/rbdcrypt.target' \
	'has dev-rbdcrypt-rbd-db.device.wants/rbdcrypt-wanted@db.service' \
	'if_absent db "/dev/rbdcrypt/rbd/db"' \
	'line db "Before=blockdev@dev-rbdcrypt-rbd-db.target"' \
	'line db "Wants=blockdev@dev-rbdcrypt-rbd-db.target"' \
	'line db "RequiresMountsFor=\"/keys/b\""' 'line db "Before=rbdcrypt.target"' \
	'grep -q -- "-o \"read-only,id=vm\" [\$]RBDCRYPT_OPTIONS -- \"rbd/db\"$" "$out"/*db*/*'

# A line of its own that systemd could not read would leave the template's command in force.
check no-other-command-is-left all_of \
	'[[ $(grep -m 2 -n . "$out"/*nbd@db.service.d/*) == *"2:[Service]" ]]' \
	'[[ $(grep -m 1 ExecStart "$out"/*nbd@db.service.d/*) == ExecStart= ]]' \
	'[[ $(grep -c ExecStart "$out"/*nbd@db.service.d/*) == 2 ]]'

generate <<<'a rbd/a /k noauto
b rbd/b /k nofail
c rbd/c /m/k key-wait,key-mount=/m
d rbd/d keyring:x -'
check options-choose-who-starts-it all_of '((rc == 1))' \
	'! has rbdcrypt.target.requires/rbdcrypt-nbd@a.service' \
	'has dev-rbdcrypt-rbd-a.device.wants/rbdcrypt-wanted@a.service' \
	'if_absent a "/dev/rbdcrypt/rbd/a"' '! has rbdcrypt-wanted@c.service.d' \
	'[[ ! $(find "$out" -path "*.device.wants/rbdcrypt-nbd@*") ]]' \
	'has rbdcrypt.target.wants/rbdcrypt-nbd@b.service' '! line b "Before=rbdcrypt.target"' \
	'! has rbdcrypt.target.requires/rbdcrypt-nbd@c.service' \
	'has rbdcrypt.target.wants/rbdcrypt-keys@c.path' \
	'has m.mount.wants/rbdcrypt-nbd@c.service' 'line c AssertPathIsMountPoint=/m' \
	'grep -qx PathExists=/m/k "$out"/rbdcrypt-keys@c.path.d/*' \
	'said ":4: option -"' '! starts d'

generate <<<'d rbd/d keyring:x'
check keyring-is-shared-where-it-is-used all_of 'line d KeyringMode=shared' '((rc == 0))'

generate <<<'a rbd/a /keys/x%p/%i.key,/other/k nofail
b rbd/b /k/%i key-wait,noauto,key-mount=/k'
check specifiers-are-known-where-systemd-needs-them all_of '((rc == 0))' \
	'line a "RequiresMountsFor=\"/keys/\""' 'line a "RequiresMountsFor=\"/other/k\""' \
	'grep -q -- "--encryption-passphrase-file \"/keys/x%%p/%%i.key\"" "$out"/*@a.*/*' \
	'grep -qx PathExists=/k/b "$out"/rbdcrypt-keys@b.path.d/*' \
	'! has k.mount.wants' '! has rbdcrypt.target.wants/rbdcrypt-keys@b.path'

generate <<<'x rbd/a;b %k
y rbd/$HOME/"b\040%n /a"b'
check odd-names-stay-themselves all_of '((rc == 1))' 'said ":1: key file"' \
	'grep -qF -- "\"/a\\\"b\" \$RBDCRYPT_OPTIONS -- \"rbd/\$\$HOME/\\\"b %%n\"" "$out"/*y*/*'

generate <<<'p rbd/n/a%b@s\040t -'
check condition-has-the-name-that-udev-makes if_absent p '/dev/rbdcrypt/rbd/n/a\x25b@s\x20t'

generate <<<'one rbd/one
two rbd/two -
two rbd/three -
four rbd/two -'
check others-start all_of '((rc == 1))' 'has rbdcrypt.target.requires/rbdcrypt-nbd@two.service' \
	'has rbdcrypt-wanted@two.service.d' \
	'starts two' '! starts one' '! starts four' '! has rbdcrypt-nbd@three.service.d' \
	'[[ $(find "$out" -type l -name "*@*" | grep -vc "@two") == 0 ]]' \
	'said "$RBDCRYPTTAB:1: too few fields; expected: NAME"' \
	'said "$RBDCRYPTTAB:3: the same name as in $RBDCRYPTTAB:2"' \
	'said "$RBDCRYPTTAB:4: the same image as in $RBDCRYPTTAB:2"'

check refused-line-keeps-its-unit-from-starting all_of \
	'line one ExecStart=' 'line four ExecStart=' \
	'[[ $(tail -n 1 "$out"/*@one*/*) == "Description=$RBDCRYPTTAB:1: too few fields; "* ]]'

generate <<<'a rbd/a
a rbd/a -'
check line-that-is-right-counts all_of '((rc == 1))' \
	'has rbdcrypt.target.requires/rbdcrypt-nbd@a.service' 'starts a'

mkdir "$dir/tab.d"
echo 'b rbd/b -' >"$dir/tab.d/2"
echo 'a rbd/b -' >"$dir/tab.d/10"
echo 'c rbd/c -' >"$dir/tab.d/old~"
echo 'd rbd/d -' >"$dir/tab.d/x.dpkg-dist"
mkdir "$dir/tab.d/folder"
generate <<<'z rbd/z -'
check folder-is-read-in-order all_of '((rc == 1))' 'has rbdcrypt-nbd@z.service.d' \
	'has rbdcrypt-nbd@a.service.d' '! starts b' \
	'! has rbdcrypt-nbd@c.service.d' '! has rbdcrypt-nbd@d.service.d' \
	'said "$dir/tab.d/2:1: the same image as in $dir/tab.d/10:1"' 'said "$dir/tab.d/folder: "'
rm -r "$dir/tab.d"

generate < <(printf 'a rbd/a -\n'; head -c 200000 /dev/zero | tr '\0' x; printf '\nb rbd/b -\n')
check endless-line-is-one-line all_of '((rc == 1))' 'has rbdcrypt-nbd@a.service.d' \
	'has rbdcrypt-nbd@b.service.d' 'said ":2: too few fields"'

generate < <(head -c 20000 /dev/urandom; printf '\nb rbd/b -\n')
check noise-is-survived all_of '((rc < 2))' 'has rbdcrypt-nbd@b.service.d'

echo 'a rbd/a -' >"$RBDCRYPTTAB"
out=$dir/tab/x
"$GENERATOR" "$out" 2>"$dir/err"
rc=$?
check folder-that-cannot-be-written-is-said all_of '((rc == 1))' 'said "Not a directory"'
"$GENERATOR" 2>"$dir/err"
rc=$?
check usage all_of '((rc == 1))' 'said usage'
exit $bad
