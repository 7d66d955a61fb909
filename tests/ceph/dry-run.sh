#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# dry-run.sh: what is said of a chain before it is mapped, and of chains that cannot be: wrong
# order of passphrases, one passphrase for two keys, parents in the trash, gone or damaged, settings
# of Ceph at every level, sixteen layers.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd rados ceph-osd cryptsetup nbdcopy jq cmp
/usr/bin/python3 -c 'import rados, rbd' 2>/dev/null || skip "missing: python3-rbd"
HERE=$(realpath "${BASH_SOURCE[0]%/*}")
program_on_cluster memstore
CASE_LOGS=("$T/out" "$T/err")

# Python with the hierarchies of layers.py: images of 12 MiB whose bytes tell whose they are.
layers() {
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$HERE /usr/bin/python3 - "$CEPH_CONF" "$T" <<-END
		import sys
		from layers import MIB, clone, connect, create
		import rbd
		LOCK = rbd.RBD_FEATURE_EXCLUSIVE_LOCK
		with connect(*sys.argv[1:3]):
		$(sed 's/^/    /')
	END
}

layers <<'END' || fail "no images"
plain = create("plain", 12 * MIB)
with plain.open() as image:
    image.write(b"plain" * 1000, 5 * MIB)
x = clone(plain, "x", features=LOCK).format("luks2", "x", 2 * MIB)
y = clone(x, "y", features=LOCK).format("luks1", "y", 3 * MIB)
inherits = clone(y, "inherits", features=LOCK)
top = clone(inherits, "top", features=LOCK).format("luks2", "t", 2 * MIB)
clone(x, "nolock").format("luks2", "y", 2 * MIB)
deep = plain
for i in range(16):
    deep = clone(deep, f"deep{i}", features=LOCK).format(("luks1", "luks2")[i % 2], f"d{i}", 2 * MIB)
END
keys() { local k; for k in $1; do printf -- '--encryption-passphrase-file\n%s/pass-%s\n' "$T" "$k"; done; }

# gives STATUS COMMAND ARGUMENT...: into $T/out and $T/err; nothing stays behind.
gives() {
	local want=$1 rc
	shift
	timeout 60 "$PROGRAM" "$@" >"$T/out" 2>"$T/err" </dev/null
	rc=$?
	[[ $rc -eq $want ]] || { echo "exit status $rc, not $want: $*"; return 1; }
	[[ -z $(find "$T/run" -name '*.json*' 2>/dev/null) && ! -e $T/s ]] || { echo "something is left"; return 1; }
}
# dry STATUS SPEC "PASSPHRASES" [OPTION]...
dry() {
	local status=$1 spec=$2 options
	mapfile -t options < <(keys "$3")
	shift 3
	gives "$status" map --dry-run "${options[@]}" "$@" "$spec"
}
says() { grep -qE -- "$1" "$T/out" || { echo "does not say: $1"; return 1; }; }
hints() { grep -qE -- "^hint: .*$1" "$T/err" || { echo "does not hint: $1"; return 1; }; }
errs() { head -n 1 "$T/err" | grep -qE -- "$1" || { echo "no such error: $1"; return 1; }; }
# refused STATUS "PASSPHRASES" SPEC ERROR HINT: by a real start
refused() {
	local options
	mapfile -t options < <(keys "$2")
	gives "$1" serve --socket "$T/s" --read-only "${options[@]}" "$3" && errs "$4" && hints "$5"
}

# ---- what it says ----
shows_the_chain() {
	dry 0 rbd/top "t y y x" --read-only && says '^layers: 5$' && says '^  5 rbd/plain@for-x$' &&
		says 'luks1, inherited from layer 3, 512-bit key, 512-byte sectors, data at 3145728' &&
		says '^passphrases: 4$' && says '^  1 rbd/top: .*pass-t, not tried$' &&
		says '^store: rados, read-only, 10485760 bytes$' && says '^verdict: nothing stands in the way$' &&
		says 'size 9437184, raw 12582912, sees 9437184 of its parent'
}
json_has_the_same() {
	dry 0 rbd/y "y x" --read-only --format json && [[ $(jq -c '[.layers[].format], .passphrases,
		.keys_tested, .store, .size, .layers[0].overlap, .refusals' "$T/out" | tr '\n' ' ') == \
		'["luks1","luks2","plaintext"] 2 false "rados" 9437184 9437184 [] ' ]] &&
		dry 0 rbd/y "y x" --read-only --format xml && says '^<plan>.*<layers><layer>.*<spec>rbd/y</spec>'
}
says_which_file_opens_which() {
	dry 0 rbd/top "t y y x" --read-only --test-keys && says '^  4 rbd/x@for-y: .*pass-x, opened$' &&
		says '^verdict: would work$' &&
		dry 2 rbd/top "t x y x" --read-only --test-keys &&
		says '^  2 rbd/inherits@for-top: .*pass-x, another file opens it: .*pass-y$' &&
		says '^verdict: refused$' && hints 'in this order: .*pass-t, .*pass-y, .*pass-y, .*pass-x$'
}
# A pipe that nobody writes to would stop whoever opens it.
tries_nothing_by_itself() {
	mkfifo "$T/pass-pipe" && dry 0 rbd/y "pipe pipe" --read-only && says 'pass-pipe, not tried'
}
files_that_are_not_there_are_told() {
	dry 2 rbd/y "nobodys x" --read-only && errs 'pass-nobodys: No such file'
}
every_refusal_is_told() {
	rbd config image set rbd/x rbd_persistent_cache_mode rwl || return
	dry 7 rbd/x "x x x" --encryption-strict
	local rc=$?
	rbd config image rm rbd/x rbd_persistent_cache_mode
	[[ $rc -eq 0 ]] && says 'refused \(7\): .*rbd_persistent_cache_mode' &&
		says 'refused \(10\): layer 2: rbd/plain@for-x has no LUKS header' &&
		says 'refused \(1\): 3 passphrase files' && says 'refused \(10\): .*encryption-strict'
}
without_passphrases_it_shows_what_they_would_be() {
	dry 7 rbd/y "" && says '^passphrases: 2$' && says '^  1 rbd/y: no file given' &&
		errs 'formatted clone: .* with its own$' && dry 0 rbd/y "" --read-only && says '^store: librbd' && says 'served raw' &&
		dry 0 rbd/plain "" && says '^passphrases: 0$' && says 'librbd, read and write'
}
what_is_served_is_in_use() {
	"$PROGRAM" serve --socket "$T/s" rbd/plain >/dev/null || return
	timeout 60 "$PROGRAM" map --dry-run rbd/plain >"$T/out" 2>"$T/err"
	local rc=$?
	"$PROGRAM" unmap rbd/plain && [[ $rc -eq 5 ]] && errs 'rbd/plain.*already'
}
run_case "the chain, its formats and sizes are shown" shows_the_chain
run_case "JSON and XML have the same" json_has_the_same
run_case "with --test-keys, which file opens which layer" says_which_file_opens_which
run_case "no passphrase is tried, nor read" tries_nothing_by_itself
run_case "a passphrase file that is missing is told" files_that_are_not_there_are_told
run_case "everything that would be refused is told" every_refusal_is_told
run_case "without passphrases, what they would be" without_passphrases_it_shows_what_they_would_be
run_case "an image in use" what_is_served_is_in_use

# ---- passphrases ----
run_case "the order that would fit is told" refused 2 "x y" rbd/y 'layer 1: rbd/y \(luks1\).*pass-x' 'in this order: .*pass-y, .*pass-x$'
run_case "also where one fits several layers" refused 2 "x t y" rbd/top 'layer 1: rbd/top' 'order: .*pass-t, .*pass-y, .*pass-y, .*pass-x$'
run_case "one passphrase for two keys" refused 2 "y y" rbd/y 'layer 2: rbd/x@for-y.*that of layer 1' 'layers 1 and 2 have different keys'
run_case "one too few" refused 2 "y" rbd/y 'layer 2: rbd/x@for-y \(luks2\)' 'the last passphrase goes on'
run_case "one that fits nothing" refused 2 "y t" rbd/y 'layer 2: rbd/x@for-y' 'none of the passphrase files opens it'

# ---- stores ----
run_case "librbd cannot show a chain with several keys" gives 1 serve --socket "$T/s" --read-only --store=librbd \
	--encryption-passphrase-file "$T/pass-y" --encryption-passphrase-file "$T/pass-x" rbd/y
rados_serves_flat_images() {
	local rc=0
	rbd --no-progress export rbd/plain "$T/whole" && rbd clone rbd/plain@for-x rbd/c || return
	for image in plain c; do
		"$PROGRAM" serve --socket "$T/s" --read-only --store=rados "rbd/$image" >/dev/null || return
		"$PROGRAM" status --json "rbd/$image" | jq -e '.[0].store == "rados"' &&
			nbdcopy "nbd+unix:///?socket=$T/s" "$T/ours" && cmp "$T/ours" "$T/whole" || rc=1
		"$PROGRAM" unmap "rbd/$image" || rc=1
	done
	return $rc
}
run_case "the rados store serves flat images and raw clones too" rados_serves_flat_images
no_lock_needs_a_word() {
	dry 7 rbd/nolock "y x" --without-exclusive-lock && return 1
	dry 7 rbd/nolock "y x" && says 'refused \(7\): rbd/nolock has no exclusive-lock' && says 'hint: rbd feature enable rbd/nolock exclusive-lock'
}
run_case "writing without the exclusive-lock feature" no_lock_needs_a_word

# ---- settings, at each level ----
copy_on_read() { # HINT CMD...: set by CMD
	local hint=$1
	shift
	"$@" || return
	dry 7 rbd/y "y x" && says 'refused \(7\): rbd/y: with rbd_clone_copy_on_read' && says "hint: .*$hint" && dry 0 rbd/y "y x" --read-only
}
run_case "copy on read, set for the image" copy_on_read 'rbd config image rm rbd/y rbd_clone_copy_on_read' \
	rbd config image set rbd/y rbd_clone_copy_on_read true
rbd config image rm rbd/y rbd_clone_copy_on_read
run_case "copy on read, set for the pool" copy_on_read 'rbd config pool rm rbd rbd_clone_copy_on_read' \
	rbd config pool set rbd rbd_clone_copy_on_read true
rbd config pool rm rbd rbd_clone_copy_on_read
everybodys_settings() {
	# The first is overridden for our own connection; with the second there may be data elsewhere.
	export CEPH_ARGS="--rbd-clone-copy-on-read=true --rbd-persistent-cache-mode=rwl"
	dry 7 rbd/y "y x" --read-only
	local rc=$?
	export CEPH_ARGS=
	[[ $rc -eq 0 ]] && ! says copy_on_read && says 'refused \(7\): rbd/y: rbd_persistent_cache_mode' &&
		says 'hint: .*CEPH_ARGS.*ceph config rm client rbd_persistent_cache_mode'
}
run_case "settings for everybody" everybodys_settings

# ---- sixteen layers ----
sixteen_layers() {
	local options i all=()
	for ((i = 15; i >= 0; i--)); do all+=("d$i"); done
	mapfile -t options < <(keys "${all[*]}")
	dry 0 rbd/deep15 "${all[*]}" --read-only --test-keys && says '^layers: 17$' && says '^passphrases: 16$' &&
		"$PROGRAM" serve --socket "$T/s" --read-only "${options[@]}" rbd/deep15 >/dev/null || return
	nbdcopy "nbd+unix:///?socket=$T/s" "$T/ours"
	"$PROGRAM" unmap rbd/deep15 && cmp -n $((10 << 20)) "$T/ours" "$T/whole"
}
run_case "a chain of sixteen formatted clones" sixteen_layers

# ---- headers of different sizes: x's takes 2 MiB, y's three, those of inherits and top three and two ----
# unseen SPEC "PASSPHRASES" LINE...: what a start says of it, and no more
unseen() {
	local spec=$1 options line want=0
	mapfile -t options < <(keys "$2")
	shift 2
	"$PROGRAM" serve --socket "$T/s" --read-only "${options[@]}" "$spec" >"$T/out" 2>"$T/err" || return
	"$PROGRAM" unmap "$spec" || return
	for line; do
		want=$((want + 1))
		grep -qF ": layer $line: its header is that much larger" "$T/err" || { echo "does not say: $line"; return 1; }
	done
	[[ $(grep -c 'does not see' "$T/err") -eq $want ]]
}
the_end_of_a_parent_is_told() {
	unseen rbd/y "y x" "1: rbd/y does not see the last 1048576 bytes of its parent rbd/x@for-y" \
		"2: rbd/x@for-y does not see the last 2097152 bytes of its parent rbd/plain@for-x" &&
		unseen rbd/inherits "y y x" "2: rbd/y@for-inherits does not see the last 1048576 bytes of its parent rbd/x@for-y" \
			"3: rbd/x@for-y does not see the last 2097152 bytes of its parent rbd/plain@for-x"
}
no_end_that_a_clone_sees_is_told() {
	rbd --no-progress resize --allow-shrink --size 11M rbd/x && rbd --no-progress resize --size 16M rbd/x &&
		unseen rbd/x "x" && unseen rbd/plain "" && unseen rbd/top "t y y x" \
			"3: rbd/y@for-inherits does not see the last 1048576 bytes of its parent rbd/x@for-y" \
			"4: rbd/x@for-y does not see the last 2097152 bytes of its parent rbd/plain@for-x"
}
run_case "a start tells of the end of a parent that is not seen" the_end_of_a_parent_is_told
run_case "not of what was shrunk away, nor of one that is seen" no_end_that_a_clone_sees_is_told

# ---- layers that are damaged, too small, in the trash or gone: the chain is no more after this ----
parent_in_the_trash() {
	rbd trash mv rbd/x && dry 0 rbd/y "y x" --read-only --test-keys && says '^verdict: would work' &&
		rbd trash restore "$(rbd trash ls --format json | jq -r '.[0].id')"
}
run_case "a parent in the trash serves as before" parent_in_the_trash
parent_header_damaged() {
	local id
	id=$(rbd info --format json rbd/x | jq -r .id)
	# The JSON of both copies, in the object that holds the header, in place.
	for at in 4200 20584; do
		printf 'XXXX' | rados -p rbd put --offset $at "$(rbd info --format json rbd/x | jq -r .block_name_prefix).0000000000000000" - || return
	done
	dry 10 rbd/x "x" --read-only && errs 'layer 1: rbd/x'
}
small() { rbd --no-progress resize --allow-shrink --size "$2" "$1"; }
clone_smaller_than_its_header() {
	small rbd/nolock 1M && dry 10 rbd/nolock "y x" --read-only && errs 'layer 1: rbd/nolock'
}
header_fills_the_clone() {
	small rbd/top 2M && dry 4 rbd/top "t y y x" --read-only && errs 'rbd/top has no room for data$'
}
run_case "a clone that is smaller than its header" clone_smaller_than_its_header
run_case "a clone that its header fills" header_fills_the_clone
run_case "a damaged header" parent_header_damaged
parent_gone() {
	local id
	id=$(rbd info --format json rbd/x | jq -r .id)
	rados -p rbd rm "rbd_header.$id" && dry 4 rbd/y "y x" --read-only && errs 'rbd/y: its parent.*gone' && hints 'rbd trash ls'
}
run_case "a parent that is gone" parent_gone

[[ $failures -eq 0 ]] || fail "$failures claims do not hold"
