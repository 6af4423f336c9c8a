/* SPDX-License-Identifier: MIT */
#ifndef NODEWATCH_VALUE_H
#define NODEWATCH_VALUE_H

#include <stddef.h>

#define NODEWATCH_VALUE_SIZE 16
#define NODEWATCH_RESUMES_MAX 99

/* Where the text came from decides what an empty one means. */
enum value_origin {
	VALUE_TYPED,     /* by the user: "--auto-resume=" is a slip of the keyboard */
	VALUE_FORWARDED, /* by Slurm to a step: a bare option arrives as an empty text */
};

/*
 * Write the canonical form of what followed --auto-resume ("default", "off" or
 * a number without leading zeros) to out. text is NULL for the bare option.
 * Returns 0, or -1 and leaves out alone.
 */
int nodewatch_value_parse(const char *text, enum value_origin origin,
			  char out[static NODEWATCH_VALUE_SIZE]);

#endif
