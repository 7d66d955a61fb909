#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# keys.sh: every source of passphrases, with the whole program and an image in a file.
# test: light time=300

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires cryptsetup nbdinfo python3

PROGRAM=${RBDCRYPT_NBD:-${LIB_DIR%/tests/lib}/build/rbdcrypt-nbd}
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"
tmpdir T
cd "$T" || exit 1
export RBDCRYPT_NBD_RUN_DIR=$T/run
unset CREDENTIALS_DIRECTORY
printf 'correct horse' >key
truncate -s 20M image
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 image key || fail "no image"

# serve ARGUMENT...: comes up, is as large as the data area, and goes again
serve() {
	local size rc=0
	timeout 60 "$PROGRAM" serve --socket "$T/s" "$@" file:image >out 2>err || { cat err; return 1; }
	size=$(nbdinfo --size "nbd+unix:///?socket=$T/s") || rc=1
	[[ $size == 4194304 ]] || { echo "size $size"; rc=1; }
	"$PROGRAM" unmap "$T/s" || rc=1
	return $rc
}
with() { serve --encryption-passphrase-file "$@"; }
# refused STATUS PATTERN ARGUMENT...
refused() {
	local status=$1 pattern=$2 rc
	shift 2
	timeout 60 "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file "$@" file:image >out 2>err
	rc=$?
	cat err
	[[ $rc == "$status" && ! -s out ]] && head -n 1 err | grep -qE "$pattern"
}
claim() { run_case "${1//_/-}" "$1" </dev/null; } # FUNCTION

a_path_from_where_the_user_is() { with key; }
standard_input() { with - <key; }
a_descriptor() { with fd:7 7<key; }
a_descriptor_that_was_not_passed() { refused 1 'no such descriptor was passed' fd:7; }
a_substituted_process() { with <(cat key); }
a_specifier() { cp key image.1.key && with %i.%l.key; }
an_unknown_specifier() { refused 1 '%y is no specifier' "$T/%y"; }
a_program() { with "exec:/bin/cat '$T/key'"; }
a_program_that_says_why() { refused 2 'ended with exit status 1: .*No such file' "exec:/bin/cat $T/none"; }
a_program_that_hangs() { refused 6 'gave nothing in 1 seconds' 'exec:/bin/sleep 600' --key-timeout 1; }
a_wrong_key_names_its_source() { refused 2 'layer 1.*No key available with the passphrase in exec:/bin/echo no' 'exec:/bin/echo no'; }
# The hint fits where it came from.
a_wrong_key_hints_at_its_source() {
	printf wrong >bad && chmod 600 bad
	refused 2 'No key available' bad && grep -q 'hint: the file is used byte for byte' err &&
		refused 2 'No key available' 'exec:/bin/echo no' && grep -q 'hint: what the source gives is used' err &&
		! grep -q 'hint: the file' err
}
a_credential() { CREDENTIALS_DIRECTORY=$T with cred:key; }
a_credential_without_systemd() { refused 2 'no credential key, and systemd has passed us none' cred:key; }
the_default_credential() {
	mkdir -p creds && cp key creds/rbdcrypt.passphrase
	CREDENTIALS_DIRECTORY=$T/creds serve && CREDENTIALS_DIRECTORY=$T/creds with default:
}
none_serves_the_raw_image() {
	local size
	CREDENTIALS_DIRECTORY=$T/creds "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file none file:image >out || return
	size=$(nbdinfo --size "nbd+unix:///?socket=$T/s")
	"$PROGRAM" unmap "$T/s"
	[[ $size == 20971520 ]]
}
a_socket() {
	python3 - <<'END' &
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("keys.sock")
s.listen(1)
# Once to open it, once more before it is unmapped.
for i in range(2):
    c, name = s.accept()
    if b"/rbdcrypt-nbd/1/" in name and name.endswith(b"image"):
        c.sendall(b"correct horse")
    c.close()
END
	wait_for 60 test -S keys.sock && with unix:keys.sock
	local rc=$?
	wait $!
	return $rc
}
a_file_for_everybody() {
	local dir rc=0
	dir=$(mktemp -d /tmp/rbdcrypt-key-XXXXXX) && cp key "$dir/key" && chmod 755 "$dir" && chmod 644 "$dir/key"
	refused 2 'has mode 0644: others can read it' "$dir/key" || rc=1
	with "$dir/key" --allow-insecure-permissions || rc=1
	rm -r "$dir"
	return $rc
}

# Types TEXT when asked, of "ONE|TWO" the next each time, and shows what the terminal showed.
typed() { # TEXT ARGUMENT...
	python3 - "$@" <<'END'
import os, pty, sys, termios, time
answers, argv = sys.argv[1].split("|"), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(argv[0], argv)
seen = b""
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    if answers and b": " in seen.split(b"Passphrase for layer")[-1] and b"Passphrase for layer" in seen:
        seen = seen.replace(b"Passphrase for layer", b"Asked for layer")
        # What is typed before the echo is off would show, and be thrown away.
        for _ in range(3000):
            if not termios.tcgetattr(fd)[3] & termios.ECHO:
                break
            time.sleep(0.01)
        os.write(fd, answers.pop(0).encode())
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
if not termios.tcgetattr(fd)[3] & termios.ECHO:
    sys.exit("the terminal is left without echo")
sys.stdout.write(seen.decode())
sys.exit(status)
END
}
somebody_at_the_terminal() { # in the background and in the foreground
	local shown
	shown=$(typed $'correct horse\n' "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file ask: "file:$T/image") ||
		{ echo "$shown"; return 1; }
	"$PROGRAM" unmap "$T/s" && [[ $shown == *"Asked for layer 1"* && $shown != *horse* ]]
}
who_mistypes_is_asked_again() {
	local shown
	shown=$(typed $'incorrect\n|correct horse\n' "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file ask: "file:$T/image") ||
		{ echo "$shown"; return 1; }
	echo "$shown"
	"$PROGRAM" unmap "$T/s" && [[ $shown == *"does not fit"*Asked* && $shown != *correct* ]]
}
but_not_for_ever() {
	local shown rc=0
	shown=$(typed $'one\n|two\n|correct horse\n' "$PROGRAM" serve --tries 2 --socket "$T/s" --encryption-passphrase-file ask: "file:$T/image") || rc=$?
	echo "$rc $shown"
	[[ $rc == 2 && $(grep -o 'Asked for' <<<"$shown" | wc -l) == 2 && $shown == *"No key available"*"type it again"* ]]
}
a_part_of_a_file() {
	{ head -c 5000 /dev/zero; printf 'correct horse, battery'; } >part
	chmod 600 part
	with part --keyfile-offset 5000 --keyfile-size 13 && with - -o keyfile-size=13,keyfile-offset=5000 <part || return 1
	refused 2 'No key available' part --keyfile-offset 5000 && refused 2 'ends before the passphrase' part --keyfile-offset 5010 --keyfile-size 13 &&
		refused 1 'keyfile-size: "-3" is not a number of bytes' part --keyfile-size -3 &&
		refused 1 'keyfile-size: "9M" is not a number of bytes' part --keyfile-size 9M &&
		refused 1 'keyfile-offset: given 2 times, but there are 1' part --keyfile-offset 1 --keyfile-offset 2 &&
		refused 1 'ask:: has no parts' ask: --keyfile-size 13
}
# The check before unmap reads the same part again.
a_part_is_checked_too() {
	"$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file part --keyfile-offset 5000 --keyfile-size 13 file:image >out &&
		"$PROGRAM" check-keys "$T/s" && "$PROGRAM" unmap "$T/s"
}
where_there_is_no_key_that_is_said() {
	"$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file none file:image >out 2>err &&
		[[ $("$PROGRAM" check-keys) == "file:$T/image: no key is in use" ]] && "$PROGRAM" unmap "$T/s"
}
somebody_who_gives_up() {
	local shown rc=0
	shown=$(typed $'\003' "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file ask: "file:$T/image") || rc=$?
	echo "$rc $shown"
	[[ $rc == 6 && $shown == *interrupted* ]]
}
# The command itself asks when it is for the host's daemon, and when nothing is started: it ends as
# any command does that is interrupted, but leaves the terminal as it was.
a_command_that_is_given_up() {
	local shown rc=0
	shown=$(typed $'\003' "$PROGRAM" serve --dry-run --test-keys --encryption-passphrase-file ask: "file:$T/image") || rc=$?
	echo "$rc $shown"
	[[ $rc == 254 ]] || return 1
	with_daemon typed $'\003' "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file ask: "file:$T/image" || rc=$?
	[[ $rc == 254 ]]
}
with_daemon() { # COMMAND...
	local daemon rc=0
	"$PROGRAM" daemon 2>daemon.log &
	daemon=$!
	wait_for 60 test -S run/control && "$@" || rc=$?
	kill $daemon && wait $daemon || { cat daemon.log; rc=1; }
	return $rc
}
a_question_that_is_taken_back() {
	[[ $EUID == 0 && -x /usr/bin/systemd-ask-password ]] || return 77
	with_daemon take_back
}
take_back() {
	local pid
	setsid "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file "ask:Key $$ of %i?" file:image >out 2>err </dev/null &
	pid=$!
	wait_for 60 question || { cat err; kill $pid; wait $pid; return 1; }
	kill $pid
	wait $pid
	wait_for 60 no_question
}
no_question() { ! question; }
# As a password agent does: it finds the question and answers on its socket.
a_password_agent() {
	local pid notified rc=0
	[[ $EUID == 0 && -x /usr/bin/systemd-ask-password && -x /lib/systemd/systemd-reply-password ]] || return 77
	python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(4096).decode(), flush=True)' "$T/notify" >notified &
	notified=$!
	wait_for 60 test -S "$T/notify" || rc=1
	NOTIFY_SOCKET=$T/notify setsid "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file "ask:Key $$ of %i?" file:image >out 2>err </dev/null &
	pid=$!
	wait_for 60 question || { cat err; kill $pid $notified; wait $pid; return 1; }
	wait_for 60 grep -q '^STATUS=waiting for the passphrase of layer 1, ' notified || rc=1
	printf 'correct horse' | /lib/systemd/systemd-reply-password 1 "$(sed -n 's/^Socket=//p' "$ask")"
	wait $pid || rc=1
	wait_for 60 grep -q '^STATUS=unlocking layer 1, ' notified || rc=1
	kill $notified
	cat err notified
	"$PROGRAM" unmap "$T/s" && return $rc
}
question() {
	ask=$(grep -ls "^Message=Key $$ of image?" /run/systemd/ask-password/ask.* | head -n 1)
	[[ $ask ]]
}
an_encrypted_credential() {
	[[ $EUID == 0 && -x /usr/bin/systemd-creds ]] || return 77
	export -f serve with
	# systemd's host key and the store are in a mount namespace of their own.
	PROGRAM=$PROGRAM T=$T unshare -m bash -c '
		mkdir -p /etc/credstore.encrypted /var/lib/systemd
		mount -t tmpfs tmpfs /var/lib/systemd && mount -t tmpfs tmpfs /etc/credstore.encrypted || exit 77
		systemd-creds setup >/dev/null 2>&1 &&
			systemd-creds encrypt --with-key=host --name=vol key /etc/credstore.encrypted/vol || exit 77
		with cred:vol'
}

for c in a_path_from_where_the_user_is standard_input a_descriptor a_descriptor_that_was_not_passed \
	a_substituted_process a_specifier an_unknown_specifier a_program a_program_that_says_why \
	a_program_that_hangs a_wrong_key_names_its_source a_wrong_key_hints_at_its_source a_credential \
	a_credential_without_systemd the_default_credential none_serves_the_raw_image a_socket a_file_for_everybody \
	a_part_of_a_file a_part_is_checked_too where_there_is_no_key_that_is_said somebody_at_the_terminal who_mistypes_is_asked_again \
	but_not_for_ever somebody_who_gives_up a_command_that_is_given_up; do
	claim $c
done
for c in a_password_agent a_question_that_is_taken_back an_encrypted_credential; do
	log=$($c 2>&1)
	case $? in
	0) echo "ok ${c//_/-}" ;;
	77) echo "ok ${c//_/-} # SKIP no systemd tools, or not root" ;;
	*) echo "not ok ${c//_/-}"; sed 's/^/	/' <<<"$log"; failures=$((failures + 1)) ;;
	esac
done
[[ $failures -eq 0 ]]
