/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * libFuzzer target: the input is a command line, words ended by NUL bytes. Whatever
 * it is, the parser answers with options or with one printable line, and hands
 * nothing to Ceph that the user did not write, in the order it was written.
 *
 * Build: clang -fsanitize=fuzzer,address,undefined with daemon/options.c, option_table.c,
 * option_value.c, usage.c and fault.c.
 */

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../daemon/options.h"

#define MAX_WORDS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_fault(const struct fault *f)
{
	if (!f->message[0] || (f->status != EXIT_USAGE && f->status != EXIT_MEMORY))
		abort();
	for (const char *p = f->message; *p; p++)
		if (iscntrl((unsigned char)*p))
			abort();
}

static void check_options(const struct options *o, const char *all, size_t len)
{
	for (int i = 1; i < o->ceph_argc; i++) {
		const char *word = o->ceph_argv[i];

		/* "-d", "--log-file=x", and what -o takes apart, are written by us */
		if (word[0] != '-' && !memmem(all, len, word, strlen(word)))
			abort();
	}
	if (o->command == COMMAND_NONE &&
	    (o->connections > 64 || o->io_timeout_s < -1 || o->block_size > 4096 ||
	     o->format > OUTPUT_XML || o->newline > NEWLINE_STRIP || o->log_level > 4))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *argv[MAX_WORDS + 1] = { NULL };
	struct fault f = { 0 };
	struct options o;
	int argc = 0;
	char *text;

	if (len == 0 || len > 4096)
		return 0;
	text = malloc(len + 1);
	if (!text)
		return 0;
	memcpy(text, data, len);
	text[len] = 0;
	for (size_t at = 0; at < len && argc < MAX_WORDS; at += strlen(text + at) + 1)
		argv[argc++] = text + at;
	if (options_parse(argc, argv, &o, &f) < 0) {
		check_fault(&f);
	} else {
		check_options(&o, text, len);
		if (o.command == COMMAND_NONE &&
		    options_positionals(&o, o.ceph_argc, o.ceph_argv, &f) < 0)
			check_fault(&f);
		options_done(&o);
	}
	free(text);
	return 0;
}
