/* Counts, logs, fails, tears or ends a program's storage operations below one folder, from inside its process.
 *
 * Loaded with LD_PRELOAD, it stands between a program with all its libraries and libc: native code that Python patches
 * cannot see goes through it too. A file that is mapped by every process of a command holds the settings, the counter,
 * a lock that puts operations of threads and processes into one order, and the log. See control.py for its layout.
 *
 * Calls that go around libc's functions are caught by interpose_traps.c, on x86-64 and where seccomp is allowed.
 *
 * Not seen: programs that do not load the library (static ones, Go's), io_uring, writes through a shared mapping before
 * it is flushed or unmapped, reflinks by ioctl, reads around libc. A replay of the log that differs from the folder
 * shows that a command writes in such ways.
 */
#include "interpose.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define HEADER_BYTES 8192
#define FOLDER_OFFSET 4096
#define NOT_DONE (-1)
#define ALIGNED(n) (((n) + 7) & ~(size_t)7)

enum { NOTHING, KILL, FAIL, TEAR, SHORT };

struct control {
    uint64_t state, counter, at, kind, error, lasting, lasting_mask, mask, part, log_data, skip_sync, used, capacity,
        overflow, hit, traps;
    pthread_mutex_t mutex;
};

struct record {
    uint32_t bytes, operation;
    uint64_t number;
    int64_t result, error, offset, value;
    uint32_t process, path_bytes, other_bytes, data_bytes;
};

static struct control *control;
static const char *folder;
static size_t folder_bytes;

int armed(void) { return control != NULL; }
int ignores(enum operation operation) { return control == NULL || !(control->mask >> operation & 1); }
int wants_data(void) { return control->log_data != 0; }
int skips_sync(void) { return control->skip_sync != 0; }

static void make_mutex(void) {
    uint64_t fresh = 0;
    if (__atomic_compare_exchange_n(&control->state, &fresh, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&control->mutex, &attributes);
        __atomic_store_n(&control->state, 2, __ATOMIC_SEQ_CST);
    }
    while (__atomic_load_n(&control->state, __ATOMIC_SEQ_CST) != 2) usleep(100);
}

/* Start counting by the settings in a control file; 0, or an error number. */
VISIBLE int faults_arm(const char *path) {
    open_gate();
    int file = (int)raw(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) return errno;
    void *mapped = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    raw(SYS_close, file);
    if (mapped == MAP_FAILED) return errno;
    folder = (const char *)mapped + FOLDER_OFFSET;
    folder_bytes = strlen(folder);
    control = mapped;
    make_mutex();
    control->traps = (uint64_t)trap_raw_calls();
    return 0;
}

__attribute__((constructor)) static void arm_from_environment(void) {
    const char *path = getenv("PEA_FAULTS_CONTROL");
    if (path != NULL && faults_arm(path) != 0) {
        fprintf(stderr, "cannot map the control file %s\n", path);
        _exit(99);
    }
}

static int is_below(const char *path) {
    return strncmp(path, folder, folder_bytes) == 0 && (path[folder_bytes] == '/' || path[folder_bytes] == '\0');
}

int file_is_watched(int file, char *path) {
    char link[32];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = '\0';
    return is_below(path);
}

/* The name as an absolute one, whose folder is free of links. */
static int resolve(int start, const char *name, int follow, char *path) {
    char whole[2 * PATH_MAX] = "";
    if (name[0] != '/') {
        char link[32] = "/proc/self/cwd";
        if (start != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", start);
        ssize_t length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0) return 0;
        whole[length] = '\0';
        strcat(whole, "/");
    }
    if (strlen(name) >= PATH_MAX) return 0;
    strcat(whole, name);
    if (follow && realpath(whole, path) != NULL) return 1;
    size_t length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/') whole[--length] = '\0';
    char *last = strrchr(whole, '/');
    if (last == NULL || realpath(last == whole ? "/" : (*last = '\0', whole), path) == NULL) return 0;
    if (strlen(path) + strlen(last + 1) + 2 > PATH_MAX) return 0;
    strcat(path, "/");
    strcat(path, last + 1);
    return 1;
}

int path_is_watched(int start, const char *name, int follow, char *path) {
    int before = errno;
    int watched = name != NULL && resolve(start, name, follow, path) && is_below(path);
    errno = before;
    return watched;
}

static void write_log(const struct step *step, int64_t result, int64_t error) {
    size_t path = strlen(step->path), other = step->other == NULL ? 0 : strlen(step->other);
    size_t data = control->log_data && step->data != NULL ? step->num_bytes : 0;
    size_t bytes = ALIGNED(sizeof(struct record) + path + other + data);
    if (control->overflow || control->used + bytes > control->capacity) {
        control->overflow = 1;
        return;
    }
    char *place = (char *)control + HEADER_BYTES + control->used;
    struct record record = {
        (uint32_t)bytes, step->operation, step->number, result, error, step->offset, step->value,
        (uint32_t)getpid(), (uint32_t)path, (uint32_t)other, (uint32_t)data};
    memcpy(place + sizeof record, step->path, path);
    if (other) memcpy(place + sizeof record + path, step->other, other);
    if (data) memcpy(place + sizeof record + path + other, step->data, data);
    memcpy(place, &record, sizeof record);
    control->used += bytes;
}

static int is_in(uint64_t mask, enum operation operation) { return (int)(mask >> operation & 1); }

enum verdict enter(struct step *step) {
    int before = errno;
    if (pthread_mutex_lock(&control->mutex) == EOWNERDEAD) pthread_mutex_consistent(&control->mutex);
    errno = before;
    in_step = 1;
    if (!is_in(control->mask, step->operation)) return GO_ON; /* logged with number 0, for the replay */
    step->number = ++control->counter;
    int later = control->hit && control->lasting && is_in(control->lasting_mask, step->operation);
    if (control->kind == NOTHING || !(later || step->number == control->at)) return GO_ON;
    if (!control->hit) control->hit = step->number;
    if (control->kind == KILL) die(step, NOT_DONE);
    if (control->kind == FAIL) {
        step->data = NULL;
        errno = (int)control->error;
        return FAILED;
    }
    if (step->operation == OP_WRITE || step->operation == OP_COPY) return control->kind == TEAR ? TORN : CUT_SHORT;
    if (control->kind == TEAR) die(step, NOT_DONE);
    return GO_ON;
}

long leave(struct step *step, long result) {
    int error = errno;
    write_log(step, result, result < 0 ? error : 0);
    in_step = 0;
    pthread_mutex_unlock(&control->mutex);
    errno = error;
    return result;
}

/* End every process of the command, which has a session of its own. */
void die(struct step *step, long result) {
    if (result == NOT_DONE) step->data = NULL;
    write_log(step, result, NOT_DONE);
    raw(SYS_kill, 0, SIGKILL);
    for (;;) raw(SYS_kill, getpid(), SIGKILL);
}

/* How much of a write still happens: a part of 256, and neither nothing nor all where there is a choice. */
size_t torn_bytes(size_t num_bytes) {
    size_t part = (size_t)((unsigned __int128)num_bytes * control->part / 256);
    if (part == 0) part = 1;
    return part < num_bytes ? part : num_bytes - (num_bytes > 0);
}
