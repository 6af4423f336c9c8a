/* SPDX-License-Identifier: MIT */
#include "plugin.h"

#include <string.h>

int nodewatch_option_register(spank_t spank, spank_opt_cb_f callback)
{
	/* Registered by call: sbatch and salloc do not read a static spank_options[] table. */
	static char name[] = "auto-resume";
	static char arginfo[] = "N|off";
	static char usage[] = "[nodewatch] put the job back in the queue, at its front, when a node breaks "
			      "under it; at most N times (0-99)";
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
	if (nodewatch_value_parse(text, VALUE_TYPED, context->value) != 0) {
		slurm_error("nodewatch: --auto-resume=%s is not understood: write --auto-resume, "
			    "--auto-resume=N with N from 0 to %d, or --auto-resume=off",
			    text, NODEWATCH_RESUMES_MAX);
		return -1;
	}
	context->given = true;
	return 0;
}

bool nodewatch_option_wanted(const struct plugin_context *context)
{
	return context->given && strcmp(context->value, "off") != 0;
}
