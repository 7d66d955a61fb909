/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Unmapping opens the device, and who has a device open may have to wait in the kernel until what
 * was written to it has been sent: to us, if it is ours. A daemon that dies in such a wait keeps
 * its sockets open, and the wait has no end. So the device is never opened by who serves it, but by
 * a child with none of our descriptors, which says on a pipe how it went.
 */

#include "unmap_child.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json_tokener.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control_request.h"
#include "options.h"
#include "unmap.h"

#define CHILD_NAME "rbdcrypt-nbd-unmap"
#define WORD_FORCE "force"
#define WORD_CHECK "check"
/* A fault as JSON, with all its characters escaped, is shorter. */
#define ANSWER_MAX 16384

struct unmap_child {
	struct unmap_child_options o;
	pid_t pid;
	struct watch answer; /* the pipe: at its end the child has nothing more to say */
	char text[ANSWER_MAX];
	size_t len;
};

/* ---- the parent ---- */

static void reap(struct unmap_child *c, int *ret_status)
{
	while (waitpid(c->pid, ret_status, 0) < 0 && errno == EINTR)
		;
	c->pid = 0;
}

static void finish(struct unmap_child *c)
{
	struct json_object *o;
	struct fault f = { 0 };
	int status = 0;

	loop_remove(c->o.loop, &c->answer);
	reap(c, &status);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_OK) {
		c->o.done(c->o.arg, NULL);
		return;
	}
	o = json_tokener_parse(c->text);
	if (!o || !control_fault_read(o, &f))
		(void)fault_set(&f, EXIT_KERNEL, -EIO, "unmap ended without an answer");
	json_object_put(o);
	c->o.done(c->o.arg, &f);
}

static void on_answer(struct watch *w)
{
	struct unmap_child *c =
		(struct unmap_child *)((char *)w - offsetof(struct unmap_child, answer));
	ssize_t n = read(w->fd, c->text + c->len, sizeof(c->text) - 1 - c->len);

	if (n > 0) {
		c->len += (size_t)n;
		c->text[c->len] = '\0';
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		finish(c);
	}
}

static int spawn(const struct unmap_child_options *o, int out, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	char timeout[16];
	char *const argv[] = { (char[]){ CHILD_NAME },
			       (char *)(uintptr_t)o->run_dir,
			       timeout,
			       (char *)(uintptr_t)(o->is_check	  ? WORD_CHECK
						   : o->is_forced ? WORD_FORCE
								  : ""),
			       (char *)(uintptr_t)o->name,
			       NULL };
	sigset_t none;
	int r = posix_spawn_file_actions_init(&actions);

	if (r)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (r) {
		(void)posix_spawn_file_actions_destroy(&actions);
		return -r;
	}
	(void)snprintf(timeout, sizeof(timeout), "%d", o->timeout_s);
	(void)sigemptyset(&none);
	r = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	if (r == 0)
		r = posix_spawnattr_setsigmask(&attr, &none);
	if (r == 0)
		r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	if (r == 0)
		r = posix_spawn(ret, "/proc/self/exe", &actions, &attr, argv, environ);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&actions);
	return -r;
}

int unmap_child_new(const struct unmap_child_options *o, struct unmap_child **ret, struct fault *f)
{
	struct unmap_child *c = calloc(1, sizeof(*c));
	int fds[2], r;

	if (!c)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for unmap");
	c->o = *o;
	c->o.run_dir = c->o.name = NULL;
	r = pipe2(fds, O_CLOEXEC) < 0 ? -errno : 0;
	if (r == 0) {
		c->answer.fd = fds[0];
		c->answer.ready = on_answer;
		(void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
		/* Before there is a child, which would be left alone. */
		r = loop_add(o->loop, &c->answer);
		if (r == 0)
			r = spawn(o, fds[1], &c->pid);
		(void)close(fds[1]);
		if (r < 0) {
			loop_remove(o->loop, &c->answer);
			(void)close(fds[0]);
		}
	}
	if (r < 0) {
		free(c);
		return fault_set(f, EXIT_MEMORY, r, "cannot start unmap: %s", strerror(-r));
	}
	*ret = c;
	return 0;
}

struct unmap_child *unmap_child_free(struct unmap_child *c)
{
	int status;

	if (!c)
		return NULL;
	/*
	 * Nobody wants to know any more whether keys are safe. Who opens no device does not wait in
	 * the kernel, and so is gone at once.
	 */
	if (c->o.is_check && c->pid > 0) {
		(void)kill(c->pid, SIGKILL);
		reap(c, &status);
	}
	loop_remove(c->o.loop, &c->answer);
	(void)close(c->answer.fd);
	free(c);
	return NULL;
}

/* ---- the child ---- */

/* What the command line would have said. */
static int set_options(char **argv, struct options *o, struct fault *f)
{
	char run_dir[4200], timeout[64];
	char *words[5] = { argv[0], run_dir };
	const char *operand[] = { argv[0], "unmap", "--", argv[4] };
	int n = 2, r;

	(void)snprintf(run_dir, sizeof(run_dir), "--run-dir=%s", argv[1]);
	(void)snprintf(timeout, sizeof(timeout), "--reattach-timeout=%s", argv[2]);
	if (atoi(argv[2]) >= 0)
		words[n++] = timeout;
	if (strcmp(argv[3], WORD_FORCE) == 0)
		words[n++] = (char *)(uintptr_t) "--force";
	r = options_parse(n, words, o, f);
	if (r == 0)
		r = options_positionals(o, 4, operand, f);
	o->is_private = true;
	return r;
}

void unmap_child_main(int argc, char **argv)
{
	struct options o = { 0 };
	struct json_object *answer;
	struct fault f = { 0 };
	int r;

	if (argc != 5 || strcmp(argv[0], CHILD_NAME) != 0)
		return;
	r = set_options(argv, &o, &f);
	if (r == 0)
		r = strcmp(argv[3], WORD_CHECK) == 0 ? unmap_check(&o, &f) : unmap_run(&o, &f);
	options_done(&o);
	if (r == 0)
		exit(EXIT_OK);
	answer = control_fault_write(&f);
	if (answer)
		(void)fputs(json_object_to_json_string(answer), stdout);
	json_object_put(answer);
	(void)fflush(stdout);
	exit(f.status != EXIT_OK ? (int)f.status : EXIT_USAGE);
}
