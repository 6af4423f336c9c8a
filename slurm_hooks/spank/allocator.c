/* SPDX-License-Identifier: MIT */
/* sbatch and salloc: the option is judged here, and its mark put on the job. */
#include "plugin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cmdline.h"

static bool is_sbatch(void)
{
	return strcmp(program_invocation_short_name, "sbatch") == 0;
}

static bool lend(const char *variable, const char *value)
{
	if (getenv(variable) != NULL)
		return false; /* the user's own wish */
	return setenv(variable, value, 1) == 0;
}

/* Let sbatch read, from its environment, what a job that may be requeued needs. */
static void lend_settings(struct plugin_context *context)
{
	if (context->args.append_output && lend("SBATCH_OPEN_MODE", "append"))
		context->lent_open_mode = true;
	/* Empty, as if --requeue stood alone: 26.05 refuses to submit with any other value that it does not know. */
	if (context->args.request_requeue && getenv("SBATCH_NO_REQUEUE") == NULL && lend("SBATCH_REQUEUE", ""))
		context->lent_requeue = true;
}

/* Before sbatch copies its environment for the job: an sbatch inside the job must not find them. */
static void take_settings_back(struct plugin_context *context)
{
	if (context->lent_open_mode)
		unsetenv("SBATCH_OPEN_MODE");
	if (context->lent_requeue)
		unsetenv("SBATCH_REQUEUE");
	context->lent_open_mode = false;
	context->lent_requeue = false;
}

int nodewatch_allocator_init(spank_t spank, struct plugin_context *context)
{
	struct cmdline_facts facts;

	(void)spank;
	/*
	 * Inside a marked job these come from Slurm, for its srun. sbatch would read them as options of the
	 * job it submits: a clean-up job submitted by a training job would be marked like it.
	 */
	unsetenv("SLURM_SPANK__SLURM_SPANK_OPTION_nodewatch_auto_resume_auto_resume");
	unsetenv("SLURM_SPANK_" NODEWATCH_VARIABLE);
	if (!is_sbatch())
		return 0;
	facts = nodewatch_cmdline_self();
	context->no_requeue_typed = facts.no_requeue;
	/* The only moment before sbatch reads SBATCH_* (the #SBATCH form is served by the callback). */
	if (facts.auto_resume)
		lend_settings(context);
	return 0;
}

int nodewatch_allocator_option(struct plugin_context *context, const char *text)
{
	if (nodewatch_option_typed(context, text) != 0)
		return -1;
	/* From an #SBATCH line this comes before sbatch reads SBATCH_*. */
	if (is_sbatch() && nodewatch_option_wanted(context))
		lend_settings(context);
	return 0;
}

static void tell_limits(const struct plugin_context *context)
{
	if (!is_sbatch()) {
		slurm_info("nodewatch: Slurm cannot put an interactive allocation back in the queue, so "
			   "--auto-resume will not restart this one; submit a script with sbatch --auto-resume");
		return;
	}
	if (context->no_requeue_typed || getenv("SBATCH_NO_REQUEUE") != NULL)
		slurm_error("nodewatch: --no-requeue forbids what --auto-resume needs, so this job will not be "
			    "resumed; drop one of the two");
}

int nodewatch_allocator_post_opt(spank_t spank, struct plugin_context *context)
{
	spank_err_t rc;

	if (nodewatch_option_wanted(context))
		tell_limits(context);
	take_settings_back(context);
	if (!context->given) {
		/* A job submitted from inside a marked job does not inherit the mark. */
		unsetenv(NODEWATCH_VARIABLE);
		return 0;
	}
	rc = spank_job_control_setenv(spank, NODEWATCH_VARIABLE, context->value, 1);
	if (rc != ESPANK_SUCCESS) {
		slurm_error("nodewatch: cannot mark the job for --auto-resume: %s", spank_strerror(rc));
		return -1;
	}
	if (setenv(NODEWATCH_VARIABLE, context->value, 1) != 0) {
		slurm_error("nodewatch: cannot set %s in the job's environment: %m", NODEWATCH_VARIABLE);
		return -1;
	}
	return 0;
}
