/* SPDX-License-Identifier: MIT */
#include "plugin.h"

#include <string.h>

int nodewatch_option_register(spank_t spank, spank_opt_cb_f callback)
{
	/* Registered by call: sbatch and salloc do not read a static spank_options[] table. */
	static char name[] = "auto-resume";
	/* sbatch --help leaves 24 columns for the option and wraps the rest at 50: two lines. */
	static char arginfo[] = "N|off";
	static char usage[] = "[nodewatch] restart when a node fails, N times at "
			      "most; N,dir=PATH: from its checkpoints in PATH";
	static struct spank_option option = { name, arginfo, usage, 2, 0, NULL };
	spank_err_t rc;

	option.cb = callback;
	rc = spank_option_register(spank, &option);
	if (rc != ESPANK_SUCCESS) {
		slurm_error("nodewatch: cannot register --auto-resume: %s", spank_strerror(rc));
		return -1;
	}
	return 0;
}

int nodewatch_option_typed(struct plugin_context *context, const char *text)
{
	char error[NODEWATCH_VALUE_SIZE + 160];

	if (nodewatch_value_parse(text, VALUE_TYPED, context->value, error, sizeof(error)) != 0) {
		slurm_error("nodewatch: --auto-resume: %s", error);
		return -1;
	}
	context->given = true;
	return 0;
}

bool nodewatch_option_wanted(const struct plugin_context *context)
{
	return context->given && strcmp(context->value, "off") != 0;
}
