/* Programs in C that `cargo xtask bench` runs on the host and in guests: all that Rust cannot say
   (long double, the C library's string functions, intrinsics without unsafe code), and what an
   operating system does for a program.

   A program does the same unit of work again and again, natively for 50 to 100 ms in all, but no
   longer than LIMIT; so a slow emulator does fewer units. A unit is short, a fraction of a
   millisecond natively where that is possible, so that some escape the other load of the machine. A
   program prints

       bench GROUP NAME UNITS NANOSECONDS CHECKSUM

   with the time of its fastest unit by CLOCK_MONOTONIC and the checksum of a unit's results in
   hexadecimal, the same for all units. Where the CPU lacks AVX2, UNITS is 0 for a program that needs
   it. Arguments are the groups to run, or GROUP/NAME for one program. */

#include "bench.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LIMIT = 700 * 1000 * 1000 }; /* ns */

static const struct { const char *name; const struct program *programs; } groups[] = {
    { "string", string_programs },
    { "double", double_programs },
    { "vector", vector_programs },
    { "x87", x87_programs },
    { "memory", memory_programs },
    { "os", os_programs },
    { "compression", compression_programs },
};

const char *program_path;

void require(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

static void run(const char *group, const struct program *program)
{
    if (program->needs_avx2 && !__builtin_cpu_supports("avx2")) {
        printf("bench %s %s 0 0 -\n", group, program->name);
        return;
    }
    if (program->setup)
        program->setup();
    uint64_t checksum = 0, least = UINT64_MAX, start = now(), before = start;
    unsigned units = 0;
    while (units < program->units && (units == 0 || before - start < LIMIT)) {
        uint64_t result = program->unit(), after = now();
        if (units++ == 0)
            checksum = result;
        if (result != checksum) {
            fprintf(stderr, "%s: %llx is not the result of the first unit\n", program->name,
                    (unsigned long long)result);
            exit(1);
        }
        if (after - before < least)
            least = after - before;
        before = after;
    }
    printf("bench %s %s %u %llu %016llx\n", group, program->name, units,
           (unsigned long long)least, (unsigned long long)checksum);
    fflush(stdout);
}

static int wanted(int count, char **arguments, const char *group, const char *name)
{
    size_t length = strlen(group);
    for (int i = 1; i < count; i++) {
        const char *it = arguments[i];
        if (strncmp(it, group, length) == 0
            && (it[length] == 0 || (it[length] == '/' && strcmp(it + length + 1, name) == 0)))
            return 1;
    }
    return 0;
}

int main(int count, char **arguments)
{
    /* What `os/exec` starts. */
    if (count == 2 && strcmp(arguments[1], "exit") == 0)
        return 7;
    program_path = arguments[0];
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        for (const struct program *it = groups[i].programs; it->name; it++)
            if (wanted(count, arguments, groups[i].name, it->name))
                run(groups[i].name, it);
    return 0;
}
