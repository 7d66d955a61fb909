/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The command line: which words are ours, which are Ceph's, and what remains as
 * command and operand. Called from main() only, before any thread exists. Owns
 * nothing beyond the struct it fills. The words and types of options are in
 * option_table.c, the meaning of their values in option_value.c.
 *
 * Three ways to write an option end in take_option(): "--key value" and
 * "--key=value" and their letters; "-o key=value,key"; and one that we accept because
 * ceph-csi hands a whole list of map options over as "--a=b,c=d". The last is
 * split only where it cannot be the value that somebody meant: every further
 * piece must be an option of ours, and after an option with free text
 * also carry a value. A file called "/keys/a,b" stays one file.
 */

#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "key.h"
#include "option_table.h"
#include "option_value.h"

static void free_charp(char **p)
{
	free(*p);
}
#define cleanup_free __attribute__((cleanup(free_charp)))

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "command line: out of memory");
}

static bool was_given(const struct options *o, const char *name)
{
	return o->is_given[option_find(name, strlen(name)) - option_rows];
}

/* Remembers it as another process can be told. */
static int note_given(struct options *o, const struct option_row *row, const char *value,
		      struct fault *f)
{
	cleanup_free char *setting = NULL;

	o->is_given[row - option_rows] = true;
	if (asprintf(&setting, "%s%s%s", row->name, value ? "=" : "", value ? value : "") < 0) {
		setting = NULL;
		return no_memory(f);
	}
	return option_list_add(&o->settings, setting, f);
}

/* Keeps "--key" or "--key=value" for Ceph. */
static int keep_option(struct options *o, const char *key, size_t len, const char *value,
		       struct fault *f)
{
	cleanup_free char *word = NULL;

	if (asprintf(&word, "--%.*s%s%s", (int)len, key, value ? "=" : "", value ? value : "") <
	    0) {
		word = NULL;
		return no_memory(f);
	}
	return option_list_add(&o->words, word, f);
}

static int take_keys(struct options *o, const char *text, struct fault *f);

static int take_option(struct options *o, const struct option_row *row, const char *shown,
		       const char *value, struct fault *f)
{
	const bool *is_on = (const bool *)((const char *)o + row->offset);
	int r;

	if (row->type == OPTION_KEYS)
		return take_keys(o, value, f);
	if (row->type == OPTION_COMMAND) {
		/* --help and the like were looked for first; this one came through -o. */
		return fault_set(f, EXIT_USAGE, -EINVAL, "-o: \"%s\" cannot be given this way",
				 row->name);
	}
	r = option_store(o, row, shown, value, f);
	if (r == 0)
		r = note_given(o, row, value, f);
	if (r)
		return r;
	if (!(row->flags & OPTION_ALSO_CEPH) || (row->type == OPTION_FLAG && !*is_on))
		return 0;
	if (row->letter)
		return option_list_add(&o->words, (char[]){ '-', row->letter, 0 }, f);
	return keep_option(o, row->name, strlen(row->name), value, f);
}

/*
 * Cuts the next piece off a list at an unescaped comma: its text, unescaped, in *ret_piece (the
 * caller frees), and where the rest begins, NULL at the end.
 */
static int next_piece(const char **text, char **ret_piece)
{
	const char *p = *text;
	char *piece = malloc(strlen(p) + 1);
	size_t n = 0;

	if (!piece)
		return -ENOMEM;
	for (; *p && *p != ','; p++) {
		if (*p == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		piece[n++] = *p;
	}
	piece[n] = 0;
	*text = *p ? p + 1 : NULL;
	*ret_piece = piece;
	return 0;
}

/* One "key" or "key=value" of a list. */
static int take_piece(struct options *o, const char *piece, struct fault *f)
{
	size_t len = strcspn(piece, "=");
	const char *value = piece[len] ? piece + len + 1 : NULL;
	const struct option_row *row = option_find(piece, len);
	char shown[64];

	if (!*piece)
		return 0; /* scripts that build lists leave empty places */
	if (!row)
		return keep_option(o, piece, len, value, f);
	if (row->type == OPTION_KEYS)
		return fault_set(f, EXIT_USAGE, -EINVAL, "-o: \"%s\" cannot be given this way",
				 row->name);
	(void)snprintf(shown, sizeof(shown), "-o %s", row->name);
	if (!value && option_takes_value(row->type))
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: needs a value (%s)", shown, row->arg);
	return take_option(o, row, shown, value, f);
}

static int take_keys(struct options *o, const char *text, struct fault *f)
{
	while (text) {
		cleanup_free char *piece = NULL;
		int r = next_piece(&text, &piece);

		if (r)
			return no_memory(f);
		r = take_piece(o, piece, f);
		if (r)
			return r;
	}
	return 0;
}

/* Whether "a=b,c=d" (without its dashes) is a list of options; see the top of this file. */
static bool is_list_in_disguise(const char *text)
{
	size_t len = strcspn(text, "=,");
	const struct option_row *row = option_find(text, len);
	const char *p = strchr(text, ',');
	bool is_free_text, has_more = false;

	if (!row || !p || row->type == OPTION_KEYS)
		return false;
	is_free_text = row->type == OPTION_STRING || row->type == OPTION_ID ||
		       (row->type == OPTION_LIST && !row->choices);
	for (; p; p = strchr(p, ',')) {
		if (p[-1] == '\\') {
			p++;
			continue;
		}
		p++;
		len = strcspn(p, "=,");
		if (!option_find(p, len) || (is_free_text && p[len] != '='))
			return false;
		has_more = true;
	}
	return has_more;
}

/* The row that a word names; *ret_value is what follows its '=', or NULL. */
static const struct option_row *find_word(const char *word, const char **ret_value)
{
	const struct option_row *row;
	size_t len = strcspn(word, "=");

	if (word[0] != '-' || len < 2)
		return NULL;
	if (word[1] == '-')
		row = option_find(word + 2, len - 2);
	else
		row = len == 2 ? option_find_letter(word[1]) : NULL;
	if (row)
		*ret_value = word[len] ? word + len + 1 : NULL;
	return row;
}

/* Takes words[*i], and the value after it if it needs one; all else is kept for Ceph. */
static int take_word(struct options *o, int argc, char **argv, int *i, struct fault *f)
{
	const char *word = argv[*i];
	const char *value = NULL;
	const struct option_row *row;
	char shown[64];

	if (word[0] == '-' && word[1] == '-' && is_list_in_disguise(word + 2))
		return take_keys(o, word + 2, f);
	row = find_word(word, &value);
	if (!row)
		return option_list_add(&o->words, word, f);
	(void)snprintf(shown, sizeof(shown), "%.*s", (int)strcspn(word, "="), word);
	if (!value && option_takes_value(row->type)) {
		if (*i + 1 >= argc)
			return fault_set(f, EXIT_USAGE, -EINVAL, "%s: needs a value (%s)", shown,
					 row->arg);
		value = argv[*i + 1];
		if (!strncmp(value, "--", 2)) {
			(void)fault_set(f, EXIT_USAGE, -EINVAL,
					"%s: needs a value (%s), but \"%s\" follows", shown,
					row->arg, value);
			fault_hint(f, "if that is the value, write --%s=%s", row->name, value);
			return -EINVAL;
		}
		(*i)++;
	}
	return take_option(o, row, shown, value, f);
}

/* --help, --version and --dump-options, wherever they stand: nothing else is looked at then. */
static enum command find_command_option(int argc, char **argv)
{
	enum command ret = COMMAND_NONE;

	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		const char *value = NULL;
		const struct option_row *row = find_word(argv[i], &value);

		if (!row || row->type != OPTION_COMMAND)
			continue;
		if (row->min == COMMAND_HELP)
			return COMMAND_HELP;
		ret = (enum command)row->min;
	}
	return ret;
}

/* The first word that is a command's name: good enough to choose a help text. */
static enum command find_topic(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		enum command c;

		if (command_find(argv[i], &c) == 0 && c != COMMAND_HELP)
			return c;
	}
	return COMMAND_NONE;
}

static int make_ceph_argv(struct options *o, struct fault *f)
{
	o->ceph_argv = calloc(o->words.n + 1, sizeof(*o->ceph_argv));
	if (!o->ceph_argv)
		return no_memory(f);
	for (unsigned int i = 0; i < o->words.n; i++)
		o->ceph_argv[i] = o->words.items[i];
	o->ceph_argc = (int)o->words.n;
	return 0;
}

static int parse_into(int argc, char **argv, struct options *o, struct fault *f)
{
	bool is_ended = false;
	int r = option_store_defaults(o, f);

	if (r)
		return r;
	r = option_list_add(&o->words, argc > 0 ? argv[0] : "rbdcrypt-nbd", f);
	o->command = find_command_option(argc, argv);
	if (o->command != COMMAND_NONE) {
		o->help_topic = find_topic(argc, argv);
		return r ? r : make_ceph_argv(o, f);
	}
	for (int i = 1; !r && i < argc; i++) {
		if (!strcmp(argv[i], "--"))
			is_ended = true;
		if (is_ended)
			r = option_list_add(&o->words, argv[i], f);
		else
			r = take_word(o, argc, argv, &i, f);
	}
	if (!r)
		r = make_ceph_argv(o, f);
	if (o->is_debug) {
		o->is_foreground = true;
		if (!was_given(o, "log-level"))
			o->log_level = LOG_LEVEL_DEBUG;
	}
	return r;
}

int options_parse(int argc, char **argv, struct options *ret, struct fault *f)
{
	struct options o = { 0 };
	int r = parse_into(argc, argv, &o, f);

	if (r) {
		options_done(&o);
		return r;
	}
	*ret = o;
	return 0;
}

void options_done(struct options *o)
{
	option_values_done(o);
	option_list_done(&o->words);
	option_list_done(&o->settings);
	for (unsigned int i = 0; i < o->n_key_fds; i++)
		if (o->key_fds[i] >= 0)
			(void)close(o->key_fds[i]);
	free(o->key_fds);
	o->key_fds = NULL;
	o->n_key_fds = 0;
	free(o->ceph_argv);
	o->ceph_argv = NULL;
	free(o->operand);
	o->operand = NULL;
	free(o->ceph_args);
	o->ceph_args = NULL;
}

bool options_has_foreign(const struct options *o)
{
	for (int i = 1; i < o->ceph_argc; i++) {
		if (!strcmp(o->ceph_argv[i], "--"))
			return false;
		if (o->ceph_argv[i][0] == '-' && o->ceph_argv[i][1])
			return true;
	}
	return false;
}

static int unknown_option(const char *word, struct fault *f)
{
	const char *name = word + strspn(word, "-");
	const char *near = option_nearest(name);
	int r = fault_set(f, EXIT_USAGE, -EINVAL, "%.*s: unknown option", (int)strcspn(word, "="),
			  word);

	if (near)
		fault_hint(f, "did you mean --%s?", near);
	else
		fault_hint(f, "rbdcrypt-nbd --help lists the options; options of Ceph work too");
	return r;
}

static int unknown_command(const char *word, struct fault *f)
{
	const char *near = command_nearest(word);
	int r = fault_set(f, EXIT_USAGE, -EINVAL, "unknown command: %s", word);

	if (near)
		fault_hint(f, "did you mean %s?", near);
	else
		fault_hint(f, "rbdcrypt-nbd --help lists the commands");
	return r;
}

/* What map and serve print, they print with --dry-run only. */
static bool is_of_use(const struct options *o, const struct option_row *row)
{
	bool is_start = o->command == COMMAND_MAP || o->command == COMMAND_SERVE;

	if (is_start && row->group == GROUP_OUTPUT && !o->is_dry_run)
		return false;
	return row->commands & (1u << o->command);
}

/* Commands that rbd-nbd does not have, so that nobody counts on its ways. What map is given may be
 * given to doctor. */
static bool is_strict(enum command c)
{
	return c == COMMAND_SERVE || c == COMMAND_STATUS || c == COMMAND_STATS ||
	       c == COMMAND_CHECK_KEYS;
}

/* An option that the command has no use for is an error, unless rbd-nbd lets it pass. */
static int check_uses(const struct options *o, struct fault *f)
{
	for (unsigned int i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];

		if (!o->is_given[i] || is_of_use(o, row))
			continue;
		if (row->flags & OPTION_TOLERATED && !is_strict(o->command))
			continue;
		/* Else it is the dry run that is missing. */
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "--%s: of no use to %s%s", row->name,
				options_command_name(o->command),
				row->commands & (1u << o->command) ? " without --dry-run" : "");
		fault_hint(f, "rbdcrypt-nbd %s --help lists its options",
			   options_command_name(o->command));
		return -EINVAL;
	}
	return 0;
}

/* How many operands the command takes at least and at most. */
static void operand_range(const struct options *o, unsigned int *ret_min, unsigned int *ret_max)
{
	*ret_min = 0;
	*ret_max = 1;
	switch (o->command) {
	case COMMAND_MAP:
	case COMMAND_ATTACH:
	case COMMAND_SERVE:
	case COMMAND_UNMAP:
	case COMMAND_DETACH:
		*ret_min = o->spec.image ? 0 : 1;
		break;
	case COMMAND_STATUS:
	case COMMAND_STATS:
	case COMMAND_CHECK_KEYS:
	case COMMAND_DOCTOR:
	case COMMAND_HELP:
		break;
	case COMMAND_LIST:
	case COMMAND_DAEMON:
	case COMMAND_VERSION:
	case COMMAND_DUMP_OPTIONS:
	case COMMAND_DUMP_COMPLETION:
	case COMMAND_NONE:
		*ret_max = 0;
		break;
	}
}

/* Standard input has no name, and who is behind it was decided by who made it. */
static int check_single(const struct options *o, struct fault *f)
{
	static const char *const names[] = { "socket",	    "allow-user",   "allow-group",
					     "socket-mode", "socket-owner", "socket-group" };

	for (size_t i = 0; o->is_single && i < sizeof(names) / sizeof(names[0]); i++)
		if (was_given(o, names[i]))
			return fault_set(f, EXIT_USAGE, -EINVAL,
					 "--single: standard input and --%s exclude each other",
					 names[i]);
	return 0;
}

static int check_sources(const struct options *o, struct fault *f)
{
	const struct option_list *l = &o->passphrase_files;

	for (unsigned int i = 0; i < l->n; i++) {
		if (!key_is_none(l->items[i]) || (l->n == 1 && o->formats.n == 0))
			continue;
		(void)fault_set(f, EXIT_USAGE, -EINVAL,
				"--encryption-passphrase-file: none stands alone, without formats "
				"or other passphrases");
		fault_hint(f, "a file of that name is ./none");
		return -EINVAL;
	}
	return 0;
}

/* One for all passphrase files, or one for each. */
static int check_parts(const struct option_list *list, const char *name, unsigned int n_files,
		       struct fault *f)
{
	if (list->n <= 1 || list->n == n_files)
		return 0;
	(void)fault_set(f, EXIT_USAGE, -EINVAL,
			"--%s: given %u times, but there are %u of --encryption-passphrase-file",
			name, list->n, n_files);
	fault_hint(f, "give it once for all, or once for each in the same order; 0 is all of it");
	return -EINVAL;
}

static int check_command(const struct options *o, struct fault *f)
{
	unsigned int n_formats = o->formats.n, n_files = o->passphrase_files.n;

	if (o->command == COMMAND_ATTACH && !o->device) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "attach: must specify device");
		fault_hint(f,
			   "rbdcrypt-nbd list --all shows those that wait; give one with --device");
		return -EINVAL;
	}
	if (o->is_key_tested && !o->is_dry_run)
		return fault_set(f, EXIT_USAGE, -EINVAL, "--test-keys: needs --dry-run");
	if (o->is_exclusive && o->is_without_lock)
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "--exclusive and --without-exclusive-lock exclude each other");
	if (check_single(o, f) < 0)
		return -EINVAL;
	if (n_formats && n_formats != n_files &&
	    (o->command == COMMAND_MAP || o->command == COMMAND_ATTACH ||
	     o->command == COMMAND_SERVE)) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL,
				"--encryption-format: given %u times, but there are %u of "
				"--encryption-passphrase-file",
				n_formats, n_files);
		fault_hint(f, "give one format per passphrase file in the same order, or none: "
			      "any LUKS header is accepted then");
		return -EINVAL;
	}
	if (check_parts(&o->keyfile_offsets, "keyfile-offset", n_files, f) < 0 ||
	    check_parts(&o->keyfile_sizes, "keyfile-size", n_files, f) < 0)
		return -EINVAL;
	return check_sources(o, f) < 0 ? -EINVAL : check_uses(o, f);
}

static int take_operand(struct options *o, const char *word, struct fault *f)
{
	enum command c;

	if (o->command == COMMAND_HELP) {
		if (command_find(word, &c))
			return unknown_command(word, f);
		o->help_topic = c;
		return 0;
	}
	o->operand = strdup(word);
	return o->operand ? 0 : no_memory(f);
}

static int nothing_named(const struct options *o, struct fault *f)
{
	bool is_end = o->command == COMMAND_UNMAP || o->command == COMMAND_DETACH;

	if (is_end && o->device)
		fault_hint(f, "rbdcrypt-nbd %s %s, without --device",
			   options_command_name(o->command), o->device);
	else if (is_end)
		fault_hint(f, "rbdcrypt-nbd list --all shows what is there");
	else
		fault_hint(f, "write [POOL/[NAMESPACE/]]IMAGE[@SNAP] or file:PATH");
	return fault_set(f, EXIT_USAGE, -EINVAL, "%s: must specify %s",
			 options_command_name(o->command),
			 is_end ? "a device, an image or a cookie" : "an image or snapshot");
}

int options_positionals(struct options *o, int argc, const char *const *words, struct fault *f)
{
	bool is_ended = false, has_device_word = false;
	unsigned int n = 0, min, max;
	const char *surplus = NULL;
	int r;

	for (int i = 1; i < argc; i++) {
		const char *word = words[i];

		if (!is_ended && !strcmp(word, "--")) {
			is_ended = true;
		} else if (!is_ended && word[0] == '-' && word[1]) {
			return unknown_option(word, f);
		} else if (o->command == COMMAND_NONE && !has_device_word &&
			   !strcmp(word, "device")) {
			has_device_word = true;
		} else if (o->command == COMMAND_NONE) {
			if (command_find(word, &o->command))
				return unknown_command(word, f);
		} else if (n++ == 0) {
			r = take_operand(o, word, f);
			if (r)
				return r;
		} else {
			surplus = word;
		}
	}
	if (o->command == COMMAND_NONE) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "must specify command");
		fault_hint(f, "rbdcrypt-nbd --help lists the commands");
		return -EINVAL;
	}
	operand_range(o, &min, &max);
	if (n > max) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: unexpected argument \"%s\"",
				options_command_name(o->command), surplus ? surplus : o->operand);
		return -EINVAL;
	}
	if (n < min)
		return nothing_named(o, f);
	return check_command(o, f);
}
