/* POSIX, for peer.c: written after mmapipc/LAYOUT.md. */

#define _GNU_SOURCE /* F_OFD_SETLK, membarrier's number */
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "system.h"

/* LAYOUT 4.1 */
#define PRIVATE 0600
#define FOREIGN 0077
static const off_t ranges[] = {(off_t)1 << 61, ((off_t)1 << 61) + ((off_t)1 << 40)};
#define ALL_RANGES (3 * ((off_t)1 << 40))

/* LAYOUT 10.3 */
#define GLOBAL_EXPEDITED 2

#define LONGEST_PATH 4096

enum { TROUBLE = 1 };

static enum role own;
static char memory_path[LONGEST_PATH], roles_path[LONGEST_PATH], bell_paths[2][LONGEST_PATH];
static int roles = -1, memory = -1, lock = -1, bells[2] = {-1, -1};
static void *mapped;
static size_t mapped_size;

/* LAYOUT 3 */
const char *start(char **argv)
{
    return argv[2];
}

/* LAYOUT 3 */
void find_places(const char *prefix, const char *encoded, enum role role)
{
    const char *chosen = getenv("MMAPIPC_DIR");
    struct stat status;
    (void)prefix;
    own = role;
    if (!chosen || !*chosen)
        chosen = stat("/dev/shm", &status) == 0 && S_ISDIR(status.st_mode) ? "/dev/shm" : NULL;
    for (int i = 0; !chosen && i < 3; i++) {
        static const char *const variables[] = {"TMPDIR", "TEMP", "TMP"};
        const char *folder = getenv(variables[i]);
        if (folder && access(folder, W_OK | X_OK) == 0)
            chosen = folder;
    }
    if (!chosen)
        chosen = "/tmp";
    int length = snprintf(memory_path, LONGEST_PATH, "%s/mmapipc.%ld.%s", chosen, (long)geteuid(), encoded);
    if (length + sizeof "+receiver-bell" > LONGEST_PATH)
        fail(TROUBLE, "the path of the directory is too long");
    sprintf(roles_path, "%.*s+roles", length, memory_path);
    sprintf(bell_paths[SENDER], "%.*s+sender-bell", length, memory_path);
    sprintf(bell_paths[RECEIVER], "%.*s+receiver-bell", length, memory_path);
}

/* LAYOUT 4.1: -1 if there is none, or it is not to be used, as errno says */
static int open_private(const char *path, int flags, mode_t kind)
{
    struct stat status;
    int file = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, PRIVATE);
    if (file >= 0 && (fstat(file, &status) != 0 || (status.st_mode & S_IFMT) != kind ||
                      status.st_uid != geteuid() || status.st_mode & FOREIGN ||
                      (kind == S_IFREG && status.st_nlink > 1))) {
        close(file);
        errno = EPERM;
        return -1;
    }
    return file;
}

/* LAYOUT 4.1: -1 if there is none */
static int open_or_fail(const char *path, int flags)
{
    int file = open_private(path, flags, S_IFREG);
    if (file < 0 && (errno != ENOENT || flags))
        fail(TROUBLE, "%s: %s", path, strerror(errno));
    return file;
}

/* LAYOUT 4.2, 4.3, 10.2: whether the range was free */
static int lock_for(short type, int file, off_t first, off_t length)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = first, .l_len = length};
    if (fcntl(file, F_OFD_SETLK, &range) == 0)
        return 1;
    if (errno != EAGAIN && errno != EACCES)
        fail(TROUBLE, "locks: %s", strerror(errno));
    return 0;
}

/* LAYOUT 4.2, 4.3 */
static int lock_range(int file, off_t first, off_t length)
{
    return lock_for(F_WRLCK, file, first, length);
}

/* LAYOUT 4.3, 4.4 */
static void unlock(int file)
{
    struct flock range = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(file, F_OFD_SETLK, &range);
}

/* LAYOUT 4.2, 4.3: whether the path still leads to the open file */
static int is_at(const char *path, int file)
{
    struct stat there, here;
    return lstat(path, &there) == 0 && fstat(file, &here) == 0 && there.st_dev == here.st_dev &&
           there.st_ino == here.st_ino;
}

/* LAYOUT 4.2 */
int take_role(void)
{
    int file = open_or_fail(roles_path, O_CREAT);
    if (lock_range(file, ranges[own], 1 + (off_t)getpid()) && is_at(roles_path, file)) {
        roles = file;
        return 1;
    }
    close(file);
    return 0;
}

/* LAYOUT 4.2 */
int64_t holder(enum role role)
{
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = ranges[role], .l_len = 1};
    int file = roles < 0 ? open_or_fail(roles_path, 0) : roles;
    if (file < 0)
        return 0;
    int failed = fcntl(file, F_OFD_GETLK, &range);
    if (file != roles)
        close(file);
    if (failed)
        fail(TROUBLE, "locks: %s", strerror(errno));
    if (range.l_type == F_UNLCK)
        return 0;
    return range.l_start == ranges[role] && range.l_len > 0 ? range.l_len - 1 : -1;
}

/* LAYOUT 2.2 */
uint32_t own_pid(void)
{
    return getpid();
}

/* LAYOUT 4.3 */
int open_memory(void)
{
    memory = open_or_fail(memory_path, 0);
    return memory >= 0;
}

/* LAYOUT 4.3: the memory's name goes if it is nobody's */
static void remove_if_free(int file)
{
    if (lock_range(file, 0, 0) && is_at(memory_path, file))
        unlink(memory_path);
}

/* LAYOUT 4.3 */
int make_memory(uint64_t size)
{
    struct stat status;
    int file = open_or_fail(memory_path, O_CREAT);
    if (!lock_range(file, 0, 0)) {
        close(file);
        fail(TROUBLE, "the name is that of memory without a stream");
    }
    if (fstat(file, &status) != 0 || status.st_size != 0 || !is_at(memory_path, file)) {
        remove_if_free(file);
        close(file);
        return 0;
    }
    lock = file;
    int error = posix_fallocate(lock, 0, size);
    if (error)
        fail(TROUBLE, "memory: %s", strerror(error));
    return open_memory();
}

/* LAYOUT 6 step 4 */
void remove_memory(void)
{
    int file = open_private(memory_path, 0, S_IFREG);
    if (file >= 0) {
        remove_if_free(file);
        close(file);
    }
}

/* LAYOUT 4.3 */
static uint64_t memory_size(void)
{
    struct stat status;
    return fstat(memory, &status) == 0 ? (uint64_t)status.st_size : 0;
}

/* LAYOUT 4.3 */
int memory_has(uint64_t size)
{
    return memory_size() >= size;
}

/* LAYOUT 4.3 */
int memory_fits(uint64_t size)
{
    return memory_size() == size;
}

/* LAYOUT 4.3 */
void *map_memory(uint64_t size)
{
    if (mapped)
        munmap(mapped, mapped_size);
    mapped_size = size;
    mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (mapped == MAP_FAILED) {
        mapped = NULL;
        fail(TROUBLE, "memory: %s", strerror(errno));
    }
    return mapped;
}

/* LAYOUT 4.4 step 1 */
void close_memory(void)
{
    if (mapped)
        munmap(mapped, mapped_size);
    if (memory >= 0)
        close(memory);
    mapped = NULL;
    memory = -1;
}

/* LAYOUT 10.2 */
static int open_bell(const char *path)
{
    for (;;) {
        mkfifo(path, PRIVATE);
        int bell = open_private(path, 0, S_IFIFO);
        if (bell < 0 || (lock_for(F_RDLCK, bell, 0, 0) && is_at(path, bell)))
            return bell;
        close(bell);
    }
}

/* LAYOUT 10.2, 14: without bells if they cannot be had, or are not wanted */
void open_bells(void)
{
    if (getenv("MMAPIPC_NO_BELLS"))
        return;
    for (int role = SENDER; role <= RECEIVER; role++)
        bells[role] = open_bell(bell_paths[role]);
}

/* LAYOUT 10.2 */
void ring(void)
{
    if (bells[!own] >= 0 && write(bells[!own], "\a", 1) < 0 && errno != EAGAIN)
        fail(TROUBLE, "bell: %s", strerror(errno));
}

/* LAYOUT 10.2 */
int has_bell(void)
{
    return bells[own] >= 0;
}

/* LAYOUT 10.2 */
void sleep_on_bell(int milliseconds)
{
    char rings[4096];
    struct pollfd bell = {.fd = bells[own], .events = POLLIN};
    if (poll(&bell, 1, milliseconds) > 0 && read(bells[own], rings, sizeof rings) < 0 && errno != EAGAIN)
        fail(TROUBLE, "bell: %s", strerror(errno));
}

/* LAYOUT 10.3: we need not register, who make a full barrier ourselves */
void fence(void)
{
    __sync_synchronize();
#ifdef __linux__
    syscall(SYS_membarrier, GLOBAL_EXPEDITED, 0, 0);
#endif
}

/* LAYOUT 4.4 steps 2 and 4: whether the peer has gone */
static int tidy(int file)
{
    if (!lock_range(file, ranges[SENDER], ALL_RANGES))
        return 0;
    if (is_at(roles_path, file)) {
        unlink(bell_paths[SENDER]);
        unlink(bell_paths[RECEIVER]);
        remove_memory();
        unlink(roles_path);
    }
    return 1;
}

/* LAYOUT 4.4 */
void give_back(void)
{
    close_memory();
    for (int role = SENDER; role <= RECEIVER; role++)
        if (bells[role] >= 0)
            close(bells[role]);
    if (lock >= 0) {
        unlock(lock);
        close(lock);
    }
    int file = roles;
    lock = roles = -1;
    if (file < 0)
        return;
    if (!tidy(file)) {
        unlock(file);
        tidy(file);
    }
    unlock(file);
    close(file);
}

/* LAYOUT 10: between two looks */
void give_way(void)
{
    sched_yield();
}

/* LAYOUT 10: between two looks */
void pause_for(int milliseconds)
{
    poll(NULL, 0, milliseconds);
}

/* LAYOUT 2.2: a stream_id */
uint64_t any_number(void)
{
    uint64_t number = 0;
    int file = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    if (file < 0 || read(file, &number, sizeof number) != sizeof number)
        fail(TROUBLE, "/dev/urandom: %s", strerror(errno));
    close(file);
    return number;
}
