#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Takes the examples out of the manual pages, so that a test can run what a user would paste.
#
#	sh tests/man/examples.sh           the names
#	sh tests/man/examples.sh NAME      the commands; exit 1 when there is no such example
set -eu

pages=$(cd "$(dirname "$0")/../.." && pwd)/man

if [ $# -eq 0 ]; then
	sed -n 's/^\.\\" EXAMPLE \([a-z-]*\)$/\1/p' "$pages"/*.[578]
	exit 0
fi
commands=$(awk -v name="$1" '
	$0 == ".\\\" EXAMPLE END" { inside = 0 }
	inside && !/^\./ { gsub(/\\e/, "\\"); gsub(/\\-/, "-"); print }
	$0 == ".\\\" EXAMPLE " name { inside = 1 }' "$pages"/*.[578])
[ -n "$commands" ] || {
	echo "examples: no example is called $1" >&2
	exit 1
}
printf '%s\n' "$commands"
