#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# packages.sh: what building and testing need on Debian 12 and 13. Run by itself, it installs:
# packages.sh build test kernel lint reef
#
# A question mark: not in every release; what needs it is skipped there.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

packages_of() { # PURPOSE...
	local purpose
	for purpose; do
		case $purpose in
		build)
			echo gcc make pkg-config libc6-dev librbd-dev librados-dev libnl-3-dev \
				libnl-genl-3-dev libcryptsetup-dev libssl-dev libjson-c-dev libudev-dev \
				libblkid-dev libmount-dev libseccomp-dev libsystemd-dev 'systemd-dev?'
			;;
		test)
			echo ceph-mon ceph-osd ceph-common python3-rbd libcmocka-dev libnbd-bin 'python3-libnbd?' \
				nbdkit qemu-utils qemu-block-extra qemu-system-common cryptsetup-bin fio jq procps \
				e2fsprogs iproute2 util-linux
			;;
		kernel)
			# user-mode-linux needs a compiler on some processors, see uml-xstate.c.
			echo 'user-mode-linux?' gcc libc6-dev kmod udev dmsetup iproute2 util-linux \
				e2fsprogs xfsprogs fdisk rbd-nbd
			;;
		lint)
			# The formatter's release decides the format.
			echo clang llvm 'clang-format-14?' shellcheck mandoc codespell binutils git systemd \
				libvirt0 libxml2-utils
			# Clang's sanitizers have the release in their name.
			case $(. /etc/os-release && echo "$VERSION_ID") in
			12) echo libclang-rt-14-dev ;;
			*) echo libclang-rt-19-dev ;;
			esac
			;;
		bench) echo python3 openssl strace 'linux-perf?' nbdkit ;;
		guest) echo qemu-system-x86 busybox-static xz-utils ;;
		reef) echo mmdebstrap debian-archive-keyring util-linux ;;
		*) fail "packages for what: $purpose?" ;;
		esac
	done
}

# need_packages PURPOSE...: false, with the reason, when something is still missing.
need_packages() {
	local name all=() missing=() optional=() log
	name=$(packages_of "$@") || return 1
	read -ra all -d '' <<<"$name"
	type -P dpkg-query >/dev/null ||
		{ say "not a Debian system; needed are: ${all[*]//\?/}"; return 1; }
	for name in "${all[@]}"; do
		_installed "${name%\?}" && continue
		[[ $name == *\? ]] && optional+=("${name%\?}") || missing+=("$name")
	done
	[[ ${#missing[@]} -gt 0 || ${#optional[@]} -gt 0 ]] || return 0
	_as_root true 2>/dev/null ||
		{ say "not root, and no sudo: cannot install ${missing[*]} ${optional[*]}"; return 1; }
	tmpdir log
	_apt_update >"$log/apt" 2>&1
	for name in "${optional[@]}"; do
		if [[ $(apt-cache policy "$name") == *'Candidate: '[^\(]* ]]; then
			missing+=("$name")
		else
			say "this release has no $name: what needs it will be skipped"
		fi
	done
	[[ ${#missing[@]} -gt 0 ]] || return 0
	say "installing ${missing[*]}"
	# Lists of this morning may name files that the mirror has not any more.
	if ! _apt_get install -y --no-install-recommends "${missing[@]}" >>"$log/apt" 2>&1 &&
		! { _apt_get update && _apt_get install -y --no-install-recommends \
			"${missing[@]}"; } >>"$log/apt" 2>&1; then
		say "apt-get failed:"
		tail -n 15 "$log/apt" >&2
		return 1
	fi
}

_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

_as_root() {
	if [[ $EUID -eq 0 ]]; then
		"$@"
	else
		sudo -n "$@"
	fi
}

_apt_get() {
	_as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}

# Once a day is enough.
_apt_update() {
	[[ $(find /var/lib/apt/lists -name '*_Packages*' -mtime -1 -print -quit 2>/dev/null) ]] ||
		_apt_get update
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
	[[ $# -gt 0 ]] || set -- build test kernel lint
	need_packages "$@"
fi
