/* What an app in C needs: the functions of docs/wasm.md as the canonical ABI has them, for one file that is compiled with
 *
 *   clang --target=wasm32 -O3 -nostdlib -Wl,--no-entry -o app.wasm app.c
 *
 * The app defines gm_map and whichever of the others it has, after #define GM_HAS_COMBINE and so on; each appends what it
 * returns to an output, and returns 0, or a text that says why it failed. Memory is taken in order and comes back as a whole
 * when a call ends (gm_alloc) or never (gm_keep). */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint8_t *at;
  size_t len, room;
} gm_output;

extern uint8_t __heap_base;
static uintptr_t gm_top, gm_kept;

static void gm_grow(uintptr_t end) {
  uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (size_t)-1) __builtin_trap();
}

/* Memory until the call ends. */
static void *gm_alloc(size_t n) {
  if (!gm_top) gm_top = gm_kept = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
  uintptr_t at = gm_top;
  gm_top = (at + n + 15) & ~(uintptr_t)15;
  if (gm_top < at) __builtin_trap();
  gm_grow(gm_top);
  return (void *)at;
}

/* Memory for the task. To be taken before anything is taken for the call. */
static void *gm_keep(size_t n) {
  if (gm_top != gm_kept) __builtin_trap();
  void *at = gm_alloc(n);
  gm_kept = gm_top;
  return at;
}

static void gm_copy(void *to, const void *from, size_t n) { __builtin_memcpy(to, from, n); }

/* The same for few bytes: without a call. */
__attribute__((no_builtin)) static inline void gm_copy_few(void *to, const void *from, size_t n) {
  char *t = to;
  const char *f = from;
  for (; n >= 8; t += 8, f += 8, n -= 8) __builtin_memcpy(t, f, 8);
  for (; n; n--) *t++ = *f++;
}

/* Makes room for n bytes more. */
static void gm_room(gm_output *out, size_t n) {
  if (out->len + n > out->room) {
    size_t room = out->len ? (out->len + n) * 2 : n;
    uint8_t *at = gm_alloc(room);
    gm_copy(at, out->at, out->len);
    out->at = at;
    out->room = room;
  }
}

/* Appends bytes. */
static void gm_put(gm_output *out, const void *bytes, size_t n) {
  gm_room(out, n);
  if (n < 64) {
    gm_copy_few(out->at + out->len, bytes, n);
  } else {
    gm_copy(out->at + out->len, bytes, n);
  }
  out->len += n;
}

/* Appends a pair. */
static void gm_pair(gm_output *out, const void *key, uint32_t key_len, const void *value, uint32_t value_len) {
  uint32_t head[2] = {key_len, value_len};
  gm_put(out, head, 8);
  gm_put(out, key, key_len);
  gm_put(out, value, value_len);
}

/* The next pair of a batch, or 0 at its end. */
static int gm_next(const uint8_t **at, const uint8_t *end, const uint8_t **key, uint32_t *key_len, const uint8_t **value,
                   uint32_t *value_len) {
  if (*at >= end) return 0;
  uint32_t head[2];
  gm_copy(head, *at, 8);
  *key = *at + 8, *key_len = head[0];
  *value = *key + head[0], *value_len = head[1];
  *at = *value + head[1];
  return 1;
}

__attribute__((import_module("gristmill:app/host@0.1.0"), import_name("counter"))) void
gm_host_counter(const char *group, size_t group_len, const char *name, size_t name_len, int64_t amount);
__attribute__((import_module("gristmill:app/host@0.1.0"), import_name("log"))) void gm_host_log(const char *line, size_t len);

/* result<list<u8>, string> in memory. */
typedef struct {
  uint32_t failed;
  const void *at;
  size_t len;
} gm_result;

static gm_result *gm_return(const gm_output *out, const char *failed) {
  static gm_result result;
  result.failed = failed != 0;
  result.at = failed ? (const void *)failed : out->at;
  result.len = failed ? __builtin_strlen(failed) : out->len;
  return &result;
}

#define GM_EXPORT(name) __attribute__((export_name(name)))

/* So many bytes behind what a function is given can be read: whatever they are, they are there. */
#define GM_BEHIND 64

GM_EXPORT("cabi_realloc") void *gm_realloc(void *old, size_t old_len, size_t align, size_t len) {
  (void)align;
  void *at = gm_alloc(len + GM_BEHIND);
  if (old_len) gm_copy(at, old, old_len < len ? old_len : len);
  return at;
}

static const char *gm_map(const uint8_t *records, size_t len, gm_output *out);
GM_EXPORT("map") gm_result *gm_export_map(const uint8_t *records, size_t len) {
  gm_output out = {0};
  return gm_return(&out, gm_map(records, len, &out));
}
GM_EXPORT("cabi_post_map") void gm_post_map(gm_result *result) { (void)result, gm_top = gm_kept; }

#ifdef GM_HAS_COMBINE
static const char *gm_combine(const uint8_t *pairs, size_t len, gm_output *out);
GM_EXPORT("combine") gm_result *gm_export_combine(const uint8_t *pairs, size_t len) {
  gm_output out = {0};
  return gm_return(&out, gm_combine(pairs, len, &out));
}
GM_EXPORT("cabi_post_combine") void gm_post_combine(gm_result *result) { (void)result, gm_top = gm_kept; }
#endif

#ifdef GM_HAS_REDUCE
static const char *gm_reduce(const uint8_t *pairs, size_t len, int more, gm_output *out);
GM_EXPORT("reduce") gm_result *gm_export_reduce(const uint8_t *pairs, size_t len, int more) {
  gm_output out = {0};
  return gm_return(&out, gm_reduce(pairs, len, more, &out));
}
GM_EXPORT("cabi_post_reduce") void gm_post_reduce(gm_result *result) { (void)result, gm_top = gm_kept; }
#endif

#ifdef GM_HAS_FINISH
static const char *gm_finish(gm_output *out);
GM_EXPORT("finish") gm_result *gm_export_finish(void) {
  gm_output out = {0};
  return gm_return(&out, gm_finish(&out));
}
GM_EXPORT("cabi_post_finish") void gm_post_finish(gm_result *result) { (void)result, gm_top = gm_kept; }
#endif
