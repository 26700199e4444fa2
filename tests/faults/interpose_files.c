/* Files: opening, writing, cutting, copying, making durable. */
#include "interpose.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/uio.h>

#define WRITING (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)

static int open_file(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    enum operation operation = flags & WRITING ? OP_OPEN : OP_OPEN_READ;
    int follow = !(flags & O_NOFOLLOW) && (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL);
    if ((operation == OP_OPEN ? !armed() : ignores(operation)) || !path_is_watched(folder, name, follow, path))
        return (int)raw(SYS_openat, folder, name, flags, mode);
    struct step step = {operation, path, NULL, flags};
    enum verdict verdict = enter(&step);
    return (int)leave(&step, verdict == FAILED ? -1 : raw(SYS_openat, folder, name, flags, mode));
}

#define MODE_OF(flags, mode)                             \
    mode_t mode = 0;                                     \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                    \
        va_start(rest, flags);                           \
        mode = va_arg(rest, mode_t);                     \
        va_end(rest);                                    \
    }

VISIBLE int open(const char *name, int flags, ...) {
    MODE_OF(flags, mode) return open_file(AT_FDCWD, name, flags, mode);
}
VISIBLE int open64(const char *name, int flags, ...) {
    MODE_OF(flags, mode) return open_file(AT_FDCWD, name, flags, mode);
}
VISIBLE int openat(int folder, const char *name, int flags, ...) {
    MODE_OF(flags, mode) return open_file(folder, name, flags, mode);
}
VISIBLE int openat64(int folder, const char *name, int flags, ...) {
    MODE_OF(flags, mode) return open_file(folder, name, flags, mode);
}
VISIBLE int __open_2(const char *name, int flags) { return open_file(AT_FDCWD, name, flags, 0); }
VISIBLE int __open64_2(const char *name, int flags) { return open_file(AT_FDCWD, name, flags, 0); }
VISIBLE int __openat_2(int folder, const char *name, int flags) { return open_file(folder, name, flags, 0); }
VISIBLE int __openat64_2(int folder, const char *name, int flags) { return open_file(folder, name, flags, 0); }
VISIBLE int creat(const char *name, mode_t mode) {
    return open_file(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
VISIBLE int creat64(const char *name, mode_t mode) {
    return open_file(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

static FILE *open_stream(const char *symbol, const char *name, const char *mode) {
    FILE *(*real)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, symbol);
    char path[PATH_MAX];
    if (!armed() || !path_is_watched(AT_FDCWD, name, 1, path)) return real(name, mode);
    int flags = mode[0] == 'w' ? O_CREAT | O_TRUNC | O_WRONLY : mode[0] == 'a' ? O_CREAT | O_APPEND | O_WRONLY : 0;
    if (strchr(mode, '+')) flags = (flags & ~O_WRONLY) | O_RDWR;
    struct step step = {flags & WRITING ? OP_OPEN : OP_OPEN_READ, path, NULL, flags};
    FILE *stream = enter(&step) == FAILED ? NULL : real(name, mode);
    leave(&step, stream == NULL ? -1 : fileno(stream));
    return stream;
}
VISIBLE FILE *fopen(const char *name, const char *mode) { return open_stream("fopen", name, mode); }
VISIBLE FILE *fopen64(const char *name, const char *mode) { return open_stream("fopen64", name, mode); }

static ssize_t put(int file, const void *data, size_t count, off_t offset) {
    return offset < 0 ? raw(SYS_write, file, data, count) : raw(SYS_pwrite64, file, data, count, offset);
}

/* offset -1: where the file stands. */
static ssize_t write_file(int file, const void *data, size_t count, off_t offset) {
    char path[PATH_MAX];
    if (!armed() || !file_is_watched(file, path)) return put(file, data, count, offset);
    struct step step = {OP_WRITE, path, NULL, 0, offset, data, count};
    enum verdict verdict = enter(&step);
    if (verdict == FAILED) return leave(&step, -1);
    ssize_t written = put(file, data, verdict == GO_ON ? count : torn_bytes(count), offset);
    int error = errno;
    if (offset < 0) step.offset = written < 0 ? -1 : raw(SYS_lseek, file, 0, SEEK_CUR) - written;
    step.num_bytes = written < 0 ? 0 : (size_t)written;
    if (verdict == TORN) die(&step, written);
    errno = error;
    return leave(&step, written);
}
VISIBLE ssize_t write(int file, const void *data, size_t count) { return write_file(file, data, count, -1); }
VISIBLE ssize_t pwrite(int file, const void *data, size_t count, off_t offset) {
    return write_file(file, data, count, offset);
}
VISIBLE ssize_t pwrite64(int file, const void *data, size_t count, off64_t offset) {
    return write_file(file, data, count, offset);
}

static ssize_t write_pieces(int file, const struct iovec *pieces, int count, off_t offset) {
    char path[PATH_MAX];
    if (!armed() || count < 0 || count > IOV_MAX || !file_is_watched(file, path))
        return offset < 0 ? raw(SYS_writev, file, pieces, count)
                          : raw(SYS_pwritev, file, pieces, count, (long)offset, 0L);
    size_t bytes = 0, place = 0;
    for (int i = 0; i < count; i++) bytes += pieces[i].iov_len;
    char *whole = malloc(bytes + 1);
    if (whole == NULL) return -1;
    for (int i = 0; i < count; place += pieces[i++].iov_len)
        memcpy(whole + place, pieces[i].iov_base, pieces[i].iov_len);
    ssize_t written = write_file(file, whole, bytes, offset);
    int error = errno;
    free(whole);
    errno = error;
    return written;
}
VISIBLE ssize_t writev(int file, const struct iovec *pieces, int count) {
    return write_pieces(file, pieces, count, -1);
}
VISIBLE ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t offset) {
    return write_pieces(file, pieces, count, offset);
}
VISIBLE ssize_t pwritev64(int file, const struct iovec *pieces, int count, off64_t offset) {
    return write_pieces(file, pieces, count, offset);
}
VISIBLE ssize_t pwritev2(int file, const struct iovec *pieces, int count, off_t offset, int flags) {
    (void)flags; return write_pieces(file, pieces, count, offset);
}
VISIBLE ssize_t pwritev64v2(int file, const struct iovec *pieces, int count, off64_t offset, int flags) {
    (void)flags; return write_pieces(file, pieces, count, offset);
}

static int sync_file(long number, int file, int everything) {
    char path[PATH_MAX];
    if (!armed() || !file_is_watched(file, path)) return (int)raw(number, file);
    struct step step = {OP_SYNC, path, NULL, everything};
    if (enter(&step) == FAILED) return (int)leave(&step, -1);
    return (int)leave(&step, skips_sync() ? 0 : raw(number, file));
}
VISIBLE int fsync(int file) { return sync_file(SYS_fsync, file, 0); }
VISIBLE int fdatasync(int file) { return sync_file(SYS_fdatasync, file, 0); }
VISIBLE int syncfs(int file) { return sync_file(SYS_syncfs, file, 1); }

static int cut_file(int file, off_t length) {
    char path[PATH_MAX];
    if (!armed() || !file_is_watched(file, path)) return (int)raw(SYS_ftruncate, file, length);
    struct step step = {OP_TRUNCATE, path, NULL, length};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_ftruncate, file, length));
}
static int cut_name(const char *name, off_t length) {
    char path[PATH_MAX];
    if (!armed() || !path_is_watched(AT_FDCWD, name, 1, path)) return (int)raw(SYS_truncate, name, length);
    struct step step = {OP_TRUNCATE, path, NULL, length};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_truncate, name, length));
}
VISIBLE int ftruncate(int file, off_t length) { return cut_file(file, length); }
VISIBLE int ftruncate64(int file, off64_t length) { return cut_file(file, length); }
VISIBLE int truncate(const char *name, off_t length) { return cut_name(name, length); }
VISIBLE int truncate64(const char *name, off64_t length) { return cut_name(name, length); }

/* -1 with errno, as fallocate does; posix_fallocate returns the error. */
static int allocate(int file, int mode, off_t offset, off_t length) {
    char path[PATH_MAX];
    if (!armed() || !file_is_watched(file, path)) return (int)raw(SYS_fallocate, file, mode, offset, length);
    struct step step = {OP_ALLOCATE, path, NULL, mode == 0 ? length : 0, offset};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_fallocate, file, mode, offset, length));
}
VISIBLE int fallocate(int file, int mode, off_t offset, off_t length) { return allocate(file, mode, offset, length); }
VISIBLE int fallocate64(int file, int mode, off64_t offset, off64_t length) {
    return allocate(file, mode, offset, length);
}
VISIBLE int posix_fallocate(int file, off_t offset, off_t length) {
    return allocate(file, 0, offset, length) ? errno : 0;
}
VISIBLE int posix_fallocate64(int file, off64_t offset, off64_t length) {
    return allocate(file, 0, offset, length) ? errno : 0;
}

/* Copies inside the kernel: what arrived is read back for the log. */
static ssize_t copied(struct step *step, int file, ssize_t count) {
    char link[32], *data = NULL;
    int error = errno;
    if (count > 0 && step->offset < 0) step->offset = raw(SYS_lseek, file, 0, SEEK_CUR) - count;
    if (count > 0 && wants_data() && (data = malloc((size_t)count)) != NULL) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        int again = (int)raw(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
        if (again >= 0 && raw(SYS_pread64, again, data, count, step->offset) == count) {
            step->data = data;
            step->num_bytes = (size_t)count;
        }
        if (again >= 0) raw(SYS_close, again);
    }
    errno = error;
    leave(step, count);
    free(data);
    errno = error;
    return count;
}
static ssize_t send_file(int to, int from, off_t *offset, size_t count) {
    char path[PATH_MAX];
    if (!armed() || !file_is_watched(to, path)) return raw(SYS_sendfile, to, from, offset, count);
    struct step step = {OP_COPY, path, NULL, 0, -1};
    enum verdict verdict = enter(&step);
    if (verdict == FAILED) return leave(&step, -1);
    ssize_t sent = raw(SYS_sendfile, to, from, offset, verdict == GO_ON ? count : torn_bytes(count));
    if (verdict == TORN) die(&step, sent);
    return copied(&step, to, sent);
}
VISIBLE ssize_t sendfile(int to, int from, off_t *offset, size_t count) { return send_file(to, from, offset, count); }
VISIBLE ssize_t sendfile64(int to, int from, off64_t *offset, size_t count) {
    return send_file(to, from, (off_t *)offset, count);
}
VISIBLE ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t count, unsigned flags) {
    char path[PATH_MAX];
    if (!armed() || !file_is_watched(to, path))
        return raw(SYS_copy_file_range, from, from_offset, to, to_offset, count, flags);
    struct step step = {OP_COPY, path, NULL, 0, to_offset == NULL ? -1 : *to_offset};
    enum verdict verdict = enter(&step);
    if (verdict == FAILED) return leave(&step, -1);
    size_t wanted = verdict == GO_ON ? count : torn_bytes(count);
    ssize_t sent = raw(SYS_copy_file_range, from, from_offset, to, to_offset, wanted, flags);
    if (verdict == TORN) die(&step, sent);
    return copied(&step, to, sent);
}
