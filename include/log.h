/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_LOG_H
#define RBDCRYPT_LOG_H

#include <stdbool.h>

/*
 * One logger for the process. Leaves use log_debug only; the top of a command
 * and the volume log what users should read. Never pass a key, a passphrase or
 * payload bytes. Thread-safe. Goes to stderr until log_to_background(), then to
 * the log file if one is set, else to the journal (fields RBDCRYPT_VOLUME=...),
 * else to syslog.
 */
enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG
};

/* volume: the spec of the volume it is about, or NULL. fmt: no newline at the end. */
void log_write(enum log_level level, const char *volume, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_error(volume, ...) log_write(LOG_LEVEL_ERROR, volume, __VA_ARGS__)
#define log_warning(volume, ...) log_write(LOG_LEVEL_WARNING, volume, __VA_ARGS__)
#define log_notice(volume, ...) log_write(LOG_LEVEL_NOTICE, volume, __VA_ARGS__)
#define log_info(volume, ...) log_write(LOG_LEVEL_INFO, volume, __VA_ARGS__)
#define log_debug(volume, ...) log_write(LOG_LEVEL_DEBUG, volume, __VA_ARGS__)

/* The highest level that is written; default LOG_LEVEL_NOTICE. */
void log_set_level(enum log_level level);

/* Everything from now on is appended to this file. 0 or -errno. Main thread, before others start.
 */
int log_open_file(const char *path);

/* stderr is about to go away: use the file, the journal or syslog from now on. */
void log_to_background(void);

/*
 * Rate limit for an error that can repeat per request. Zero-initialise it. True
 * when this one should be written; *ret_suppressed then says how many were not.
 */
struct log_limit {
	long long next_ms;
	unsigned int suppressed;
};
bool log_allowed(struct log_limit *limit, unsigned int *ret_suppressed);

#endif
