/* SPDX-License-Identifier: MIT */
/* The parsers of the plugin, driven from the command line: no Slurm needed. */
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "cmdline.h"
#include "value.h"

static int value(enum value_origin origin, const char *text)
{
	char out[NODEWATCH_VALUE_SIZE] = "untouched";
	char error[NODEWATCH_VALUE_SIZE + 160] = "";
	int rc = nodewatch_value_parse(text, origin, out, error, sizeof(error));

	printf("%s%s%s\n", out, rc == 0 ? "" : " ", error);
	return rc == 0 ? 0 : 1;
}

int main(int argc, char *argv[])
{
	if (argc >= 2 && strcmp(argv[1], "typed") == 0)
		return value(VALUE_TYPED, argc > 2 ? argv[2] : NULL);
	if (argc >= 2 && strcmp(argv[1], "forwarded") == 0)
		return value(VALUE_FORWARDED, argc > 2 ? argv[2] : NULL);
	if (argc >= 2 && strcmp(argv[1], "args") == 0) {
		struct plugin_args args = { true, true };
		char error[256] = "";
		int rc = nodewatch_args_parse(argc - 2, argv + 2, &args, error, sizeof(error));

		printf("%d %d %s\n", args.append_output, args.request_requeue, error);
		return rc == 0 ? 0 : 1;
	}
	if (argc >= 2 && strcmp(argv[1], "cmdline") == 0) {
		static char buffer[65536];
		struct cmdline_facts facts;
		size_t size = fread(buffer, 1, sizeof(buffer), stdin);

		facts = nodewatch_cmdline_scan(buffer, size);
		printf("%d %d\n", facts.auto_resume, facts.no_requeue);
		return 0;
	}
	return 2;
}
