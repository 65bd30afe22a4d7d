/* Scratch memory; a few blocks are kept for the next call. */
#include "scratch.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define KEPT_BLOCKS 4
#define KEPT_BYTES ((size_t)64 * 1024 * 1024) /* the most of one block */

/* In front of what the caller sees. */
typedef union header {
    size_t bytes;
    max_align_t align;
    char line[64];
} header;

static _Atomic(header *) kept[KEPT_BLOCKS];

void *rc_take_scratch(size_t bytes) {
    if (bytes > SIZE_MAX - sizeof(header)) {
        return NULL;
    }
    for (int k = 0; k < KEPT_BLOCKS; ++k) {
        header *block = atomic_exchange_explicit(&kept[k], NULL, memory_order_acquire);
        if (block && block->bytes >= bytes) {
            return block + 1;
        }
        free(block); /* too small */
    }
    header *block = malloc(sizeof(header) + bytes);
    if (block) {
        block->bytes = bytes;
    }
    return block ? block + 1 : NULL;
}

void rc_give_scratch(void *memory) {
    header *block = memory ? (header *)memory - 1 : NULL;
    if (block && block->bytes > KEPT_BYTES) {
        free(block);
        return;
    }
    for (int k = 0; block && k < KEPT_BLOCKS; ++k) {
        block = atomic_exchange_explicit(&kept[k], block, memory_order_acq_rel);
    }
    free(block);
}
