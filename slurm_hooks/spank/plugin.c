/* SPDX-License-Identifier: MIT */
/* nodewatch_auto_resume: routes Slurm's calls to the file of the context they come in. */
#include "plugin.h"

#include <slurm/slurm_errno.h>
#include <slurm/slurm_version.h>

SPANK_PLUGIN(nodewatch_auto_resume, 1)

/* Slurm finds these by name; no header declares them. */
int slurm_spank_init(spank_t spank, int ac, char **av);
int slurm_spank_init_post_opt(spank_t spank, int ac, char **av);
int slurm_spank_user_init(spank_t spank, int ac, char **av);

#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(25, 5, 0)
/* Slurm's own default drains the node when a plugin fails to start: a plugin is no hardware fault. */
extern int slurm_spank_init_failure_mode;
int slurm_spank_init_failure_mode = ESPANK_JOB_FAILURE;
#endif

static struct plugin_context context = {
	.args = { .append_output = true, .request_requeue = true },
};

static int option_callback(int val, const char *optarg, int remote)
{
	(void)val;
	if (remote)
		return nodewatch_remote_option(&context, optarg);
	if (spank_context() == S_CTX_ALLOCATOR)
		return nodewatch_allocator_option(&context, optarg);
	return nodewatch_option_typed(&context, optarg);
}

int slurm_spank_init(spank_t spank, int ac, char **av)
{
	char error[256];

	if (nodewatch_args_parse(ac, av, &context.args, error, sizeof(error)) != 0) {
		slurm_error("nodewatch: %s", error);
		return -1;
	}
	switch (spank_context()) {
	case S_CTX_ALLOCATOR:
		if (nodewatch_option_register(spank, option_callback) != 0)
			return -1;
		return nodewatch_allocator_init(spank, &context);
	case S_CTX_LOCAL:
	case S_CTX_REMOTE:
		return nodewatch_option_register(spank, option_callback);
	default: /* slurmd and the job scripts need nothing of us */
		return 0;
	}
}

int slurm_spank_init_post_opt(spank_t spank, int ac, char **av)
{
	(void)ac;
	(void)av;
	switch (spank_context()) {
	case S_CTX_ALLOCATOR:
		return nodewatch_allocator_post_opt(spank, &context);
	case S_CTX_LOCAL:
		return nodewatch_local_post_opt(spank, &context);
	default:
		return 0;
	}
}

int slurm_spank_user_init(spank_t spank, int ac, char **av)
{
	(void)ac;
	(void)av;
	return nodewatch_remote_user_init(spank, &context);
}
