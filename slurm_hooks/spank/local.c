/* SPDX-License-Identifier: MIT */
/* srun: what a step may ask for, and what it is told. */
#include "plugin.h"

#include <stdlib.h>

int nodewatch_local_post_opt(spank_t spank, struct plugin_context *context)
{
	const char *job_id = getenv("SLURM_JOB_ID");

	if (!context->given)
		return 0;
	if (job_id == NULL) {
		if (nodewatch_option_wanted(context))
			slurm_info("nodewatch: srun on its own leaves no script that could be started again, so "
				   "--auto-resume will not restart it; submit a script with sbatch --auto-resume");
		/* The allocation that srun makes for itself shows its mark to the prologs all the same. */
		if (spank_job_control_setenv(spank, NODEWATCH_VARIABLE, context->value, 1) != ESPANK_SUCCESS)
			slurm_verbose("nodewatch: the mark of --auto-resume does not reach the prologs");
	} else if (getenv(NODEWATCH_VARIABLE) == NULL && nodewatch_option_wanted(context)) {
		nodewatch_job_mark(job_id, context->value);
	}
	if (setenv(NODEWATCH_VARIABLE, context->value, 1) != 0) {
		slurm_error("nodewatch: cannot set %s in the step's environment: %m", NODEWATCH_VARIABLE);
		return -1;
	}
	return 0;
}
