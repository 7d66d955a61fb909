#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# The completion for bash offers what the program takes.

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"

tmpdir dir
"$RBDCRYPT_NBD" --dump-completion >"$dir/completion" || fail "no completion"
# shellcheck source=/dev/null
. "$dir/completion" || fail "bash does not understand it"
cd "$dir" || exit 1

# offers WANTED WORD...: completing the last word gives what is wanted, in any order.
offers() {
	local wanted=$1
	shift
	COMP_WORDS=(rbdcrypt-nbd "$@") COMP_CWORD=$#
	_rbdcrypt_nbd
	same "$*" "$(tr ' ' '\n' <<<"$wanted" | sort)" "$(printf '%s\n' "${COMPREPLY[@]}" | sort)"
}
same() { [[ $2 == "$3" ]] || { echo "not ok completion: $1: $3"; bad=1; }; }
bad=0

offers 'map' ma
offers '--encryption-format --encryption-passphrase-file --encryption-strict' map --encryption-
offers '--force' unmap --fo
offers 'luks luks1 luks2' map --encryption-format ''
offers 'luks2' map --encryption-format = luks1 --encryption-format = luks2
offers 'luks luks1 luks2' map --encryption-format =
offers 'plain json xml' ls --format ''
touch key1 key2
offers 'key1 key2' map --encryption-passphrase-file ke
offers '' map --id ''
offers '--json' status --js
rbdcrypt-nbd() { [[ $* == 'list --all' ]] && printf '%s\n' '7 rbd a /dev/nbd3 c' '- rbd b /dev/nbd12 c'; }
for command in unmap detach status stats check-keys; do
	offers '/dev/nbd3 /dev/nbd12' $command /dev/
done
# Every option that the help lists, and no other.
for command in map unmap attach detach list status serve; do
	offers "$("$RBDCRYPT_NBD" $command --help | sed -n 's/^  *\(-[a-zA-Z], \)\{0,1\}--\([a-z_0-9-]*\).*/--\2/p')" \
		$command --
done
exit $bad
