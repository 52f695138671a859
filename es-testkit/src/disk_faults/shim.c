/* Faults of a disk, for a process that loads this by LD_PRELOAD.
 *
 * It stands in front of the C library's calls that change files, looks whether the file lies under one folder, and does what the control file
 * says: see the module `disk_faults`, which compiles it, for the faults. The control file is mapped, so a fault that another process writes
 * there holds for the next call. Everything else is passed on unchanged, and `errno` is what the C library left, or the fault's.
 *
 * What goes to the kernel past the C library is not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* The layout of the control file; the numbers are in `disk_faults.rs` too. */
enum fault { NONE, FULL, SLOW, SLOW_ONCE, STUCK, FAILING_SYNC, FAILING_WRITES, FAILING_READS, SHORT_WRITES };

struct control {
    _Atomic uint64_t fault;
    _Atomic uint64_t amount; /* bytes of room, or milliseconds */
    char part[240];          /* only paths that contain this; empty for all */
    /* What was seen, and what was done about it. */
    _Atomic uint64_t writes, written, syncs, creates, truncates, renames;
    _Atomic uint64_t failed, delayed, cut, waiting;
};

/* One line of the log: what was done to which file. */
enum { WROTE = 1, SYNCED = 2, SET_LENGTH = 3, CREATED = 4 };
struct line {
    uint64_t what, inode, offset, length;
};

static struct control *control;
static char under[PATH_MAX];
static size_t under_length;
static int log_file = -1;

#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))
#define POINTER(name) static void *real_##name
static void *real(void **known, const char *name) {
    if (!*known) *known = dlsym(RTLD_NEXT, name);
    return *known;
}

POINTER(open); POINTER(open64); POINTER(openat); POINTER(openat64); POINTER(creat); POINTER(creat64);
POINTER(read); POINTER(pread); POINTER(pread64);
POINTER(write); POINTER(pwrite); POINTER(pwrite64); POINTER(writev); POINTER(pwritev); POINTER(pwritev64);
POINTER(fsync); POINTER(fdatasync); POINTER(ftruncate); POINTER(ftruncate64);
POINTER(fallocate); POINTER(fallocate64); POINTER(posix_fallocate); POINTER(posix_fallocate64);
POINTER(rename); POINTER(renameat);

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("DISK_FAULTS_CONTROL"), *folder = getenv("DISK_FAULTS_UNDER"), *log = getenv("DISK_FAULTS_LOG");
    if (!file || !folder || !log) return;
    int fd = REAL(open)(file, O_RDWR | O_CLOEXEC);
    void *memory = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    log_file = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (memory == MAP_FAILED || log_file < 0 || strlen(folder) >= sizeof under) {
        fprintf(stderr, "disk faults: %s cannot be used: %s\n", file, strerror(errno));
        _exit(99);
    }
    close(fd);
    strcpy(under, folder);
    under_length = strlen(under);
    control = memory;
}

/* ---- Which file it is ---- */

static int is_under(const char *path) {
    return control && strncmp(path, under, under_length) == 0 && (path[under_length] == '/' || path[under_length] == 0);
}

/* The path of an open file, when it lies under the folder. */
static int path_of(int fd, char *path) {
    if (!control || fd < 0) return 0;
    char link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    errno = saved;
    if (length <= 0) return 0;
    path[length] = 0;
    return is_under(path);
}

/* The path that a call names, made absolute, when it lies under the folder. */
static int path_named(int folder, const char *name, char *path) {
    if (!control) return 0;
    if (name[0] == '/') {
        path[0] = 0;
    } else if (folder == AT_FDCWD) {
        if (!getcwd(path, PATH_MAX)) return 0;
    } else if (!path_of(folder, path)) {
        return 0;
    }
    size_t length = strlen(path);
    if (length + strlen(name) + 2 > PATH_MAX) return 0;
    if (name[0] != '/') path[length++] = '/';
    strcpy(path + length, name);
    return is_under(path);
}

/* ---- What is done about it ---- */

static int fault_on(const char *path) {
    int fault = atomic_load(&control->fault);
    return fault != NONE && strstr(path, control->part) ? fault : NONE;
}

static void wait_milliseconds(uint64_t time) {
    struct timespec left = {(time_t)(time / 1000), (long)(time % 1000) * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {}
}

/* Waits as long as the fault says. Returns the fault that then holds. */
static int delayed(const char *path, int fault) {
    int saved = errno;
    uint64_t time = atomic_load(&control->amount), once = SLOW_ONCE;
    if (fault == SLOW || (fault == SLOW_ONCE && atomic_compare_exchange_strong(&control->fault, &once, NONE))) {
        atomic_fetch_add(&control->delayed, 1);
        wait_milliseconds(time);
    } else if (fault == STUCK) {
        atomic_fetch_add(&control->delayed, 1);
        atomic_fetch_add(&control->waiting, 1);
        while (fault_on(path) == STUCK) wait_milliseconds(1);
        atomic_fetch_sub(&control->waiting, 1);
        fault = fault_on(path);
    }
    errno = saved;
    return fault;
}

static int failed(int error) {
    atomic_fetch_add(&control->failed, 1);
    errno = error;
    return -1;
}

/* How many of `wanted` bytes may be written; -1 when none, with errno set. */
static ssize_t allowed(const char *path, size_t wanted) {
    atomic_fetch_add(&control->writes, 1);
    int fault = delayed(path, fault_on(path));
    if (fault == FAILING_WRITES) return failed(EIO);
    if (fault == SHORT_WRITES && wanted > 1) {
        atomic_fetch_add(&control->cut, 1);
        return (ssize_t)(wanted / 2);
    }
    if (fault != FULL || wanted == 0) return (ssize_t)wanted;
    uint64_t room = atomic_load(&control->amount), taken;
    do taken = room < wanted ? room : wanted;
    while (!atomic_compare_exchange_weak(&control->amount, &room, room - taken));
    if (taken == 0) return failed(ENOSPC);
    if (taken < wanted) atomic_fetch_add(&control->cut, 1);
    return (ssize_t)taken;
}

static void note(int fd, uint64_t what, uint64_t offset, uint64_t length) {
    struct stat file;
    int saved = errno;
    if (fstat(fd, &file) == 0) {
        struct line line = {what, file.st_ino, offset, length};
        if (REAL(write)(log_file, &line, sizeof line) != sizeof line) abort();
    }
    errno = saved;
}

/* Notes what was written at `offset`, or at the file's own offset when that is negative. */
static ssize_t wrote(int fd, off64_t offset, ssize_t length) {
    if (length <= 0) return length;
    atomic_fetch_add(&control->written, (uint64_t)length);
    int saved = errno;
    if (offset < 0) offset = lseek64(fd, 0, SEEK_CUR) - length;
    errno = saved;
    if (offset >= 0) note(fd, WROTE, (uint64_t)offset, (uint64_t)length);
    return length;
}

/* ---- Writing and reading ---- */

#define AROUND_WRITE(fd, offset, wanted, whole, part)                 \
    char path[PATH_MAX];                                              \
    if (!path_of(fd, path)) return whole;                             \
    ssize_t length = allowed(path, wanted);                           \
    if (length < 0) return -1;                                        \
    return wrote(fd, offset, (size_t)length == (wanted) ? whole : part);

EXPORT ssize_t write(int fd, const void *bytes, size_t count) {
    AROUND_WRITE(fd, -1, count, REAL(write)(fd, bytes, count), REAL(write)(fd, bytes, (size_t)length))
}
EXPORT ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    AROUND_WRITE(fd, offset, count, REAL(pwrite)(fd, bytes, count, offset), REAL(pwrite)(fd, bytes, (size_t)length, offset))
}
EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    AROUND_WRITE(fd, offset, count, REAL(pwrite64)(fd, bytes, count, offset), REAL(pwrite64)(fd, bytes, (size_t)length, offset))
}

static size_t sum_of(const struct iovec *parts, int count) {
    size_t sum = 0;
    for (int n = 0; n < count; n++) sum += parts[n].iov_len;
    return sum;
}
/* The first part that is not empty, and of it no more than the limit: a short write that is simple to do. */
static struct iovec first_of(const struct iovec *parts, int count, size_t limit) {
    int n = 0;
    while (n + 1 < count && parts[n].iov_len == 0) n++;
    struct iovec first = parts[n];
    if (first.iov_len > limit) first.iov_len = limit;
    return first;
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct iovec first;
    AROUND_WRITE(fd, -1, sum_of(parts, count), REAL(writev)(fd, parts, count),
                 (first = first_of(parts, count, (size_t)length), REAL(write)(fd, first.iov_base, first.iov_len)))
}
EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    struct iovec first;
    AROUND_WRITE(fd, offset, sum_of(parts, count), REAL(pwritev)(fd, parts, count, offset),
                 (first = first_of(parts, count, (size_t)length), REAL(pwrite)(fd, first.iov_base, first.iov_len, offset)))
}
EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    struct iovec first;
    AROUND_WRITE(fd, offset, sum_of(parts, count), REAL(pwritev64)(fd, parts, count, offset),
                 (first = first_of(parts, count, (size_t)length), REAL(pwrite64)(fd, first.iov_base, first.iov_len, offset)))
}

static int reading_fails(int fd) {
    if (!control || atomic_load(&control->fault) != FAILING_READS) return 0;
    char path[PATH_MAX];
    return path_of(fd, path) && fault_on(path) == FAILING_READS;
}
EXPORT ssize_t read(int fd, void *bytes, size_t count) {
    return reading_fails(fd) ? failed(EIO) : REAL(read)(fd, bytes, count);
}
EXPORT ssize_t pread(int fd, void *bytes, size_t count, off_t offset) {
    return reading_fails(fd) ? failed(EIO) : REAL(pread)(fd, bytes, count, offset);
}
EXPORT ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    return reading_fails(fd) ? failed(EIO) : REAL(pread64)(fd, bytes, count, offset);
}

/* ---- Syncing ---- */

#define AROUND_SYNC(fd, name)                                                    \
    char path[PATH_MAX];                                                         \
    if (!path_of(fd, path)) return REAL(name)(fd);                               \
    atomic_fetch_add(&control->syncs, 1);                                        \
    if (delayed(path, fault_on(path)) == FAILING_SYNC) return failed(EIO);       \
    int outcome = REAL(name)(fd);                                                \
    if (outcome == 0) note(fd, SYNCED, 0, 0);                                    \
    return outcome;

EXPORT int fsync(int fd) { AROUND_SYNC(fd, fsync) }
EXPORT int fdatasync(int fd) { AROUND_SYNC(fd, fdatasync) }

/* ---- Lengths ---- */

#define AROUND_LENGTH(fd, length, call)                                          \
    char path[PATH_MAX];                                                         \
    if (!path_of(fd, path)) return call;                                         \
    atomic_fetch_add(&control->truncates, 1);                                    \
    if (delayed(path, fault_on(path)) == FAILING_WRITES) return failed(EIO);     \
    int outcome = call;                                                          \
    if (outcome == 0) note(fd, SET_LENGTH, 0, (uint64_t)(length));               \
    return outcome;

EXPORT int ftruncate(int fd, off_t length) { AROUND_LENGTH(fd, length, REAL(ftruncate)(fd, length)) }
EXPORT int ftruncate64(int fd, off64_t length) { AROUND_LENGTH(fd, length, REAL(ftruncate64)(fd, length)) }

/* 0, or the error that setting room aside meets. */
static int refusal_of_room(int fd, off64_t length) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return 0;
    ssize_t given = allowed(path, (size_t)length);
    if (given < 0) return errno;
    return given < length && fault_on(path) == FULL ? (failed(ENOSPC), ENOSPC) : 0;
}
EXPORT int fallocate(int fd, int mode, off_t offset, off_t length) {
    return refusal_of_room(fd, length) ? -1 : REAL(fallocate)(fd, mode, offset, length);
}
EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    return refusal_of_room(fd, length) ? -1 : REAL(fallocate64)(fd, mode, offset, length);
}
EXPORT int posix_fallocate(int fd, off_t offset, off_t length) {
    int error = refusal_of_room(fd, length);
    return error ? error : REAL(posix_fallocate)(fd, offset, length);
}
EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    int error = refusal_of_room(fd, length);
    return error ? error : REAL(posix_fallocate64)(fd, offset, length);
}

/* ---- Names ---- */

/* What opening a file does to it. */
enum opening { REFUSED, PLAIN, CREATES, EMPTIES };

/* A new file needs room, and is not had on a disk that fails. */
static enum opening opening_of(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !path_named(folder, name, path)) return PLAIN;
    int saved = errno;
    int exists = faccessat(folder, name, F_OK, 0) == 0;
    errno = saved;
    if (exists) return flags & O_TRUNC ? EMPTIES : PLAIN;
    if (!(flags & O_CREAT)) return PLAIN;
    atomic_fetch_add(&control->creates, 1);
    int fault = delayed(path, fault_on(path));
    if (fault == FAILING_WRITES) return failed(EIO), REFUSED;
    if (fault == FULL && atomic_load(&control->amount) == 0) return failed(ENOSPC), REFUSED;
    return CREATES;
}

static int opened(int fd, enum opening opening) {
    if (fd >= 0 && opening == CREATES) note(fd, CREATED, 0, 0);
    if (fd >= 0 && opening == EMPTIES) note(fd, SET_LENGTH, 0, 0);
    return fd;
}

#define AROUND_OPEN(folder, name, flags, call)              \
    enum opening opening = opening_of(folder, name, flags); \
    return opening == REFUSED ? -1 : opened(call, opening);

#define MODE(flags, last)                                     \
    mode_t mode = 0;                                          \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                  \
        va_list more;                                         \
        va_start(more, last);                                 \
        mode = va_arg(more, mode_t);                          \
        va_end(more);                                         \
    }

EXPORT int open(const char *name, int flags, ...) {
    MODE(flags, flags)
    AROUND_OPEN(AT_FDCWD, name, flags, REAL(open)(name, flags, mode))
}
EXPORT int open64(const char *name, int flags, ...) {
    MODE(flags, flags)
    AROUND_OPEN(AT_FDCWD, name, flags, REAL(open64)(name, flags, mode))
}
EXPORT int openat(int folder, const char *name, int flags, ...) {
    MODE(flags, flags)
    AROUND_OPEN(folder, name, flags, REAL(openat)(folder, name, flags, mode))
}
EXPORT int openat64(int folder, const char *name, int flags, ...) {
    MODE(flags, flags)
    AROUND_OPEN(folder, name, flags, REAL(openat64)(folder, name, flags, mode))
}
EXPORT int creat(const char *name, mode_t mode) {
    AROUND_OPEN(AT_FDCWD, name, O_CREAT | O_TRUNC, REAL(creat)(name, mode))
}
EXPORT int creat64(const char *name, mode_t mode) {
    AROUND_OPEN(AT_FDCWD, name, O_CREAT | O_TRUNC, REAL(creat64)(name, mode))
}

static int may_rename(int folder, const char *name) {
    char path[PATH_MAX];
    if (!path_named(folder, name, path)) return 1;
    atomic_fetch_add(&control->renames, 1);
    return delayed(path, fault_on(path)) == FAILING_WRITES ? (failed(EIO), 0) : 1;
}
EXPORT int rename(const char *from, const char *to) {
    return may_rename(AT_FDCWD, to) ? REAL(rename)(from, to) : -1;
}
EXPORT int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return may_rename(to_folder, to) ? REAL(renameat)(from_folder, from, to_folder, to) : -1;
}
