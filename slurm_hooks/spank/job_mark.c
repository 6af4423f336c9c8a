/* SPDX-License-Identifier: MIT */
/*
 * `srun --auto-resume` inside a batch job that was submitted without it: Slurm requeues whole jobs, so the job has
 * to be marked after the fact. Slurm takes no new job control variables for a running job, but its owner may set
 * its Extra field, which the controller reads. This way scripts written for HyperPod run unchanged.
 */
#include "plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm/slurm.h>

#define MARK_PREFIX "nodewatch:auto-resume="

static void tell_failure(uint32_t job_id, const char *value, const char *why)
{
	slurm_info("nodewatch: job %u was submitted without --auto-resume and cannot be marked now (%s): write "
		   "#SBATCH --auto-resume=%s in its script to have it resumed", job_id, why, value);
}

static void mark(const slurm_job_info_t *job, const char *value)
{
	char extra[sizeof(MARK_PREFIX) + NODEWATCH_VALUE_SIZE];
	job_desc_msg_t change;

	if (!job->batch_flag) {
		slurm_info("nodewatch: Slurm cannot put an interactive allocation back in the queue, so --auto-resume "
			   "will not restart this one; submit a script with sbatch --auto-resume");
		return;
	}
	snprintf(extra, sizeof(extra), "%s%s", MARK_PREFIX, value);
	if (job->extra != NULL && job->extra[0] != '\0') {
		if (strcmp(job->extra, extra) == 0)
			return; /* an earlier step did it */
		if (strncmp(job->extra, MARK_PREFIX, strlen(MARK_PREFIX)) != 0) {
			tell_failure(job->job_id, value, "its Extra field holds something of the user's");
			return;
		}
	}
	slurm_init_job_desc_msg(&change);
	change.job_id = job->job_id;
	change.extra = extra;
	if (!job->requeue)
		change.requeue = 1;
	if (slurm_update_job(&change) != 0)
		tell_failure(job->job_id, value, "slurmctld refused");
}

void nodewatch_job_mark(const char *job_id_text, const char *value)
{
	unsigned long job_id = strtoul(job_id_text, NULL, 10);
	job_info_msg_t *jobs = NULL;

	if (slurm_load_job(&jobs, (uint32_t)job_id, SHOW_ALL) != 0 || jobs == NULL) {
		tell_failure((uint32_t)job_id, value, "slurmctld did not say what it is");
		return;
	}
	/* One record, or for a heterogeneous job its components: the first is the one that is requeued. */
	if (jobs->record_count > 0)
		mark(&jobs->job_array[0], value);
	slurm_free_job_info_msg(jobs);
}
