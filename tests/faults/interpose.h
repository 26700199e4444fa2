/* What the parts of the interposing library share; what it does is said in interpose.c. */
#ifndef PEA_INTERPOSE_H
#define PEA_INTERPOSE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

/* The numbers are those of `Op` in control.py. */
enum operation {
    OP_OPEN = 0, OP_WRITE = 1, OP_TRUNCATE = 2, OP_ALLOCATE = 3, OP_COPY = 4, OP_SYNC = 5, OP_RENAME = 6, OP_LINK = 7,
    OP_SYMLINK = 8, OP_UNLINK = 9, OP_MKDIR = 10, OP_RMDIR = 11, OP_MAP = 12, OP_FLUSH = 13,
    OP_OPEN_READ = 16, OP_READ = 17, OP_LIST = 18
};

/* What is to become of an operation. */
enum verdict { GO_ON, FAILED, TORN, CUT_SHORT };

/* One operation on its way: filled by the wrapper, written to the log by `leave`. */
struct step {
    enum operation operation;
    const char *path, *other; /* absolute; other: the second name of a rename or a link */
    int64_t value;            /* flags of an open, length of a truncation */
    int64_t offset;
    const void *data;
    size_t num_bytes;
    uint64_t number;
};

int armed(void);
/* Whether operations of this kind (reading) are neither counted nor logged. */
int ignores(enum operation operation);
/* Absolute path of a name or of an open file; whether it is watched. `follow`: also the last name may be a link. */
int path_is_watched(int folder, const char *name, int follow, char *path);
int file_is_watched(int file, char *path);
/* `enter` counts the operation and takes the lock, `leave` logs it and frees the lock; both keep errno. */
enum verdict enter(struct step *step);
long leave(struct step *step, long result);
void die(struct step *step, long result) __attribute__((noreturn));
size_t torn_bytes(size_t num_bytes);
int wants_data(void);
int skips_sync(void);
/* A system call that nobody interposes; -1 and errno. */
long raw_call(long number, long a, long b, long c, long d, long e, long f);
#define raw(...) RAW_CALL(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define RAW_CALL(n, a, b, c, d, e, f, ...) \
    raw_call((long)(n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
void open_gate(void);
int trap_raw_calls(void);
/* Whether this thread is between `enter` and `leave`: what libc then calls by itself is a part of the operation. */
extern __thread int in_step;

#endif
