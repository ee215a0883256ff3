/* Count words. A table of the words of a task holds their numbers until it is full or the task ends.
 *
 *   clang --target=wasm32 -O3 -mbulk-memory -msimd128 -nostdlib -Wl,--no-entry -o wordcount.wasm examples/wasm/wordcount.c
 *   gristmill run wasm wordcount.wasm examples/books -o out */
#define GM_HAS_REDUCE
#define GM_HAS_FINISH
#include "gristmill.h"
#include <wasm_simd128.h>

#define SLOTS (1u << 18)
#define FULL (SLOTS / 2)
#define TEXT (8u << 20)

/* Of a word the first 8 bytes, and where it is if there are more: with its length in front. No byte of a word is 0, so that the
 * first 8 tell how many they are. */
typedef struct {
  uint64_t head;
  uint32_t rest, count;
} slot;

static slot *slots;
static uint8_t *text;
static uint32_t used, words;

static uint64_t eight(const uint8_t *at) {
  uint64_t bytes;
  gm_copy(&bytes, at, 8);
  return bytes;
}

static uint32_t length(const slot *s) {
  uint32_t len;
  if (!s->rest) return 8 - (s->head ? __builtin_clzll(s->head) / 8 : 8);
  gm_copy(&len, text + s->rest, 4);
  return len;
}

/* Hands on all words that are held. */
static void hand_on(gm_output *out) {
  for (uint32_t i = 0; i < SLOTS; i++) {
    slot *s = &slots[i];
    if (s->count) {
      uint64_t count = s->count;
      const void *word = s->rest ? (const void *)(text + s->rest + 4) : &s->head;
      gm_pair(out, word, length(s), &count, 8);
      s->count = 0;
    }
  }
  used = words = 0;
}

/* Words that were found and are to be counted: what the table holds of all of them is asked for at once, since memory answers
 * many questions in the time of one. */
#define ASKED 32
static struct {
  uint64_t head, hash;
  const uint8_t *at;
  uint32_t len;
} asked[ASKED];
static uint32_t waiting;

static int is_rest(const uint8_t *rest, const uint8_t *word, uint32_t len) {
  uint32_t i = 8, last = len - 8;
  if (!rest || (uint32_t)eight(rest) != len) return 0;
  /* The last 8 bytes may overlap those before. */
  while (i < len && eight(rest + 4 + (i < last ? i : last)) == eight(word + (i < last ? i : last))) i += 8;
  return i >= len;
}

static void find(uint32_t n, gm_output *out) {
  uint64_t head = asked[n].head;
  const uint8_t *word = asked[n].at;
  uint32_t len = asked[n].len;
  for (uint32_t i = asked[n].hash >> 46;; i = (i + 1) & (SLOTS - 1)) {
    slot *s = &slots[i];
    if (!s->count) {
      if (used + len + 24 > TEXT || words >= FULL) {
        hand_on(out);
        s = &slots[asked[n].hash >> 46];
      }
      *s = (slot){head, 0, 1};
      words++;
      if (len > 8) {
        /* 0 is nowhere. */
        s->rest = used + 8;
        gm_copy(text + s->rest, &len, 4);
        for (uint32_t i = 0; i < len; i += 8) gm_copy(text + s->rest + 4 + i, word + i, 8);
        used += 4 + len;
      }
      return;
    }
    if (s->head == head && (len <= 8 ? !s->rest : is_rest(s->rest ? text + s->rest : 0, word, len))) {
      s->count++;
      return;
    }
  }
}

static void count(gm_output *out) {
  uint32_t seen = 0;
  for (uint32_t n = 0; n < waiting; n++) seen += slots[asked[n].hash >> 46].count;
  /* Looked at, so that the compiler leaves it in. */
  asked[0].hash ^= seen == 0xffffffff;
  for (uint32_t n = 0; n < waiting; n++) find(n, out);
  waiting = 0;
}

/* Counts a word. */
static void add(const uint8_t *word, uint32_t len, gm_output *out) {
  uint64_t head = eight(word), hash;
  if (len < 8) head &= ((uint64_t)1 << 8 * len) - 1;
  hash = (head ^ len) * 0x9e3779b97f4a7c15;
  for (uint32_t i = 8; i < len; i += 8) hash = (hash ^ hash >> 29 ^ eight(word + (i < len - 8 ? i : len - 8))) * 0x9e3779b97f4a7c15;
  asked[waiting].head = head, asked[waiting].hash = hash, asked[waiting].at = word, asked[waiting].len = len;
  if (++waiting == ASKED) count(out);
}

/* A word is a run of ASCII letters and digits, as in `gristmill run wordcount`: which of 16 bytes are in one. */
static uint32_t in_words(v128_t bytes) {
  v128_t letters = wasm_i8x16_sub(wasm_v128_or(bytes, wasm_i8x16_splat(32)), wasm_i8x16_splat('a'));
  v128_t digits = wasm_i8x16_sub(bytes, wasm_i8x16_splat('0'));
  v128_t either = wasm_v128_or(wasm_u8x16_lt(letters, wasm_i8x16_splat(26)), wasm_u8x16_lt(digits, wasm_i8x16_splat(10)));
  return wasm_i8x16_bitmask(either);
}

static const char *gm_map(const uint8_t *at, size_t len, gm_output *out) {
  const uint8_t *end = at + len, *word = 0;
  uint64_t before = 0;
  if (len > TEXT / 2) return "a line has more than 4 MiB";
  for (; at < end; at += 64) {
    uint64_t in = 0;
    for (int i = 0; i < 4; i++) in |= (uint64_t)in_words(wasm_v128_load(at + 16 * i)) << 16 * i;
    if (end - at < 64) in &= ((uint64_t)1 << (end - at)) - 1;
    /* Bits are set where a word begins or ends. */
    uint64_t edges = in ^ (in << 1 | before);
    before = in >> 63;
    for (; edges; edges &= edges - 1) {
      const uint8_t *edge = at + __builtin_ctzll(edges);
      if (word) add(word, (uint32_t)(edge - word), out);
      word = word ? 0 : edge;
    }
  }
  if (word) add(word, (uint32_t)(end - word), out);
  count(out);
  return 0;
}

static const char *gm_finish(gm_output *out) {
  hand_on(out);
  return 0;
}

/* Reduces. A key may go on in the next call. */
static uint64_t sum;

static int same(const uint8_t *a, const uint8_t *b, uint32_t n) {
  while (n && *a == *b) a++, b++, n--;
  return !n;
}

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
  /* Zero they are already; written before they are read, their pages are made once. */
  __builtin_memset(slots, 0, SLOTS * sizeof(slot));
  text = gm_keep(TEXT);
}
