# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# tree.sh: commands of another release's root tree, run by this kernel.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

# tree_exec ROOT DIR CMD...: replaces this process with CMD in ROOT, where it finds the
# machine's devices, processes and temporary folders, the repository, the current folder and
# DIR, each at its own path. The mounts are private to CMD and end with its last process,
# whatever ended that. Its /run is empty.
tree_exec() {
	local root=$1 dir=$2 shown=(/dev /proc /sys /tmp /var/tmp)
	shift 2
	[[ $EUID -eq 0 ]] || { say "needs root"; return 1; }
	shown+=("${TMPDIR:-/tmp}" "${LIB_DIR%/tests/lib}" "$PWD" "$dir")
	# shellcheck disable=SC2016
	exec unshare --mount --propagation private bash -c '
		root=$1 n=$2
		shift 2
		for dir in "${@:1:n}"; do
			mkdir -p "$root$dir" && mount --rbind "$dir" "$root$dir" || exit 126
		done
		shift "$n"
		mount -t tmpfs -o mode=755 tmpfs "$root/run" || exit 126
		exec chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
			sh -c "cd \"\$1\" && shift && exec \"\$@\"" sh "$PWD" "$@"
	' bash "$root" "${#shown[@]}" "${shown[@]}" "$@"
}
