/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What commands print: an object tree as JSON or XML, and the last step of all of them, which is to
 * make sure that it arrived. Main thread of a command; owns nothing.
 */

#include "output.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

static void put_xml_text(FILE *out, const char *text)
{
	uint32_t c;

	for (; *text; text++) {
		unsigned int n = utf8_character(text, &c);

		if (*text == '&')
			fputs("&amp;", out);
		else if (*text == '<')
			fputs("&lt;", out);
		else if (*text == '>')
			fputs("&gt;", out);
		else if (n == 0 || c < 0x20 || c == 0x7f || c == 0xfffe || c == 0xffff)
			fputc('?', out); /* XML has no way to write them */
		else
			fwrite(text, 1, n, out);
		text += n > 1 ? n - 1 : 0;
	}
}

static void put_xml(FILE *out, const char *tag, struct json_object *value, int indent);

static void put_xml_members(FILE *out, struct json_object *object, int indent)
{
	json_object_object_foreach(object, key, member) put_xml(out, key, member, indent);
}

/* "layers" holds "layer", "devices" holds "device". */
static void put_xml_items(FILE *out, const char *tag, struct json_object *array, int indent)
{
	char item[32];

	(void)snprintf(item, sizeof(item), "%.*s", (int)strlen(tag) - 1, tag);
	for (size_t i = 0; i < json_object_array_length(array); i++)
		put_xml(out, item, json_object_array_get_idx(array, i), indent);
}

/* indent -1: all on one line */
static void put_xml(FILE *out, const char *tag, struct json_object *value, int indent)
{
	bool is_object = json_object_is_type(value, json_type_object);
	bool is_array = json_object_is_type(value, json_type_array);
	const char *newline = indent >= 0 ? "\n" : "";
	int margin = indent > 0 ? indent : 0;
	int inner = indent >= 0 ? indent + 2 : indent;

	fprintf(out, "%*s<%s>", margin, "", tag);
	if (is_object || is_array)
		fputs(newline, out);
	if (is_object)
		put_xml_members(out, value, inner);
	else if (is_array)
		put_xml_items(out, tag, value, inner);
	else
		put_xml_text(out, json_object_get_string(value));
	if (is_object || is_array)
		fprintf(out, "%*s", margin, "");
	fprintf(out, "</%s>%s", tag, newline);
}

int output_check(FILE *out)
{
	if (fflush(out) != 0)
		return -errno;
	/* Why, was lost with the call that failed. */
	return ferror(out) ? -EIO : 0;
}

int output_object(FILE *out, const char *tag, struct json_object *object, enum output_format format,
		  bool is_pretty)
{
	/* nothing is "[]", pretty or not: scripts compare */
	bool is_empty = json_object_is_type(object, json_type_array) &&
			json_object_array_length(object) == 0;
	int flags = is_pretty && !is_empty ? JSON_C_TO_STRING_PRETTY : JSON_C_TO_STRING_PLAIN;
	const char *raw;
	char *text;

	if (format == OUTPUT_XML) {
		put_xml(out, tag, object, is_pretty ? 0 : -1);
		if (!is_pretty)
			fputc('\n', out);
		return output_check(out);
	}
	raw = json_object_to_json_string_ext(object, flags | JSON_C_TO_STRING_NOSLASHESCAPE);
	text = raw ? strdup(raw) : NULL;
	if (!text)
		return -ENOMEM;
	utf8_clean(text);
	fprintf(out, "%s\n", text);
	free(text);
	return output_check(out);
}

/* What a URI's query takes as it is; the rest as %XX. */
static bool is_plain(unsigned char c)
{
	return (c < 0x80 && isalnum(c)) || (c && strchr("/-._~:@,", c));
}

void output_text(FILE *out, const char *text)
{
	for (; *text; text++)
		fputc(iscntrl((unsigned char)*text) ? '?' : *text, out);
}

void output_socket(FILE *out, const char *path)
{
	fputs("nbd+unix:///?socket=", out);
	for (; *path; path++)
		fprintf(out, is_plain((unsigned char)*path) ? "%c" : "%%%02X",
			(unsigned char)*path);
	fputc('\n', out);
}

int output_finish(int r, struct fault *f)
{
	if (r == 0)
		r = output_check(stdout);
	if (r == -ENOMEM)
		return fault_set(f, EXIT_MEMORY, r, "no memory for the answer");
	return r < 0 ? fault_set(f, EXIT_USAGE, r, "standard output cannot be written: %s",
				 strerror(-r))
		     : 0;
}
