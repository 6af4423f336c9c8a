/* SPDX-License-Identifier: MIT */
/* Arguments from plugstack.conf. No Slurm here: tests build this file alone. */
#include "args.h"

#include <stdio.h>
#include <string.h>

struct key {
	const char *name;
	size_t offset;
};

static const struct key keys[] = {
	{ "append_output", offsetof(struct plugin_args, append_output) },
	{ "request_requeue", offsetof(struct plugin_args, request_requeue) },
};

#define KEYS (sizeof(keys) / sizeof(keys[0]))

static bool *find(struct plugin_args *args, const char *text, size_t length)
{
	for (size_t i = 0; i < KEYS; i++)
		if (strlen(keys[i].name) == length && strncmp(keys[i].name, text, length) == 0)
			return (bool *)((char *)args + keys[i].offset);
	return NULL;
}

int nodewatch_args_parse(int ac, char *const av[], struct plugin_args *args,
			 char *error, size_t error_size)
{
	for (int i = 0; i < ac; i++) {
		size_t length = strcspn(av[i], "=");
		const char *value = av[i][length] == '=' ? av[i] + length + 1 : "";
		bool *field = find(args, av[i], length);

		/* A misspelt argument that is ignored leaves a site believing it is set. */
		if (field == NULL) {
			snprintf(error, error_size,
				 "plugstack.conf: unknown argument \"%s\"; known are append_output=yes|no and "
				 "request_requeue=yes|no", av[i]);
			return -1;
		}
		if (strcmp(value, "yes") == 0) {
			*field = true;
		} else if (strcmp(value, "no") == 0) {
			*field = false;
		} else {
			snprintf(error, error_size, "plugstack.conf: \"%s\" must end in =yes or =no", av[i]);
			return -1;
		}
	}
	return 0;
}
