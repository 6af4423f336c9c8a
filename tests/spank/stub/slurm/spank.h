/* SPDX-License-Identifier: MIT */
/*
 * Just enough of Slurm's plugin interface to build the plugin where no Slurm is installed,
 * so that its warnings and its exported symbols are tested everywhere.
 */
#ifndef NODEWATCH_STUB_SPANK_H
#define NODEWATCH_STUB_SPANK_H

#include <slurm/slurm_errno.h>
#include <slurm/slurm_version.h>

typedef struct spank_handle *spank_t;
typedef int spank_err_t;
typedef int (*spank_opt_cb_f)(int val, const char *optarg, int remote);

enum spank_context {
	S_CTX_ERROR,
	S_CTX_LOCAL,
	S_CTX_REMOTE,
	S_CTX_ALLOCATOR,
	S_CTX_SLURMD,
	S_CTX_JOB_SCRIPT,
};

struct spank_option {
	char *name;
	char *arginfo;
	char *usage;
	int has_arg;
	int val;
	spank_opt_cb_f cb;
};

enum spank_context spank_context(void);
const char *spank_strerror(spank_err_t err);
spank_err_t spank_option_register(spank_t spank, struct spank_option *option);
spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite);
spank_err_t spank_job_control_setenv(spank_t spank, const char *name, const char *value, int overwrite);

#define STUB_PRINTF __attribute__((format(printf, 1, 2)))
void slurm_error(const char *format, ...) STUB_PRINTF;
void slurm_info(const char *format, ...) STUB_PRINTF;
void slurm_verbose(const char *format, ...) STUB_PRINTF;

#define SPANK_PLUGIN(name, version)                            \
	const char plugin_name[] = #name;                      \
	const char plugin_type[] = "spank";                    \
	const unsigned int plugin_version = SLURM_VERSION_NUMBER; \
	const unsigned int spank_plugin_version = version;

#endif
