/* Random calls against the oracle, to the bit, for every instruction set this machine has. */
#include "oracle.h"
#include "problem.h"

#define ROUNDS 1500

static void compare(const problem *p, const char *isa, int round) {
    const rc_align_call *call = &p->call;
    const size_t size = rc_dtype_size(call->out_dtype);
    int64_t column = 0;
    for (int32_t s = 0; s < call->num_streams; ++s) {
        const rc_stream *stream = &call->streams[s];
        for (int64_t b = 0; b < call->batch; ++b) {
            const run q = run_of_row(stream, call->time_dtype, b);
            for (int64_t j = 0; j < call->num_targets; ++j) {
                reading readings[MAX_GROUPS];
                const bool valid = read_target(call, s, &q, b, j, readings);
                const uint8_t *got_valid = call->valid
                                               ? &call->valid[(b * call->num_targets + j) * call->num_streams + s]
                                               : NULL;
                CHECK(!got_valid || *got_valid == valid, "round %d %s: valid[%d, %d, %d] is %d", round, isa, (int)b,
                      (int)j, s, !valid);
                for (int32_t g = 0; g < stream->num_groups; ++g) {
                    for (int64_t c = stream->groups[g].begin; c < stream->groups[g].end; ++c) {
                        uint64_t expected = 0;
                        evaluate(stream, call->time_dtype, &q, &stream->groups[g], c, readings[g], &expected,
                                 call->out_dtype);
                        const int64_t at = b * call->out_stride[0] + j * call->out_stride[1] +
                                           (column + c) * call->out_stride[2];
                        const char *got = (const char *)call->out + at * (int64_t)size;
                        CHECK(
                            same_value(got, &expected, call->out_dtype),
                            "round %d %s: stream %d, row %d, target %d, column %d, kind %d, %d -> %d, times %d, samples "
                            "%d %d of %d, w %.17g: got %.17g, expected %.17g",
                            round, isa, s, (int)b, (int)j, (int)c, stream->groups[g].kind, stream->value_dtype,
                            call->out_dtype, call->time_dtype, (int)readings[g].i0, (int)readings[g].i1, (int)q.n,
                            readings[g].w, read_value(got, call->out_dtype), read_value(&expected, call->out_dtype));
                    }
                }
            }
            free(q.times);
        }
        column += stream->num_columns;
    }
}

/* Elements of `out`'s memory that no output row owns stay as they were. */
static void check_holes(const problem *p, const char *isa, int round) {
    const rc_align_call *call = &p->call;
    const int64_t size = (int64_t)rc_dtype_size(call->out_dtype);
    if (call->batch == 0 || call->num_targets == 0 || p->columns == 0 || call->out_stride[1] != 2 * p->columns + 1) {
        return;
    }
    for (int64_t k = 0; k < p->out_count; ++k) {
        const int64_t in_row = k % call->out_stride[0];
        const int64_t in_target = in_row % call->out_stride[1];
        const bool owned = in_row / call->out_stride[1] < call->num_targets && in_target % 2 == 0 &&
                           in_target / 2 < p->columns;
        for (int64_t byte = 0; byte < (owned ? 0 : size); ++byte) {
            CHECK(((const uint8_t *)p->out_memory)[k * size + byte] == 0xa5, "round %d %s: wrote into a hole", round,
                  isa);
        }
    }
}

int main(void) {
    int64_t launches = 0;
    rc_reset_launch_counts();
    for (int round = 0; round < ROUNDS; ++round) {
        problem p;
        make_problem(&p, false);
        const char *isa;
        for (int32_t k = 0; (isa = isa_number(k)); ++k) {
            memset(p.out_memory, 0xa5, (size_t)p.out_count * rc_dtype_size(p.call.out_dtype));
            const rc_status status = rc_align_cpu(&p.call);
            CHECK(status == RC_OK, "round %d %s: %s: %s", round, isa, rc_status_name(status), rc_last_error());
            compare(&p, isa, round);
            check_holes(&p, isa, round);
            launches += p.call.batch > 0 && p.call.num_targets > 0;
        }
        free_problem(&p);
    }
    CHECK(rc_launch_count(RC_KERNEL_ALIGN_CPU) == launches, "%" PRId64 " launches counted, %" PRId64 " made",
          rc_launch_count(RC_KERNEL_ALIGN_CPU), launches);
    printf("%d random calls agree with the oracle (%" PRId64 " runs)\n", ROUNDS, launches);
    return 0;
}
