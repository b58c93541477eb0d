/*
 * The phases of a ResNet-50's batch norms in plain C, local and with MPI_Allreduce between them: what two ranks that share
 * this machine's memory lose by meeting 106 times a step, whatever library they use.
 *
 * usage: raw_steps IMAGES EXTENT ROUNDS SECONDS
 *
 * A layer reads x (sums), meets, and writes y; then reads x and dy (sums), meets, and writes dx: 3 and 5 passes over a
 * tensor. In turns a step without meeting, and one with. Rank 0 prints lines of JSON: {"local": ms} for a step without, and
 * for one with what every rank noted, [began, ended, came, left, came, left, ...], in ms by its own clock.
 */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LAYERS = 53, MOST_CHANNELS = 2048, NOTES = 2 + 4 * LAYERS };

static int images, extent, rank, ranks, layers;
static struct {
  int channels;
  long inner;
  float *x, *dy;
} layer[LAYERS];
static float *result;
static double sent[2 * MOST_CHANNELS + 1], received[2 * MOST_CHANNELS + 1], notes[NOTES];
static int noted;

static double now(void) { return 1e3 * MPI_Wtime(); }

static float *filled(long length, float first) {
  float *values = malloc(length * sizeof(float));
  if (!values) MPI_Abort(MPI_COMM_WORLD, 1);
  for (long i = 0; i < length; i++) values[i] = first + (float)(i % 251) / 251;
  return values;
}

/* Layers of one shape share an input and a gradient. */
static void add(int channels, int side) {
  const long inner = (long)side * side;
  int same = 0;
  while (same < layers && (layer[same].channels != channels || layer[same].inner != inner)) same++;
  layer[layers].channels = channels;
  layer[layers].inner = inner;
  layer[layers].x = same < layers ? layer[same].x : filled(images * channels * inner, 0);
  layer[layers].dy = same < layers ? layer[same].dy : filled(images * channels * inner, -0.5f);
  layers++;
}

static void meet(int length, int together) {
  if (!together) return;
  notes[noted++] = now();
  MPI_Allreduce(sent, received, length, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  notes[noted++] = now();
}

/* Sums of a and of a * b over a row, in eight lanes, as vectors add them. */
static void sums(const float *a, const float *b, long length, double *sum, double *product) {
  float s[8] = {0}, p[8] = {0};
  for (long i = 0; i + 8 <= length; i += 8)
    for (int j = 0; j < 8; j++) {
      s[j] += a[i + j];
      p[j] += a[i + j] * b[i + j];
    }
  for (int j = 0; j < 8; j++) {
    *sum += s[j];
    *product += p[j];
  }
}

static void reduce(int i, const float *a, const float *b) {
  const int channels = layer[i].channels;
  for (int c = 0; c < 2 * channels + 1; c++) sent[c] = 0;
  for (int n = 0; n < images; n++)
    for (int c = 0; c < channels; c++) {
      const long at = ((long)n * channels + c) * layer[i].inner;
      sums(a + at, b + at, layer[i].inner, &sent[c], &sent[channels + c]);
    }
}

static void write_result(int i, const float *a, const float *b, float scale, float other) {
  const long length = images * layer[i].channels * layer[i].inner;
  if (b)
    for (long k = 0; k < length; k++) result[k] = a[k] * scale + b[k] * other + 1;
  else
    for (long k = 0; k < length; k++) result[k] = a[k] * scale + other;
}

static void step(int together) {
  noted = 0;
  notes[noted++] = now();
  noted++;
  for (int i = 0; i < layers; i++) {
    reduce(i, layer[i].x, layer[i].x);
    meet(2 * layer[i].channels + 1, together);
    write_result(i, layer[i].x, 0, 0.5f, 0.25f);
  }
  for (int i = layers - 1; i >= 0; i--) {
    reduce(i, layer[i].dy, layer[i].x);
    meet(2 * layer[i].channels, together);
    write_result(i, layer[i].dy, layer[i].x, 0.5f, 0.25f);
  }
  notes[1] = now();
}

static void print_notes(const double *all) {
  for (int r = 0; r < ranks; r++) {
    printf("%s[", r ? "," : "[");
    for (int i = 0; i < noted; i++) printf(i ? ",%.4f" : "%.4f", all[r * noted + i]);
    printf("]");
  }
  printf("]\n");
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: %s IMAGES EXTENT ROUNDS SECONDS\n", argv[0]);
    return 2;
  }
  alarm((unsigned)atoi(argv[4]));
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  images = atoi(argv[1]);
  extent = atoi(argv[2]);
  const int stages[4][3] = {{64, 3, 4}, {128, 4, 8}, {256, 6, 16}, {512, 3, 32}};
  add(64, extent / 2);
  for (int s = 0; s < 4; s++) {
    const int width = stages[s][0], side = extent / stages[s][2];
    for (int block = 0; block < stages[s][1]; block++) {
      add(width, side);
      add(width, side);
      add(4 * width, side);
    }
    add(4 * width, side);
  }
  long longest = 0;
  for (int i = 0; i < layers; i++) {
    const long length = images * layer[i].channels * layer[i].inner;
    if (length > longest) longest = length;
  }
  result = filled(longest, 0);
  double *all = malloc(sizeof(double) * ranks * NOTES);
  if (!all) MPI_Abort(MPI_COMM_WORLD, 1);
  for (int round = 0; round <= atoi(argv[3]); round++)
    for (int together = 0; together < 2; together++) {
      MPI_Barrier(MPI_COMM_WORLD);
      step(together);
      MPI_Gather(notes, noted, MPI_DOUBLE, all, noted, MPI_DOUBLE, 0, MPI_COMM_WORLD);
      if (rank > 0 || round == 0) continue; /* The first round warms up. */
      if (together) print_notes(all);
      else printf("{\"local\":%.4f}\n", notes[1] - notes[0]);
    }
  MPI_Finalize();
  return 0;
}
