/* SPDX-License-Identifier: MIT */
/* slurmstepd: the variable reaches the tasks even under --export=NONE. */
#include "plugin.h"

int nodewatch_remote_option(struct plugin_context *context, const char *text)
{
	char error[NODEWATCH_VALUE_SIZE + 160];

	/* Judged at submission; a step must not die here because two machines run two releases of this. */
	if (nodewatch_value_parse(text, VALUE_FORWARDED, context->value, error, sizeof(error)) == 0)
		context->given = true;
	else
		slurm_verbose("nodewatch: ignoring --auto-resume, which this release does not know: %s", error);
	return 0;
}

int nodewatch_remote_user_init(spank_t spank, struct plugin_context *context)
{
	spank_err_t rc;

	if (!context->given)
		return 0;
	rc = spank_setenv(spank, NODEWATCH_VARIABLE, context->value, 1);
	if (rc != ESPANK_SUCCESS)
		slurm_verbose("nodewatch: cannot set %s for the step: %s", NODEWATCH_VARIABLE, spank_strerror(rc));
	return 0;
}
