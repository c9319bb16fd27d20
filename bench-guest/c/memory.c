/* More memory than caches hold: in order, at random, and each address from the load before. */

#include "bench.h"
#include <stdlib.h>

enum { N = 1 << 20, TABLE = 1 << 23, CHAIN = 1 << 22, SHORT_CHAIN = 1 << 13 };

static double *a, *b, *c;

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    require(memory != NULL, "malloc");
    return memory;
}

static void arrays(void)
{
    if (!a) {
        a = allocate(N * sizeof *a);
        b = allocate(N * sizeof *b);
        c = allocate(N * sizeof *c);
    }
    for (int i = 0; i < N; i++) {
        a[i] = i;
        b[i] = 2 * i;
        c[i] = 1;
    }
}

#define STREAM(NAME, STATEMENT, RESULT)                     \
    static uint64_t NAME(void)                              \
    {                                                       \
        for (int i = 0; i < N; i++)                         \
            STATEMENT;                                      \
        return fold_double(fold_double(0, RESULT[1]), RESULT[N - 1]); \
    }

STREAM(copy, c[i] = a[i], c)
STREAM(scale, c[i] = 3 * a[i], c)
STREAM(add, c[i] = a[i] + b[i], c)
STREAM(triad, c[i] = a[i] + 3 * b[i], c)

static uint64_t *table;

static void clear(void)
{
    if (!table)
        table = allocate(TABLE * sizeof *table);
    for (int i = 0; i < TABLE; i++)
        table[i] = i;
}

/* Updates at random places; the second half undoes the first. */
static uint64_t updates(void)
{
    uint64_t sum = 0;
    for (int half = 0; half < 2; half++) {
        uint64_t state = 23;
        for (int i = 0; i < 12500; i++) {
            uint64_t *word = table + random32(&state) % TABLE;
            *word ^= state;
            sum += *word;
        }
    }
    return sum;
}

/* The chain: where each word leads, and the number of each word on the way. */
static uint32_t *chain, *number, chain_length;

/* One cycle through all of `length` words, in random order. */
static void make_chain(uint32_t length)
{
    uint64_t state = 29;
    if (!chain) {
        chain = allocate(CHAIN * sizeof *chain);
        number = allocate(CHAIN * sizeof *number);
    }
    chain_length = length;
    for (uint32_t i = 0; i < length; i++)
        chain[i] = i;
    for (uint32_t i = length - 1; i > 0; i--) {
        uint32_t j = random32(&state) % i, word = chain[i];
        chain[i] = chain[j];
        chain[j] = word;
    }
    for (uint32_t i = 0, at = 0; i < length; i++, at = chain[at])
        number[at] = i;
}

static void long_chain(void) { make_chain(CHAIN); }
static void short_chain(void) { make_chain(SHORT_CHAIN); }

/* Goes on from where it was; how far it came, round the cycle. */
static uint64_t chase(unsigned steps)
{
    static uint32_t at;
    uint32_t start = at %= chain_length;
    while (steps--)
        at = chain[at];
    return (number[at] + chain_length - number[start]) % chain_length;
}

static uint64_t chase_16m(void) { return chase(10000); }
static uint64_t chase_32k(void) { return chase(100000); }

const struct program memory_programs[] = {
    { "copy", copy, 60, arrays },
    { "scale", scale, 60, arrays },
    { "add", add, 60, arrays },
    { "triad", triad, 60, arrays },
    { "random-64m", updates, 200, clear },
    { "chase-32k", chase_32k, 300, short_chain },
    { "chase-16m", chase_16m, 200, long_chain },
    { 0 },
};
