/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_LOG_FIELDS_H
#define DAEMON_LOG_FIELDS_H

#include <stdarg.h>
#include <stddef.h>

#include "log.h"

/* Fields of the journal for one message. Starts as zeros. Between log.c and event.c. */
#define LOG_FIELDS_MAX 12
struct log_fields {
	size_t n, used;
	size_t at[LOG_FIELDS_MAX], len[LOG_FIELDS_MAX]; /* in text */
	char text[8192];
};

/* Adds "NAME=value", cut where there is no more room. */
void log_field(struct log_fields *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* log_write() with fields, which only the journal takes. f: NULL for none. */
void log_write_fields(enum log_level level, const char *volume, const struct log_fields *f,
		      const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));

#endif
