/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Counting what a volume does, and reading it from outside. */

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "wire.h"

#include "../../daemon/stats_command.h"

static char path[64];

static int enter(void **state)
{
	(void)snprintf(path, sizeof(path), "/tmp/rbdcrypt-stats-XXXXXX");
	if (!mkdtemp(path) || chdir(path) < 0)
		return -1;
	(void)strcat(path, "/volume.stats");
	return 0;
}

static int leave(void **state)
{
	(void)unlink(path);
	*strrchr(path, '/') = '\0';
	return chdir("/") < 0 || rmdir(path) < 0 ? -1 : 0;
}

static void latencies_fall_into_buckets_without_gaps(void **state)
{
	assert_int_equal(stats_bucket(0), 0);
	assert_int_equal(stats_bucket(UINT64_MAX), STATS_BUCKETS - 1);
	for (unsigned int i = 0; i + 1 < STATS_BUCKETS; i++) {
		uint64_t end = stats_bucket_end(i);

		assert_int_equal(stats_bucket(end - 1), i);
		assert_int_equal(stats_bucket(end), i + 1);
		/* No bucket tells less than a quarter of what it says. */
		if (i >= 4)
			assert_true((double)end <= 1.26 * (double)stats_bucket_end(i - 1));
	}
}

static void sizes_fall_into_classes(void **state)
{
	assert_int_equal(stats_size_class(0), 0);
	assert_int_equal(stats_size_class(512), 0);
	assert_int_equal(stats_size_class(513), 1);
	assert_int_equal(stats_size_class(4096), 3);
	assert_int_equal(stats_size_class(4097), 4);
	assert_int_equal(stats_size_class(32u << 20), STATS_SIZES - 1);
	assert_int_equal(stats_size_class(UINT32_MAX), STATS_SIZES - 1);
	assert_int_equal(stats_class_bytes(3), 4096);
	assert_int_equal(stats_class_bytes(STATS_SIZES - 1), 32u << 20);
}

static void percentiles_are_those_of_what_was_counted(void **state)
{
	struct stats_total t = { 0 };

	assert_int_equal(stats_percentile(&t, 0.5), 0);
	t.latency[stats_bucket(10000)] = 90;
	t.latency[stats_bucket(1000000)] = 10;
	t.sampled = 100;
	assert_int_equal(stats_percentile(&t, 0.5), stats_bucket_end(stats_bucket(10000)));
	assert_int_equal(stats_percentile(&t, 0.9), stats_bucket_end(stats_bucket(10000)));
	assert_int_equal(stats_percentile(&t, 0.91), stats_bucket_end(stats_bucket(1000000)));
	assert_int_equal(stats_percentile(&t, 1), stats_bucket_end(stats_bucket(1000000)));
}

static void what_is_counted_can_be_read_from_the_file(void **state)
{
	struct stats_page *p;
	struct stats_sum sum, later;
	struct stats_mark mark;
	unsigned int turn = 0, sampled = 0;

	assert_int_equal(stats_new_file(path, &p), 0);
	for (unsigned int i = 0; i < 4 * STATS_SAMPLE; i++) {
		stats_begin(&mark, &turn);
		sampled += mark.ns != 0;
		stats_end(p, i, &mark, WIRE_READ, 4096, true, 0);
	}
	assert_int_equal(sampled, 4);
	stats_begin(&mark, &turn);
	stats_end(p, 3, &mark, WIRE_WRITE, 100, false, -EIO);
	/* A command that does not exist. */
	stats_end(p, 0, &mark, 77, 1, true, 0);
	atomic_fetch_add(&p->in_flight, 7);
	assert_int_equal(stats_read_file(path, &sum), 0);
	assert_int_equal(sum.in_flight, 7);
	assert_int_equal(sum.op[WIRE_READ].requests, 4 * STATS_SAMPLE);
	assert_int_equal(sum.op[WIRE_READ].bytes, 4 * STATS_SAMPLE * 4096);
	assert_int_equal(sum.op[WIRE_READ].sizes[0][3], 4 * STATS_SAMPLE);
	assert_int_equal(sum.op[WIRE_READ].sampled, 4);
	assert_int_equal(sum.op[WIRE_WRITE].errors, 1);
	assert_int_equal(sum.op[WIRE_WRITE].bytes, 0);
	assert_int_equal(sum.op[WIRE_WRITE].sizes[1][0], 1);
	assert_int_equal(sum.slow, 0);
	assert_true(sum.started_ms / 1000 + 60 > (uint64_t)time(NULL));
	stats_end(p, 0, &mark, WIRE_READ, 1, false, 0);
	assert_int_equal(stats_read_file(path, &later), 0);
	stats_subtract(&later, &sum);
	assert_int_equal(later.op[WIRE_READ].requests, 1);
	assert_int_equal(later.op[WIRE_WRITE].requests, 0);
	stats_free(p);
}

static void slow_requests_are_seen_without_being_sampled(void **state)
{
	struct stats_page *p;
	struct stats_sum sum;
	struct stats_mark mark;
	unsigned int turn = 1;

	assert_int_equal(stats_new(&p), 0);
	stats_begin(&mark, &turn);
	assert_int_equal(mark.ns, 0);
	mark.ms -= STATS_SLOW_MS + 500;
	stats_end(p, 0, &mark, WIRE_FLUSH, 0, true, 0);
	stats_sum(p, &sum);
	assert_int_equal(sum.slow, 1);
	assert_in_range(sum.slowest_ms, STATS_SLOW_MS + 500, STATS_SLOW_MS + 60000);
	stats_free(p);
}

static void what_is_no_page_is_refused(void **state)
{
	struct stats_page *p;
	struct stats_sum sum;
	int fd;

	assert_int_equal(stats_read_file(path, &sum), -ENOENT);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(stats_read_file(path, &sum), -EBADMSG);
	assert_int_equal(ftruncate(fd, sizeof(struct stats_page)), 0);
	assert_int_equal(stats_read_file(path, &sum), -EBADMSG);
	(void)close(fd);
	/* What was there is replaced. */
	assert_int_equal(stats_new_file(path, &p), 0);
	assert_int_equal(stats_read_file(path, &sum), 0);
	p->version++;
	assert_int_equal(stats_read_file(path, &sum), -EBADMSG);
	stats_free(p);
	assert_int_equal(stats_new_file("/nowhere/at.all", &p), -ENOENT);
}

static void a_file_without_space_is_refused_before_it_is_used(void **state)
{
	const struct rlimit little = { 4096, RLIM_INFINITY };
	struct rlimit old;
	struct stats_page *p;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &little), 0);
	assert_int_equal(stats_new_file(path, &p), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(access(path, F_OK), -1);
}

#define THREADS 4
#define EACH 100000

static void *count_many(void *arg)
{
	struct stats_page *p = arg;
	unsigned int turn = 0, shard = atomic_fetch_add(&p->connections, 1);
	struct stats_mark mark;

	for (int i = 0; i < EACH; i++) {
		stats_begin(&mark, &turn);
		stats_end(p, shard, &mark, WIRE_WRITE, 4096, true, 0);
	}
	return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
	pthread_t threads[THREADS];
	struct stats_page *p;
	struct stats_sum sum;

	assert_int_equal(stats_new(&p), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_many, p), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	stats_sum(p, &sum);
	assert_int_equal(sum.op[WIRE_WRITE].requests, THREADS * EACH);
	assert_int_equal(sum.op[WIRE_WRITE].bytes, THREADS * EACH * 4096ull);
	assert_int_equal(sum.op[WIRE_WRITE].sampled, THREADS * EACH / STATS_SAMPLE);
	stats_free(p);
}

static void tables_and_json_say_the_same(void **state)
{
	struct volume_state volume;
	struct stats_view v = { .volume = &volume, .interval_s = 2 };
	struct json_object *o, *commands, *read, *sizes, *n;
	char *text = NULL;
	size_t len;
	FILE *out;

	volume_state_init(&volume);
	(void)strcpy(volume.pool, "rbd");
	(void)strcpy(volume.image, "vol\n");
	v.total.in_flight = 3;
	v.total.op[WIRE_READ].requests = v.total.op[WIRE_READ].sizes[0][3] = 10;
	v.recent.op[WIRE_READ].requests = 5;
	v.recent.op[WIRE_READ].bytes = 2 << 20;
	out = open_memstream(&text, &len);
	assert_non_null(out);
	stats_print_table(out, &v);
	(void)fclose(out);
	assert_non_null(strstr(text, "rbd/vol?\n  in flight 3, slow"));
	assert_non_null(strstr(text, "  read              10        0        2.5       1.00"));
	assert_non_null(strstr(text, "  read    to    4 KiB           10 whole sectors"));
	assert_null(strstr(text, "write"));
	free(text);
	o = stats_to_json(&v);
	assert_non_null(o);
	assert_true(json_object_object_get_ex(o, "commands", &commands));
	assert_true(json_object_object_get_ex(commands, "read", &read));
	assert_true(json_object_object_get_ex(read, "requests", &n));
	assert_int_equal(json_object_get_int(n), 10);
	assert_true(json_object_object_get_ex(read, "requests_per_second", &n));
	assert_true(json_object_get_double(n) == 2.5);
	assert_true(json_object_object_get_ex(read, "sizes", &sizes));
	assert_int_equal(json_object_array_length(sizes), 1);
	json_object_put(o);
	volume_state_done(&volume);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(latencies_fall_into_buckets_without_gaps),
		TEST(sizes_fall_into_classes),
		TEST(percentiles_are_those_of_what_was_counted),
		TEST(what_is_counted_can_be_read_from_the_file),
		TEST(slow_requests_are_seen_without_being_sampled),
		TEST(what_is_no_page_is_refused),
		TEST(a_file_without_space_is_refused_before_it_is_used),
		TEST(nothing_is_lost_between_threads),
		TEST(tables_and_json_say_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
