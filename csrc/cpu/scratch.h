/* Scratch memory of a call. */
#ifndef RC_CPU_SCRATCH_H
#define RC_CPU_SCRATCH_H

#include <stddef.h>

/* `bytes` of memory, not cleared and aligned for any type; NULL: there is none. A block given back earlier serves where
 * it is large enough, since memory fresh from the system costs more than most kernels' work. Any thread. */
void *rc_take_scratch(size_t bytes);

/* Gives a block of rc_take_scratch() back; NULL is fine. */
void rc_give_scratch(void *block);

#endif /* RC_CPU_SCRATCH_H */
