/* SPDX-License-Identifier: MIT */
/* What may stand after --auto-resume. No Slurm here: tests build this file alone. */
#include "value.h"

#include <stdio.h>
#include <string.h>

static int parse_number(const char *text)
{
	int number = 0;

	/* Digits only: strtol would let " 3", "+3" and "0x3" through. */
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		number = number * 10 + (*text - '0');
		if (number > NODEWATCH_RESUMES_MAX)
			return -1;
	}
	return number;
}

/* srun in a marked job finds the bare option in its environment, printed with %s from a NULL. */
static const char bare_in_environment[] = "(null)";

int nodewatch_value_parse(const char *text, enum value_origin origin,
			  char out[static NODEWATCH_VALUE_SIZE])
{
	int number;

	if (text == NULL || strcmp(text, bare_in_environment) == 0 || (text[0] == '\0' && origin == VALUE_FORWARDED)) {
		strcpy(out, "default");
		return 0;
	}
	if (strcmp(text, "off") == 0) {
		strcpy(out, "off");
		return 0;
	}
	/* The word a bare option was turned into must survive being passed on. */
	if (strcmp(text, "default") == 0 && origin == VALUE_FORWARDED) {
		strcpy(out, "default");
		return 0;
	}
	if (text[0] == '\0')
		return -1;
	number = parse_number(text);
	if (number < 0)
		return -1;
	snprintf(out, NODEWATCH_VALUE_SIZE, "%d", number);
	return 0;
}
