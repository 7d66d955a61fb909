/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_OPTION_TABLE_H
#define RBDCRYPT_OPTION_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "options.h"

/*
 * The one list of commands and the one list of options. Everything that knows
 * an option's name knows it from here. Constant; any thread.
 */

enum option_type {
	OPTION_FLAG, /* bool */
	OPTION_CONST, /* no value; stores min into an enum */
	OPTION_STRING, /* char *, at most max bytes */
	OPTION_ID, /* char *; stored with "client." before it */
	OPTION_LIST, /* struct option_list, of one of choices if there are any */
	OPTION_CHOICE, /* enum: the index in choices */
	OPTION_BLOCK_SIZE, /* unsigned int: one of choices as a number, "auto" is 0 */
	OPTION_UINT, /* unsigned int, min to max */
	OPTION_SECONDS, /* int, min to max; s, m and h are understood */
	OPTION_COUNT, /* uint64_t, min to max */
	OPTION_MODE, /* unsigned int: permissions as chmod takes them, three octal digits */
	OPTION_BYTES, /* uint64_t, min to max; K, M, G and T are understood */
	OPTION_BYTES_LIST, /* struct option_list of numbers as text, min to max; units as above */
	OPTION_KEYS, /* -o: a list of other options */
	OPTION_IGNORED, /* no value, no effect */
	OPTION_REFUSED, /* known to rbd-nbd, not to us yet: an error */
	OPTION_REFUSED_VALUE, /* the same, with a value */
	OPTION_COMMAND, /* no value; stands for the command in min */
};

enum option_group {
	GROUP_CEPH,
	GROUP_IMAGE,
	GROUP_ENCRYPTION,
	GROUP_DEVICE,
	GROUP_SERVE,
	GROUP_OUTPUT,
	GROUP_PROCESS,
	GROUP_LIMITS,
};

/* rbd-nbd takes it with every command of its own, so we do, and ignore it. */
#define OPTION_TOLERATED 1u
/* Handed on to Ceph as well. */
#define OPTION_ALSO_CEPH 2u
/* Another spelling of the row above it; not in the help. */
#define OPTION_ALIAS 4u
/* An empty value means something. */
#define OPTION_MAY_BE_EMPTY 8u
/* Not in the help, not in the manual page. */
#define OPTION_HIDDEN 16u
/* About the process itself: a volume with it gets one of its own, not a place in the host's daemon.
 */
#define OPTION_OWN_PROCESS 32u
/* A path, which another process would see from another folder. */
#define OPTION_PATH 64u
/* What it costs, all of the host pays: only root says it to a daemon. */
#define OPTION_COSTLY 128u

struct option_row {
	const char *name; /* without the dashes */
	char letter; /* 0: none */
	enum option_type type;
	enum option_group group;
	unsigned int commands; /* bits: 1u << enum command */
	unsigned int flags;
	size_t offset; /* into struct options */
	const char *arg; /* what the help calls the value */
	const char *choices; /* "plain|json|xml" */
	const char *fallback; /* the value that holds when nothing is said, as text */
	uint64_t min, max;
	const char *help; /* sentences; plain ASCII */
};

extern const struct option_row option_rows[];
extern const unsigned int option_row_count;

struct command_row {
	enum command command;
	const char *names; /* "list|list-mapped|ls"; the first is the one to show */
	const char *operand; /* for the usage line */
	const char *help;
};

extern const struct command_row command_rows[];
extern const unsigned int command_row_count;

const char *option_group_title(enum option_group group);

/* The index of word in "a|b|c", or -ENOENT. */
int choice_index(const char *choices, const char *word);

/* By its whole name, '_' the same as '-'; len bytes of it. NULL when it is not ours. */
const struct option_row *option_find(const char *name, size_t len);
const struct option_row *option_find_letter(char letter);
/* -ENOENT when it is none. */
int command_find(const char *word, enum command *ret);

/*
 * The option or command that a word which is neither may have meant: what other programs call so,
 * else the nearest; or NULL when nothing is near.
 */
const char *option_nearest(const char *name);
const char *command_nearest(const char *word);

#endif
