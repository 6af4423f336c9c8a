/* SPDX-License-Identifier: MIT */
#ifndef NODEWATCH_VALUE_H
#define NODEWATCH_VALUE_H

#include <stddef.h>

/* The hooks and the agent take no longer text: half a path would be another directory. */
#define NODEWATCH_TEXT_MAX 900
#define NODEWATCH_VALUE_SIZE (NODEWATCH_TEXT_MAX + sizeof("default,"))
#define NODEWATCH_RESUMES_MAX 99
#define NODEWATCH_SPARES_MAX 999

/* Where the text came from decides what an empty one means. */
enum value_origin {
	VALUE_TYPED,     /* by the user: "--auto-resume=" is a slip of the keyboard */
	VALUE_FORWARDED, /* by Slurm to a step: a bare option arrives as an empty text */
};

/*
 * Judge what followed --auto-resume: N, "default" or "off", and "dir=/PATH" and "spares=K", with commas between, in any
 * order. nodewatch/model/auto_resume.py judges the same on the other side. text is NULL for the bare option.
 *
 * Writes the canonical form to out ("off", or a number or "default" with what was said behind it) and returns 0; or
 * returns -1, leaves out alone and writes one clause to error that says what is wrong and what to write.
 */
int nodewatch_value_parse(const char *text, enum value_origin origin, char out[static NODEWATCH_VALUE_SIZE],
			  char *error, size_t error_size);

#endif
