/* SPDX-License-Identifier: MIT */
/*
 * sbatch reads #SBATCH lines, then SBATCH_* variables, then its command line,
 * and tells a plugin about an option only in that last pass. By then it is too
 * late to set SBATCH_OPEN_MODE, so what stands on the command line must be
 * known before sbatch looks at it.
 */
#include "cmdline.h"

#include <stdio.h>
#include <string.h>

#define CMDLINE_MAX 65536

/* Does arg (up to a '=') name this long option, given whole or as getopt_long's unique prefix? */
static bool names_option(const char *arg, const char *option, size_t shortest)
{
	size_t given = strcspn(arg, "=");

	return given >= shortest && given <= strlen(option) &&
	       strncmp(arg, option, given) == 0;
}

struct cmdline_facts nodewatch_cmdline_scan(const char *args, size_t size)
{
	struct cmdline_facts facts = { false, false };
	const char *end = args + size;
	const char *arg = args;
	bool may_be_value = false; /* the argument before could have taken this one as its value */
	bool first = true;

	while (arg < end) {
		size_t length = strnlen(arg, (size_t)(end - arg));

		if (arg + length == end)
			break; /* cut off in the middle: not an argument we know */
		if (first) {
			first = false;
		} else if (strcmp(arg, "--") == 0) {
			break;
		} else if (arg[0] != '-') {
			/* Past the script its own arguments begin: "x.sh --auto-resume" is none of ours. */
			if (!may_be_value)
				break;
			may_be_value = false;
		} else {
			if (names_option(arg, "--auto-resume", strlen("--au")))
				facts.auto_resume = strcmp(arg + strcspn(arg, "="), "=off") != 0;
			if (names_option(arg, "--no-requeue", strlen("--no-r")))
				facts.no_requeue = true;
			may_be_value = strchr(arg, '=') == NULL &&
				       strncmp(arg, "--auto-resume", strlen("--auto-resume")) != 0;
		}
		arg += length + 1;
	}
	return facts;
}

struct cmdline_facts nodewatch_cmdline_self(void)
{
	static char args[CMDLINE_MAX];
	struct cmdline_facts none = { false, false };
	FILE *file = fopen("/proc/self/cmdline", "re");
	size_t size;

	if (file == NULL)
		return none;
	size = fread(args, 1, sizeof(args), file);
	fclose(file);
	return nodewatch_cmdline_scan(args, size);
}
