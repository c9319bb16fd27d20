/* The C library's string functions, as it chooses them for the CPU, and string instructions. */

#include "bench.h"
#include <string.h>

enum { SIZE = 1 << 20 };

/* Some bytes more, so that nothing is aligned by accident only. */
static unsigned char from[SIZE + 64], to[SIZE + 64];

static void fill(void)
{
    uint64_t state = 1;
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = random32(&state) | 1; /* no zero: strlen finds those that it makes */
    memset(to, 0, sizeof to);
}

static void equal(void)
{
    fill();
    memcpy(to, from, sizeof to);
}

#define ALONE __attribute__((noinline, noclone)) /* so that no call gets a constant size */

/* `memcpy` of `size` bytes, `count` times, the start of both moving by some bytes. */
ALONE static uint64_t copy(size_t size, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(to + i % 16, from + i % 32, size);
    return fold(to[0] << 8 | to[size - 1], to[size / 2]);
}

static uint64_t memcpy_64(void) { return copy(64, 50000); }
static uint64_t memcpy_4k(void) { return copy(4096, 2500); }
static uint64_t memcpy_1m(void) { return copy(SIZE, 5); }

ALONE static uint64_t set(size_t size, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        memset(to + i % 16, i, size);
    return fold(to[0] << 8 | to[size - 1], to[size / 2]);
}

static uint64_t memset_64(void) { return set(64, 50000); }
static uint64_t memset_4k(void) { return set(4096, 2500); }

ALONE static uint64_t length(size_t size, unsigned count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t end = size + i % 16;
        unsigned char old = from[end];
        from[end] = 0;
        sum += strlen((char *)from + i % 32);
        from[end] = old;
    }
    return sum;
}

static uint64_t strlen_32(void) { return length(32, 25000); }
static uint64_t strlen_4k(void) { return length(4096, 5000); }

ALONE static uint64_t compare(size_t size, unsigned count)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t last = size - 1 - i % 16;
        to[last] ^= 1;
        sum += memcmp(from + i % 8, to + i % 8, size) > 0;
        to[last] ^= 1;
    }
    return sum;
}

static uint64_t memcmp_32(void) { return compare(32, 25000); }
static uint64_t memcmp_4k(void) { return compare(4096, 2500); }

ALONE static uint64_t movsb(size_t size, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        void *destination = to + i % 16, *source = from + i % 32;
        size_t left = size;
        __asm__ volatile("rep movsb" : "+D"(destination), "+S"(source), "+c"(left) : : "memory");
    }
    return fold(to[0] << 8 | to[size - 1], to[size / 2]);
}

static uint64_t rep_movsb_64(void) { return movsb(64, 5000); }
static uint64_t rep_movsb_4k(void) { return movsb(4096, 250); }

static uint64_t rep_stosq_4k(void)
{
    for (unsigned i = 0; i < 2500; i++) {
        void *destination = to + i % 2 * 8;
        size_t left = 512;
        __asm__ volatile("rep stosq" : "+D"(destination), "+c"(left)
                         : "a"(i * UINT64_C(0x0101010101010101)) : "memory");
    }
    return fold(to[0], to[4000]);
}

const struct program string_programs[] = {
    { "memcpy-64", memcpy_64, 300, fill },
    { "memcpy-4k", memcpy_4k, 300, fill },
    { "memcpy-1m", memcpy_1m, 300, fill },
    { "memset-64", memset_64, 300, fill },
    { "memset-4k", memset_4k, 300, fill },
    { "strlen-32", strlen_32, 300, fill },
    { "strlen-4k", strlen_4k, 300, fill },
    { "memcmp-32", memcmp_32, 300, equal },
    { "memcmp-4k", memcmp_4k, 300, equal },
    { "rep-movsb-64", rep_movsb_64, 300, fill },
    { "rep-movsb-4k", rep_movsb_4k, 300, fill },
    { "rep-stosq-4k", rep_stosq_4k, 300, fill },
    { 0 },
};
