/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "../../daemon/watchdog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* What systemd would have: a socket that is told. */
struct manager {
	struct watch told;
	struct loop *loop;
	unsigned int n;
};

static void on_told(struct watch *w)
{
	struct manager *m = (struct manager *)((char *)w - offsetof(struct manager, told));
	char text[64] = "";

	assert_true(recv(w->fd, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text, "WATCHDOG=1");
	if (++m->n == 3)
		loop_quit(m->loop);
}

static void set_environment(const char *usec, int *ret_fd)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char pid[16];

	/* An abstract name, which "@" stands for. */
	(void)snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "watchdog-test-%d", (int)getpid());
	*ret_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(*ret_fd >= 0);
	assert_int_equal(bind(*ret_fd, (struct sockaddr *)&a,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
					  strlen(a.sun_path + 1))),
			 0);
	a.sun_path[0] = '@';
	(void)setenv("NOTIFY_SOCKET", a.sun_path, 1);
	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
	(void)setenv("WATCHDOG_PID", pid, 1);
	(void)setenv("WATCHDOG_USEC", usec, 1);
}

static void a_turning_loop_says_so(void **state)
{
	struct manager m = { 0 };
	struct watchdog w;

	(void)state;
	set_environment("60000", &m.told.fd);
	assert_int_equal(loop_new(&m.loop), 0);
	m.told.ready = on_told;
	assert_int_equal(loop_add(m.loop, &m.told), 0);
	assert_int_equal(watchdog_start(&w, m.loop), 0);
	assert_int_equal(w.period_ms, 20);
	assert_int_equal(loop_run(m.loop), 0);
	assert_int_equal(m.n, 3);
	watchdog_stop(&w, m.loop);
	assert_int_equal(w.timer.fd, -1);
	loop_remove(m.loop, &m.told);
	(void)close(m.told.fd);
	(void)loop_free(m.loop);
}

/* Another watch of the loop, which does not come back for ten periods. */
struct stuck {
	struct watch watch;
	int told_fd;
	unsigned int n;
};

static void on_stuck(struct watch *w)
{
	struct stuck *s = (struct stuck *)((char *)w - offsetof(struct stuck, watch));
	struct timespec periods = { .tv_nsec = 200000000 };
	char text[64];

	event_clear(w->fd);
	while (recv(s->told_fd, text, sizeof(text), 0) > 0)
		;
	(void)nanosleep(&periods, NULL);
	assert_true(recv(s->told_fd, text, sizeof(text), 0) < 0);
	s->n++;
}

static void a_stuck_loop_says_nothing(void **state)
{
	struct manager m = { 0 };
	struct stuck stuck = { 0 };
	struct watchdog w;

	(void)state;
	set_environment("60000", &m.told.fd);
	assert_int_equal(loop_new(&m.loop), 0);
	m.told.ready = on_told;
	assert_int_equal(loop_add(m.loop, &m.told), 0);
	stuck.watch.fd = event_new();
	stuck.watch.ready = on_stuck;
	stuck.told_fd = m.told.fd;
	assert_int_equal(loop_add(m.loop, &stuck.watch), 0);
	assert_int_equal(watchdog_start(&w, m.loop), 0);
	event_raise(stuck.watch.fd);
	/* And is heard again when it turns again. */
	assert_int_equal(loop_run(m.loop), 0);
	assert_int_equal(stuck.n, 1);
	assert_int_equal(m.n, 3);
	watchdog_stop(&w, m.loop);
	loop_remove(m.loop, &stuck.watch);
	loop_remove(m.loop, &m.told);
	(void)close(stuck.watch.fd);
	(void)close(m.told.fd);
	(void)loop_free(m.loop);
}

static void nobody_is_told_who_did_not_ask(void **state)
{
	struct watchdog w;
	struct loop *l;

	(void)state;
	(void)unsetenv("WATCHDOG_USEC");
	assert_int_equal(loop_new(&l), 0);
	assert_int_equal(watchdog_start(&w, l), 0);
	assert_int_equal(w.timer.fd, -1);
	watchdog_stop(&w, l);
	(void)loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_turning_loop_says_so),
		cmocka_unit_test(a_stuck_loop_says_nothing),
		cmocka_unit_test(nobody_is_told_who_did_not_ask),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
