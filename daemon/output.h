/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_OUTPUT_H
#define DAEMON_OUTPUT_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>

#include "fault.h"
#include "options.h"

/*
 * The object as JSON, or as XML in elements called as its keys are (tag is the outermost one). It
 * stays the caller's. OUTPUT_PLAIN is JSON. Main thread, as all here. 0; -ENOMEM, or as
 * output_check().
 */
int output_object(FILE *out, const char *tag, struct json_object *object, enum output_format format,
		  bool is_pretty);

/* Whether all that was written so far has arrived: 0 or -errno. */
int output_check(FILE *out);

/* Text from the cluster or a file's name, on one line. */
void output_text(FILE *out, const char *text);

/* Where clients connect to: an NBD URI, which any path fits into. */
void output_socket(FILE *out, const char *path);

/*
 * The end of every command that prints: r is what printing returned, 0 or -errno. Standard output
 * is flushed and looked at. EXIT_MEMORY or EXIT_USAGE.
 */
int output_finish(int r, struct fault *f);

#endif
