/* Debian's own programs over a text of 256 KiB, started from the current folder: `./ld.so` loads
   the dynamic ones, with the libraries beside it. */

#define _GNU_SOURCE
#include "bench.h"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT = 1 << 18 };

/* Files in memory: the text, and what a command made of it. */
static int text = -1, packed = -1;

static int new_file(void)
{
    int file = memfd_create("bench", 0);
    require(file >= 0, "memfd_create");
    return file;
}

/* Words of a small vocabulary, the first ones more often, in lines. */
static void make_text(void)
{
    static char buffer[TEXT];
    uint64_t state = 31;
    size_t length = 0;
    if (text >= 0)
        return;
    while (length < TEXT - 16) {
        uint32_t word = random32(&state) % 2000 * (random32(&state) % 2000) / 2000, letters = word;
        for (unsigned i = 0; i < 2 + word % 7; i++) {
            buffer[length++] = 'a' + letters % 26;
            letters = letters * 31 + 7;
        }
        buffer[length++] = random32(&state) % 8 == 0 ? '\n' : ' ';
    }
    text = new_file();
    require(write(text, buffer, length) == (ssize_t)length, "write");
}

/* Runs a command on a file and returns its output's file. */
static int run(const char *const *command, int input)
{
    int output = new_file(), status;
    lseek(input, 0, SEEK_SET);
    pid_t child = fork();
    if (child == 0) {
        dup2(input, 0);
        dup2(output, 1);
        execv(command[0], (char **)command);
        _exit(127);
    }
    require(child > 0 && waitpid(child, &status, 0) == child && status == 0, command[0]);
    return output;
}

static uint64_t checksum(const char *const *command, int input)
{
    static uint64_t block[512];
    uint64_t sum = 0;
    int output = run(command, input);
    ssize_t length;
    lseek(output, 0, SEEK_SET);
    while ((length = read(output, block, sizeof block)) > 0) {
        memset((char *)block + length, 0, sizeof block - length);
        for (int i = 0; i < 512; i++)
            sum = fold(sum, block[i]);
    }
    close(output);
    return sum;
}

#define COMMAND(...) (const char *const[]){ __VA_ARGS__, 0 }
#define XZ(FLAG) COMMAND("./ld.so", "--library-path", ".", "./xz", FLAG)
#define GZIP(FLAG) COMMAND("./ld.so", "--library-path", ".", "./gzip", FLAG)
#define BUSYBOX(...) COMMAND("./busybox", __VA_ARGS__)

static void make_packed(const char *const *command)
{
    make_text();
    if (packed >= 0)
        close(packed);
    packed = run(command, text);
}

static void pack_xz(void) { make_packed(XZ("-c1")); }
static void pack_gzip(void) { make_packed(GZIP("-cn")); }

static uint64_t xz(void) { return checksum(XZ("-c1"), text); }
static uint64_t unxz(void) { return checksum(XZ("-cd"), packed); }
static uint64_t gzip(void) { return checksum(GZIP("-cn"), text); }
static uint64_t gunzip(void) { return checksum(GZIP("-cd"), packed); }
static uint64_t sha256sum(void) { return checksum(BUSYBOX("sha256sum"), text); }
static uint64_t sort(void) { return checksum(BUSYBOX("sort"), text); }

static uint64_t awk(void)
{
    return checksum(BUSYBOX("awk", "{ for (i = 1; i <= NF; i++) n[$i] += length($i) }"
                                   "END { for (word in n) s += n[word] % 7; print NR, s }"), text);
}

const struct program compression_programs[] = {
    { "xz", xz, 10, make_text },
    { "unxz", unxz, 40, pack_xz },
    { "gzip", gzip, 10, make_text },
    { "gunzip", gunzip, 40, pack_gzip },
    { "sha256sum", sha256sum, 40, make_text },
    { "sort", sort, 40, make_text },
    { "awk", awk, 10, make_text },
    { 0 },
};
