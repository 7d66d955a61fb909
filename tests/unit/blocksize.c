/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Which block size is announced for what is found on the plain device. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../daemon/blocksize.h"

#define MIB (1u << 20)
#define SIZE (16u * MIB)

struct disk {
	unsigned char *bytes;
	int error;
	unsigned int reads, unaligned;
};

static int read_disk(void *arg, uint64_t off, void *buf, size_t len)
{
	struct disk *d = arg;

	d->reads++;
	d->unaligned += off % 4096 != 0 || (len % 4096 != 0 && off + len != SIZE);
	if (d->error)
		return d->error;
	assert_true(off + len <= SIZE);
	memcpy(buf, d->bytes + off, len);
	return 0;
}

static void setup_disk(struct disk *d)
{
	*d = (struct disk){ .bytes = calloc(1, SIZE) };
	assert_non_null(d->bytes);
}

static uint32_t choose(struct disk *d, uint32_t sector)
{
	const char *why = NULL;
	uint32_t block = 0;

	assert_int_equal(blocksize_choose(read_disk, d, SIZE, sector, &block, &why), 0);
	assert_non_null(why);
	assert_int_equal(d->unaligned, 0);
	return block;
}

static void put_le(unsigned char *at, uint64_t value, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		at[i] = (unsigned char)(value >> 8 * i);
}

/* As much of a superblock as libblkid asks for. */
static void put_ext4(struct disk *d, unsigned int log_block)
{
	unsigned char *sb = d->bytes + 1024;

	put_le(sb + 0, 128, 4); /* inodes */
	put_le(sb + 4, SIZE >> (10 + log_block), 4); /* blocks */
	put_le(sb + 24, log_block, 4);
	put_le(sb + 56, 0xef53, 2);
	put_le(sb + 76, 1, 4); /* revision */
	put_le(sb + 88, 256, 2); /* inode size */
	put_le(sb + 92, 0x4, 4); /* has_journal */
	put_le(sb + 96, 0x40, 4); /* extents */
	memset(sb + 104, 0x5a, 16); /* uuid */
}

static void put_swap(struct disk *d)
{
	memcpy(d->bytes + 4086, "SWAPSPACE2", 10);
	put_le(d->bytes + 1024, 1, 4); /* version */
	put_le(d->bytes + 1028, SIZE / 4096 - 1, 4);
	memset(d->bytes + 1036, 0x5a, 16);
}

static void put_dos(struct disk *d)
{
	unsigned char *entry = d->bytes + 446;

	put_le(d->bytes + 440, 0x12345678, 4);
	entry[4] = 0x83;
	put_le(entry + 8, 2048, 4);
	put_le(entry + 12, 4096, 4);
	d->bytes[510] = 0x55;
	d->bytes[511] = 0xaa;
}

static uint32_t crc32_of(const unsigned char *p, size_t len)
{
	uint32_t crc = UINT32_MAX;

	while (len-- > 0) {
		crc ^= *p++;
		for (unsigned int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

/* The primary table and its protective MBR, in blocks of that size. */
static void put_gpt(struct disk *d, uint32_t block)
{
	unsigned char *header = d->bytes + block, *entries = d->bytes + 2 * (size_t)block;
	uint64_t last = SIZE / block - 1, first = 2 + 16384 / block;

	put_dos(d);
	d->bytes[446 + 4] = 0xee;
	put_le(d->bytes + 446 + 8, 1, 4);
	put_le(d->bytes + 446 + 12, last, 4);
	memset(entries, 0x11, 32);
	put_le(entries + 32, first, 8);
	put_le(entries + 40, first + 8, 8);
	memcpy(header, "EFI PART", 8);
	put_le(header + 8, 0x10000, 4);
	put_le(header + 12, 92, 4);
	put_le(header + 24, 1, 8);
	put_le(header + 32, last, 8);
	put_le(header + 40, first, 8);
	put_le(header + 48, last - first, 8);
	memset(header + 56, 0x22, 16);
	put_le(header + 72, 2, 8);
	put_le(header + 80, 128, 4);
	put_le(header + 84, 128, 4);
	put_le(header + 88, crc32_of(entries, 128 * 128), 4);
	put_le(header + 16, crc32_of(header, 92), 4);
}

static void small_sectors_need_no_look(void **state)
{
	struct disk d;

	setup_disk(&d);
	assert_int_equal(choose(&d, 512), 512);
	assert_int_equal(choose(&d, 1), 512);
	assert_int_equal(d.reads, 0);
	free(d.bytes);
}

static void an_empty_device_gets_the_sector_size(void **state)
{
	struct disk d;

	setup_disk(&d);
	assert_int_equal(choose(&d, 4096), 4096);
	assert_int_equal(choose(&d, 2048), 2048);
	free(d.bytes);
}

static void what_nobody_knows_may_count_in_512(void **state)
{
	struct disk d;

	setup_disk(&d);
	memset(d.bytes + 300000, 0x77, 1000);
	assert_int_equal(choose(&d, 4096), 512);
	memset(d.bytes, 0, SIZE);
	/* At the very end, where old formats keep theirs. */
	d.bytes[SIZE - 1] = 1;
	assert_int_equal(choose(&d, 4096), 512);
	free(d.bytes);
}

static void a_filesystem_decides_by_its_blocks(void **state)
{
	struct disk d;

	setup_disk(&d);
	put_ext4(&d, 2);
	assert_int_equal(choose(&d, 4096), 4096);
	put_ext4(&d, 0);
	assert_int_equal(choose(&d, 4096), 512);
	assert_int_equal(choose(&d, 1024), 1024);
	memset(d.bytes, 0, SIZE);
	put_swap(&d);
	assert_int_equal(choose(&d, 4096), 4096);
	free(d.bytes);
}

static void a_partition_table_decides_by_what_it_was_made_for(void **state)
{
	struct disk d;

	setup_disk(&d);
	put_dos(&d);
	assert_int_equal(choose(&d, 4096), 512);
	memset(d.bytes, 0, SIZE);
	put_gpt(&d, 512);
	assert_int_equal(choose(&d, 4096), 512);
	free(d.bytes);
}

static void a_gpt_of_large_blocks_is_seen(void **state)
{
	struct disk d;

	setup_disk(&d);
	put_gpt(&d, 4096);
	assert_int_equal(choose(&d, 4096), 4096);
	free(d.bytes);
}

static void an_error_of_the_read_is_returned(void **state)
{
	struct disk d;
	const char *why;
	uint32_t block;

	setup_disk(&d);
	d.error = -EIO;
	assert_int_equal(blocksize_choose(read_disk, &d, SIZE, 4096, &block, &why), -EIO);
	free(d.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_sectors_need_no_look),
		cmocka_unit_test(an_empty_device_gets_the_sector_size),
		cmocka_unit_test(what_nobody_knows_may_count_in_512),
		cmocka_unit_test(a_filesystem_decides_by_its_blocks),
		cmocka_unit_test(a_partition_table_decides_by_what_it_was_made_for),
		cmocka_unit_test(a_gpt_of_large_blocks_is_seen),
		cmocka_unit_test(an_error_of_the_read_is_returned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
