/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What arrives at the journal's socket. It is one of ours, in a mount namespace of a child, so root
 * is needed for those.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "event.h"
#include "log.h"

#define CANNOT 77

static char entry[65536];

/* ---- in the child ---- */

static int make_journal(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket" };
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", "/run", "tmpfs", 0, NULL) < 0)
		return -1;
	if (mkdir("/run/systemd", 0755) < 0 || mkdir("/run/systemd/journal", 0755) < 0)
		return -1;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
		return -1;
	return fd;
}

static void send_and_catch(void (*say)(void), int out)
{
	int fd = make_journal();
	ssize_t n;

	if (fd < 0)
		_exit(CANNOT);
	log_to_background();
	say();
	n = recv(fd, entry, sizeof(entry), MSG_DONTWAIT);
	_exit(n > 0 && write(out, entry, (size_t)n) == n ? 0 : 1);
}

/* The entry that say() makes, or "" where none could be caught. */
static const char *caught(void (*say)(void))
{
	int fds[2], status;
	ssize_t n;
	pid_t child;

	assert_int_equal(pipe(fds), 0);
	child = fork();
	if (child == 0)
		send_and_catch(say, fds[1]);
	close(fds[1]);
	n = read(fds[0], entry, sizeof(entry) - 1);
	entry[n > 0 ? n : 0] = 0;
	close(fds[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT)
		skip();
	assert_int_equal(status, 0);
	return entry;
}

/* "FIELD=value" is a line of its own. */
static bool has(const char *field)
{
	char line[2048];
	int n = snprintf(line, sizeof(line), "\n%s\n", field);

	return n > 0 && (strncmp(entry, line + 1, (size_t)n - 1) == 0 || strstr(entry, line));
}

static void say_all(void)
{
	struct fault f = { 0 };
	const struct event_about a = { .volume = "rbd/ns/img@s",
				       .pool = "rbd",
				       .nspace = "ns",
				       .image = "img",
				       .snap = "s",
				       .device = 3,
				       .layer = 2,
				       .fault = &f };

	(void)fault_set(&f, EXIT_PASSPHRASE, -EPERM, "no key");
	fault_hint(&f, "look for it");
	event_log(EVENT_KEY_LOST, &a, "layer %d: %s", 2, f.message);
}

static void an_event_has_all_its_fields(void **state)
{
	char id[64];

	(void)caught(say_all);
	(void)snprintf(id, sizeof(id), "MESSAGE_ID=%s", event_id(EVENT_KEY_LOST));
	assert_true(has(id));
	assert_true(has("MESSAGE=rbd/ns/img@s: layer 2: no key"));
	assert_true(has("PRIORITY=3"));
	assert_true(has("SYSLOG_IDENTIFIER=rbdcrypt-nbd"));
	assert_true(has("RBDCRYPT_VOLUME=rbd/ns/img@s"));
	assert_true(has("RBDCRYPT_POOL=rbd"));
	assert_true(has("RBDCRYPT_NAMESPACE=ns"));
	assert_true(has("RBDCRYPT_IMAGE=img"));
	assert_true(has("RBDCRYPT_SNAP=s"));
	assert_true(has("RBDCRYPT_DEVICE=/dev/nbd3"));
	assert_true(has("RBDCRYPT_LAYER=2"));
	assert_true(has("ERRNO=1"));
	assert_true(has("RBDCRYPT_EXIT_STATUS=2"));
	assert_true(has("RBDCRYPT_HINT=look for it"));
}

static void say_little(void)
{
	const struct event_about a = { .volume = "file:/x", .device = -1, .error = -EIO };

	event_log(EVENT_WRITING_STOPPED, &a, "stopped");
}

static void what_is_not_known_is_not_a_field(void **state)
{
	(void)caught(say_little);
	assert_true(has("ERRNO=5"));
	assert_true(has("RBDCRYPT_VOLUME=file:/x"));
	assert_null(strstr(entry, "RBDCRYPT_POOL"));
	assert_null(strstr(entry, "RBDCRYPT_DEVICE"));
	assert_null(strstr(entry, "RBDCRYPT_LAYER"));
	assert_null(strstr(entry, "RBDCRYPT_EXIT_STATUS"));
}

static void say_too_much(void)
{
	static char name[6000];
	const struct event_about a = { .volume = name, .pool = name, .image = name, .device = 0 };

	memset(name, 'x', sizeof(name) - 1);
	event_log(EVENT_SERVED, &a, "%s", name);
}

static void fields_that_do_not_fit_are_cut(void **state)
{
	(void)caught(say_too_much);
	assert_non_null(strstr(entry, "\nMESSAGE_ID="));
	assert_non_null(strstr(entry, "\nRBDCRYPT_POOL=xxx"));
	assert_non_null(strstr(entry, "\nRBDCRYPT_IMAGE=xxx"));
}

static void say_plainly(void)
{
	log_warning("rbd/img", "slow");
}

static void other_messages_name_their_volume(void **state)
{
	(void)caught(say_plainly);
	assert_true(has("MESSAGE=rbd/img: slow"));
	assert_true(has("PRIORITY=4"));
	assert_true(has("RBDCRYPT_VOLUME=rbd/img"));
	assert_null(strstr(entry, "MESSAGE_ID"));
}

static enum event one;

static void say_one(void)
{
	const struct event_about a = { .volume = "rbd/img", .device = 3 };

	event_log(one, &a, "so it is");
}

/* Without anybody having asked for more than what is logged by itself. */
static void each_event_is_told_of_a_device(void **state)
{
	char id[64];

	for (int i = 0; i < EVENT_COUNT; i++) {
		one = (enum event)i;
		(void)caught(say_one);
		(void)snprintf(id, sizeof(id), "MESSAGE_ID=%s", event_id(one));
		assert_true(has(id));
		assert_true(has("RBDCRYPT_DEVICE=/dev/nbd3"));
		assert_true(has("PRIORITY=3") || has("PRIORITY=4") || has("PRIORITY=5"));
	}
}

static void ids_are_well_formed_and_differ(void **state)
{
	for (int i = 0; i < EVENT_COUNT; i++) {
		const char *id = event_id((enum event)i);

		assert_non_null(id);
		assert_int_equal(strspn(id, "0123456789abcdef"), 32);
		assert_int_equal(strlen(id), 32);
		for (int j = 0; j < i; j++)
			assert_string_not_equal(id, event_id((enum event)j));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_event_has_all_its_fields),
		cmocka_unit_test(what_is_not_known_is_not_a_field),
		cmocka_unit_test(fields_that_do_not_fit_are_cut),
		cmocka_unit_test(other_messages_name_their_volume),
		cmocka_unit_test(each_event_is_told_of_a_device),
		cmocka_unit_test(ids_are_well_formed_and_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
