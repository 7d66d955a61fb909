/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The logger. It hides stderr, the log file, the journal and syslog; the contract is
 * in include/log.h. Any thread calls it, callbacks of librbd included, so it takes no
 * lock: a line is put together on the stack and leaves in one write(). This is
 * the one place of the program with file-scope state that changes: a logger that
 * had to be handed to every leaf would be in every signature.
 */

#include "log_fields.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

/* Without file and line of the caller: they would be this file's. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define LINE_BYTES 2048
#define VOLUME_BYTES 512 /* of its name that a line begins with */
#define TEXT_BYTES (VOLUME_BYTES + 3 + LINE_BYTES)
#define LIMIT_WINDOW_MS 5000

enum log_target { TARGET_STDERR, TARGET_JOURNAL, TARGET_SYSLOG, TARGET_FILE };

static atomic_int highest_level = LOG_LEVEL_NOTICE;
static atomic_int target = TARGET_STDERR;
static atomic_int file_fd = -1;

void log_set_level(enum log_level level)
{
	atomic_store(&highest_level, (int)level);
}

int log_open_file(const char *path)
{
	/* A fifo is not waited for: not for its reader here, nor for room in it at each line. */
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
		      0640);
	int old = atomic_load(&file_fd);
	int r;

	if (fd < 0)
		return -errno;
	if (old < 0) {
		atomic_store(&file_fd, fd);
		return 0;
	}
	/* The number stays, so a writer on another thread needs no lock. */
	r = dup3(fd, old, O_CLOEXEC) < 0 ? -errno : 0;
	(void)close(fd);
	return r;
}

void log_to_background(void)
{
	if (atomic_load(&file_fd) >= 0) {
		atomic_store(&target, TARGET_FILE);
	} else if (access("/run/systemd/journal/socket", W_OK) == 0) {
		/* asked here, because sd_journal_send() reports success where no journal is */
		atomic_store(&target, TARGET_JOURNAL);
	} else {
		openlog("rbdcrypt-nbd", LOG_PID, LOG_DAEMON);
		atomic_store(&target, TARGET_SYSLOG);
	}
}

static int syslog_priority(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_ERROR:
		return LOG_ERR;
	case LOG_LEVEL_WARNING:
		return LOG_WARNING;
	case LOG_LEVEL_NOTICE:
		return LOG_NOTICE;
	case LOG_LEVEL_INFO:
		return LOG_INFO;
	case LOG_LEVEL_DEBUG:
		return LOG_DEBUG;
	}
	return LOG_ERR;
}

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_ERROR:
		return "error";
	case LOG_LEVEL_WARNING:
		return "warning";
	case LOG_LEVEL_NOTICE:
		return "notice";
	case LOG_LEVEL_INFO:
		return "info";
	case LOG_LEVEL_DEBUG:
		return "debug";
	}
	return "";
}

/* prefix and text as one line, in one write. What cannot be written is lost. */
static void write_line(int fd, const char *prefix, const char *text)
{
	char line[TEXT_BYTES + 96];
	int n = snprintf(line, sizeof(line) - 1, "%s%s", prefix, text);

	if (n < 0)
		return;
	if ((size_t)n > sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(fd, line, (size_t)n) < 0)
		return;
}

static void write_file(enum log_level level, const char *text)
{
	char prefix[96], when[40];
	struct timespec now;
	struct tm tm;
	size_t n;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	n = localtime_r(&now.tv_sec, &tm) ? strftime(when, sizeof(when), "%FT%T", &tm) : 0;
	when[n] = 0;
	(void)snprintf(prefix, sizeof(prefix), "%s.%03ld %d %s: ", when, now.tv_nsec / 1000000,
		       (int)getpid(), level_name(level));
	write_line(atomic_load(&file_fd), prefix, text);
}

/* ---- the journal ---- */

void log_field(struct log_fields *f, const char *fmt, ...)
{
	size_t room = sizeof(f->text) - f->used;
	va_list ap;
	int len;

	if (f->n == LOG_FIELDS_MAX || room == 0)
		return;
	va_start(ap, fmt);
	len = vsnprintf(f->text + f->used, room, fmt, ap);
	va_end(ap);
	if (len < 0)
		return;
	f->at[f->n] = f->used;
	f->len[f->n] = (size_t)len < room ? (size_t)len : room - 1;
	f->used += f->len[f->n++] + 1;
}

static struct iovec text_field(const char *text)
{
	return (struct iovec){ .iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text) };
}

static void write_journal(enum log_level level, const char *volume, const struct log_fields *f,
			  const char *text)
{
	char message[TEXT_BYTES + 8], priority[24], about[600];
	struct iovec v[LOG_FIELDS_MAX + 4];
	int n = 0;

	(void)snprintf(message, sizeof(message), "MESSAGE=%s", text);
	(void)snprintf(priority, sizeof(priority), "PRIORITY=%d", syslog_priority(level));
	(void)snprintf(about, sizeof(about), "RBDCRYPT_VOLUME=%.*s", VOLUME_BYTES,
		       volume ? volume : "");
	v[n++] = text_field(message);
	v[n++] = text_field(priority);
	v[n++] = text_field("SYSLOG_IDENTIFIER=rbdcrypt-nbd");
	if (volume)
		v[n++] = text_field(about);
	for (size_t i = 0; f && i < f->n; i++)
		v[n++] = (struct iovec){ .iov_base = (char *)(uintptr_t)&f->text[f->at[i]],
					 .iov_len = f->len[i] };
	(void)sd_journal_sendv(v, n);
}

/* ---- all ---- */

void log_write_fields(enum log_level level, const char *volume, const struct log_fields *f,
		      const char *fmt, va_list ap)
{
	enum log_target where = (enum log_target)atomic_load(&target);
	int saved_errno = errno, n = 0;
	char text[TEXT_BYTES];

	if ((int)level > atomic_load(&highest_level))
		return;
	if (volume)
		n = snprintf(text, sizeof(text), "%.*s: ", VOLUME_BYTES, volume);
	(void)vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	/* The volume's name, too, may hold anything. */
	for (char *p = text; *p; p++)
		if (iscntrl((unsigned char)*p))
			*p = '?';
	if (atomic_load(&file_fd) >= 0)
		write_file(level, text);
	switch (where) {
	case TARGET_STDERR:
		write_line(STDERR_FILENO, "rbdcrypt-nbd: ", text);
		break;
	case TARGET_JOURNAL:
		write_journal(level, volume, f, text);
		break;
	case TARGET_SYSLOG:
		syslog(syslog_priority(level), "%s", text);
		break;
	case TARGET_FILE:
		break;
	}
	errno = saved_errno;
}

void log_write(enum log_level level, const char *volume, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_write_fields(level, volume, NULL, fmt, ap);
	va_end(ap);
}

bool log_allowed(struct log_limit *limit, unsigned int *ret_suppressed)
{
	struct timespec now;
	long long now_ms, next_ms;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	now_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
	next_ms = __atomic_load_n(&limit->next_ms, __ATOMIC_RELAXED);
	/* Of several threads that find the window open, one wins; the others are counted. */
	if (now_ms < next_ms ||
	    !__atomic_compare_exchange_n(&limit->next_ms, &next_ms, now_ms + LIMIT_WINDOW_MS, false,
					 __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
		(void)__atomic_add_fetch(&limit->suppressed, 1, __ATOMIC_RELAXED);
		return false;
	}
	*ret_suppressed = __atomic_exchange_n(&limit->suppressed, 0, __ATOMIC_RELAXED);
	return true;
}
