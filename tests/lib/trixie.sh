# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# trixie.sh: a Debian 13 root tree, for Ceph Reef (18.2), the reference for the encryption of
# clones, and for building and running there.

# shellcheck source=tests/lib/packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"
# shellcheck source=tests/lib/tree.sh
. "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

TREE_CACHE=${RBDCRYPT_CACHE:-/var/tmp/rbdcrypt-nbd-trixie}

# trixie_root: builds the tree when there is none, and exports REEF_ROOT. Else it returns 77
# and the reason was said.
trixie_root() {
	local mirrors stamp packages
	[[ $EUID -eq 0 ]] || { say "SKIPPED: the Debian 13 tree needs root"; return 77; }
	packages=$(packages_of build test kernel | tr -s ' ' '\n' | grep -v '?$' | sort -u)
	packages+=$'\nsystemd\nsystemd-sysv\ndbus\nudev\nstrace'
	stamp=$(sha256sum <<<"$packages" | cut -c 1-16)
	mkdir -p "$TREE_CACHE" || return 77
	exec {_tree_lock}>"$TREE_CACHE/lock"
	flock "$_tree_lock"
	if [[ ! -e $TREE_CACHE/$stamp ]]; then
		if ! { need_packages reef && _tree_build "$stamp"; }; then
			say "SKIPPED: no Debian 13 tree"
			exec {_tree_lock}>&-
			return 77
		fi
	fi
	exec {_tree_lock}>&-
	export REEF_ROOT=$TREE_CACHE/$stamp
}

_tree_build() { # STAMP
	local new=$TREE_CACHE/new args=() line
	while read -r line; do
		args+=("--aptopt=$line")
	done < <(apt-config dump Acquire | grep -i '::proxy')
	mapfile -t mirrors < <(_tree_sources)
	[[ ${#mirrors[@]} -gt 0 ]] || { say "no Debian mirror in this machine's apt sources"; return 1; }
	say "building a Debian 13 tree in $TREE_CACHE; it takes a minute or two"
	rm -rf --one-file-system -- "$new" "$TREE_CACHE"/[0-9a-f]*
	# shellcheck disable=SC2086
	if ! mmdebstrap --mode=root --variant=apt --skip=output/dev "${args[@]}" \
		--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--include="${packages//$'\n'/,}" trixie "$new" "${mirrors[@]}" \
		>"$TREE_CACHE/log" 2>&1; then
		tail -n 15 "$TREE_CACHE/log" >&2
		rm -rf --one-file-system -- "$new"
		return 1
	fi
	rm -rf "$new"/var/cache/apt/archives/*.deb "$new"/var/lib/apt/lists/*
	mv "$new" "$TREE_CACHE/$1"
}

# The places that this machine's own release comes from also have the other one.
_tree_sources() {
	local by uri release component own keyring
	own=$(. /etc/os-release && echo "$VERSION_CODENAME")
	keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)' |
		while read -r by uri release component; do
			[[ $by == Packages && $component == main ]] || continue
			case $release in
			"$own") echo "deb [signed-by=$keyring] $uri trixie main" ;;
			"$own"-security) echo "deb [signed-by=$keyring] $uri trixie-security main" ;;
			esac
		done
}

# reef CMD...: runs it in the tree.
reef() {
	local conf=${CEPH_CONF:-/tmp/none}
	[[ ${REEF_ROOT:-} ]] || trixie_root || return
	(tree_exec "$REEF_ROOT" "${conf%/*}" "$@")
}
