/* Count words. A table of the words of a task holds their numbers until it is full or the task ends.
 *
 *   clang --target=wasm32 -O3 -mbulk-memory -msimd128 -nostdlib -Wl,--no-entry -o wordcount.wasm examples/wasm/wordcount.c
 *   gristmill run wasm wordcount.wasm examples/books -o out */
#define GM_HAS_REDUCE
#define GM_HAS_FINISH
#include "gristmill.h"
#include <wasm_simd128.h>

#define SLOTS_LOG 20
#define SLOTS (1u << SLOTS_LOG)
#define FULL (SLOTS / 2)
#define TEXT (4u << 20)

/* A word of up to 16 bytes is in its slot, padded with zeros, which no word has in it; a longer one is in the text, and its
 * first 16 bytes are in the slot. */
typedef struct {
  v128_t head;
  uint32_t count, len, rest;
} slot;

static slot *slots;
static uint8_t *text;
static uint32_t used, words;

/* Hands on all words that are held. */
static void hand_on(gm_output *out) {
  size_t bytes = 0;
  for (uint32_t i = 0; i < SLOTS; i++) bytes += slots[i].count ? 16 + slots[i].len : 0;
  gm_room(out, bytes);
  for (uint32_t i = 0; i < SLOTS; i++) {
    slot *s = &slots[i];
    if (s->count) {
      uint64_t count = s->count;
      gm_pair(out, s->len > 16 ? (const void *)(text + s->rest) : &s->head, s->len, &count, 8);
      s->count = 0;
    }
  }
  used = words = 0;
}

/* Words that were found and are to be counted. What the table holds of all of them is asked for at once, since memory answers
 * many questions in the time of one. */
#define ASKED 128
static struct {
  v128_t head;
  const uint8_t *at;
  uint32_t len;
} asked[ASKED];
/* Where they are if nothing is in their way. */
static slot *home[ASKED + 16];
static uint32_t waiting;
/* Looked at by nobody, so that the compiler leaves in what asks. */
static volatile uint32_t seen;

static int same(const uint8_t *a, const uint8_t *b, uint32_t n) {
  for (; n >= 8; a += 8, b += 8, n -= 8) {
    uint64_t x, y;
    gm_copy(&x, a, 8);
    gm_copy(&y, b, 8);
    if (x != y) return 0;
  }
  while (n && *a == *b) a++, b++, n--;
  return !n;
}

static void find(uint32_t n, gm_output *out) {
  uint32_t len = asked[n].len;
  slot *s = home[n], *end = slots + SLOTS;
  for (; s->count; s = s + 1 < end ? s + 1 : slots) {
    if (s->len == len && !wasm_v128_any_true(wasm_v128_xor(s->head, asked[n].head)) &&
        (len <= 16 || same(text + s->rest, asked[n].at, len))) {
      s->count++;
      return;
    }
  }
  if (words >= FULL || (len > 16 && used + len > TEXT)) {
    hand_on(out);
    s = home[n];
  }
  *s = (slot){asked[n].head, 1, len, used};
  words++;
  if (len > 16) {
    gm_copy(text + used, asked[n].at, len);
    used += len;
  }
}

static void count(gm_output *out) {
  uint32_t sum = 0;
  /* Behind the last are some of before. */
  for (uint32_t i = 0; i < waiting; i += 16) {
#pragma clang loop unroll(full)
    for (uint32_t j = i; j < i + 16; j++) sum += home[j]->count;
  }
  seen = sum;
  for (uint32_t i = 0; i < waiting; i++) find(i, out);
  waiting = 0;
}

/* Behind as many bytes of ones as a word may have in its slot, as many zeros. */
static const uint8_t mask[32] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

static void add(const uint8_t *word, uint32_t len) {
  v128_t head = wasm_v128_and(wasm_v128_load(word), wasm_v128_load(mask + 16 - (len < 16 ? len : 16)));
  uint64_t hash = (uint64_t)wasm_i64x2_extract_lane(head, 0) * 0x9e3779b97f4a7c15 ^
                  (uint64_t)wasm_i64x2_extract_lane(head, 1) * 0xc2b2ae3d27d4eb4f;
  hash = (hash ^ hash >> 32) * 0x9fb21c651e98df25;
  asked[waiting].head = head, asked[waiting].at = word, asked[waiting].len = len;
  home[waiting++] = &slots[hash >> (64 - SLOTS_LOG)];
}

/* A word is a run of ASCII letters and digits, as in `gristmill run wordcount`: which of 16 bytes are in one. */
static uint64_t in_words(v128_t bytes) {
  v128_t letters = wasm_i8x16_sub(wasm_v128_or(bytes, wasm_i8x16_splat(32)), wasm_i8x16_splat('a'));
  v128_t digits = wasm_i8x16_sub(bytes, wasm_i8x16_splat('0'));
  v128_t either = wasm_v128_or(wasm_u8x16_lt(letters, wasm_i8x16_splat(26)), wasm_u8x16_lt(digits, wasm_i8x16_splat(10)));
  return wasm_i8x16_bitmask(either);
}

/* Where words begin and end, in turn: those of 64 bytes are written 8 at a time, whether there are so many or not, since what
 * cannot be foreseen costs more than what is done in vain. */
static uint32_t edge[64 + 1 + 8];

static const char *gm_map(const uint8_t *from, size_t len, gm_output *out) {
  uint64_t before = 0;
  uint32_t found = 0;
  if (len > TEXT / 2) return "a line has more than 2 MiB";
  /* One round more: a word may end with the input. */
  for (uint32_t at = 0; at <= len; at += 64) {
    uint64_t in = 0;
    for (int i = 0; i < 4; i++) in |= in_words(wasm_v128_load(from + at + 16 * i)) << 16 * i;
    if (len - at < 64) in &= ((uint64_t)1 << (len - at)) - 1;
    /* Bits are set where a word begins or ends. */
    uint64_t edges = in ^ (in << 1 | before);
    before = in >> 63;
    uint32_t n = (uint32_t)__builtin_popcountll(edges);
    for (uint32_t i = 0; i < n; i += 8) {
      for (uint32_t j = i; j < i + 8; j++) edge[found + j] = at + (uint32_t)__builtin_ctzll(edges), edges &= edges - 1;
    }
    found += n;
    uint32_t done = 0;
    for (; done + 2 <= found; done += 2) add(from + edge[done], edge[done + 1] - edge[done]);
    /* A word that has not ended. */
    edge[0] = edge[done];
    found -= done;
    /* No more than 33 words end in 64 bytes. */
    if (waiting >= ASKED - 33) count(out);
  }
  /* What words are is not known when the lines are gone. */
  count(out);
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
  gm_room(out, len);
  uint32_t key_len, value_len, last_len = 0;
  for (int there = 1; there;) {
    there = gm_next(&at, end, &key, &key_len, &value, &value_len);
    if (last && (!there ? !more : key_len != last_len || !same(key, last, key_len))) {
      char digits[22], *d = digits + sizeof digits;
      *--d = '\n';
      do *--d = '0' + sum % 10;
      while (sum /= 10);
      *--d = '\t';
      gm_put(out, last, last_len);
      gm_put(out, d, digits + sizeof digits - d);
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

/* What holds words is there before anything else is, all zero; a reducer never looks at it. */
GM_EXPORT("_initialize") void gm_initialize(void) {
  slots = gm_keep(SLOTS * sizeof(slot));
  text = gm_keep(TEXT);
}
