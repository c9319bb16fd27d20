/* Double-precision programs, scalar SSE2 as compilers make it. */

#include "bench.h"
#include <math.h>
#include <string.h>

enum { N = 96 };
static double matrix[N][N];

/* Factors a matrix in place into a lower and an upper triangle, with row exchanges. */
static uint64_t lu(void)
{
    uint64_t state = 3, sum = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            matrix[i][j] = random_double(&state) - 0.5;
    for (int k = 0; k < N; k++) {
        int pivot = k;
        for (int i = k + 1; i < N; i++)
            if (fabs(matrix[i][k]) > fabs(matrix[pivot][k]))
                pivot = i;
        for (int j = 0; j < N; j++) {
            double cell = matrix[k][j];
            matrix[k][j] = matrix[pivot][j];
            matrix[pivot][j] = cell;
        }
        for (int i = k + 1; i < N; i++) {
            double factor = matrix[i][k] /= matrix[k][k];
            for (int j = k + 1; j < N; j++)
                matrix[i][j] -= factor * matrix[k][j];
        }
    }
    for (int i = 0; i < N; i++)
        sum = fold_double(sum, matrix[i][i]);
    return sum;
}

struct body { double at[3], speed[3], mass; };

/* Eight bodies that attract each other. */
static uint64_t nbody(void)
{
    struct body bodies[8];
    uint64_t state = 5, sum = 0;
    for (int i = 0; i < 8; i++) {
        bodies[i].mass = 0.1 + random_double(&state);
        for (int k = 0; k < 3; k++) {
            bodies[i].at[k] = 10 * random_double(&state);
            bodies[i].speed[k] = random_double(&state) - 0.5;
        }
    }
    for (int step = 0; step < 750; step++) {
        for (int i = 0; i < 8; i++)
            for (int j = i + 1; j < 8; j++) {
                double way[3], square = 0.01;
                for (int k = 0; k < 3; k++) {
                    way[k] = bodies[i].at[k] - bodies[j].at[k];
                    square += way[k] * way[k];
                }
                double pull = 0.001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    bodies[i].speed[k] -= way[k] * bodies[j].mass * pull;
                    bodies[j].speed[k] += way[k] * bodies[i].mass * pull;
                }
            }
        for (int i = 0; i < 8; i++)
            for (int k = 0; k < 3; k++)
                bodies[i].at[k] += 0.001 * bodies[i].speed[k];
    }
    for (int i = 0; i < 8; i++)
        sum = fold_double(sum, bodies[i].at[0]);
    return sum;
}

static uint64_t mandelbrot(void)
{
    uint64_t sum = 0;
    for (int row = 0; row < 48; row++)
        for (int column = 0; column < 48; column++) {
            double cr = column * (3.0 / 48) - 2.25, ci = row * (2.5 / 48) - 1.25, r = 0, i = 0;
            int n = 0;
            while (n < 200 && r * r + i * i < 4) {
                double next = r * r - i * i + cr;
                i = 2 * r * i + ci;
                r = next;
                n++;
            }
            sum = fold(sum, n);
        }
    return sum;
}

/* The last bits of its results depend on whether the library uses FMA: they are cut off. */
static uint64_t libm(double (*function)(double))
{
    double x = 0.1, sum = 0;
    for (int i = 0; i < 25000; i++) {
        sum += function(x);
        x += 0.0004;
    }
    return llround(sum * 1e6);
}

static double power(double x) { return pow(x, 1.7); }
static uint64_t libm_sin(void) { return libm(sin); }
static uint64_t libm_exp(void) { return libm(exp); }
static uint64_t libm_log(void) { return libm(log); }
static uint64_t libm_pow(void) { return libm(power); }

/* Between integers of both widths, float and double. */
static uint64_t conversions(void)
{
    uint64_t state = 7, sum = 0;
    double total = 0;
    float small = 0;
    for (int i = 0; i < 50000; i++) {
        int32_t integer = (int32_t)random32(&state);
        double number = integer * 1.25;
        small += (float)number;
        total += (double)small * 0x1p-40 + (double)(int64_t)(number * 65537.0);
        sum += (uint64_t)(int64_t)number + (uint64_t)(int32_t)((float)integer * 0.5f);
    }
    return fold_double(sum, total);
}

const struct program double_programs[] = {
    { "lu", lu, 300 },
    { "nbody", nbody, 300 },
    { "mandelbrot", mandelbrot, 300 },
    { "sin", libm_sin, 300 },
    { "exp", libm_exp, 300 },
    { "log", libm_log, 300 },
    { "pow", libm_pow, 300 },
    { "conversions", conversions, 300 },
    { 0 },
};
