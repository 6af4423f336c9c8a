/* SPDX-License-Identifier: MIT */
#ifndef NODEWATCH_CMDLINE_H
#define NODEWATCH_CMDLINE_H

#include <stdbool.h>
#include <stddef.h>

struct cmdline_facts {
	bool auto_resume; /* --auto-resume, perhaps abbreviated, stands before the script, and not =off */
	bool no_requeue;  /* --no-requeue does */
};

/* Read facts from the arguments of a Slurm command, NUL separated as in /proc/PID/cmdline. */
struct cmdline_facts nodewatch_cmdline_scan(const char *args, size_t size);

/* The same for this very process; no facts when /proc cannot be read. */
struct cmdline_facts nodewatch_cmdline_self(void);

#endif
