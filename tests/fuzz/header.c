/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * libFuzzer target: the input is the start of an image, and what luks_header_load()
 * lets pass must keep its promises. The first byte chooses what the rest is:
 *
 *	'R'  the bytes of the image, as they are; zeros follow
 *	'S'  the same, with right checksums put on LUKS2 copies at 0 and 16 KiB
 *	'J'  a LUKS2 JSON text, in a sound header around it
 *
 * Without the last two no mutation would ever get past a checksum.
 *
 * Build: clang -fsanitize=fuzzer,address,undefined with crypto/.
 */

#include <errno.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "luks.h"

#define RAW_SIZE ((uint64_t)64 << 20)
#define COPY 16384u
#define BINARY 4096u
#define CHECKSUM 448

struct image {
	unsigned char start[2 * COPY + 65536];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int image_read(void *arg, uint64_t off, void *buf, size_t len)
{
	const struct image *image = arg;
	unsigned char *p = buf;

	if (off > RAW_SIZE || len > RAW_SIZE - off)
		abort();
	memset(p, 0, len);
	if (off < sizeof(image->start)) {
		size_t n = sizeof(image->start) - off;

		memcpy(p, image->start + off, n < len ? n : len);
	}
	return 0;
}

static void seal(unsigned char *copy)
{
	memset(copy + CHECKSUM, 0, 64);
	SHA256(copy, COPY, copy + CHECKSUM);
}

static void put_text(struct image *image, const uint8_t *text, size_t len)
{
	static const char *const magics[] = { "LUKS\xba\xbe\0\2", "SKUL\xba\xbe\0\2" };

	if (len > COPY - BINARY)
		len = COPY - BINARY;
	for (unsigned int i = 0; i < 2; i++) {
		unsigned char *copy = image->start + i * COPY;

		memcpy(copy, magics[i], 8);
		copy[14] = COPY >> 8;
		memcpy(copy + 72, "sha256", 6);
		memcpy(copy + 168, "d93a3a9b", 8);
		copy[256 + 6] = (unsigned char)(i * COPY >> 8);
		memcpy(copy + BINARY, text, len);
		seal(copy);
	}
}

static void check_promises(const struct luks_info *info)
{
	if (info->version != 1 && info->version != 2)
		abort();
	if (info->key_bytes != 32 && info->key_bytes != 64)
		abort();
	if (info->sector_size < 512 || info->sector_size > 4096 ||
	    (info->sector_size & (info->sector_size - 1)))
		abort();
	if (info->data_offset == 0 || info->data_offset > RAW_SIZE ||
	    info->data_offset % info->sector_size)
		abort();
	if (info->keyslots == 0 || info->keyslots > 32)
		abort();
	if (!memchr(info->uuid, 0, sizeof(info->uuid)) ||
	    strcmp(info->cipher, "aes-xts-plain64") != 0)
		abort();
}

static void check_refusal(int error, const struct fault *f)
{
	if (error == -ENODATA) {
		if (f->message[0])
			abort();
		return;
	}
	if (error != -EBADMSG && error != -ENOTSUP && error != -EINVAL)
		abort();
	if (!f->message[0] || f->error != error || f->status != EXIT_HEADER)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct luks_header *h = NULL;
	struct luks_limits limits;
	struct fault f = { 0 };
	struct image *image;
	int r;

	if (len < 1)
		return 0;
	image = calloc(1, sizeof(*image));
	if (!image)
		return 0;
	if (data[0] == 'J')
		put_text(image, data + 1, len - 1);
	else
		memcpy(image->start, data + 1,
		       len - 1 < sizeof(image->start) ? len - 1 : sizeof(image->start));
	if (data[0] == 'S') {
		seal(image->start);
		seal(image->start + COPY);
	}
	luks_limits_default(&limits);
	r = luks_header_load(image_read, image, RAW_SIZE, 0, &limits, &h, &f);
	if (r == 0)
		check_promises(luks_header_info(h));
	else
		check_refusal(r, &f);
	luks_header_free(h);
	free(image);
	return 0;
}
