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
#include <slurm/slurm_version.h>

#define MARK_PREFIX "nodewatch:auto-resume="

/* From 26.05 on Slurm's API names a job by a step id in which only the job is said. */
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(26, 5, 0)
#define JOB_ID(record) ((record)->step_id.job_id)

static int load_job(job_info_msg_t **jobs, uint32_t job_id)
{
	slurm_step_id_t named = SLURM_STEP_ID_INITIALIZER;

	named.job_id = job_id;
	return slurm_load_job(jobs, named, SHOW_ALL);
}
#else
#define JOB_ID(record) ((record)->job_id)

static int load_job(job_info_msg_t **jobs, uint32_t job_id)
{
	return slurm_load_job(jobs, job_id, SHOW_ALL);
}
#endif

static void tell_failure(uint32_t job_id, const char *value, const char *why)
{
	slurm_info("nodewatch: job %u was submitted without --auto-resume and cannot be marked now (%s): write "
		   "#SBATCH --auto-resume=%s in its script to have it resumed", job_id, why, value);
}

#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(23, 2, 0)
static void set_extra(const slurm_job_info_t *job, const char *value)
{
	char extra[sizeof(MARK_PREFIX) + NODEWATCH_VALUE_SIZE];
	job_desc_msg_t change;

	snprintf(extra, sizeof(extra), "%s%s", MARK_PREFIX, value);
	if (job->extra != NULL && job->extra[0] != '\0') {
		if (strcmp(job->extra, extra) == 0)
			return; /* an earlier step did it */
		if (strncmp(job->extra, MARK_PREFIX, strlen(MARK_PREFIX)) != 0) {
			tell_failure(JOB_ID(job), value, "its Extra field holds something of the user's");
			return;
		}
	}
	slurm_init_job_desc_msg(&change);
	JOB_ID(&change) = JOB_ID(job);
	change.extra = extra;
	if (!job->requeue)
		change.requeue = 1;
	if (slurm_update_job(&change) != 0)
		tell_failure(JOB_ID(job), value, "slurmctld refused");
}
#else
/* Jobs have an Extra field from 23.02 on. */
static void set_extra(const slurm_job_info_t *job, const char *value)
{
	tell_failure(JOB_ID(job), value, "this release of Slurm keeps no Extra field of a job");
}
#endif

static void mark(const slurm_job_info_t *job, const char *value)
{
	if (!job->batch_flag) {
		slurm_info("nodewatch: Slurm cannot put an interactive allocation back in the queue, so --auto-resume "
			   "will not restart this one; submit a script with sbatch --auto-resume");
		return;
	}
	set_extra(job, value);
}

void nodewatch_job_mark(const char *job_id_text, const char *value)
{
	unsigned long job_id = strtoul(job_id_text, NULL, 10);
	job_info_msg_t *jobs = NULL;

	if (load_job(&jobs, (uint32_t)job_id) != 0 || jobs == NULL) {
		tell_failure((uint32_t)job_id, value, "slurmctld did not say what it is");
		return;
	}
	/* One record, or for a heterogeneous job its components: the first is the one that is requeued. */
	if (jobs->record_count > 0)
		mark(&jobs->job_array[0], value);
	slurm_free_job_info_msg(jobs);
}
