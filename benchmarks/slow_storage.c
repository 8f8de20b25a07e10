/* Storage with a bandwidth, a latency, stalls and errors, for files below one folder.

   cc -shared -fPIC -O2 -o slow_storage.so slow_storage.c -ldl -lpthread
   LD_PRELOAD=./slow_storage.so python ...

It stands between a program and the C library, so that Python, Orbax and TensorStore meet it alike.
A program sets it with `slow_storage`; before that, nothing changes. Each process has its own
bandwidth, as hosts have. Which operations stall follows from the seed and the number of the
operation. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 65536

static char folder[4096];
static size_t folder_size;
static double write_rate, read_rate, latency, stall, stall_chance;
static uint64_t seed, operations, writes, reads, bad_write, bad_read;
static int bad_number;
static unsigned char slow[FILES];
static pthread_mutex_t line = PTHREAD_MUTEX_INITIALIZER;
static double free_at;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void rest(double seconds) {
  if (seconds <= 0) return;
  struct timespec t = {(time_t)seconds, (long)(1e9 * (seconds - (time_t)seconds))};
  while (nanosleep(&t, &t) && errno == EINTR) {}
}

/* Sets this process's storage, which is what lies below `path`: bytes a second of writes and reads,
   seconds that each operation takes, seconds of a stall and its chance. The write and the read with
   these numbers (from 1; 0 for none) fail with an error, or stall if `error` is 0. */
void slow_storage(const char *path, double writing, double reading, double wait, double pause,
                  double chance, uint64_t dice, uint64_t write, uint64_t read, int error) {
  strncpy(folder, path, sizeof folder - 1);
  write_rate = writing, read_rate = reading, latency = wait, stall = pause, stall_chance = chance;
  seed = dice, bad_write = write, bad_read = read, bad_number = error;
  operations = writes = reads = 0;
  folder_size = strlen(folder);
}

static int below(const char *path) {
  return folder_size && !strncmp(path, folder, folder_size) && path[folder_size] == '/';
}

static double drawn(uint64_t number) { /* splitmix64, in [0, 1) */
  uint64_t z = seed * 0x9E3779B97F4A7C15u + number * 0xD1B54A32D192ED03u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return ((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

static void take(size_t bytes, double rate) {
  uint64_t number = __atomic_add_fetch(&operations, 1, __ATOMIC_RELAXED);
  double pause = latency;
  if (stall_chance > 0 && drawn(number) < stall_chance) pause += stall;
  if (bytes && rate > 0) {
    pthread_mutex_lock(&line);
    double begin = now();
    if (free_at > begin) begin = free_at;
    free_at = begin + bytes / rate;
    pause += free_at - now();
    pthread_mutex_unlock(&line);
  }
  rest(pause);
}

static int is_bad(uint64_t *count, uint64_t bad) {
  if (__atomic_add_fetch(count, 1, __ATOMIC_RELAXED) != bad) return 0;
  if (!bad_number) rest(stall);
  errno = bad_number;
  return bad_number != 0;
}

/* Before an operation that changes files. */
static int write_fails(size_t bytes) {
  take(bytes, write_rate);
  return is_bad(&writes, bad_write);
}

static int is_slow(int file) { return file >= 0 && file < FILES && slow[file]; }

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OPENS(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = va_arg(more, mode_t); \
    va_end(more); \
    int wanted = below(path); \
    if (wanted) take(0, 0); \
    int file = real(path, flags, mode); \
    if (file >= 0 && file < FILES) slow[file] = wanted; \
    return file; \
  }

#define OPENS_AT(name) \
  int name(int top, const char *path, int flags, ...) { \
    REAL(name); \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = va_arg(more, mode_t); \
    va_end(more); \
    int wanted = below(path); \
    if (wanted) take(0, 0); \
    int file = real(top, path, flags, mode); \
    if (file >= 0 && file < FILES) slow[file] = wanted; \
    return file; \
  }

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

#define WRITES(name, parameters, arguments) \
  ssize_t name parameters { \
    REAL(name); \
    if (is_slow(file) && write_fails(size)) return -1; \
    return real arguments; \
  }

#define READS(name, parameters, arguments) \
  ssize_t name parameters { \
    REAL(name); \
    if (is_slow(file) && is_bad(&reads, bad_read)) return -1; \
    ssize_t got = real arguments; \
    if (got > 0 && is_slow(file)) take(got, read_rate); \
    return got; \
  }

WRITES(write, (int file, const void *data, size_t size), (file, data, size))
WRITES(pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
WRITES(pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
READS(read, (int file, void *data, size_t size), (file, data, size))
READS(pread, (int file, void *data, size_t size, off_t at), (file, data, size, at))
READS(pread64, (int file, void *data, size_t size, off64_t at), (file, data, size, at))

static size_t total(const struct iovec *parts, int count) {
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  return bytes;
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  if (is_slow(file) && write_fails(total(parts, count))) return -1;
  return real(file, parts, count);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) {
  REAL(pwritev);
  if (is_slow(file) && write_fails(total(parts, count))) return -1;
  return real(file, parts, count, at);
}

int fsync(int file) {
  REAL(fsync);
  if (is_slow(file) && write_fails(0)) return -1;
  return real(file);
}

int rename(const char *old, const char *new) {
  REAL(rename);
  if (below(new) && write_fails(0)) return -1;
  return real(old, new);
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  if (below(path) && write_fails(0)) return -1;
  return real(path, mode);
}
