/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * libFuzzer target: the input is a state file. It is refused with a reason, or it means
 * something: written again it means the same, its key makes a file name that
 * stays in its directory, and list and status can show it.
 *
 * Build: clang -fsanitize=fuzzer,address,undefined with daemon/state*.c, list.c, status.c and
 * fault.c, nbd/sysfs.c and json-c.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../daemon/list.h"
#include "../../daemon/state_file.h"
#include "../../daemon/state_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char *to_text(const struct volume_state *v)
{
	struct json_object *o = state_to_json(v);
	char *text = o ? strdup(json_object_to_json_string(o)) : NULL;

	json_object_put(o);
	return text;
}

static void check_meaning(const struct volume_state *v)
{
	struct volume_state again;
	const char *why;
	char *first = to_text(v), *second;

	if (!first || state_from_text(first, strlen(first), &again, &why) < 0)
		abort();
	second = to_text(&again);
	if (!second || strcmp(first, second) != 0)
		abort();
	free(first);
	free(second);
	volume_state_done(&again);
}

static void check_shown(const struct volume_state *v)
{
	for (int format = OUTPUT_PLAIN; format <= OUTPUT_XML; format++) {
		const struct list_options o = { (enum output_format)format, true, true };
		struct volume_state copy = *v;
		const struct state_list l = { .volumes = &copy, .n = 1 };
		char *text = NULL;
		size_t len = 0;
		FILE *out = open_memstream(&text, &len);

		if (!out || list_print(out, &l, &o) < 0 || status_print(out, v, 1, &o) < 0)
			abort();
		fclose(out);
		for (size_t i = 0; i < len; i++)
			if ((unsigned char)text[i] < ' ' && text[i] != '\n')
				abort();
		free(text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char name[STATE_NAME_BYTES];
	struct volume_state v;
	const char *why = NULL;

	if (len > 64 << 10)
		return 0;
	if (state_from_text((const char *)data, len, &v, &why) < 0) {
		if (!why)
			abort();
		return 0;
	}
	state_file_name(v.key, name);
	if (strchr(name, '/') || !state_file_is_named(name) || strlen(name) >= sizeof(name))
		abort();
	check_meaning(&v);
	check_shown(&v);
	volume_state_done(&v);
	return 0;
}
