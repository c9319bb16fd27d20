/* `long double`, which compilers do on the x87. */

#include "bench.h"
#include <math.h>

static uint64_t fold_long(uint64_t sum, long double value)
{
    union { long double number; struct { uint64_t fraction; uint16_t sign_exponent; } parts; } both;
    both.number = value;
    return fold(fold(sum, both.parts.fraction), both.parts.sign_exponent);
}

/* Horner's rule. */
static uint64_t polynomial(void)
{
    long double factors[12], x = -1, sum = 0;
    uint64_t state = 11;
    for (int i = 0; i < 12; i++)
        factors[i] = random_double(&state) - 0.5;
    for (int i = 0; i < 6000; i++) {
        long double value = factors[0];
        for (int k = 1; k < 12; k++)
            value = value * x + factors[k];
        sum += value;
        x += 0.0003L;
    }
    return fold_long(0, sum);
}

struct body { long double at[3], speed[3], mass; };

/* Five bodies that attract each other. */
static uint64_t nbody(void)
{
    struct body bodies[5];
    uint64_t state = 5, sum = 0;
    for (int i = 0; i < 5; i++) {
        bodies[i].mass = 0.1 + random_double(&state);
        for (int k = 0; k < 3; k++) {
            bodies[i].at[k] = 10 * random_double(&state);
            bodies[i].speed[k] = random_double(&state) - 0.5;
        }
    }
    for (int step = 0; step < 500; step++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                long double way[3], square = 0.01L;
                for (int k = 0; k < 3; k++) {
                    way[k] = bodies[i].at[k] - bodies[j].at[k];
                    square += way[k] * way[k];
                }
                long double pull = 0.001L / (square * sqrtl(square));
                for (int k = 0; k < 3; k++) {
                    bodies[i].speed[k] -= way[k] * bodies[j].mass * pull;
                    bodies[j].speed[k] += way[k] * bodies[i].mass * pull;
                }
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++)
                bodies[i].at[k] += 0.001L * bodies[i].speed[k];
    }
    for (int i = 0; i < 5; i++)
        sum = fold_long(sum, bodies[i].at[0]);
    return sum;
}

static uint64_t mandelbrot(void)
{
    uint64_t sum = 0;
    for (int row = 0; row < 20; row++)
        for (int column = 0; column < 20; column++) {
            long double cr = column * (3.0L / 20) - 2.25L, ci = row * (2.5L / 20) - 1.25L;
            long double r = 0, i = 0;
            int n = 0;
            while (n < 200 && r * r + i * i < 4) {
                long double next = r * r - i * i + cr;
                i = 2 * r * i + ci;
                r = next;
                n++;
            }
            sum = fold(sum, n);
        }
    return sum;
}

/* Integers in and out, comparisons, and doubles in memory: loads and stores that convert. */
static uint64_t conversions(void)
{
    static double table[512];
    uint64_t state = 13, sum = 0;
    long double total = 0;
    for (int i = 0; i < 512; i++)
        table[i] = random_double(&state) * 1000;
    for (int i = 0; i < 12000; i++) {
        long double x = (long double)table[i & 511] * (int32_t)random32(&state);
        total = total < x ? total + 1 : total - x * 0x1p-20L;
        sum += (uint64_t)(int64_t)x;
        table[i & 511] = (double)(x * 1e-9L) + 1;
    }
    return fold_long(sum, total);
}

const struct program x87_programs[] = {
    { "polynomial", polynomial, 300 },
    { "nbody", nbody, 300 },
    { "mandelbrot", mandelbrot, 300 },
    { "conversions", conversions, 300 },
    { 0 },
};
