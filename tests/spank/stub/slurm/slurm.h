/* SPDX-License-Identifier: MIT */
/* The few fields of Slurm's job records that the plugin reads or sets. */
#ifndef NODEWATCH_STUB_SLURM_H
#define NODEWATCH_STUB_SLURM_H

#include <stdint.h>

#define SHOW_ALL 1

typedef struct {
	uint32_t job_id;
	uint16_t batch_flag;
	uint16_t requeue;
	char *extra;
} slurm_job_info_t;

typedef struct {
	uint32_t record_count;
	slurm_job_info_t *job_array;
} job_info_msg_t;

typedef struct {
	uint32_t job_id;
	uint16_t requeue;
	char *extra;
} job_desc_msg_t;

int slurm_load_job(job_info_msg_t **jobs, uint32_t job_id, uint16_t flags);
int slurm_update_job(job_desc_msg_t *change);
void slurm_init_job_desc_msg(job_desc_msg_t *change);
void slurm_free_job_info_msg(job_info_msg_t *jobs);

#endif
