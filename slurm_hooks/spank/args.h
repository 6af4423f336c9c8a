/* SPDX-License-Identifier: MIT */
#ifndef NODEWATCH_ARGS_H
#define NODEWATCH_ARGS_H

#include <stdbool.h>
#include <stddef.h>

/* What a site wrote behind the plugin's name in plugstack.conf. */
struct plugin_args {
	bool append_output;   /* append_output=yes|no: a requeued job keeps its earlier output */
	bool request_requeue; /* request_requeue=yes|no: ask for requeue where JobRequeue=0 */
};

/*
 * Read the arguments; args keeps its defaults where nothing was said. Returns 0, or -1
 * with one sentence in error.
 */
int nodewatch_args_parse(int ac, char *const av[], struct plugin_args *args,
			 char *error, size_t error_size);

#endif
