/* System calls made without libc's functions: stdio's own, and Rust's and others' inline assembly.
 *
 * A seccomp filter turns them into SIGSYS, whose handler calls our functions. What we call ourselves goes through a few
 * instructions at an address that is the same in every process, and which alone the filter lets pass; so it holds for
 * programs that the command starts too, as long as they load this library.
 */
#include "interpose.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <stdio.h>

__thread int in_step;

#ifdef __x86_64__
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <ucontext.h>

#define GATE ((unsigned char *)0x7e5000000000)
#define PAGE 4096

typedef long (*gate_function)(long, long, long, long, long, long, long);
static gate_function gate;

/* As libc's syscall(), but for the errors: number and six arguments to their registers. */
static const unsigned char GATE_CODE[] = {
    0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x4d, 0x89, 0xc2, 0x4d, 0x89,
    0xc8, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0xc3};

long raw_call(long number, long a, long b, long c, long d, long e, long f) {
    if (gate == NULL) return syscall(number, a, b, c, d, e, f);
    long result = gate(number, a, b, c, d, e, f);
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

#define STRING(n) ((const char *)(n))

static long dispatch_names(long number, long a, long b, long c, long d, long e) {
    switch (number) {
    case SYS_rename: return rename(STRING(a), STRING(b));
    case SYS_renameat: return renameat((int)a, STRING(b), (int)c, STRING(d));
    case SYS_renameat2: return renameat2((int)a, STRING(b), (int)c, STRING(d), (unsigned)e);
    case SYS_link: return link(STRING(a), STRING(b));
    case SYS_linkat: return linkat((int)a, STRING(b), (int)c, STRING(d), (int)e);
    case SYS_symlink: return symlink(STRING(a), STRING(b));
    case SYS_symlinkat: return symlinkat(STRING(a), (int)b, STRING(c));
    case SYS_unlink: return unlink(STRING(a));
    case SYS_unlinkat: return unlinkat((int)a, STRING(b), (int)c);
    case SYS_mkdir: return mkdir(STRING(a), (mode_t)b);
    case SYS_mkdirat: return mkdirat((int)a, STRING(b), (mode_t)c);
    case SYS_rmdir: return rmdir(STRING(a));
    default: return raw(number, a, b, c, d, e);
    }
}

static long dispatch(long number, long a, long b, long c, long d, long e, long f) {
    switch (number) {
    case SYS_open: return open(STRING(a), (int)b, (mode_t)c);
    case SYS_openat: return openat((int)a, STRING(b), (int)c, (mode_t)d);
    case SYS_creat: return creat(STRING(a), (mode_t)b);
    case SYS_write: return write((int)a, (void *)b, (size_t)c);
    case SYS_pwrite64: return pwrite((int)a, (void *)b, (size_t)c, d);
    case SYS_writev: return writev((int)a, (void *)b, (int)c);
    case SYS_pwritev: return pwritev((int)a, (void *)b, (int)c, d);
    case SYS_fsync: return fsync((int)a);
    case SYS_fdatasync: return fdatasync((int)a);
    case SYS_syncfs: return syncfs((int)a);
    case SYS_ftruncate: return ftruncate((int)a, b);
    case SYS_truncate: return truncate(STRING(a), b);
    case SYS_fallocate: return fallocate((int)a, (int)b, c, d);
    case SYS_sendfile: return sendfile((int)a, (int)b, (off_t *)c, (size_t)d);
    case SYS_copy_file_range: return copy_file_range((int)a, (void *)b, (int)c, (void *)d, (size_t)e, (unsigned)f);
    default: return dispatch_names(number, a, b, c, d, e);
    }
}

static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    int before = errno;
    long a = r[REG_RDI], b = r[REG_RSI], c = r[REG_RDX], d = r[REG_R10], e = r[REG_R8], f = r[REG_R9];
    long result = in_step || !armed() ? raw(info->si_syscall, a, b, c, d, e, f)
                                      : dispatch(info->si_syscall, a, b, c, d, e, f);
    r[REG_RAX] = result == -1 ? -errno : result;
    errno = before;
}

#define NUMBER_TRAPPED(n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (n), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
/* An open that only reads passes; `argument` is the low half of its flags. */
#define OPEN_TRAPPED(n, argument)                                                         \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (n), 0, 4), LOAD(argument),                       \
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC, 0, 1), \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static int install_filter(void) {
    const uint64_t address = (uint64_t)GATE;
    struct sock_filter filter[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        /* Calls from the gate pass. */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(address >> 32), 0, 4),
        LOAD(instruction_pointer),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)address, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)address + PAGE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        LOAD(nr),
        OPEN_TRAPPED(SYS_open, args[1]),
        OPEN_TRAPPED(SYS_openat, args[2]),
        NUMBER_TRAPPED(SYS_creat), NUMBER_TRAPPED(SYS_write), NUMBER_TRAPPED(SYS_pwrite64),
        NUMBER_TRAPPED(SYS_writev), NUMBER_TRAPPED(SYS_pwritev), NUMBER_TRAPPED(SYS_fsync),
        NUMBER_TRAPPED(SYS_fdatasync), NUMBER_TRAPPED(SYS_syncfs), NUMBER_TRAPPED(SYS_ftruncate),
        NUMBER_TRAPPED(SYS_truncate), NUMBER_TRAPPED(SYS_fallocate), NUMBER_TRAPPED(SYS_sendfile),
        NUMBER_TRAPPED(SYS_copy_file_range), NUMBER_TRAPPED(SYS_rename), NUMBER_TRAPPED(SYS_renameat),
        NUMBER_TRAPPED(SYS_renameat2), NUMBER_TRAPPED(SYS_link), NUMBER_TRAPPED(SYS_linkat),
        NUMBER_TRAPPED(SYS_symlink), NUMBER_TRAPPED(SYS_symlinkat), NUMBER_TRAPPED(SYS_unlink),
        NUMBER_TRAPPED(SYS_unlinkat), NUMBER_TRAPPED(SYS_mkdir), NUMBER_TRAPPED(SYS_mkdirat),
        NUMBER_TRAPPED(SYS_rmdir),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 0;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

/* To be called before anything that a filter traps, which a program inherits from the one that started it. */
void open_gate(void) {
    if (gate != NULL) return;
    void *page = mmap(GATE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page != GATE) return;
    memcpy(page, GATE_CODE, sizeof GATE_CODE);
    if (mprotect(page, PAGE, PROT_READ | PROT_EXEC) != 0) return;
    struct sigaction action = {0};
    action.sa_sigaction = on_trap;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (sigaction(SIGSYS, &action, NULL) == 0) gate = (gate_function)GATE;
}

/* Whether calls around libc are seen from now on, in this thread and those that it starts. */
int trap_raw_calls(void) { return gate != NULL && install_filter(); }
#else
long raw_call(long number, long a, long b, long c, long d, long e, long f) { return syscall(number, a, b, c, d, e, f); }
void open_gate(void) {}
int trap_raw_calls(void) { return 0; }
#endif
