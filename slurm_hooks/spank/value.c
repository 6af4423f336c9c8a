/* SPDX-License-Identifier: MIT */
/* What may stand after --auto-resume. No Slurm here: tests build this file alone. */
#include "value.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define FORMS "write N (0 to 99), default or off, and dir=/PATH or spares=K after a comma"

/* One word between two commas, not terminated. */
struct word {
	const char *text;
	size_t length;
};

struct parts {
	int retries;   /* -1: not said */
	int spares;    /* -1: not said */
	struct word dir; /* length 0: not said */
	bool is_default;
	bool is_off;
};

static int parse_number(struct word word, int most)
{
	int number = 0;

	if (word.length == 0)
		return -1;
	/* Digits only: strtol would let " 3", "+3" and "0x3" through. */
	for (size_t i = 0; i < word.length; i++) {
		if (word.text[i] < '0' || word.text[i] > '9')
			return -1;
		number = number * 10 + (word.text[i] - '0');
		if (number > most)
			return -1;
	}
	return number;
}

static bool is(struct word word, const char *known)
{
	return word.length == strlen(known) && strncmp(word.text, known, word.length) == 0;
}

/* Is it KEY=...? Then word becomes what follows. */
static bool take_key(struct word *word, const char *key)
{
	size_t length = strlen(key);

	if (word->length <= length || strncmp(word->text, key, length) != 0 || word->text[length] != '=')
		return false;
	word->text += length + 1;
	word->length -= length + 1;
	return true;
}

/* An absolute path without what would break a line of the job's environment. */
static bool is_path(struct word word)
{
	if (word.length == 0 || word.text[0] != '/')
		return false;
	for (size_t i = 0; i < word.length; i++)
		if ((unsigned char)word.text[i] < ' ' || word.text[i] == 0x7f)
			return false;
	return true;
}

static int twice(const char *what, char *error, size_t size)
{
	snprintf(error, size, "%s is said twice: say it once", what);
	return -1;
}

static int take_word(struct word word, struct parts *parts, char *error, size_t size)
{
	int shown = (int)word.length;
	const char *text = word.text;
	int number;

	if (word.length == 0) {
		snprintf(error, size, "a comma has nothing beside it");
		return -1;
	}
	if (take_key(&word, "dir")) {
		if (parts->dir.length != 0)
			return twice("dir", error, size);
		if (!is_path(word)) {
			snprintf(error, size, "\"%.*s\" is no absolute path: write dir=/PATH", shown, text);
			return -1;
		}
		parts->dir = word;
		return 0;
	}
	if (take_key(&word, "spares")) {
		if (parts->spares >= 0)
			return twice("spares", error, size);
		parts->spares = parse_number(word, NODEWATCH_SPARES_MAX);
		if (parts->spares >= 0)
			return 0;
		snprintf(error, size, "\"%.*s\" is no number from 0 to %d", shown, text, NODEWATCH_SPARES_MAX);
		return -1;
	}
	if (memchr(text, '=', word.length) != NULL) {
		snprintf(error, size, "\"%.*s\" is unknown: known are dir=/PATH and spares=K", shown, text);
		return -1;
	}
	if (parts->retries >= 0 || parts->is_default || parts->is_off)
		return twice("N", error, size);
	if (is(word, "off")) {
		parts->is_off = true;
		return 0;
	}
	if (is(word, "default")) {
		parts->is_default = true;
		return 0;
	}
	number = parse_number(word, NODEWATCH_RESUMES_MAX);
	if (number < 0) {
		snprintf(error, size, "\"%.*s\" is not understood: " FORMS, shown, text);
		return -1;
	}
	parts->retries = number;
	return 0;
}

static int take_words(const char *text, struct parts *parts, char *error, size_t size)
{
	for (;;) {
		struct word word = { text, strcspn(text, ",") };

		if (take_word(word, parts, error, size) != 0)
			return -1;
		if (text[word.length] == '\0')
			break;
		text += word.length + 1;
	}
	if (parts->is_off && (parts->spares >= 0 || parts->dir.length != 0)) {
		snprintf(error, size, "off stands alone");
		return -1;
	}
	return 0;
}

/* The text was no longer than NODEWATCH_TEXT_MAX, and what is added to it is "default," at most. */
static void write_canonical(const struct parts *parts, char out[static NODEWATCH_VALUE_SIZE])
{
	size_t used;

	if (parts->is_off) {
		strcpy(out, "off");
		return;
	}
	if (parts->retries >= 0)
		used = (size_t)snprintf(out, NODEWATCH_VALUE_SIZE, "%d", parts->retries);
	else
		used = (size_t)snprintf(out, NODEWATCH_VALUE_SIZE, "default");
	if (parts->dir.length != 0)
		used += (size_t)snprintf(out + used, NODEWATCH_VALUE_SIZE - used, ",dir=%.*s", (int)parts->dir.length,
					 parts->dir.text);
	if (parts->spares >= 0)
		snprintf(out + used, NODEWATCH_VALUE_SIZE - used, ",spares=%d", parts->spares);
}

/* srun in a marked job finds the bare option in its environment, printed with %s from a NULL. */
static const char bare_in_environment[] = "(null)";

int nodewatch_value_parse(const char *text, enum value_origin origin, char out[static NODEWATCH_VALUE_SIZE],
			  char *error, size_t error_size)
{
	struct parts parts = { .retries = -1, .spares = -1 };

	if (text == NULL || strcmp(text, bare_in_environment) == 0 || (text[0] == '\0' && origin == VALUE_FORWARDED)) {
		strcpy(out, "default");
		return 0;
	}
	if (text[0] == '\0') {
		snprintf(error, error_size, "nothing follows the \"=\": " FORMS);
		return -1;
	}
	if (strlen(text) > NODEWATCH_TEXT_MAX) {
		snprintf(error, error_size, "more than %d bytes follow: write a shorter path", NODEWATCH_TEXT_MAX);
		return -1;
	}
	if (take_words(text, &parts, error, error_size) != 0)
		return -1;
	write_canonical(&parts, out);
	return 0;
}
