/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Passphrases that somebody types: at the terminal, if there is one, without echo; else through
 * systemd's password agents, which is how a service asks (systemd-ask-password(1) speaks their
 * protocol). The terminal is set back however this ends.
 *
 * The daemon has a session of its own by now, so /dev/tty is gone and Ctrl-C reaches the waiting
 * parent only, which passes it on; the terminal is found through what it was started with.
 */

#include "key_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <termios.h>
#include <unistd.h>

#define ASK_PASSWORD "/usr/bin/systemd-ask-password"

/* A terminal hands over no longer line. */
#define LINE_MAX_BYTES 4096u

/* A descriptor to read and write the terminal with, the caller's; -ENOTTY when there is none. */
static int open_terminal(void)
{
	static const int standard[] = { STDIN_FILENO, STDERR_FILENO };
	char path[64];
	int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

	if (fd >= 0)
		return fd;
	for (size_t i = 0; i < sizeof(standard) / sizeof(standard[0]); i++) {
		if (!isatty(standard[i]))
			continue;
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", standard[i]);
		fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
		if (fd >= 0)
			return fd;
	}
	return -ENOTTY;
}

static void put(int fd, const char *text)
{
	/* A prompt that does not arrive stops nobody from typing. */
	(void)!write(fd, text, strlen(text));
}

/* One line without its newline. */
static int read_line(const struct key_request *q, int fd, struct secret **ret)
{
	struct secret *s;
	ssize_t n;
	int r = secret_new(LINE_MAX_BYTES, &s);

	if (r < 0)
		return r;
	r = key_wait(q, fd, POLLIN);
	if (r == 0) {
		n = read(fd, secret_data(s), LINE_MAX_BYTES);
		if (n < 0)
			r = -errno;
		else if (n > 0 && secret_data(s)[n - 1] == '\n')
			n--;
		if (r == 0 && n == 0)
			r = -ENODATA;
		if (r == 0)
			secret_truncate(s, (size_t)n);
	}
	if (r < 0)
		(void)secret_free(s);
	else
		*ret = s;
	return r;
}

static int ask_terminal(const struct key_request *q, int fd, const char *prompt,
			struct secret **ret)
{
	struct termios old, silent;
	int r;

	if (tcgetattr(fd, &old) < 0)
		return -errno;
	silent = old;
	silent.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	silent.c_lflag |= ICANON | ISIG;
	put(fd, prompt);
	put(fd, " ");
	/* What was typed before the question is not the answer. */
	if (tcsetattr(fd, TCSAFLUSH, &silent) < 0)
		return -errno;
	r = read_line(q, fd, ret);
	(void)tcsetattr(fd, TCSAFLUSH, &old);
	put(fd, "\n");
	return r;
}

/* What "systemctl status" says meanwhile. A name may have a newline, which would end the message.
 */
static void tell_status(const struct key_place *p, const char *what)
{
	char text[512];

	(void)snprintf(text, sizeof(text), "STATUS=%s layer %u, %s%s%s%s%s%s%s", what, p->layer,
		       p->pool, p->pool[0] ? "/" : "", p->nspace, p->nspace[0] ? "/" : "", p->image,
		       p->snap[0] ? "@" : "", p->snap);
	text[strcspn(text, "\n")] = 0;
	(void)sd_notify(0, text);
}

static int ask_agents(const struct key_request *q, const char *prompt, struct secret **ret,
		      struct fault *f)
{
	char program[] = ASK_PASSWORD, no_tty[] = "--no-tty", icon[] = "--icon=drive-harddisk",
	     end[] = "--", timeout[48], id[600], text[600];
	char *const argv[] = { program, no_tty, icon, timeout, id, end, text, NULL };
	struct secret *s;
	int r;

	if (access(ASK_PASSWORD, X_OK) < 0) {
		(void)fault_set(f, EXIT_PASSPHRASE, -ENOTTY,
				"%s: there is neither a terminal nor %s to ask with", q->source,
				ASK_PASSWORD);
		fault_hint(f, "give the passphrase another way, for example in a file");
		return -ENOTTY;
	}
	(void)snprintf(timeout, sizeof(timeout), "--timeout=%u", q->o->timeout_s);
	(void)snprintf(id, sizeof(id), "--id=rbdcrypt-nbd:%u:%s%s%s", q->place->layer,
		       q->place->pool, q->place->pool[0] ? "/" : "", q->place->image);
	(void)snprintf(text, sizeof(text), "%s", prompt);
	tell_status(q->place, "waiting for the passphrase of");
	r = key_run(q, argv, &s, f);
	tell_status(q->place, r < 0 ? "no passphrase for" : "unlocking");
	if (r < 0)
		return r;
	if (secret_bytes(s)[secret_len(s) - 1] == '\n') {
		if (secret_len(s) == 1) {
			(void)secret_free(s);
			return -ENODATA;
		}
		secret_truncate(s, secret_len(s) - 1);
	}
	*ret = s;
	return 0;
}

int key_ask_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	const struct key_place *p = q->place;
	char prompt[512];
	int fd, r;

	if (q->text[0])
		(void)snprintf(prompt, sizeof(prompt), "%s", q->text);
	else
		(void)snprintf(prompt, sizeof(prompt),
			       "Passphrase for layer %u, %s%s%s%s%s%s%s:", p->layer, p->pool,
			       p->pool[0] ? "/" : "", p->nspace, p->nspace[0] ? "/" : "", p->image,
			       p->snap[0] ? "@" : "", p->snap);
	fd = open_terminal();
	if (fd < 0)
		return ask_agents(q, prompt, ret, f);
	r = ask_terminal(q, fd, prompt, ret);
	(void)close(fd);
	return r;
}
