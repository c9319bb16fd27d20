/* What an operating system does for a program. All of it on one CPU, which is what guests have. */

#define _GNU_SOURCE
#include "bench.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void one_cpu(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    require(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

static uint64_t system_call(void)
{
    uint64_t parent = syscall(SYS_getppid), same = 0;
    for (int i = 0; i < 2000; i++)
        same += (uint64_t)syscall(SYS_getppid) == parent;
    return same;
}

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals = signals + 1;
}

static uint64_t signal_handler(void)
{
    signals = 0;
    signal(SIGUSR1, count_signal);
    for (int i = 0; i < 200; i++)
        raise(SIGUSR1);
    return signals;
}

static unsigned wait_for(pid_t child)
{
    int status;
    require(child > 0 && waitpid(child, &status, 0) == child, "fork and waitpid");
    return WEXITSTATUS(status);
}

static uint64_t fork_wait(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        if (child == 0)
            _exit(3);
        sum += wait_for(child);
    }
    return sum;
}

static uint64_t fork_exec(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 1; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl(program_path, program_path, "exit", (char *)0);
            _exit(1);
        }
        sum += wait_for(child);
    }
    return sum;
}

/* Half a kilobyte into a pipe and out again. */
static uint64_t pipe_copy(void)
{
    char block[512] = { 1 };
    int ends[2];
    uint64_t sum = 0;
    require(pipe(ends) == 0, "pipe");
    for (int i = 0; i < 500; i++) {
        sum += write(ends[1], block, sizeof block);
        sum += read(ends[0], block, sizeof block);
    }
    close(ends[0]);
    close(ends[1]);
    return sum;
}

/* A byte to another process and back through two pipes: two switches of address space. */
static uint64_t process_switch(void)
{
    enum { TURNS = 200 };
    int there[2], back[2];
    char byte = 1;
    uint64_t sum = 0;
    require(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    for (int i = 0; i < TURNS; i++)
        if (child == 0) {
            byte += read(there[0], &byte, 1);
            byte += write(back[1], &byte, 1);
        } else {
            sum += write(there[1], &byte, 1);
            sum += read(back[0], &byte, 1);
        }
    if (child == 0)
        _exit(0);
    sum += wait_for(child);
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
    return sum + byte;
}

static uint64_t map_unmap(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < 200; i++) {
        char *memory = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        require(memory != MAP_FAILED, "mmap");
        sum += munmap(memory, 1 << 16) == 0;
    }
    return sum;
}

static uint64_t page_fault(void)
{
    enum { PAGES = 256 };
    size_t size = PAGES * 4096;
    uint64_t sum = 0;
    char *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(memory != MAP_FAILED, "mmap");
    madvise(memory, size, MADV_NOHUGEPAGE);
    for (int i = 0; i < PAGES; i++)
        sum += ++memory[i * 4096];
    munmap(memory, size);
    return sum;
}

static int turn;

static void take_turns(int mine)
{
    for (int i = 0; i < 200; i++) {
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != mine)
            syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, !mine, 0, 0, 0);
        __atomic_store_n(&turn, !mine, __ATOMIC_RELEASE);
        syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    }
}

static void *second(void *nothing)
{
    take_turns(1);
    return nothing;
}

/* Two threads that wake each other. */
static uint64_t futex(void)
{
    pthread_t thread;
    turn = 0;
    require(pthread_create(&thread, 0, second, 0) == 0, "pthread_create");
    take_turns(0);
    pthread_join(thread, 0);
    return turn + 1;
}

/* A file in memory, written and read again by blocks of a page. */
static uint64_t file(void)
{
    enum { BLOCKS = 64 };
    char block[4096];
    uint64_t sum = 0;
    int it = memfd_create("file", 0);
    require(it >= 0, "memfd_create");
    for (int i = 0; i < BLOCKS; i++) {
        memset(block, i, sizeof block);
        require(write(it, block, sizeof block) == sizeof block, "write");
    }
    lseek(it, 0, SEEK_SET);
    for (int i = 0; i < BLOCKS; i++) {
        require(read(it, block, sizeof block) == sizeof block, "read");
        sum = fold(sum, block[i]);
    }
    close(it);
    return sum;
}

const struct program os_programs[] = {
    { "system-call", system_call, 200, one_cpu },
    { "signal", signal_handler, 200, one_cpu },
    { "fork", fork_wait, 200, one_cpu },
    { "exec", fork_exec, 200, one_cpu },
    { "pipe", pipe_copy, 200, one_cpu },
    { "switch", process_switch, 200, one_cpu },
    { "mmap", map_unmap, 200, one_cpu },
    { "page-fault", page_fault, 200, one_cpu },
    { "futex", futex, 200, one_cpu },
    { "file", file, 200, one_cpu },
    { 0 },
};
