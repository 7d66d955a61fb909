/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What the option table says, for people: --help on a terminal and the OPTIONS
 * section of the manual page. Called by main(), one thread; owns nothing. That the
 * help mentions --cookie is a contract: ceph-csi looks for it.
 */

#include "options.h"

#include <string.h>

#include "option_table.h"

#define HELP_COLUMN 30
#define HELP_WIDTH 80
/* less than 80, because escapes make words longer */
#define MDOC_WIDTH 72

static const enum option_group groups[] = {
	GROUP_IMAGE,  GROUP_ENCRYPTION, GROUP_DEVICE, GROUP_SERVE,
	GROUP_OUTPUT, GROUP_PROCESS,	GROUP_LIMITS, GROUP_CEPH,
};
#define N_GROUPS (sizeof(groups) / sizeof(groups[0]))

/* Fills lines with words; *column is where the cursor stands. */
static void put_text(FILE *out, const char *text, int indent, int *column)
{
	while (*text) {
		int len = (int)strcspn(text, " ");

		if (*column > indent && *column + 1 + len > HELP_WIDTH) {
			fprintf(out, "\n%*s", indent, "");
			*column = indent;
		}
		*column += fprintf(out, "%s%.*s", *column > indent ? " " : "", len, text);
		text += len;
		text += strspn(text, " ");
	}
}

static void put_option(FILE *out, const struct option_row *row)
{
	int column;

	if (row->letter)
		column = fprintf(out, "  -%c, --%s", row->letter, row->name);
	else
		column = fprintf(out, "      --%s", row->name);
	if (row->arg)
		column += fprintf(out, " %s", row->arg);
	if (column + 2 > HELP_COLUMN) {
		fprintf(out, "\n");
		column = 0;
	}
	fprintf(out, "%*s", HELP_COLUMN - column, "");
	column = HELP_COLUMN;
	put_text(out, row->help, HELP_COLUMN, &column);
	if (row->choices) {
		put_text(out, "One of", HELP_COLUMN, &column);
		put_text(out, row->choices, HELP_COLUMN, &column);
	}
	if (row->fallback) {
		put_text(out, "(default:", HELP_COLUMN, &column);
		column += fprintf(out, " %s)", row->fallback);
	}
	fprintf(out, "\n");
}

static bool is_shown(const struct option_row *row, enum option_group group, enum command topic)
{
	if (row->group != group || row->flags & (OPTION_HIDDEN | OPTION_ALIAS))
		return false;
	return topic == COMMAND_NONE || row->commands & (1u << topic);
}

static void put_group(FILE *out, enum option_group group, enum command topic)
{
	bool has_title = false;

	for (unsigned int i = 0; i < option_row_count; i++) {
		if (!is_shown(&option_rows[i], group, topic))
			continue;
		if (!has_title)
			fprintf(out, "\n%s:\n", option_group_title(group));
		has_title = true;
		put_option(out, &option_rows[i]);
	}
}

void options_help(FILE *out, enum command topic)
{
	fprintf(out, "Usage: rbdcrypt-nbd [options] COMMAND [operand]\n");
	fprintf(out, "SPEC is [POOL/[NAMESPACE/]]IMAGE[@SNAP] or file:PATH.\n\n");
	for (unsigned int i = 0; i < command_row_count; i++) {
		const struct command_row *row = &command_rows[i];
		int column;

		if (topic != COMMAND_NONE && topic != row->command)
			continue;
		column = fprintf(out, "  %s %s", options_command_name(row->command), row->operand);
		fprintf(out, "%*s%s\n", column + 1 < 32 ? 32 - column : 1, "", row->help);
	}
	for (size_t i = 0; i < N_GROUPS; i++)
		put_group(out, groups[i], topic);
	fprintf(out, "\nEvery option of Ceph can be given too: -m HOST, --keyring FILE, "
		     "--debug-rbd 20, ...\n");
}

/* mdoc reads a backslash as an escape, and a dot or quote at the start of a line as a request. */
static int put_mdoc_word(FILE *out, const char *word, int len, bool is_first)
{
	int n = 0;

	if (is_first && (*word == '.' || *word == '\''))
		n += fprintf(out, "\\&");
	for (int i = 0; i < len; i++) {
		if (word[i] == '\\')
			n += fprintf(out, "\\e");
		else
			n += fprintf(out, "%s%c", word[i] == '-' ? "\\" : "", word[i]);
	}
	return n;
}

/* Filled lines; a sentence ends its line, as mdoc wants it. */
static void put_mdoc(FILE *out, const char *text)
{
	int column = 0;

	while (*text) {
		int len = (int)strcspn(text, " ");

		if (column && column + len > MDOC_WIDTH) {
			fputc('\n', out);
			column = 0;
		} else if (column) {
			column += fprintf(out, " ");
		}
		column += put_mdoc_word(out, text, len, column == 0);
		if (text[len - 1] == '.') {
			fputc('\n', out);
			column = 0;
		}
		text += len;
		text += strspn(text, " ");
	}
	if (column)
		fputc('\n', out);
}

/* Nothing where it goes with all of them. */
static void put_mdoc_commands(FILE *out, const struct option_row *row)
{
	const char *separator = "For";
	unsigned int all = 0;

	for (unsigned int i = 0; i < option_row_count; i++)
		all |= option_rows[i].commands;
	if (row->commands == all)
		return;
	for (unsigned int i = 0; i < command_row_count; i++) {
		if (!(row->commands & (1u << command_rows[i].command)))
			continue;
		fprintf(out, "%s %s", separator, options_command_name(command_rows[i].command));
		separator = ",";
	}
	fprintf(out, ".\n");
}

static void put_mdoc_option(FILE *out, const struct option_row *row)
{
	fprintf(out, ".It ");
	if (row->letter)
		fprintf(out, "Fl %c , ", row->letter);
	fprintf(out, "Fl \\-%s", row->name);
	if (row->arg)
		fprintf(out, " Ar %s", row->arg);
	fprintf(out, "\n");
	put_mdoc(out, row->help);
	if (row->choices)
		fprintf(out, "One of %s.\n", row->choices);
	if (row->fallback)
		fprintf(out, "Default: %s.\n", row->fallback);
	put_mdoc_commands(out, row);
}

void options_dump_mdoc(FILE *out)
{
	for (size_t g = 0; g < N_GROUPS; g++) {
		fprintf(out, ".Ss %s\n.Bl -tag -width Ds\n", option_group_title(groups[g]));
		for (unsigned int i = 0; i < option_row_count; i++)
			if (is_shown(&option_rows[i], groups[g], COMMAND_NONE))
				put_mdoc_option(out, &option_rows[i]);
		fprintf(out, ".El\n");
	}
}
