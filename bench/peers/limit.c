/*
 * The limit: batch normalization as our Wasm kernels do it, in C, as fast as we know how to write it.
 *
 * Forward: a pass for the sums of x - k and (x - k)^2 about a shift k near the mean, and a pass that writes y. Backward: a
 * pass for the sums of dy and dy * (x - mean), and a pass that writes dx. Both walk memory in ascending order; float32
 * lanes within a row, float64 per channel from there on. Threads share the samples (channels last: the rows), each with
 * channel sums of its own, and meet at OpenMP's barrier.
 *
 * A child process that says what compiled it, and then is asked over stdin and answers on stdout; one line each, float32
 * follow where it says so:
 *
 *   prepare channelsFirst|channelsLast N C INNER [H W]  + x, dy, weight, bias    ->  ready
 *   run forward|both|copy THREADS plain|streaming CALLS                         ->  NANOSECONDS (of all calls), or none
 *   results THREADS plain|streaming                                             ->  ready, + y, dx, dweight, dbias
 *   free                                                                        ->  ready
 *
 * Vectors are GCC's; AVX-512 adds masks for the ends of rows, a transposing sum, and stores that bypass the caches.
 */
#define _GNU_SOURCE
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#ifndef LANES
#define LANES 16         /* float32 of a vector: 64 bytes, a cache line; GCC splits it where registers are narrower */
#endif
/* Channels last: rows whose lanes are summed before they go to float64; more where rows are short, as long as their block
 * stays in the first-level cache. */
#define FEW_ROWS 8
#define MANY_ROWS 64
#define SHORT 256        /* elements of a row */
#define PIECE 8192       /* elements of a row whose lanes are summed before they go to float64 */
#define MAX_THREADS 16
#define ALONE (1 << 16)  /* elements below which one thread is faster than two and their barrier */
#define EPS 1e-5

#define generic static inline __attribute__((always_inline))

typedef float vector __attribute__((vector_size(4 * LANES)));
/* The same without alignment, and as part of an array of float. */
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vector load(const float *p) { return *(const loose *)p; }
static inline void store(float *p, vector v) { *(loose *)p = v; }
static inline vector all(float value) { return (vector){} + value; }

#ifdef __AVX512F__
static inline __mmask16 first(size_t n) { return (__mmask16)((1u << n) - 1); }
static inline vector load_part(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
static inline vector keep_part(vector v, size_t n) { return _mm512_maskz_mov_ps(first(n), v); }
static inline void store_part(float *p, vector v, size_t n) { _mm512_mask_storeu_ps(p, first(n), v); }
static inline void store_past(float *p, vector v) { _mm512_stream_ps(p, v); }
static inline void fence(void) { _mm_sfence(); }
enum { CAN_STREAM = 1 };
#else
static inline vector load_part(const float *p, size_t n) {
  vector v = {};
  for (size_t i = 0; i < n; i++) v[i] = p[i];
  return v;
}
static inline vector keep_part(vector v, size_t n) {
  for (size_t i = n; i < LANES; i++) v[i] = 0;
  return v;
}
static inline void store_part(float *p, vector v, size_t n) {
  for (size_t i = 0; i < n; i++) p[i] = v[i];
}
static inline void store_past(float *p, vector v) { store(p, v); }
static inline void fence(void) {}
enum { CAN_STREAM = 0 };
#endif

/* The batch, and what is made of it. */
static size_t samples, channels, inner;
static int last;             /* channels last */
static size_t period, folds; /* channels last: the rows are taken `folds` at a time, so that they are whole vectors */
static float *x, *dy, *weight, *bias, *y, *dx, *dweight, *dbias;

/* Sums of one thread, per channel (channels last: per element of a period). */
struct sums {
  double *a, *b; /* of x - k and (x - k)^2; of dy and dy * (x - mean) */
  float *k;      /* the shift */
  size_t count;  /* values per channel */
} part[MAX_THREADS];

/* What a pass multiplies by, one set per thread: y = (x - mean) * a + b; dx = dy * a + (x - mean) * b + c. */
struct factors {
  float *mean, *a, *b, *c;
} factors[MAX_THREADS];
static double *means, *invstds; /* by thread 0, for backward */

/* --- threads --------------------------------------------------------------------------------------------------- */

enum kind { FORWARD, BOTH, COPY };
static struct {
  enum kind kind;
  int threads, streaming;
  long calls;
} job;

static void meet(void) {
#pragma omp barrier
}

/* Where a thread's share of n begins. */
static size_t from(size_t n, int thread) { return n * thread / job.threads; }

/* --- sums: channels first -------------------------------------------------------------------------------------- */

/* Lane i of the result is the sum of the lanes of rows[i]. */
static inline vector transposed_sum(vector rows[LANES]) {
#ifdef __AVX512F__
  for (int i = 0; i < 16; i += 2) {
    vector low = _mm512_unpacklo_ps(rows[i], rows[i + 1]), high = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    rows[i / 2] = low + high;
  }
  for (int i = 0; i < 8; i += 2) {
    __m512d p = _mm512_castps_pd(rows[i]), q = _mm512_castps_pd(rows[i + 1]);
    vector low = _mm512_castpd_ps(_mm512_unpacklo_pd(p, q)), high = _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
    rows[i / 2] = low + high;
  }
  /* Each quarter of rows[g] holds sums of the rows 4g .. 4g + 3: two rounds over quarters are left. */
  for (int i = 0; i < 4; i += 2) {
    vector low = _mm512_shuffle_f32x4(rows[i], rows[i + 1], 0x88), high = _mm512_shuffle_f32x4(rows[i], rows[i + 1], 0xdd);
    rows[i / 2] = low + high;
  }
  return _mm512_shuffle_f32x4(rows[0], rows[1], 0x88) + (vector)_mm512_shuffle_f32x4(rows[0], rows[1], 0xdd);
#else
  vector total;
  for (int i = 0; i < LANES; i++) {
    float sum = 0;
    for (int j = 0; j < LANES; j++) sum += rows[i][j];
    total[i] = sum;
  }
  return total;
#endif
}

/* Adds the lane sums of `count` rows to as many channels. */
static inline void add_rows(double *to, vector rows[LANES], size_t count) {
  vector sum = transposed_sum(rows);
  for (size_t i = 0; i < count; i++) to[i] += sum[i];
}

static inline void widen(double *to, vector v) {
  for (int i = 0; i < LANES; i++) to[i] += v[i];
}

static inline void narrow(vector *to, const double *from) {
  for (int i = 0; i < LANES; i++) (*to)[i] = from[i];
}

static float mean_of(const float *row, size_t n, size_t stride) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += row[i * stride];
  return sum / n;
}

/* The sums of a pass: forward of d = x - shift and d * d, where the shift is k; backward of dy and dy * d, where it is the
 * mean. Everything generic is inlined with `back` as a constant. */
generic void piece_sums(int back, const float *g, const float *row, size_t length, vector shift, vector *sum, vector *product) {
  vector s[4] = {}, q[4] = {};
  size_t i = 0;
  for (; i + 4 * LANES <= length; i += 4 * LANES)
    for (int j = 0; j < 4; j++) {
      vector d = load(row + i + j * LANES) - shift, t = back ? load(g + i + j * LANES) : d;
      s[j] += t;
      q[j] += t * d;
    }
  for (; i + LANES <= length; i += LANES) {
    vector d = load(row + i) - shift, t = back ? load(g + i) : d;
    s[1] += t;
    q[1] += t * d;
  }
  if (i < length) {
    vector d = load_part(row + i, length - i) - shift;
    vector t = back ? load_part(g + i, length - i) : keep_part(d, length - i);
    s[2] += t;
    q[2] += t * d;
  }
  *sum = (s[0] + s[1]) + (s[2] + s[3]);
  *product = (q[0] + q[1]) + (q[2] + q[3]);
}

/* A row; the lanes of a long one are summed piece by piece, so that they keep their digits. */
generic void row_sums(int back, const float *g, const float *row, vector shift, vector *sum, vector *product) {
  if (inner <= PIECE) {
    piece_sums(back, g, row, inner, shift, sum, product);
    return;
  }
  double s[LANES] = {}, q[LANES] = {};
  for (size_t i = 0; i < inner; i += PIECE) {
    piece_sums(back, g + i, row + i, inner - i < PIECE ? inner - i : PIECE, shift, sum, product);
    widen(s, *sum);
    widen(q, *product);
  }
  narrow(sum, s);
  narrow(product, q);
}

generic void sums_first(int back, int thread) {
  struct sums *sums = &part[thread];
  size_t begin = from(samples, thread), end = from(samples, thread + 1);
  sums->count = (end - begin) * inner;
  const float *shift = back ? factors[thread].mean : sums->k;
  size_t sampled = inner < 1024 ? inner : 1024; /* enough for a shift: it must be near the mean, not be it */
  for (size_t n = begin; n < end; n++)
    for (size_t c = 0; c < channels; c += LANES) {
      size_t count = channels - c < LANES ? channels - c : LANES;
      vector s[LANES] = {}, q[LANES] = {};
      for (size_t j = 0; j < count; j++) {
        size_t at = (n * channels + c + j) * inner;
        if (!back && n == begin) sums->k[c + j] = mean_of(x + at, sampled, 1);
        row_sums(back, dy + at, x + at, all(shift[c + j]), &s[j], &q[j]);
      }
      if (count == LANES) {
        add_rows(sums->a + c, s, LANES);
        add_rows(sums->b + c, q, LANES);
      } else {
        add_rows(sums->a + c, s, count);
        add_rows(sums->b + c, q, count);
      }
    }
}

/* --- sums: channels last --------------------------------------------------------------------------------------- */

/* Elements past the last whole period belong to the last thread. */
static void ends(int thread, size_t *begin, size_t *end, size_t *rest) {
  size_t rows = samples * inner / folds;
  *begin = from(rows, thread);
  *end = from(rows, thread + 1);
  *rest = thread == job.threads - 1 ? samples * inner * channels - rows * period : 0;
}

/* Calls a function that is inlined with a constant number of vectors, so that those of a short row stay in registers. */
#define FOR_VECTORS(call)        \
  switch (period / LANES) {      \
    case 1: call(1); break;      \
    case 2: call(2); break;      \
    case 3: call(3); break;      \
    case 4: call(4); break;      \
    case 5: call(5); break;      \
    case 6: call(6); break;      \
    case 7: call(7); break;      \
    case 8: call(8); break;      \
    default: call(0);            \
  }

/* A block of short rows, in the order of memory. */
generic void short_sums(int back, size_t at, const float *shift, struct sums *sums, size_t vectors) {
  vector s[8] = {}, q[8] = {};
  for (size_t r = 0; r < MANY_ROWS; r++)
    for (size_t v = 0; v < vectors; v++) {
      size_t p = at + (r * vectors + v) * LANES;
      vector d = load(x + p) - *(vector *)(shift + v * LANES), t = back ? load(dy + p) : d;
      s[v] += t;
      q[v] += t * d;
    }
  for (size_t v = 0; v < vectors; v++) {
    widen(sums->a + v * LANES, s[v]);
    widen(sums->b + v * LANES, q[v]);
  }
}

/* A block of rows of any length, vector by vector; inlined with a constant number of rows. */
generic void rows_sums(int back, size_t at, const float *shift, struct sums *sums, size_t rows) {
  for (size_t v = 0; v < period; v += LANES) {
    vector k = *(vector *)(shift + v), s = {}, q = {};
    for (size_t r = 0; r < rows; r++) {
      size_t p = at + r * period + v;
      vector d = load(x + p) - k, t = back ? load(dy + p) : d;
      s += t;
      q += t * d;
    }
    widen(sums->a + v, s);
    widen(sums->b + v, q);
  }
}

/* A shift near the means of a thread's rows: that of the first few. */
static void shift_last(struct sums *sums, const float *at) {
  size_t sampled = sums->count < FEW_ROWS ? sums->count : FEW_ROWS;
  for (size_t c = 0; c < channels; c++) sums->k[c] = mean_of(at + c, sampled, channels);
  for (size_t c = channels; c < period; c++) sums->k[c] = sums->k[c - channels];
}

generic void sums_last(int back, int thread) {
  struct sums *sums = &part[thread];
  size_t begin, end, rest, r;
  ends(thread, &begin, &end, &rest);
  sums->count = (end - begin) * folds + rest / channels;
  if (sums->count == 0) return;
  if (!back) shift_last(sums, x + begin * period);
  const float *shift = back ? factors[thread].mean : sums->k;
  r = begin;
#define BLOCKS(vectors) \
  if (vectors) for (; r + MANY_ROWS <= end; r += MANY_ROWS) short_sums(back, r * period, shift, sums, vectors)
  FOR_VECTORS(BLOCKS)
#undef BLOCKS
  if (period <= SHORT)
    for (; r + MANY_ROWS <= end; r += MANY_ROWS) rows_sums(back, r * period, shift, sums, MANY_ROWS);
  for (; r + FEW_ROWS <= end; r += FEW_ROWS) rows_sums(back, r * period, shift, sums, FEW_ROWS);
  for (; r < end; r++) rows_sums(back, r * period, shift, sums, 1);
  for (size_t i = 0; i < rest; i++) {
    float d = x[end * period + i] - shift[i], t = back ? dy[end * period + i] : d;
    sums->a[i] += t;
    sums->b[i] += (double)t * d;
  }
  /* Sums of a period become those of channels. */
  for (size_t c = channels; c < period; c++) {
    sums->a[c % channels] += sums->a[c];
    sums->b[c % channels] += sums->b[c];
  }
}

/* --- what the sums give ---------------------------------------------------------------------------------------- */

/* Of channels they become those of a period, channels last. */
static void repeat(struct factors f) {
  float *all[] = {f.mean, f.a, f.b, f.c};
  for (size_t i = 0; last && i < sizeof all / sizeof *all; i++)
    for (size_t c = channels; c < period; c++) all[i][c] = all[i][c - channels];
}

/* Every thread merges for itself: it costs less than another meeting. */
static void forward_factors(int thread) {
  struct factors f = factors[thread];
  double total = (double)samples * inner, inverse[MAX_THREADS];
  for (int t = 0; t < job.threads; t++) inverse[t] = part[t].count ? 1 / (double)part[t].count : 0;
  for (size_t c = 0; c < channels; c++) {
    double count = part[0].count, shifted = part[0].a[c] * inverse[0];
    double mean = part[0].k[c] + shifted, m2 = part[0].b[c] - part[0].a[c] * shifted;
    for (int t = 1; t < job.threads; t++) {
      double n = part[t].count, s = part[t].a[c] * inverse[t], delta = part[t].k[c] + s - mean;
      double share = n / (count + n);
      m2 += part[t].b[c] - part[t].a[c] * s + delta * delta * count * share;
      mean += delta * share;
      count += n;
    }
    double invstd = 1 / sqrt(m2 / total + EPS), a = weight[c] * invstd;
    f.mean[c] = mean;
    f.a[c] = a;
    f.b[c] = bias[c] - (mean - f.mean[c]) * a;
    if (thread == 0) {
      means[c] = mean;
      invstds[c] = invstd;
    }
  }
  repeat(f);
}

static void backward_factors(int thread) {
  struct factors f = factors[thread];
  double inverse = 1 / ((double)samples * inner);
  for (size_t c = 0; c < channels; c++) {
    double sum = 0, product = 0, low = means[c] - f.mean[c], s = invstds[c];
    for (int t = 0; t < job.threads; t++) {
      sum += part[t].a[c];
      product += part[t].b[c];
    }
    product -= low * sum;
    double a = weight[c] * s, b = -a * s * s * product * inverse;
    f.a[c] = a;
    f.b[c] = b;
    f.c[c] = -a * sum * inverse - b * low;
    if (thread == 0) {
      dweight[c] = product * s;
      dbias[c] = sum;
    }
  }
  repeat(f);
}

/* --- what is written ------------------------------------------------------------------------------------------- */

#define PUT(to, v)                        \
  do {                                    \
    if (streaming) store_past(to, v);     \
    else store(to, v);                    \
  } while (0)

/* y = d * a + b or dx = dy * a + (d * b + c), where d = x - mean: an element, and a vector of any width. */
#define VALUE(g, d, a, b, c) (back ? (g) * (a) + ((d) * (b) + (c)) : (d) * (a) + (b))

generic void write_first(int back, int thread, int streaming) {
  struct factors f = factors[thread];
  for (size_t n = from(samples, thread), end = from(samples, thread + 1); n < end; n++)
    for (size_t ch = 0; ch < channels; ch++) {
      size_t at = (n * channels + ch) * inner, i = 0;
      const float *row = x + at, *g = dy + at;
      float *to = (back ? dx : y) + at;
      vector mean = all(f.mean[ch]), a = all(f.a[ch]), b = all(f.b[ch]), c = all(f.c[ch]);
      for (; i + 4 * LANES <= inner; i += 4 * LANES)
        for (int j = 0; j < 4; j++) {
          size_t p = i + j * LANES;
          PUT(to + p, VALUE(load(g + p), load(row + p) - mean, a, b, c));
        }
      for (; i + LANES <= inner; i += LANES) PUT(to + i, VALUE(load(g + i), load(row + i) - mean, a, b, c));
      if (i < inner) {
        size_t n = inner - i;
        store_part(to + i, VALUE(load_part(g + i, n), load_part(row + i, n) - mean, a, b, c), n);
      }
    }
}

generic void write_rows(int back, struct factors f, size_t begin, size_t end, size_t vectors, int streaming) {
  float *to = back ? dx : y;
  for (size_t r = begin; r < end; r++)
    for (size_t v = 0; v < vectors; v++) {
      size_t i = v * LANES, p = r * vectors * LANES + i;
      vector a = *(vector *)(f.a + i), b = *(vector *)(f.b + i), c = *(vector *)(f.c + i);
      PUT(to + p, VALUE(load(dy + p), load(x + p) - *(vector *)(f.mean + i), a, b, c));
    }
}

generic void write_last(int back, int thread, int streaming) {
  struct factors f = factors[thread];
  float *to = back ? dx : y;
  size_t begin, end, rest;
  ends(thread, &begin, &end, &rest);
#define ROWS(vectors) write_rows(back, f, begin, end, vectors ? vectors : period / LANES, streaming)
  FOR_VECTORS(ROWS)
#undef ROWS
  for (size_t i = 0; i < rest; i++) {
    size_t p = end * period + i;
    to[p] = VALUE(dy[p], x[p] - f.mean[i], f.a[i], f.b[i], f.c[i]);
  }
}

generic void copy(int thread, int streaming) {
  size_t vectors = samples * channels * inner / LANES;
  for (size_t i = from(vectors, thread), end = from(vectors, thread + 1); i < end; i++)
    PUT(y + i * LANES, load(x + i * LANES));
}

/* --- calls ----------------------------------------------------------------------------------------------------- */

generic void write(enum kind kind, int thread, int streaming) {
  if (kind == COPY) copy(thread, streaming);
  else if (last) write_last(kind == BOTH, thread, streaming);
  else write_first(kind == BOTH, thread, streaming);
  if (streaming) fence();
}

/* FORWARD, backward, which is what BOTH has besides, or COPY. */
generic void pass(enum kind kind, int thread) {
  if (kind != COPY) {
    memset(part[thread].a, 0, period * sizeof(double));
    memset(part[thread].b, 0, period * sizeof(double));
    if (last) sums_last(kind == BOTH, thread);
    else sums_first(kind == BOTH, thread);
    meet();
    if (kind == BOTH) backward_factors(thread);
    else forward_factors(thread);
  }
  if (job.streaming) write(kind, thread, 1);
  else write(kind, thread, 0);
  meet();
}

/* Functions of their own, so that each has all registers. */
static __attribute__((noinline)) void copying(int thread) { pass(COPY, thread); }
static __attribute__((noinline)) void forward(int thread) { pass(FORWARD, thread); }
static __attribute__((noinline)) void backward(int thread) { pass(BOTH, thread); }

static void work(int thread) {
  for (long i = 0; i < job.calls; i++) {
    if (job.kind == COPY) copying(thread);
    else forward(thread);
    if (job.kind == BOTH) backward(thread);
  }
}

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Nanoseconds of all calls. */
static long long run(enum kind kind, int threads, int streaming, long calls) {
  long long start = 0;
  job.kind = kind;
  job.threads = samples * channels * inner < ALONE ? 1 : threads;
  job.streaming = streaming;
  job.calls = calls;
#pragma omp parallel num_threads(job.threads)
  {
    int thread = omp_get_thread_num();
    meet(); /* The clock starts when all are awake. */
    if (thread == 0) start = now();
    work(thread);
  }
  return now() - start;
}

/* --- memory and messages --------------------------------------------------------------------------------------- */

/* What a batch has in memory, so that all of it can be freed. */
static void *made[16 + 8 * MAX_THREADS];
static size_t pieces;

static void *make(size_t count, size_t size) {
  size_t bytes = (count * size + 4095) / 4096 * 4096;
  void *memory = aligned_alloc(4096, bytes ? bytes : 4096);
  if (!memory) exit(2);
  memset(memory, 0, bytes);
  return made[pieces++] = memory;
}

static float *receive(size_t count) {
  float *values = make(count, sizeof(float));
  if (fread(values, sizeof(float), count, stdin) != count) exit(1);
  return values;
}

static size_t common(size_t a, size_t b) { return b ? common(b, a % b) : a; }

static void prepare(void) {
  size_t elements = samples * channels * inner;
  if (inner == 1) last = 1; /* The same memory, and rows of whole vectors. */
  folds = last ? LANES / common(channels, LANES) : 1;
  period = channels * folds;
  x = receive(elements);
  dy = receive(elements);
  weight = receive(channels);
  bias = receive(channels);
  y = make(elements, sizeof(float));
  dx = make(elements, sizeof(float));
  dweight = make(channels, sizeof(float));
  dbias = make(channels, sizeof(float));
  means = make(channels, sizeof(double));
  invstds = make(channels, sizeof(double));
  for (int t = 0; t < MAX_THREADS; t++) {
    part[t] = (struct sums){make(period, sizeof(double)), make(period, sizeof(double)), make(period, sizeof(float)), 0};
    struct factors *f = &factors[t];
    float **vectors[] = {&f->mean, &f->a, &f->b, &f->c};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) *vectors[i] = make(period, sizeof(float));
  }
}

static void send(const float *values, size_t count) { fwrite(values, sizeof(float), count, stdout); }

int main(void) {
  char line[256], format[32], kind[32], stores[32];
  puts("GCC " __VERSION__);
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    int threads;
    long calls;
    if (sscanf(line, "prepare %31s %zu %zu %zu", format, &samples, &channels, &inner) == 4) {
      last = !strcmp(format, "channelsLast");
      prepare();
      puts("ready");
    } else if (sscanf(line, "run %31s %d %31s %ld", kind, &threads, stores, &calls) == 4) {
      int streaming = !strcmp(stores, "streaming");
      enum kind what = !strcmp(kind, "copy") ? COPY : !strcmp(kind, "both") ? BOTH : FORWARD;
      /* Such stores need whole cache lines. */
      if (streaming && (!CAN_STREAM || (!last && inner % LANES))) puts("none");
      else printf("%lld\n", run(what, threads, streaming, calls));
    } else if (sscanf(line, "results %d %31s", &threads, stores) == 2) {
      size_t elements = samples * channels * inner;
      memset(y, 0, elements * sizeof(float));
      memset(dx, 0, elements * sizeof(float));
      run(BOTH, threads, !strcmp(stores, "streaming"), 1);
      puts("ready");
      send(y, elements);
      send(dx, elements);
      send(dweight, channels);
      send(dbias, channels);
    } else if (!strncmp(line, "free", 4)) {
      while (pieces > 0) free(made[--pieces]);
      puts("ready");
    } else {
      return 1;
    }
    fflush(stdout);
  }
  return 0;
}
