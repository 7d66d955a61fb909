/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A request carries options by the names that the command line has for them, and the option table
 * judges them here as there: a new option needs nothing in this file. What is about the process
 * itself is refused, and so is what would let a client who is not root use root's eyes and hands: a
 * file of this machine as a volume or a socket, Ceph's configuration and users, a passphrase that
 * is not the client's own; and what would let him have more of the host than is his share.
 */

#include "control_request.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"
#include "option_table.h"
#include "option_value.h"
#include "text.h"

#define PASSPHRASE_OPTION "encryption-passphrase-file"
#define KEYS_MAX 64
#define WORDS_MAX 1024
#define KEY_AS_TEXT "a key must not travel as text: give --keyring"

/* ---- Ceph's own key ---- */

/* "--key" or "--key=..." among the blanks of text. */
static bool holds_key(const char *text)
{
	static const char key[] = "--key";
	const size_t len = sizeof(key) - 1;

	for (const char *p = text; (p = strstr(p, key)); p += len)
		if ((p == text || isspace((unsigned char)p[-1])) &&
		    (!p[len] || p[len] == '=' || isspace((unsigned char)p[len])))
			return true;
	return false;
}

/* What whoever asks wants Ceph to be told before the command line, or NULL. */
static const char *ceph_args_of(const struct options *o)
{
	return o->ceph_args ? o->ceph_args : getenv("CEPH_ARGS");
}

bool control_request_has_key(const struct options *o)
{
	const char *args = ceph_args_of(o);

	for (int i = 1; i < o->ceph_argc; i++)
		if (holds_key(o->ceph_argv[i]))
			return true;
	return args && holds_key(args);
}

/* ---- writing ---- */

/* Takes value. */
static int add(struct json_object *o, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(o, key, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static int append(struct json_object *array, struct json_object *value)
{
	if (value && json_object_array_add(array, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static bool is_sent(const char *setting)
{
	const struct option_row *row = option_find(setting, strcspn(setting, "="));

	return row && !(row->flags & OPTION_OWN_PROCESS) && strcmp(row->name, PASSPHRASE_OPTION);
}

/* What was typed, but paths as they have become. */
static struct json_object *setting_to_json(const struct options *o, const char *setting)
{
	const struct option_row *row = option_find(setting, strcspn(setting, "="));
	struct json_object *json;
	char *text;

	if (!(row->flags & OPTION_PATH))
		return json_object_new_string(setting);
	if (asprintf(&text, "%s=%s", row->name,
		     *(char *const *)(const void *)((const char *)o + row->offset)) < 0)
		return NULL;
	json = json_object_new_string(text);
	free(text);
	return json;
}

static int write_options(const struct options *o, struct json_object *to)
{
	struct json_object *array = json_object_new_array();
	int r = add(to, "options", array);

	for (unsigned int i = 0; r == 0 && i < o->settings.n; i++)
		if (is_sent(o->settings.items[i]))
			r = append(array, setting_to_json(o, o->settings.items[i]));
	return r;
}

static int write_ceph(const struct options *o, struct json_object *to)
{
	struct json_object *array = json_object_new_array();
	const char *args = ceph_args_of(o);
	int r = add(to, "ceph", array);

	for (int i = 1; r == 0 && i < o->ceph_argc; i++)
		r = append(array, json_object_new_string(o->ceph_argv[i]));
	/* Our own are there again when it is read; a key must not stand in a file meanwhile. */
	if (r == 0 && args && !holds_key(args))
		r = add(to, "ceph_args", json_object_new_string(args));
	return r;
}

static int write_keys(const struct options *o, const unsigned int *keys, unsigned int n_keys,
		      struct json_object *to)
{
	struct json_object *array = json_object_new_array();
	int r = add(to, "keys", array);

	for (unsigned int i = 0; r == 0 && i < o->passphrase_files.n; i++) {
		struct json_object *key = json_object_new_object();

		r = append(array, key);
		if (r == 0)
			r = add(key, "source",
				json_object_new_string(o->passphrase_files.items[i]));
		for (unsigned int k = 0; r == 0 && k < n_keys; k++)
			if (keys[k] == i)
				r = add(key, "fd", json_object_new_int((int)k));
	}
	return r;
}

struct json_object *control_request_write(const struct options *o, const unsigned int *keys,
					  unsigned int n_keys)
{
	struct json_object *to = json_object_new_object();
	int r = to ? 0 : -ENOMEM;

	if (r == 0 && o->operand)
		r = add(to, "spec", json_object_new_string(o->operand));
	if (r == 0)
		r = write_options(o, to);
	if (r == 0)
		r = write_ceph(o, to);
	if (r == 0)
		r = write_keys(o, keys, n_keys, to);
	if (r < 0) {
		json_object_put(to);
		return NULL;
	}
	return to;
}

/* ---- reading ---- */

static int invalid(struct fault *f, const char *what)
{
	return fault_set(f, EXIT_USAGE, -EINVAL, "request: %s", what);
}

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "request: out of memory");
}

/* A text without zero bytes, or NULL. */
static const char *text_of(struct json_object *o)
{
	const char *text;

	if (!json_object_is_type(o, json_type_string))
		return NULL;
	text = json_object_get_string(o);
	return strlen(text) == (size_t)json_object_get_string_len(o) ? text : NULL;
}

/* The array called key, or NULL when there is none. */
static int get_array(struct json_object *o, const char *key, struct json_object **ret,
		     struct fault *f)
{
	struct json_object *array;

	*ret = NULL;
	if (!json_object_object_get_ex(o, key, &array) || !array)
		return 0;
	if (!json_object_is_type(array, json_type_array) ||
	    json_object_array_length(array) > WORDS_MAX)
		return fault_set(f, EXIT_USAGE, -EINVAL, "request: \"%s\" is no array, or too long",
				 key);
	*ret = array;
	return 0;
}

static size_t length_of(const struct json_object *array)
{
	return array ? json_object_array_length(array) : 0;
}

/* A cluster's name is the name of a file, and a Ceph user's that of a keyring. */
static bool is_roots(const struct option_row *row)
{
	return row->group == GROUP_CEPH || row->group == GROUP_LIMITS ||
	       row->flags & (OPTION_PATH | OPTION_COSTLY);
}

static int check_setting(const char *setting, bool is_trusted, struct fault *f)
{
	size_t len = strcspn(setting, "=");
	const struct option_row *row = option_find(setting, len);

	if (!row)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%.*s: unknown option", (int)len, setting);
	if (row->flags & (OPTION_OWN_PROCESS | OPTION_HIDDEN) || row->type == OPTION_COMMAND ||
	    row->type == OPTION_KEYS || !strcmp(row->name, PASSPHRASE_OPTION))
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: cannot be given to a daemon",
				 row->name);
	if (is_roots(row) && !is_trusted)
		return fault_set(f, EXIT_PASSPHRASE, -EPERM, "%s: only root may say it", row->name);
	if (row->flags & OPTION_PATH && setting[len] && setting[len + 1] != '/')
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: not an absolute path", row->name);
	return 0;
}

/* Builds the words of a command line. */
static int read_settings(struct json_object *from, bool is_trusted, struct option_list *words,
			 struct fault *f)
{
	struct json_object *array;
	int r = get_array(from, "options", &array, f);

	for (size_t i = 0; r == 0 && i < length_of(array); i++) {
		const char *setting = text_of(json_object_array_get_idx(array, i));
		char *word;

		if (!setting)
			return invalid(f, "an option is no text");
		r = check_setting(setting, is_trusted, f);
		if (r < 0)
			return r;
		if (asprintf(&word, "--%s", setting) < 0)
			return no_memory(f);
		r = option_list_add(words, word, f);
		free(word);
	}
	return r;
}

static int read_ceph(struct json_object *from, bool is_trusted, struct option_list *words,
		     struct fault *f)
{
	struct json_object *array;
	int r = get_array(from, "ceph", &array, f);

	for (size_t i = 0; r == 0 && i < length_of(array); i++) {
		const char *word = text_of(json_object_array_get_idx(array, i));

		if (!word)
			return invalid(f, "a word for Ceph is no text");
		if (!is_trusted)
			return fault_set(f, EXIT_PASSPHRASE, -EPERM, "%s: only root may say it",
					 word);
		if (holds_key(word))
			return invalid(f, KEY_AS_TEXT);
		if (!strcmp(word, "--"))
			return invalid(f, "\"--\" is no word for Ceph");
		r = option_list_add(words, word, f);
	}
	return r;
}

static int read_ceph_args(struct json_object *from, bool is_trusted, struct options *o,
			  struct fault *f)
{
	struct json_object *value;
	const char *text;

	if (!json_object_object_get_ex(from, "ceph_args", &value) || !value)
		return 0;
	text = text_of(value);
	if (!text)
		return invalid(f, "\"ceph_args\" is no text");
	if (!is_trusted)
		return fault_set(f, EXIT_PASSPHRASE, -EPERM,
				 "CEPH_ARGS and CEPH_KEYRING: only root may set them");
	if (holds_key(text))
		return invalid(f, KEY_AS_TEXT);
	o->ceph_args = strdup(text);
	return o->ceph_args ? 0 : no_memory(f);
}

static int take_key(struct options *o, struct json_object *key, bool is_trusted,
		    int (*take_fd)(void *arg, unsigned int i), void *arg, struct fault *f)
{
	struct json_object *source = NULL, *index = NULL;
	const char *text;
	int fd, r;

	if (!json_object_is_type(key, json_type_object))
		return invalid(f, "a key is no object");
	(void)json_object_object_get_ex(key, "source", &source);
	(void)json_object_object_get_ex(key, "fd", &index);
	text = source ? text_of(source) : "";
	if (!text || (!text[0] && !index))
		return invalid(f, "a key has neither source nor fd");
	if (!index && !is_trusted && !key_is_none(text))
		return fault_set(f, EXIT_PASSPHRASE, -EPERM,
				 "%s: who is not root must pass an open descriptor", text);
	/* What others name is not read with root's eyes later, when it is wanted again. */
	if (!is_trusted && index)
		text = "-";
	if (!index && key_repeat(text) == KEY_ONCE)
		return fault_set(f, EXIT_USAGE, -ENOKEY, "%s: needs its descriptor with it", text);
	r = option_list_add(&o->passphrase_files, text[0] ? text : "-", f);
	if (r < 0)
		return r;
	o->key_fds[o->n_key_fds++] = -1;
	if (!index)
		return 0;
	if (!json_object_is_type(index, json_type_int) || json_object_get_int64(index) < 0 ||
	    json_object_get_int64(index) >= KEYS_MAX)
		return invalid(f, "a key's fd is no small number");
	fd = take_fd(arg, (unsigned int)json_object_get_int64(index));
	if (fd < 0)
		return invalid(f, "a key's descriptor did not come with it");
	o->key_fds[o->n_key_fds - 1] = fd;
	return 0;
}

static int read_keys(struct json_object *from, bool is_trusted,
		     int (*take_fd)(void *arg, unsigned int i), void *arg, struct options *o,
		     struct fault *f)
{
	struct json_object *array;
	int r = get_array(from, "keys", &array, f);
	size_t n = r < 0 ? 0 : length_of(array);

	/* Who names none gets what root keeps for the image, if he is root. */
	if (r == 0 && n == 0 && !is_trusted)
		return option_list_add(&o->passphrase_files, "none", f);
	if (n == 0)
		return r;
	if (n > KEYS_MAX)
		return invalid(f, "too many keys");
	o->key_fds = calloc(n, sizeof(*o->key_fds));
	if (!o->key_fds)
		return no_memory(f);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = take_key(o, json_object_array_get_idx(array, i), is_trusted, take_fd, arg, f);
	return r;
}

/* Command and operand, as if they had been typed behind "--". */
static int read_command(struct json_object *from, enum command command, bool is_trusted,
			struct options *o, struct fault *f)
{
	const char *words[] = { "", options_command_name(command), "--", NULL };
	struct json_object *spec = NULL;
	int n = 2, r;

	if (json_object_object_get_ex(from, "spec", &spec) && spec) {
		words[3] = text_of(spec);
		if (!words[3] || !words[3][0])
			return invalid(f, "\"spec\" is no text");
		n = 4;
	}
	r = options_positionals(o, n, words, f);
	if (r == 0)
		r = image_spec_parse(o->operand, &o->spec, f);
	if (r == 0 && o->spec.is_file && !is_trusted)
		r = fault_set(f, EXIT_PASSPHRASE, -EPERM, "%s: only root may name a file",
			      o->operand);
	if (r == 0 && o->spec.is_file && o->spec.image[0] != '/')
		r = invalid(f, "a file needs an absolute path");
	return r;
}

static int read_all(struct json_object *from, enum command command, bool is_trusted,
		    int (*take_fd)(void *arg, unsigned int i), void *arg, struct options *ret,
		    struct fault *f)
{
	struct option_list words = { 0 };
	char *ceph_args = NULL;
	int r = option_list_add(&words, "", f);
	unsigned int n_settings;

	if (r == 0)
		r = read_settings(from, is_trusted, &words, f);
	n_settings = words.n - 1;
	if (r == 0)
		r = read_ceph(from, is_trusted, &words, f);
	if (r == 0)
		r = read_ceph_args(from, is_trusted, ret, f);
	/* The parser makes a new struct, and only when it succeeds. */
	ceph_args = ret->ceph_args;
	ret->ceph_args = NULL;
	if (r == 0)
		r = options_parse((int)words.n, words.items, ret, f);
	ret->ceph_args = ceph_args;
	option_list_done(&words);
	/* They would not have been judged. */
	if (r == 0 && (ret->command != COMMAND_NONE || ret->settings.n != n_settings))
		r = invalid(f, "an option of ours is among the words for Ceph");
	if (r == 0)
		r = read_keys(from, is_trusted, take_fd, arg, ret, f);
	if (r == 0)
		r = read_command(from, command, is_trusted, ret, f);
	return r;
}

int control_request_read(struct json_object *parameters, enum command command, bool is_trusted,
			 int (*take_fd)(void *arg, unsigned int i), void *arg, struct options **ret,
			 struct fault *f)
{
	struct options *o = calloc(1, sizeof(*o));
	int r;

	if (!o)
		return no_memory(f);
	r = read_all(parameters, command, is_trusted, take_fd, arg, o, f);
	if (r < 0) {
		options_done(o);
		free(o);
		return r;
	}
	*ret = o;
	return 0;
}

/* ---- faults ---- */

struct json_object *control_fault_write(const struct fault *f)
{
	struct json_object *o = json_object_new_object();
	int r = o ? 0 : -ENOMEM;

	if (r == 0)
		r = add(o, "status", json_object_new_int((int)f->status));
	if (r == 0)
		r = add(o, "errno", json_object_new_int(-f->error));
	if (r == 0)
		r = add(o, "message", json_object_new_string(f->message));
	if (r == 0)
		r = add(o, "hint", json_object_new_string(f->hint));
	if (r < 0) {
		json_object_put(o);
		return NULL;
	}
	return o;
}

bool control_fault_read(struct json_object *parameters, struct fault *ret)
{
	struct json_object *status, *error, *message, *hint;
	int64_t number, code;

	if (!json_object_object_get_ex(parameters, "status", &status) ||
	    !json_object_object_get_ex(parameters, "errno", &error) ||
	    !json_object_object_get_ex(parameters, "message", &message) ||
	    !json_object_object_get_ex(parameters, "hint", &hint))
		return false;
	number = json_object_get_int64(status);
	code = json_object_get_int64(error);
	if (number < EXIT_USAGE || number > EXIT_LAYERED || code <= 0 || code > 4095 ||
	    !text_of(message) || !text_of(hint))
		return false;
	(void)fault_set(ret, (enum exit_status)number, -(int)code, "%s", text_of(message));
	if (text_of(hint)[0])
		fault_hint(ret, "%s", text_of(hint));
	return true;
}
