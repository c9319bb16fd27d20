/* What the files of programs share. */

#include <stddef.h>
#include <stdint.h>

/* A benchmark: `unit` does the same work each time it is called and returns a checksum of its
   results, which `setup`, if there is one, has made ready without being timed. */
struct program {
    const char *name;
    uint64_t (*unit)(void);
    unsigned units;       /* how often it runs if time allows */
    void (*setup)(void);
    int needs_avx2;
};

/* Ends with a program without a name. */
extern const struct program string_programs[], double_programs[], vector_programs[],
    x87_programs[], memory_programs[], os_programs[], compression_programs[];

/* How this program was called. */
extern const char *program_path;

/* Knuth's 64-bit linear congruential generator; the upper half of the state is the output. */
static inline uint32_t random32(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 32;
}

/* A number in [0, 1). */
static inline double random_double(uint64_t *state)
{
    return random32(state) * 0x1p-32;
}

/* Mixes one more result into a checksum. */
static inline uint64_t fold(uint64_t sum, uint64_t value)
{
    return ((sum << 5 | sum >> 59) ^ value) * 0x9e3779b97f4a7c15u;
}

static inline uint64_t fold_double(uint64_t sum, double value)
{
    union { double number; uint64_t bits; } both = { value };
    return fold(sum, both.bits);
}

/* Ends the program with a message if `good` is not true. */
void require(int good, const char *what);
