/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The option table as a completion for bash. "make" asks for it, so what bash offers is what the
 * parser takes. The script needs bash alone, not the package of helper functions that distributions
 * have for such scripts. Called by main(), one thread; owns nothing.
 */

#include <string.h>

#include "option_table.h"
#include "options.h"

static bool is_offered(const struct option_row *row, enum command c)
{
	return row->commands & (1u << c) && !(row->flags & (OPTION_HIDDEN | OPTION_ALIAS));
}

static void put_commands(FILE *out)
{
	fprintf(out, "\tlocal commands='");
	for (unsigned int i = 0; i < command_row_count; i++)
		fprintf(out, "%s%s", i ? " " : "", options_command_name(command_rows[i].command));
	fprintf(out, "'\n");
}

/* Which command it is, by any of its names. */
static void put_options(FILE *out)
{
	for (unsigned int i = 0; i < command_row_count; i++) {
		const struct command_row *row = &command_rows[i];

		fprintf(out, "\t%s) options='", row->names);
		for (unsigned int j = 0; j < option_row_count; j++)
			if (is_offered(&option_rows[j], row->command))
				fprintf(out, "--%s ", option_rows[j].name);
		fprintf(out, "' ;;\n");
	}
}

static bool is_path(const struct option_row *row)
{
	return row->arg && (strcmp(row->arg, "FILE") == 0 || strcmp(row->arg, "PATH") == 0 ||
			    strcmp(row->arg, "DIR") == 0 || strcmp(row->arg, "SOURCE") == 0);
}

static void put_case(FILE *out, const struct option_row *row)
{
	fprintf(out, "\t--%s", row->name);
	if (row->letter)
		fprintf(out, "|-%c", row->letter);
	fprintf(out, ") ");
}

/* What follows an option: a choice, a path, a device, or something that nobody here knows. */
static void put_values(FILE *out)
{
	for (unsigned int i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];

		if (!row->arg || row->flags & OPTION_HIDDEN)
			continue;
		put_case(out, row);
		if (row->choices) {
			fprintf(out, "values='");
			for (const char *p = row->choices; *p; p++)
				fputc(*p == '|' ? ' ' : *p, out);
			fprintf(out, "' ;;\n");
		} else if (is_path(row)) {
			fprintf(out, "kind=path ;;\n");
		} else {
			fprintf(out, "kind=text ;;\n");
		}
	}
}

void options_dump_completion(FILE *out)
{
	fputs("# bash completion for rbdcrypt-nbd(8), made from its table of options\n\n"
	      "_rbdcrypt_nbd() {\n",
	      out);
	put_commands(out);
	fputs("\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	      "\tlocal command='' options='--help --version' values='' kind='' i\n"
	      "\tCOMPREPLY=()\n"
	      "\t# \"--key=value\" comes as three words.\n"
	      "\tif [[ $cur == = ]]; then\n"
	      "\t\tcur=''\n"
	      "\telif [[ $prev == = ]]; then\n"
	      "\t\tprev=${COMP_WORDS[COMP_CWORD - 2]}\n"
	      "\tfi\n"
	      "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	      "\t\t[[ \" $commands list-mapped ls show-mapped \" != *\" ${COMP_WORDS[i]} \"* ]] "
	      "||\n"
	      "\t\t\tcommand=${command:-${COMP_WORDS[i]}}\n"
	      "\tdone\n"
	      "\tcase $prev in\n",
	      out);
	put_values(out);
	fputs("\tesac\n\tcase $command in\n", out);
	put_options(out);
	fputs("\tesac\n"
	      "\tif [[ $values ]]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$cur\")\n"
	      "\telif [[ $kind == path ]]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	      "\telif [[ $kind ]]; then\n"
	      "\t\t:\n"
	      "\telif [[ $cur == -* ]]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
	      "\telif [[ ! $command || $command == help ]]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\")\n"
	      "\telif [[ $command == @(unmap|detach|status|stats|check-keys) ]]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$(\"${COMP_WORDS[0]}\" list --all "
	      "2>/dev/null |\n"
	      "\t\t\tgrep -o '/dev/nbd[0-9]*')\" -- \"$cur\")\n"
	      "\tfi\n"
	      "}\n"
	      "complete -o filenames -F _rbdcrypt_nbd rbdcrypt-nbd\n",
	      out);
}
