/* SPDX-License-Identifier: MIT */
/*
 * A Slurm command in miniature: loads the plugin as sbatch, salloc or srun does, replays the order
 * in which they parse, and prints what the plugin said and set.
 *
 * usage: STUB_CONTEXT=allocator STUB_PLUGIN=FILE sbatch [--auto-resume[=TEXT]] [script[=TEXT]] [plugstack=ARG]...
 * where script stands for an #SBATCH line; the name of the program is that of the command.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm/slurm.h>
#include <slurm/spank.h>

typedef int call_t(spank_t, int, char **);

static enum spank_context current;
static struct spank_option *registered;

enum spank_context spank_context(void)
{
	return current;
}

const char *spank_strerror(spank_err_t err)
{
	(void)err;
	return "stub";
}

spank_err_t spank_option_register(spank_t spank, struct spank_option *option)
{
	(void)spank;
	registered = option;
	if (getenv("STUB_HELP") != NULL)
		printf("      --%s=%s\n%s\n", option->name, option->arginfo, option->usage);
	printf("registered --%s has_arg=%d\n", option->name, option->has_arg);
	return ESPANK_SUCCESS;
}

spank_err_t spank_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
	(void)spank;
	(void)overwrite;
	printf("step %s=%s\n", name, value);
	return ESPANK_SUCCESS;
}

spank_err_t spank_job_control_setenv(spank_t spank, const char *name, const char *value, int overwrite)
{
	(void)spank;
	(void)overwrite;
	printf("job control %s=%s\n", name, value);
	return ESPANK_SUCCESS;
}

/* The one job that this slurmctld knows: STUB_BATCH, STUB_REQUEUE and STUB_EXTRA describe it. */
int slurm_load_job(job_info_msg_t **jobs, uint32_t job_id, uint16_t flags)
{
	static slurm_job_info_t job;
	static job_info_msg_t message = { 1, &job };

	(void)flags;
	if (getenv("STUB_BATCH") == NULL)
		return -1;
	job.job_id = job_id;
	job.batch_flag = strcmp(getenv("STUB_BATCH"), "1") == 0;
	job.requeue = getenv("STUB_REQUEUE") != NULL;
	job.extra = getenv("STUB_EXTRA");
	*jobs = &message;
	return 0;
}

void slurm_init_job_desc_msg(job_desc_msg_t *change)
{
	change->job_id = 0;
	change->requeue = 0xfffe;
	change->extra = NULL;
}

int slurm_update_job(job_desc_msg_t *change)
{
	printf("update job %u extra=%s%s\n", change->job_id, change->extra, change->requeue == 1 ? " requeue" : "");
	return getenv("STUB_REFUSE") != NULL ? -1 : 0;
}

void slurm_free_job_info_msg(job_info_msg_t *jobs)
{
	(void)jobs;
}

#define SAY(function, word)                          \
	void function(const char *format, ...)       \
	{                                            \
		va_list list;                        \
		va_start(list, format);              \
		printf("%s ", word);                 \
		vprintf(format, list);               \
		printf("\n");                        \
		va_end(list);                        \
	}
SAY(slurm_error, "error")
SAY(slurm_info, "info")
SAY(slurm_verbose, "verbose")

static void show(const char *when, const char *name)
{
	const char *value = getenv(name);

	if (value != NULL)
		printf("%s %s=%s\n", when, name, value);
}

static int take(const char *argument, const char *word)
{
	size_t length = strlen(word);

	if (registered == NULL || strncmp(argument, word, length) != 0)
		return 0;
	if (argument[length] == '\0')
		return registered->cb(registered->val, NULL, current == S_CTX_REMOTE);
	if (argument[length] != '=')
		return 0;
	return registered->cb(registered->val, argument + length + 1, current == S_CTX_REMOTE);
}

static call_t *find(void *plugin, const char *name)
{
	call_t *call;
	void *symbol = dlsym(plugin, name);

	memcpy(&call, &symbol, sizeof(call));
	return call;
}

int main(int argc, char *argv[])
{
	static const char *const contexts[] = { "error", "local", "remote", "allocator", "slurmd", "job_script" };
	const char *context = getenv("STUB_CONTEXT");
	void *plugin = dlopen(getenv("STUB_PLUGIN"), RTLD_NOW);
	char *plugstack[8];
	int plugstack_count = 0;

	if (plugin == NULL || context == NULL) {
		fprintf(stderr, "STUB_CONTEXT and STUB_PLUGIN must name a context and a plugin that loads\n");
		return 2;
	}
	for (int i = 0; i < 6; i++)
		if (strcmp(context, contexts[i]) == 0)
			current = (enum spank_context)i;
	for (int i = 1; i < argc; i++)
		if (strncmp(argv[i], "plugstack=", strlen("plugstack=")) == 0 && plugstack_count < 8)
			plugstack[plugstack_count++] = argv[i] + strlen("plugstack=");

	if (find(plugin, "slurm_spank_init")(NULL, plugstack_count, plugstack) != 0)
		return 1;
	for (int i = 1; i < argc; i++)
		if (take(argv[i], "script") != 0)
			return 1;
	/* Here sbatch reads its environment. */
	show("read", "SBATCH_OPEN_MODE");
	show("read", "SBATCH_REQUEUE");
	for (int i = 1; i < argc; i++)
		if (take(argv[i], "--auto-resume") != 0)
			return 1;
	if (current == S_CTX_REMOTE)
		return find(plugin, "slurm_spank_user_init")(NULL, 0, NULL) != 0;
	if (find(plugin, "slurm_spank_init_post_opt")(NULL, 0, NULL) != 0)
		return 1;
	/* And here it copies the environment for the job. */
	show("job", "SBATCH_OPEN_MODE");
	show("job", "SBATCH_REQUEUE");
	show("job", "NODEWATCH_AUTO_RESUME");
	return 0;
}
