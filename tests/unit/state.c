/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The run directory: who lives, who is dead, who waits for whom. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "../../daemon/state_file.h"
#include "clock.h"
#include "state_dir.h"

static void what_was_claimed_is_listed_in_full(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;

	fill(&v);
	s = claim("rbd/ns/img@s1", &v);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.n_damaged, 0);
	assert_int_equal(l.volumes[0].pid, getpid());
	assert_string_equal(l.volumes[0].key, "rbd/ns/img@s1");
	assert_true(l.volumes[0].pid_namespace != 0);
	/* everything else is as it was said */
	v.pid = getpid();
	v.pid_namespace = state_pid_namespace();
	strcpy(v.key, "rbd/ns/img@s1");
	assert_int_equal(l.volumes[0].n_layers, 2);
	assert_memory_equal(l.volumes[0].layers, layers, sizeof(layers));
	free(l.volumes[0].layers);
	l.volumes[0].layers = layers;
	assert_string_equal(l.volumes[0].image, v.image);
	assert_true(l.volumes[0].size == v.size && l.volumes[0].raw_size == v.raw_size);
	assert_int_equal(memcmp(&l.volumes[0], &v, sizeof(v)), 0);
	l.volumes[0].layers = NULL;
	state_list_done(&l);
	state_release(s, true);
	get_list(&l);
	assert_int_equal(l.n, 0);
	state_list_done(&l);
}

static void a_snapshot_by_number_comes_back_as_one(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;

	volume_state_init(&v);
	strcpy(v.pool, "rbd");
	strcpy(v.image, "img");
	v.snap_id = 7;
	s = claim("k", &v);
	get_list(&l);
	assert_true(l.volumes[0].snap_id == 7);
	assert_string_equal(l.volumes[0].snap, "");
	state_list_done(&l);
	strcpy(v.snap, "name");
	assert_int_equal(state_update(s, &v), 0);
	get_list(&l);
	assert_true(l.volumes[0].snap_id == 7);
	assert_string_equal(l.volumes[0].snap, "name");
	state_list_done(&l);
	state_release(s, true);
}

static void a_live_owner_keeps_its_name(void **state)
{
	struct volume_state v, other;
	struct state *s, *t = NULL;
	char expected[128];
	struct owner o;

	volume_state_init(&v);
	strcpy(v.pool, "rbd");
	strcpy(v.image, "img");
	other = v;
	start_owner(&o, &v, "k");
	assert_int_equal(state_claim(dir, "k", &other, &t, &f), -EBUSY);
	assert_int_equal(f.status, EXIT_BUSY);
	snprintf(expected, sizeof(expected), "rbd/img: already being started by process %d", o.pid);
	assert_string_equal(f.message, expected);
	assert_null(t);
	s = claim("other", &other);
	state_release(s, true);
	stop_owner(&o);

	v.device = 3;
	strcpy(v.socket, "/s");
	start_owner(&o, &v, "k");
	fault_clear(&f);
	assert_int_equal(state_claim(dir, "k", &other, &t, &f), -EBUSY);
	snprintf(expected, sizeof(expected), "rbd/img: already mapped to /dev/nbd3 by process %d",
		 o.pid);
	assert_string_equal(f.message, expected);
	stop_owner(&o);

	v.device = -1;
	start_owner(&o, &v, "k");
	fault_clear(&f);
	assert_int_equal(state_claim(dir, "k", &other, &t, &f), -EBUSY);
	snprintf(expected, sizeof(expected), "rbd/img: already served on /s by process %d", o.pid);
	assert_string_equal(f.message, expected);
	stop_owner(&o);
}

static void a_dead_owner_is_told_by_the_lock_and_taken_over(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;
	struct owner o;

	fill(&v);
	start_owner(&o, &v, "k");
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	assert_int_equal(l.volumes[0].pid, o.pid);
	state_list_done(&l);
	kill(o.pid, SIGKILL);
	stop_owner(&o);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].status, VOLUME_DEAD);
	assert_false(volume_is_alive(&l.volumes[0]));
	state_list_done(&l);
	s = claim("k", &v);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	state_release(s, true);
}

static void a_detached_volume_is_not_dead(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;

	fill(&v);
	s = claim("k", &v);
	v.status = VOLUME_DETACHED;
	assert_int_equal(state_update(s, &v), 0);
	state_release(s, false);
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_DETACHED);
	assert_false(volume_is_alive(&l.volumes[0]));
	state_list_done(&l);
}

static void a_claim_lives_on_in_a_forked_child(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;
	int stop[2];
	pid_t child;
	char c;

	fill(&v);
	s = claim("k", &v);
	assert_int_equal(pipe(stop), 0);
	child = fork();
	if (child == 0) {
		close(stop[1]);
		(void)!read(stop[0], &c, 1);
		_exit(0);
	}
	close(stop[0]);
	state_release(s, false);
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	close(stop[1]);
	waitpid(child, NULL, 0);
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_DEAD);
	state_list_done(&l);
}

/* Readers must never find the name free, unlocked or half written while its owner updates. */
static void updates_leave_no_gap(void **state)
{
	struct volume_state v;
	struct state *s, *t = NULL;
	int n = 0, status;
	pid_t child;

	fill(&v);
	v.size = 0;
	s = claim("k", &v);
	child = fork();
	if (child == 0) {
		/* However slow the other side is: some of its updates are among them. */
		for (int i = 0, size = 0; i < 1000 || size < 20; i++) {
			struct state_list l;

			if (state_list(dir, &l, NULL) || l.n != 1 || l.n_damaged ||
			    l.volumes[0].status != VOLUME_MAPPED)
				_exit(1);
			if (i % 100 == 0 && state_claim(dir, "k", &v, &t, NULL) != -EBUSY)
				_exit(2);
			size = (int)l.volumes[0].size;
			state_list_done(&l);
		}
		_exit(0);
	}
	while (waitpid(child, &status, WNOHANG) == 0) {
		v.size = (uint64_t)n++;
		assert_int_equal(state_update(s, &v), 0);
	}
	assert_int_equal(status, 0);
	state_release(s, true);
}

static void release_does_not_remove_anothers_file(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s, *t;

	fill(&v);
	s = claim("k", &v);
	assert_int_equal(unlink(path_of("k.json")), 0); /* an administrator clears up */
	t = claim("k", &v);
	state_release(s, true);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	state_release(t, true);
	state_release(NULL, true);
}

static void only_one_claims_at_a_time(void **state)
{
	struct volume_state v;
	struct state *s = NULL;
	int fd = open(path_of(".lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	fill(&v);
	assert_int_equal(state_file_lock(fd), 0);
	assert_int_equal(state_claim(dir, "k", &v, &s, &f), -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	strcpy(v.key, "k");
	assert_int_equal(state_remove(dir, &v), -ETIMEDOUT);
	close(fd);
}

/* Many processes find the same owner dead and want its name: one of them gets it. */
static int race(const struct volume_state *v)
{
	pid_t children[4];
	int start[2], stop[2], won[2], winners = 0;
	char c;

	assert_int_equal(pipe(start) | pipe(stop) | pipe(won), 0);
	for (int i = 0; i < 4; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			struct state *s;

			close(start[1]);
			close(stop[1]);
			(void)!read(start[0], &c, 1);
			c = state_claim(dir, "k", v, &s, NULL) == 0 ? 'w' : 'l';
			(void)!write(won[1], &c, 1);
			(void)!read(stop[0], &c, 1);
			_exit(0);
		}
	}
	close(start[1]);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(read(won[0], &c, 1), 1);
		winners += c == 'w';
	}
	close(stop[1]);
	for (int i = 0; i < 4; i++)
		waitpid(children[i], NULL, 0);
	close(start[0]);
	close(stop[0]);
	close(won[0]);
	close(won[1]);
	return winners;
}

static void a_race_for_a_dead_owners_name_has_one_winner(void **state)
{
	struct volume_state v;

	fill(&v);
	for (int i = 0; i < 50; i++)
		assert_int_equal(race(&v), 1);
}

/* As one that claims, for as long as it holds the descriptor. */
static int take_turn(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path_of(".lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || fcntl(fd, F_OFD_SETLKW, &lock) < 0 || futimens(fd, NULL) < 0)
		_exit(1);
	return fd;
}

/* Five seconds of it, in which nobody else has got a turn, but no one of them was long. */
static void a_long_line_that_moves_is_waited_in(void **state)
{
	struct volume_state v;
	struct state *s;
	int ready[2];
	pid_t others;
	char c;

	fill(&v);
	assert_int_equal(pipe(ready), 0);
	others = fork();
	if (others == 0) {
		int fd = take_turn();

		(void)!write(ready[1], "x", 1);
		for (int i = 0; i < 20; i++) {
			usleep(250000);
			(void)futimens(fd, NULL);
		}
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	s = claim("k", &v);
	assert_int_equal(state_release(s, true), 0);
	assert_int_equal(waitpid(others, NULL, 0), others);
	close(ready[0]);
	close(ready[1]);
}

static void a_turn_that_does_not_end_is_not_waited_for(void **state)
{
	const struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct volume_state v;
	struct state *s = NULL;
	struct stat st;
	int fd;

	fill(&v);
	fd = take_turn();
	assert_int_equal(state_claim(dir, "k", &v, &s, &f), -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	assert_non_null(strstr(f.message, "has held the directory"));
	fault_clear(&f);
	/* Ours is seen by others. */
	assert_int_equal(futimens(fd, old), 0);
	close(fd);
	(void)state_release(claim("k", &v), true);
	assert_int_equal(stat(path_of(".lock"), &st), 0);
	assert_true(st.st_mtim.tv_sec > 1000);
}

/* How long it takes to see that an owner, here for another 100 ms, has died. */
static int64_t ms_until_gone(struct owner *o, const struct volume_state *v)
{
	int64_t begin = clock_ms();
	pid_t killer = fork();

	if (killer == 0) {
		usleep(100000);
		kill(o->pid, SIGKILL);
		_exit(0);
	}
	assert_int_equal(state_wait_gone(dir, v, 20000), 0);
	begin = clock_ms() - begin;
	waitpid(killer, NULL, 0);
	return begin;
}

static void waiting_ends_when_the_owner_does(void **state)
{
	struct volume_state v;
	struct state_list l;
	int64_t begin, took = 0;
	struct owner o;

	fill(&v);
	start_owner(&o, &v, "k");
	get_list(&l);
	begin = clock_ms();
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 0), -ETIMEDOUT);
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 60), -ETIMEDOUT);
	assert_true(clock_ms() - begin >= 60);
	/* Told by the kernel, not found by looking twice a second; but the machine may be busy. */
	for (int i = 0; i < 5; i++) {
		took = ms_until_gone(&o, &l.volumes[0]);
		if (took < 400)
			break;
		stop_owner(&o);
		state_list_done(&l);
		start_owner(&o, &v, "k");
		get_list(&l);
	}
	assert_true(took < 400);
	stop_owner(&o);
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 0), 0);
	/* somebody else has the name now: the one we waited for is gone */
	start_owner(&o, &v, "k");
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 0), 0);
	stop_owner(&o);
	state_list_done(&l);
	assert_int_equal(state_wait_gone("/nonexistent", &v, 0), 0);
}

static void remove_clears_after_the_dead_only(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct owner o;

	fill(&v);
	strcpy(v.key, "k");
	assert_int_equal(state_remove("/nonexistent", &v), 0);
	assert_int_equal(state_remove(dir, &v), 0);
	start_owner(&o, &v, "k");
	get_list(&l);
	assert_int_equal(state_remove(dir, l.volumes), -EBUSY);
	stop_owner(&o);
	/* Another has had the name since, and is dead as well. */
	v.started++;
	start_owner(&o, &v, "k");
	stop_owner(&o);
	assert_int_equal(state_remove(dir, l.volumes), -EBUSY);
	state_list_done(&l);
	get_list(&l);
	assert_int_equal(state_remove(dir, l.volumes), 0);
	state_list_done(&l);
	get_list(&l);
	assert_int_equal(l.n, 0);
	state_list_done(&l);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_claimed_is_listed_in_full),
		TEST(a_snapshot_by_number_comes_back_as_one),
		TEST(a_live_owner_keeps_its_name),
		TEST(a_dead_owner_is_told_by_the_lock_and_taken_over),
		TEST(a_detached_volume_is_not_dead),
		TEST(a_claim_lives_on_in_a_forked_child),
		TEST(updates_leave_no_gap),
		TEST(release_does_not_remove_anothers_file),
		TEST(only_one_claims_at_a_time),
		TEST(a_long_line_that_moves_is_waited_in),
		TEST(a_turn_that_does_not_end_is_not_waited_for),
		TEST(a_race_for_a_dead_owners_name_has_one_winner),
		TEST(waiting_ends_when_the_owner_does),
		TEST(remove_clears_after_the_dead_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
