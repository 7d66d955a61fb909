/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Command lines of helpers, without a shell: blanks end a word, '...' and "..." keep them, a
 * backslash outside of '...' keeps the next character. Words are told apart before anything is put
 * into them, so that an image called "a b; c" stays one word. Pure text; any thread.
 */

#include "key_kind.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 256

char **key_words_free(char **words)
{
	for (char **w = words; w && *w; w++)
		free(*w);
	free(words);
	return NULL;
}

/* Takes one word off *text into buf, which is as long as the text. False at the end. */
static bool next_word(const char **text, char *buf, bool *ret_open)
{
	const char *p = *text + strspn(*text, " \t");
	char quote = 0;

	if (!*p)
		return false;
	for (; *p && (quote || (*p != ' ' && *p != '\t')); p++) {
		if (*p == '\\' && quote != '\'' && p[1])
			*buf++ = *++p;
		else if (*p == quote)
			quote = 0;
		else if (!quote && (*p == '\'' || *p == '"'))
			quote = *p;
		else
			*buf++ = *p;
	}
	*buf = '\0';
	*text = p;
	*ret_open = quote != 0;
	return true;
}

int key_words_split(const char *text, char ***ret, struct fault *f)
{
	char **words = calloc(WORDS_MAX + 1, sizeof(*words));
	char *buf = malloc(strlen(text) + 1);
	bool is_open = false;
	int n = 0, r = words && buf ? 0 : -ENOMEM;

	while (r == 0 && next_word(&text, buf, &is_open)) {
		if (is_open)
			r = fault_set(f, EXIT_USAGE, -EINVAL, "a quote is not closed");
		else if (n == WORDS_MAX)
			r = fault_set(f, EXIT_USAGE, -EINVAL, "more than %d words", WORDS_MAX);
		else if (!(words[n++] = strdup(buf)))
			r = -ENOMEM;
	}
	if (r == 0 && (n == 0 || words[0][0] != '/')) {
		r = fault_set(f, EXIT_USAGE, -EINVAL, "the program has no absolute path");
		fault_hint(f, "for example exec:/usr/local/bin/key-of %%p/%%i");
	}
	free(buf);
	if (r < 0)
		(void)key_words_free(words);
	else
		*ret = words;
	return r;
}

/* So that key_words_split() reads it back as one word. */
static void put_word(FILE *out, const char *word)
{
	if (word[0] && !strpbrk(word, " \t'\"\\")) {
		(void)fputs(word, out);
		return;
	}
	(void)fputc('\'', out);
	for (; *word; word++)
		if (*word == '\'')
			(void)fputs("'\\''", out);
		else
			(void)fputc(*word, out);
	(void)fputc('\'', out);
}

int key_words_expand(const char *text, const struct key_place *place, char **ret, struct fault *f)
{
	char **words = NULL, *bytes = NULL, *word;
	size_t len;
	FILE *out;
	int r = key_words_split(text, &words, f);

	if (r < 0)
		return r;
	out = open_memstream(&bytes, &len);
	if (!out)
		r = -ENOMEM;
	for (char **w = words; r == 0 && *w; w++) {
		r = key_expand(*w, place, &word, f);
		if (r < 0)
			break;
		if (w != words)
			(void)fputc(' ', out);
		put_word(out, word);
		free(word);
	}
	if (out) {
		bool is_bad = ferror(out) != 0;

		is_bad = fclose(out) != 0 || is_bad;
		if (is_bad && r == 0)
			r = -ENOMEM;
	}
	(void)key_words_free(words);
	if (r < 0)
		free(bytes);
	else
		*ret = bytes;
	return r;
}
