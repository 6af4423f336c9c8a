/* SPDX-License-Identifier: MIT */
/* The few fields of Slurm's job records that the plugin reads or sets. */
#ifndef NODEWATCH_STUB_SLURM_H
#define NODEWATCH_STUB_SLURM_H

#include <stdint.h>

#include <slurm/slurm_version.h>

#define SHOW_ALL 1
#define NO_VAL 0xfffffffe

/* 26.05 names a job by a step id. */
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(26, 5, 0)
typedef struct {
	uint32_t job_id;
	uint32_t step_id;
} slurm_step_id_t;
#define SLURM_STEP_ID_INITIALIZER ((slurm_step_id_t){ .job_id = NO_VAL, .step_id = NO_VAL })
#define STUB_NAMED slurm_step_id_t step_id
#else
#define STUB_NAMED uint32_t job_id
#endif

typedef struct {
	STUB_NAMED;
	uint16_t batch_flag;
	uint16_t requeue;
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(23, 2, 0)
	char *extra;
#endif
} slurm_job_info_t;

typedef struct {
	uint32_t record_count;
	slurm_job_info_t *job_array;
} job_info_msg_t;

typedef struct {
	STUB_NAMED;
	uint16_t requeue;
	char *extra;
} job_desc_msg_t;

int slurm_load_job(job_info_msg_t **jobs, STUB_NAMED, uint16_t flags);
int slurm_update_job(job_desc_msg_t *change);
void slurm_init_job_desc_msg(job_desc_msg_t *change);
void slurm_free_job_info_msg(job_info_msg_t *jobs);

#endif
