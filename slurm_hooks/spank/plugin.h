/* SPDX-License-Identifier: MIT */
#ifndef NODEWATCH_PLUGIN_H
#define NODEWATCH_PLUGIN_H

#include <stdbool.h>

#include <slurm/spank.h>

#include "args.h"
#include "value.h"

#define NODEWATCH_VARIABLE "NODEWATCH_AUTO_RESUME"

/* The one mutable state: a SPANK option callback gets no handle to hang it on. */
struct plugin_context {
	struct plugin_args args;
	bool given;                       /* the option was seen */
	char value[NODEWATCH_VALUE_SIZE]; /* its canonical text, when given */
	/* sbatch only */
	bool no_requeue_typed;
	bool lent_open_mode; /* we set SBATCH_OPEN_MODE, and have to take it back */
	bool lent_requeue;   /* the same for SBATCH_REQUEUE */
};

int nodewatch_option_register(spank_t spank, spank_opt_cb_f callback);
/* Judge what a user typed, with one sentence and -1 when it makes no sense. */
int nodewatch_option_typed(struct plugin_context *context, const char *text);
/* Was the option given, and not as --auto-resume=off? */
bool nodewatch_option_wanted(const struct plugin_context *context);

/* sbatch and salloc */
int nodewatch_allocator_init(spank_t spank, struct plugin_context *context);
int nodewatch_allocator_option(struct plugin_context *context, const char *text);
int nodewatch_allocator_post_opt(spank_t spank, struct plugin_context *context);

/* srun */
int nodewatch_local_post_opt(spank_t spank, struct plugin_context *context);
void nodewatch_job_mark(const char *job_id_text, const char *value);

/* slurmstepd */
int nodewatch_remote_option(struct plugin_context *context, const char *text);
int nodewatch_remote_user_init(spank_t spank, struct plugin_context *context);

#endif
