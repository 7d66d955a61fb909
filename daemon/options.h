/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_OPTIONS_H
#define RBDCRYPT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "fault.h"
#include "image.h"
#include "xts.h"

/*
 * The command line. One table (options.def) drives the parser, the keys of -o,
 * --help and the OPTIONS section of the manual page.
 *
 * Two steps, because "--debug-rbd 20 map x" cannot be split into options and
 * positionals by anyone but Ceph:
 *
 *	options_parse(argc, argv, &o, f)	takes out what is ours; checks values
 *	if (options_has_foreign(&o))
 *		cluster_strip_words(...)	takes out what is Ceph's (no connection, no files)
 *	options_positionals(&o, n, words, f)	settles the command and its operand
 *	cluster_new(o.ceph_argc, o.ceph_argv)	only if the command needs a cluster
 *
 * One thread. Everything in struct options belongs to it until options_done().
 */

enum command {
	COMMAND_NONE,
	COMMAND_MAP,
	COMMAND_UNMAP,
	COMMAND_ATTACH,
	COMMAND_DETACH,
	COMMAND_LIST,
	COMMAND_STATUS,
	COMMAND_STATS,
	COMMAND_CHECK_KEYS,
	COMMAND_DOCTOR,
	COMMAND_SERVE,
	COMMAND_DAEMON,
	COMMAND_HELP,
	COMMAND_VERSION,
	COMMAND_DUMP_OPTIONS, /* hidden: for the manual page's test */
	COMMAND_DUMP_COMPLETION, /* hidden: for "make" */
};

#define OPTION_ROWS_MAX 128

enum output_format { OUTPUT_PLAIN, OUTPUT_JSON, OUTPUT_XML };

enum newline_policy { NEWLINE_AUTO, NEWLINE_KEEP, NEWLINE_STRIP };

enum store_choice { STORE_AUTO, STORE_LIBRBD, STORE_RADOS };

/* A list of words in the order given; items are owned. */
struct option_list {
	char **items;
	unsigned int n;
};

struct options {
	enum command command; /* NONE until options_positionals(), but for what --help and the like
				 set */
	enum command help_topic; /* of HELP; NONE: everything */
	char *operand; /* SPEC, or DEVICE|SPEC|COOKIE, or NULL */

	/* Ceph */
	char *conf, *cluster, *name; /* NULL: not given; --id X makes name "client.X" */
	char *ceph_args; /* CEPH_ARGS of who asks a daemon, NULL: our own */
	/*
	 * The words we do not know, in order, and the few that are Ceph's too; [0] is
	 * our own name. The array may be permuted by who is given it; the strings stay ours.
	 */
	const char **ceph_argv;
	int ceph_argc;

	/* Image: what --pool, --namespace, --image, --snap, --snap-id said; for image_spec_parse().
	 */
	struct image_spec spec;

	/* map, attach (and what serve shares) */
	char *device; /* as typed; nbd_index_parse() */
	unsigned int nbds_max, max_part; /* 0: the module's own default */
	bool is_read_only;
	bool is_exclusive;
	bool is_without_lock; /* --without-exclusive-lock */
	bool is_notrim;
	bool is_cookie_shown;
	bool is_new; /* map once more what is mapped already */
	bool is_resuming; /* --resume: take up a device whose daemon is gone */
	bool is_udev_ignored; /* --no-udev-wait */
	int io_timeout_s; /* -1: not given; 0: never abort */
	int reattach_timeout_s;
	char *cookie; /* NULL: make one */
	struct option_list formats; /* "luks", "luks1", "luks2"; child first */
	struct option_list passphrase_files; /* child first; sources for key_resolve() */
	struct option_list keyfile_offsets, keyfile_sizes; /* bytes, as decimal text; as those */
	unsigned int tries; /* for a passphrase that somebody types */
	bool is_insecure_allowed; /* --allow-insecure-permissions */
	int key_timeout_s; /* 0: none */
	int key_check_interval_s; /* 0: never by itself */
	/*
	 * In a daemon that was asked: descriptors to read them from the first time, one for each of
	 * passphrase_files, -1: none. Owned; NULL: none at all.
	 */
	int *key_fds;
	unsigned int n_key_fds;
	bool is_encryption_strict; /* --encryption-strict: no plaintext ancestors */
	enum newline_policy newline;
	unsigned int block_size; /* bytes; 0: auto */
	unsigned int connections; /* sockets per device; 0: auto */

	/* limits that a header may not exceed; 0: luks_limits_default()'s */
	uint64_t pbkdf2_iterations_max;
	unsigned int argon2_time_max;
	uint64_t argon2_memory_max; /* bytes */
	unsigned int argon2_lanes_max;
	int unlock_timeout_s; /* 0: none */

	/* serve */
	char *socket; /* path, or NULL */
	char *socket_owner, *socket_group; /* of its file; NULL: as it comes */
	unsigned int socket_mode; /* of its file; UINT_MAX: not given */
	struct option_list allow_users, allow_groups; /* who may connect; both empty: no list */
	bool is_single; /* one client on stdin and stdout */
	char *export_name; /* NULL: the spec */

	/* unmap */
	bool is_forced;
	int wait_s; /* for users of the device to go */

	/* map, serve: only say what would happen */
	bool is_dry_run;
	bool is_key_tested; /* --test-keys */

	/* list, status, and with is_dry_run */
	enum output_format format;
	bool is_pretty;
	bool is_header_accepted; /* check-keys --accept-header */
	int interval_s; /* stats: how long to measure */
	bool is_all; /* list: also sockets, and devices whose daemon is gone */

	/* the process */
	bool is_foreground; /* also set by is_debug */
	bool is_private; /* --no-daemon: a process of its own although the host's daemon runs */
	char *control_group; /* daemon: who may use its control socket; NULL: root's group */
	bool is_debug;
	char *log_file;
	int log_level; /* enum log_level */
	int open_timeout_s; /* 0: for ever */
	char *run_dir; /* NULL: state_run_dir() decides */
	unsigned int workers; /* 0: one per processor */
	uint64_t queue_memory; /* bytes per volume */
	uint64_t inline_threshold; /* bytes; UINT64_MAX: calibrated */
	enum xts_choice crypto_engine;
	enum store_choice store;

	struct option_list words; /* owns what ceph_argv points to */
	struct option_list settings; /* all that was given, in order, as "KEY" or "KEY=VALUE" */
	bool is_given[OPTION_ROWS_MAX]; /* which rows of the table the user used */
};

/*
 * Takes our options out of argv, checks their values, and keeps all other words in
 * order in ceph_argv. --help and --version anywhere win over everything else and set
 * command. -EINVAL (EXIT_USAGE) names the option and what is expected; -ENOMEM. On
 * failure ret is untouched. argv is not kept.
 */
int options_parse(int argc, char **argv, struct options *ret, struct fault *f);

/* True when ceph_argv holds words with a leading dash: only Ceph knows whether the next is theirs.
 */
bool options_has_foreign(const struct options *o);

/*
 * The second step: words are what is left of ceph_argv ([0] is skipped). Sets command
 * and operand, and refuses unknown options (naming the nearest), a missing or
 * surplus operand, and options that the command has no use for. -EINVAL (EXIT_USAGE).
 */
int options_positionals(struct options *o, int argc, const char *const *words, struct fault *f);

/* Frees what it holds. A zeroed struct is fine. */
void options_done(struct options *o);

/* Usage of one command, or of all of them for COMMAND_NONE. */
void options_help(FILE *out, enum command topic);

/* The OPTIONS section of rbdcrypt-nbd(8), as mdoc. */
void options_dump_mdoc(FILE *out);

/* A completion for bash, as a script. */
void options_dump_completion(FILE *out);

/* "map"; "" for COMMAND_NONE. */
const char *options_command_name(enum command c);

#endif
