/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_VECTORS_XTS_SHORT_H
#define RBDCRYPT_VECTORS_XTS_SHORT_H

#include <stdint.h>

/*
 * Known answers of XTS-AES for data units of one or two blocks. What a block
 * becomes does not depend on those after it: these are the starts of sectors.
 * IEEE Std 1619-2007, Annex B, vectors 2 and 3; NIST's XTS test vectors (CAVP) with
 * the data unit's number as tweak, XTSGenAES128.
 */
#define XTS_SHORT_MAX 32

struct xts_short_vector {
	const char *source;
	unsigned int key_bytes; /* both halves */
	const char *key;
	uint64_t unit;
	unsigned int bytes;
	const char *plaintext, *ciphertext;
};

static const struct xts_short_vector xts_short_vectors[] = {
	{ "IEEE 1619, vector 2", 32,
	  "1111111111111111111111111111111122222222222222222222222222222222", 0x3333333333, 32,
	  "4444444444444444444444444444444444444444444444444444444444444444",
	  "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0" },
	{ "IEEE 1619, vector 3", 32,
	  "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f022222222222222222222222222222222", 0x3333333333, 32,
	  "4444444444444444444444444444444444444444444444444444444444444444",
	  "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89" },
	{ "NIST, COUNT 1", 32, "a3e40d5bd4b6bbedb2d18c700ad2db2210c81190646d673cbca53f133eab373c",
	  141, 16, "20e0719405993f09a66ae5bb500e562c", "74623551210216ac926b9650b6d3fa52" },
	{ "NIST, COUNT 6", 32, "8b737d182017a79a613929b07b70e80e74235daab3f4d3d55ef4d52adbc44e06",
	  99, 16, "895bf08d41b28798be0f576fdb03b710", "66322199dd397609231cb3e9495f992e" },
	{ "NIST, unit 41", 32, "3970cbb4b09a50f428890024876607d04f9b3621728d8a67549f74aa082d58ef",
	  41, 16, "18147bb2a205974d1efd386885b24797", "b91a3884ffd4e6151c5aaaaecb5fa9ff" },
	{ "NIST, COUNT 500", 32, "16444b90c4266d8b0b464ad0963f5c605074c61d33e9becf6f31e277aeb02ee7",
	  139, 32, "a788b66ebb4b38a43e709be5b58e5baf7c0f814c2a0e78c297f4ac0ff902a880",
	  "4d675587337e89bbd356e63da54970820a28f076c4bd1e30277f584a30a82081" },
};

#endif
