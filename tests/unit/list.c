/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What list and status print: rbd-nbd's table to the letter, and ours around it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "../../daemon/list.h"

#define N 5

static struct volume_state v[N];
static struct state_list list;
static char *text;

enum { MAPPED, SNAPSHOT, SERVED, DEAD, STARTING };

static int setup(void **state)
{
	for (int i = 0; i < N; i++) {
		volume_state_init(&v[i]);
		v[i].status = VOLUME_MAPPED;
		v[i].pid = 100 + i;
		v[i].device = i;
		strcpy(v[i].pool, "rbd");
		strcpy(v[i].image, "img");
		strcpy(v[i].key, "k");
		strcpy(v[i].cookie, "c");
	}
	strcpy(v[MAPPED].nspace, "ns");
	v[SNAPSHOT].snap_id = 7;
	v[SERVED].status = VOLUME_SERVING;
	v[SERVED].device = -1;
	v[SERVED].image[0] = v[SERVED].pool[0] = v[SERVED].cookie[0] = 0;
	strcpy(v[SERVED].file, "/x");
	strcpy(v[SERVED].socket, "/s");
	v[DEAD].status = VOLUME_DEAD;
	strcpy(v[DEAD].snap, "s");
	v[STARTING].status = VOLUME_STARTING;
	v[STARTING].device = -1;
	list = (struct state_list){ .volumes = v, .n = N };
	return 0;
}

static int teardown(void **state)
{
	free(text);
	text = NULL;
	return 0;
}

static const char *print(enum output_format format, bool is_pretty, bool is_all)
{
	const struct list_options o = { format, is_pretty, is_all };
	size_t len = 0;
	FILE *out;

	free(text);
	text = NULL;
	out = open_memstream(&text, &len);
	assert_int_equal(list_print(out, &list, &o), 0);
	fclose(out);
	return text;
}

static const char *print_status(enum output_format format, unsigned int first, unsigned int n)
{
	const struct list_options o = { format, false, false };
	size_t len = 0;
	FILE *out;

	free(text);
	text = NULL;
	out = open_memstream(&text, &len);
	assert_int_equal(status_print(out, v + first, n, &o), 0);
	fclose(out);
	return text;
}

static void an_empty_list_is_what_rbd_nbd_prints(void **state)
{
	list.n = 0;
	assert_string_equal(print(OUTPUT_PLAIN, false, false), "");
	assert_string_equal(print(OUTPUT_JSON, false, false), "[]\n");
	assert_string_equal(print(OUTPUT_XML, false, false), "<devices></devices>\n");
	assert_string_equal(print(OUTPUT_JSON, true, false), "[]\n");
	assert_string_equal(print(OUTPUT_XML, true, false), "<devices>\n</devices>\n");
	assert_string_equal(print_status(OUTPUT_PLAIN, 0, 0), "");
}

static void plain_is_rbd_nbds_table(void **state)
{
	assert_string_equal(print(OUTPUT_PLAIN, false, false),
			    "id   pool  namespace  image  snap  device     cookie\n"
			    "100  rbd   ns         img    -     /dev/nbd0  c\n"
			    "101  rbd              img    @7    /dev/nbd1  c\n");
}

static void columns_grow_with_their_contents(void **state)
{
	list.n = 1;
	strcpy(v[0].image, "a-long-name");
	strcpy(v[0].pool, "pool-1");
	v[0].cookie[0] = 0;
	assert_string_equal(print(OUTPUT_PLAIN, false, false),
			    "id   pool    namespace  image        snap  device     cookie\n"
			    "100  pool-1  ns         a-long-name  -     /dev/nbd0\n");
}

static void all_adds_sockets_and_the_dead(void **state)
{
	assert_string_equal(print(OUTPUT_PLAIN, false, true),
			    "id   pool  namespace  image  snap  device     cookie\n"
			    "100  rbd   ns         img    -     /dev/nbd0  c\n"
			    "101  rbd              img    @7    /dev/nbd1  c\n"
			    "102                   /x     -     -\n"
			    "-    rbd              img    s     /dev/nbd3  c\n"
			    "104  rbd              img    -     -          c\n");
}

static void a_name_cannot_break_the_table(void **state)
{
	list.n = 1;
	strcpy(v[0].image, "a\nb\033[2J");
	assert_non_null(strstr(print(OUTPUT_PLAIN, false, false), "a?b?[2J"));
}

static void json_begins_with_rbd_nbds_keys_and_types(void **state)
{
	static const char begin[] = "[{\"id\":100,\"pool\":\"rbd\",\"namespace\":\"ns\","
				    "\"image\":\"img\",\"snap\":\"\",\"device\":\"/dev/nbd0\","
				    "\"cookie\":\"c\",\"state\":\"mapped\"";

	assert_memory_equal(print(OUTPUT_JSON, false, false), begin, sizeof(begin) - 1);
	assert_non_null(strstr(text, "\"snap\":\"@7\""));
	assert_null(strstr(text, "dead"));
	assert_null(strstr(text, "serving"));
}

static void json_of_all_says_zero_for_a_dead_process(void **state)
{
	struct json_object *array = json_tokener_parse(print(OUTPUT_JSON, true, true));
	struct json_object *dead, *served;

	assert_int_equal(json_object_array_length(array), N);
	dead = json_object_array_get_idx(array, DEAD);
	assert_int_equal(json_object_get_int(json_object_object_get(dead, "id")), 0);
	assert_string_equal(json_object_get_string(json_object_object_get(dead, "state")), "dead");
	served = json_object_array_get_idx(array, SERVED);
	assert_string_equal(json_object_get_string(json_object_object_get(served, "device")), "");
	assert_string_equal(json_object_get_string(json_object_object_get(served, "socket")), "/s");
	assert_string_equal(json_object_get_string(json_object_object_get(served, "spec")),
			    "file:/x");
	json_object_put(array);
}

static void xml_has_the_same_keys_and_is_escaped(void **state)
{
	static const char begin[] = "<devices><device><id>100</id><pool>rbd</pool>"
				    "<namespace>ns</namespace><image>a&lt;b&gt;&amp;?</image>"
				    "<snap></snap><device>/dev/nbd0</device><cookie>c</cookie>"
				    "<state>mapped</state>";
	struct layer_state layer = { .spec = "rbd/img", .format = "luks1" };

	list.n = 1;
	strcpy(v[0].image, "a<b>&\001");
	v[0].layers = &layer;
	v[0].n_layers = 1;
	assert_memory_equal(print(OUTPUT_XML, false, false), begin, sizeof(begin) - 1);
	assert_non_null(strstr(text, "<layers><layer><spec>rbd/img</spec>"));
	assert_non_null(strstr(text, "</layer></layers><links></links></device></devices>\n"));
	assert_non_null(strstr(print(OUTPUT_XML, true, false),
			       "  <device>\n    <id>100</id>\n    <pool>rbd</pool>\n"));
}

static int sysfs(int index, struct nbd_sysfs *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->is_connected = index != 5;
	strcpy(ret->cookie, index == 6 ? "another" : index == 7 ? "" : "c");
	return index == 8 ? -ENODEV : 0;
}

static void what_the_kernel_no_longer_has_is_dropped(void **state)
{
	static const int devices[N] = { 4, 5, 6, 7, 8 };

	for (int i = 0; i < N; i++) {
		v[i].status = VOLUME_DEAD;
		v[i].device = devices[i];
	}
	list_drop_stale(&list, sysfs);
	/* connected with our cookie, and connected on a kernel that keeps none */
	assert_int_equal(list.n, 2);
	assert_int_equal(list.volumes[0].device, 4);
	assert_int_equal(list.volumes[1].device, 7);
}

static void the_living_are_not_asked_for(void **state)
{
	v[MAPPED].device = 8;
	v[DEAD].device = -1;
	list_drop_stale(&list, sysfs);
	assert_int_equal(list.n, N - 1);
	assert_int_equal(list.volumes[0].device, 8);
}

static void status_tells_what_is_known(void **state)
{
	struct layer_state layers[2] = {
		{ .spec = "rbd/img",
		  .format = "luks2",
		  .cipher = "aes-xts-plain64",
		  .uuid = "u-u-i-d",
		  .raw_size = 10 << 20,
		  .data_offset = 4 << 20,
		  .sector_size = 4096,
		  .key_bits = 512,
		  .is_clone_magic = true },
		{ .spec = "rbd/golden@v1", .format = "none", .raw_size = 1000 },
	};

	setenv("TZ", "UTC", 1);
	v[0].layers = layers;
	v[0].n_layers = 2;
	v[0].started = 1700000000;
	v[0].size = 6 << 20;
	v[0].raw_size = 10 << 20;
	v[0].data_offset = 4 << 20;
	v[0].block_size = 4096;
	v[0].is_trim_offered = true;
	v[0].connections = 2;
	v[0].reattach_timeout_s = 30;
	strcpy(v[0].store, "librbd");
	strcpy(v[0].lock, "owner");
	strcpy(v[0].lock_owner, "10.0.0.1:0/1");
	strcpy(v[0].client, "10.0.0.1:0/1");
	strcpy(v[0].user, "client.me");
	strcpy(v[0].mons, "10.0.0.9");
	strcpy(v[0].conf, "/c");
	strcpy(v[0].engine, "openssl");
	v[0].inline_threshold = 8192;
	strcpy(v[0].fsid, "f-s-i-d");
	strcpy(v[0].image_id, "10ab");
	v[0].pool_id = 2;
	strcpy(v[0].health, "the header\nhas changed");
	v[0].kernel.size = 6 << 20;
	v[0].kernel.logical_block = 512;
	v[0].kernel.physical_block = 4096;
	v[0].kernel.has_fua = true;
	v[0].kernel.discard_max = 1;
	assert_string_equal(
		print_status(OUTPUT_PLAIN, 0, 1),
		"rbd/ns/img\n"
		"  state       mapped, process 100, started 2023-11-14 22:13:20 +0000\n"
		"  health      the header?has changed\n"
		"  device      /dev/nbd0\n"
		"  cookie      c\n"
		"  cluster     f-s-i-d\n"
		"  monitors    10.0.0.9\n"
		"  user        client.me at 10.0.0.1:0/1\n"
		"  conf        /c\n"
		"  image       id 10ab in pool 2\n"
		"  size        6291456 bytes (6 MiB)\n"
		"  raw size    10485760 bytes (10 MiB), of which the header takes 4194304 bytes (4 "
		"MiB)\n"
		"  block size  4096 bytes\n"
		"  access      read and write, discard\n"
		"  connections 2, io timeout the kernel's, waits for a new daemon 30 s\n"
		"  store       librbd\n"
		"  lock        owner, held by 10.0.0.1:0/1\n"
		"  encryption  openssl, in place up to 8192 bytes\n"
		"  kernel      6291456 bytes (6 MiB), blocks 512/4096, fua, discard\n"
		"  layers\n"
		"    1 rbd/img\n"
		"      luks2, aes-xts-plain64, 512-bit key, 4096-byte sectors, data at 4194304, "
		"formatted as a clone, uuid u-u-i-d\n"
		"      raw size 10485760 bytes (10 MiB)\n"
		"    2 rbd/golden@v1\n"
		"      no encryption\n"
		"      raw size 1000 bytes\n");
}

static void what_is_never_handed_to_workers_says_so(void **state)
{
	strcpy(v[0].engine, "openssl");
	v[0].inline_threshold = SIZE_MAX;
	assert_non_null(strstr(print_status(OUTPUT_PLAIN, 0, 1),
			       "  encryption  openssl, always in place\n"));
	assert_non_null(strstr(print_status(OUTPUT_JSON, 0, 1), "\"inline_threshold\":-1,"));
}

static void a_lock_that_nobody_could_ask_for_says_so(void **state)
{
	setenv("TZ", "UTC", 1);
	strcpy(v[0].lock, "unknown");
	strcpy(v[0].lock_reason, "no answer in 1 s");
	assert_non_null(strstr(print_status(OUTPUT_PLAIN, 0, 1),
			       "  lock        unknown: no answer in 1 s\n"));
	strcpy(v[0].lock_owner, "10.0.0.1:0/1");
	v[0].lock_seen = 1700000000;
	assert_non_null(strstr(print_status(OUTPUT_PLAIN, 0, 1),
			       "unknown: no answer in 1 s; last seen 10.0.0.1:0/1, 2023-11-14 "
			       "22:13:20 +0000\n"));
	/* An image without the feature has no line. */
	strcpy(v[0].lock, "-");
	assert_null(strstr(print_status(OUTPUT_PLAIN, 0, 1), "lock  "));
}

static void status_of_several_is_set_apart(void **state)
{
	assert_non_null(strstr(print_status(OUTPUT_PLAIN, SERVED, 2),
			       "\n\nrbd/img@s\n  state       dead\n"));
	assert_non_null(strstr(text, "file:/x\n"));
	assert_non_null(strstr(text, "  socket      /s\n"));
	/* json is that of list, whatever their state */
	assert_non_null(strstr(print_status(OUTPUT_JSON, SERVED, 1), "\"state\":\"serving\""));
}

static void output_that_cannot_be_written_is_an_error(void **state)
{
	const struct list_options o = { OUTPUT_JSON, false, true };
	const struct list_options plain = { OUTPUT_PLAIN, false, true };
	FILE *out = fopen("/dev/full", "w");

	if (!out)
		skip();
	assert_int_equal(list_print(out, &list, &o), -ENOSPC);
	assert_int_equal(list_print(out, &list, &plain), -ENOSPC);
	assert_int_equal(status_print(out, v, N, &plain), -ENOSPC);
	fclose(out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_empty_list_is_what_rbd_nbd_prints),
		TEST(plain_is_rbd_nbds_table),
		TEST(columns_grow_with_their_contents),
		TEST(all_adds_sockets_and_the_dead),
		TEST(a_name_cannot_break_the_table),
		TEST(json_begins_with_rbd_nbds_keys_and_types),
		TEST(json_of_all_says_zero_for_a_dead_process),
		TEST(xml_has_the_same_keys_and_is_escaped),
		TEST(what_the_kernel_no_longer_has_is_dropped),
		TEST(the_living_are_not_asked_for),
		TEST(status_tells_what_is_known),
		TEST(what_is_never_handed_to_workers_says_so),
		TEST(a_lock_that_nobody_could_ask_for_says_so),
		TEST(status_of_several_is_set_apart),
		TEST(output_that_cannot_be_written_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
