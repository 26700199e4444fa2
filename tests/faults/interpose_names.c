/* Names: what makes, moves and removes entries of folders; and shared mappings, and reading. */
#include "interpose.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

static int rename_entry(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char path[PATH_MAX] = "", other[PATH_MAX] = "";
    int watched = armed() && path_is_watched(from_folder, from, 0, path);
    watched |= armed() && path_is_watched(to_folder, to, 0, other);
    if (!watched) return (int)raw(SYS_renameat2, from_folder, from, to_folder, to, flags);
    struct step step = {OP_RENAME, path, other, flags};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_renameat2, from_folder, from, to_folder, to, flags));
}
VISIBLE int rename(const char *from, const char *to) { return rename_entry(AT_FDCWD, from, AT_FDCWD, to, 0); }
VISIBLE int renameat(int a, const char *from, int b, const char *to) { return rename_entry(a, from, b, to, 0); }
VISIBLE int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    return rename_entry(a, from, b, to, flags);
}

static int link_entry(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    char path[PATH_MAX] = "", other[PATH_MAX] = "";
    if (!armed() || !path_is_watched(to_folder, to, 0, other))
        return (int)raw(SYS_linkat, from_folder, from, to_folder, to, flags);
    path_is_watched(from_folder, from, flags & AT_SYMLINK_FOLLOW, path);
    struct step step = {OP_LINK, path, other, flags};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_linkat, from_folder, from, to_folder, to, flags));
}
VISIBLE int link(const char *from, const char *to) { return link_entry(AT_FDCWD, from, AT_FDCWD, to, 0); }
VISIBLE int linkat(int a, const char *from, int b, const char *to, int flags) {
    return link_entry(a, from, b, to, flags);
}

VISIBLE int symlinkat(const char *target, int folder, const char *name) {
    char path[PATH_MAX];
    if (!armed() || !path_is_watched(folder, name, 0, path)) return (int)raw(SYS_symlinkat, target, folder, name);
    struct step step = {OP_SYMLINK, path, target};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_symlinkat, target, folder, name));
}
VISIBLE int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

VISIBLE int unlinkat(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    if (!armed() || !path_is_watched(folder, name, 0, path)) return (int)raw(SYS_unlinkat, folder, name, flags);
    struct step step = {flags & AT_REMOVEDIR ? OP_RMDIR : OP_UNLINK, path};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_unlinkat, folder, name, flags));
}
VISIBLE int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
VISIBLE int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
VISIBLE int remove(const char *name) {
    int result = unlinkat(AT_FDCWD, name, 0);
    return result != 0 && errno == EISDIR ? unlinkat(AT_FDCWD, name, AT_REMOVEDIR) : result;
}

VISIBLE int mkdirat(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!armed() || !path_is_watched(folder, name, 0, path)) return (int)raw(SYS_mkdirat, folder, name, mode);
    struct step step = {OP_MKDIR, path};
    return (int)leave(&step, enter(&step) == FAILED ? -1 : raw(SYS_mkdirat, folder, name, mode));
}
VISIBLE int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* Shared writable mappings: what they hold is logged when they are flushed or unmapped. */
#define MOST_MAPPINGS 64
static struct mapping { char *start; size_t bytes; off_t offset; char path[PATH_MAX]; } mappings[MOST_MAPPINGS];

static void *map_file(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
    char path[PATH_MAX];
    int shared = (flags & MAP_SHARED) && (protection & PROT_WRITE) && !(flags & MAP_ANONYMOUS);
    if (!armed() || !shared || !file_is_watched(file, path))
        return (void *)raw(SYS_mmap, address, bytes, protection, flags, file, offset);
    struct step step = {OP_MAP, path, NULL, (int64_t)bytes, offset};
    if (enter(&step) == FAILED) return leave(&step, -1), MAP_FAILED;
    void *start = (void *)raw(SYS_mmap, address, bytes, protection, flags, file, offset);
    for (int i = 0; start != MAP_FAILED && i < MOST_MAPPINGS; i++)
        if (mappings[i].start == NULL) {
            mappings[i] = (struct mapping){start, bytes, offset, ""};
            strcpy(mappings[i].path, path);
            break;
        }
    leave(&step, start == MAP_FAILED ? -1 : 0);
    return start;
}
VISIBLE void *mmap(void *a, size_t n, int p, int f, int file, off_t o) { return map_file(a, n, p, f, file, o); }
VISIBLE void *mmap64(void *a, size_t n, int p, int f, int file, off64_t o) { return map_file(a, n, p, f, file, o); }

/* `sync`: whether what was written is durable afterwards. */
static int flush(void *start, int sync, int forget) {
    for (int i = 0; armed() && i < MOST_MAPPINGS; i++) {
        struct mapping *mapping = &mappings[i];
        struct stat status;
        if (mapping->start == NULL || mapping->start != start) continue;
        size_t bytes = 0;
        if (raw(SYS_newfstatat, AT_FDCWD, mapping->path, &status, 0) == 0 && status.st_size > mapping->offset)
            bytes = (size_t)(status.st_size - mapping->offset);
        struct step step = {OP_FLUSH, mapping->path, NULL, sync, mapping->offset, mapping->start,
                            bytes < mapping->bytes ? bytes : mapping->bytes};
        int failed = enter(&step) == FAILED;
        leave(&step, failed ? -1 : (long)step.num_bytes);
        if (forget) mapping->start = NULL;
        return failed ? -1 : 0;
    }
    return 0;
}
VISIBLE int msync(void *start, size_t bytes, int flags) {
    return flush(start, (flags & MS_SYNC) != 0, 0) ? -1 : (int)raw(SYS_msync, start, bytes, flags);
}
VISIBLE int munmap(void *start, size_t bytes) {
    flush(start, 0, 1);
    return (int)raw(SYS_munmap, start, bytes);
}

/* Reading: counted only where the settings ask for it. */
static ssize_t read_file(int file, void *data, size_t count, off_t offset) {
    char path[PATH_MAX];
    int failed = 0;
    struct step step = {OP_READ, path, NULL, (int64_t)count, offset};
    int watched = !ignores(OP_READ) && file_is_watched(file, path);
    if (watched) failed = enter(&step) == FAILED;
    ssize_t got = failed ? -1 : offset < 0 ? raw(SYS_read, file, data, count) : raw(SYS_pread64, file, data, count, offset);
    return watched ? leave(&step, got) : got;
}
VISIBLE ssize_t read(int file, void *data, size_t count) { return read_file(file, data, count, -1); }
VISIBLE ssize_t __read_chk(int file, void *data, size_t count, size_t room) {
    (void)room; return read_file(file, data, count, -1);
}
VISIBLE ssize_t pread(int file, void *data, size_t count, off_t offset) { return read_file(file, data, count, offset); }
VISIBLE ssize_t pread64(int file, void *data, size_t count, off64_t offset) {
    return read_file(file, data, count, offset);
}
VISIBLE ssize_t __pread_chk(int file, void *data, size_t count, off_t offset, size_t room) {
    (void)room; return read_file(file, data, count, offset);
}
VISIBLE ssize_t __pread64_chk(int file, void *data, size_t count, off64_t offset, size_t room) {
    (void)room; return read_file(file, data, count, offset);
}

static ssize_t read_pieces(int file, const struct iovec *pieces, int count, off_t offset) {
    char path[PATH_MAX];
    int failed = 0;
    struct step step = {OP_READ, path, NULL, count, offset};
    int watched = !ignores(OP_READ) && file_is_watched(file, path);
    if (watched) failed = enter(&step) == FAILED;
    ssize_t got = failed ? -1 : offset < 0 ? raw(SYS_readv, file, pieces, count) : raw(SYS_preadv, file, pieces, count, (long)offset, 0L);
    return watched ? leave(&step, got) : got;
}
VISIBLE ssize_t readv(int file, const struct iovec *pieces, int count) { return read_pieces(file, pieces, count, -1); }
VISIBLE ssize_t preadv(int file, const struct iovec *pieces, int count, off_t offset) {
    return read_pieces(file, pieces, count, offset);
}
VISIBLE ssize_t preadv64(int file, const struct iovec *pieces, int count, off64_t offset) {
    return read_pieces(file, pieces, count, offset);
}

VISIBLE DIR *opendir(const char *name) {
    DIR *(*real)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    char path[PATH_MAX];
    if (ignores(OP_LIST) || !path_is_watched(AT_FDCWD, name, 1, path)) return real(name);
    struct step step = {OP_LIST, path};
    DIR *stream = enter(&step) == FAILED ? NULL : real(name);
    leave(&step, stream == NULL ? -1 : 0);
    return stream;
}
