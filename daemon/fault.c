/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The explanation of a failure, carried next to the errno. Plain memory, no
 * thread of its own; the contract is in include/fault.h.
 */

#include "fault.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/*
 * A message is one line: names that users chose may hold anything. One that was cut, as it filled
 * len bytes, does not end inside a character of UTF-8: it has to be JSON, too.
 */
static void make_one_line(char *s, size_t len)
{
	size_t n = strlen(s), start = n;

	while (n + 1 == len && start > 0 && ((unsigned char)s[start - 1] & 0xc0) == 0x80)
		start--;
	if (n + 1 == len && start > 0 && (unsigned char)s[start - 1] >= 0xc0)
		s[start - 1] = '\0';
	for (; *s; s++)
		if (iscntrl((unsigned char)*s))
			*s = '?';
}

enum exit_status fault_status(int error, enum exit_status otherwise)
{
	switch (-error) {
	case EACCES:
	case EPERM:
	case EROFS:
		return EXIT_PASSPHRASE;
	case ENOMEM:
	case EMFILE:
	case ENFILE:
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return EXIT_MEMORY;
	default:
		return otherwise;
	}
}

int fault_set(struct fault *f, enum exit_status status, int error, const char *fmt, ...)
{
	va_list ap;

	if (!f || f->message[0])
		return error;
	f->status = status;
	f->error = error;
	va_start(ap, fmt);
	(void)vsnprintf(f->message, sizeof(f->message), fmt, ap);
	va_end(ap);
	make_one_line(f->message, sizeof(f->message));
	return error;
}

void fault_hint(struct fault *f, const char *fmt, ...)
{
	va_list ap;

	if (!f || f->hint[0])
		return;
	va_start(ap, fmt);
	(void)vsnprintf(f->hint, sizeof(f->hint), fmt, ap);
	va_end(ap);
	make_one_line(f->hint, sizeof(f->hint));
}

void fault_prefix(struct fault *f, const char *fmt, ...)
{
	char old[sizeof(f->message)];
	va_list ap;
	int n;

	if (!f)
		return;
	memcpy(old, f->message, sizeof(old));
	va_start(ap, fmt);
	n = vsnprintf(f->message, sizeof(f->message), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(f->message))
		(void)snprintf(f->message + n, sizeof(f->message) - (size_t)n, ": %s", old);
	make_one_line(f->message, sizeof(f->message));
}

void fault_clear(struct fault *f)
{
	if (f)
		memset(f, 0, sizeof(*f));
}

/*
 * Most errnos say what kind of failure it was, which the message says better. These few say
 * what the system found, which the one who wrote the message could not know.
 */
static bool tells_more(int error)
{
	switch (-error) {
	case EIO:
	case EACCES:
	case ENOSPC:
	case EROFS:
	case EMFILE:
	case ENFILE:
	case ELOOP:
	case ENAMETOOLONG:
	case ECONNREFUSED:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return true;
	default:
		return false;
	}
}

/* Installed as rbd-nbd beside rbd, we are asked by programs that look for that name. */
static const char *our_name(void)
{
	return strcmp(program_invocation_short_name, "rbd-nbd") == 0 ? "rbd-nbd" : "rbdcrypt-nbd";
}

void fault_print(FILE *out, const struct fault *f)
{
	const char *text = f->error ? strerror(-f->error) : "";

	fprintf(out, "%s: ", our_name());
	if (!f->message[0])
		fprintf(out, "failed: %s\n", f->error ? text : "no reason given");
	else if (tells_more(f->error) && !strcasestr(f->message, text))
		fprintf(out, "%s: %s\n", f->message, text);
	else
		fprintf(out, "%s\n", f->message);
	if (f->hint[0])
		fprintf(out, "hint: %s\n", f->hint);
}
