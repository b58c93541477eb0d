/*
 * What MPI itself takes for an all-reduce of float64 sums: the floor that the MPI group is held against.
 *
 * usage: raw_mpi allreduce|iallreduce ROUNDS MILLISECONDS SECONDS LENGTH...
 *
 *   allreduce    MPI_Allreduce
 *   iallreduce   MPI_Iallreduce and MPI_Test until it is done, as the MPI group does
 *
 * From a send buffer to a receive buffer, as the OSU benchmarks do it, and as the MPI group, which keeps what was given
 * apart from what comes back.
 *
 * Each length is checked once. Then a round is a barrier and k calls in a row; its time is the slowest rank's, divided
 * by k, as in a loop that times batches of calls from outside. k doubles until a round takes MILLISECONDS, which warms
 * up too. Rank 0 prints a line of JSON per length: the median and the fastest of ROUNDS rounds, in microseconds per
 * call. A rank that still runs after SECONDS is ended by its own alarm, so that none is ever left behind.
 */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_LENGTH = 5, MOST_CALLS = 1 << 20 };

/* The call, which stays, and the buffers of one length. */
static int nonblocking, rank, ranks, length;
static double *send, *receive;

static void all_reduce(void) {
  if (!nonblocking) {
    MPI_Allreduce(send, receive, length, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return;
  }
  MPI_Request request;
  int done = 0;
  MPI_Iallreduce(send, receive, length, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD, &request);
  while (!done) MPI_Test(&request, &done, MPI_STATUS_IGNORE);
}

/* Seconds that so many calls take on the slowest rank; the same number on every rank. */
static double round_of(int calls) {
  double slowest;
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int i = 0; i < calls; i++) all_reduce();
  const double elapsed = MPI_Wtime() - start;
  MPI_Allreduce(&elapsed, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

/* Adds up what differs by rank and place. Ends the job where a sum is wrong. */
static void check(void) {
  for (int i = 0; i < length; i++) send[i] = (rank + 1.0) * (i + 1.0);
  all_reduce();
  for (int i = 0; i < length; i++) {
    const double expected = ranks * (ranks + 1.0) / 2 * (i + 1.0);
    if (receive[i] == expected) continue;
    fprintf(stderr, "Cannot time a wrong sum: element %d must be %g, current value is %g\n", i, expected, receive[i]);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* The first line of the library's own description, without what JSON would have to escape. */
static const char *library(void) {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int size;
  MPI_Get_library_version(text, &size);
  text[strcspn(text, "\n")] = 0;
  for (char *c = text; *c; c++) {
    if (*c < ' ' || *c == '"' || *c == '\\') *c = ' ';
  }
  return text;
}

static void measure(int rounds, double least) {
  double *times = calloc(rounds, sizeof(double));
  send = calloc(length, sizeof(double));
  receive = calloc(length, sizeof(double));
  if (!send || !receive || !times) MPI_Abort(MPI_COMM_WORLD, 1);
  check();
  int calls = 1;
  while (round_of(calls) < least && calls < MOST_CALLS) calls *= 2;
  for (int i = 0; i < rounds; i++) times[i] = 1e6 * round_of(calls) / calls;
  qsort(times, rounds, sizeof(double), ascending);
  if (rank == 0) {
    printf("{\"library\":\"%s\",\"ranks\":%d,\"length\":%d,\"median\":%.4f,\"fastest\":%.4f}\n", library(), ranks,
           length, times[rounds / 2], times[0]);
    fflush(stdout);
  }
  free(send);
  free(receive);
  free(times);
}

int main(int argc, char **argv) {
  if (argc <= FIRST_LENGTH || atoi(argv[2]) < 1) {
    fprintf(stderr, "usage: %s allreduce|iallreduce ROUNDS MILLISECONDS SECONDS LENGTH...\n", argv[0]);
    return 2;
  }
  alarm((unsigned)atoi(argv[4]));
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  nonblocking = !strcmp(argv[1], "iallreduce");
  for (int i = FIRST_LENGTH; i < argc; i++) {
    length = atoi(argv[i]);
    measure(atoi(argv[2]), atof(argv[3]) / 1e3);
  }
  MPI_Finalize();
  return 0;
}
