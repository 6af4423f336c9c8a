/* SPDX-License-Identifier: MIT */
#ifndef NODEWATCH_STUB_VERSION_H
#define NODEWATCH_STUB_VERSION_H

#define SLURM_VERSION_NUM(major, minor, micro) (((major) << 16) + ((minor) << 8) + (micro))
#ifndef SLURM_VERSION_NUMBER
#define SLURM_VERSION_NUMBER SLURM_VERSION_NUM(24, 11, 5)
#endif

#endif
