/* Uses a directory and times it: the client of every side. It must cost less than what it measures.
 *
 *   client stat DIRECTORY LIST SECONDS        go there and stat the files that LIST names, one a line, round and round
 *   client read DIRECTORY LIST SECONDS        open, read, close
 *   client lookup DIRECTORY SECONDS PAUSE_US  stat names that were never asked for, with a pause between two
 *   client create DIRECTORY PREFIX SUFFIX BURST SECONDS SYNC
 *                                             create, write 4 KB, fsync (SYNC 1), close; removes each BURST untimed
 *   client command SECONDS DROP PROGRAM ...   run a program, at least RUNS times; DROP 1: dentries and inodes are dropped before each
 *   client change FROM TO TEXT SAMPLES PAUSE_US
 *                                             write "TEXT NUMBER" to a file, read another until it is there
 *
 * Prints one line of JSON: "count" and "seconds" (the timed part alone), and "nanoseconds": of up to LATENCIES single
 * operations, or for `change` the three moments of each sample on the monotonic clock: begun, closed, seen.
 * client.py does the same where there is no compiler.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LATENCIES = 200000, FILE_BYTES = 4096, CHANGE_SECONDS = 60, RUNS = 3 };

extern char **environ;
static int64_t latencies[LATENCIES];
static size_t operations, recorded;
static int64_t timed;

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "%s %s: %s\n", what, which, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void pause_for(long microseconds)
{
    if (microseconds > 0) {
        struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};
        nanosleep(&t, NULL);
    }
}

static void record(int64_t took)
{
    timed += took;
    operations++;
    if (recorded < LATENCIES)
        latencies[recorded++] = took;
}

static void report(void)
{
    printf("{\"count\": %zu, \"seconds\": %.9f, \"nanoseconds\": [", operations, timed / 1e9);
    for (size_t i = 0; i < recorded; i++)
        printf(i ? ",%lld" : "%lld", (long long)latencies[i]);
    printf("]}\n");
}

static char **lines(const char *file, size_t *count)
{
    FILE *source = fopen(file, "r");
    if (!source)
        fail("open", file);
    char **found = NULL, *line = NULL;
    size_t size = 0;
    ssize_t length;
    for (*count = 0; (length = getline(&line, &size, source)) > 0; (*count)++) {
        line[length - 1] = 0;
        found = realloc(found, (*count + 1) * sizeof *found);
        found[*count] = strdup(line);
    }
    fclose(source);
    return found;
}

static void stat_one(const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0)
        fail("stat", path);
}

static void read_one(const char *path)
{
    static char buffer[2 * FILE_BYTES];
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, buffer, sizeof buffer) != FILE_BYTES || close(fd) < 0)
        fail("read", path);
}

/* Whole passes, so that the clock is asked once for many operations. */
static void passes(const char *directory, const char *list, double seconds, void (*one)(const char *))
{
    size_t count;
    char **paths = lines(list, &count);
    if (chdir(directory) < 0) /* so that how deep it lies costs no side anything */
        fail("chdir", directory);
    for (size_t i = 0; i < count; i++)
        one(paths[i]);
    int64_t began = now(), ended = began, until = began + (int64_t)(seconds * 1e9);
    while (ended < until) {
        for (size_t i = 0; i < count; i++)
            one(paths[i]);
        operations += count;
        ended = now();
    }
    timed = ended - began;
}

static void lookup(const char *directory, double seconds, long pause)
{
    char path[4096];
    struct stat status;
    for (int64_t until = now() + (int64_t)(seconds * 1e9), n = 0; now() < until; n++) {
        snprintf(path, sizeof path, "%s/absent-%d-%lld", directory, getpid(), (long long)n);
        int64_t began = now();
        if (stat(path, &status) == 0 || errno != ENOENT)
            fail("lookup", path);
        record(now() - began);
        pause_for(pause);
    }
}

static void create(char **argument)
{
    const char *directory = argument[0], *prefix = argument[1], *suffix = argument[2];
    long burst = atol(argument[3]), sync = atol(argument[5]), made = 0, removed = 0;
    int64_t until = now() + (int64_t)(atof(argument[4]) * 1e9);
    char path[4096], text[FILE_BYTES];
    while (now() < until) {
        for (; made - removed < burst && now() < until; made++) {
            snprintf(path, sizeof path, "%s/%s%06ld%s", directory, prefix, made, suffix);
            memset(text, 'x', sizeof text);
            memcpy(text, path, strlen(path)); /* no two contents are alike */
            int64_t began = now();
            int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
            if (fd < 0)
                fail("create", path);
            if (write(fd, text, sizeof text) != sizeof text)
                fail("write", path);
            if (sync && fsync(fd) < 0)
                fail("fsync", path);
            if (close(fd) < 0)
                fail("close", path);
            record(now() - began);
        }
        for (; removed < made; removed++) {
            snprintf(path, sizeof path, "%s/%s%06ld%s", directory, prefix, removed, suffix);
            if (unlink(path) < 0)
                fail("unlink", path);
        }
    }
}

static void command(double seconds, int drop, char **program)
{
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    int64_t until = now() + (int64_t)(seconds * 1e9);
    do {
        if (drop) {
            int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
            if (fd < 0 || write(fd, "2", 1) != 1 || close(fd) < 0)
                fail("write", "/proc/sys/vm/drop_caches");
        }
        pid_t child;
        int status, failed;
        int64_t began = now();
        if ((failed = posix_spawnp(&child, program[0], &quiet, NULL, program, environ))) {
            errno = failed;
            fail("spawn", program[0]);
        }
        waitpid(child, &status, 0);
        int64_t ended = now();
        /* grep that finds nothing ends with 1; an error is 2 or more */
        if (!WIFEXITED(status) || WEXITSTATUS(status) > 1) {
            fprintf(stderr, "%s ended with status %d\n", program[0], status);
            exit(1);
        }
        record(ended - began);
    } while (now() < until || operations < RUNS);
}

static void change(const char *from, const char *to, const char *prefix, long samples, long pause)
{
    char text[128], seen[128];
    for (long n = 0; n < samples; n++) {
        int length = snprintf(text, sizeof text, "%s %06ld\n", prefix, n);
        int64_t began = now(), closed, give_up = began + CHANGE_SECONDS * (int64_t)1000000000;
        int fd = open(from, O_WRONLY | O_TRUNC);
        if (fd < 0 || write(fd, text, length) != length || close(fd) < 0)
            fail("write", from);
        closed = now();
        for (;;) {
            fd = open(to, O_RDONLY);
            ssize_t got = fd < 0 ? -1 : read(fd, seen, sizeof seen);
            if (fd >= 0)
                close(fd);
            if (got == length && memcmp(seen, text, length) == 0)
                break;
            if (now() > give_up) {
                errno = ETIMEDOUT;
                fail("read", to);
            }
            pause_for(200);
        }
        latencies[recorded++] = began;
        latencies[recorded++] = closed;
        latencies[recorded++] = now();
        operations++;
        timed += latencies[recorded - 1] - began;
        pause_for(pause);
    }
}

int main(int count, char **argument)
{
    const char *mode = count > 1 ? argument[1] : "";
    if (!strcmp(mode, "stat") && count == 5)
        passes(argument[2], argument[3], atof(argument[4]), stat_one);
    else if (!strcmp(mode, "read") && count == 5)
        passes(argument[2], argument[3], atof(argument[4]), read_one);
    else if (!strcmp(mode, "lookup") && count == 5)
        lookup(argument[2], atof(argument[3]), atol(argument[4]));
    else if (!strcmp(mode, "create") && count == 8)
        create(argument + 2);
    else if (!strcmp(mode, "command") && count > 4)
        command(atof(argument[2]), atoi(argument[3]), argument + 4);
    else if (!strcmp(mode, "change") && count == 7 && atol(argument[5]) * 3 <= LATENCIES)
        change(argument[2], argument[3], argument[4], atol(argument[5]), atol(argument[6]));
    else {
        fprintf(stderr, "the head of client.c says how it is used\n");
        return 2;
    }
    report();
    return 0;
}
