/* Count words. A table of the words of a task holds their numbers until it is full or the task ends.
 *
 *   clang --target=wasm32 -O3 -mbulk-memory -nostdlib -Wl,--no-entry -o wordcount.wasm examples/wasm/wordcount.c
 *   gristmill run wasm wordcount.wasm examples/books -o out */
#define GM_HAS_REDUCE
#define GM_HAS_FINISH
#include "gristmill.h"

#define SLOTS (1u << 18)
#define FULL (SLOTS / 2)
#define TEXT (8u << 20)

typedef struct {
  uint32_t hash, at, len, count;
} slot;

static slot *slots;
static uint8_t *text;
static uint32_t used, words;

/* Hands on all words that are held. */
static void hand_on(gm_output *out) {
  for (uint32_t i = 0; i < SLOTS; i++) {
    slot *s = &slots[i];
    if (s->count) {
      uint64_t count = s->count;
      gm_pair(out, text + s->at, s->len, &count, 8);
      s->count = 0;
    }
  }
  used = words = 0;
}

static int same(const uint8_t *a, const uint8_t *b, uint32_t n) {
  for (; n >= 8; a += 8, b += 8, n -= 8) {
    uint64_t x, y;
    gm_copy(&x, a, 8), gm_copy(&y, b, 8);
    if (x != y) return 0;
  }
  while (n--)
    if (*a++ != *b++) return 0;
  return 1;
}

static void add(const uint8_t *word, uint32_t len, uint32_t hash, gm_output *out) {
  if (used + len > TEXT || words >= FULL) hand_on(out);
  for (uint32_t i = hash & (SLOTS - 1);; i = (i + 1) & (SLOTS - 1)) {
    slot *s = &slots[i];
    if (!s->count) {
      *s = (slot){hash, used, len, 1};
      gm_copy(text + used, word, len);
      used += len, words++;
      return;
    }
    if (s->hash == hash && s->len == len && same(text + s->at, word, len)) {
      s->count++;
      return;
    }
  }
}

/* A word is a run of ASCII letters and digits, as in `gristmill run wordcount`. */
static int is_word(uint8_t c) { return (uint8_t)((c | 32) - 'a') < 26 || (uint8_t)(c - '0') < 10; }

static const char *gm_map(const uint8_t *at, size_t len, gm_output *out) {
  const uint8_t *end = at + len;
  while (at < end) {
    while (at < end && !is_word(*at)) at++;
    const uint8_t *word = at;
    uint32_t hash = 0x811c9dc5;
    for (; at < end && is_word(*at); at++) hash = (hash ^ *at) * 0x01000193;
    if (at - word > TEXT) return "a word has more than 8 MiB";
    hash ^= hash >> 15;
    if (at > word) add(word, (uint32_t)(at - word), hash, out);
  }
  return 0;
}

static const char *gm_finish(gm_output *out) {
  hand_on(out);
  return 0;
}

/* Reduces. A key may go on in the next call. */
static uint64_t sum;

static const char *gm_reduce(const uint8_t *at, size_t len, int more, gm_output *out) {
  const uint8_t *end = at + len, *key, *value, *last = 0;
  uint32_t key_len, value_len, last_len = 0;
  for (int there = 1; there;) {
    there = gm_next(&at, end, &key, &key_len, &value, &value_len);
    if (last && (!there ? !more : key_len != last_len || !same(key, last, key_len))) {
      char digits[20], *d = digits + 20;
      do *--d = '0' + sum % 10;
      while (sum /= 10);
      gm_put(out, last, last_len);
      gm_put(out, "\t", 1);
      gm_put(out, d, digits + 20 - d);
      gm_put(out, "\n", 1);
    }
    if (there) {
      uint64_t count;
      gm_copy(&count, value, 8);
      sum += count;
      last = key, last_len = key_len;
    }
  }
  return 0;
}

/* What holds words is there before anything else is; a reducer never looks at it. */
GM_EXPORT("_initialize") void gm_initialize(void) {
  slots = gm_keep(SLOTS * sizeof(slot));
  text = gm_keep(TEXT);
}
