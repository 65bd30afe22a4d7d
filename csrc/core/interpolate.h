/* The arithmetic between two samples, one function per kind, and its derivatives.
 *
 * linear and angle are written so that plain torch, C and CUDA give the same bits: each operation rounds on its own and
 * only +, -, *, / and floor appear. pchip and slerp run in double for every value type and round once at the end.
 */
#ifndef RC_CORE_INTERPOLATE_H
#define RC_CORE_INTERPOLATE_H

#include "portable.h"

RC_INLINE float rc_lerp_f32(float v0, float v1, float w) {
    return v0 + w * (v1 - v0);
}

RC_INLINE double rc_lerp_f64(double v0, double v1, double w) {
    return v0 + w * (v1 - v0);
}

/* ---- Angle: shortest arc in [-pi, pi) --------------------------------------------------------------------------- */

#define RC_PI_F32 3.14159274101257324f     /* pi rounded to float32 */
#define RC_TWO_PI_F32 6.28318548202514648f /* exactly twice that */
#define RC_PI_F64 3.141592653589793116
#define RC_TWO_PI_F64 6.283185307179586232

/* Wraps into [-pi, pi); an angle that is already there keeps its bits. Selections instead of branches, so that rows of
 * angles become vector code. */
RC_INLINE float rc_wrap_f32(float a) {
    const float turns = floorf((a + RC_PI_F32) / RC_TWO_PI_F32);
    float r = a - turns * RC_TWO_PI_F32;
    r = r >= RC_PI_F32 ? r - RC_TWO_PI_F32 : r;
    r = r < -RC_PI_F32 ? -RC_PI_F32 : r;
    return (a >= -RC_PI_F32) & (a < RC_PI_F32) ? a : r;
}

RC_INLINE double rc_wrap_f64(double a) {
    const double turns = floor((a + RC_PI_F64) / RC_TWO_PI_F64);
    double r = a - turns * RC_TWO_PI_F64;
    r = r >= RC_PI_F64 ? r - RC_TWO_PI_F64 : r;
    r = r < -RC_PI_F64 ? -RC_PI_F64 : r;
    return (a >= -RC_PI_F64) & (a < RC_PI_F64) ? a : r;
}

RC_INLINE float rc_angle_f32(float v0, float v1, float w) {
    return rc_wrap_f32(v0 + w * rc_wrap_f32(v1 - v0));
}

RC_INLINE double rc_angle_f64(double v0, double v1, double w) {
    return rc_wrap_f64(v0 + w * rc_wrap_f64(v1 - v0));
}

/* ---- pchip ------------------------------------------------------------------------------------------------------ */

/* Slope at a knot between two intervals: the weighted harmonic mean of their slopes, 0 where they turn
 * (Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5, 1984). partial[0..1]: derivative by m_left and m_right. */
RC_INLINE double rc_pchip_inner_slope(double h_left, double h_right, double m_left, double m_right, double partial[2]) {
    partial[0] = partial[1] = 0.0;
    if (m_left != m_left || m_right != m_right) {
        return m_left + m_right;
    }
    if (!((m_left > 0.0 && m_right > 0.0) || (m_left < 0.0 && m_right < 0.0))) {
        return 0.0;
    }
    const double w_left = 2.0 * h_right + h_left;
    const double w_right = h_right + 2.0 * h_left;
    const double sum = w_left + w_right;
    const double d = sum / (w_left / m_left + w_right / m_right);
    partial[0] = d * d * w_left / (sum * m_left * m_left);
    partial[1] = d * d * w_right / (sum * m_right * m_right);
    return d;
}

/* Slope at an end knot from its interval (h, m) and the next one inward (h_in, m_in), limited to keep the shape.
 * h_in == 0: there is no other interval. partial[0..1]: derivative by m and m_in. */
RC_INLINE double rc_pchip_end_slope(double h, double h_in, double m, double m_in, double partial[2]) {
    partial[0] = 1.0;
    partial[1] = 0.0;
    if (!(h_in > 0.0)) {
        return m;
    }
    const double sum = h + h_in;
    const double a = (2.0 * h + h_in) / sum;
    const double b = -h / sum;
    const double d = a * m + b * m_in;
    if ((d > 0.0) != (m > 0.0) || (d < 0.0) != (m < 0.0)) {
        partial[0] = 0.0;
        return d != d ? d : 0.0;
    }
    if (((m > 0.0) != (m_in > 0.0) || (m < 0.0) != (m_in < 0.0)) && fabs(d) > 3.0 * fabs(m)) {
        partial[0] = 3.0;
        return 3.0 * m;
    }
    partial[0] = a;
    partial[1] = b;
    return d;
}

/* A monotone cubic between v[1] and v[2] at s (0 .. 1; outside, the end's tangent goes on), with the samples v[0] and
 * v[3] around them. h[0..2]: lengths of the three intervals, 0 where one is missing (its outer sample is not used).
 * dv: derivative by each sample, or NULL; ds: derivative by s, or NULL. */
RC_INLINE double rc_pchip(const double v[4], const double h[3], double s, double dv[4], double *ds) {
    const bool left = h[0] > 0.0;
    const bool right = h[2] > 0.0;
    const double m = (v[2] - v[1]) / h[1];
    const double m_left = left ? (v[1] - v[0]) / h[0] : 0.0;
    const double m_right = right ? (v[3] - v[2]) / h[2] : 0.0;
    double p0[2], p1[2]; /* p0: slope 0 by (m_left | m_right at an end) and m; p1: slope 1 likewise */
    double d0, d1;
    double d0_m, d0_left = 0.0, d0_right = 0.0, d1_m, d1_left = 0.0, d1_right = 0.0;
    if (left) {
        d0 = rc_pchip_inner_slope(h[0], h[1], m_left, m, p0);
        d0_left = p0[0];
        d0_m = p0[1];
    } else {
        d0 = rc_pchip_end_slope(h[1], h[2], m, m_right, p0);
        d0_m = p0[0];
        d0_right = p0[1];
    }
    if (right) {
        d1 = rc_pchip_inner_slope(h[1], h[2], m, m_right, p1);
        d1_m = p1[0];
        d1_right = p1[1];
    } else {
        d1 = rc_pchip_end_slope(h[1], h[0], m, m_left, p1);
        d1_m = p1[0];
        d1_left = p1[1];
    }
    /* Cubic v1 + h s (d0 + s (c2 + s c3)); outside [0, 1] the tangent. by_*: derivative of the result. */
    const double hs = h[1];
    double value, by_v1, by_v2, by_m, by_d0, by_d1, slope;
    if (s < 0.0) {
        value = v[1] + hs * s * d0;
        by_v1 = 1.0;
        by_v2 = 0.0;
        by_m = 0.0;
        by_d0 = hs * s;
        by_d1 = 0.0;
        slope = hs * d0;
    } else if (s > 1.0) {
        value = v[2] + hs * (s - 1.0) * d1;
        by_v1 = 0.0;
        by_v2 = 1.0;
        by_m = 0.0;
        by_d0 = 0.0;
        by_d1 = hs * (s - 1.0);
        slope = hs * d1;
    } else {
        const double c2 = 3.0 * m - 2.0 * d0 - d1;
        const double c3 = d0 + d1 - 2.0 * m;
        value = v[1] + hs * s * (d0 + s * (c2 + s * c3));
        by_v1 = 1.0;
        by_v2 = 0.0;
        by_m = hs * s * s * (3.0 - 2.0 * s);
        by_d0 = hs * s * (1.0 - s) * (1.0 - s);
        by_d1 = -hs * s * s * (1.0 - s);
        slope = hs * (d0 + s * (2.0 * c2 + s * 3.0 * c3));
    }
    if (dv) {
        const double g_m = by_m + by_d0 * d0_m + by_d1 * d1_m;
        const double g_left = by_d0 * d0_left + by_d1 * d1_left;
        const double g_right = by_d0 * d0_right + by_d1 * d1_right;
        dv[0] = left ? -g_left / h[0] : 0.0;
        dv[1] = by_v1 - g_m / h[1] + (left ? g_left / h[0] : 0.0);
        dv[2] = by_v2 + g_m / h[1] - (right ? g_right / h[2] : 0.0);
        dv[3] = right ? g_right / h[2] : 0.0;
    }
    if (ds) {
        *ds = slope;
    }
    return value;
}

/* ---- Slerp ------------------------------------------------------------------------------------------------------ */

RC_INLINE double rc_dot4(const double a[4], const double b[4]) {
    return ((a[0] * b[0] + a[1] * b[1]) + a[2] * b[2]) + a[3] * b[3];
}

/* Unit vector along q, and its length. A zero quaternion is no rotation: NaN. */
RC_INLINE double rc_unit4(const double q[4], double unit[4]) {
    const double length = sqrt(rc_dot4(q, q));
    for (int k = 0; k < 4; ++k) {
        unit[k] = q[k] / length;
    }
    return length;
}

/* Angle between unit quaternions by Kahan's formula, accurate for near and far ones; in [0, pi / 2] once the signs
 * agree. */
RC_INLINE double rc_angle_between4(const double a[4], const double b[4]) {
    double difference[4], sum[4];
    for (int k = 0; k < 4; ++k) {
        difference[k] = a[k] - b[k];
        sum[k] = a[k] + b[k];
    }
    return 2.0 * atan2(sqrt(rc_dot4(difference, difference)), sqrt(rc_dot4(sum, sum)));
}

/* Spherical interpolation along the shorter arc (Shoemake 1985). The order of components does not matter. q1 is
 * flipped when it lies in the other half space; a dot product of exactly 0 keeps it. Equal (or opposite) inputs give
 * that rotation. */
RC_INLINE void rc_slerp(const double q0[4], const double q1[4], double w, double out[4]) {
    double a[4], b[4];
    rc_unit4(q0, a);
    rc_unit4(q1, b);
    if (rc_dot4(a, b) < 0.0) {
        for (int k = 0; k < 4; ++k) {
            b[k] = -b[k];
        }
    }
    const double angle = rc_angle_between4(a, b);
    const double sine = sin(angle);
    const double wa = sine == 0.0 ? 1.0 - w : sin((1.0 - w) * angle) / sine;
    const double wb = sine == 0.0 ? w : sin(w * angle) / sine;
    double mixed[4];
    for (int k = 0; k < 4; ++k) {
        mixed[k] = wa * a[k] + wb * b[k];
    }
    rc_unit4(mixed, out);
}

/* (d/dx sin(k x) / sin x) / sin x, by series where the quotient loses its digits. */
RC_INLINE double rc_slerp_weight_slope(double k, double angle, double sine) {
    if (angle < 1e-3) { /* next term is of order angle^4, 1e-12 */
        const double k2 = k * k;
        return k * (1.0 - k2) / 3.0 * (1.0 + angle * angle * (4.0 - k2) / 10.0);
    }
    return (k * cos(k * angle) * sine - sin(k * angle) * cos(angle)) / (sine * sine * sine);
}

/* Gradient of rc_slerp: g by the output -> g0, g1 by the inputs. */
RC_INLINE void rc_slerp_grad(const double q0[4], const double q1[4], double w, const double g[4], double g0[4],
                             double g1[4]) {
    double a[4], b[4];
    const double length0 = rc_unit4(q0, a);
    const double length1 = rc_unit4(q1, b);
    const double sign = rc_dot4(a, b) < 0.0 ? -1.0 : 1.0;
    for (int k = 0; k < 4; ++k) {
        b[k] *= sign;
    }
    const double angle = rc_angle_between4(a, b);
    const double sine = sin(angle);
    const double wa = sine == 0.0 ? 1.0 - w : sin((1.0 - w) * angle) / sine;
    const double wb = sine == 0.0 ? w : sin(w * angle) / sine;
    /* By cos(angle) = a . b: d(angle) = -d(a . b) / sin(angle). */
    const double by_cosine = -(rc_slerp_weight_slope(1.0 - w, angle, sine) * rc_dot4(g, a) +
                               rc_slerp_weight_slope(w, angle, sine) * rc_dot4(g, b));
    double ga[4], gb[4];
    for (int k = 0; k < 4; ++k) {
        ga[k] = wa * g[k] + by_cosine * b[k];
        gb[k] = wb * g[k] + by_cosine * a[k];
    }
    /* Normalising the inputs: only what stands across them counts. (The result is a unit vector for unit inputs, so
     * normalising it again has no gradient of its own, except along it.) */
    const double along0 = rc_dot4(ga, a);
    const double along1 = rc_dot4(gb, b);
    for (int k = 0; k < 4; ++k) {
        g0[k] = (ga[k] - along0 * a[k]) / length0;
        g1[k] = sign * (gb[k] - along1 * b[k]) / length1;
    }
}

#endif /* RC_CORE_INTERPOLATE_H */
