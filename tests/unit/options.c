/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The command line: what is taken, what is left for Ceph, what is refused and how. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "../../daemon/chain.h"
#include "../../daemon/option_table.h"
#include "../../daemon/options.h"

#define MAX_WORDS 64

static struct options o;
static struct fault f;

static int teardown(void **state)
{
	options_done(&o);
	return 0;
}

/* The first step, on words separated by blanks ('~' stands for a blank inside a word). */
static int parse(const char *line)
{
	char *copy = strdup(line), *save = NULL;
	char *argv[MAX_WORDS] = { NULL };
	char name[] = "rbdcrypt-nbd";
	int argc = 0, r;

	options_done(&o);
	memset(&o, 0, sizeof(o));
	fault_clear(&f);
	argv[argc++] = name;
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		for (char *p = w; *p; p++)
			if (*p == '~')
				*p = ' ';
		assert_true(argc < MAX_WORDS);
		argv[argc++] = w;
	}
	r = options_parse(argc, argv, &o, &f);
	free(copy);
	return r;
}

/* Both steps, where Ceph has nothing to take. */
static int parse_all(const char *line)
{
	int r = parse(line);

	return r ? r : options_positionals(&o, o.ceph_argc, o.ceph_argv, &f);
}

static void assert_refused(const char *line, const char *message)
{
	assert_int_equal(parse_all(line), -EINVAL);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_string_equal(f.message, message);
}

static void assert_words(const char *expected)
{
	char words[1024] = "";

	for (int i = 1; i < o.ceph_argc; i++) {
		strcat(words, i > 1 ? " " : "");
		strcat(words, o.ceph_argv[i]);
	}
	assert_string_equal(words, expected);
}

static void nothing_said_gives_the_defaults(void **state)
{
	assert_int_equal(parse_all("map rbd/img"), 0);
	assert_int_equal(o.command, COMMAND_MAP);
	assert_string_equal(o.operand, "rbd/img");
	assert_int_equal(o.io_timeout_s, -1);
	assert_int_equal(o.reattach_timeout_s, 30);
	assert_int_equal(o.open_timeout_s, 30);
	assert_int_equal(o.unlock_timeout_s, 120);
	assert_true(o.queue_memory == 96u << 20);
	assert_int_equal(o.block_size, 0);
	assert_int_equal(o.newline, NEWLINE_AUTO);
	assert_int_equal(o.format, OUTPUT_PLAIN);
	assert_int_equal(o.log_level, LOG_LEVEL_NOTICE);
	assert_true(o.spec.snap_id == UINT64_MAX);
	assert_true(o.inline_threshold == UINT64_MAX);
	assert_null(o.cookie);
}

static void every_way_to_write_an_option_is_the_same(void **state)
{
	static const char *const lines[] = {
		"map --io-timeout 7 --cookie a~b --read-only img",
		"map --io-timeout=7 --cookie=a~b --read-only img",
		"map --io_timeout=7 --cookie=a~b --read_only img",
		"map -o io-timeout=7,cookie=a~b,read-only img",
		"map -o io_timeout=7 -o cookie=a~b -o read_only=yes img",
		"map --options=io-timeout=7,,read-only,cookie=a~b, img",
		"--io-timeout 7 --read-only=true --cookie a~b device map img",
		"map --timeout 7s --cookie=a~b --read-only img",
		"map --io-timeout=7,cookie=a~b,read-only img",
		"map --read-only,cookie=a~b,io-timeout=7 img",
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		assert_int_equal(parse_all(lines[i]), 0);
		assert_int_equal(o.command, COMMAND_MAP);
		assert_string_equal(o.operand, "img");
		assert_int_equal(o.io_timeout_s, 7);
		assert_string_equal(o.cookie, "a b");
		assert_true(o.is_read_only);
	}
}

static void the_last_word_on_an_option_counts(void **state)
{
	assert_int_equal(parse_all("map -o read-only,cookie=a --cookie b --read-only=no img"), 0);
	assert_string_equal(o.cookie, "b");
	assert_false(o.is_read_only);
}

static void none_stands_alone(void **state)
{
	assert_int_equal(parse_all("map --encryption-passphrase-file none img"), 0);
	assert_refused("map --encryption-passphrase-file none --encryption-passphrase-file /a img",
		       "--encryption-passphrase-file: none stands alone, without formats or "
		       "other passphrases");
	assert_refused("map --encryption-passphrase-file none --encryption-format luks img",
		       "--encryption-passphrase-file: none stands alone, without formats or "
		       "other passphrases");
}

static void passphrase_files_keep_their_order_across_forms(void **state)
{
	assert_int_equal(parse_all("map -o encryption-passphrase-file=/1,encryption-format=luks2 "
				   "--encryption-passphrase-file /2 --encryption-format luks1 "
				   "-o encryption_passphrase_file=/3,encryption_format=luks img"),
			 0);
	assert_int_equal(o.passphrase_files.n, 3);
	assert_string_equal(o.passphrase_files.items[0], "/1");
	assert_string_equal(o.passphrase_files.items[1], "/2");
	assert_string_equal(o.passphrase_files.items[2], "/3");
	assert_int_equal(o.formats.n, 3);
	assert_string_equal(o.formats.items[0], "luks2");
	assert_string_equal(o.formats.items[1], "luks1");
	assert_string_equal(o.formats.items[2], "luks");
}

static void commas_and_backslashes_can_be_escaped_in_o(void **state)
{
	assert_int_equal(parse_all("map -o encryption-passphrase-file=/a\\,b\\\\c\\d,notrim img"),
			 0);
	assert_string_equal(o.passphrase_files.items[0], "/a,b\\c\\d");
	assert_true(o.is_notrim);
}

static void a_long_option_is_not_cut_at_a_comma_that_belongs_to_it(void **state)
{
	assert_int_equal(parse_all("map --encryption-passphrase-file=/a,b img"), 0);
	assert_string_equal(o.passphrase_files.items[0], "/a,b");
	/* a bare word after free text could be part of it */
	assert_int_equal(parse_all("map --cookie=a,notrim img"), 0);
	assert_string_equal(o.cookie, "a,notrim");
	assert_false(o.is_notrim);
	/* and so could what is not ours */
	assert_int_equal(parse_all("map --cookie=a,b=c,io-timeout=3 img"), 0);
	assert_string_equal(o.cookie, "a,b=c,io-timeout=3");
	/* nor is a backslash an escape there */
	assert_int_equal(parse_all("map --encryption-passphrase-file=/a\\,b img"), 0);
	assert_string_equal(o.passphrase_files.items[0], "/a\\,b");
	assert_int_equal(parse_all("map --encryption-passphrase-file /a,io-timeout=3 img"), 0);
	assert_string_equal(o.passphrase_files.items[0], "/a,io-timeout=3");
}

static void ceph_csis_list_in_one_word_is_taken_apart(void **state)
{
	assert_int_equal(parse_all("map img --try-netlink --cookie=a\\,b,io-timeout=3"), 0);
	assert_string_equal(o.cookie, "a,b");
	assert_int_equal(o.io_timeout_s, 3);
	assert_int_equal(parse_all("map img --io-timeout=0,notrim"), 0);
	assert_int_equal(o.io_timeout_s, 0);
	assert_true(o.is_notrim);
	assert_refused("map img --io-timeout=0,debug-rbd=20",
		       "--io-timeout: \"0,debug-rbd=20\" is not a number of seconds from 0 to "
		       "720h");
}

static void ceph_csis_command_lines_work(void **state)
{
	assert_int_equal(parse("--id admin -m 10.0.0.1:6789,10.0.0.2 --keyfile=/tmp/k --log-file "
			       "/l map pool/ns/img --try-netlink --reattach-timeout=300 "
			       "--io-timeout=0 --cookie=0001-vol --read-only"),
			 0);
	assert_words("-m 10.0.0.1:6789,10.0.0.2 --keyfile=/tmp/k --log-file=/l map pool/ns/img");
	assert_string_equal(o.name, "client.admin");
	assert_string_equal(o.log_file, "/l");
	assert_int_equal(o.reattach_timeout_s, 300);
	assert_true(options_has_foreign(&o));
	/* what Ceph leaves */
	assert_int_equal(
		options_positionals(&o, 3, (const char *[]){ "x", "map", "pool/ns/img" }, &f), 0);
	assert_string_equal(o.operand, "pool/ns/img");
	assert_int_equal(parse_all("list-mapped --format=json"), 0);
	assert_int_equal(o.command, COMMAND_LIST);
	assert_int_equal(o.format, OUTPUT_JSON);
	assert_int_equal(parse_all("unmap /dev/nbd0"), 0);
	assert_int_equal(o.command, COMMAND_UNMAP);
	assert_int_equal(parse_all("attach pool/img --device /dev/nbd3 --cookie=c"), 0);
	assert_int_equal(o.command, COMMAND_ATTACH);
	assert_string_equal(o.device, "/dev/nbd3");
}

static void unknown_words_stay_in_order_for_ceph(void **state)
{
	assert_int_equal(parse("--debug-rbd 20 map -o debug-ms=1,rbd_cache,notrim img -k /k -- -x "
			       "--read-only"),
			 0);
	assert_words("--debug-rbd 20 map --debug-ms=1 --rbd_cache img -k /k -- -x --read-only");
	assert_true(o.is_notrim);
	assert_false(o.is_read_only);
	assert_true(options_has_foreign(&o));
}

static void words_without_dashes_need_no_ceph(void **state)
{
	assert_int_equal(parse("unmap -c /c rbd/img"), 0);
	assert_false(options_has_foreign(&o));
	assert_int_equal(parse("unmap -- -odd"), 0);
	assert_false(options_has_foreign(&o));
	assert_int_equal(options_positionals(&o, o.ceph_argc, o.ceph_argv, &f), 0);
	assert_string_equal(o.operand, "-odd");
	assert_int_equal(parse("serve -"), 0);
	assert_false(options_has_foreign(&o));
}

static void ceph_is_told_what_is_its_business_too(void **state)
{
	assert_int_equal(parse("map -d img --log-file=/l"), 0);
	assert_words("map -d img --log-file=/l");
	assert_true(o.is_foreground);
	assert_int_equal(o.log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(parse("map --debug=no img --log-level error"), 0);
	assert_words("map img");
	assert_int_equal(o.log_level, LOG_LEVEL_ERROR);
	assert_int_equal(parse("map -d --log-level info img"), 0);
	assert_int_equal(o.log_level, LOG_LEVEL_INFO);
}

static void letters_work(void **state)
{
	assert_int_equal(parse_all("-c /c --cluster x -n client.a -p pool serve -U /s img"), 0);
	assert_string_equal(o.conf, "/c");
	assert_string_equal(o.cluster, "x");
	assert_string_equal(o.name, "client.a");
	assert_string_equal(o.spec.pool, "pool");
	assert_string_equal(o.socket, "/s");
	assert_int_equal(parse_all("-i=a serve -s img"), 0);
	assert_string_equal(o.name, "client.a");
	assert_true(o.is_single);
}

static void split_names_take_the_operands_place(void **state)
{
	assert_int_equal(parse_all("map --pool p --namespace= --image i --snap s"), 0);
	assert_null(o.operand);
	assert_string_equal(o.spec.nspace, "");
	assert_string_equal(o.spec.image, "i");
	assert_string_equal(o.spec.snap, "s");
	assert_int_equal(parse_all("map i --snap-id 7"), 0);
	assert_true(o.spec.snap_id == 7);
}

/* The table has the numbers for people, crypto/ has those for all who have no command line. */
static void what_a_header_may_cost_is_said_twice_and_the_same(void **state)
{
	struct chain_options c = { 0 };
	struct luks_limits limits;

	assert_int_equal(parse_all("map rbd/img"), 0);
	chain_options_set(&o, &c);
	luks_limits_default(&limits);
	assert_true(c.limits.pbkdf2_iterations == limits.pbkdf2_iterations);
	assert_int_equal(c.limits.argon2_time, limits.argon2_time);
	assert_int_equal(c.limits.argon2_memory_kib, limits.argon2_memory_kib);
	assert_int_equal(c.limits.argon2_lanes, limits.argon2_lanes);
	assert_int_equal(c.limits.unlock_timeout_s, limits.unlock_timeout_s);
}

static void units_are_understood(void **state)
{
	assert_int_equal(parse_all("map --io-timeout 5m --open-timeout 2H --queue-memory 64M "
				   "--inline-threshold 16KiB --luks-argon2-memory-max 2g img"),
			 0);
	assert_int_equal(o.io_timeout_s, 300);
	assert_int_equal(o.open_timeout_s, 7200);
	assert_true(o.queue_memory == 64u << 20);
	assert_true(o.inline_threshold == 16384);
	assert_true(o.argon2_memory_max == UINT64_C(2) << 30);
}

static void block_size_is_auto_or_one_of_four(void **state)
{
	assert_int_equal(parse_all("map --block-size 4096 img"), 0);
	assert_int_equal(o.block_size, 4096);
	assert_int_equal(parse_all("map --block-size=auto img"), 0);
	assert_int_equal(o.block_size, 0);
	assert_refused("map --block-size 768 img",
		       "--block-size: \"768\" is not one of auto|512|1024|2048|4096");
}

static void bad_values_name_the_option_and_what_is_expected(void **state)
{
	assert_refused("map --io-timeout 3x img",
		       "--io-timeout: \"3x\" is not a number of seconds from 0 to 720h");
	assert_refused("map --io-timeout -1 img",
		       "--io-timeout: \"-1\" is not a number of seconds from 0 to 720h");
	assert_refused("map --io-timeout= img",
		       "--io-timeout: \"\" is not a number of seconds from 0 to 720h");
	assert_refused("map --io-timeout 99999999999999999999 img",
		       "--io-timeout: \"99999999999999999999\" is not a number of seconds from 0 "
		       "to 720h");
	assert_refused("map --queue-memory 18446744073709551615T img",
		       "--queue-memory: \"18446744073709551615T\" is not a number of bytes from "
		       "33M to 1T");
	assert_refused("map -o connections=0 img", "-o connections: \"0\" is not a number from 1 "
						   "to 64");
	assert_refused("map --encryption-format luks3 img",
		       "--encryption-format: \"luks3\" is not one of luks|luks1|luks2");
	assert_refused("map --encryption-passphrase-file= img",
		       "--encryption-passphrase-file: the value is empty");
	assert_refused("map --cookie= img", "--cookie: the value is empty");
	assert_refused("map --cookie=a\nb img", "--cookie: \"a?b\" holds a control character");
	assert_refused("map --read-only=maybe img", "--read-only: \"maybe\" is neither yes nor no");
	assert_refused("map --try-netlink=1 img", "--try-netlink: takes no value, but was given "
						  "\"1\"");
	assert_refused("list --format yaml", "--format: \"yaml\" is not one of plain|json|xml");
}

static void a_value_that_is_too_long_is_refused(void **state)
{
	char line[1024] = "map --cookie=";
	size_t n = strlen(line);

	memset(line + n, 'a', 512);
	memcpy(line + n + 512, " img", 5);
	assert_refused(line, "--cookie: longer than 511 bytes");
}

static void a_missing_value_is_noticed(void **state)
{
	assert_refused("map img --cookie", "--cookie: needs a value (TEXT)");
	assert_refused("map img --device --read-only",
		       "--device: needs a value (/dev/nbdN), but \"--read-only\" follows");
	assert_string_equal(f.hint, "if that is the value, write --device=--read-only");
	assert_refused("map img -o cookie", "-o cookie: needs a value (TEXT)");
	assert_refused("map img -o", "-o: needs a value (KEY[=VALUE],...)");
}

static void o_does_not_take_itself_or_commands(void **state)
{
	assert_refused("map img -o options=a", "-o: \"options\" cannot be given this way");
	assert_refused("map img -o help", "-o: \"help\" cannot be given this way");
}

static void quiesce_is_refused_not_ignored(void **state)
{
	assert_refused("map img --quiesce", "--quiesce: not supported yet");
	assert_refused("map img -o quiesce-hook=/x", "-o quiesce-hook: not supported yet");
}

static void unknown_options_and_commands_suggest_the_nearest(void **state)
{
	assert_refused("map --encryption-pasphrase-file=/k img",
		       "--encryption-pasphrase-file: unknown option");
	assert_string_equal(f.hint, "did you mean --encryption-passphrase-file?");
	assert_refused("map --raed-only img", "--raed-only: unknown option");
	assert_string_equal(f.hint, "did you mean --read-only?");
	assert_refused("map --zzzzzzzzz img", "--zzzzzzzzz: unknown option");
	assert_null(strstr(f.hint, "did you mean"));
	assert_refused("mpa img", "unknown command: mpa");
	assert_string_equal(f.hint, "did you mean map?");
	assert_refused("frobnicate", "unknown command: frobnicate");
	assert_refused("help frobnicate", "unknown command: frobnicate");
	assert_refused("map --this-is-a-word-of-more-than-forty-characters-in-all img",
		       "--this-is-a-word-of-more-than-forty-characters-in-all: unknown option");
}

static void operands_are_counted(void **state)
{
	assert_refused("", "must specify command");
	assert_refused("device", "must specify command");
	assert_refused("map", "map: must specify an image or snapshot");
	assert_non_null(strstr(f.hint, "IMAGE[@SNAP]"));
	assert_refused("unmap", "unmap: must specify a device, an image or a cookie");
	assert_refused("unmap --device /dev/nbd3",
		       "unmap: must specify a device, an image or a cookie");
	assert_string_equal(f.hint, "rbdcrypt-nbd unmap /dev/nbd3, without --device");
	assert_refused("map a b", "map: unexpected argument \"b\"");
	assert_refused("list a", "list: unexpected argument \"a\"");
	assert_int_equal(parse_all("status"), 0);
	assert_int_equal(parse_all("status /dev/nbd0"), 0);
	assert_int_equal(parse_all("device map device"), 0);
	assert_string_equal(o.operand, "device");
}

static void every_name_of_list_is_list(void **state)
{
	static const char *const names[] = { "list", "list-mapped", "ls", "show-mapped",
					     "device list" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(parse_all(names[i]), 0);
		assert_int_equal(o.command, COMMAND_LIST);
	}
	assert_int_equal(parse_all("list --json --all"), 0);
	assert_int_equal(o.format, OUTPUT_JSON);
	assert_true(o.is_all);
}

static void attach_needs_a_device(void **state)
{
	assert_refused("attach img", "attach: must specify device");
	assert_non_null(strstr(f.hint, "list --all"));
}

static void formats_and_files_must_pair(void **state)
{
	assert_refused("map img --encryption-format luks2",
		       "--encryption-format: given 1 times, but there are 0 of "
		       "--encryption-passphrase-file");
	/* unmap ignores both, as rbd-nbd does */
	assert_int_equal(parse_all("unmap img --encryption-format luks2"), 0);
}

static void serve_takes_one_way_out(void **state)
{
	assert_refused("serve img -s -U /s",
		       "--single: standard input and --socket exclude each other");
}

static void a_sockets_file_and_its_clients_are_said(void **state)
{
	assert_int_equal(parse_all("serve img --socket /s"), 0);
	assert_int_equal(o.socket_mode, UINT_MAX);
	assert_int_equal(parse_all("serve img --socket /s --socket-mode 660 --socket-owner x "
				   "--socket-group=y --allow-user a -o allow-user=7,allow-group=b"),
			 0);
	assert_int_equal(o.socket_mode, 0660);
	assert_string_equal(o.socket_owner, "x");
	assert_string_equal(o.socket_group, "y");
	assert_int_equal(o.allow_users.n, 2);
	assert_string_equal(o.allow_users.items[1], "7");
	assert_int_equal(o.allow_groups.n, 1);
	assert_int_equal(parse_all("serve img --socket /s --socket-mode 0602"), 0);
	assert_int_equal(o.socket_mode, 0602);
	assert_refused("serve img --socket-mode 4755", "--socket-mode: \"4755\" is no file mode");
	assert_refused("serve img --socket-mode 00660", "--socket-mode: \"00660\" is no file mode");
	assert_refused("serve img --socket-mode 0", "--socket-mode: \"0\" is no file mode");
	assert_refused("serve img --socket-mode 698", "--socket-mode: \"698\" is no file mode");
	assert_refused("serve img --socket-mode rw-", "--socket-mode: \"rw-\" is no file mode");
	assert_refused("serve img --allow-user=", "--allow-user: the value is empty");
	assert_refused("serve img -s --allow-group x",
		       "--single: standard input and --allow-group exclude each other");
	assert_refused("serve img -s --socket-mode 600",
		       "--single: standard input and --socket-mode exclude each other");
	assert_refused("map img --allow-user x", "--allow-user: of no use to map");
}

static void options_without_use_are_refused_but_for_rbd_nbds(void **state)
{
	assert_refused("list --block-size 512", "--block-size: of no use to list");
	assert_refused("map img --force", "--force: of no use to map");
	assert_refused("serve img --device /dev/nbd0", "--device: of no use to serve");
	assert_int_equal(parse_all("unmap img --exclusive --io-timeout=3 --notrim"), 0);
	assert_true(parse_all("unmap --force img") == 0 && o.is_forced);
	assert_refused("status --device /dev/nbd0", "--device: of no use to status");
}

static void a_dry_run_prints_and_nothing_else_that_starts_does(void **state)
{
	assert_int_equal(parse_all("map img --dry-run --test-keys --json --pretty-format"), 0);
	assert_true(o.is_dry_run && o.is_key_tested && o.is_pretty);
	assert_int_equal(o.format, OUTPUT_JSON);
	assert_int_equal(parse_all("serve img --dry-run --format xml"), 0);
	assert_int_equal(o.format, OUTPUT_XML);
	assert_refused("map img --test-keys", "--test-keys: needs --dry-run");
	assert_refused("map img --json", "--json: of no use to map without --dry-run");
	assert_refused("serve img --format xml", "--format: of no use to serve without --dry-run");
	assert_refused("attach img --device 0 --dry-run", "--dry-run: of no use to attach");
	/* rbd-nbd lets this pass */
	assert_int_equal(parse_all("map img --format json"), 0);
}

static void the_store_can_be_chosen(void **state)
{
	assert_int_equal(parse_all("map img"), 0);
	assert_int_equal(o.store, STORE_AUTO);
	assert_int_equal(parse_all("map img --store rados --without-exclusive-lock"), 0);
	assert_int_equal(o.store, STORE_RADOS);
	assert_true(o.is_without_lock);
	assert_int_equal(parse_all("map img --store=librbd"), 0);
	assert_int_equal(o.store, STORE_LIBRBD);
	assert_refused("map img --store=krbd", "--store: \"krbd\" is not one of auto|librbd|rados");
	assert_refused("map img --exclusive --without-exclusive-lock",
		       "--exclusive and --without-exclusive-lock exclude each other");
}

static void help_and_version_win_wherever_they_stand(void **state)
{
	assert_int_equal(parse("--nonsense map --io-timeout x --help"), 0);
	assert_int_equal(o.command, COMMAND_HELP);
	assert_int_equal(o.help_topic, COMMAND_MAP);
	assert_int_equal(parse("-h"), 0);
	assert_int_equal(o.help_topic, COMMAND_NONE);
	assert_int_equal(parse("-v map"), 0);
	assert_int_equal(o.command, COMMAND_VERSION);
	assert_int_equal(parse("--version --help"), 0);
	assert_int_equal(o.command, COMMAND_HELP);
	assert_int_equal(parse("--dump-options"), 0);
	assert_int_equal(o.command, COMMAND_DUMP_OPTIONS);
	assert_int_equal(parse_all("help serve"), 0);
	assert_int_equal(o.command, COMMAND_HELP);
	assert_int_equal(o.help_topic, COMMAND_SERVE);
	assert_int_equal(parse_all("version"), 0);
	assert_int_equal(o.command, COMMAND_VERSION);
	/* but a word after "--" is a name */
	assert_int_equal(parse_all("map -- --help"), 0);
	assert_string_equal(o.operand, "--help");
}

static void a_failed_parse_leaves_the_result_alone(void **state)
{
	char name[] = "x", map[] = "map", bad[] = "--io-timeout=x";
	char *argv[] = { name, map, bad, NULL };
	struct options untouched;
	struct options copy;

	memset(&untouched, 0x55, sizeof(untouched));
	memcpy(&copy, &untouched, sizeof(copy));
	assert_int_equal(options_parse(3, argv, &untouched, NULL), -EINVAL);
	assert_memory_equal(&untouched, &copy, sizeof(copy));
}

static void no_arguments_at_all_are_survived(void **state)
{
	char *argv[] = { NULL };

	options_done(&o);
	assert_int_equal(options_parse(0, argv, &o, &f), 0);
	assert_int_equal(o.ceph_argc, 1);
}

/* ---- the table, the help and the manual page agree ---- */

static char *printed(void (*print)(FILE *, enum command), enum command topic)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	print(out, topic);
	fclose(out);
	return text;
}

static void print_mdoc(FILE *out, enum command topic)
{
	options_dump_mdoc(out);
}

/* The option with a blank or the line's end behind it. */
static bool mentions(const char *help, const char *option)
{
	char name[64];
	size_t len = (size_t)snprintf(name, sizeof(name), " --%s", option);

	for (const char *at = strstr(help, name); at; at = strstr(at + len, name))
		if (at[len] == ' ' || at[len] == '\n')
			return true;
	return false;
}

static void help_shows_every_option_and_mentions_cookie(void **state)
{
	char *help = printed(options_help, COMMAND_NONE);
	char *mdoc = printed(print_mdoc, COMMAND_NONE);

	assert_non_null(strstr(help, "--cookie"));
	for (unsigned int i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];
		bool is_hidden = row->flags & (OPTION_ALIAS | OPTION_HIDDEN);
		char entry[64];

		snprintf(entry, sizeof(entry), "Fl \\-%s%s", row->name, row->arg ? " Ar" : "\n");
		assert_int_equal(mentions(help, row->name), !is_hidden);
		assert_int_equal(strstr(mdoc, entry) != NULL, !is_hidden);
	}
	for (const char *line = help; *line; line += strcspn(line, "\n") + 1)
		assert_true(strcspn(line, "\n") <= 100);
	free(help);
	free(mdoc);
}

static void help_of_a_command_shows_only_its_options(void **state)
{
	for (unsigned int c = 0; c < command_row_count; c++) {
		enum command command = command_rows[c].command;
		char *help = printed(options_help, command);

		for (unsigned int i = 0; i < option_row_count; i++) {
			const struct option_row *row = &option_rows[i];

			if (row->flags & (OPTION_ALIAS | OPTION_HIDDEN))
				continue;
			assert_int_equal(mentions(help, row->name),
					 (row->commands & 1u << command) != 0);
		}
		free(help);
	}
}

static void the_table_is_sound(void **state)
{
	for (unsigned int i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];

		assert_ptr_equal(option_find(row->name, strlen(row->name)), row);
		if (row->letter)
			assert_ptr_equal(option_find_letter(row->letter), row);
		assert_non_null(row->help);
		assert_true(row->help[strlen(row->help) - 1] == '.');
		assert_true(row->commands || row->flags & OPTION_HIDDEN);
	}
	for (unsigned int i = 0; i < command_row_count; i++)
		assert_int_equal(choice_index(command_rows[i].names,
					      options_command_name(command_rows[i].command)),
				 0);
	assert_string_equal(options_command_name(COMMAND_NONE), "");
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nothing_said_gives_the_defaults),
		TEST(every_way_to_write_an_option_is_the_same),
		TEST(the_last_word_on_an_option_counts),
		TEST(passphrase_files_keep_their_order_across_forms),
		cmocka_unit_test(none_stands_alone),
		TEST(commas_and_backslashes_can_be_escaped_in_o),
		TEST(a_long_option_is_not_cut_at_a_comma_that_belongs_to_it),
		TEST(ceph_csis_list_in_one_word_is_taken_apart),
		TEST(ceph_csis_command_lines_work),
		TEST(unknown_words_stay_in_order_for_ceph),
		TEST(words_without_dashes_need_no_ceph),
		TEST(ceph_is_told_what_is_its_business_too),
		TEST(letters_work),
		TEST(split_names_take_the_operands_place),
		TEST(what_a_header_may_cost_is_said_twice_and_the_same),
		TEST(units_are_understood),
		TEST(block_size_is_auto_or_one_of_four),
		TEST(bad_values_name_the_option_and_what_is_expected),
		TEST(a_value_that_is_too_long_is_refused),
		TEST(a_missing_value_is_noticed),
		TEST(o_does_not_take_itself_or_commands),
		TEST(quiesce_is_refused_not_ignored),
		TEST(unknown_options_and_commands_suggest_the_nearest),
		TEST(operands_are_counted),
		TEST(every_name_of_list_is_list),
		TEST(attach_needs_a_device),
		TEST(formats_and_files_must_pair),
		TEST(serve_takes_one_way_out),
		TEST(a_sockets_file_and_its_clients_are_said),
		TEST(options_without_use_are_refused_but_for_rbd_nbds),
		TEST(a_dry_run_prints_and_nothing_else_that_starts_does),
		TEST(the_store_can_be_chosen),
		TEST(help_and_version_win_wherever_they_stand),
		TEST(a_failed_parse_leaves_the_result_alone),
		TEST(no_arguments_at_all_are_survived),
		TEST(help_shows_every_option_and_mentions_cookie),
		TEST(help_of_a_command_shows_only_its_options),
		TEST(the_table_is_sound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
