/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_KEY_KIND_H
#define DAEMON_KEY_KIND_H

#include <stdint.h>

#include "key.h"

/*
 * Between key.c and the kinds of source. Each kind is one function; key.c gives words to what it
 * returns, unless it has better ones and has filled the fault. Same thread rule as key.h.
 */
struct key_request {
	const char *source; /* all of it, for messages */
	const char *text; /* without the kind's prefix */
	const struct key_place *place;
	const struct key_options *o;
	int64_t deadline_ms; /* monotonic; 0: none */
};

int key_file_read(const struct key_request *q, struct secret **ret, struct fault *f);
int key_stdin_read(const struct key_request *q, struct secret **ret, struct fault *f);
int key_fd_read(const struct key_request *q, struct secret **ret, struct fault *f);
int key_cred_read(const struct key_request *q, struct secret **ret, struct fault *f);
int key_ask_read(const struct key_request *q, struct secret **ret, struct fault *f);
int key_exec_read(const struct key_request *q, struct secret **ret, struct fault *f);
int key_socket_read(const struct key_request *q, struct secret **ret, struct fault *f);
int key_ring_read(const struct key_request *q, struct secret **ret, struct fault *f);

/* Whether the file is there and may be read, the socket connected to, the program run. -errno. */
int key_file_check(const struct key_request *q, struct fault *f);
int key_socket_check(const struct key_request *q, struct fault *f);
int key_exec_check(const struct key_request *q, struct fault *f);

/* text with its specifiers replaced. As key_resolve(). */
int key_expand(const char *text, const struct key_place *place, char **ret, struct fault *f);

/*
 * The words of a command line, with NULL behind the last. -EINVAL, EXIT_USAGE: a quote is open, or
 * the program's path is not absolute.
 */
int key_words_split(const char *text, char ***ret, struct fault *f);
char **key_words_free(char **words);
/* The command line with specifiers replaced inside its words, for key_words_split() to read. */
int key_words_expand(const char *text, const struct key_place *place, char **ret, struct fault *f);

/* Runs argv, which ends with NULL, and reads what it prints. As key_read(). */
int key_run(const struct key_request *q, char *const *argv, struct secret **ret, struct fault *f);

/* 0, or -ETIMEDOUT after the deadline, or -EINTR. */
int key_is_late(const struct key_request *q);
/* Until fd has one of the poll() events. 0, -ETIMEDOUT at the deadline, -EINTR. */
int key_wait(const struct key_request *q, int fd, short events);
/* Its contents to the end, waiting by key_wait(). fd stays open. As secret_read_fd(). */
int key_read_fd(const struct key_request *q, int fd, struct secret **ret);

#endif
