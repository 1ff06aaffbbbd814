/* A test double of the C library, loaded by LD_PRELOAD: what a bad file system or clock does.

   DOUBLE_NO_LOCKS=1      every lock of a file fails with ENOLCK, as on some network disks
   DOUBLE_RENAME=SECONDS  each rename takes so long, as on a slow server, before it is done
   DOUBLE_CLOCK=FILE      the wall clock is off by the seconds that FILE holds (a binary double);
                          clocks that only measure time spans run on, as the kernel's do */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile double *ahead; /* seconds */
static int no_locks;
static struct timespec rename_takes;

__attribute__((constructor)) static void configure(void) {
    const char *file = getenv("DOUBLE_CLOCK"), *seconds = getenv("DOUBLE_RENAME");
    no_locks = getenv("DOUBLE_NO_LOCKS") != NULL;
    if (seconds) {
        double value = atof(seconds);
        rename_takes.tv_sec = (time_t)value;
        rename_takes.tv_nsec = (long)((value - (double)(time_t)value) * 1e9);
    }
    if (file) {
        int descriptor = open(file, O_RDONLY | O_CLOEXEC);
        void *map = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, descriptor, 0);
        if (map != MAP_FAILED) ahead = map;
        if (descriptor >= 0) close(descriptor);
    }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int flock(int file, int operation) {
    if (no_locks && operation != LOCK_UN) {
        errno = ENOLCK;
        return -1;
    }
    return REAL(flock)(file, operation);
}

static int control(const char *name, int file, int command, void *argument) {
    int locks = command == F_SETLK || command == F_SETLKW || command == F_GETLK
        || command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
    if (no_locks && locks) {
        errno = ENOLCK;
        return -1;
    }
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, name);
    return real(file, command, argument);
}

#define CONTROL(name) \
    int name(int file, int command, ...) { \
        va_list rest; \
        va_start(rest, command); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        return control(#name, file, command, argument); \
    }
CONTROL(fcntl)
CONTROL(fcntl64)

static void wait_for_the_server(void) {
    if (rename_takes.tv_sec || rename_takes.tv_nsec) nanosleep(&rename_takes, NULL);
}

int rename(const char *from, const char *to) {
    wait_for_the_server();
    return REAL(rename)(from, to);
}

int renameat(int here, const char *from, int there, const char *to) {
    wait_for_the_server();
    return REAL(renameat)(here, from, there, to);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = REAL(clock_gettime)(clock, now);
    if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += (time_t)*ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = REAL(gettimeofday)(now, zone);
    if (!failed && ahead) now->tv_sec += (time_t)*ahead;
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
