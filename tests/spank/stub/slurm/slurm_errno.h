/* SPDX-License-Identifier: MIT */
#ifndef NODEWATCH_STUB_ERRNO_H
#define NODEWATCH_STUB_ERRNO_H

#define ESPANK_SUCCESS 0
#define ESPANK_JOB_FAILURE 3001

#endif
